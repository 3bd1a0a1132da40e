"""A solved instance: the point, how it was found, and its derivatives under any policy.

The derivatives are those of `cvxift.kkt.products`, with the instance's own factorization.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cvxift import cones as cone
from cvxift._types import cached_property
from cvxift.kkt.convexity import convex_on_equalities
from cvxift.kkt.instance import Instance, Layout, Residuals
from cvxift.kkt.newton import Point
from cvxift.kkt.policy import Policy
from cvxift.kkt.products import Curvature, CurvatureInUnits, DataEntries, Pair, Products
from cvxift.kkt.regularity.thresholds import CLEAR
from cvxift.kkt.smooth import CentralPath, central_point
from cvxift.kkt.system.factor import Certificate
from cvxift.kkt.system.iterative import IterativeSystem
from cvxift.kkt.system.kept import kept_system
from cvxift.kkt.system.reduced import ReducedSystem, rotation
from cvxift.kkt.units import Rescaled, Units
from cvxift.program.structure import Data, Floats, Structure
from cvxift.program.substitution import Way
from cvxift.solvers.base import Raw, Status

if TYPE_CHECKING:
    from cvxift.kkt.engine import Engine

Attempts = list[tuple[str, Status, str, float]]
"""Each solver that was tried: its name, its status, its words, and the residual after polishing."""


class Linearization(Products):
    """The solution map's derivatives at a point of a program.

    Args:
        structure: the program's structure.
        data: its data, unbatched.
        x: columns, shape (n,).
        y: multipliers, shape (m,).
        system: the reduced system of the (condensed) instance at the point.
        v: s − y, shape (m,); what substituted rows hold does not matter.
        substitution: the way from the condensed program to this one; None if they are the same.
        mu: the central path's parameter if the point is on that path; None for a solution.
        entries: F_θ on the structure's patterns, if it was made before.

    Attributes:
        certificate: of the last solve; None before the first.
    """

    def __init__(
        self,
        structure: Structure,
        data: Data,
        x: Floats,
        y: Floats,
        system: ReducedSystem | IterativeSystem,
        v: Floats,
        substitution: Way | None = None,
        mu: float | None = None,
        entries: DataEntries | None = None,
    ) -> None:
        self.structure, self.data, self.x, self.y = structure, data, x, y
        self.system, self.v, self.substitution, self.mu = system, v, substitution, mu
        self.entries = DataEntries(structure) if entries is None else entries
        self.certificate: Certificate | None = None

    @classmethod
    def at(cls, structure: Structure, data: Data, instance: Instance, x: Floats, s: Floats, y: Floats) -> Linearization:
        """The linearization of an uncondensed program at (x, s, y)."""
        v = s - y
        return cls(structure, data, x, y, ReducedSystem(instance, rotation(structure.cones, v)), v)

    def prepare(self) -> None:
        """Factorize the reduced system, if there is one."""
        if isinstance(self.system, ReducedSystem):
            _ = self.system.factor

    def solve(self, g: Floats, h: Floats | None) -> Pair:
        """See `Products.solve`; g of shape (n,) or (k, n). Keeps the certificate."""
        return self._inner(g, h) if self.substitution is None else self.substitution.solve(self._inner, g, h)

    def _inner(self, g: Floats, h: Floats | None) -> Pair:
        u, w, self.certificate = self.system.solve(g, h)
        return u, w

    @cached_property
    def curvature(self) -> Curvature | CurvatureInUnits | None:
        """See `Products.curvature`; on the central path, where Π is φ of `cvxift.kkt.smooth`, D²φ."""
        if self.mu is None and self.structure.cones.polyhedral:
            return None
        A, way = self.structure.A_matrix(self.data.A), self.substitution
        if self.mu is not None:
            return Curvature(A, CentralPath(self.v, self.mu, self.structure.cones.zero))
        if not isinstance(way, Rescaled):
            return Curvature(A, self._spectrum)
        system = self.system
        spectrum = system.rotation.spectrum if isinstance(system, ReducedSystem) else system.spectrum
        return CurvatureInUnits(A, spectrum, way.units, way.rows)

    @cached_property
    def _spectrum(self) -> cone.Spectrum:
        return cone.spectrum(self.structure.cones, self.v)


@dataclass(eq=False)
class Solution:
    """A solved instance: the point in the original program, how it was found, and its derivatives.

    Attributes:
        structure: the program's structure.
        data: the program's data.
        x: columns, shape (n,).
        s: slacks, shape (m,).
        y: multipliers, shape (m,).
        point: the point of the condensed program, in moderate units.
        instance: the condensed program's matrices, in the same units.
        substitution: the way from there to the original program.
        solver: name of the solver whose point it is.
        status: that solver's status, or of the last one when none was accepted.
        attempts: (solver, status, message, residual after polishing) of each solver tried.
        linearizations: those that were asked for, by policy.
        descent: where the point found is a saddle, a direction of the columns along which the cost falls, shape (n,).
        ok: whether a point was found that satisfies the optimality conditions.
        worst: its largest relative residual; infinite when there is no point.
    """

    structure: Structure
    data: Data
    x: Floats
    s: Floats
    y: Floats
    point: Point | None
    instance: Instance
    substitution: Way | None
    solver: str
    status: Status
    engine: Engine
    attempts: Attempts = field(default_factory=list)
    descent: Floats | None = None
    linearizations: dict[Policy, Linearization] = field(default_factory=dict)
    _clear: bool | None = None
    accounts: dict[Any, Any] = field(default_factory=dict)  # what is known of the map here; see `kkt.regularity`
    held: Any = None  # the map of the problem with its integers held, where it had any; see `kkt.integers`

    def __post_init__(self) -> None:
        self.ok = self.point is not None
        self.worst = np.inf if self.point is None else self.point.worst

    @property
    def residuals(self) -> Residuals:
        """Relative residuals of the point; NaN when there is none."""
        return self.point.residuals if self.point is not None else Residuals(np.nan, np.nan, np.nan)

    @property
    def local(self) -> bool:
        """Whether the point is a minimum of a cost that was said to be convex and is not: others may be lower."""
        convex = not self.ok or self.engine.nonlinear or self.engine.convex(self.data.P, self.instance)
        return not convex and not convex_on_equalities(self.instance)

    @property
    def units(self) -> Units | None:
        """The units of the condensed program's point; None if they are its own."""
        return self.substitution.units if isinstance(self.substitution, Rescaled) else None

    @property
    def clear(self) -> bool:
        """Whether no cone is anywhere near a kink, by a question that costs little."""
        if self._clear is None:
            assert self.point is not None
            self._clear = not near_kinks(self.engine.cones, self.point.v, self.point.spectrum)
        return self._clear

    def regular(self, policy: Policy) -> Linearization | None:
        """The derivatives where nothing is to be judged: linear constraints, no row near a kink, and K not singular."""
        if not self.engine.cones.polyhedral or policy.singular in ("smooth", "regularize") or not self.clear:
            return None
        linear = self.linearization(policy)
        return linear if isinstance(linear.system, ReducedSystem) and linear.system.regular else None

    def start(self) -> Raw | None:
        """The condensed program's point in its own units, to start another solve from; None if there is none."""
        if self.point is None:
            return None
        point = self.point.x, self.point.s, self.point.y
        return Raw(*(point if self.units is None else self.units.point_back(*point)), Status.SOLVED, "")

    def worst_place(self) -> tuple[Literal["row", "column"], int, float]:
        """Where in the original program the largest relative residual is: in a row or a column, which, and its size."""
        instance = Layout(self.structure, dense=False).instance(self.data)
        dual, primal, _ = instance.errors(self.x, self.s, self.y)
        rows, columns = (np.abs(part) for part in (primal, dual))
        row_sizes, column_sizes = instance.scales.sizes(self.x, self.y)
        rows, columns = rows / row_sizes, columns / column_sizes
        if rows.max(initial=0.0) >= columns.max(initial=0.0):
            return "row", int(rows.argmax()), float(rows.max())
        return "column", int(columns.argmax()), float(columns.max())

    def linearization(self, policy: Policy) -> Linearization:
        """The solution map's derivatives at the point, under a policy; kept.

        It reuses the polishing's factorization where the active set is the same.

        Raises:
            ProgramError: ``singular="smooth"`` with other than linear constraints.
            ApplicabilityError: the central path has no point for ``"smooth"``.
        """
        if policy not in self.linearizations:
            self.linearizations[policy] = self._linearized(policy)
        return self.linearizations[policy]

    def _linearized(self, policy: Policy) -> Linearization:
        point, engine, way, units, mu = self.point, self.engine, self.substitution, self.units, None
        assert point is not None
        cones, x, y = engine.cones, self.x, self.y
        v = point.v if way is None else engine.condensation.lift(point.v) if units is None else self.s - y
        plain = policy.linear_solver == "auto" and not cones.psd
        iterative = None if plain else policy.iterative(cones.eigenvector_numbers)
        system: Any = point.system
        if policy.singular == "smooth":
            mu = policy.mu
            # sᵢ yᵢ = μ in the program's own units is ŝᵢ ŷᵢ = κμ in others.
            point = central_point(self.instance, point.x, point.v, mu if units is None else mu * float(units.cost))
            x, s, y = point.x, point.s, point.y
            if way is not None:
                x, s, y = way.expand(x, s, y)
            v = engine.condensation.lift(point.v) if units is None else s - y
            system = point.system
        elif iterative is not None:
            system = IterativeSystem(self.instance, point.v, iterative)
        elif system is None or system.singular != policy.singular:
            system = kept_system(self.instance, rotation(cones, point.v, point.spectrum), policy.singular)
        return Linearization(self.structure, self.data, x, y, system, v, way, mu, engine.entries)

    def describe(self) -> str:
        """One line a solver tried: its status, its words, the residual that was left."""
        return "; ".join(
            f"{name}: {status.value}"
            + (f" ({message})" if message else "")
            + (f", residual {residual:.1e}" if residual == residual else "")
            for name, status, message, residual in self.attempts
        )


def relative_margin(cones: cone.Cones, v: Floats, spectrum: cone.Spectrum | None = None) -> Any:
    """Smallest distance of v to a kink, relative to 1 + ‖v‖∞, shape (...): what costs little to know of a point.

    Args:
        cones: the product cone.
        v: s − y, shape (..., m).
        spectrum: of DΠ_K(v), if it is known.
    """
    size = np.abs(v[..., cones.zero :] if cones.polyhedral else v)
    margins = size if cones.polyhedral else cone.margin(cones, v, spectrum)
    return margins.min(axis=-1, initial=np.inf) / (1.0 + size.max(axis=-1, initial=0.0))


def near_kinks(cones: cone.Cones, v: Floats, spectrum: cone.Spectrum | None = None) -> Any:
    """Whether a cone may be near a kink, shape (...): the cheap question before a point is judged."""
    return ~(relative_margin(cones, v, spectrum) > CLEAR)  # a NaN is near
