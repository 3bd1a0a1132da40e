"""The implicit derivative against central differences of re-solved problems."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvxift.diagnostics.analysis import Analysis
from cvxift.errors import SolveError
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.solution_map import SolutionMap
from cvxift.program.structure import Floats

STEPS = (1e-4, 5e-5)  # relative steps; two of them tell truncation from noise
AGREE = 1e-5  # relative difference that counts as agreement


@dataclass(frozen=True)
class Audit:
    """What the comparison showed.

    Attributes:
        agrees: whether all directions agree.
        difference: largest relative difference, Richardson-extrapolated.
        explanation: one sentence.
    """

    agrees: bool
    difference: float
    explanation: str


def audit(mapping: SolutionMap, point: LocalPoint, found: Analysis, directions: int = 3, seed: int = 0) -> Audit:
    """See `Report.audit`.

    With central differences D(h) = f′ + c h² + O(h⁴), the extrapolation (4 D(h/2) − D(h))/3 leaves O(h⁴) (Richardson
    1911).
    """
    program = point.program
    variables = [v for v in program.problem.variables() if point.asked[program.output(v).matrix.indices].all()]
    own = SolutionMap(program.problem, None, variables, program=program, engine=mapping.engine)
    rng = np.random.default_rng(seed)
    worst, jumped = 0.0, False
    if not program.theta_size:
        return Audit(True, 0.0, "The problem has no parameters, so there is nothing to compare.")
    for _ in range(directions):
        theta_dot = rng.standard_normal(program.theta_size) * point.theta_size_of_entry
        g, h = point.tangents(theta_dot[None, :])
        u, w, _ = found.kernel.solve(g, h)
        implicit = own._recover.linear(u[0], w[0])
        try:
            wide, jump = _central(own, point, theta_dot, STEPS[0])
            close, other = _central(own, point, theta_dot, STEPS[1])
        except SolveError as error:
            return Audit(False, float("inf"), f"A neighbouring problem has no solution: {error}")
        difference = (4.0 * close - wide) / 3.0
        size = max(float(np.abs(implicit).max(initial=0.0)), float(np.abs(difference).max(initial=0.0)))
        error = float(np.abs(implicit - difference).max(initial=0.0))
        floor = 1e-9 * float(np.abs(point.x).max(initial=0.0)) / STEPS[1]  # rounding of the solutions
        worst = max(worst, error / max(size, floor) if size > 0.0 else 0.0)
        jumped |= jump or other
    if worst <= AGREE:
        return Audit(True, worst, "The implicit derivative and central differences agree.")
    if not found.verdict.ok:
        why = f"the theorem does not promise a derivative here ({found.verdict.value})"
    elif jumped:
        why = "the active set changes within the difference step, which is longer than the distance to the kink"
    else:
        why = f"the differences' own error at a condition number of {found.kernel.condition:.1e}, or strong curvature"
    return Audit(False, worst, f"They differ by {worst:.1e} (relative); the cause: {why}.")


def _central(own: SolutionMap, point: LocalPoint, theta_dot: Floats, step: float) -> tuple[Floats, bool]:
    """The central difference, and whether the two sides have other active rows than each other."""
    plus, minus = own.solve(point.theta + step * theta_dot), own.solve(point.theta - step * theta_dot)
    rows = slice(point.cones.zero, point.cones.zero + point.cones.nonneg)
    sides = [solved.solutions[0] for solved in (plus, minus)]
    tight = [(side.s < side.y)[rows] for side in sides]
    return (plus.outputs - minus.outputs) / (2.0 * step), bool((tight[0] != tight[1]).any())
