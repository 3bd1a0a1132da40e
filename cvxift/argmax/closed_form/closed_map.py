"""A solution map that takes the closed form where the problem has one that is known, and the solvers elsewhere.

θ enters the closed form through affine maps alone, so values and derivatives are a few array operations on the whole
batch. A call with an instance outside the closed form's range (an empty set, no curvature, an overflow) is solved as
any other problem is, so that errors and policies are the same. The canonical program, and with it everything that
`SolutionMap` stands on, is made when something asks for it: such a call, a report, another policy.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import cvxpy as cp
import numpy as np

from cvxift._types import override
from cvxift.argmax.closed_form.carried import carries
from cvxift.argmax.closed_form.form import Form, Outputs
from cvxift.argmax.closed_form.form import Solved as State
from cvxift.argmax.closed_form.inputs import Entries
from cvxift.argmax.closed_form.optimality import PROVEN, first_trial
from cvxift.argmax.closed_form.recognize import Recognized, recognize
from cvxift.kkt.engine import Solution
from cvxift.kkt.failures import OnFailure
from cvxift.kkt.policy import Check, Policy
from cvxift.kkt.regularity.point import KINK
from cvxift.kkt.solution_map import SolutionMap, Solved
from cvxift.kkt.warm_point import completed
from cvxift.program import parameters as _parameters
from cvxift.program.checks import check_problem
from cvxift.program.lazy import Made
from cvxift.program.parameters import in_callers_order
from cvxift.program.program import Program
from cvxift.program.structure import Data, Floats
from cvxift.solvers.base import Raw

ClosedForm = Literal["auto", "never"]

GENERIC = "solver and KKT system"
SHOWN = 8  # instances of a batch whose optimality a report measures
JUDGED = 8  # instances of a call on a kink whose products are compared between its sides


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
        recognized: the problem by its terms, and its closed form; None where none is known.
        form: that form; None where calls do not take it, as the outputs are not among its entries.

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
        on_failure: OnFailure = "raise",
        check: Check = "warn",
        policy: Policy | None = None,
        program: Program | None = None,
        **options: Any,
    ) -> None:
        self._set_ways(policy, on_failure, check)
        self._arguments = problem, parameters, outputs, {**options, "program": program}
        self.recognized: Recognized | None = None
        self.form: Form | None = None
        named = options.get("solver") is not None or options.get("solver_args") or options.get("gp")
        named = named or (program is not None and program.gp)
        if closed_form == "auto" and not named and self.policy == Policy():
            if program is None and not carries(problem):
                check_problem(problem, gp=False)
            self.parameters = in_callers_order(parameters, problem.parameters())
            self.recognized = recognize(problem, self.parameters)
            if self.recognized is not None:
                self._take(self.recognized, outputs)
        if self.form is None or program is not None or options.get("canon_backend") is not None:
            self._set_up()

    def _take(self, recognized: Recognized, outputs: Sequence[Any]) -> None:
        """Find the outputs among the form's entries, and try the form."""
        form = recognized.form
        trial = None if recognized.proven else first_trial(form, self.parameters)
        if trial is not None:
            self._prove(*trial)
        where = {v.id: entries for v, entries in _parameters.side_by_side(recognized.variables).items()}
        known = all(isinstance(v, cp.Variable) and v.id in where for v in outputs)
        if self.recognized is None or not known or not outputs or len({v.id for v in outputs}) < len(outputs):
            return
        place = np.argsort(form.entry)
        chosen = np.concatenate([place[where[v.id]] for v in outputs])
        self.form, self._outputs = form, Outputs(form, Entries(chosen, form.shape))
        self.slices = list(_parameters.side_by_side(outputs).values())
        self.output_size = sum(v.size for v in outputs)

    @override
    def for_outputs(self, outputs: Sequence[Any]) -> Self:
        out = super().for_outputs(outputs)
        out.form = None
        if out.recognized is not None:
            out._take(out.recognized, outputs)
        return out

    def __getattr__(self, name: str) -> Any:
        """What `SolutionMap` sets up; asked for the first time, it is set up, the canonical program with it."""
        if name.startswith("__") or "_arguments" not in self.__dict__ or "program" in self.__dict__:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        self._set_up()
        return getattr(self, name)

    def _set_up(self) -> None:
        problem, parameters, outputs, options = self._arguments
        general = SolutionMap.__new__(SolutionMap)
        general._set_program(problem, parameters, outputs, **options)
        vars(self).update(vars(general))  # at once, so that threads see all of it or nothing

    def __deepcopy__(self, memo: dict[int, Any]) -> ClosedMap:
        if "program" not in self.__dict__:
            self._set_up()  # CVXPY's objects are not canonicalized any more once they are copied this way
        if self.recognized is not None:
            self.recognized.terms  # noqa: B018  # nor read
        out = type(self).__new__(type(self))
        memo[id(self)] = out
        vars(out).update(copy.deepcopy(vars(self), memo))
        return out

    @property
    def theta_size(self) -> int:
        """N, length of θ."""
        return self._theta_size

    @cached_property
    def _theta_size(self) -> int:
        return sum(p.size for p in self.parameters)

    @cached_property
    def _check_arguments(self) -> tuple[dict[cp.Parameter, slice], tuple[np.ndarray, np.ndarray]]:
        """Where the parameters stand in θ, and that none of its entries is a bound at infinity."""
        none = np.zeros(self.theta_size, dtype=bool)
        return _parameters.side_by_side(self.parameters), (none, none)

    @cached_property
    @override
    def log_mask(self) -> np.ndarray | None:
        return None if self.form is not None else super().log_mask

    @cached_property
    @override
    def exp_mask(self) -> np.ndarray | None:
        return None if self.form is not None else super().exp_mask

    @property
    def path(self) -> str:
        """Which way a call goes, in words."""
        return GENERIC if self.form is None else f"closed form ({self.form.name})"

    def path_of(self, solved: Solved) -> str:
        """Which way a solved call went, in words."""
        return self.path if isinstance(solved, ClosedSolved) else GENERIC

    @override
    def check(self, theta: Floats) -> None:
        if self.form is None or np.isinf(theta).any():
            super().check(theta)  # which infinities are bounds that bind nothing, the canonical program says
        else:
            places, none = self._check_arguments
            _parameters.check(self.parameters, places, theta, none, None)

    def _prove(self, theta: Floats, state: State) -> None:
        """Keep the form only if the point it gives is optimal."""
        assert self.recognized is not None
        self.recognized.proven = self.recognized.violation(state, theta) <= PROVEN
        if not self.recognized.proven:
            self.recognized = self.form = None

    def closed(self, theta: Floats) -> ClosedSolved | None:
        """The batch in closed form, θ of shape (*batch, N); None where the form does not serve."""
        form = self.form
        if form is None or not theta.size:
            return None
        theta = theta.copy()  # derivatives read it later, and the caller may overwrite it
        state = form.solve(theta)
        if state is None:
            return None
        if self.recognized is not None and not self.recognized.proven:
            first = theta.reshape(-1, theta.shape[-1])[0]
            alone = form.solve(first)
            if alone is not None:
                self._prove(first, alone)
        if self.form is None:
            return None
        return ClosedSolved(theta.shape[:-1], ClosedSolutions(self, theta, state), self._outputs.value(state), state)

    def violation(self, theta: Floats) -> float:
        """How far the closed form's point at θ, shape (N,), is from optimal; infinite where the form does not serve."""
        state = None if self.recognized is None else self.recognized.form.solve(theta)
        return np.inf if state is None or self.recognized is None else self.recognized.violation(state, theta)

    def canonical(self, theta: Floats, data: Data | None = None) -> Solution:
        """The canonical solution of one instance, θ of shape (N,): around the closed form's, or a solver's."""
        data = self.data(theta) if data is None else data
        state = None if self.recognized is None else self.recognized.form.solve(theta)
        if state is not None and self.recognized is not None:
            values, name = self.recognized.values(state), f"closed form ({self.recognized.form.name})"
            solution = completed(self.program, self.engine, data, values, {}, name)
            if solution is not None and solution.ok:
                return solution
        return self.engine.solve(data)

    def derivative(self, solved: Solved, tangents: Sequence[Floats], bar: Floats | None = None) -> Floats:
        """As `SolutionMap.derivative`; orders one and two in closed form."""
        order = len(tangents) + (bar is not None)
        if not isinstance(solved, ClosedSolved) or order > 2:
            return super().derivative(solved, tangents, bar)
        unbounded = self._not_finite(solved, tangents, bar)
        if unbounded is not None:
            return unbounded
        outputs, state = self._outputs, solved.state
        if order == 1:
            self._judge(solved, tangents, bar)
            return outputs.jvp(state, tangents[0]) if bar is None else outputs.vjp(state, bar)
        return outputs.second_tangent(state, *tangents) if bar is None else outputs.second(state, bar, tangents[0])

    def _judge(self, solved: ClosedSolved, tangents: Sequence[Floats], bar: Floats | None) -> None:
        """Have the product taken at instances that may lie on a kink, so that it is said where it does not exist."""
        if self.applicability == "off" or not solved.weak:
            return
        solutions = solved.solutions

        def of(vectors: Floats, index: int) -> Floats:
            lead = vectors.shape[: vectors.ndim - 1 - len(solved.batch_shape)]
            return vectors.reshape(*lead, len(solutions), vectors.shape[-1])[..., index, :]

        for index in map(int, np.flatnonzero(solutions.margins <= KINK)[:JUDGED]):
            if solutions[index].ok:
                dots = [of(dot, index) for dot in tangents]
                self._one(solutions[index], dots, None if bar is None else of(bar, index))

    @override
    def make_ready(self) -> None:
        if self.form is None:  # else calls need no solver
            super().make_ready()

    @override
    def jacobian_of(self, solved: Solved, columns: slice) -> Floats:
        if not isinstance(solved, ClosedSolved):
            return super().jacobian_of(solved, columns)
        width = len(range(*columns.indices(self.theta_size)))
        if self.output_size <= width:
            return self.vjp(solved, np.eye(self.output_size))[:, columns]
        return self.jvp(solved, np.eye(self.theta_size)[columns]).T


@dataclass(frozen=True, eq=False)
class ClosedSolved(Solved):
    """A batch solved in closed form.

    Attributes:
        solutions: the instances.
        state: what the form keeps of the batch.
    """

    solutions: ClosedSolutions
    state: State

    @property
    def ok(self) -> bool:
        """Every instance has a solution."""
        return True

    @property
    def weak(self) -> int:
        """Number of instances that seem to lie on a kink."""
        return int(np.count_nonzero(self.solutions.margins <= KINK))

    def warm(self) -> list[Raw | None]:
        """Nothing that a solver could start from."""
        return [None] * len(self.solutions)


class ClosedSolutions(Made[Solution]):
    """The instances' canonical points, each made when it is asked for.

    Args:
        mapping: the map.
        theta: shape (*batch, N).
        state: what the form keeps of the batch.
    """

    def __init__(self, mapping: ClosedMap, theta: Floats, state: State) -> None:
        self._map, self._theta, self._state = mapping, theta.reshape(-1, theta.shape[-1]), state
        self._made: dict[int, Solution] = {}

    def __len__(self) -> int:
        return len(self._theta)

    def make(self, index: int) -> Solution:
        """The canonical solution of one instance."""
        if index not in self._made:
            self._made[index] = self._map.canonical(self._theta[index])
        return self._made[index]

    @property
    def made(self) -> list[Solution]:
        """The canonical solutions that were asked for so far."""
        return list(self._made.values())

    @cached_property
    def residual(self) -> float:
        """Worst violation of the optimality conditions in the first instances."""
        return max((self._map.violation(theta) for theta in self._theta[:SHOWN]), default=0.0)

    @cached_property
    def margins(self) -> Floats:
        """Smallest relative distance to a kink of each instance, shape (instances,)."""
        assert self._map.form is not None
        return np.reshape(self._map.form.margins(self._state), -1)
