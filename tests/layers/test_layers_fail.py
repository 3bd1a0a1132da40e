"""One bad instance costs no other, in both frameworks, whatever the call is transformed by."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
from frameworks import Framework

from cvxift import ApplicabilityWarning, SolveError

POINTS, LOWER = np.zeros((3, 2)), np.array([0.1, 2.0, 0.5])  # the second has no solution


def test_raises_after_the_batch_and_carries_the_rest(framework: Framework) -> None:
    layer, given = framework.of("failing", check="off"), [framework.array(v) for v in (POINTS, LOWER)]
    for call in (layer, framework.vmap(layer)):
        with pytest.raises(SolveError, match=r"\(1,\).*infeasible") as caught:
            call(*given)
        error = caught.value
        assert error.status == "infeasible" and list(error.failures) == [(1,)]
        np.testing.assert_allclose(error.solutions[0][[0, 2]], [[0.05, 0.05], [0.25, 0.25]], atol=1e-9)
        assert np.isnan(error.solutions[0][1]).all()
    for wrap in framework.compiled:
        with pytest.raises(framework.raised, match=r"Instance \(1,\) of the batch.*infeasible"):
            wrap(layer)(*given)


def test_nan_and_zero_gradients_on_request(framework: Framework) -> None:
    given = [framework.array(v) for v in (POINTS, LOWER)]
    for wrap in (lambda f: f, *framework.compiled[:1]):
        layer = framework.of("failing", on_failure="nan", check="off")
        with pytest.warns(ApplicabilityWarning, match="infeasible"):
            (x,) = wrap(framework.vmap(layer))(*given)
        assert np.isnan(np.asarray(x)[1]).all() and np.isfinite(np.asarray(x)[[0, 2]]).all()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ApplicabilityWarning)
            mapped = framework.vmap(framework.grad(lambda c, lower, layer=layer: layer(c, lower)[0].sum(), (0, 1)))
            slopes = [np.asarray(part) for part in wrap(mapped)(*given)]
            curved = framework.vmap(framework.hessian(lambda c, lower, layer=layer: (layer(c, lower)[0] ** 2).sum(), 1))
            second = np.asarray(wrap(curved)(*given))
        np.testing.assert_allclose(slopes[0], 0.0, atol=1e-9)
        np.testing.assert_allclose(slopes[1], [1.0, 0.0, 1.0], atol=1e-9)
        np.testing.assert_allclose(second, [1.0, 0.0, 1.0], atol=1e-9)  # of lower²/2


def test_unbounded(framework: Framework) -> None:
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = framework.layer(cp.Problem(cp.Minimize(c @ x), [x >= 0]), [c], [x])
    with pytest.raises(SolveError, match="unbounded"):
        layer(framework.array([-1.0, 1.0]))


def test_a_geometric_program_carries_values_and_no_logarithms(framework: Framework) -> None:
    x, lower = cp.Variable(pos=True), cp.Parameter(pos=True)
    constraints = [x >= lower, x <= 3]
    problem = cp.Problem(cp.Minimize(x), constraints)
    layer = framework.layer(problem, [lower], [x, constraints[0].dual_variables[0]], gp=True)
    with pytest.raises(SolveError, match="infeasible") as caught:
        layer(framework.array([2.0, 4.0]))
    np.testing.assert_allclose(caught.value.solutions, [[2.0, np.nan], [1.0, np.nan]], atol=1e-9)
