"""The second-order cone {(t, z) : ‖z‖ ≤ t}, which is its own dual.

With ρ = ‖z‖ and ẑ = z/ρ,

    ρ ≤ t    Π(v) = v, D = I                     ρ ≤ −t   Π(v) = 0, D = 0
    else     Π(v) = ½(t + ρ)(1, ẑ)

In the last case D has the eigenvalue 1 at p = (1, ẑ)/√2, 0 at n = (1, −ẑ)/√2, and c = (ρ + t)/2ρ at (0, w), w ⊥ z:

    D = c I + (1 − c) p pᵀ − c n nᵀ.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxift._types import Floats, cached_property
from cvxift.cones.base import BELOW_ONE, ROOT_HALF, TINY, Cone, Group, length
from cvxift.program.cones import Part


class _Split(NamedTuple):
    """t (..., count), ρ (..., count), ẑ (..., count, dim − 1), and which cones are at the curved boundary."""

    t: Floats
    rho: Floats
    unit: Floats
    curved: NDArray[np.bool_]


def _split(xp: Any, v: Floats) -> _Split:
    t, z = v[..., 0], v[..., 1:]
    if not z.shape[-1]:
        rho = xp.zeros_like(t)
        return _Split(t, rho, z, rho > xp.abs(t))
    # Dividing by the largest entry first keeps the squares in range and ẑ exact to rounding at any scale.
    scale = xp.max(xp.abs(z), axis=-1)
    one = xp.ones_like(scale)
    scaled = z / xp.where(scale > 0.0, scale, one)[..., None]
    norm = length(scaled, xp)
    unit = scaled / xp.where(norm > 0.0, norm, one)[..., None]
    rho = norm * scale
    any_direction = xp.where(norm == 0.0, one, xp.zeros_like(one))  # will do at z = 0
    unit = xp.concat([unit[..., :1] + any_direction[..., None], unit[..., 1:]], axis=-1)
    return _Split(t, rho, unit, rho > xp.abs(t))


def _nearest(xp: Any, v: Floats, split: _Split) -> Floats:
    """Π(v), by the three cases above."""
    t, rho, unit, _ = split
    half = xp.where(rho <= -t, xp.zeros_like(t), 0.5 * (t + rho))[..., None]
    return xp.where((rho <= t)[..., None], v, xp.concat([half, half * unit], axis=-1))


class SocGroup(Group):
    """Spectrum of second-order cones; eigenvalues in the order 1, c … c, 0 at the curved boundary.

    Attributes:
        p: unit vectors with eigenvalue 1 in regime 0, shape (..., count, dim); None when dim is 1.
        n: unit vectors with eigenvalue 0 in regime 0, shape (..., count, dim); None when dim is 1.
        c: the eigenvalue between, of multiplicity dim − 2, shape (..., count); 1 in regime 1, 0 in regime −1.
    """

    def __init__(self, part: Part, v: Floats, xp: Any = np) -> None:
        self.part, self.xp = part, xp
        self.split = split = _split(xp, v)
        t, rho, self._unit, curved = split
        self.s = _nearest(xp, v, split)
        self._slack = ~curved & (t >= rho)
        one, nothing = xp.ones_like(t), xp.zeros_like(t)
        slack = xp.where(self._slack, one, nothing)
        tight = xp.where(curved | self._slack, nothing, one)
        width = xp.where(curved, 2.0 * rho, one)
        self.c = xp.where(curved, xp.clip((rho + t) / width, TINY, BELOW_ONE), slack)
        rest = xp.where(curved, xp.clip((rho - t) / width, TINY, BELOW_ONE), tight)
        if part.dim == 1:
            self.d, self.complement = self.c[..., None], rest[..., None]
            return
        shape = (*t.shape, part.dim - 2)
        middle, outer = xp.broadcast_to(self.c[..., None], shape), xp.broadcast_to(rest[..., None], shape)
        self.d = xp.concat([(one - tight)[..., None], middle, slack[..., None]], axis=-1)
        self.complement = xp.concat([tight[..., None], outer, (one - slack)[..., None]], axis=-1)

    @cached_property
    def regime(self) -> NDArray[np.int_]:
        """1 in the cone (D = I), −1 in the polar cone (D = 0), 0 at the curved boundary; (..., count), NumPy alone."""
        return np.where(self.split.curved, 0, np.where(self._slack, 1, -1))

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
        first = self.xp.ones_like(self._unit[..., :1])
        return ROOT_HALF * self.xp.concat([first, sign * self._unit], axis=-1)

    # The reflection G = I − 2uuᵀ/uᵀu with u = ẑ + sign(ẑ₁)e₁ has G e₁ = −sign(ẑ₁) ẑ, and its other columns span z⊥. So
    # Q = [p, (0, G e₂), …, (0, G e_{dim−1}), n], and both products cost O(dim).

    @cached_property
    def _reflector(self) -> tuple[Floats, Floats]:
        xp, unit = self.xp, self._unit
        first = unit[..., 0]
        sign = xp.where(first < 0.0, -xp.ones_like(first), xp.ones_like(first))
        u = xp.concat([(first + sign)[..., None], unit[..., 1:]], axis=-1)
        return u / length(u, xp)[..., None], sign

    def _reflect(self, w: Floats) -> Floats:
        u, _ = self._reflector
        return w - 2.0 * self.xp.vecdot(u, w)[..., None] * u

    def rotate(self, w: Floats) -> Floats:
        """Product Qᵀw, in O(dim) each."""
        if self.part.dim == 1:
            return w
        _, sign = self._reflector
        tail = self._reflect(w[..., 1:])
        along = -sign * tail[..., 0]  # ẑᵀw
        first = ROOT_HALF * (w[..., 0] + along)
        last = ROOT_HALF * (w[..., 0] - along)
        turned = self.xp.concat([first[..., None], tail[..., 1:], last[..., None]], axis=-1)
        return self.xp.where(self.mixed[..., None], turned, w)

    def restore(self, w: Floats) -> Floats:
        """Product Qw, in O(dim) each."""
        if self.part.dim == 1:
            return w
        xp = self.xp
        w = xp.broadcast_to(w, np.broadcast_shapes(w.shape, self.d.shape))
        _, sign = self._reflector
        along = -sign * ROOT_HALF * (w[..., 0] - w[..., -1])
        tail = self._reflect(xp.concat([along[..., None], w[..., 1:-1]], axis=-1))
        first = ROOT_HALF * (w[..., 0] + w[..., -1])
        return xp.where(self.mixed[..., None], xp.concat([first[..., None], tail], axis=-1), w)

    @property
    def Q(self) -> Floats:
        """Dense eigenvectors (..., count, dim, dim) of dim² numbers; for large cones prefer p, n, c or the products."""
        identity = np.eye(self.dim).reshape(self.dim, *(1,) * (self.d.ndim - 1), self.dim)
        return np.moveaxis(self.restore(identity), 0, -1)

    def bend(self, a: Floats, b: Floats) -> Floats:
        """Zero inside the cone and its polar.

        With a = (α, a∥ẑ + a⊥), b = (β, b∥ẑ + b⊥) and dρ[a] = a∥, dẑ[a] = a⊥/ρ, differentiating Db along a gives

            (1/2ρ) ( a⊥·b⊥,  −(t/ρ)(a⊥·b⊥) ẑ + (β − (t/ρ) b∥) a⊥ + (α − (t/ρ) a∥) b⊥ ).
        """
        xp, (t, rho, unit, curved) = self.xp, self.split
        if self.part.dim < 3:
            return xp.zeros_like(self.d + a + b)
        safe = xp.where(curved, rho, xp.ones_like(rho))[..., None]
        slope = t[..., None] / safe
        along_a, cross_a = _along(xp, a[..., 1:], unit)
        along_b, cross_b = _along(xp, b[..., 1:], unit)
        both = xp.vecdot(cross_a, cross_b)[..., None]
        tail = (b[..., :1] - slope * along_b) * cross_a + (a[..., :1] - slope * along_a) * cross_b
        out = xp.concat([both, tail - slope * both * unit], axis=-1)
        return xp.where(curved[..., None], out / (2.0 * safe), xp.zeros_like(out))


class SecondOrder(Cone):
    """Second-order cones."""

    def project(self, part: Part, v: Floats) -> Floats:
        """Π(v), by the three cases above."""
        return _nearest(self.xp, v, _split(self.xp, v))

    def spectrum(self, part: Part, v: Floats, near: Group | None = None) -> SocGroup:
        """Eigenvalues 1, c, 0 at p, z⊥, n."""
        return SocGroup(part, v, self.xp)

    def margin(self, part: Part, v: Floats, group: Group | None = None) -> Floats:
        """Distance to the boundaries ‖z‖ = ±t of the cone and of its polar."""
        if part.dim == 1:
            return self.xp.abs(v[..., 0])
        t, rho, _, _ = group.split if isinstance(group, SocGroup) else _split(self.xp, v)
        return ROOT_HALF * self.xp.abs(rho - self.xp.abs(t))


def _along(xp: Any, w: Floats, unit: Floats) -> tuple[Floats, Floats]:
    """Component of w along the unit vector (..., 1), and the rest."""
    along = xp.vecdot(unit, w)[..., None]
    return along, w - along * unit
