"""Thresholds of searches and messages: a case on each side."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.diagnostics.neighbourhood import ALIKE
from cvxift.kkt.conflict import entries
from cvxift.kkt.engine import Engine
from cvxift.kkt.warm_point import held_point
from cvxift.program.program import Program


@pytest.mark.parametrize(("part", "named"), [(5e-4, [2, 0]), (2e-3, [2, 0, 1])])
def test_a_certificate_consists_of_its_large_entries(part, named):
    assert entries(np.array([-0.5, part, 1.0, 0.0])) == named


@pytest.mark.parametrize(("off", "same"), [(5e-4, True), (2e-3, False)])
def test_values_that_are_a_little_off_are_the_solution_that_they_are_completed_to(off, same):
    x, b = cp.Variable(3), cp.Parameter(3, value=np.array([10.0, -20.0, 4.0]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b)))
    program = Program(problem)
    data = program.evaluate(program.pack({}))
    size = 1.0 + np.abs(b.value).max()
    x.value = b.value + off * size * np.array([0.0, 1.0, 0.0])
    found = held_point(program, Engine(program.structure), data)
    assert (found is not None) == same
    if found is not None:
        np.testing.assert_allclose(found.x[program.user_columns], b.value, atol=1e-9)


@pytest.mark.parametrize(("slope", "infinite"), [(1600.0, True), (3600.0, False)])
def test_growth_at_two_steps_is_one_powers_or_is_not_told_from_a_kink(slope, infinite):
    # x = √θ + cθ at θ = 0: dx/dθ = 1/(2√θ) + c at three steps; the first moves the program by 1e-6 of its size.
    near, middle, far = 0.5 * (np.array([1e-6, 1e-5, 1e-4]) / slope) ** -0.5 + slope
    first, second = np.log(near / middle), np.log(middle / far)
    assert (abs(first - second) <= ALIKE * first) == infinite

    theta = cp.Parameter(nonneg=True, value=0.0)
    root, x = cp.Variable(), cp.Variable()
    problem = cp.Problem(cp.Maximize(root), [cp.square(root) <= theta, x == root + slope * theta])
    side = cvxift.diagnose(problem).one_sided({theta: 1.0})
    assert np.isposinf(side[x]) if infinite else np.isnan(side[x])
