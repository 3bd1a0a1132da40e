"""`cvxift.differentiate`: the solution that a problem holds, or that is found, and its sensitivities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import cvxpy as cp
import numpy as np
from cvxpy.problems.objective import Objective

from cvxift._types import override
from cvxift.argmax.closed_form.closed_map import ClosedForm, ClosedMap
from cvxift.errors import SolveError
from cvxift.kkt.conflict import agrees
from cvxift.kkt.engine import TOLERANCE
from cvxift.kkt.failures import inaccurate, unsolved
from cvxift.kkt.integers import held_program
from cvxift.kkt.policy import Check, Integers, Iterative, LinearSolver, Policy, Singular, check_reading, choice
from cvxift.kkt.solution_map import Solved
from cvxift.kkt.warm_point import KEPT_VALUES, held_point, holds_values_of
from cvxift.layers.description import facts
from cvxift.layers.sensitivity import Output, Sensitivity
from cvxift.program.parameters import logged
from cvxift.program.program import Program
from cvxift.program.split_leaves import SplitProblem
from cvxift.program.write_back import real_duals, write_back, write_back_none
from cvxift.solvers.base import Status

if TYPE_CHECKING:
    from cvxift.diagnostics.report import Report


class SplitSensitivity(Sensitivity):
    """Derivatives of a solution whose leaves were split (`program.split_leaves`); made by `differentiate`.

    A gradient is ∂/∂Re + i ∂/∂Im, the direction of steepest ascent, and a cotangent weighs an output as
    Re ⟨cotangent, output⟩ = Re Σ conj(cotangent)·output, as in PyTorch (the conjugate Wirtinger derivative, doubled).
    A tangent is a complex change.

    Args:
        parts: the problem's parts.
        problem: the user's problem.
        inner: the sensitivities of the problem in the parts.
    """

    def __init__(self, parts: SplitProblem, problem: cp.Problem, inner: Sensitivity) -> None:
        super().__init__(
            problem, inner.program, inner.solution, inner._theta, inner.policy, inner._mapping, inner.check
        )
        self._parts, self._inner = parts, inner

    @override
    def _facts(self) -> dict[str, str]:
        return facts(self._parts.parameters, self.problem.variables(), self.solution.solver, self.path)

    @cached_property
    @override
    def path(self) -> str:
        """Which way the derivatives of the problem's variables are taken, in words."""
        return self._inner.path

    @cached_property
    @override
    def _report(self) -> Report:
        return self._inner.report

    @override
    def value(self, output: Any) -> Any:
        """As `Sensitivity.value`; complex for a complex variable."""
        if isinstance(output, Objective):
            return self._inner.value(self._parts.dual(output))
        leaves = self._parts.leaves([output])
        return self._parts.join(output, {leaf: self._inner.value(leaf) for leaf in leaves})

    @override
    def vjp(self, cotangents: Mapping[Output, Any]) -> dict[cp.Parameter, np.ndarray]:
        """As `Sensitivity.vjp`; the gradient of Re Σ ⟨cotangent, output⟩."""
        real: dict[Any, Any] = {}
        for key, cotangent in cotangents.items():
            real |= (
                {self._parts.dual(key): cotangent} if isinstance(key, Objective) else self._parts.split(key, cotangent)
            )
        found = self._inner.vjp(real)
        return {p: self._parts.join(p, found) for p in self._parts.parameters}

    @override
    def jvp(self, tangents: Mapping[cp.Parameter, Any]) -> dict[Output, Any]:
        """As `Sensitivity.jvp`; dual variables of complex second-order cones are left out."""
        real: dict[Any, Any] = {}
        for parameter, tangent in tangents.items():
            real |= self._parts.split(parameter, tangent)
        found = self._inner.jvp(real)
        out: dict[Output, Any] = {
            v: self._parts.join(v, found) for v in (*self.problem.variables(), *self._parts.duals)
        }
        out[self.problem.objective] = found[self._parts.problem.objective]
        return out

    @override
    def jacobian(self, output: Output, parameter: cp.Parameter) -> np.ndarray:
        """The Jacobian of an output with respect to a parameter.

        Args:
            output: as for `Sensitivity.jacobian`.
            parameter: likewise.

        Returns:
            Array of shape ``output.shape + parameter.shape``, complex for a complex output. For a complex parameter it
            has one more axis, the last, of length 2: derivatives with respect to the real and to the imaginary part,
            since a solution map is not holomorphic.
        """
        inner = [self._parts.dual(output)] if isinstance(output, Objective) else self._parts.leaves([output])

        def wrt(leaf: Any) -> np.ndarray:
            if isinstance(output, Objective):
                return self._inner.jacobian(inner[0], leaf)
            return self._parts.join(output, {out: self._inner.jacobian(out, leaf) for out in inner})

        parts = self._parts.parts(parameter)
        return wrt(parameter) if parts is None else parts.jacobian(wrt)


def differentiate(
    problem: cp.Problem,
    *,
    gp: bool = False,
    nlp: bool = False,
    integers: Integers | None = None,
    solver: str | None = None,
    solver_args: Mapping[str, Any] | None = None,
    singular: Singular = "least_squares",
    mu: float = 1e-3,
    linear_solver: LinearSolver | Iterative = "auto",
    program: Program | None = None,
    closed_form: ClosedForm = "auto",
    check: Check = "warn",
) -> Sensitivity:
    """Differentiate the solution of a CVXPY problem at its parameters' current values.

    Uses the point that the problem holds (whatever solver found it), polished to the accuracy of the arithmetic; solves
    it first if it holds none, or if its point does not satisfy the optimality conditions at the current parameters. The
    problem is not changed where it holds this solution to 1e-12; otherwise its variables, dual variables, value and
    status are set as ``problem.solve`` sets them.

    Args:
        problem: a DPP problem whose parameters have values.
        gp: whether it is a geometric program (log-log convex).
        nlp: differentiate a local solution of a nonlinear problem (``problem.is_dnlp()``), or the solution of a convex
            one that is not DPP; parameters may stand anywhere. See docs/nonlinear.md.
        integers: ``"fixed"``: solve a mixed-integer problem, hold its integers at their optimum and differentiate the
            other variables, which is exact while that choice stays the best one. ``solver`` and ``solver_args`` are
            then those of the mixed-integer solver (None: HiGHS). See
            docs/complex_and_integers.md.
        solver: name of the solver to use; the problem is then always solved.
        solver_args: options for that solver.
        singular: what to do where the KKT system is singular: ``"least_squares"``, ``"regularize"``, ``"smooth"`` or
            ``"raise"``; see `cvxift.Policy`.
        mu: the central path's parameter under ``"smooth"``.
        linear_solver: ``"auto"``, ``"direct"``, ``"iterative"``, or `cvxift.Iterative` options for the matrix-free
            path.
        program: a `Program` built earlier for this problem, to save its canonicalization.
        closed_form: ``"auto"``: a problem whose solution has a closed form that is known is solved, and its variable
            differentiated, by it, unless a solver, options for it or another policy are named; ``"never"``.
        check: what a product does where the solution map has no derivative (a kink that the product feels, a solution
            that is not unique): ``"warn"`` with an `ApplicabilityWarning`, ``"raise"`` an `ApplicabilityError`, or
            ``"off"``.

    Returns:
        The sensitivities.

    Raises:
        ProgramError: the problem is not DPP, has integer variables without ``integers="fixed"``, or a parameter has no
            value.
        SolveError: no solver found a point that satisfies the optimality conditions (infeasible, unbounded, …).

    Example:
        >>> import cvxpy as cp, numpy as np, cvxift
        >>> z, theta = cp.Variable(3), cp.Parameter(3, value=np.array([0.2, 0.5, 0.1]))
        >>> problem = cp.Problem(cp.Maximize(theta @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1])
        >>> s = cvxift.differentiate(problem)
        >>> p = np.exp(theta.value) / np.exp(theta.value).sum()
        >>> bool(np.allclose(s.jacobian(z, theta), np.diag(p) - np.outer(p, p), atol=1e-8))
        True
    """
    choice("closed_form", closed_form, get_args(ClosedForm))
    choice("check", check, get_args(Check))
    policy = Policy(singular, mu, linear_solver)
    check_reading(nlp=nlp, gp=gp, integers=integers)
    parts = None if nlp or integers or program else SplitProblem.of(problem, gp=gp)
    if parts is not None:
        options = {"gp": gp, "solver": solver, "solver_args": solver_args, "singular": singular, "mu": mu}
        options |= {"linear_solver": linear_solver, "closed_form": closed_form, "check": check}
        return _with_parts(parts, problem, options)
    if nlp:
        local, held = _nonlinear(problem, solver=solver, solver_args=solver_args, policy=policy, check=check)
        _save(local, held)
        return local
    if integers is not None:
        try:
            program = held_program(problem, solver, solver_args)
        except SolveError as error:
            if error.status in (Status.INFEASIBLE.value, Status.UNBOUNDED.value):
                write_back_none(problem, error.status)
            raise
        solver, solver_args, closed_form = None, None, "never"
    program = Program(problem, gp=gp) if program is None else program
    theta = program.pack({})  # what the parameters hold
    canonical = logged(theta, program.log_mask)
    data = program.evaluate(canonical)
    chosen: ClosedForm = "never" if solver is not None or solver_args else closed_form
    mapping = ClosedMap(
        problem,
        None,
        problem.variables(),
        closed_form=chosen,
        program=program,
        solver=solver,
        solver_args=solver_args,
        policy=policy,
        check=check,
    )
    solution = None if solver is not None or integers is not None else held_point(program, mapping.engine, data)
    held = solution is not None and solution.ok
    if solution is None or not solution.ok:
        solution = mapping.canonical(canonical, data)
    elif solution.worst > TOLERANCE:  # of a problem that was nearly solved, or solved at other parameters
        again = mapping.canonical(canonical, data)
        if again.ok and again.worst < solution.worst:
            solution, held = again, False
    if not solution.ok:
        if solution.status in (Status.INFEASIBLE, Status.UNBOUNDED):
            write_back_none(problem, solution.status.value)
        mapping.raise_unsolved(solution)
    if solution.worst > TOLERANCE or program.vouched:
        inaccurate(Solved((), (solution,), np.empty(0)), program, check)
    agrees(program, solution, theta)
    found = Sensitivity(problem, program, solution, theta, policy, mapping, check)
    _save(found, held)
    return found


def _nonlinear(
    problem: cp.Problem,
    *,
    solver: str | None,
    solver_args: Mapping[str, Any] | None,
    policy: Policy,
    check: Check,
) -> tuple[Sensitivity, bool]:
    """The sensitivities at the local solution that the problem holds, or that is found from its variables' values.

    Args:
        problem: a problem that follows the rules of disciplined nonlinear programs.
        solver: as for `cvxift.differentiate`.
        solver_args: likewise.
        policy: how derivatives are taken.
        check: likewise.

    Returns:
        The sensitivities, and whether the problem held that solution.

    Raises:
        ProgramError: the problem cannot be used.
        SolveError: no local solution was found.
    """
    from cvxift.nlp import NonlinearEngine, NonlinearMap, start_values
    from cvxift.program.smooth import SmoothProgram

    program = SmoothProgram(problem)
    own: Any = program  # has all that is read of a `Program` here
    theta = program.pack({p: p.value for p in program.parameters})
    values = start_values(problem)
    engine = NonlinearEngine(program, values, solver=solver, solver_args=solver_args)
    named = solver is not None or bool(solver_args)
    solution = engine.held(theta, values) if not named and all(value is not None for value in values) else None
    held = solution is not None and solution.ok
    if solution is None or not held:
        solution = engine.solve(program.evaluate(theta))
    if not solution.ok:
        if solution.status in (Status.INFEASIBLE, Status.UNBOUNDED):
            write_back_none(problem, solution.status.value)
        unsolved((solution,), (), np.empty(0), "raise", own)
    if not held:
        inaccurate(Solved((), (solution,), np.empty(0)), own, check)
    local: Any = program.at(solution)
    # It has all that sensitivities read of a `Program`, and its map of a `ClosedMap`.
    variables = problem.variables()
    mapping: Any = NonlinearMap(problem, None, variables, program=local, engine=engine, policy=policy, check=check)
    return Sensitivity(problem, local, solution, theta, policy, mapping, check), held


def _with_parts(parts: SplitProblem, problem: cp.Problem, options: dict[str, Any]) -> Sensitivity:
    """The sensitivities of a problem with leaves that are split, by those of their parts."""
    parts.hold_values()
    try:
        inner = differentiate(parts.problem, **options)
    except SolveError as error:
        if error.status in (Status.INFEASIBLE.value, Status.UNBOUNDED.value):
            write_back_none(problem, error.status)
        raise
    found = SplitSensitivity(parts, problem, inner)
    _save(found, False, parts.duals)
    return found


def _save(found: Sensitivity, held: bool, duals: Sequence[cp.Variable] | None = None) -> None:
    """Set what ``problem.solve`` sets, unless the problem holds it.

    A solver's values are off by its tolerance; so are those of parameters that have moved a little since. They cannot
    be told apart, and must not be left: differences between them would be zero.
    """
    problem, solution = found.problem, found.solution
    solved = problem.status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE)  # else they are values that nobody solved for
    if held and solved and holds_values_of(solution, found.program, KEPT_VALUES):
        return
    accurate = solution.worst <= TOLERANCE
    named = real_duals(problem) if duals is None else duals
    values = {key: found.value(key) for key in (*problem.variables(), *named)}
    solver = None if held and solved else solution.solver
    write_back(problem, found.value(problem.objective), values, accurate=accurate, solver=solver)
