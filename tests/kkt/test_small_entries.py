"""Entries of an entropic argmax far below the largest, with their derivatives, are right to their own size."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift

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
