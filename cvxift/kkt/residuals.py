"""How far a point is from optimal, relative to the sizes of the rows and columns that it has to balance.

    primal residual  Ax + s − b,      dual residual  Px + q + Aᵀy,      s ∈ K,  y ∈ K*,  sᵀy = 0

Each row and each column is measured by its own size, so that the unit chosen for a constraint or for the cost changes
nothing; only of the variables it is taken that they are not all far below 1. With ξ = 1 + ‖x‖∞, a = |A|1 (row sums of
absolute values) and p = |P|1,

    row i       a_i ξ + |b_i|                                            (a_i = 1 for a row of zeros)
    column j    c_j + Σ_i |A_ij| (|y_i| + φ μ/a_i [y_i ≠ 0]),            c = |q| + p ξ,   μ = max(‖c‖∞, ‖a ∘ y‖∞)

The term with φ = 10⁻⁴ is for columns that no cost reaches: multipliers that vanish do so to rounding only, and give no
size. Rows of one curved cone share the largest of their sizes. Where K is curved all columns share the size
max(‖c‖∞, ‖Aᵀy‖∞), because the projection that gives y is accurate relative to the whole of v = s − y; what its rounding
leaves in a column is not counted.

A point made from v by s = Π_K(v), y = Π_K(v) − v satisfies the cone memberships and complementarity to rounding, so two
numbers are enough.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cvxift.program.structure import Floats

if TYPE_CHECKING:
    from cvxift.kkt.instance import Instance

EXACT = 1e-12  # relative residual under which an upper bound of it, which costs less, is given instead
FLOOR = 1e-4  # φ above
ROUNDING = 1e-14  # accuracy of the projection on a curved cone, relative to v
SHORT = 8192  # length up to which a dot product stays in one thread
TINY = 1e-300  # size of a column of zeros


class Residuals(NamedTuple):
    """Relative residuals of a point: primal, dual, and the distance of (s, y) from the cones and complementarity."""

    primal: float
    dual: float
    complementarity: float = 0.0

    @property
    def worst(self) -> float:
        """The largest of them; NaN counts as infinite."""
        total = self.primal + self.dual + self.complementarity  # NaN if any is; max() may drop one
        return max(self.primal, self.dual, self.complementarity) if total == total else math.inf


class Scales:
    """The sizes of an instance's rows and columns.

    Args:
        instance: the program.

    Attributes:
        least_row: a lower bound of the rows' sizes, whatever x.
        least_column: a lower bound of the columns' sizes, whatever x and y.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._polyhedral = instance.structure.cones.polyhedral
        ones = _ones(instance.structure.n)
        self._a, self._b = abs(instance.A) @ ones, np.abs(instance.b)
        self._p, self._q = abs(instance.P) @ ones, np.abs(instance.q)
        self.least_row = float(np.minimum.reduce(self._a + self._b, initial=math.inf))
        bound = np.minimum if self._polyhedral else np.maximum
        self.least_column = float(bound.reduce(self._q + self._p)) if len(self._q) else math.inf

    @cached_property
    def _AT(self) -> Any:
        return abs(self._instance.A).T

    @cached_property
    def rows(self) -> Floats:
        """a, shape (m,); of a curved cone's rows the largest."""
        a = np.where(self._a == 0.0, 1.0, self._a)
        return a if self._polyhedral else self._by_cone(a)

    @cached_property
    def sides(self) -> Floats:
        """|b|, shape (m,); of a curved cone's rows the largest."""
        return self._b if self._polyhedral else self._by_cone(self._b)

    def _by_cone(self, values: Floats) -> Floats:
        """The largest value of each cone in all of its rows, shape (m,)."""
        cones = self._instance.structure.cones
        starts = cones.unit_starts
        return np.repeat(np.maximum.reduceat(values, starts), np.diff(np.append(starts, cones.m)))

    def measure(self, primal: Floats, dual: Floats, x: Floats, s: Floats, y: Floats) -> Residuals:
        """The relative residuals of a point.

        Args:
            primal: Ax + s − b, shape (m,).
            dual: Px + q + Aᵀy, shape (n,).
            x: columns, shape (n,).
            s: slacks, shape (m,).
            y: multipliers, shape (m,).

        Returns:
            The residuals; upper bounds of them where they are below `EXACT`.
        """
        # Two products show a point to be exact. A NaN fails the comparisons.
        primal_bound, dual_bound = _bound(primal), _bound(dual)
        if primal_bound <= EXACT * self.least_row and dual_bound <= EXACT * self.least_column:
            return Residuals(primal_bound / (self.least_row or 1.0), dual_bound / (self.least_column or 1.0))
        size = 1.0 + _largest(np.abs(x))
        columns = self._q + self._p * size
        cost = _largest(columns) or 1.0  # where nothing costs, multipliers have no size: 1
        if self._polyhedral:
            force = np.abs(y)
            force += (FLOOR * max(cost, _largest(self.rows * force))) * ((y != 0.0) / self.rows)
            columns += self._AT @ force
            dual = np.abs(dual) / np.maximum(columns, TINY)
        else:
            shared = max(cost, _largest(np.abs(self._instance.AT @ y)))
            dual = np.maximum(np.abs(dual) - self._rounding(s - y), 0.0) / shared
        return Residuals(_largest(np.abs(primal) / (self.rows * size + self.sides)), _largest(dual))

    def balance(self, x: Floats, y: Floats) -> Floats:
        """How many units of s one unit of y is worth in each row: the row's size over its multiplier's, shape (m,).

        sᵢ is small beside a_i ξ + |b_i| and yᵢ beside μ/a_i, so that sᵢ < τᵢ yᵢ, τ the balance, compares like with
        like whatever the units.

        Args:
            x: columns, shape (n,).
            y: multipliers, shape (m,).
        """
        size = 1.0 + _largest(np.abs(x))
        largest = max(_largest(self._q + self._p * size), _largest(self.rows * np.abs(y))) or 1.0
        return (self.rows * size + self.sides) * self.rows / largest

    def _rounding(self, v: Floats) -> Floats:
        """What the rounding of y may leave in each column, shape (n,)."""
        cones = self._instance.structure.cones
        size = self._by_cone(np.abs(v))
        size[: cones.zero + cones.nonneg] = 0.0
        return ROUNDING * (self._AT @ size)


@lru_cache(maxsize=64)
def _ones(n: int) -> Floats:
    ones = np.ones(n)
    ones.flags.writeable = False
    return ones


def _largest(values: Floats) -> float:
    """Largest entry of a vector without negative ones; 0 for an empty vector."""
    return float(np.maximum.reduce(values, initial=0.0))


def _bound(values: Floats) -> float:
    """An upper bound of ‖·‖∞: ‖·‖₂, one call, but where a long product would start BLAS threads."""
    return math.sqrt(values.dot(values)) if values.size < SHORT else _largest(np.abs(values))
