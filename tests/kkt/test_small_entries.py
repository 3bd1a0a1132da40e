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


SLACK = {
    "one-norm": lambda z: cp.norm1(z) <= 2,
    "moduli": lambda z: cp.abs(z) <= 2,
    "largest": lambda z: cp.max(z) <= 1.5,
    "two largest": lambda z: cp.sum_largest(z, 2) <= 1.5,
}


@pytest.mark.parametrize("name", SLACK)
def test_slack_constraints_cost_small_entries_no_accuracy(name):
    c, z = cp.Parameter(4, name="c", value=np.array([0.0, -20.0, -25.0, -26.0])), cp.Variable(4, name="z")
    problem = cp.Problem(cp.Maximize(c @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1, SLACK[name](z)])
    s, right = cvxift.differentiate(problem), _softmax(c.value)
    np.testing.assert_allclose(s.value(z), right, rtol=1e-9, atol=0)
    np.testing.assert_allclose(s.jacobian(z, c), np.diag(right) - np.outer(right, right), rtol=1e-6, atol=0)


UTILITY = {  # of x, Σ x ≤ B, and to what the entries of the best x are in proportion
    "logarithm": (lambda w, x: w @ cp.log(x), lambda w: w),
    "reciprocal": (lambda w, x: -w @ cp.inv_pos(x), np.sqrt),
    "root": (lambda w, x: w @ cp.sqrt(x), np.square),
    "power": (lambda w, x: -w @ cp.power(x, -2, approx=False), np.cbrt),
}
WEIGHTS = np.array([0.2, 0.3, 0.5])


def utility(name: str, budget: float):
    x, b, (value, proportion) = cp.Variable(3, name="x"), cp.Parameter(name="b", value=budget), UTILITY[name]
    right = proportion(WEIGHTS) / proportion(WEIGHTS).sum()
    return cp.Problem(cp.Maximize(value(WEIGHTS, x)), [cp.sum(x) <= b]), x, b, right


def check_slope(problem, x, p, right, slope):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s = cvxift.differentiate(problem)
        assert np.abs(s.value(x) / right - 1.0).max() < 1e-6
        assert np.abs(s.jvp({p: 1.0})[x] / slope - 1.0).max() < 1e-6
        assert np.abs(s.jacobian(x, p) / slope - 1.0).max() < 1e-6


BUDGETS = [1.0, 1e2, 2e2, 1e4, 1e5, 1e6, 1e8]  # from where units are changed is between: LEAST_TURNED, MOST
SMALL = [
    (name, budget) for name in ("logarithm", "reciprocal", "power") for budget in (1e-8, 1e-6, 1e-4, 9e-4, 1.1e-3, 1e-2)
]


@pytest.mark.parametrize(("name", "budget"), [(name, budget) for name in UTILITY for budget in BUDGETS] + SMALL)
def test_budgets_in_any_unit(name, budget):
    problem, x, b, right = utility(name, budget)
    check_slope(problem, x, b, budget * right, right)


@pytest.mark.parametrize("price", [1e-8, 1e-6, 4e-5, 1e-4, 9e-4, 1.1e-3, 1.0, 1e3, 1e6, 1e8])
def test_logarithms_at_any_price(price):
    x, c, w = cp.Variable(3, name="x"), cp.Parameter(name="c", value=price), WEIGHTS
    problem = cp.Problem(cp.Minimize(c * cp.sum(x) - w @ cp.log(x)))
    check_slope(problem, x, c, w / price, -w / price**2)
    mapping, bar = SolutionMap(problem, [c], [x]), np.array([1.0, -0.4, 0.2])
    curved = float(mapping.derivative(mapping.solve(np.array([price])), (np.ones(1),), bar)[0])
    assert curved == pytest.approx(2.0 * bar @ w / price**3, rel=1e-4)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize(("budget", "lost"), [(1e-7, True), (1e-4, False), (1.0, False), (1e4, False), (1e7, True)])
def test_second_derivatives_are_told_where_reciprocals_leave_few_digits(budget, lost, copies):
    x, b, w = cp.Variable(3), cp.Parameter(pos=True), cp.Parameter(3, pos=True)
    mapping = SolutionMap(cp.Problem(cp.Minimize(w @ cp.inv_pos(x)), [cp.sum(x) <= b]), [b, w], [x])
    bar, along = np.array([1.0, -0.4, 0.2]), np.array([0.0, 0.1, -0.2, 0.3])
    root, total = np.sqrt(WEIGHTS), np.sqrt(WEIGHTS).sum()
    rate = along[1:] / (2.0 * root)
    moved = rate / total - root * rate.sum() / total**2  # x = B √w / Σ √w
    solved = mapping.solve(np.tile([budget, *WEIGHTS], (copies, 1)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = mapping.derivative(solved, (np.tile(along, (copies, 1)),), np.tile(bar, (copies, 1)))
    assert any("Second derivatives" in str(warning.message) for warning in caught) == lost
    if not lost:
        np.testing.assert_allclose(found[:, 0], bar @ moved, rtol=1e-5)


@pytest.mark.parametrize("name", UTILITY)
@pytest.mark.parametrize("copies", [0, 3])
def test_budgets_of_a_layer_in_any_unit(name, copies):
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    problem, x, b, right = utility(name, 1.0)
    budgets = torch.tensor(np.array([1e6, 1.0, 1e7])[: copies or 1], dtype=torch.float64).requires_grad_()
    given = budgets if copies else budgets[0]
    (y,) = CvxpyLayer(problem, [b], [x], check="raise")(given)
    np.testing.assert_allclose(y.detach().numpy(), right * given.detach().numpy()[..., None], rtol=1e-6)
    (y @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)).sum().backward()
    np.testing.assert_allclose(budgets.grad.numpy(), right @ [1.0, 2.0, 3.0], rtol=1e-6)


def test_budgets_of_a_jax_layer_in_any_unit():
    jax = pytest.importorskip("jax")
    from cvxift.jax import CvxpyLayer

    problem, x, b, right = utility("reciprocal", 1.0)
    with jax.enable_x64(True):
        layer = CvxpyLayer(problem, [b], [x], check="raise")
        slopes = jax.jacrev(lambda budgets: layer(budgets)[0].sum(axis=0))(jax.numpy.array([1e6, 1.0]))
    np.testing.assert_allclose(slopes, np.stack([right, right], axis=1), rtol=1e-6)
