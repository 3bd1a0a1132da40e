"""A cotangent that is not finite gives NaN on every path, in its own instance alone."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from cvxift.argmax.closed_form.closed_map import ClosedMap

SCORES = np.array([[0.3, -0.2, 0.9, 0.1], [1.0, 0.0, -1.0, 0.5]])
PROBLEMS = ("softmax", "sparsemax", "capped", "box", "unrecognized")


def problem(kind: str) -> tuple[cp.Problem, cp.Variable, cp.Parameter]:
    z, c = cp.Variable(4, name="z"), cp.Parameter(4, name="c")
    near, simplex = 0.5 * cp.sum_squares(z - c), [cp.sum(z) == 1, z >= 0]
    objective = cp.Maximize(c @ z + cp.sum(cp.entr(z))) if kind == "softmax" else cp.Minimize(near)
    constraints = {
        "softmax": [cp.sum(z) == 1],
        "sparsemax": simplex,
        "capped": [*simplex, z <= 0.6],
        "box": [z >= 0, z <= 1],
        "unrecognized": [np.array([1.0, 2.0, 3.0, -1.0]) @ z <= 1, z >= -1],
    }
    return cp.Problem(objective, constraints[kind]), z, c


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("closed_form", ["auto", "never"])
@pytest.mark.parametrize("kind", PROBLEMS)
def test_products_with_vectors_that_are_not_finite(kind, closed_form, bad):
    stated, z, c = problem(kind)
    mapping = ClosedMap(stated, [c], [z], closed_form=closed_form, check="off")
    solved, one = mapping.solve(SCORES), mapping.solve(SCORES[0])
    vector = np.zeros((2, 4))
    vector[0, 1], vector[1] = bad, [1.0, 0.0, 0.5, 0.0]
    fine = np.where(np.isfinite(vector), vector, 0.0)
    for product in (mapping.vjp, mapping.jvp):
        found = product(solved, vector)
        assert np.isnan(found[0]).all()
        np.testing.assert_array_equal(found[1], product(solved, fine)[1])
        assert np.isnan(product(one, vector[0])).all()
        assert np.isnan(product(solved, np.stack([fine, vector]))[1, 0]).all()
        assert np.isfinite(product(solved, np.stack([fine, vector]))[0]).all()
