"""From the data of a program to a checked point: solve, polish, check against F, else go on to the next solver.

The engine owns what is done once for a structure (the condensation, the layout, one session a solver and thread) and
nothing about a single instance, so that one engine serves any number of threads and batches.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from cvxift import solvers
from cvxift.kkt import convexity
from cvxift.kkt.equilibration import Equilibration
from cvxift.kkt.instance import Instance, Layout
from cvxift.kkt.newton import Point, goal_of, polish
from cvxift.kkt.policy import options_of
from cvxift.kkt.products import DataEntries
from cvxift.kkt.search import ACCEPTABLE, TOLERANCE, Search
from cvxift.kkt.solution import Attempts, Solution
from cvxift.kkt.system.reduced import rotation
from cvxift.kkt.units import Rescaled
from cvxift.program.condensation import Condensation
from cvxift.program.structure import Data, Floats, Structure
from cvxift.program.substitution import Way
from cvxift.solvers.base import Raw, Session, Status

__all__ = ["ACCEPTABLE", "TOLERANCE", "Engine", "Solution"]

WORTH_FOLLOWING = 1000  # rows and columns of curved programs from which a step from afar is cheaper than a solver
WORTH_HANDING = 200  # rows and columns from which an old active set saves more than it costs to hand over


class Engine:
    """Solves instances of one structure.

    Args:
        structure: the program's structure.
        constant: for each stored entry of A, whether it is the same for every θ, shape (nnzA,); None if unknown.
        A: values of A's entries, of which the constant ones are read, shape (nnzA,).
        solver: name of the solver to try first; None chooses by structure and size.
        solver_args: options for that solver.
        vouched: whether nobody checked P; otherwise CVXPY has checked the signs of one without off-diagonal entries.
    """

    vectorized = True  # whether batches of small instances may be solved as arrays
    nonlinear = False  # whether nobody said that the cost is convex

    def __init__(
        self,
        structure: Structure,
        *,
        constant: np.ndarray | None = None,
        A: Floats | None = None,
        solver: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
        vouched: bool = False,
    ) -> None:
        self.structure = structure
        if constant is None or A is None:
            constant, A = np.zeros(structure.nnzA, dtype=bool), np.zeros(structure.nnzA)
        self.condensation = Condensation(structure, constant, A)
        self.layout = Layout(self.condensation.structure)
        self.cones = self.condensation.structure.cones
        self._shape = self.condensation.structure.n, self.cones.m
        self._equilibration = Equilibration(self.condensation.structure, turns=True)
        self.vouched = vouched or bool(np.any(structure.P_rows != structure.P_cols))
        self._convex: Floats | None = None  # values of the last P that was found to be positive semidefinite
        self.entries = DataEntries(structure)
        self.candidates = solvers.choose(self.condensation.structure)
        # The table's quick solver comes before its robust ones, with options of its own.
        self.quick_options: Mapping[str, Any] = {}
        if (quick := solvers.quick(self.condensation.structure)) is not None:
            name, self.quick_options = quick
            self.candidates = [name, *self.candidates]
        self.named: str | None = None
        self.solver_args: dict[str, Any] = {}
        self._order = self.candidates
        self._threads = threading.local()
        if solver is not None:
            self.choose(solver)
        if solver is not None or solver_args is not None:
            self.set_options(options_of(solver_args))

    @property
    def first(self) -> str:
        """Name of the solver that is tried first."""
        return self._order[0]

    def choose(self, name: str) -> None:
        """Try this solver first, as the user names it or an option of its own, and the table's others after it."""
        self.named = solvers.get(name).name
        self._order = self.order(self.named)

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
        key = session_key(name, options)
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
        if solver is None and self.named is None and self.quick_options and order[0] == self.candidates[0]:
            options = {**self.quick_options, **options}
        if solver_args:
            options = {**options, **solver_args}
        return order, options, self.session(order[0], options)

    def follows(self, name: str, count: int = 1) -> bool:
        """Whether Newton's steps from `count` old points may take this solver's place: where they are less work."""
        less = bool(self.quick_options) or self.cones.polyhedral or count * sum(self._shape) >= WORTH_FOLLOWING
        return less and not solvers.get(name).active_set

    def hands_over(self, name: str) -> bool:
        """Whether a solver is given an old point; a small active set is found as soon from nothing."""
        return not solvers.get(name).active_set or sum(self._shape) >= WORTH_HANDING

    def condense(self, data: Data, beside: Solution | None = None) -> tuple[Data, Way | None]:
        """The condensed program's data in moderate units, and the way back.

        Args:
            data: the program's data, with leading dimensions as `Condensation` takes them.
            beside: a solution in whose units they are to be; None for units of their own.
        """
        condensation = self.condensation
        small, way = (data, None) if condensation.parts is None else condensation.condense(data)
        units = self._equilibration(small) if beside is None else beside.units
        return (small, way) if units is None else (units.data(self.condensation.structure, small), Rescaled(units, way))

    def solve(
        self,
        data: Data,
        *,
        solver_args: Mapping[str, Any] | None = None,
        warm: Raw | None = None,
        solver: str | None = None,
        found: Raw | None = None,
        condensed: tuple[Data, Way | None] | None = None,
        beside: Solution | None = None,
        follow: bool = False,
        brief: bool = False,
    ) -> Solution:
        """Solve one instance.

        Args:
            data: the program's data, unbatched.
            solver_args: options for the first solver, over those given to the engine.
            warm: a point of the condensed program to start from.
            solver: name of the solver to try first, instead of the engine's.
            found: what the first solver returned, if it was called already.
            condensed: what `condense` gives, if it was called already.
            beside: as for `condense`.
            follow: whether Newton's steps from the point to start from may take the solvers' place.
            brief: whether to give up early, where much is asked for that may not exist.

        Returns:
            The solution; its `ok` says whether the optimality conditions hold.
        """
        order, options, session = self.open(solver, solver_args)
        warm = None if warm is None or not self.hands_over(order[0]) else warm
        small, way = self.condense(data, beside) if condensed is None else condensed
        instance = self.layout.instance(small, moderate=True)
        search = Search(self, small, instance, warm if warm is None else _in_units(warm, way), brief)
        if warm is None or not (follow and search.follow(order[0])):
            search.run(order, options, session, found)
        if isinstance(way, Rescaled) and not search.reached:
            # Solvers scale programs as well, sometimes better.
            small, way_back = self.condensation.condense(data)
            there = self.layout.instance(small)
            other = Search(self, small, there, warm, brief)
            other.run(order, options, session)
            if other.reached or (search.accepted is None and other.accepted is not None):
                other.attempts[:0] = search.attempts
                search, instance, way = other, there, way_back
        return self._finish(data, search.accepted, instance, way, search.name, search.status, search.attempts)

    def _finish(
        self,
        data: Data,
        point: Point | None,
        instance: Instance,
        way: Way | None,
        name: str,
        status: Status,
        attempts: Attempts,
    ) -> Solution:
        """The solution at a point, unless that is a saddle of a cost that was said to be convex."""
        descent = None
        if not self.convex(data.P, instance):
            # Without a point, for example where the cost has no bound, the first stationary one says why.
            at = polish(instance, np.zeros(instance.structure.n), instance.b) if point is None else point
            if at.worst <= ACCEPTABLE:
                descent = convexity.descent(instance, rotation(self.cones, at.v, at.spectrum))
        if descent is None:
            return self.solution(data, point, instance, way, name, status, attempts)
        attempts.append(("second-order condition", Status.NONCONVEX, "P is indefinite", float("nan")))
        solution = self.solution(data, None, instance, way, name, Status.NONCONVEX, attempts)
        solution.descent = self._columns(descent, way)
        return solution

    def convex(self, P: Floats, instance: Instance) -> bool:
        """Whether P ≽ 0; the last one is known.

        Args:
            P: the original program's P, values on its pattern, shape (nnzP,).
            instance: the condensed program.
        """
        if not self.vouched or (self._convex is not None and np.array_equal(self._convex, P)):
            return True
        if not convexity.semidefinite(instance.P):
            return False
        self._convex = P
        return True

    def _columns(self, direction: Floats, way: Way | None) -> Floats:
        """A direction of the condensed program's columns as one of the original's."""
        if way is None:
            return direction
        none = np.zeros(self.cones.m)
        return way.expand(direction, none, none)[0] - way.expand(np.zeros_like(direction), none, none)[0]

    def accept_condensed(
        self, data: Data, x: Floats, s: Floats, y: Floats, name: str, limit: float = ACCEPTABLE
    ) -> Solution:
        """The solution at a point of the condensed program that somebody else found, polished.

        Args:
            data: the original program's data.
            x: condensed columns.
            s: condensed slacks.
            y: condensed multipliers.
            name: who found it.
            limit: relative residual up to which the polished point is one.

        Returns:
            The solution; its `ok` says whether it satisfies the optimality conditions.
        """
        small, way = self.condense(data)
        instance = self.layout.instance(small, moderate=True)
        if isinstance(way, Rescaled):
            x, s, y = way.units.point(x, s, y)
        point = polish(instance, x, s - y, goal=goal_of(self.cones))
        good = point.worst <= limit
        status = Status.SOLVED if good else Status.INACCURATE
        attempts = [(name, Status.SOLVED, "", point.worst)]
        return self._finish(data, point if good else None, instance, way, name, status, attempts)

    def solution(
        self,
        data: Data,
        point: Point | None,
        instance: Instance,
        substitution: Way | None,
        name: str,
        status: Status,
        attempts: Attempts,
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

    def failed(self, data: Data, status: Status, attempts: Attempts, name: str = "") -> Solution:
        """A solution without a point, of data that were not solved; the solver's name is the last one's."""
        none: Any = None  # without a point nobody asks for the matrices
        return self.solution(data, None, none, None, name, status, attempts)


def session_key(name: str, options: Mapping[str, Any]) -> Any:
    """What tells a solver's session with these options from others."""
    return (name, tuple(sorted((option, repr(value)) for option, value in options.items()))) if options else name


def _in_units(warm: Raw, way: Way | None) -> Raw:
    """A point of the condensed program in the units that it is solved in."""
    if not isinstance(way, Rescaled):
        return warm
    return Raw(*way.units.point(warm.x, warm.s, warm.y), warm.status, warm.message)
