"""Reports on local solutions of nonlinear programs, in the words of nonlinear programming.

The checks are those of every report, made on the quadratic program that linearizes the problem at the point
(`cvxift.program.smooth.linearized`): LICQ is the independence of its active rows, strict complementarity its distance
from a kink, the second-order sufficient condition the curvature of the Lagrangian along what active rows leave free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import cvxpy as cp
import numpy as np

from cvxift.diagnostics import advice
from cvxift.diagnostics.findings import Check, Finding, Verdict, listed
from cvxift.diagnostics.report import Report
from cvxift.diagnostics.user_terms import direction_text
from cvxift.errors import ProgramError
from cvxift.kkt.convexity import DENSE_NULL_SPACE, NEGATIVE, least_curvature, surplus
from cvxift.kkt.engine import Solution
from cvxift.kkt.failures import ELSEWHERE, falls_along
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.system.cone_basis import rotation
from cvxift.nlp import NO_MULTIPLIERS, NonlinearEngine, NonlinearMap, start_values
from cvxift.program.smooth import SmoothProgram
from cvxift.program.smooth.linearized import LinearizedData

HAS_SOLUTION = (cp.OPTIMAL, cp.OPTIMAL_INACCURATE)
RESOLVE = "Solve it again from here, problem.solve(nlp=True), or let cvxift: cvxift.differentiate(problem, nlp=True)."
ALONG_FLAT = 0.05  # relative distance along a direction without curvature at which another solution is looked for
SAME_VALUE = 1e-9  # relative difference of objectives up to which they are the same


def nonlinear_report(
    problem: cp.Problem,
    title: str,
    solver: str | None,
    solver_args: Mapping[str, Any] | None,
    outputs: Sequence[Any],
) -> Report:
    """The report of a nonlinear problem at the point it holds, if it was solved; else it is solved here."""
    try:
        program = SmoothProgram(problem)
        theta = program.pack({p: p.value for p in program.parameters})
        wanted = [program.output(output) for output in outputs]
        values = start_values(problem)
        engine = NonlinearEngine(program, values, solver=solver, solver_args=solver_args)
        mapping = NonlinearMap(problem, None, [], program=program, engine=engine)
        holds = solver is None and problem.status in HAS_SOLUTION and all(value is not None for value in values)
        solution = engine.held(theta, values) if holds else engine.solve(program.evaluate(theta))
    except ProgramError as error:
        return Report(title, Verdict.NOT_OPTIMAL, (), (Finding("bad input", str(error), ""),))
    notes: list[Finding] = []
    if not holds:
        text = f"The problem held no solution; it was solved with {solution.solver} from its variables' values."
        notes.append(Finding("solved here", text, "", False))
    if not solution.ok:
        return Report(title, Verdict.NOT_OPTIMAL, (), (_no_point(solution, program, holds),))
    return report_of(title, mapping, solution, theta, wanted, notes)


def report_of(
    title: str,
    mapping: NonlinearMap,
    solution: Solution,
    theta: np.ndarray,
    outputs: Sequence[Any] = (),
    notes: Sequence[Finding] = (),
) -> Report:
    """The report of a local solution.

    Args:
        title: what is diagnosed.
        mapping: the problem's map.
        solution: a solution that has a point.
        theta: the parameters it was solved at, shape (N,).
        outputs: the program's maps to the variables and dual variables whose derivatives are wanted.
        notes: findings known already.
    """
    notes = list(notes)
    if not mapping.program.parameters:
        notes.append(advice.no_parameters())
    point = LocalPoint(mapping.program, solution, theta, outputs)
    local: Any = point.program  # the program linearized at the point
    report = Report.at(title, mapping, point, outputs, notes)
    checks, findings, verdict = _second_order(report, point), list(report.findings), report.verdict
    if any(finding.cause == "vanishing curvature" for finding in findings):
        findings = [_not_isolated(mapping, point, finding) for finding in findings]
    if local.slow and verdict.ok:
        verdict = Verdict.DOES_NOT_APPLY
        names = [label.text.removeprefix("variable ") for label in _moving(point)]
        findings.append(advice.vanishing(names))
    if kinks := local.kinks:
        verdict = Verdict.ONE_SIDED if verdict.ok else verdict
        text = f"{listed(kinks)} has a kink at the parameters' values, so the derivative depends on their side."
        remedy = "Move the parameters off the kink, or make a parameter of the expression's value."
        findings.append(Finding("kink", text, remedy, True, tuple(kinks)))
    findings.append(
        Finding("local solution", "A local minimum; another start may lead to another one.", ELSEWHERE, False)
    )
    return replace(report, verdict=verdict, checks=checks, findings=tuple(findings))


def _not_isolated(mapping: NonlinearMap, point: LocalPoint, finding: Finding) -> Finding:
    """The finding of a flat direction in place of vanishing curvature, where another solution lies along it."""
    found = _least(point)
    if finding.cause != "vanishing curvature" or found is None:
        return finding
    _, direction = found
    size = max(float(np.abs(point.x[point.asked]).max(initial=0.0)), ALONG_FLAT)
    step = direction * (ALONG_FLAT * size / (float(np.abs(direction).max()) or 1.0))
    engine: Any = mapping.engine
    local: Any = point.program
    other = engine.beside(local.theta, point.x + step, point.y)
    if other is None or np.abs(other.x - point.x)[point.asked].max(initial=0.0) < 0.1 * ALONG_FLAT * size:
        return finding
    values = [float(cast(LinearizedData, s.data).program.value) for s in (point.solution, other)]
    if abs(values[1] - values[0]) > SAME_VALUE * max(1.0, abs(values[0])):
        return finding
    text, names = direction_text(point, direction)
    return Finding(
        "flat direction",
        f"The solution is not isolated: others, of the same objective, lie along {text}.",
        advice.flat(point),
        True,
        tuple(names),
    )


def _no_point(solution: Solution, program: Any, held: bool) -> Finding:
    """Why there is no local solution."""
    if solution.descent is not None:
        text = f"The point satisfies the first-order conditions, but it is no minimum: {falls_along(solution, program)}"
        return Finding("not a local minimum", text, ELSEWHERE)
    if any(NO_MULTIPLIERS in words for _, _, words, _ in solution.attempts):
        text = (
            f"The point is feasible, but {NO_MULTIPLIERS}: the active constraints' gradients do not span what the "
            "objective needs, as where they are dependent (LICQ and weaker qualifications fail)."
        )
        remedy = "Relax one of the constraints that meet there (x * y <= eps for a complementarity condition)."
        return Finding("no multipliers", text, remedy)
    if held:
        text = "The values that the variables hold do not satisfy the optimality conditions at the parameters' values."
        return Finding("not optimal", text, RESOLVE)
    text = f"No local solution was found: {solution.status.value}. Tried {solution.describe()}."
    return Finding(solution.status.value, text, advice.REMEDY.get(solution.status, ELSEWHERE))


def _second_order(report: Report, point: LocalPoint) -> tuple[Check, ...]:
    """The report's checks, with the least curvature of the Lagrangian along what active rows leave free."""
    found = _least(point)
    if found is None:
        large = point.structure.n > DENSE_NULL_SPACE
        count = surplus(point.instance, rotation(point.structure.cones, point.v)) if large else None
        if count is None:
            return report.checks
        note = "negative eigenvalues of the sparse KKT matrix beyond one for each active constraint (inertia)"
        return (*report.checks, Check("reduced Hessian", count == 0, float(count), 0.0, note))
    value, direction = found
    text, _ = direction_text(point, direction)
    note = f"least eigenvalue of the (equilibrated) Lagrangian Hessian along the active constraints, at {text}"
    check = Check("reduced Hessian", value > NEGATIVE, value, NEGATIVE, note)
    return (*report.checks, check)


def _least(point: LocalPoint) -> tuple[float, np.ndarray] | None:
    return least_curvature(point.instance, rotation(point.structure.cones, point.v))


def _moving(point: LocalPoint) -> list[Any]:
    """The user's columns that the least curvature is along."""
    found = _least(point)
    labels = point.program.column_labels
    if found is None:
        return [labels[int(j)] for j in np.flatnonzero(point.asked)[:3]]
    size = np.abs(found[1]) * point.asked
    return [labels[int(j)] for j in np.argsort(-size)[:3] if size[j] > 0.1 * size.max()]
