"""From parameters to a local solution: follow the last one, or call a nonlinear solver; make it accurate; judge it.

No solver's word is taken for a solution: Newton's steps start from its point, and the residuals of the optimality
conditions and the curvature along what active rows leave free decide. A stationary point that is no minimum is left
along the direction in which the cost falls, once, and refused if no minimum is found from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.errors import ProgramError
from cvxift.kkt import convexity
from cvxift.kkt.cone_basis import rotation
from cvxift.kkt.engine import ACCEPTABLE, TOLERANCE, Engine, Solution
from cvxift.nlp.convex import ConvexSolver
from cvxift.nlp.multipliers import fitted
from cvxift.nlp.newton import Converged, converge
from cvxift.program.smooth import Request, SmoothProgram, interface
from cvxift.program.structure import Floats
from cvxift.solvers.base import Raw, Status

NEAR = 0.1  # relative distance from the last solution up to which Newton's point counts as the same branch
CLOSE = 1e-3  # relative residual of the point that variables hold from which Newton alone is tried
ESCAPE = 1e-2  # relative step off a saddle
FOLLOW_STEPS = 12  # Newton steps to another parameter's solution
BEST_OF = "best_of"


class NonlinearEngine(Engine):
    """Solves instances of one smooth program.

    Args:
        program: the program.
        values: where the user's variables start, in order; those that are None start between their bounds, or at zero.
        solver: name of the nonlinear solver; None for the first that is installed.
        solver_args: its options, and ``best_of``: a number of starts.
        verbose: whether it may print.
    """

    vectorized = False

    def __init__(
        self,
        program: SmoothProgram,
        values: Sequence[Any] | None = None,
        *,
        solver: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(program.structure)
        self.vouched = True  # curvature is looked at, whatever the pattern of P
        self.program = program
        self.values = [None] * len(program.problem.variables()) if values is None else list(values)
        self.verbose = verbose
        self._name = solver
        if solver is not None:
            interface.named(solver)
        self._options: dict[str, Any] = {}
        self.set_options(solver_args or {})

    @property
    def first(self) -> str:
        """Name of the solver that is called."""
        return interface.named(self._name)[0] if self._name is not None or interface.installed() else "none installed"

    def choose(self, name: str) -> None:
        """Call this solver."""
        interface.named(name)
        self._name = name

    def set_options(self, solver_args: Mapping[str, Any]) -> None:
        """Set the solver's options."""
        count = solver_args.get(BEST_OF, 1)
        if not isinstance(count, int) or count < 1:
            raise ProgramError(f"best_of={count!r} is not a positive number of starts.")
        self._options = dict(solver_args)

    def solve(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        data: Request,
        *,
        solver_args: Mapping[str, Any] | None = None,
        warm: Raw | None = None,
        solver: str | None = None,
        **_: Any,
    ) -> Solution:
        """Solve one instance.

        Args:
            data: the parameters, and the point to follow if there is one.
            solver_args: options for this call, over the engine's.
            warm: a point to start from.
            solver: name of the solver, instead of the engine's.

        Returns:
            The solution; its `ok` says whether it is a local minimum that satisfies the optimality conditions.
        """
        theta, near = data.theta, data.near
        try:
            p = self.program.p(theta)
        except ProgramError as error:
            return self._failed(data, Status.FAILED, [("parameters", Status.FAILED, str(error), float("nan"))])
        if warm is None and near is not None:
            warm = Raw(near.x, np.maximum(-near.g, 0.0), near.y, Status.SOLVED, "")
        search = _Search(self, data, theta, p)
        if warm is not None and np.isfinite(warm.x).all() and search.follow(warm):
            return search.solution()
        convex = self._convex_solver if solver is None and not solver_args else None
        if convex is not None and search.convex(convex):
            return search.solution()
        options = {**self._options, **(solver_args or {})}
        count = options.pop(BEST_OF, 1)
        start = warm.x if warm is not None else self.program.start(self.values, theta)
        search.call(solver or self._name, options, start, count, short=warm is not None)
        return search.solution()

    def held(self, theta: Floats, values: Sequence[Any]) -> Solution | None:
        """The solution at the values that the variables hold, if they are near one.

        Args:
            theta: the parameters, shape (N,).
            values: of all the user's variables, in order.
        """
        data = self.program.evaluate(theta)
        p = self.program.p(theta)
        search = _Search(self, data, theta, p)
        x = self.program.start(values, theta)
        return search.solution() if search.take("cvxpy", x, fitted(self.program, p, x), "", near=CLOSE) else None

    @cached_property
    def _convex_solver(self) -> ConvexSolver | None:
        """CVXPY's convex solve, where the problem is convex and nobody asks for a nonlinear solver."""
        plain = self._name is None and not self._options
        return ConvexSolver(self.program) if plain and ConvexSolver.applies(self.program) else None

    def starts(self, theta: Floats, count: int) -> list[Floats]:
        """Further points to start from: variables drawn from their `sample_bounds`, or else from their bounds.

        Raises:
            ProgramError: no variable has finite bounds to draw from.
        """
        rng, out = np.random.default_rng(0), []
        ranges = [(v, _range(v)) for v in self.program.problem.variables()]
        if count > 1 and not any(r is not None for _, r in ranges):
            raise ProgramError(
                "best_of needs somewhere to start from: give variables sample_bounds, x.sample_bounds = (low, high), "
                "or finite bounds."
            )
        for _ in range(count - 1):
            drawn = [None if r is None else rng.uniform(*r, size=v.shape) for v, r in ranges]
            at = [own if new is None else new for own, new in zip(self.values, drawn, strict=True)]
            out.append(self.program.start(at, theta))
        return out

    def _failed(self, data: Request, status: Status, attempts: list[Any]) -> Solution:
        return self.solution(data, None, None, None, "", status, attempts)  # type: ignore[arg-type]


class _Search:
    """One instance's search."""

    def __init__(self, engine: NonlinearEngine, data: Request, theta: Floats, p: Floats) -> None:
        self.engine, self.data, self.theta, self.p = engine, data, theta, p
        self.program = engine.program
        self.best: Converged | None = None
        self.name, self.status = "", Status.FAILED
        self.descent: Floats | None = None
        self.attempts: list[tuple[str, Status, str, float]] = []

    def follow(self, warm: Raw) -> bool:
        """Newton from a solution at other parameters; whether it led to one nearby."""
        return self.take("Newton", warm.x, warm.y, "", steps=FOLLOW_STEPS, far=NEAR)

    def call(self, solver: str | None, options: Mapping[str, Any], start: Floats, count: int, short: bool) -> None:
        """Call the solver from one start or several; keep the best local minimum."""
        name, own = interface.named(solver)
        own = {**own, **options}
        if short and name in interface.SMALL_STEPS:
            own.setdefault(interface.SMALL_STEPS[name], NEAR * (float(np.abs(start).max(initial=0.0)) or 1.0))
        for x in (start, *self.engine.starts(self.theta, count)):
            self._from(name, own, x)

    def convex(self, solver: ConvexSolver) -> bool:
        """Take the point of a convex solver; whether it is a solution, or there is none."""
        values, status, words = solver.solve(self.theta, self.engine.verbose)
        if values is None:
            self._tell(solver.name, status, words, float("nan"))
            return status in (Status.INFEASIBLE, Status.UNBOUNDED)
        return self.take(solver.name, self.program.start(values, self.theta), None, words)

    def _from(self, name: str, options: Mapping[str, Any], start: Floats, escapes: int = 1) -> None:
        self.descent, before = None, self.best
        found = interface.solve(self.program, self.p, start, name, options, self.engine.verbose)
        if found.x is None:
            self._tell(name, _status(found.words, 1.0), found.words, float("nan"))
            return
        self.take(name, found.x, found.y, found.words)
        if self.best is before and self.descent is not None and escapes:
            step = self.descent * (ESCAPE * max(1.0, float(np.abs(found.x).max())) / np.abs(self.descent).max())
            for sign in (1.0, -1.0):
                if self.best is before:
                    self._from(name, options, found.x + sign * step, escapes - 1)

    def take(
        self,
        name: str,
        x: Floats,
        y: Floats | None,
        words: str,
        *,
        steps: int | None = None,
        far: float = np.inf,
        near: float = np.inf,
    ) -> bool:
        """Make a point accurate and keep it if it is the best local minimum so far.

        Args:
            name: whose point it is.
            x: columns, shape (n,).
            y: multipliers, shape (m,); fitted if None, or if they do not fit.
            words: the solver's.
            steps: largest number of Newton steps.
            far: relative distance from the point up to which Newton's counts.
            near: relative residual of the point from which Newton is tried.

        Returns:
            Whether it is one.
        """
        at = None
        for multipliers in (y, None):
            y_used = fitted(self.program, self.p, x) if multipliers is None else multipliers
            at = self._converge(x, y_used, steps, near)
            if at is not None and at.point.residuals.worst <= TOLERANCE:
                break
        if at is None:
            return False
        residual = at.point.residuals
        if residual.worst > ACCEPTABLE or at.moved > far:
            self._tell(name, _status(words, residual.primal), words, residual.worst)
            return False
        descent = self._descent(at)
        if descent is not None:
            self.descent = descent
            self._tell(name, Status.NONCONVEX, words or "a saddle", residual.worst)
            return False
        self._tell(name, Status.SOLVED, words, residual.worst)
        if self.best is None or at.data.program.value < self.best.data.program.value:
            self.best, self.name, self.status = at, name, Status.SOLVED
        return True

    def _converge(self, x: Floats, y: Floats, steps: int | None, near: float) -> Converged | None:
        _, g = self.program.oracles.values(x, self.p)
        if not np.isfinite(g).all():
            return None
        cones = self.program.cones
        v = np.where(np.arange(cones.m) < cones.zero, -y, np.maximum(-g, 0.0) - np.maximum(y, 0.0))
        arguments = (self.program, self.engine.layout, self.theta, self.p, x, v)
        if near < np.inf and converge(*arguments, 0).point.residuals.worst > near:
            return None
        return converge(*arguments) if steps is None else converge(*arguments, steps)

    def _descent(self, at: Converged) -> Floats | None:
        """A direction in which the cost falls, shape (n,); None at a minimum."""
        if self.engine.convex(at.data.P, at.instance):
            return None
        return convexity.descent(at.instance, rotation(self.engine.cones, at.point.v))

    def _tell(self, name: str, status: Status, words: str, residual: float) -> None:
        self.attempts.append((name, status, words, residual))
        if self.best is None:
            self.status = status

    def solution(self) -> Solution:
        """What the search found."""
        engine, best = self.engine, self.best
        if best is None:
            out = engine._failed(self.data, self.status, self.attempts)
            out.descent = self.descent
            return out
        best.data.program.slow = best.slow
        return engine.solution(best.data, best.point, best.instance, None, self.name, self.status, self.attempts)


def _status(words: str, primal: float) -> Status:
    """What a solver's words come to at a point that is no solution."""
    if any(word in words for word in interface.LIMITS):
        return Status.ITERATION_LIMIT
    if any(word in words for word in interface.UNBOUNDED):
        return Status.UNBOUNDED
    if any(word in words for word in interface.INFEASIBLE):
        return Status.INFEASIBLE
    return Status.INFEASIBLE if primal > CLOSE else Status.INACCURATE


def _range(variable: cp.Variable) -> tuple[Floats, Floats] | None:
    """Where a variable may be drawn from; None where there is no end to it."""
    given = getattr(variable, "sample_bounds", None)
    low, high = given if given is not None else variable.get_bounds()
    ends = tuple(np.broadcast_to(np.asarray(end, dtype=float), variable.shape) for end in (low, high))
    return ends if all(np.isfinite(end).all() for end in ends) else None  # type: ignore[return-value]


def start_values(problem: cp.Problem) -> list[Any]:
    """The values that a problem's variables hold, in order; None where one holds none."""
    return [None if v.value is None else np.array(v.value, dtype=float) for v in problem.variables()]
