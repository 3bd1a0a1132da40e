"""How far a point is from optimal, relative to what each row and each column balances there.

    primal residual  Ax + s − b,      dual residual  Px + q + Aᵀy,      s ∈ K,  y ∈ K*,  sᵀy = 0

The residuals are componentwise backward errors (Oettli & Prager 1964; Skeel 1979), each relative to the terms that it
is the sum of:

    row i       Σ_j |A_ij||x_j| + |b_i|                     + φ ξ / r_i,      ξ = max(β, ‖C⁻¹x‖∞)
    column j    |q_j| + Σ_k |P_jk||x_k| + Σ_i |A_ij||y_i|   + φ η / (κ c_j),  η = max(γ, ‖κR⁻¹y‖∞)

so that no unit of a row, a column or the cost changes them. The last term, φ = 10⁻⁴, is for rows and columns whose
terms all vanish, where they do so to rounding only: there an error is measured in the program's own units r, c, κ
(`cvxift.kkt.units`), where β = min(1, ‖R b‖∞) and γ = min(1, ‖κ C q‖∞), or 1 where that is 0.

Rows of one curved cone share the largest of their sizes, and its multipliers count with the largest of them. The
projection that gives y is accurate relative to the whole of v = s − y: what its rounding leaves in a column is not
counted.

A point made from v by s = Π_K(v), y = Π_K(v) − v satisfies the cone memberships and complementarity to rounding, so two
numbers are enough.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cvxift.kkt.units import Equilibration
from cvxift.program.structure import Floats

if TYPE_CHECKING:
    from cvxift.kkt.instance import Instance

EXACT = 1e-12  # relative residual under which an upper bound of it, which costs less, is given instead
FLOOR = 1e-4  # φ above
ROUNDING = 1e-14  # accuracy of the projection on a curved cone, relative to v


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
    """What the rows and columns of an instance balance.

    Args:
        instance: the program.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._polyhedral = instance.structure.cones.polyhedral
        self._b, self._q = np.abs(instance.b), np.abs(instance.q)
        self.units = None if instance.moderate else Equilibration(instance.structure)(instance.values)

    @cached_property
    def _A(self) -> Any:
        return abs(self._instance.A)

    @cached_property
    def _AT(self) -> Any:
        A = self._A
        return A.T if isinstance(A, np.ndarray) else A.T.tocsr()

    @cached_property
    def _P(self) -> Any:
        return abs(self._instance.P)

    def _by_cone(self, values: Floats) -> Floats:
        """The largest value of each curved cone in all of its rows, shape (m,)."""
        if self._polyhedral:
            return values
        cones = self._instance.structure.cones
        starts = cones.unit_starts
        return np.repeat(np.maximum.reduceat(values, starts), np.diff(np.append(starts, cones.m)))

    def sizes(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """What each row and each column balances at a point, in its own unit; all positive.

        Args:
            x: columns, shape (n,).
            y: multipliers, shape (m,).

        Returns:
            The rows' sizes, shape (m,), in the units of b, equal in the rows of one curved cone; the columns', shape
            (n,), in the units of q. A slack is small or not beside its row's, a multiplier times its row's entry beside
            its column's.

        Example:
            >>> from cvxift.kkt.instance import Layout
            >>> from cvxift.program.structure import Cones, Data, Structure
            >>> structure = Structure.from_patterns(1, Cones(nonneg=1), P=([0], [0]), A=([0], [0]))
            >>> one = np.ones(1)
            >>> instance = Layout(structure).instance(Data(one, -2.0 * one, one, one, np.float64(0.0)))
            >>> rows, columns = instance.scales.sizes(one, one)  # x ≤ 1 at x = 1; x − 2 + y = 0
            >>> rows.round(3), columns.round(3)
            (array([2.]), array([4.]))
        """
        x, y = np.abs(x), self._by_cone(np.abs(y))
        rows, columns = self._A @ x, self._P @ x
        rows += self._b
        columns += self._q
        columns += self._AT @ y
        (row_unit, column_unit), (least_x, least_y) = self._units, self._anchors
        units = self.units
        if units is None:
            rows += FLOOR * max(least_x, _largest(x))
            columns += FLOOR * max(least_y, _largest(y))
        else:
            rows += FLOOR * max(least_x, _largest(x / units.columns)) * row_unit
            columns += FLOOR * max(least_y, _largest(y * (units.cost / units.rows))) * column_unit
        return self._by_cone(rows), columns

    @cached_property
    def _units(self) -> tuple[Any, Any]:
        """The units of b, (m,), and of q, (n,); 1 where they are moderate."""
        units = self.units
        return (1.0, 1.0) if units is None else (1.0 / units.rows, 1.0 / (units.cost * units.columns))

    @cached_property
    def _anchors(self) -> tuple[float, float]:
        """β and γ."""
        if self.units is None:
            return min(1.0, _largest(self._b) or 1.0), min(1.0, _largest(self._q) or 1.0)
        row_unit, column_unit = self._units
        return min(1.0, _largest(self._b / row_unit) or 1.0), min(1.0, _largest(self._q / column_unit) or 1.0)

    @cached_property
    def _least(self) -> tuple[Floats, Floats]:
        """Lower bounds of the sizes, whatever the point."""
        (row_unit, column_unit), (least_x, least_y) = self._units, self._anchors
        return self._b + FLOOR * least_x * row_unit, self._q + FLOOR * least_y * column_unit

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
        primal, dual = np.abs(primal), np.abs(dual)
        rows, columns = self._least
        # Often no more is needed to show a point to be exact. A NaN fails the comparisons.
        bound = Residuals(_largest(primal / rows), _largest(dual / columns))
        if bound.primal <= EXACT and bound.dual <= EXACT:
            return bound
        rows, columns = self.sizes(x, y)
        if not self._polyhedral:
            dual = np.maximum(dual - self._rounding(s - y), 0.0)
        return Residuals(_largest(primal / rows), _largest(dual / columns))

    def balance(self, x: Floats, y: Floats) -> Floats:
        """How many units of s one unit of y is worth in each row (or curved cone), shape (m,).

        sᵢ is small beside the row's size, and yᵢ where yᵢ |A_ij| is small in all of the row's columns, so that sᵢ < τᵢ
        yᵢ, τ the balance, compares like with like whatever the units.

        Args:
            x: columns, shape (n,).
            y: multipliers, shape (m,).
        """
        rows, columns = self.sizes(x, y)
        structure = self._instance.structure
        A_rows, A_cols = structure.places[2:]
        share = np.zeros(structure.m)
        np.maximum.at(share, A_rows, np.abs(self._instance.values.A) / columns[A_cols])
        return rows * self._by_cone(share)

    def _rounding(self, v: Floats) -> Floats:
        """What the rounding of y may leave in each column, shape (n,)."""
        cones = self._instance.structure.cones
        size = self._by_cone(np.abs(v))
        size[: cones.zero + cones.nonneg] = 0.0
        return ROUNDING * (self._AT @ size)


def _largest(values: Floats) -> float:
    """Largest entry of a vector without negative ones; 0 for an empty vector."""
    return float(np.maximum.reduce(values, initial=0.0))
