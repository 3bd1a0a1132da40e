"""Batches of small dense programs as arrays, and their residuals, for all instances at once.

    minimize ½ xᵀPx + qᵀx   subject to   Ax + s = b,   s ∈ K;        v = s − y,   s = Π_K(v)

Written on the array API standard: the same lines run on NumPy, PyTorch and JAX arrays, on the arrays' own device. Their
KKT systems are in `cvxift.kkt.dense_systems`, Newton's steps in `cvxift.kkt.dense_newton`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cvxift.cones.array_cones import PlacedCones
from cvxift.kkt.backend import Array, Arrays
from cvxift.kkt.residuals import EXACT, FLOOR, ROUNDING


@dataclass(frozen=True, eq=False)
class DensePrograms:
    """The matrices of a batch of programs, whose units are moderate (`cvxift.kkt.units`).

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

    def scaled(self, units: Any) -> DensePrograms:
        """The programs in other units (`cvxift.kkt.units.Units` on arrays of this place)."""
        r, c, cost = units.rows, units.columns, units.cost[:, None]
        gradient = cost * c
        P = self.P * gradient[:, :, None] * c[:, None, :]
        return DensePrograms(
            self.place, P, self.q * gradient, self.A * r[:, :, None] * c[:, None, :], self.b * r, self.cones
        )

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
        return dual, primal, self._relative(dual, primal, x, v, y), spectrum

    def sizes(self, x: Array, y: Array) -> tuple[Array, Array]:
        """What each row (B, m) and each column (B, n) balances at a point; see `Scales.sizes`."""
        xp = self.place.xp
        x, y = xp.abs(x), self._by_cone(xp.abs(y))
        A, P = xp.abs(self.A), xp.abs(self.P)
        least_x, least_y = self._anchors
        rows = apply(A, x) + xp.abs(self.b) + FLOOR * xp.maximum(worst(xp, x), least_x)[..., None]
        columns = apply(P, x) + xp.abs(self.q) + apply(xp.matrix_transpose(A), y)
        columns = columns + FLOOR * xp.maximum(worst(xp, y), least_y)[..., None]
        return self._by_cone(rows), columns

    def _by_cone(self, values: Array) -> Array:
        return values if self.cones.cones.polyhedral else self.cones.largest(values)

    def _relative(self, dual: Array, primal: Array, x: Array, v: Array, y: Array) -> Array:
        """Primal and dual residual, relative to what each row and column balances as in `Scales.measure`, (B, 2)."""
        xp = self.place.xp
        if self.place.reads_freely:
            rows, columns = self._least
            bound = np.stack([worst(xp, primal / rows), worst(xp, dual / columns)], axis=-1)
            index = np.flatnonzero(~(bound <= EXACT).all(axis=-1))
            if not len(index):
                return bound
            if 2 * len(index) <= len(bound):
                parts = (part[index] for part in (dual, primal, x, v, y))
                bound[index] = self.taken(index)._relative(*parts)
                return bound
        rows, columns = self.sizes(x, y)
        if not self.cones.cones.polyhedral:
            A = xp.abs(self.A)
            rounding = ROUNDING * apply(xp.matrix_transpose(A), self.cones.curved * self.cones.largest(xp.abs(v)))
            dual = xp.abs(dual)
            dual = xp.maximum(dual - rounding, xp.zeros_like(dual))
        return xp.stack([worst(xp, primal / rows), worst(xp, dual / columns)], axis=-1)

    @cached_property
    def _least(self) -> tuple[Array, Array]:
        """Lower bounds of the sizes, whatever the point, shapes (B, m) and (B, n)."""
        xp = self.place.xp
        least_x, least_y = self._anchors
        return xp.abs(self.b) + FLOOR * least_x[..., None], xp.abs(self.q) + FLOOR * least_y[..., None]

    @cached_property
    def _anchors(self) -> tuple[Array, Array]:
        """β and γ of `cvxift.kkt.residuals`, shapes (B,)."""
        xp = self.place.xp
        sizes = [xp.clip(worst(xp, part), max=1.0) for part in (self.b, self.q)]
        return tuple(xp.where(size > 0.0, size, xp.ones_like(size)) for size in sizes)  # type: ignore[return-value]


def apply(M: Array, x: Array) -> Array:
    """M_b x_b for every b; x is (B, n) or (k, B, n)."""
    return (M @ x[..., None])[..., 0]


def worst(xp: Any, values: Array) -> Array:
    """‖·‖∞ along the last axis, 0 for an empty one."""
    if not values.shape[-1]:
        return xp.sum(values, axis=-1)
    return xp.max(xp.abs(values), axis=-1)
