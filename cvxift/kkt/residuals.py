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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cvxift.cones.product import PlacedCones
from cvxift.kkt.backend import Array, Arrays
from cvxift.kkt.units import Units
from cvxift.program.products import apply

if TYPE_CHECKING:
    from cvxift.kkt.batch.programs import DensePrograms
    from cvxift.kkt.instance import Instance

GOAL = 1e-12  # relative residual from which a point is left as it is: an upper bound of it says as much
FLOOR = 1e-4  # φ above: part of the whole solution's size, in its unit, under which an entry has no size of its own
PROJECTION_ROUNDING = 1e-14  # accuracy of the projection on a curved cone, relative to v


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


def errors(program: Instance | DensePrograms, x: Array, s: Array, y: Array) -> tuple[Array, Array]:
    """Dual error Px + q + Aᵀy, shape (..., n), and primal error Ax + s − b, shape (..., m)."""
    if x.ndim == 1:  # one program
        return program.P @ x + program.q + program.AT @ y, program.A @ x + s - program.b
    return apply(program.P, x) + program.q + apply(program.AT, y), apply(program.A, x) + s - program.b


class Scales:
    """What the rows and columns of a program, or of each program of a batch, balance.

    Args:
        program: its matrices.
        cones: K, where the arrays live.
        place: where that is.
        units: the units of one program that is not of moderate size; None else.
    """

    def __init__(
        self, program: Instance | DensePrograms, cones: PlacedCones, place: Arrays, units: Units | None = None
    ) -> None:
        self._program, self._cones, self._place, self.units = program, cones, place, units
        self._polyhedral = cones.cones.polyhedral
        self._b, self._q = place.xp.abs(program.b), place.xp.abs(program.q)
        self._row_unit = self._column_unit = None  # the units of b, (m,), and of q, (n,), where they are not moderate
        if units is not None:
            self._row_unit, self._column_unit = 1.0 / units.rows, 1.0 / (units.cost * units.columns)
        self._anchors = self._anchor(self._b, self._row_unit), self._anchor(self._q, self._column_unit)
        self._least: tuple[Array, Array] | None = None  # lower bounds of the sizes, whatever the point

    def by_cone(self, values: Array) -> Array:
        """The largest value of each curved cone in all of its rows, shape (..., m)."""
        return values if self._polyhedral else self._cones.largest(values)

    def sizes(self, x: Array, y: Array) -> tuple[Array, Array]:
        """What each row and each column balances at a point, in its own unit; all positive.

        Args:
            x: columns, shape (..., n).
            y: multipliers, shape (..., m).

        Returns:
            The rows' sizes, shape (..., m), in the units of b, equal in the rows of one curved cone; the columns',
            shape (..., n), in the units of q. A slack is small or not beside its row's, a multiplier times its row's
            entry beside its column's.

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
        xp, units = self._place.xp, self.units
        x, y = xp.abs(x), self.by_cone(xp.abs(y))
        own = (x, y) if units is None else (x / units.columns, y * (units.cost / units.rows))
        of_x, of_y = (
            xp.maximum(largest(xp, part)[..., None], least) for part, least in zip(own, self._anchors, strict=True)
        )
        row_floor, column_floor = self._floors(of_x, of_y)
        P, A, AT = self._program.magnitudes
        rows = apply(A, x) + self._b + row_floor
        columns = apply(P, x) + self._q + apply(AT, y) + column_floor
        return self.by_cone(rows), columns

    def _anchor(self, part: Array, unit: Any) -> Any:
        """β or γ, shape (...)."""
        xp = self._place.xp
        size = largest(xp, part if unit is None else part / unit)
        if self._place.reads_freely and not size.ndim:
            return min(1.0, size or 1.0)
        return xp.where((size > 0.0) & (size < 1.0), size, 1.0)[..., None]

    def _floors(self, x: Any, y: Any) -> tuple[Any, Any]:
        """φξ/r and φη/(κc), for ξ and η of shape (..., 1) or numbers."""
        if self.units is None:
            return FLOOR * x, FLOOR * y
        return FLOOR * x * self._row_unit, FLOOR * y * self._column_unit

    def measure(self, primal: Array, dual: Array, x: Array, s: Array, y: Array) -> tuple[Array, Array]:
        """The relative residuals of a point.

        Args:
            primal: Ax + s − b, shape (..., m).
            dual: Px + q + Aᵀy, shape (..., n).
            x: columns, shape (..., n).
            s: slacks, shape (..., m).
            y: multipliers, shape (..., m).

        Returns:
            The primal and the dual residual, shapes (...); on the host, upper bounds of them where those are below
            `GOAL`.
        """
        xp = self._place.xp
        primal, dual = xp.abs(primal), xp.abs(dual)
        if self._place.reads_freely:
            if self._least is None:
                row_floor, column_floor = self._floors(*self._anchors)
                self._least = self._b + row_floor, self._q + column_floor
            rows, columns = self._least
            # Often no more is needed to show a point to be exact. A NaN fails the comparisons.
            bound = largest(xp, primal / rows), largest(xp, dual / columns)
            if primal.ndim == 1:
                if bound[0] <= GOAL and bound[1] <= GOAL:
                    return bound
            else:
                above = np.flatnonzero(~((bound[0] <= GOAL) & (bound[1] <= GOAL)))
                if 2 * len(above) <= len(primal):
                    if len(above):
                        rest = self._some(above, primal, dual, x, s, y)
                        bound[0][above], bound[1][above] = rest
                    return bound
        rows, columns = self.sizes(x, y)
        if not self._polyhedral:  # what the rounding of y may leave in each column
            rounding = PROJECTION_ROUNDING * apply(
                self._program.magnitudes[2], self._cones.curved * self._cones.largest(xp.abs(s - y))
            )
            dual = xp.maximum(dual - rounding, xp.zeros_like(dual))
        return largest(xp, primal / rows), largest(xp, dual / columns)

    def _some(self, index: np.ndarray, *parts: Array) -> tuple[Array, Array]:
        """`measure` of some programs of a batch."""
        program: Any = self._program
        return Scales(program.taken(index), self._cones, self._place).measure(*(part[index] for part in parts))


def largest(xp: Any, values: Array) -> Array:
    """The largest entry along the last axis, of values without negative ones; 0 for an empty axis."""
    if isinstance(values, np.ndarray):
        return np.maximum.reduce(values, axis=-1, initial=0.0)
    return xp.max(values, axis=-1) if values.shape[-1] else xp.sum(values, axis=-1)
