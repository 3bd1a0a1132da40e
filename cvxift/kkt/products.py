"""Where dz = −K⁻¹ F_θ dθ is: derivatives of the solution at one point, or at every point of a batch, to any order.

With v = s − y, s = Π(v) and y = Π(v) − v, a solution is a zero of the normal map

    F(x, v; θ) = ( Px + q + Aᵀy ,  Ax + s − b ),        D = DΠ(v),   ẏ = (D − I) v̇,   ṡ = D v̇.

Written for ẏ instead of v̇ its Jacobian K is symmetric, so that one `solve`, K⁻¹(g, h), serves both modes:

    forward    (ẋ, ẏ) = −K⁻¹ F_θ θ̇,      F_θ θ̇ = ( Ṗx + q̇ + Ȧᵀy ,  Ȧx − ḃ )
    reverse    θ̄ = F_θᵀ (u, w),  (u, w) = −K⁻¹ (x̄, ȳ);      P̄ = u xᵀ,  Ā_ij = y_i u_j + w_i x_j,  q̄ = u,  b̄ = −w

The data P, q, A, b are affine in θ. Differentiating F = 0 along a set S of directions therefore leaves, by Leibniz'
rule, a system with the same K for every S. With M_i (x, y) = (Ṗᵢx + Ȧᵢᵀy, Ȧᵢx), c_i = (q̇ᵢ, −ḃᵢ), z_∅ = (x, y) and
λ_∅ = −K⁻¹(x̄, ȳ),

    K z_S = −Σ_{i∈S} M_i z_{S∖i} − [S = {i}] c_i        z_S: the derivative of (x, y) along all of S
    K λ_S = −Σ_{i∈S} M_i λ_{S∖i}                        ∂/∂θ ⟨(x̄, ȳ), z_S⟩ = Σ_{R⊆S} F_θᵀ at z_R of λ_{S∖R}

(q̄ and b̄ do not multiply the point: they have the part R = ∅ alone.) Where cones are curved D moves with v, and with
e = D²Π(v)[v̇ᵢ, v̇ⱼ] the second order has more:

    z_{ij}: (Aᵀe, e) more on the left of K, and e more in ÿ       λ_{i}: D²Π(v)[v̇ᵢ, Au + w + ȳ], a cotangent of v, more

Third orders would need D³Π; for linear constraints Π is piecewise linear and every order is here.

Every formula is for arrays of any namespace, with any leading dimensions: none at one point, (B,) for a batch, and
another before it where several right-hand sides meet one factorization.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxift._types import cached_property
from cvxift.kkt.backend import HOST, Array, Arrays
from cvxift.program.products import apply, transposed
from cvxift.program.structure import Data, Structure
from cvxift.program.substitution import Parts

Pair = tuple[Array, Array]  # on columns and on rows, shapes (..., n) and (..., m)


class DataEntries:
    """F_θ and its transpose at a point, on entries of P, q, A and b: all that are stored, or some of them.

    Args:
        structure: the patterns.
        place: where the arrays live.
        some: positions of the entries of P, q, A and b that there are; None for all.
    """

    def __init__(self, structure: Structure, place: Arrays = HOST, some: tuple[np.ndarray, ...] | None = None) -> None:
        self.n, self.m, self._place, self._some = structure.n, structure.m, place, some
        self._index = structure.places
        if some is not None:
            P, q, A, b = some
            self._index = tuple(index[at] for index, at in zip(self._index, (P, P, A, A), strict=True))
            self._q, self._b = place.put(q), place.put(b)
        if some is None and place is HOST:
            self._P_rows, self._P_cols, self._A_rows, self._A_cols = self._index
            return
        self._P_rows, self._P_cols, self._A_rows, self._A_cols = map(place.put, self._index)
        _ = self._sums, self._spread  # constants of many points: they go to their place now

    @cached_property
    def _sums(self) -> tuple[Callable[[Array], Array], ...]:
        """The entries of P and A summed into columns, and those of A into rows."""
        P_rows, _, A_rows, A_cols = self._index
        return self._place.sums(np.concatenate([P_rows, A_cols]), self.n), self._place.sums(A_rows, self.m)

    @cached_property
    def _spread(self) -> tuple[Callable[[Array], Array], ...]:
        """Entries of q on columns, and of b on rows."""
        if self._some is None:
            return _same, _same
        return self._place.sums(self._some[1], self.n), self._place.sums(self._some[3], self.m)

    def act(self, data: Data, x: Array, y: Array) -> Pair:
        """M (x, y) = (Px + Aᵀy, Ax) for P and A of these entries, with any leading dimensions.

        Args:
            data: the values, shapes (..., entries).
            x: shape (..., n).
            y: shape (..., m).
        """
        xp = self._place.xp
        Px, ATy = data.P * xp.take(x, self._P_cols, axis=-1), data.A * xp.take(y, self._A_rows, axis=-1)
        to_columns, to_rows = self._sums
        return to_columns(xp.concat([Px, ATy], axis=-1)), to_rows(data.A * xp.take(x, self._A_cols, axis=-1))

    def residual_tangent(self, tangent: Data, x: Array, y: Array) -> Pair:
        """−F_θ θ̇ = (−(Ṗx + q̇ + Ȧᵀy), ḃ − Ȧx), the right-hand side of the tangent; shapes as for `act`."""
        (columns, rows), (q, b) = self.act(tangent, x, y), self._spread
        return -(columns + q(tangent.q)), b(tangent.b) - rows

    def transposed(self, x: Array, y: Array, u: Array, w: Array, with_P: bool = True) -> Data:
        """F_θᵀ(u, w): P̄ = u xᵀ, Ā_ij = y_i u_j + w_i x_j, q̄ = u, b̄ = −w on these entries.

        Args:
            x: shape (..., n).
            y: shape (..., m).
            u: shape (..., n).
            w: shape (..., m).
            with_P: whether P̄ is wanted; else it is left out (None, for zero), where P is the same for every θ.
        """
        P, A = self.products(x, y, u, w, with_P)
        if self._some is None:
            return Data(P, u, A, -w, np.zeros(np.shape(u)[:-1]))
        xp = self._place.xp
        return Data(P, xp.take(u, self._q, axis=-1), A, -xp.take(w, self._b, axis=-1), self._place.zeros(1))

    def products(self, x: Array, y: Array, u: Array, w: Array, with_P: bool = True) -> Pair:
        """P̄ and Ā alone."""
        take = self._place.xp.take
        P = take(u, self._P_rows, axis=-1) * take(x, self._P_cols, axis=-1) if with_P else None
        A = take(y, self._A_rows, axis=-1) * take(u, self._A_cols, axis=-1)
        return P, A + take(w, self._A_rows, axis=-1) * take(x, self._A_cols, axis=-1)


@dataclass(frozen=True, eq=False)
class Curvature:
    """D²Π(v) where cones are curved.

    Attributes:
        A: the matrix of the rows that v has, (..., m, n).
        spectrum: of DΠ(v); gives `bend(a, b)`, D²Π(v)[a, b], and `split` (see `Spectrum.split`).
        kept: to and from the columns and rows that A has, where those are some of the program's (`Parts`).
    """

    A: Any
    spectrum: Any
    kept: Parts | None = None

    def moved(self, h: Array, z: Pair) -> Array:
        """v̇ = ṡ − ẏ with ṡ = h − Aẋ, h = ḃ − Ȧx."""
        x, rest = self._restrict(z[0], h - z[1])
        return rest - apply(self.A, x)

    def forward(self, a: Array, b: Array) -> tuple[Array, Array, Array]:
        """(Aᵀe, e, e) with e = D²Π(v)[a, b], by which y and s bend."""
        e = self.spectrum.bend(a, b)
        column, e = self._lift(apply(transposed(self.A), e), e)
        return column, e, e

    def reverse(self, a: Array, u: Array, w: Array, y_bar: Array | None) -> tuple[Array, Array, Array]:
        """The cotangent D²Π(v)[a, Au + w + ȳ] of v as additions to x̄, to ȳ, and to w on slack directions."""
        x, rest = self._restrict(u, w if y_bar is None else w + y_bar)
        slack, more = self.spectrum.split(self.spectrum.bend(a, apply(self.A, x) + rest))
        x_bar, slack = self._lift(apply(transposed(self.A), slack), slack)
        return x_bar, self._lift(x, more)[1], slack

    def _restrict(self, x: Array, y: Array) -> Pair:
        return (x, y) if self.kept is None else self.kept.restrict(x, y)

    def _lift(self, x: Array, y: Array) -> Pair:
        return (x, y) if self.kept is None else self.kept.lift(x, y)


@dataclass(frozen=True, eq=False)
class CurvatureInUnits:
    """`Curvature` of one program with v in other units, ŝ = T R s and ŷ = κ T⁻ᵀ R⁻¹ y (`cvxift.kkt.units`).

    In its own units one of s and y may be rounding in v, as is y = 10⁻⁸ beside s = 10⁸.

    Attributes:
        A: the program's matrix, sparse, shape (m, n).
        spectrum: of DΠ(v̂).
        units: the units of v̂.
        rows: the rows that v̂ has; None for all.
    """

    A: Any
    spectrum: Any
    units: Any
    rows: np.ndarray | None

    def moved(self, h: Array, z: Pair) -> Array:
        """As `Curvature.moved`, in the units of v̂."""
        return self.units.slacks(self._some(h - apply(self.A, z[0]))) - self.units.multipliers(self._some(z[1]))

    def forward(self, a: Array, b: Array) -> tuple[Array, Array, Array]:
        """(Aᵀe_y, e_y, e_s): e = D²Π(v̂)[a, b] as multipliers and as slacks."""
        e = self.spectrum.bend(a, b)
        of_y, of_s = self._all(self.units.multipliers_back(e)), self._all(self.units.slacks_back(e))
        return apply(self.A.T, of_y), of_y, of_s

    def reverse(self, a: Array, u: Array, w: Array, y_bar: Array | None) -> tuple[Array, Array, Array]:
        """As `Curvature.reverse`: Au + ȳ are cotangents of y, w those of s."""
        of_y = apply(self.A, u) if y_bar is None else apply(self.A, u) + y_bar
        both = self.units.slacks(self._some(of_y)) + self.units.multipliers(self._some(w))
        slack, more = self.spectrum.split(self.spectrum.bend(a, both))
        slack = self._all(self.units.multipliers_back(slack))
        return apply(self.A.T, slack), self._all(self.units.slacks_back(more)), slack

    def _some(self, rows: Array) -> Array:
        return rows if self.rows is None else rows[..., self.rows]

    def _all(self, rows: Array) -> Array:
        if self.rows is None:
            return rows
        out = np.zeros((*rows.shape[:-1], self.A.shape[0]))
        out[..., self.rows] = rows
        return out


class Products(abc.ABC):
    """Derivatives of the solution (x, y) of a program with respect to its data, at a point or at those of a batch.

    Attributes:
        entries: F_θ.
        x: columns, shape (..., n).
        y: multipliers, shape (..., m).
    """

    entries: DataEntries
    x: Array
    y: Array

    @abc.abstractmethod
    def solve(self, g: Array, h: Array | None) -> Pair:
        """K⁻¹(g, h): the (u, w) with Pu + Aᵀw = g and Au + Dt = h, w = (D − I) t.

        Args:
            g: right-hand side on columns, shape (..., n), or (k, ..., n) for k of them.
            h: right-hand side on rows, shape (..., m) or (k, ..., m); None for zero.
        """

    @cached_property
    @abc.abstractmethod
    def curvature(self) -> Curvature | CurvatureInUnits | None:
        """D²Π at the point; None where Π is piecewise linear."""

    def jvp(self, tangent: Data) -> Pair:
        """Tangents (ẋ, ẏ) = −K⁻¹ F_θ θ̇ of the solution for a tangent of the data, with its leading dimensions."""
        return self.solve(*self.residual_tangent(tangent))

    def residual_tangent(self, tangent: Data) -> Pair:
        """−F_θ θ̇, the right-hand side of the tangent system."""
        return self.entries.residual_tangent(tangent, self.x, self.y)

    def vjp(self, x_bar: Array, y_bar: Array | None = None, with_P: bool = True) -> Data:
        """Cotangent F_θᵀ(−K⁻¹)(x̄, ȳ) of the data for cotangents of the solution."""
        return self.pull_back(*self.adjoint(x_bar, y_bar), with_P)

    def adjoint(self, x_bar: Array, y_bar: Array | None = None) -> Pair:
        """(u, w) = −K⁻¹(x̄, ȳ) for cotangents of x and y (None for zero)."""
        return self.solve(-x_bar, None if y_bar is None else -y_bar)

    def pull_back(self, u: Array, w: Array, with_P: bool = True) -> Data:
        """Cotangent of the data, F_θᵀ(u, w); P's is left out where it is not wanted."""
        return self.entries.transposed(self.x, self.y, u, w, with_P)

    def forward(self, tangents: Sequence[Data]) -> Pair:
        """The derivative of (x, y) along all of these tangents of the data, z_S.

        Args:
            tangents: at least one; two at most where cones are curved.
        """
        return self._points(tangents)[0][-1]

    def reverse(self, x_bar: Array, y_bar: Array | None, tangents: Sequence[Data]) -> Data:
        """The derivative with respect to the data of ⟨(x̄, ȳ), z_S⟩, S all of these tangents.

        Args:
            x_bar: cotangent of x, shape (..., n).
            y_bar: cotangent of y, shape (..., m); None for zero.
            tangents: of the data; one at most where cones are curved.
        """
        points, moved = self._points(tangents)
        multipliers = self._multipliers(x_bar, y_bar, tangents, moved)
        total = self.pull_back(*multipliers[-1])
        P, A = total.P, total.A
        for z, multiplier in zip(points[1:], reversed(multipliers[:-1]), strict=True):
            P_more, A_more = self.entries.products(*z, *multiplier)
            P, A = P + P_more, A + A_more
        return Data(P, total.q, A, total.b, total.d)

    def _points(self, tangents: Sequence[Data]) -> tuple[list[Pair], list[Array]]:
        """z_S for every set S of tangents, a bit mask; and v̇ of each tangent where cones are curved."""
        found, moved = [(self.x, self.y)], list[Array]()
        for S in range(1, 1 << len(tangents)):
            if S & (S - 1) == 0:  # one tangent
                g, h = self.residual_tangent(tangents[S.bit_length() - 1])
                found.append(self.solve(g, h))
                if self.curvature is not None:
                    moved.append(self.curvature.moved(h, found[-1]))
                continue
            g, h = self._acted(tangents, found, S)
            if self.curvature is None:
                found.append(self.solve(g, h))
            else:
                column, of_y, of_s = self.curvature.forward(*moved)
                x, w = self.solve(g - column, h - of_s)
                found.append((x, w + of_y))
        return found, moved

    def _multipliers(
        self, x_bar: Array, y_bar: Array | None, tangents: Sequence[Data], moved: Sequence[Array]
    ) -> list[Pair]:
        """λ_S for every set S of tangents, a bit mask."""
        found = [self.adjoint(x_bar, y_bar)]
        for S in range(1, 1 << len(tangents)):
            g, h = self._acted(tangents, found, S)
            if self.curvature is None:
                found.append(self.solve(g, h))
            else:
                more_x, more_y, slack = self.curvature.reverse(moved[0], *found[0], y_bar)
                u, w = self.solve(g - more_x, h - more_y)
                found.append((u, w + slack))
        return found

    def _acted(self, tangents: Sequence[Data], found: Sequence[Pair], S: int) -> Pair:
        """−Σ_{i∈S} M_i found[S∖i]."""
        parts = [self.entries.act(tangents[i], *found[S & ~(1 << i)]) for i in _members(S)]
        g, h = parts[0]
        for columns, rows in parts[1:]:
            g, h = g + columns, h + rows
        return -g, -h


def _same(values: Array) -> Array:
    return values


def _members(S: int) -> Iterator[int]:
    """The positions of the bits of S."""
    return (i for i in range(S.bit_length()) if S >> i & 1)
