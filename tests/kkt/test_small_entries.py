"""Entries of an entropic argmax far below the largest, with their derivatives, are right to their own size."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift

SMALLEST = 1e-12  # entries below it are compared as if they were of this size
SMALLEST_SLOPE = 2e-11  # likewise their derivatives, which rounding in the factors of K leaves at 1e-17


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("options", [{}, {"solver": "scs"}, {"linear_solver": "iterative"}], ids=str)
@pytest.mark.parametrize("low", [-5.0, -20.0, -25.0, -44.0])
def test_small_entries(low, options, bounded):
    c = cp.Parameter(4, name="c", value=np.array([low, 1.0, -0.5, 0.5]))
    z, w = cp.Variable(4, name="z"), np.arange(4.0)
    constraints = [cp.sum(z) == 1, w @ z <= 5.0, *([z >= 0] if bounded else [])]
    problem = cp.Problem(cp.Maximize(c @ z + cp.sum(cp.entr(z))), constraints)
    s = cvxift.differentiate(problem, closed_form="never", **options)
    right = np.exp(c.value - c.value.max())
    right /= right.sum()
    assert np.abs((s.value(z) - right) / np.maximum(right, SMALLEST)).max() < 1e-6
    direction = np.array([0.3, -1.0, 2.0, 0.7])
    slope = right * (direction - right @ direction)
    found = s.jvp({c: direction})[z]
    assert np.abs((found - slope) / np.maximum(np.abs(slope), SMALLEST_SLOPE)).max() < 1e-6
    bar = np.array([1.0, -0.4, 0.2, 0.9])
    assert bar @ found == pytest.approx(s.vjp({z: bar})[c] @ direction, rel=1e-9)
