"""A solution map that takes the closed form where the problem has one that is known, and the solvers elsewhere.

θ enters the closed form through affine maps alone, so values and derivatives are a few array operations on the whole
batch. A call with an instance outside the closed form's range (an empty set, no curvature, an overflow) is solved as
any other problem is, so that errors and policies are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxift.argmax.recognition.multipliers import violation
from cvxift.argmax.recognition.recognize import recognize
from cvxift.argmax.recognition.recognized import Point, Recognized
from cvxift.kkt.engine import Solution
from cvxift.kkt.policy import Policy
from cvxift.kkt.solution_map import SolutionMap, Solved
from cvxift.program.made import Made
from cvxift.program.structure import Floats
from cvxift.solvers.base import Raw

ClosedForm = Literal["auto", "never"]

GENERIC = "solver and KKT system"
OPTIMAL = 1e-9  # relative residual up to which the closed form's point passes for optimal
WEAK = 1e-7  # relative distance to a kink under which an instance is looked at
SHOWN = 8  # instances of a batch whose optimality a report measures
JUDGED = 8  # instances of a call on a kink whose products are compared between its sides
TRIALS = 6  # random parameters at which a form is tried when it is made


@dataclass(frozen=True, eq=False)
class ClosedSolved(Solved):
    """A batch solved in closed form.

    Attributes:
        form: the form.
        state: what it keeps of the batch.
    """

    form: Recognized[Any]
    state: Any

    @property
    def ok(self) -> bool:
        """Every instance has a solution."""
        return True

    @property
    def weak(self) -> int:
        """Number of instances that seem to lie on a kink."""
        solutions = self.solutions
        assert isinstance(solutions, ClosedSolutions)
        return int(np.count_nonzero(solutions.margins <= WEAK))

    def warm(self) -> list[Raw | None]:
        """Nothing that a solver could start from."""
        return [None] * len(self.solutions)


class ClosedSolutions(Made[Solution]):
    """The instances' canonical points, each made when it is asked for.

    Args:
        mapping: the map.
        form: its form.
        theta: shape (*batch, N).
        state: what the form keeps of the batch.
    """

    def __init__(self, mapping: ClosedMap, form: Recognized[Any], theta: Floats, state: Any) -> None:
        self._map, self._theta = mapping, theta.reshape(-1, theta.shape[-1])
        self._form, self._state = form, state
        self._made: dict[int, Solution] = {}

    def __len__(self) -> int:
        return len(self._theta)

    def make(self, index: int) -> Solution:
        """The canonical solution of one instance."""
        if index not in self._made:
            self._made[index] = self._map.canonical(self._theta[index])
        return self._made[index]

    @cached_property
    def residual(self) -> float:
        """Worst violation of the optimality conditions in the first instances."""
        program = self._map.program
        worst = 0.0
        for theta in self._theta[:SHOWN]:
            point = self._map.point(theta)
            worst = max(worst, np.inf if point is None else violation(program.structure, self._map.data(theta), *point))
        return worst

    @cached_property
    def margins(self) -> Floats:
        """Smallest relative distance to a kink of each instance, shape (instances,)."""
        return np.reshape(self._form.margins(self._state), -1)


class ClosedMap(SolutionMap):
    """`SolutionMap` with a closed form, if the problem has one that is known.

    The closed form is taken under the default policy, where no solver and no options are named, and for variables
    alone (not for dual variables).

    Args:
        problem: as for `SolutionMap`.
        parameters: likewise.
        outputs: likewise.
        closed_form: ``"auto"``, or ``"never"`` to solve as any other problem.
        **options: the other arguments of `SolutionMap`.

    Attributes:
        form: the form; None where it is not known.

    Example:
        >>> import cvxpy as cp
        >>> z, theta = cp.Variable(3), cp.Parameter(3)
        >>> ClosedMap(cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [cp.sum(z) == 1, z >= 0]), None, [z]).path
        'closed form (sparsemax)'
    """

    def __init__(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter] | None,
        outputs: Sequence[Any],
        *,
        closed_form: ClosedForm = "auto",
        **options: Any,
    ) -> None:
        super().__init__(problem, parameters, outputs, **options)
        self.form: Recognized[Any] | None = None
        plain = options.get("solver") is None and not options.get("solver_args") and self.policy == Policy()
        if closed_form == "auto" and plain:
            self.form = recognize(self.program, self.outputs, self._columns())
        self._proven = False
        if self.form is not None:
            self._try()

    @property
    def path(self) -> str:
        """Which way a call goes, in words."""
        return GENERIC if self.form is None else f"closed form ({self.form.name})"

    def path_of(self, solved: Solved) -> str:
        """Which way a solved call went, in words."""
        return self.path if isinstance(solved, ClosedSolved) else GENERIC

    def _columns(self) -> np.ndarray:
        """For each entry of this map's θ, its place in the program's."""
        parts = [np.arange(self.program.theta_size)[self.program.offsets[p]] for p in self.parameters]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=int)

    def _try(self) -> None:
        """Compare the form with the optimality conditions at random parameters; the first call does if none serves."""
        rng = np.random.default_rng(0)
        for trial in range(TRIALS):
            theta = np.concatenate([_sample(p, rng, 4.0**-trial) for p in self.parameters] or [np.zeros(0)])
            assert self.form is not None
            state = self.form.solve(theta)
            if state is not None:
                self._prove(theta, state)
                return

    def _prove(self, theta: Floats, state: Any) -> None:
        """Keep the form only if the point it gives is optimal."""
        assert self.form is not None
        self._proven = True
        data = self.data(theta)
        worst = violation(self.program.structure, data, *self.form.canonical(data, state))
        if not worst <= OPTIMAL:
            self.form = None

    def solve(
        self,
        theta: Floats,
        *,
        solver_args: Mapping[str, Any] | None = None,
        warm: Sequence[Raw | None] | None = None,
        solver: str | None = None,
    ) -> Solved:
        """As `SolutionMap.solve`; in closed form unless options or a solver are named for the call."""
        if not solver_args and solver is None:
            closed = self.closed(theta)
            if closed is not None:
                return closed
        return super().solve(theta, solver_args=solver_args, warm=warm, solver=solver)

    def closed(self, theta: Floats) -> ClosedSolved | None:
        """The batch in closed form, θ of shape (*batch, N); None where the form does not serve."""
        if self.form is None or not theta.size:
            return None
        theta = theta.copy()  # derivatives read it later, and the caller may overwrite it
        state = self.form.solve(theta)
        if state is None:
            return None
        if not self._proven:
            first = theta.reshape(-1, theta.shape[-1])[0]
            alone = self.form.solve(first)
            if alone is not None:
                self._prove(first, alone)
        if self.form is None:
            return None
        solutions = ClosedSolutions(self, self.form, theta, state)
        return ClosedSolved(theta.shape[:-1], solutions, self.form.outputs(state), self.form, state)

    def point(self, theta: Floats) -> Point | None:
        """The canonical point (x, s, y) that the closed form gives at θ, shape (N,); None where it does not serve."""
        state = None if self.form is None else self.form.solve(theta)
        return None if state is None or self.form is None else self.form.canonical(self.data(theta), state)

    def canonical(self, theta: Floats) -> Solution:
        """The canonical solution of one instance, θ of shape (N,): the closed form's, or a solver's if it fails."""
        data = self.data(theta)
        point = self.point(theta)
        if point is not None:
            x, s, y = point
            restricted, v = self.engine.condensation.restrict(x, s - y)
            if np.isfinite(restricted).all() and np.isfinite(v).all():
                solution = self.engine.accept_condensed(data, restricted, v, self.path)
                if solution.ok:
                    return solution
        return self.engine.solve(data)

    def prepare(self, solved: Solved) -> None:
        """As `SolutionMap.prepare`; a closed form has nothing to factorize."""
        if not isinstance(solved, ClosedSolved):
            super().prepare(solved)

    def vjp(self, solved: Solved, bar: Floats) -> Floats:
        """As `SolutionMap.vjp`."""
        if not isinstance(solved, ClosedSolved):
            return super().vjp(solved, bar)
        self._judge(solved, self._vjp_one, bar)
        return solved.form.vjp(solved.state, bar)

    def jvp(self, solved: Solved, theta_dot: Floats) -> Floats:
        """As `SolutionMap.jvp`."""
        if not isinstance(solved, ClosedSolved):
            return super().jvp(solved, theta_dot)
        self._judge(solved, self._jvp_one, theta_dot)
        return solved.form.jvp(solved.state, theta_dot)

    def _judge(self, solved: ClosedSolved, product: Callable[[Solution, Floats], Floats], vectors: Floats) -> None:
        """Have the product taken at instances that may lie on a kink, so that it is said where it does not exist."""
        if self.applicability == "off" or not solved.weak:
            return
        solutions = solved.solutions
        assert isinstance(solutions, ClosedSolutions)
        lead = vectors.shape[: vectors.ndim - 1 - len(solved.batch_shape)]
        flat = vectors.reshape(*lead, len(solutions), vectors.shape[-1])
        for index in np.flatnonzero(solutions.margins <= WEAK)[:JUDGED]:
            solution = solutions[int(index)]
            if solution.ok:
                product(solution, flat[..., int(index), :])

    def second(self, solved: Solved, bar: Floats, theta_dot: Floats) -> Floats:
        """As `SolutionMap.second`."""
        closed = isinstance(solved, ClosedSolved)
        return solved.form.second(solved.state, bar, theta_dot) if closed else super().second(solved, bar, theta_dot)

    def second_tangent(self, solved: Solved, theta_dot: Floats, other: Floats) -> Floats:
        """As `SolutionMap.second_tangent`."""
        if isinstance(solved, ClosedSolved):
            return solved.form.second_tangent(solved.state, theta_dot, other)
        return super().second_tangent(solved, theta_dot, other)

    def jacobian_of(self, solved: Solved, columns: slice) -> Floats:
        """Jacobian of the outputs with respect to some entries of θ, shape (K, entries), of an unbatched call."""
        if not isinstance(solved, ClosedSolved):
            return self.jacobian(solved.solutions[0], columns)
        width = len(range(*columns.indices(self.theta_size)))
        if self.output_size <= width:
            return self.vjp(solved, np.eye(self.output_size))[:, columns]
        return self.jvp(solved, np.eye(self.theta_size)[columns]).T


def _sample(parameter: cp.Parameter, rng: np.random.Generator, spread: float) -> Floats:
    """Random values that the parameter's attributes allow; those of free parameters around 0.7, closer if asked.

    So bounds and sums, which are parameters at times, leave room for each other in one of the trials.
    """
    raw = 0.7 + spread * rng.standard_normal(parameter.shape)
    value = parameter.project(raw)
    if parameter.attributes["pos"]:
        value = np.abs(raw) + 0.1
    if parameter.attributes["neg"]:
        value = -np.abs(raw) - 0.1
    value = value.toarray() if sp.issparse(value) else value  # pyright: ignore[reportAttributeAccessIssue]
    return np.ravel(np.asarray(value, dtype=float))
