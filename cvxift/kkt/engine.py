"""From the data of a program to a checked point: solve, polish, check against F, else go on to the next solver.

The engine owns what is done once for a structure (the condensation, the layout, one session a solver and thread) and
nothing about a single instance, so that one engine serves any number of threads and batches.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cvxift import cones as cone
from cvxift import solvers
from cvxift.kkt.instance import Instance, Layout, Residuals
from cvxift.kkt.iterative import IterativeSystem
from cvxift.kkt.linearization import Linearization
from cvxift.kkt.newton import Point, polish
from cvxift.kkt.policy import Policy
from cvxift.kkt.smooth import central_point
from cvxift.kkt.system import ReducedSystem, rotation
from cvxift.program.condense import Condensation, Substitution
from cvxift.program.structure import Data, Floats, Structure
from cvxift.solvers.base import Raw, Session, Status

TOLERANCE = 1e-9  # a point this good ends the search
SCALES = (1.0, 1e3, 1e-3)  # of s over y, in each row's units, tried where reading the active set off s − y fails
ACCEPTABLE = 1e-6  # the best point of all solvers is accepted up to this relative residual


@dataclass(eq=False)
class Solution:
    """A solved instance: the point in the original program, how it was found, and its derivatives.

    Attributes:
        structure: the program's structure.
        data: the program's data.
        x: columns, shape (n,).
        s: slacks, shape (m,).
        y: multipliers, shape (m,).
        point: the point of the condensed program.
        instance: the condensed program's matrices.
        substitution: the way from the condensed program to the original one.
        solver: name of the solver whose point it is.
        status: that solver's status, or of the last one when none was accepted.
        attempts: (solver, status, message, residual after polishing) of each solver tried.
    """

    structure: Structure
    data: Data
    x: Floats
    s: Floats
    y: Floats
    point: Point | None
    instance: Instance
    substitution: Substitution | None
    solver: str
    status: Status
    engine: Engine
    attempts: list[tuple[str, Status, str, float]] = field(default_factory=list)
    _linearizations: dict[Policy, Linearization] = field(default_factory=dict)
    accounts: dict[Any, Any] = field(default_factory=dict)  # what is known of the map here; see `kkt.regularity`

    @property
    def ok(self) -> bool:
        """Whether a point was found that satisfies the optimality conditions."""
        return self.point is not None

    @property
    def residuals(self) -> Residuals:
        """Relative residuals of the point; NaN when there is none."""
        return self.point.residuals if self.point is not None else Residuals(np.nan, np.nan, np.nan)

    def linearization(self, policy: Policy) -> Linearization:
        """The solution map's derivatives at the point, under a policy; kept."""
        if policy not in self._linearizations:
            self._linearizations[policy] = self.engine.linearize(self, policy)
        return self._linearizations[policy]

    def describe(self) -> str:
        """One line a solver tried: its status, its words, the residual that was left."""
        return "; ".join(
            f"{name}: {status.value}"
            + (f" ({message})" if message else "")
            + (f", residual {residual:.1e}" if residual == residual else "")
            for name, status, message, residual in self.attempts
        )


class Engine:
    """Solves instances of one structure.

    Args:
        structure: the program's structure.
        constant: for each stored entry of A, whether it is the same for every θ, shape (nnzA,); None if unknown.
        A: values of A's entries, of which the constant ones are read, shape (nnzA,).
        solver: name of the solver to try first; None chooses by structure and size.
        solver_args: options for that solver.
        dense: force the dense or the sparse layout.
    """

    def __init__(
        self,
        structure: Structure,
        *,
        constant: np.ndarray | None = None,
        A: Floats | None = None,
        solver: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
        dense: bool | None = None,
    ) -> None:
        self.structure = structure
        if constant is None or A is None:
            constant, A = np.zeros(structure.nnzA, dtype=bool), np.zeros(structure.nnzA)
        self.condensation = Condensation(structure, constant, A)
        self.layout = Layout(self.condensation.structure, dense)
        self.cones = self.condensation.structure.cones
        self._dense_numbers = _dense_numbers(self.cones)
        self.candidates = solvers.choose(self.condensation.structure)
        # The table's quick solver comes before its robust ones, with options of its own.
        self._quick_options: Mapping[str, Any] = {}
        quick = solvers.quick(self.condensation.structure)
        if quick is not None:
            name, self._quick_options = quick
            self.candidates = [name, *self.candidates]
        self.named: str | None = None
        self.solver_args: dict[str, Any] = {}
        self._order = self.candidates
        self._threads = threading.local()
        if solver is not None:
            self.named = solvers.get(solver).name
            self.prefer(self.named)
        self.set_options(solver_args or {})

    @property
    def first(self) -> str:
        """Name of the solver that is tried first."""
        return self._order[0]

    def prefer(self, name: str) -> None:
        """Try this solver first, the table's others after it."""
        self._order = self.order(name)

    def set_options(self, solver_args: Mapping[str, Any]) -> None:
        """Set the first solver's options.

        Raises:
            ProgramError: the solver cannot solve this structure, or an option is unknown.
        """
        self.solver_args = dict(solver_args)
        if self.solver_args or self.named is not None:
            self.session(self.first, self.solver_args)  # refuse now, not at the first solve

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_threads"]  # sessions hold the solvers' own workspaces; they are opened again where they are needed
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._threads = threading.local()

    def order(self, solver: str) -> list[str]:
        """The solvers to try, this one first."""
        return [solver, *(other for other in self.candidates if other != solver)]

    def session(self, name: str, options: Mapping[str, Any]) -> Session:
        """This thread's session of a solver with these options."""
        sessions = self._threads.__dict__.setdefault("sessions", {})
        key = (name, tuple(sorted((k, repr(v)) for k, v in options.items()))) if options else name
        if key not in sessions:
            sessions[key] = solvers.get(name).session(self.condensation.structure, **options)
        return sessions[key]

    def open(
        self, solver: str | None, solver_args: Mapping[str, Any] | None
    ) -> tuple[list[str], dict[str, Any], Session]:
        """The solvers to try in one call, the first one's options and its session.

        Args:
            solver: name of the solver to try first, instead of the engine's.
            solver_args: options for it, over those given to the engine.
        """
        order = self._order if solver is None else self.order(solver)
        options = self.solver_args if order[0] == self.first else {}
        if solver is None and self.named is None and self._quick_options and order[0] == self.candidates[0]:
            options = {**self._quick_options, **options}
        if solver_args:
            options = {**options, **solver_args}
        return order, options, self.session(order[0], options)

    def solve(
        self,
        data: Data,
        *,
        solver_args: Mapping[str, Any] | None = None,
        warm: Raw | None = None,
        solver: str | None = None,
        found: Raw | None = None,
    ) -> Solution:
        """Solve one instance.

        Args:
            data: the program's data, unbatched.
            solver_args: options for the first solver, over those given to the engine.
            warm: a point of the condensed program to start from.
            solver: name of the solver to try first, instead of the engine's.
            found: what the first solver returned, if it was called already.

        Returns:
            The solution; its `ok` says whether the optimality conditions hold.
        """
        small, substitution = self.condensation.condense(data)
        instance = self.layout.instance(small)
        order, options, session = self.open(solver, solver_args)
        best: Point | None = None
        best_name, attempts, status = "", [], Status.FAILED
        for index, name in enumerate(order):
            if index:
                session, options, found = self.session(name, {}), {}, None
            raw = session.solve(small.P, small.q, small.A, small.b, warm) if found is None else found
            if not raw.status.has_point:
                attempts.append((name, raw.status, raw.message, float("nan")))
                definite = (Status.INFEASIBLE, Status.UNBOUNDED)
                certain = not self.cones.polyhedral and not (index == 0 and self._quick_options)
                if raw.status in definite and (status in definite or certain or index + 1 == len(order)):
                    status = raw.status
                    break  # two solvers agree, or an interior-point certificate
                status = raw.status
                continue
            for candidate in self._points(name, options, small, raw):
                point = self._polished(instance, candidate)
                worst = point.residuals.worst
                attempts.append((name, candidate.status, candidate.message, worst))
                if best is None or worst < best.residuals.worst:
                    best, best_name, status = point, name, candidate.status
                if worst <= TOLERANCE:
                    break
            if best is not None and best.residuals.worst <= TOLERANCE:
                break
        if best is None or not best.residuals.worst <= ACCEPTABLE:
            return self.solution(data, None, instance, substitution, best_name, status, attempts)
        return self.solution(data, best, instance, substitution, best_name, status, attempts)

    def _points(self, name: str, options: Mapping[str, Any], small: Data, raw: Raw) -> Iterator[Raw]:
        """A solver's point, then its point at tight tolerances, where the active set of a program may show."""
        yield raw
        tight = solvers.get(name).tight if self.cones.polyhedral else {}
        if any(option not in options for option in tight):
            raw = self.session(name, {**tight, **options}).solve(small.P, small.q, small.A, small.b)
            if raw.status.has_point:
                yield raw

    def _polished(self, instance: Instance, raw: Raw) -> Point:
        """A solver's point after Newton.

        An interior-point solver leaves sᵢ yᵢ ≈ μ in every row, and v = s − y reads the active set off it right only
        where both are of one scale. Where that fails, a row is counted as tight if sᵢ < τ τᵢ yᵢ, with τᵢ what y is
        worth in units of s there.
        """
        best = polish(instance, raw.x, raw.s - raw.y)
        if best.residuals.worst <= TOLERANCE or not self.cones.nonneg:
            return best
        rows = slice(self.cones.zero, self.cones.zero + self.cones.nonneg)
        s, y = np.maximum(raw.s[rows], 0.0), np.maximum(raw.y[rows], 0.0)
        worth = instance.scales.balance(raw.x, raw.y)[rows] * y
        for tau in SCALES:
            v = raw.s - raw.y
            v[rows] = np.where(s < tau * worth, -y, s)
            point = polish(instance, raw.x, v)
            if point.residuals.worst < best.residuals.worst:
                best = point
            if best.residuals.worst <= TOLERANCE:
                break
        return best

    def accept_condensed(self, data: Data, x: Floats, v: Floats, name: str) -> Solution:
        """The solution at a point of the condensed program that somebody else found, polished.

        Args:
            data: the original program's data.
            x: condensed columns.
            v: condensed s − y.
            name: who found it.

        Returns:
            The solution; its `ok` says whether it satisfies the optimality conditions.
        """
        small, substitution = self.condensation.condense(data)
        instance = self.layout.instance(small)
        point = polish(instance, x, v)
        good = point.residuals.worst <= ACCEPTABLE
        attempts = [(name, Status.SOLVED, "", point.residuals.worst)]
        return self.solution(
            data,
            point if good else None,
            instance,
            substitution,
            name,
            Status.SOLVED if good else Status.INACCURATE,
            attempts,
        )

    def solution(
        self,
        data: Data,
        point: Point | None,
        instance: Instance,
        substitution: Substitution | None,
        name: str,
        status: Status,
        attempts: list[tuple[str, Status, str, float]],
    ) -> Solution:
        """A solution from the condensed program's point; NaN everywhere if there is none."""
        if point is None:
            n, m = self.structure.n, self.structure.m
            x, s, y = np.full(n, np.nan), np.full(m, np.nan), np.full(m, np.nan)
        else:
            x, s, y = point.x, point.s, point.y
            if substitution is not None:
                x, s, y = substitution.expand(x, s, y)
        return Solution(self.structure, data, x, s, y, point, instance, substitution, name, status, self, attempts)

    def linearize(self, solution: Solution, policy: Policy) -> Linearization:
        """The derivatives at a solution.

        Args:
            solution: a solution of this engine that has a point.
            policy: how to take them.

        Returns:
            The linearization; it reuses the polishing's factorization where the active set is the same.

        Raises:
            ProgramError: ``singular="smooth"`` with other than linear constraints.
            ApplicabilityError: the central path has no point for ``"smooth"``.
        """
        point, x, y = solution.point, solution.x, solution.y
        assert point is not None
        iterative = policy.iterative(self._dense_numbers)
        if policy.singular == "smooth":
            point = central_point(solution.instance, point.x, point.v, policy.mu)
            x, y = point.x, point.y
            if solution.substitution is not None:
                x, _, y = solution.substitution.expand(point.x, point.s, point.y)
            system = point.system
        elif iterative is not None:
            system = IterativeSystem(solution.instance, point.v, iterative)
        elif point.system is not None and point.system.singular == policy.singular:
            system = point.system
        else:
            system = ReducedSystem(solution.instance, rotation(self.cones, point.v, point.spectrum), policy.singular)
        assert system is not None
        return Linearization(
            self.structure,
            solution.data,
            x,
            y,
            system,
            self.condensation.lift(point.v),
            solution.substitution,
            policy.mu if policy.singular == "smooth" else None,
        )


def _dense_numbers(cones: cone.Cones) -> float:
    """Numbers in the eigenvector blocks that a factorization needs; large second-order cones are lifted instead."""
    return float(sum((block.stop - block.start) ** 2 for block in cones.blocks() if block.kind == "psd"))
