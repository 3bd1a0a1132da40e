"""Newton from perturbed planted solutions: quadratic, down to rounding, and never worse than its start."""

from __future__ import annotations

import numpy as np
import pytest

from cvxift.kkt.instance import Layout
from cvxift.kkt.newton import evaluate, polish


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
def test_reaches_rounding_from_a_first_order_point(planted, dense):
    rng = np.random.default_rng(5)
    instance = Layout(planted.structure, dense).instance(planted.data)
    for size, most in ((1e-5, 3), (1e-4, 4), (1e-3, 6)):
        x = planted.x + size * rng.standard_normal(len(planted.x))
        v = planted.s - planted.y + size * rng.standard_normal(len(planted.s))
        point = polish(instance, x, v)
        assert point.residuals.worst < 1e-12
        assert point.steps <= most
        np.testing.assert_allclose(point.x, planted.x, atol=1e-9 * (1.0 + np.abs(planted.x).max()))
        assert abs(point.s @ point.y) <= 1e-12 * (1.0 + np.abs(point.s).max(initial=0) * np.abs(point.y).sum())


def test_each_step_squares_the_residual(planted):
    instance = Layout(planted.structure, True).instance(planted.data)
    rng = np.random.default_rng(6)
    x = planted.x + 1e-4 * rng.standard_normal(len(planted.x))
    v = planted.s - planted.y + 1e-4 * rng.standard_normal(len(planted.s))
    worst = evaluate(instance, x, v).point.worst
    once = polish(instance, x, v, max_steps=1, goal=0.0).residuals.worst
    assert once < max(1e-14, 1e4 * worst**2)


def test_never_worse_than_its_start(planted):
    instance = Layout(planted.structure, True).instance(planted.data)
    rng = np.random.default_rng(7)
    for size in (1.0, 100.0):
        x = size * rng.standard_normal(len(planted.x))
        v = size * rng.standard_normal(len(planted.s))
        start = evaluate(instance, x, v).point.worst
        for steps in (0, 1, 12):
            point = polish(instance, x, v, max_steps=steps)
            assert point.residuals.worst <= start
            again = evaluate(instance, point.x, point.v).point.worst
            assert again == pytest.approx(point.residuals.worst)


def test_a_solution_is_left_as_it_is(planted):
    instance = Layout(planted.structure, True).instance(planted.data)
    point = polish(instance, planted.x, planted.s - planted.y, goal=1e-10)
    assert point.steps == 0
    np.testing.assert_array_equal(point.x, planted.x)


def test_a_point_that_is_not_finite_is_returned_with_an_infinite_residual(planted):
    instance = Layout(planted.structure, True).instance(planted.data)
    point = polish(instance, np.full_like(planted.x, np.nan), planted.s - planted.y)
    assert point.steps == 0 and point.residuals.worst == np.inf
