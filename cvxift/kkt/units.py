"""Other units of a program's rows, columns and cost, and the way back from there.

Write x = C x̂ and multiply the rows by R and the cost by κ, C and R diagonal and positive. Then

    P̂ = κ C P C,   q̂ = κ C q,   Â = R A C,   b̂ = R b,   ŝ = R s,   ŷ = κ R⁻¹ y

is the same program in other units. The rows of one curved cone share one unit, but for some that are turned as well
(`cvxift.kkt.turns`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cvxift._types import Indices, override
from cvxift.kkt.backend import Arrays
from cvxift.kkt.turns import Boosts, Turn
from cvxift.program.structure import Data, Floats, Structure, constant, frozen
from cvxift.program.substitution import Pair, Substitution, Way


@dataclass(frozen=True, eq=False)
class Units:
    """Units of a program, or of each program of a batch.

    Attributes:
        rows: R, shape (..., m).
        columns: C, shape (..., n).
        cost: κ, shape (...).
        turns: of cones whose rows are not in one unit.
    """

    rows: Floats
    columns: Floats
    cost: Floats
    turns: tuple[Turn, ...] = ()
    _kept: dict[str, tuple[Floats, Floats]] = field(default_factory=dict, repr=False)  # constants in these units

    def data(self, structure: Structure, data: Data) -> Data:
        """The program's data in these units; of constants, the same arrays each time."""
        P, A = self._once("P", data.P, structure), self._once("A", data.A, structure)
        return Data(P, data.q * (self.cost[..., None] * self.columns), A, self.slacks(data.b), data.d * self.cost)

    def _once(self, name: str, values: Floats, structure: Structure) -> Floats:
        known = self._kept.get(name)
        if known is not None and known[0] is values:
            return known[1]
        own = self._P(values, structure) if name == "P" else self._A(values, structure)
        if constant(values):
            own = frozen(own)
            self._kept[name] = values, own
        return own

    def _P(self, values: Floats, structure: Structure) -> Floats:
        P_rows, P_cols, c = *structure.places[:2], self.columns
        return values * (self.cost[..., None] * c.take(P_rows, axis=-1) * c.take(P_cols, axis=-1))

    def _A(self, values: Floats, structure: Structure) -> Floats:
        A_rows, A_cols = structure.places[2:]
        A = values * (self.rows.take(A_rows, axis=-1) * self.columns.take(A_cols, axis=-1))
        for turn in self.turns:
            A = turn.entries(A)
        return A

    @property
    def apart(self) -> float:
        """How many times the units of u and w differ in a second-order cone, u w ≥ z², that was boosted; at least 1."""
        factors = [np.abs(np.log(turn.factor)).max(initial=0.0) for turn in self.turns if isinstance(turn, Boosts)]
        return float(np.exp(2.0 * max(factors, default=0.0)))

    def same(self, other: Units) -> bool:
        """Whether both are certainly the same units of one program."""
        mine, theirs = (self.rows, self.columns, self.cost), (other.rows, other.columns, other.cost)
        return not self.turns and not other.turns and all(map(np.array_equal, mine, theirs))

    def slacks(self, s: Floats) -> Floats:
        """Slacks or right-hand sides of rows in these units, shape (..., m)."""
        s = s * self.rows
        for turn in self.turns:
            s = turn.slacks(s)
        return s

    def slacks_back(self, s: Floats) -> Floats:
        """Slacks from those in these units, shape (..., m)."""
        for turn in self.turns:
            s = turn.slacks(s, -1.0)
        return s / self.rows

    def multipliers(self, y: Floats) -> Floats:
        """Multipliers in these units, shape (..., m)."""
        y = y * (self.cost[..., None] / self.rows)
        for turn in self.turns:
            y = turn.multipliers(y)
        return y

    def multipliers_back(self, y: Floats) -> Floats:
        """Multipliers from those in these units, shape (..., m)."""
        for turn in self.turns:
            y = turn.multipliers(y, -1.0)
        return y * (self.rows / self.cost[..., None])

    def point(self, x: Floats, s: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
        """x̂, ŝ, ŷ of a point."""
        return x / self.columns, self.slacks(s), self.multipliers(y)

    def point_back(self, x: Floats, s: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
        """x, s, y of a point in these units."""
        return x * self.columns, self.slacks_back(s), self.multipliers_back(y)

    def put(self, place: Arrays) -> Units:
        """The same on another place's arrays."""
        turns = tuple(turn.put(place) for turn in self.turns)
        return Units(place.put(self.rows), place.put(self.columns), place.put(self.cost), turns)

    def __getitem__(self, index: int) -> Units:
        """One instance of a batch."""
        turns = tuple(turn[index] for turn in self.turns)
        return Units(self.rows[index], self.columns[index], self.cost[index], turns)


@dataclass(frozen=True, eq=False)
class Rescaled(Way):
    """The way from a program in other units to the one that it was made of, and on.

    Attributes:
        units: the units.
        further: see `Way`.
    """

    units: Units
    further: Way | None

    @property
    def rows(self) -> Indices | None:
        """The rows of the program at the end that this one has; None for all."""
        rows, way = None, self.further
        while isinstance(way, Substitution):
            kept = way.parts.rows.indices[0]
            rows, way = kept if rows is None else kept[rows], way.further
        return rows

    @override
    def point(self, x: Floats, s: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
        return self.units.point_back(x, s, y)

    @override
    def step(self, inner: Callable[[Any, Any], Pair], g: Floats, h: Floats | None) -> Pair:
        # With u = C û and w = κ⁻¹ R ŵ, P u + Aᵀw = g reads P̂ û + Âᵀŵ = κ C g, and A u − h is R⁻¹(Â û − R h).
        units = self.units
        u, w = inner(g * (units.cost[..., None] * units.columns), None if h is None else units.slacks(h))
        return u * units.columns, units.multipliers_back(w)

    @override
    def __getitem__(self, index: int) -> Rescaled:
        return Rescaled(self.units[index], None if self.further is None else self.further[index])
