"""Batches of small dense quadratic programs as arrays: residuals, Newton, KKT systems, for all instances at once.

    minimize ½ xᵀPx + qᵀx   subject to   Ax + s = b,   s ∈ {0}^zero × ℝ₊^…;        v = s − y

Written on the array API standard: the same lines run on NumPy, PyTorch and JAX arrays, on the arrays' own device. The
reduced KKT systems differ in size from instance to instance. Here all have the size of the largest: the tight rows of
each instance come first, and a place that it does not need keeps as  −w = 0.

    K = [ P   A_tᵀM ;  M A_t   M − I ],      t: tight rows, then others up to the batch's largest number of tight rows
                                             M = diag(1 where the row is tight, 0 where it is not)

Where that would save too little to pay for the sorting, t is all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cvxift.kkt.arrays import Array, Arrays
from cvxift.kkt.factor import REFINE_GOAL
from cvxift.kkt.newton import GOAL, MAX_STEPS, SHRINK
from cvxift.kkt.residuals import EXACT, FLOOR, TINY

CERTIFIED = 1e-12  # relative residual up to which a solve is taken
SINGULAR = 1e13  # bound on ‖K‖‖K⁻¹r‖ for a fixed r, likewise
WORTH_SORTING = 6e5  # B((n + m)³ − (n + t)³) from which leaving out slack rows pays for sorting them
GROWTH = 1e10  # bound on ‖K‖‖u‖/‖f‖, a lower bound of the condition number, up to which it is taken


@dataclass(frozen=True, eq=False)
class DensePrograms:
    """The matrices of a batch of quadratic programs.

    Attributes:
        place: where the arrays live.
        P: shape (B, n, n).
        q: shape (B, n).
        A: shape (B, m, n).
        b: shape (B, m).
        zero: number of equality rows, which come first.
    """

    place: Arrays
    P: Array
    q: Array
    A: Array
    b: Array
    zero: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """B, m, n."""
        B, m, n = self.A.shape
        return B, m, n

    @cached_property
    def _half(self) -> Array:
        """½ in the rows of the nonnegative cone, 0 in the equality rows, shape (m,)."""
        return self.place.put(np.where(np.arange(self.shape[1]) >= self.zero, 0.5, 0.0))

    @cached_property
    def _equality(self) -> Array:
        return self._half == 0.0

    def slacks(self, v: Array) -> Array:
        """s = Π_K(v), shape (B, m)."""
        return self._half * (v + self.place.xp.abs(v))  # exact: v + |v| is 2v or 0

    def tight(self, v: Array) -> Array:
        """Rows that carry a multiplier change, shape (B, m); v = 0, the kink, counts as slack."""
        return (v < 0.0) | self._equality

    def errors(self, x: Array, v: Array) -> tuple[Array, Array, Array]:
        """Dual error (B, n), primal error (B, m) and their relative sizes (B, 2): primal, dual."""
        xp = self.place.xp
        s = self.slacks(v)
        Px, ATy, Ax = _apply(self.P, x), _apply(xp.matrix_transpose(self.A), s - v), _apply(self.A, x)
        dual, primal = Px + self.q + ATy, Ax + s - self.b
        return dual, primal, self._relative(dual, primal, x, s - v)

    def _relative(self, dual: Array, primal: Array, x: Array, y: Array) -> Array:
        """Primal and dual residual, relative to each row's and column's own size as in `Scales.measure`, (B, 2)."""
        xp = self.place.xp
        worst = xp.stack([_worst(xp, primal), _worst(xp, dual)], axis=-1)
        if self.place.reads_freely and bool(xp.all(worst <= EXACT * self._least)):
            return worst / xp.clip(self._least, min=TINY)
        A, a, b, p, q = self._sizes
        size = 1.0 + _worst(xp, x)[:, None]
        columns = q + p * size
        cost = _worst(xp, columns)[:, None]
        cost = xp.where(cost > 0.0, cost, xp.ones_like(cost))
        rows = xp.where(a > 0.0, a, xp.ones_like(a))
        force = xp.abs(y)
        unit = FLOOR * xp.maximum(cost, _worst(xp, rows * force)[:, None])
        force = force + xp.where(y != 0.0, unit / rows, xp.zeros_like(rows))
        columns = xp.clip(columns + _apply(xp.matrix_transpose(A), force), min=TINY)
        return xp.stack([_worst(xp, primal / (rows * size + b)), _worst(xp, dual / columns)], axis=-1)

    @cached_property
    def _sizes(self) -> tuple[Array, Array, Array, Array, Array]:
        """|A|, its row sums, |b|, row sums of |P|, |q|."""
        xp = self.place.xp
        A = xp.abs(self.A)
        return A, xp.sum(A, axis=-1), xp.abs(self.b), xp.sum(xp.abs(self.P), axis=-1), xp.abs(self.q)

    @cached_property
    def _least(self) -> Array:
        """Lower bounds of the sizes of all rows and of all columns, whatever x and y, shape (B, 2)."""
        xp = self.place.xp
        _, a, b, p, q = self._sizes
        return xp.stack([_least(xp, a + b), _least(xp, q + p)], axis=-1)


class DenseSystems:
    """The KKT systems of a batch on its active sets; factorized at the first solve.

    Args:
        programs: the batch.
        tight: rows that carry a multiplier change, shape (B, m).
        most: the largest number of them in an instance; None to count.
    """

    def __init__(self, programs: DensePrograms, tight: Array, most: int | None) -> None:
        place, xp = programs.place, programs.place.xp
        B, m, n = programs.shape
        self._place, self._n, self._out = place, n, (B, m)
        self._rows: Array | None = None
        if B * ((n + m) ** 3 - n**3) > WORTH_SORTING:  # else no number of tight rows would make it worth while
            if most is None:
                most = int(xp.max(xp.sum(xp.astype(tight, xp.int64), axis=-1)))
            if B * ((n + m) ** 3 - (n + most) ** 3) > WORTH_SORTING:
                self._sort(tight, most)
        most = m if most is None or self._rows is None else most
        self._most = most
        self._kept = xp.astype(self._gather(tight), xp.float64)
        A_t = programs.A
        if self._rows is not None:
            A_t = xp.reshape(xp.take(xp.reshape(A_t, (B * m, n)), self._rows, axis=0), (B, most, n))
        A_t = A_t * self._kept[..., None]
        unused = xp.eye(most, dtype=xp.float64, device=place.device) * (self._kept - 1.0)[..., None]
        top = xp.concat([programs.P, xp.matrix_transpose(A_t)], axis=-1)
        self.K = xp.concat([top, xp.concat([A_t, unused], axis=-1)], axis=-2)

    def _sort(self, tight: Array, most: int) -> None:
        """Tight rows first, in order: which rows have a place, and which place a row has, the last if none."""
        place, xp, (B, m) = self._place, self._place.xp, self._out
        number = xp.arange(B, dtype=xp.int64, device=place.device)[:, None]
        order = xp.argsort(xp.astype(~tight, xp.int8), axis=-1, stable=True)[:, :most]
        self._rows = xp.reshape(order + m * number, (-1,))
        slot = xp.cumulative_sum(xp.astype(tight, xp.int64), axis=-1) - 1
        slot = xp.where(tight, slot, xp.full_like(slot, most)) + (most + 1) * number
        self._slot = xp.reshape(slot, (-1,))

    @cached_property
    def _factor(self) -> Any:
        return self._place.factor(self.K)

    @cached_property
    def _size(self) -> Array:
        """‖K‖ (largest entry) of each, shape (B,)."""
        xp = self._place.xp
        return xp.max(xp.abs(self.K), axis=(-1, -2))

    @cached_property
    def _regular(self) -> Array:
        """Which K are not singular to working precision, shape (B,)."""
        return self._size * self._factor.growth() <= SINGULAR

    def _gather(self, values: Array) -> Array:
        """Values on the rows (..., B, m) as values on the places (..., B, most)."""
        if self._rows is None:
            return values
        xp, lead = self._place.xp, tuple(values.shape[:-2])
        flat = xp.reshape(values, (*lead, self._out[0] * self._out[1]))
        return xp.reshape(xp.take(flat, self._rows, axis=-1), (*lead, self._out[0], self._most))

    def solve(self, g: Array, h: Array) -> tuple[Array, Array, Array]:
        """Solve P u + Aᵀw = g, A_t u = h_t, w = 0 elsewhere.

        Args:
            g: right-hand sides on columns, shape (B, n), or (k, B, n) for k of them an instance.
            h: right-hand sides on rows, shape (B, m) or (k, B, m).

        Returns:
            u and w, of the shapes of g and h; and which instances are certified: the residual is small and the growth
            ‖K‖‖u‖/‖f‖ does not point to a singular system, shape (B,).
        """
        xp = self._place.xp
        f = xp.concat([g, self._gather(h) * self._kept], axis=-1)
        u = self._factorized(f)
        rest = f - _apply(self.K, u)
        certified = self._certified(f, u, rest)
        if not (self._place.reads_freely and bool(xp.all(certified))):
            # One step of refinement costs two small products; on a device, less than asking whether it is needed.
            better = u + self._factorized(rest)
            rest_better = f - _apply(self.K, better)
            falls = (_worst(xp, rest_better) < _worst(xp, rest))[..., None]
            u, rest = xp.where(falls, better, u), xp.where(falls, rest_better, rest)
            certified = self._certified(f, u, rest)
        if self._rows is None:
            return u[..., : self._n], u[..., self._n :], certified
        lead = tuple(u.shape[:-2])
        w = xp.concat([u[..., self._n :], self._place.zeros(*lead, self._out[0], 1)], axis=-1)
        w = xp.take(xp.reshape(w, (*lead, self._out[0] * (self._most + 1))), self._slot, axis=-1)
        return u[..., : self._n], xp.reshape(w, (*lead, *self._out)), certified

    def _factorized(self, f: Array) -> Array:
        """K⁻¹ f, shape (B, N) or (k, B, N)."""
        xp = self._place.xp
        if f.ndim == 2:
            return self._factor.solve(f[..., None])[..., 0]
        return xp.moveaxis(self._factor.solve(xp.moveaxis(f, 0, -1)), -1, 0)

    def _certified(self, f: Array, u: Array, rest: Array) -> Array:
        xp = self._place.xp
        size = _worst(xp, f)
        small = _worst(xp, rest) <= CERTIFIED * size
        certified = small & self._regular & (self._size * _worst(xp, u) <= GROWTH * (size + REFINE_GOAL))
        return certified if f.ndim == 2 else xp.all(certified, axis=0)


@dataclass(frozen=True, eq=False)
class DensePoints:
    """Primal-dual points of a batch.

    Attributes:
        x: shape (B, n).
        v: s − y, shape (B, m).
        residuals: relative, primal and dual, on the host, shape (B, 2).
        most: largest number of tight rows in an instance; None if it was not counted.
    """

    x: Array
    v: Array
    residuals: np.ndarray
    most: int | None

    @cached_property
    def worst(self) -> np.ndarray:
        """The larger residual of each instance, shape (B,); NaN counts as infinite."""
        worst = self.residuals.max(axis=-1)
        worst[np.isnan(worst)] = np.inf
        return worst


def check(programs: DensePrograms, x: Array, v: Array) -> tuple[DensePoints, Array, Array]:
    """The points with their residuals, and the errors (B, n) and (B, m): one read of 3B numbers from a device."""
    place, xp = programs.place, programs.place.xp
    dual, primal, residuals = programs.errors(x, v)
    if place.reads_freely:
        return DensePoints(x, v, residuals, None), dual, primal
    tight = xp.sum(xp.astype(programs.tight(v), xp.float64), axis=-1, keepdims=True)
    report = place.host(xp.concat([residuals, tight], axis=-1))  # one read for both
    return DensePoints(x, v, report[:, :2], int(report[:, 2].max(initial=0.0))), dual, primal


def polish(
    programs: DensePrograms, x: Array, v: Array, *, goal: float = GOAL, max_steps: int = MAX_STEPS
) -> DensePoints:
    """Newton on all instances until no residual above the goal falls any more.

    A step is kept only in the instances where its system is certified and the residual falls: a singular system is left
    to whoever takes the instance alone. Each step reads 3B numbers from a device.

    Args:
        programs: the batch.
        x: columns, shape (B, n).
        v: s − y, shape (B, m).
        goal: relative residual from which an instance is left as it is.
        max_steps: largest number of steps.

    Returns:
        The best points found.
    """
    place, xp = programs.place, programs.place.xp
    point, dual, primal = check(programs, x, v)
    for _ in range(max_steps):
        if point.worst.max(initial=0.0) <= goal:
            break
        wanting = (point.worst > goal) & np.isfinite(point.worst)
        if not wanting.any():
            break
        dx, dy, certified = DenseSystems(programs, programs.tight(v), point.most).solve(-dual, -primal)
        dv = -primal - _apply(programs.A, dx) - dy
        least = place.put(np.where(wanting, point.worst, -np.inf))
        bound = 0.9 * least  # the longest step that takes a tenth off is taken
        new_x, new_v, taken = x, v, (least < 0.0) | ~certified
        for length in SHRINK:
            trial_x, trial_v = x + length * dx, v + length * dv
            worst = xp.max(programs.errors(trial_x, trial_v)[2], axis=-1)
            take = (worst < bound) & ~taken
            new_x = xp.where(take[:, None], trial_x, new_x)
            new_v = xp.where(take[:, None], trial_v, new_v)
            taken = taken | take
        new, new_dual, new_primal = check(programs, new_x, new_v)
        if not (new.worst < point.worst).any():
            break
        x, v, point, dual, primal = new_x, new_v, new, new_dual, new_primal
    return point


def _apply(M: Array, x: Array) -> Array:
    """M_b x_b for every b; x is (B, n) or (k, B, n)."""
    return (M @ x[..., None])[..., 0]


def _least(xp: Any, values: Array) -> Array:
    """The smallest along the last axis, ∞ for an empty one."""
    if not values.shape[-1]:
        return xp.sum(values, axis=-1) + float("inf")
    return xp.min(values, axis=-1)


def _worst(xp: Any, values: Array) -> Array:
    """‖·‖∞ along the last axis, 0 for an empty one."""
    if not values.shape[-1]:
        return xp.sum(values, axis=-1)
    return xp.max(xp.abs(values), axis=-1)
