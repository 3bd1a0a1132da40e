"""Derivatives of z = φ(x − Bᵀτ), B z = k, whatever the sums B: the one derivative of all closed forms but the chain's.

An entry may be held by a bound, whose motion is β̇. With s = φ′ at the others and 0 at those, e = φ″ likewise, and
H = B diag(s) Bᵀ,

    ż = s(ẋ − Bᵀτ̇) + β̇,    H τ̇ = B(sẋ + β̇) − k̇,        x̄ = s(z̄ − Bᵀm),  β̄ = z̄ − Bᵀm,  k̄ = m,   H m = B s z̄,

and s moves by e(ẋ − Bᵀτ̇). `Sums` says what B and solutions with H are: one sum a group, the rows and columns of a
plan, the blocks of an isotonic regression. Arrays are (…, G, n).
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np

from cvxift._types import override
from cvxift.argmax.groups import ROWS, Grouping
from cvxift.program.structure import Floats

Mask = np.ndarray
Moved = Mapping[str, Floats]


class Products(Protocol):
    """First and second derivatives of z = g(x, w) at a point, w further inputs by name."""

    z: Floats

    def push(self, x: Floats, moved: Moved) -> Floats:
        """ż = Dg[ẋ, ẇ]; inputs that `moved` does not name stand still."""
        ...

    def pull(self, bar: Floats) -> tuple[Floats, dict[str, Floats]]:
        """x̄ and w̄."""
        ...

    def pull_tangent(self, bar: Floats, x: Floats, moved: Moved) -> tuple[Floats, dict[str, Floats]] | None:
        """How `pull` of a fixed cotangent moves; None where it does not."""
        ...

    def second(self, x: Floats, moved: Moved, y: Floats, along: Moved) -> Floats | None:
        """D²g[(ẋ, ẇ), (ẋ′, ẇ′)]; None where it is zero."""
        ...


class Sums(abc.ABC):
    """B, and solutions of systems with H = B diag(s) Bᵀ."""

    @abc.abstractmethod
    def total(self, r: Floats) -> Floats:
        """B r."""

    @abc.abstractmethod
    def spread(self, tau: Floats) -> Floats:
        """Bᵀτ; broadcasts to (…, G, n)."""

    @abc.abstractmethod
    def solve(self, k: Floats) -> Floats:
        """τ with H τ = k."""

    @abc.abstractmethod
    def fit(self, w: Floats) -> Floats:
        """τ with H τ = B s w, the weighted least-squares fit of w by Bᵀτ."""

    def inputs(self, moved: Moved) -> Floats | None:
        """k̇ for tangents of the inputs; None where it is zero."""
        return moved.get("total")

    def cotangents(self, m: Floats) -> dict[str, Floats]:
        """The transpose of `inputs`."""
        return {"total": m}


class GroupSums(Sums):
    """Each group of entries has one sum.

    Args:
        s: shape (…, G, n).
        groups: the groups, each row one, or several of other lengths in a row.
    """

    def __init__(self, s: Floats, groups: Grouping = ROWS) -> None:
        self._s, self._groups = s, groups
        total = groups.sum(s)
        self.inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)  # 0 where all are held

    @override
    def total(self, r: Floats) -> Floats:
        return self._groups.sum(r)

    @override
    def spread(self, tau: Floats) -> Floats:
        return self._groups.spread(tau)

    @override
    def solve(self, k: Floats) -> Floats:
        return k * self.inverse

    @override
    def fit(self, w: Floats) -> Floats:
        if self._groups is not ROWS:
            return self._groups.sum(self._s * w) * self.inverse
        return np.einsum("...i,...i->...", self._s, w)[..., None] * self.inverse


class Argmax(Products):
    """z at a point, with its derivatives.

    Attributes:
        z: shape (…, G, n).
        slope: s.
        bend: e; None where φ is straight.
        sums: B with these s; None without sums.
        held: by the name of the bounds' input, the entries that it holds; None where there is none.
        moving: names of the bounds that depend on θ, whose cotangents are asked for.
    """

    z: Floats
    slope: Any
    bend: Any
    sums: Any
    held: Mapping[str, Mask | None]
    moving: Collection[str] = ()

    def _pushed(self, x: Floats, moved: Moved) -> tuple[Floats, Floats | None]:
        """ẋ − Bᵀτ̇ and β̇."""
        held = None
        for name, mask in self.held.items():
            if name in moved and mask is not None:
                part = np.where(mask, moved[name], 0.0)
                held = part if held is None else held + part
        if self.sums is not None:
            tau, k = self.sums.fit(x), self.sums.inputs(moved)
            if held is not None:
                tau = tau + self.sums.solve(self.sums.total(held))
            if k is not None:
                tau = tau - self.sums.solve(k)
            x = x - self.sums.spread(tau)
        return x, held

    @override
    def push(self, x: Floats, moved: Moved) -> Floats:
        x, held = self._pushed(x, moved)
        return self.slope * x if held is None else self.slope * x + held

    def _bars(self, rest: Floats, m: Floats | None) -> dict[str, Floats]:
        """Cotangents of the bounds and of the sums."""
        bars = {} if m is None or self.sums is None else self.sums.cotangents(m)
        for name in self.moving:
            bars[name] = np.where(self.held[name], rest, 0.0)  # type: ignore[arg-type]  # a bound that moves has its mask
        return bars

    def _pulled(self, bar: Floats) -> tuple[Floats, Floats | None]:
        """z̄ − Bᵀm and m."""
        if self.sums is None:
            return bar, None
        m = self.sums.fit(bar)
        return bar - self.sums.spread(m), m

    @override
    def pull(self, bar: Floats) -> tuple[Floats, dict[str, Floats]]:
        rest, m = self._pulled(bar)
        return self.slope * rest, self._bars(rest, m)

    def _centred(self, r: Floats) -> tuple[Floats, Floats, Floats | None]:
        """r − s Bᵀu, which sums to zero, −Bᵀu, and u."""
        if self.sums is None:
            return r, np.zeros_like(r), None
        u = self.sums.solve(self.sums.total(r))
        spread = self.sums.spread(u)
        return r - self.slope * spread, -spread, u

    @override
    def pull_tangent(self, bar: Floats, x: Floats, moved: Moved) -> tuple[Floats, dict[str, Floats]] | None:
        if self.bend is None:
            return None
        out, rest, u = self._centred(self.bend * self._pulled(bar)[0] * self._pushed(x, moved)[0])
        return out, self._bars(rest, u)

    @override
    def second(self, x: Floats, moved: Moved, y: Floats, along: Moved) -> Floats | None:
        if self.bend is None:
            return None
        # z̈ = e(ẋ − Bᵀτ̇)(ẋ′ − Bᵀτ̇′) + s(ẍ − Bᵀτ̈), and B z̈ = 0
        return self._centred(self.bend * self._pushed(x, moved)[0] * self._pushed(y, along)[0])[0]
