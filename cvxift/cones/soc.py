"""The second-order cone {(t, z) : ‖z‖ ≤ t}, which is its own dual.

With ρ = ‖z‖ and ẑ = z/ρ,

    ρ ≤ t    Π(v) = v, D = I                     ρ ≤ −t   Π(v) = 0, D = 0
    else     Π(v) = ½(t + ρ)(1, ẑ)

In the last case D has the eigenvalue 1 at p = (1, ẑ)/√2, 0 at n = (1, −ẑ)/√2, and c = (ρ + t)/2ρ at (0, w), w ⊥ z:

    D = c I + (1 − c) p pᵀ − c n nᵀ.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxift.cones.base import BELOW_ONE, TINY, Cone, Floats, Group, length
from cvxift.cones.spec import Part

ROOT_HALF = 0.5**0.5


class _Split(NamedTuple):
    """t (..., count), ρ (..., count), ẑ (..., count, dim − 1), and which cones are at the curved boundary."""

    t: Floats
    rho: Floats
    unit: Floats
    curved: NDArray[np.bool_]


def _split(v: Floats) -> _Split:
    t, z = v[..., 0], v[..., 1:]
    # Dividing by the largest entry first keeps the squares in range and ẑ exact to rounding at any scale.
    scale = np.abs(z).max(axis=-1, initial=0.0)
    safe = np.where(scale > 0.0, scale, 1.0)
    scaled = z / safe[..., None]
    norm = length(scaled)
    unit = scaled / np.where(norm > 0.0, norm, 1.0)[..., None]
    rho = norm * scale
    if unit.shape[-1]:
        unit[..., 0] += norm == 0.0  # any direction will do at z = 0
    return _Split(t, rho, unit, rho > np.abs(t))


def _nearest(v: Floats, split: _Split) -> Floats:
    """Π(v), by the three cases above."""
    t, rho, unit, _ = split
    half = np.where(rho <= -t, 0.0, 0.5 * (t + rho))
    boundary = np.concatenate([half[..., None], half[..., None] * unit], axis=-1)
    return np.where((rho <= t)[..., None], v, boundary)


class SocGroup(Group):
    """Spectrum of second-order cones; eigenvalues in the order 1, c … c, 0 at the curved boundary.

    Attributes:
        regime: 1 in the cone (D = I), −1 in the polar cone (D = 0), 0 at the curved boundary; shape (..., count).
        p: unit vectors with eigenvalue 1 in regime 0, shape (..., count, dim); None when dim is 1.
        n: unit vectors with eigenvalue 0 in regime 0, shape (..., count, dim); None when dim is 1.
        c: the eigenvalue between, of multiplicity dim − 2, shape (..., count); 1 in regime 1, 0 in regime −1.
    """

    def __init__(self, part: Part, v: Floats) -> None:
        self.part = part
        self.split = split = _split(v)
        t, rho, self._unit, curved = split
        self.s = _nearest(v, split)
        self.regime = np.where(curved, 0, np.where(t >= rho, 1, -1))
        width = np.where(curved, 2.0 * rho, 1.0)
        self.c = np.where(curved, np.clip((rho + t) / width, TINY, BELOW_ONE), self.regime == 1)
        rest = np.where(curved, np.clip((rho - t) / width, TINY, BELOW_ONE), self.regime == -1)
        self.d = np.repeat(self.c[..., None], part.dim, axis=-1)
        self.complement = np.repeat(rest[..., None], part.dim, axis=-1)
        if part.dim > 1:
            self.d[..., 0], self.complement[..., 0] = self.regime >= 0, self.regime < 0
            self.d[..., -1], self.complement[..., -1] = self.regime > 0, self.regime <= 0

    @cached_property
    def p(self) -> Floats | None:
        """Unit vectors (1, ẑ)/√2."""
        return self._ray(1.0)

    @cached_property
    def n(self) -> Floats | None:
        """Unit vectors (1, −ẑ)/√2."""
        return self._ray(-1.0)

    def _ray(self, sign: float) -> Floats | None:
        if self.part.dim == 1:
            return None
        ray = np.empty((*self._unit.shape[:-1], self.part.dim))
        ray[..., 0] = ROOT_HALF
        ray[..., 1:] = sign * ROOT_HALF * self._unit
        return ray

    # The reflection G = I − 2uuᵀ/uᵀu with u = ẑ + sign(ẑ₁)e₁ has G e₁ = −sign(ẑ₁) ẑ, and its other columns span z⊥. So
    # Q = [p, (0, G e₂), …, (0, G e_{dim−1}), n], and both products cost O(dim).

    @cached_property
    def _reflector(self) -> tuple[Floats, Floats]:
        u = self._unit.copy()
        sign = np.where(u[..., 0] < 0.0, -1.0, 1.0)
        u[..., 0] += sign
        return u / length(u)[..., None], sign

    def _reflect(self, w: Floats) -> Floats:
        u, _ = self._reflector
        return w - 2.0 * np.einsum("...i,...i->...", u, w)[..., None] * u

    def rotate(self, w: Floats) -> Floats:
        """Product Qᵀw, in O(dim) each."""
        if self.part.dim == 1:
            return w
        _, sign = self._reflector
        tail = self._reflect(w[..., 1:])
        along = -sign * tail[..., 0]  # ẑᵀw
        first = ROOT_HALF * (w[..., 0] + along)
        last = ROOT_HALF * (w[..., 0] - along)
        turned = np.concatenate([first[..., None], tail[..., 1:], last[..., None]], axis=-1)
        return np.where(self.mixed[..., None], turned, w)

    def restore(self, w: Floats) -> Floats:
        """Product Qw, in O(dim) each."""
        if self.part.dim == 1:
            return w
        w = np.broadcast_to(w, np.broadcast_shapes(w.shape, self.d.shape))
        _, sign = self._reflector
        along = -sign * ROOT_HALF * (w[..., 0] - w[..., -1])
        tail = self._reflect(np.concatenate([along[..., None], w[..., 1:-1]], axis=-1))
        first = ROOT_HALF * (w[..., 0] + w[..., -1])
        turned = np.concatenate([first[..., None], tail], axis=-1)
        return np.where(self.mixed[..., None], turned, w)

    @property
    def Q(self) -> Floats:
        """Dense eigenvectors (..., count, dim, dim) of dim² numbers; for large cones prefer p, n, c or the products."""
        identity = np.eye(self.dim).reshape(self.dim, *(1,) * (self.d.ndim - 1), self.dim)
        return np.moveaxis(self.restore(identity), 0, -1)


class SecondOrder(Cone):
    """Second-order cones."""

    def project(self, part: Part, v: Floats) -> Floats:
        """Π(v), by the three cases above."""
        return _nearest(v, _split(v))

    def spectrum(self, part: Part, v: Floats, near: Group | None = None) -> SocGroup:
        """Eigenvalues 1, c, 0 at p, z⊥, n."""
        return SocGroup(part, v)

    def second_derivative(self, part: Part, v: Floats, a: Floats, b: Floats) -> Floats:
        """Zero inside the cone and its polar.

        With a = (α, a∥ẑ + a⊥), b = (β, b∥ẑ + b⊥) and dρ[a] = a∥, dẑ[a] = a⊥/ρ, differentiating Db along a gives

            (1/2ρ) ( a⊥·b⊥,  −(t/ρ)(a⊥·b⊥) ẑ + (β − (t/ρ) b∥) a⊥ + (α − (t/ρ) a∥) b⊥ ).
        """
        shape = np.broadcast_shapes(v.shape, a.shape, b.shape)
        if part.dim < 3:
            return np.zeros(shape)
        t, rho, unit, curved = _split(v)
        safe = np.where(curved, rho, 1.0)
        slope = (t / safe)[..., None]
        along_a, cross_a = _along(a[..., 1:], unit)
        along_b, cross_b = _along(b[..., 1:], unit)
        both = np.einsum("...i,...i->...", cross_a, cross_b)[..., None]
        out = np.empty(shape)
        out[..., :1] = both
        out[..., 1:] = (b[..., :1] - slope * along_b) * cross_a + (a[..., :1] - slope * along_a) * cross_b
        out[..., 1:] -= slope * both * unit
        return np.where(curved[..., None], out / (2.0 * safe)[..., None], 0.0)

    def margin(self, part: Part, v: Floats, group: Group | None = None) -> Floats:
        """Distance to the boundaries ‖z‖ = ±t of the cone and of its polar."""
        if part.dim == 1:
            return np.abs(v[..., 0])
        t, rho, _, _ = group.split if isinstance(group, SocGroup) else _split(v)
        return ROOT_HALF * np.abs(rho - np.abs(t))


def _along(w: Floats, unit: Floats) -> tuple[Floats, Floats]:
    """Component of w along the unit vector (..., 1), and the rest."""
    along = np.einsum("...i,...i->...", w, unit)[..., None]
    return along, w - along * unit
