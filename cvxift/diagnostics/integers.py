"""What a report says where integers are held: for how long the derivative holds, and whether another choice ties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cvxift.diagnostics.findings import Finding, Verdict, listed
from cvxift.diagnostics.report import Report
from cvxift.errors import ProgramError
from cvxift.kkt.engine import Solution
from cvxift.kkt.integers import MixedInteger, values_of
from cvxift.program.program import Program
from cvxift.program.structure import Floats

EQUAL = 1e-6  # relative difference of objectives, or of values, up to which a solver's are the same
_STAYS = "The derivative holds while this choice stays the best one; where another becomes better, the solution jumps."


def with_integers_held(
    report: Report, program: Program, solution: Solution, theta: Floats, outputs: Sequence[Any]
) -> Report:
    """A report with what is to be said of the integers.

    The next best choice is looked for where all integers are boolean, by one more solve that excludes the best one.

    Args:
        report: on the problem with its integers held.
        program: that problem's.
        solution: its solution.
        theta: where, shape (N,).
        outputs: what derivatives are wanted of; nothing stands for all variables.
    """
    names = listed([f"variable {variable.name()}" for variable in program.integers])
    held = Finding("integers held", f"{names}: held at the optimum. {_STAYS}", "", False)
    if not all(variable.attributes["boolean"] for variable in program.integers):
        return replace(report, findings=(*report.findings, held))
    try:
        other = MixedInteger(program.problem).solve(values_of(program, theta), other_than=program.integers)
    except ProgramError:  # a solver that the user named takes the problem, and none that is chosen here
        return replace(report, findings=(*report.findings, held))
    if not other.status.has_point:
        text = f"{names}: held at the optimum. No other choice was found to be feasible."
        return replace(report, findings=(*report.findings, replace(held, text=text)))
    best = float(program.primal_value(solution.data, solution.x))
    gap = program.objective_sign * (other.value - best)
    terms = float(np.abs(np.ravel(solution.data.q) * solution.x).sum())  # the optimum itself may be zero
    if gap > EQUAL * max(abs(best), abs(other.value), terms):
        text = f"{held.text} The next best choice is worse by {gap:.3g} in the objective."
        return replace(report, findings=(*report.findings, replace(held, text=text)))
    moved = {**other.integers, **other.others}
    asked = {id(output) for output in outputs}
    wanted = [v for v in moved if not asked or id(program.output(v)) in asked]
    jumps = [v.name() for v in wanted if not _same(program.output(v).value(solution.x, theta), moved[v])]
    if not jumps:
        text = f"{held.text} Another choice is equally good, and the values asked for are the same with it."
        return replace(report, findings=(*report.findings, replace(held, text=text)))
    tie = Finding(
        "tie of integers",
        f"Another choice of {names} is equally good, with another value of {listed(jumps)}: the solution is not "
        "unique, and jumps where the parameters pass this point.",
        "Move the parameters off the tie, or add a small cost that prefers one of the choices.",
        True,
        tuple(jumps),
    )
    return replace(report, verdict=Verdict.DOES_NOT_APPLY, findings=(tie, *report.findings, held))


def _same(one: Floats, two: Floats) -> bool:
    size = max(np.abs(one).max(initial=0.0), np.abs(two).max(initial=0.0))  # of the variable: entries may be zero
    return bool(np.abs(one - two).max(initial=0.0) <= EQUAL * size)
