"""`diagnose`: from a problem, a sensitivity or a layer to its report. Bad input becomes a report that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast, overload

import cvxpy as cp
import numpy as np

from cvxift.diagnostics import advice, audit, domain, neighbourhood
from cvxift.diagnostics.equation import equation
from cvxift.diagnostics.findings import Finding, Verdict
from cvxift.diagnostics.integers import with_integers_held
from cvxift.diagnostics.nonlinear import nonlinear_report, report_of
from cvxift.diagnostics.report import BatchReport, Report
from cvxift.errors import ProgramError, SolveError
from cvxift.kkt.conflict import why
from cvxift.kkt.engine import Solution
from cvxift.kkt.failures import saddle
from cvxift.kkt.integers import IntegerMap, held_program
from cvxift.kkt.policy import Policy, check_reading
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.progress import progress
from cvxift.kkt.solution_map import SolutionMap
from cvxift.kkt.warm_point import held_point, holds_values_of
from cvxift.nlp import NonlinearMap
from cvxift.program.attributes import inward
from cvxift.program.parameters import logged
from cvxift.program.program import Program
from cvxift.program.split_leaves import SplitProblem


class Reporting(Protocol):
    """What carries its own report, as a `Sensitivity` does."""

    @property
    def report(self) -> Report:
        """The report."""
        ...


@overload
def diagnose(
    subject: cp.Problem | Reporting,
    *tensors: Any,
    gp: bool = False,
    nlp: bool = False,
    integers: str | None = None,
    solver: str | None = None,
    solver_args: Mapping[str, Any] | None = None,
    outputs: Sequence[Any] = (),
) -> Report: ...


@overload
def diagnose(
    subject: Any,
    *tensors: Any,
    gp: bool = False,
    nlp: bool = False,
    integers: str | None = None,
    solver: str | None = None,
    solver_args: Mapping[str, Any] | None = None,
    outputs: Sequence[Any] = (),
) -> Report | BatchReport: ...


def diagnose(
    subject: Any,
    *tensors: Any,
    gp: bool = False,
    nlp: bool = False,
    integers: str | None = None,
    solver: str | None = None,
    solver_args: Mapping[str, Any] | None = None,
    outputs: Sequence[Any] = (),
) -> Report | BatchReport:
    """Say whether the implicit function theorem applies, how far from failing, what is the cause and what to do.

    Args:
        subject: a CVXPY problem (at its parameters' values, and at the point it holds if it was solved); a
            `Sensitivity`; a cvxift layer; an implicit function; a layer of the cvxpylayers package; or a function F
            of (x, *theta) that is zero at the tensors or JAX arrays given.
        *tensors: a layer's inputs, arrays or tensors, of its parameters' shapes with any leading batch dimensions; an
            implicit function's theta; x and theta of a function F, nested structures of tensors or of JAX arrays.
        gp: whether a problem is a geometric program.
        nlp: report on a local solution of a nonlinear problem, or of a convex one that is not DPP; see
            docs/nonlinear.md.
        integers: ``"fixed"`` for a mixed-integer problem, as in `cvxift.differentiate`.
        solver: solve a problem with this solver, whatever point it holds.
        solver_args: options for that solver.
        outputs: variables and dual variables whose derivatives are wanted, which alone are judged; without them, all
            variables and no dual variables. A layer is judged by its own.

    Returns:
        The report; a `BatchReport` for a layer's batch. Nothing is raised for a problem that is not DPP, infeasible,
        or given wrong tensors: the report says it.

    Raises:
        ProgramError: the subject is none of these.

    Example:
        >>> import cvxpy as cp, numpy as np, cvxift
        >>> x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c", value=np.array([1.0, 1.0]))
        >>> report = cvxift.diagnose(cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == 1, x >= 0]))
        >>> report.verdict.value
        'does not apply'
        >>> report.faults[0].cause
        'flat direction'
    """
    if isinstance(subject, cp.Problem):
        if tensors:
            return _refused(_title(subject), "A problem takes no tensors: set its parameters' values.")
        try:
            check_reading(nlp=nlp, gp=gp, integers=integers)
        except ProgramError as error:
            return _refused(_title(subject), str(error))
        parts = None if nlp or integers else SplitProblem.of(subject, gp=gp)
        if parts is not None:
            return _in_parts(parts, gp, solver, solver_args, outputs)
        if nlp:
            return nonlinear_report(subject, _title(subject), solver, solver_args, outputs)
        return _problem(subject, gp, integers, solver, solver_args, outputs)
    if getattr(subject, "reports_itself", False):
        return subject.diagnose(*tensors)
    report = getattr(subject, "report", None)
    if isinstance(report, Report):
        return report
    core = getattr(subject, "core", subject)
    mapping, parts = getattr(core, "map", None), getattr(core, "parts", None)
    if isinstance(mapping, SolutionMap):
        if parts is not None:
            title = f"layer of {_title(parts.user)}"
            try:
                tensors = parts.split_call([_numbers(t) for t in tensors], lambda _, value: (value.real, value.imag))
            except ProgramError as error:
                return _refused(title, str(error))
            return _layer(mapping, tensors, title)
        return _layer(mapping, tensors, f"layer of {_title(mapping.program.problem)}")
    if audit.is_layer(subject):
        return _peer(subject, tensors)
    if callable(subject) and tensors:
        return equation(subject, tensors)
    raise ProgramError(
        f"Cannot diagnose an object of type {type(subject).__name__}; expected a cp.Problem, a Sensitivity, a layer of "
        "cvxift or cvxpylayers, or a function F with the x and theta at which it is zero."
    )


def _in_parts(parts: SplitProblem, gp: bool, solver: str | None, solver_args: Any, outputs: Sequence[Any]) -> Report:
    """A problem with leaves that are split, by their parts."""
    try:
        parts.hold_values()
        report = _problem(parts.problem, gp, None, solver, solver_args, parts.leaves(outputs))
        return replace(report, title=_title(parts.user))
    except ProgramError as error:
        return _refused(_title(parts.user), str(error))


def report_at(problem: cp.Problem, program: Program, solution: Solution, theta: np.ndarray) -> Report:
    """The report of a solution that is known already.

    Args:
        problem: the problem.
        program: its program.
        solution: a solution of it.
        theta: the parameters it was solved at, in the user's units, shape (N,).
    """
    if program.nonlinear:
        smooth, engine = cast(Any, program), cast(Any, solution.engine)  # a nonlinear program has such
        own = NonlinearMap(problem, None, [], program=smooth, engine=engine)
        return report_of(_title(problem), own, solution, theta)
    mapping = SolutionMap(problem, None, [], program=program, engine=solution.engine)
    return _report(_title(problem), mapping, solution, logged(theta, program.log_mask))


def _title(problem: cp.Problem) -> str:
    names = ", ".join(variable.name() for variable in problem.variables()[:3])
    return f"problem in {names}" + ("…" if len(problem.variables()) > 3 else "")


def _refused(title: str, text: str) -> Report:
    return Report(title, Verdict.NOT_OPTIMAL, (), (Finding("bad input", text, ""),))


def _problem(
    problem: cp.Problem,
    gp: bool,
    integers: str | None,
    solver: str | None,
    solver_args: Mapping[str, Any] | None,
    outputs: Sequence[Any],
) -> Report:
    title = _title(problem)
    try:
        if integers is not None:
            program = held_program(problem, solver, solver_args)
            solver, solver_args = None, None
        else:
            program = Program(problem, gp=gp)
        canonical = logged(program.pack({p: p.value for p in program.parameters}), program.log_mask)
        data = program.evaluate(canonical)
        mapping = SolutionMap(
            problem, None, [], program=program, solver=solver, solver_args=solver_args, policy=Policy()
        )
        wanted = [program.output(output) for output in outputs]
    except ProgramError as error:
        return _refused(title, str(error))
    except SolveError as error:
        return Report(title, Verdict.NOT_OPTIMAL, (), (Finding(error.status, str(error), advice.RESOLVE),))
    notes: list[Finding] = []
    if integers is not None:
        return _report(title, mapping, mapping.engine.solve(data), canonical, wanted)
    holds = all(variable.value is not None for variable in problem.variables())
    solution = held_point(program, mapping.engine, data) if holds and solver is None else None
    if solution is None and holds and solver is None:
        fresh = mapping.engine.solve(data)
        if fresh.ok and holds_values_of(fresh, program):  # the solver's tolerance, in units that hide a row
            notes.append(
                Finding("solved again", f"The point held was made more accurate with {fresh.solver}.", "", False)
            )
        elif fresh.ok:
            text = "The values that the variables hold do not solve the problem at the parameters' current values."
            return Report(title, Verdict.NOT_OPTIMAL, (), (Finding("not optimal", text, advice.RESOLVE),))
        solution = fresh
    elif solution is None:
        solution = mapping.engine.solve(data)
        if not holds:
            text = f"The problem held no solution; it was solved with {solution.solver}."
            notes.append(Finding("solved here", text, "", False))
    return _report(title, mapping, solution, canonical, wanted, notes)


def _report(
    title: str,
    mapping: SolutionMap,
    solution: Solution,
    theta: np.ndarray,
    outputs: Sequence[Any] = (),
    notes: Sequence[Finding] = (),
) -> Report:
    if not solution.ok:
        text = f"No optimal point was found: {solution.status.value}. Tried {solution.describe()}. "
        text = (text + why(solution, mapping.program)).rstrip()
        if solution.descent is not None:
            text += " " + saddle(solution.descent, mapping.program)
        return Report(
            title,
            Verdict.NOT_OPTIMAL,
            (),
            (Finding(solution.status.value, text, advice.REMEDY.get(solution.status, advice.RESOLVE)),),
        )
    notes = list(notes)
    if not mapping.program.parameters:
        notes.append(advice.no_parameters())
    report = Report.at(title, mapping, LocalPoint(mapping.program, solution, theta, outputs), outputs, notes)
    report = _one_way(report, mapping, theta, outputs)
    return with_integers_held(report, mapping.program, solution, theta, outputs) if mapping.program.integers else report


def _one_way(report: Report, mapping: SolutionMap, theta: np.ndarray, outputs: Sequence[Any]) -> Report:
    """The report, with the bounds of parameters in place of the faults that they alone cause."""
    program, point = mapping.program, report.point
    direction = inward(program, theta)
    faults = {finding.cause for finding in report.faults}
    if point is None or report.verdict.ok or not direction.any() or not faults <= set(domain.KINKS):
        return report
    beside = domain.inside(point, direction)
    solution = mapping.engine.solve(program.evaluate(beside))
    if not solution.ok:
        return report
    if not Report.at("", mapping, LocalPoint(program, solution, beside, outputs), outputs).verdict.ok:
        return report
    if neighbourhood.leaves(point, beside - theta):
        return report
    kept = [finding for finding in report.findings if not finding.fault]
    findings = (*kept, domain.told(program, direction))
    return replace(report, verdict=Verdict.ONE_SIDED, findings=findings)


def _layer(mapping: SolutionMap, tensors: Sequence[Any], title: str) -> Report | BatchReport:
    program = mapping.program
    try:
        theta = _packed(mapping, tensors)
    except ProgramError as error:
        return _refused(title, str(error))
    path = getattr(mapping, "path", "")
    notes = [Finding("path", f"path of the layer's calls: {path}", "", False)] if path else []
    reports = []
    rows = list(theta.reshape(-1, program.theta_size))
    for index, row in enumerate(progress(rows, "cvxift: instances")):
        fixed = isinstance(mapping, IntegerMap)
        own, solution = mapping.held(row) if fixed else (mapping, mapping.engine.solve(program.evaluate(row)))
        where = tuple(map(int, np.unravel_index(index, theta.shape[:-1]))) if theta.ndim > 1 else ()
        name = f"{title}, instance {where}" if where else title
        if isinstance(mapping, NonlinearMap) and solution.ok:
            reports.append(report_of(name, mapping, solution, row, mapping.outputs, notes))
        else:
            reports.append(_report(name, own, solution, row, own.outputs, notes))
    return reports[0] if theta.ndim == 1 else BatchReport(title, theta.shape[:-1], tuple(reports))


def _packed(mapping: SolutionMap, tensors: Sequence[Any]) -> np.ndarray:
    """A layer's tensors as θ in the program's order, logarithms taken, shape (*batch, N)."""
    if len(tensors) != len(mapping.parameters):
        names = ", ".join(f"'{p.name()}' {p.shape}" for p in mapping.parameters)
        raise ProgramError(f"A tensor must be given for each parameter: got {len(tensors)}, expected {names}.")
    values = {p: _array(tensor) for p, tensor in zip(mapping.parameters, tensors, strict=True)}
    return logged(mapping.program.pack(values), mapping.program.log_mask)


def _peer(layer: Any, tensors: Sequence[Any]) -> Report | BatchReport:
    """A layer of cvxpylayers: its problem at these tensors, and the gradient that it computes, compared."""
    context = layer.ctx
    title = f"cvxpylayers layer of {_title(context.problem)}"
    try:
        mapping = SolutionMap(context.problem, context.parameters, context.variables, gp=context.gp)
    except ProgramError as error:
        return _refused(title, str(error))
    report = _layer(mapping, tensors, f"layer of {_title(mapping.program.problem)}")
    if report.verdict is Verdict.NOT_OPTIMAL or not report.ok:
        return report
    finding = audit.compare(layer, mapping, [_array(tensor) for tensor in tensors], tensors)
    if finding is None:
        return report
    if isinstance(report, BatchReport):
        first = replace(report.reports[0], findings=(finding, *report.reports[0].findings))
        return replace(report, reports=(first, *report.reports[1:]))
    return replace(report, findings=(finding, *report.findings))


def _numbers(tensor: Any) -> np.ndarray:
    """A tensor of any framework as a NumPy array."""
    for name in ("detach", "cpu"):
        tensor = getattr(tensor, name)() if hasattr(tensor, name) else tensor
    return np.asarray(tensor)


def _array(tensor: Any) -> np.ndarray:
    """A tensor of any framework as a float64 array."""
    try:
        return np.asarray(_numbers(tensor), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ProgramError(f"A tensor could not be read as numbers: {error}.") from None
