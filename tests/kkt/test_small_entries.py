"""Entries of an entropic argmax far below the largest, with their derivatives, are right to their own size."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.kkt.solution_map import SolutionMap

SMALLEST = 1e-12  # entries below it are compared as if they were of this size
SMALLEST_SLOPE = 2e-11  # likewise their derivatives by iterations; factorizations give each to its own size


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
    smallest = SMALLEST_SLOPE if "linear_solver" in options else 0.0
    assert np.abs((found - slope) / np.maximum(np.abs(slope), smallest)).max() < 1e-6
    bar = np.array([1.0, -0.4, 0.2, 0.9])
    assert bar @ found == pytest.approx(s.vjp({z: bar})[c] @ direction, rel=1e-9)


def _softmax(c):
    weights = np.exp(c - c.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def test_small_entries_of_a_sparse_system():
    rng, n = np.random.default_rng(0), 150
    c, z = cp.Parameter(n, name="c", value=rng.standard_normal(n)), cp.Variable(n, name="z")
    c.value[:10] -= 22.0
    s = cvxift.differentiate(cp.Problem(cp.Maximize(c @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1]), closed_form="never")
    right, direction = _softmax(c.value), rng.standard_normal(n)
    np.testing.assert_allclose(s.value(z), right, rtol=1e-9, atol=0)
    np.testing.assert_allclose(s.jvp({c: direction})[z], right * (direction - right @ direction), rtol=1e-9, atol=0)
    first = np.eye(n)[0]  # its largest entries: the others are products of two small ones
    np.testing.assert_allclose(s.vjp({z: first})[c][[0, -1]], right[0] * (first - right)[[0, -1]], rtol=1e-9, atol=0)


def test_small_entries_of_a_batch():
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    c, z = cp.Parameter(4, name="c"), cp.Variable(4, name="z")
    layer = CvxpyLayer(
        cp.Problem(cp.Maximize(c @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1]), [c], [z], closed_form="never"
    )
    scores = np.random.default_rng(0).standard_normal((5, 4))
    scores[:, 0] = [-20.0, -25.0, -26.0, -27.0, -28.0]
    inputs = torch.tensor(scores, requires_grad=True)
    (out,) = layer(inputs)
    (gradient,) = torch.autograd.grad(out[:, 0].sum(), inputs)
    right = _softmax(scores)
    np.testing.assert_allclose(out.detach().numpy(), right, rtol=1e-9, atol=0)
    np.testing.assert_allclose(gradient.numpy(), right[:, :1] * (np.eye(4)[0] - right), rtol=1e-9, atol=0)


def log_utility(budget: float, weights: np.ndarray, price: bool):
    """x = w B maximizes w log x, Σ x ≤ B; or x = w/c for the price c = 1/B."""
    x, p = cp.Variable(len(weights), name="x"), cp.Parameter(name="p", value=1.0 / budget if price else budget)
    cost = -weights @ cp.log(x) + (p * cp.sum(x) if price else 0.0)
    slope = -weights * budget**2 if price else weights
    return cp.Problem(cp.Minimize(cost), [] if price else [cp.sum(x) <= p]), x, p, weights * budget, slope


@pytest.mark.parametrize("price", [False, True])
@pytest.mark.parametrize("budget", [1e-8, 1e-6, 1e-4, 1.0, 1e4, 2e4, 1e5, 1e6, 1e8])  # LEAST_SHEARED is between
def test_logarithms_of_large_and_small_numbers(budget, price):
    problem, x, p, right, slope = log_utility(budget, np.array([0.2, 0.3, 0.5]), price)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s = cvxift.differentiate(problem)
        assert np.abs(s.value(x) / right - 1.0).max() < 1e-6
        assert np.abs(s.jvp({p: 1.0})[x] / slope - 1.0).max() < 1e-6
        assert np.abs(s.jacobian(x, p) / slope - 1.0).max() < 1e-6
    bar = np.array([1.0, -0.4, 0.2])
    mapping = SolutionMap(problem, [p], [x])
    curved = float(mapping.second(mapping.solve(np.array([p.value])), bar, np.ones(1))[0])
    expected = 2.0 * bar @ right * budget**2 if price else 0.0
    assert abs(curved - expected) <= 1e-4 * max(abs(expected), np.abs(slope).max() / budget)


@pytest.mark.parametrize("copies", [0, 3])
def test_logarithms_of_large_numbers_in_a_layer(copies):
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    weights = np.array([0.2, 0.3, 0.5])
    problem, x, p, _, _ = log_utility(1.0, weights, False)
    budgets = torch.tensor(np.array([1e6, 1.0, 1e7])[: copies or 1], dtype=torch.float64).requires_grad_()
    given = budgets if copies else budgets[0]
    (y,) = CvxpyLayer(problem, [p], [x], check="raise")(given)
    np.testing.assert_allclose(y.detach().numpy(), weights * given.detach().numpy()[..., None], rtol=1e-6)
    (y @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)).sum().backward()
    np.testing.assert_allclose(budgets.grad.numpy(), weights @ [1.0, 2.0, 3.0], rtol=1e-6)
