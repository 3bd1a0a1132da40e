"""Batches of small dense programs as arrays, and their residuals, for all instances at once.

    minimize ½ xᵀPx + qᵀx   subject to   Ax + s = b,   s ∈ K;        v = s − y,   s = Π_K(v)

Written on the array API standard: the same lines run on NumPy, PyTorch and JAX arrays, on the arrays' own device. Their
KKT systems are in `cvxift.kkt.system.batched`, Newton's steps in `cvxift.kkt.newton`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cvxift._types import cached_property
from cvxift.cones.product import PlacedCones
from cvxift.kkt.backend import Array, Arrays
from cvxift.kkt.residuals import Scales, errors
from cvxift.program.products import transposed


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
        P, A = self.P * gradient[:, :, None] * c[:, None, :], self.A * r[:, :, None] * c[:, None, :]
        for turn in units.turns:
            A = turn.dense(A)
        return DensePrograms(self.place, P, self.q * gradient, A, units.slacks(self.b), self.cones)

    @cached_property
    def AT(self) -> Array:
        """Aᵀ, shape (B, n, m)."""
        return transposed(self.A)

    @cached_property
    def magnitudes(self) -> Any:
        """|P|, |A| and |A|ᵀ, shapes (B, n, n), (B, m, n) and (B, n, m)."""
        A = self.place.xp.abs(self.A)
        return self.place.xp.abs(self.P), A, transposed(A)

    @cached_property
    def scales(self) -> Scales:
        """What rows and columns balance, which residuals are relative to."""
        return Scales(self, self.cones, self.place)

    def errors(self, x: Array, v: Array, near: Any = None) -> tuple[Array, Array, Array, Any]:
        """Dual error (B, n), primal error (B, m), their relative sizes (B, 2): primal, dual; and the spectrum at v.

        Args:
            x: columns, shape (B, n).
            v: s − y, shape (B, m).
            near: the spectrum at nearby v, if one is known.
        """
        spectrum = self.cones.spectrum(v, near)
        s, y = spectrum.s, spectrum.s - v
        dual, primal = errors(self, x, s, y)
        relative = self.place.xp.stack(self.scales.measure(primal, dual, x, s, y), axis=-1)
        return dual, primal, relative, spectrum
