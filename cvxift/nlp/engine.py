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
from cvxift.kkt.engine import ACCEPTABLE, TOLERANCE, Engine, Solution
from cvxift.kkt.newton import polish
from cvxift.kkt.policy import options_of
from cvxift.kkt.system.cone_basis import rotation
from cvxift.nlp.convex import ConvexSolver
from cvxift.nlp.search import CLOSE, NEAR, Search
from cvxift.program.smooth import Request, SmoothProgram, interface
from cvxift.program.structure import Data, Floats, Structure
from cvxift.solvers.base import Raw, Status

STRONG = 1e-6  # multiplier, relative to the largest, from which an active row counts as strongly active
WEIGHTS = (1.0, 1e2, 1e4, 1e6)  # ρ that are tried, relative to P
NAME = "quadratic model"
BEST_OF = "best_of"  # of the options, the one that is not the solver's


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
    nonlinear = True

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
        self.set_options(options_of(solver_args))

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_convex_solver", None)  # CVXPY cannot solve a deep copy of a problem it has solved
        return state

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
        data: Data,
        *,
        solver_args: Mapping[str, Any] | None = None,
        warm: Raw | None = None,
        solver: str | None = None,
        **_: Any,
    ) -> Solution:
        """Solve one instance.

        Args:
            data: the parameters, and the point to follow if there is one (`Request`); or those of a quadratic program
                near a solution, which is then `warm`.
            solver_args: options for this call, over the engine's.
            warm: a point to start from.
            solver: name of the solver, instead of the engine's.

        Returns:
            The solution; its `ok` says whether it is a local minimum that satisfies the optimality conditions.
        """
        if not isinstance(data, Request):
            assert warm is not None
            return self._model.solve(data, warm)
        theta, near = data.theta, data.near
        try:
            p = self.program.p(theta)
        except ProgramError as error:
            return self.failed(data, Status.FAILED, [("parameters", Status.FAILED, str(error), float("nan"))])
        if warm is None and near is not None:
            warm = Raw(near.x, np.maximum(-near.g, 0.0), near.y, Status.SOLVED, "")
        search = Search(self, data, theta, p)
        if warm is not None and np.isfinite(warm.x).all() and search.follow(warm):
            return search.solution()
        convex = self._convex_solver if solver is None and not solver_args else None
        if convex is not None and (search.convex(convex) or (search.none and not interface.installed())):
            return search.solution()
        options = {**self._options, **(solver_args or {})}
        count = options.pop(BEST_OF, 1)
        start = warm.x if warm is not None else self.program.start(self.values, theta)
        search.call(solver or self._name, options, start, count, short=warm is not None)
        return search.solution()

    def held(self, theta: Floats, values: Sequence[Any]) -> Solution:
        """The solution at the values that the variables hold; not `ok` if they are not near one.

        Args:
            theta: the parameters, shape (N,).
            values: of all the user's variables, in order.
        """
        data = self.program.evaluate(theta)
        p = self.program.p(theta)
        search = Search(self, data, theta, p)
        x = self.program.start(values, theta)
        search.take("cvxpy", x, None, "", near=CLOSE, far=NEAR)
        return search.solution()

    def beside(self, theta: Floats, x: Floats, y: Floats) -> Solution | None:
        """The solution that Newton leads to from a point; None if there is none.

        Args:
            theta: parameters, shape (N,).
            x: columns, shape (n,).
            y: multipliers, shape (m,).
        """
        try:
            p = self.program.p(theta)
        except ProgramError:  # outside of a domain
            return None
        search = Search(self, self.program.evaluate(theta), theta, p)
        return search.solution() if search.take("Newton", x, y, "") else None

    @cached_property
    def _model(self) -> QuadraticModel:
        return QuadraticModel(self)

    @cached_property
    def convex_by_rules(self) -> bool:
        """Whether CVXPY's rules say that the problem is convex."""
        return ConvexSolver.applies(self.program)

    @cached_property
    def _convex_solver(self) -> ConvexSolver | None:
        """CVXPY's convex solve, where the problem is convex and nobody asks for a nonlinear solver."""
        plain = self._name is None and not self._options
        return ConvexSolver(self.program) if plain and self.convex_by_rules else None

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


def _range(variable: cp.Variable) -> tuple[Floats, Floats] | None:
    """Where a variable may be drawn from; None where there is no end to it."""
    given = getattr(variable, "sample_bounds", None)
    low, high = given if given is not None else variable.get_bounds()
    low, high = (np.broadcast_to(np.asarray(end, dtype=float), variable.shape) for end in (low, high))
    return (low, high) if np.isfinite(low).all() and np.isfinite(high).all() else None


def start_values(problem: cp.Problem) -> list[Any]:
    """The values that a problem's variables hold, in order; None where one holds none."""
    return [None if v.value is None else np.array(v.value, dtype=float) for v in problem.variables()]


class QuadraticModel:
    """Solves the quadratic program that linearizes a nonlinear one near its point: how neighbours of a kink are found.

    Its P need not be positive semidefinite, only along what the strongly active rows Z leave free. The cost with
    P + ρ ZᵀZ and q − ρ Zᵀb_Z is the same wherever Z x = b_Z, as it is near the point, and is convex for ρ large enough
    where the second-order sufficient condition holds (Debreu 1952), so that a convex solver finds the solution.

    Args:
        engine: the nonlinear engine, whose solutions they are to be.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._dense: Engine | None = None

    def solve(self, data: Data, warm: Raw) -> Solution:
        """The solution near a point; not `ok` if there is none."""
        engine = self._engine
        instance = engine.layout.instance(data)
        point = polish(instance, warm.x, warm.s - warm.y)
        if point.worst > TOLERANCE or self._falls(data, instance, point.v):
            convex = self._convex(data, warm)
            if convex is not None:
                point = polish(instance, convex.x, convex.s - convex.y)
        good = point.worst <= ACCEPTABLE and not self._falls(data, instance, point.v)
        status = Status.SOLVED if good else Status.INACCURATE
        attempts = [(NAME, status, "", point.worst)]
        return engine.solution(data, point if good else None, instance, None, NAME, status, attempts)

    def _falls(self, data: Data, instance: Any, v: Floats) -> bool:
        if self._engine.convex(data.P, instance):
            return False
        return convexity.descent(instance, rotation(self._engine.cones, v)) is not None

    def _convex(self, data: Data, warm: Raw) -> Solution | None:
        """The solution of the program made convex; None if it cannot be made so, or has none."""
        structure = self._engine.structure
        n, zero = structure.n, structure.cones.zero
        if n > convexity.DENSE_NULL_SPACE:
            return None
        P, A = structure.P_matrix(data.P).toarray(), structure.A_matrix(data.A).toarray()
        strong = warm.y > STRONG * max(1.0, float(np.abs(warm.y).max(initial=0.0)))
        strong[:zero] = True
        Z, b = A[strong], data.b[strong]
        size = float(np.abs(P).max(initial=0.0)) / max(float(np.abs(Z.T @ Z).max(initial=0.0)), 1e-300)
        for weight in (0.0, *WEIGHTS):
            convex = P + weight * size * (Z.T @ Z)
            if convexity.semidefinite(convex.copy()):
                q = data.q - weight * size * (Z.T @ b)
                found = self._of(structure).solve(Data(convex.T.ravel(), q, data.A, data.b, data.d), warm=warm)
                return found if found.ok else None
        return None

    def _of(self, structure: Structure) -> Engine:
        """An engine for the same rows with a full P."""
        if self._dense is None:
            n = structure.n
            full = (np.tile(np.arange(n), n), np.repeat(np.arange(n), n))
            A = (structure.A_rows.astype(int), structure.A_cols.astype(int))
            self._dense = Engine(Structure.from_patterns(n, structure.cones, P=full, A=A))
        return self._dense
