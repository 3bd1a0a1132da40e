"""Steps that dependent tight rows exclude are told by a linear program, and by it only those that are excluded."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from cvxift.kkt.regularity import pieces
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.torn_rows import TornRows
from cvxift.kkt.solution_map import SolutionMap


def at(slack: float = 0.0, vary: bool = False) -> LocalPoint:
    """x₀ ≤ b₀, x₁ ≤ b₁, x₀ + x₁ ≥ b₂: one point where b₂ = b₀ + b₁, none where it is more; x₂ ≤ b₃ is slack."""
    x, b, a = cp.Variable(3, name="x"), cp.Parameter(4, name="b"), cp.Parameter(name="a", nonneg=True)
    rows = [x[0] <= b[0], x[1] <= b[1], x[0] + x[1] >= b[2], x[2] <= b[3]]
    if vary:
        rows.append(a * x[2] >= -5.0)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - np.array([1.5, 2.0, 0.0]))), rows)
    solution_map = SolutionMap(problem, [b, a] if vary else [b], [x])
    theta = np.array([1.0, 2.0, 3.0 - slack, 7.0, *([1.0] if vary else [])])
    (solution,) = solution_map.solve(theta).solutions
    return LocalPoint(solution_map.program, solution)


@pytest.mark.parametrize(
    ("step", "excluded"),
    [
        ([0.0, 0.0, 1.0, 0.0], True),
        ([-1.0, 0.0, 0.0, 0.0], True),
        ([-1.0, 0.5, 0.0, -1.0], True),
        ([-1.0, 1.01, 0.0, 0.0], False),
        ([0.0, 0.0, -1.0, 0.0], False),
        ([0.0, 0.0, 0.0, -1.0], False),
    ],
)
def test_excluded_steps_are_those_that_lead_to_no_solution(step, excluded):
    local, step = at(), 1e-6 * np.array(step)
    excludes = TornRows.of(local)
    assert excludes is not None
    assert excludes(step) is excluded
    assert (pieces.neighbour(local, step) is None) is excluded


def test_a_slack_larger_than_the_step_excludes_nothing():
    step = np.array([0.0, 0.0, 1e-6, 0.0])
    for slack, excluded in ((1e-5, False), (1e-8, True)):
        local = at(slack)
        excludes = TornRows.of(local)
        assert excludes is not None
        assert excludes(step) is excluded


def test_nothing_is_said_where_rows_depend_on_parameters():
    assert TornRows.of(at(vary=True)) is None
