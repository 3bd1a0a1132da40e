"""Batches of small dense programs as arrays, and their residuals, for all instances at once.

    minimize ½ xᵀPx + qᵀx   subject to   Ax + s = b,   s ∈ K;        v = s − y,   s = Π_K(v)

Written on the array API standard: the same lines run on NumPy, PyTorch and JAX arrays, on the arrays' own device. Their
KKT systems are in `cvxift.kkt.dense_systems`, Newton's steps in `cvxift.kkt.dense_newton`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cvxift.cones.placed import PlacedCones
from cvxift.kkt.arrays import Array, Arrays
from cvxift.kkt.residuals import EXACT, FLOOR, ROUNDING, TINY


@dataclass(frozen=True, eq=False)
class DensePrograms:
    """The matrices of a batch of programs.

    Attributes:
        place: where the arrays live.
        P: shape (B, n, n).
        q: shape (B, n).
        A: shape (B, m, n).
        b: shape (B, m).
        cones: K, in that place.
    """

    place: Arrays
    P: Array
    q: Array
    A: Array
    b: Array
    cones: PlacedCones

    @property
    def shape(self) -> tuple[int, int, int]:
        """B, m, n."""
        B, m, n = self.A.shape
        return B, m, n

    def taken(self, index: Array) -> DensePrograms:
        """Some of the instances, by an index array."""
        P, q, A, b = (self.place.xp.take(part, index, axis=0) for part in (self.P, self.q, self.A, self.b))
        return DensePrograms(self.place, P, q, A, b, self.cones)

    def errors(self, x: Array, v: Array, near: Any = None) -> tuple[Array, Array, Array, Any]:
        """Dual error (B, n), primal error (B, m), their relative sizes (B, 2): primal, dual; and the spectrum at v.

        Args:
            x: columns, shape (B, n).
            v: s − y, shape (B, m).
            near: the spectrum at nearby v, if one is known.
        """
        xp = self.place.xp
        spectrum = self.cones.spectrum(v, near)
        y = spectrum.s - v
        Px, ATy, Ax = apply(self.P, x), apply(xp.matrix_transpose(self.A), y), apply(self.A, x)
        dual, primal = Px + self.q + ATy, Ax + spectrum.s - self.b
        return dual, primal, self._relative(dual, primal, x, v, y, ATy), spectrum

    def _relative(self, dual: Array, primal: Array, x: Array, v: Array, y: Array, ATy: Array) -> Array:
        """Primal and dual residual, relative to each row's and column's own size as in `Scales.measure`, (B, 2)."""
        xp = self.place.xp
        found = xp.stack([worst(xp, primal), worst(xp, dual)], axis=-1)
        if self.place.reads_freely and bool(xp.all(found <= EXACT * self._least)):
            return found / xp.clip(self._least, min=TINY)
        A, _, _, p, q = self._sizes
        rows, sides = self._rows
        size = 1.0 + worst(xp, x)[:, None]
        columns = q + p * size
        cost = worst(xp, columns)[:, None]
        cost = xp.where(cost > 0.0, cost, xp.ones_like(cost))
        if self.cones.cones.polyhedral:
            force = xp.abs(y)
            unit = FLOOR * xp.maximum(cost, worst(xp, rows * force)[:, None])
            force = force + xp.where(y != 0.0, unit / rows, xp.zeros_like(rows))
            columns = xp.clip(columns + apply(xp.matrix_transpose(A), force), min=TINY)
        else:
            columns = xp.maximum(cost, worst(xp, ATy)[:, None])
            rounding = ROUNDING * apply(xp.matrix_transpose(A), self.cones.curved * self.cones.largest(xp.abs(v)))
            dual = xp.abs(dual)
            dual = xp.maximum(dual - rounding, xp.zeros_like(dual))
        return xp.stack([worst(xp, primal / (rows * size + sides)), worst(xp, dual / columns)], axis=-1)

    @cached_property
    def _sizes(self) -> tuple[Array, Array, Array, Array, Array]:
        """|A|, its row sums, |b|, row sums of |P|, |q|."""
        xp = self.place.xp
        A = xp.abs(self.A)
        return A, xp.sum(A, axis=-1), xp.abs(self.b), xp.sum(xp.abs(self.P), axis=-1), xp.abs(self.q)

    @cached_property
    def _rows(self) -> tuple[Array, Array]:
        """The rows' own sizes and |b|, of a curved cone's rows the largest."""
        xp = self.place.xp
        _, a, b, _, _ = self._sizes
        a = xp.where(a > 0.0, a, xp.ones_like(a))
        return (a, b) if self.cones.cones.polyhedral else (self.cones.largest(a), self.cones.largest(b))

    @cached_property
    def _least(self) -> Array:
        """Lower bounds of the sizes of all rows and of all columns, whatever x and y, shape (B, 2)."""
        xp = self.place.xp
        _, a, b, p, q = self._sizes
        columns = least(xp, q + p) if self.cones.cones.polyhedral or not q.shape[-1] else worst(xp, q + p)
        return xp.stack([least(xp, a + b), columns], axis=-1)


def apply(M: Array, x: Array) -> Array:
    """M_b x_b for every b; x is (B, n) or (k, B, n)."""
    return (M @ x[..., None])[..., 0]


def least(xp: Any, values: Array) -> Array:
    """The smallest along the last axis, ∞ for an empty one."""
    if not values.shape[-1]:
        return xp.sum(values, axis=-1) + float("inf")
    return xp.min(values, axis=-1)


def worst(xp: Any, values: Array) -> Array:
    """‖·‖∞ along the last axis, 0 for an empty one."""
    if not values.shape[-1]:
        return xp.sum(values, axis=-1)
    return xp.max(xp.abs(values), axis=-1)
