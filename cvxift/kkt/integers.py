"""Mixed-integer problems with their integers held: a MIP solver of CVXPY's chooses them, the rest is differentiated."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.error import SolverError

from cvxift.errors import ProgramError, SolveError
from cvxift.kkt.conflict import agrees
from cvxift.kkt.engine import Solution
from cvxift.kkt.failures import inaccurate, unsolved
from cvxift.kkt.policy import options_of
from cvxift.kkt.regularity.account import Regularity
from cvxift.kkt.solution_map import SolutionMap, Solved
from cvxift.program.integers import integer_variables, replaced
from cvxift.program.program import Program
from cvxift.program.structure import Floats
from cvxift.solvers.base import Status
from cvxift.solvers.cvxpy import STATUS

Values = dict[cp.Variable, np.ndarray]

PATH = "mixed-integer solver, then the KKT system with the integers held"
EXACT = {  # HiGHS stops at gaps of 1e-4 and 1e-6 otherwise, which another choice of the integers may fill,
    "mip_rel_gap": 0.0,
    "mip_abs_gap": 0.0,
    "mip_feasibility_tolerance": 1e-9,  # and x <= M y holds with y of 1e-6 taken for zero
    "primal_feasibility_tolerance": 1e-9,
}
LARGEST_COST = 1e6  # coefficients beyond it HiGHS calls excessively large
KEPT_PROGRAMS = 64  # that a layer keeps, one for each choice of integers


@dataclass(frozen=True, eq=False)
class Choice:
    """What a MIP solver found.

    Attributes:
        status: SOLVED, or why there is no point.
        solver: who found it.
        value: the user's objective.
        integers: integer variable -> value, whole numbers; empty without a point.
        others: continuous variable -> the solver's value.
    """

    status: Status
    solver: str
    value: float
    integers: Values
    others: Values


class MixedInteger:
    """A mixed-integer problem for a MIP solver, on leaves of its own: the user's hold what they held.

    Args:
        problem: the user's problem.
        solver: CVXPY's name of a MIP solver; None for HiGHS, or where it does not take the problem, CVXPY's choice.
        solver_args: its options.
        verbose: whether it prints.

    Raises:
        ProgramError: the problem has no integer variables, or nothing else.
    """

    def __init__(
        self,
        problem: cp.Problem,
        solver: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self._given = problem
        self._integers = {variable.id for variable in integer_variables(problem)}
        own: dict[int, Any] = {id(p): _fresh(p, {}) for p in problem.parameters()}
        own |= {id(v): _fresh(v, own) for v in problem.variables()}
        self._problem = replaced(problem, own)
        self._parameters = [(p, own[id(p)]) for p in problem.parameters()]
        self._variables = [(v, own[id(v)]) for v in problem.variables()]
        self._solver, self._options, self._verbose = solver, options_of(solver_args), verbose
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # Made again from the user's problem: CVXPY cannot solve a deep copy of a problem it has solved.
        return MixedInteger, (self._given, self._solver, self._options, self._verbose)

    def solve(self, values: Mapping[cp.Parameter, Any], other_than: Values | None = None) -> Choice:
        """The best choice of the integers.

        Args:
            values: parameter -> value.
            other_than: a choice to exclude, of boolean variables.

        Returns:
            The choice; its status says whether there is one.

        Raises:
            ProgramError: no installed solver takes such a problem, or an option is unknown.
        """
        with self._lock:
            problem = self._problem
            if other_than is not None:
                problem = cp.Problem(problem.objective, [*problem.constraints, self._cut(other_than)])
            for parameter, copy in self._parameters:
                if values[parameter] is None:
                    raise ProgramError(f"Parameter '{parameter.name()}' has no value: set its .value.")
                copy.value = values[parameter]
            status, name = self._call(problem)
            if not status.has_point:
                return Choice(status, name, float("nan"), {}, {})
            found = {v: np.array(copy.value, dtype=float) for v, copy in self._variables}
            integers = {v: np.round(value) for v, value in found.items() if v.id in self._integers}
            others = {v: value for v, value in found.items() if v.id not in self._integers}
            value: Any = problem.value  # a number: there is a point
            return Choice(status, name, float(value), integers, others)

    def _call(self, problem: cp.Problem) -> tuple[Status, str]:
        options = {"verbose": True, **self._options} if self._verbose else self._options
        try:
            if self._solver is None and not self._options:
                try:
                    exponent = _exponent(problem.get_problem_data("HIGHS")[0]["c"])
                    problem.solve(solver="HIGHS", **options, **EXACT, user_objective_scale=exponent)
                except SolverError:
                    problem.solve(**options)
            else:
                problem.solve(solver=None if self._solver is None else self._solver.upper(), **options)
        except SolverError as error:
            if "failed" in str(error):
                tried = re.search(r"Solver '(\w+)' failed", str(error))  # CVXPY tells it nowhere else
                return Status.FAILED, tried[1] if tried else self._solver or "CVXPY's choice"
            raise ProgramError(
                f"No installed solver takes this mixed-integer problem: {error} HiGHS, which comes with CVXPY, takes "
                "linear and piecewise linear objectives and constraints; for quadratic ones and cones install SCIP "
                "(pip install pyscipopt) or another mixed-integer solver that CVXPY knows."
            ) from error
        except (TypeError, ValueError, KeyError) as error:
            if not self._options:
                raise
            raise ProgramError(
                f"The mixed-integer solver cannot work with the options {self._options}: {error}. With "
                "integers='fixed', solver and solver_args are those of the mixed-integer solver."
            ) from error
        name = str(problem.solver_stats.solver_name) if problem.solver_stats is not None else "HIGHS"
        status = STATUS.get(problem.status, Status.FAILED)
        return (Status.SOLVED if status is Status.INACCURATE else status), name  # the integers are rounded anyway

    def _cut(self, choice: Values) -> cp.Constraint:
        """That one entry at least differs from a boolean choice."""
        changed: Any = 0
        for variable, copy in self._variables:
            if variable in choice:
                changed = changed + cp.sum(cp.multiply(1.0 - 2.0 * choice[variable], copy)) + choice[variable].sum()
        return changed >= 1


def _exponent(cost: Floats) -> int:
    """The power of two that HiGHS multiplies the cost by: its tolerances are absolute, whatever the cost's unit.

    The smallest coefficient becomes one, unless the largest would become more than LARGEST_COST.
    """
    sizes = np.abs(cost[cost != 0])
    if not len(sizes):
        return 0
    return max(0, int(np.log2(min(1 / sizes.min(), LARGEST_COST / sizes.max()))))


def _fresh(leaf: Any, others: Mapping[int, Any]) -> Any:
    """A leaf of the same kind, shape and attributes."""
    attributes = {name: value for name, value in leaf.attributes.items() if value is not None and value is not False}
    if leaf.attributes["bounds"] is not None:
        attributes["bounds"] = [
            bound.tree_copy(others) if isinstance(bound, cp.Expression) else bound for bound in attributes["bounds"]
        ]
    kind = cp.Variable if isinstance(leaf, cp.Variable) else cp.Parameter
    return kind(leaf.shape, name=leaf.name(), **attributes)


def held_program(problem: cp.Problem, solver: str | None, solver_args: Mapping[str, Any] | None) -> Program:
    """The program of a mixed-integer problem whose integers are held at their optimum for the parameters' values.

    Raises:
        ProgramError: the problem cannot be used, a parameter has no value, or no solver takes the problem.
        SolveError: it has no solution, or none was found.
    """
    found = MixedInteger(problem, solver, solver_args).solve({p: p.value for p in problem.parameters()})
    if not found.status.has_point:
        status = found.status.value
        raise SolveError(f"The mixed-integer problem was not solved: {found.solver} says {status}.", status=status)
    return Program(problem, integers=found.integers)


def values_of(program: Program, theta: Floats) -> dict[cp.Parameter, np.ndarray]:
    """Parameter -> value at θ, shape (N,)."""
    return {p: theta[program.offsets[p]].reshape(p.shape) for p in program.parameters}


class IntegerMap(SolutionMap):
    """θ ↦ outputs of a mixed-integer problem whose integers are held at their optimum.

    Each instance has the program of its own integers; those that have the same share it. Derivatives with respect to θ
    are those of that program; the integers have derivative zero.

    Args:
        problem: the user's problem.
        parameters: as for `SolutionMap`.
        outputs: likewise.
        solver: of the mixed-integer problem; see `MixedInteger`.
        solver_args: its options.
        verbose: whether it prints.
        canon_backend: as for `SolutionMap`.
        **options: the other arguments of `SolutionMap`.
    """

    path = PATH

    def __init__(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter] | None,
        outputs: Sequence[Any],
        *,
        solver: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
        verbose: bool = False,
        canon_backend: str | None = None,
        **options: Any,
    ) -> None:
        self.mixed = MixedInteger(problem, solver, solver_args, verbose)
        # Of the program with free integers the parameters and the outputs' shapes are used alone.
        free = Program(problem, canon_backend=canon_backend, integers={})
        super().__init__(problem, parameters, outputs, program=free, **options)
        self.engine.vectorized = False
        self._arguments = problem, parameters, outputs, {"canon_backend": canon_backend, **options}
        self._held: dict[bytes, SolutionMap] = {}

    def held(self, theta: Floats) -> tuple[SolutionMap, Solution]:
        """The map with the integers that are best at θ, and the solution there.

        Args:
            theta: shape (N,), in the program's order.
        """
        choice = self.mixed.solve(values_of(self.program, theta))
        if not choice.integers:
            attempts = [(choice.solver, choice.status, "", float("nan"))]
            return self, self.engine.failed(self.program.evaluate(theta), choice.status, attempts, choice.solver)
        key = b"".join(value.tobytes() for value in choice.integers.values())
        new = key not in self._held
        mapping = self._made(choice.integers) if new else self._held[key]
        solution = mapping.engine.solve(mapping.program.evaluate(theta))
        if solution.ok and new:
            agrees(mapping.program, solution, theta)
        while new and len(self._held) >= KEPT_PROGRAMS:
            del self._held[next(iter(self._held))]
        self._held[key] = mapping
        return mapping, solution

    def _made(self, integers: Values) -> SolutionMap:
        """The map of the problem with these integers."""
        problem, parameters, outputs, options = self._arguments
        program = Program(problem, canon_backend=options["canon_backend"], integers=integers)
        return SolutionMap(problem, parameters, outputs, program=program, **options)

    def solve(self, theta: Floats, *, check: bool = False, **_: Any) -> Solved:
        """Solve every instance of θ, one after the other; see `SolutionMap.solve`."""
        if check:
            self.check(theta)
        batch, flat = theta.shape[:-1], theta.reshape(-1, theta.shape[-1])
        flat = self._in_order(flat)
        pairs = [self.held(row) for row in flat]
        outputs = np.empty((len(flat), self.output_size))
        for i, (mapping, solution) in enumerate(pairs):
            solution.held = mapping
            outputs[i] = mapping._recover(solution.x, solution.y, flat[i]) if solution.ok else np.nan
        solved = Solved(batch, [solution for _, solution in pairs], outputs.reshape(*batch, self.output_size))
        if not solved.ok:
            unsolved(solved.solutions, batch, solved.outputs, self.on_failure)
        for mapping, solution in pairs:
            if solution.ok:
                inaccurate(Solved((), (solution,), solution.x), mapping.program, self.applicability)
        return solved

    def path_of(self, solved: Solved) -> str:
        """Which way a solved call went, in words."""
        return PATH

    def account(self, solution: Solution) -> Regularity:
        """What is known of the solution map at a solution, with its integers held."""
        return super().account(solution) if solution.held in (None, self) else solution.held.account(solution)

    def _one(self, solution: Solution, tangents: Sequence[Floats], bar: Floats | None) -> Floats:
        if solution.held in (None, self):
            return super()._one(solution, tangents, bar)
        return solution.held._one(solution, tangents, bar)
