"""The KKT systems of a batch of small dense programs, all of one size, by one batched factorization.

With D = DΠ_K(v) = Q diag(d) Qᵀ and A_Q = QᵀA, the system of `cvxift.kkt.system.reduced` has the directions with d < 1,
whose number differs from instance to instance. Here all systems have the size of the largest: the directions with d < 1
of each instance come first, and a place that it does not need keeps as  −w = 0. Directions are scaled so that d may be
anything between 0 (tight) and 1 (slack, where M = 0):

    K = [ P   A_rᵀM ;  M A_r   −diag(d_r) ],    M = diag(√(1 − d_r)),    w = Q_r M ŵ
    r: the rows of A_Q with d < 1, then others up to the batch's largest number of them

The system with A_r, −H, H = d/(1 − d), is this one with row and column i divided by √(1 − d_i). For linear constraints
Q = I and M is 0 or 1. Where leaving out slack directions would save too little to pay for the sorting, r is all rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxift._types import cached_property
from cvxift.kkt.backend import Array
from cvxift.kkt.batch.programs import DensePrograms
from cvxift.kkt.regularity.thresholds import REGULAR
from cvxift.kkt.residuals import largest
from cvxift.kkt.system.factor import REFINE_GOAL, ShiftedFactor
from cvxift.program.products import apply
from cvxift.program.structure import Floats

CERTIFIED = 1e-12  # relative residual up to which a solve is taken
LARGEST_CONDITION = 1e13  # bound on ‖K‖‖K⁻¹r‖ for a fixed r, likewise
WORTH_SORTING = 6e5  # B((n + m)³ − (n + t)³) from which leaving out slack directions pays for sorting them
GROWTH = 1e10  # bound on ‖K‖‖u‖/‖f‖, a lower bound of the condition number, up to which it is taken


class DenseSystems:
    """The KKT systems of a batch at its points; factorized at the first solve.

    Args:
        programs: the batch.
        spectrum: of DΠ_K(v) at the points.
        most: the largest number of directions with d < 1 in an instance; None to count.
    """

    def __init__(self, programs: DensePrograms, spectrum: Any, most: int | None) -> None:
        place, xp = programs.place, programs.place.xp
        B, m, n = programs.shape
        self._place, self._n, self._out = place, n, (B, m)
        self._spectrum = spectrum
        self._rows: Array | None = None
        self._slot: Array | None = None
        self._shifted: dict[int, ShiftedFactor] = {}
        if B * ((n + m) ** 3 - n**3) > WORTH_SORTING:  # else no number of tight rows would make it worth while
            if most is None:
                most = int(xp.max(xp.sum(xp.astype(spectrum.kept, xp.int64), axis=-1)))
            if B * ((n + m) ** 3 - (n + most) ** 3) > WORTH_SORTING:
                self._sort(spectrum.kept, most)
        most = m if most is None or self._rows is None else most
        self._most = most
        self._weight = xp.sqrt(self._gather(spectrum.complement))
        A_r, d = spectrum.rotate_rows(programs.A), self._gather(spectrum.d)
        if self._rows is not None:
            A_r = xp.reshape(xp.take(xp.reshape(A_r, (B * m, n)), self._rows, axis=0), (B, most, n))
        A_r = A_r * self._weight[..., None]
        curvature = xp.eye(most, dtype=xp.float64, device=place.device) * -d[..., None]
        top = xp.concat([programs.P, xp.matrix_transpose(A_r)], axis=-1)
        self.K = xp.concat([top, xp.concat([A_r, curvature], axis=-1)], axis=-2)
        sound = None
        if not programs.cones.cones.polyhedral:  # where v is not finite neither is K, which some solves refuse
            sound = xp.all(xp.isfinite(spectrum.s), axis=-1)
            if not (place.reads_freely and bool(xp.all(sound))):
                identity = xp.eye(n + most, dtype=xp.float64, device=place.device)
                self.K = xp.where(sound[:, None, None], self.K, identity)
        self._sound: Array | None = sound

    def _sort(self, tight: Array, most: int) -> None:
        """Kept directions first, in order: which have a place, and which place a direction has, the last if none."""
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
        regular = self._size * self._factor.growth() <= LARGEST_CONDITION
        return regular if self._sound is None else regular & self._sound

    @property
    def doubtful(self) -> Array:
        """Which K may be singular, shape (B,)."""
        regular = self._size * self._factor.growth() <= 1.0 / REGULAR
        return ~regular if self._sound is None else ~(regular & self._sound)

    def _gather(self, values: Array) -> Array:
        """Values on the directions (..., B, m) as values on the places (..., B, most)."""
        if self._rows is None:
            return values
        xp, lead = self._place.xp, tuple(values.shape[:-2])
        flat = xp.reshape(values, (*lead, self._out[0] * self._out[1]))
        return xp.reshape(xp.take(flat, self._rows, axis=-1), (*lead, self._out[0], self._most))

    def solve(self, g: Array, h: Array, singular: bool = True) -> tuple[Array, Array, Array]:
        """Solve P u + Aᵀw = g, (I − D)(A u − h) = D w.

        Args:
            g: right-hand sides on columns, shape (B, n), or (k, B, n) for k of them an instance.
            h: right-hand sides on rows, shape (B, m) or (k, B, m).
            singular: whether singular systems that have a solution are solved, too; on the host alone.

        Returns:
            u and w, of the shapes of g and h, zero where they are not certified; and which instances are certified: the
            residual is small and the growth ‖K‖‖u‖/‖f‖ does not point to a singular system, shape (B,).
        """
        xp = self._place.xp
        with np.errstate(all="ignore"):  # a singular K leaves infinities, which the certificate sees
            u, certified = self._certified_solve(g, h, singular)
        u = xp.where(certified[:, None], u, xp.zeros_like(u))
        w = u[..., self._n :] * self._weight
        if self._rows is not None:
            lead = tuple(u.shape[:-2])
            w = xp.concat([w, self._place.zeros(*lead, self._out[0], 1)], axis=-1)
            w = xp.take(xp.reshape(w, (*lead, self._out[0] * (self._most + 1))), self._slot, axis=-1)
            w = xp.reshape(w, (*lead, *self._out))
        return u[..., : self._n], self._spectrum.restore(w), certified

    def _certified_solve(self, g: Array, h: Array, singular: bool) -> tuple[Array, Array]:
        """K⁻¹(g, M Q_rᵀh), and which are certified."""
        xp = self._place.xp
        f = xp.concat([g, self._gather(self._spectrum.rotate(h)) * self._weight], axis=-1)
        u = self._factorized(f)
        rest = f - apply(self.K, u)
        certified = self._certified(f, u, rest)
        if not (self._place.reads_freely and bool(xp.all(certified))):
            # One step of refinement costs two small products; on a device, less than asking whether it is needed.
            better = u + self._factorized(rest)
            rest_better = f - apply(self.K, better)
            falls = (largest(xp, xp.abs(rest_better)) < largest(xp, xp.abs(rest)))[..., None]
            u, rest = xp.where(falls, better, u), xp.where(falls, rest_better, rest)
            certified = self._certified(f, u, rest)
        if self._place.reads_freely and not bool(xp.all(certified)):
            index = np.flatnonzero(~certified & self._singular) if singular else ()
            if len(index):
                u, certified = np.array(u), np.array(certified)
                for i in map(int, index):
                    u[..., i, :], certified[i] = self._least_norm(i, f[..., i, :])
        return u, certified

    @cached_property
    def _singular(self) -> Array:
        """Which finite K are singular to working precision, shape (B,); on the host alone."""
        return ~self._regular if self._sound is None else ~self._regular & self._sound

    def _least_norm(self, index: int, f: Floats) -> tuple[Floats, bool]:
        """The solution of least norm of one singular system, f of shape (N,) or (k, N), and whether it is one.

        A norm inside its bound leaves CVXPY's auxiliary column free, and equal rows share their multipliers: K is
        singular then, and K u = f has solutions all the same.
        """
        if index not in self._shifted:
            self._shifted[index] = ShiftedFactor(self.K[index], self._n)
        u, residual, _ = self._shifted[index].solve(f.T)
        return u.T, residual <= CERTIFIED

    def _factorized(self, f: Array) -> Array:
        """K⁻¹ f, shape (B, N) or (k, B, N)."""
        xp = self._place.xp
        if f.ndim == 2:
            return self._factor.solve(f[..., None])[..., 0]
        return xp.moveaxis(self._factor.solve(xp.moveaxis(f, 0, -1)), -1, 0)

    def _certified(self, f: Array, u: Array, rest: Array) -> Array:
        xp = self._place.xp
        size = largest(xp, xp.abs(f))
        small = largest(xp, xp.abs(rest)) <= CERTIFIED * size
        certified = small & self._regular & (self._size * largest(xp, xp.abs(u)) <= GROWTH * (size + REFINE_GOAL))
        return certified if f.ndim == 2 else xp.all(certified, axis=0)
