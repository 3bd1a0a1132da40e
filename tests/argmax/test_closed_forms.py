"""Closed forms against their CVXPY problems solved and differentiated by KKT, at random points, ties, tiny and huge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift import argmax
from cvxift.atoms import neg_entropy

torch = pytest.importorskip("torch")
from cvxift import torch as ct  # noqa: E402

POINTS = {
    "random": np.array([0.3, -1.2, 0.9, 0.55, -0.1]),
    "ties": np.array([0.7, 0.7, -0.2, 0.7, -3.0]),
    "tiny": 1e-6 * np.array([1.0, -2.0, 3.0, 0.5, 0.0]),
    "large": np.array([1000.3, 1000.0, 999.7, 998.0, 1000.1]),
    "one": np.array([0.4]),
}


def clipped_box(n: int) -> cp.Problem:
    z, theta = cp.Variable(n, name="z"), cp.Parameter(n, name="theta")
    return argmax.over([z >= -0.5, z <= 0.8], theta, lambda v: 0.5 * cp.sum_squares(v), z)


def wide_box(n: int) -> cp.Problem:
    z, theta = cp.Variable(n, name="z"), cp.Parameter(n, name="theta")
    return argmax.over([], theta, lambda v: neg_entropy(v + 0.5) + neg_entropy(2.0 - v), z)


def cap(n: int) -> float:
    return 1.2 if n == 1 else 0.4


CASES: dict[str, tuple[Callable[[int], cp.Problem], Callable[[Any], Any]]] = {
    "softmax": (argmax.softmax, ct.softmax),
    "sparsemax": (argmax.sparsemax, ct.sparsemax),
    "entmax15": (argmax.entmax, ct.entmax),
    "entmax125": (lambda n: argmax.entmax(n, 1.25), lambda x: ct.entmax(x, 1.25)),
    "entmax3": (lambda n: argmax.entmax(n, 3.0), lambda x: ct.entmax(x, 3.0)),
    "warm": (lambda n: argmax.entmax(n, 1.5, 2.5), lambda x: ct.entmax(x, 1.5, temperature=2.5)),
    "budget": (lambda n: argmax.budget(n, 0.6 * n), lambda x: ct.budget(x, 0.6 * x.shape[-1])),
    "signed_budget": (
        lambda n: argmax.budget(n, 0.2 * n, lower=-0.3, upper=0.9, temperature=0.5),
        lambda x: ct.budget(x, 0.2 * x.shape[-1], -0.3, 0.9, temperature=0.5),
    ),
    "csparsemax": (
        lambda n: argmax.constrained_sparsemax(n, cap(n)),
        lambda x: ct.constrained_sparsemax(x, cap(x.shape[-1])),
    ),
    "csoftmax": (
        lambda n: argmax.constrained_softmax(n, cap(n), 0.7),
        lambda x: ct.constrained_softmax(x, cap(x.shape[-1]), temperature=0.7),
    ),
    "box": (argmax.box, ct.box),
    "wide_box": (wide_box, lambda x: ct.box(x, -0.5, 2.0)),
    "clipped_box": (clipped_box, lambda x: ct.box(x, -0.5, 0.8, regularizer="quadratic")),
}
BOXES = ("box", "wide_box")


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("case", CASES)
def test_value_and_jacobian_are_those_of_the_problem(case: str, point: str) -> None:
    if case in BOXES and point == "large":
        pytest.skip("the solution is on the boundary of the entropy's domain, to rounding")
    build, closed = CASES[case]
    x = POINTS[point]
    problem = build(x.size)
    z, theta = argmax.variable(problem), argmax.parameter(problem)
    theta.value = x
    sensitivity = cvxift.differentiate(problem, closed_form="never")
    scores = torch.tensor(x)
    np.testing.assert_allclose(closed(scores), sensitivity.value(z), atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(closed, scores)
    np.testing.assert_allclose(jacobian, sensitivity.jacobian(z, theta), atol=1e-8)


def test_bounds_total_and_temperature_are_differentiated_like_the_problem(rng: np.random.Generator) -> None:
    n = 6
    total, temperature = cp.Parameter(name="total"), cp.Parameter(nonneg=True, name="temperature")
    lower, upper = cp.Parameter(n, name="lower"), cp.Parameter(n, name="upper")
    problem = argmax.budget(n, total, lower=lower, upper=upper, temperature=temperature)
    z, theta = argmax.variable(problem), argmax.parameter(problem)
    # Two entries between their bounds, two at lower ones and two at upper ones, well inside each case.
    theta.value = np.array([0.3, 0.25, -2.0, -1.5, 3.0, 2.0]) + 0.01 * rng.standard_normal(n)
    lower.value, upper.value = np.full(n, -0.1), np.array([0.9, 0.8, 0.7, 0.9, 0.6, 0.5])
    total.value, temperature.value = 1.8, 0.7
    sensitivity = cvxift.differentiate(problem, closed_form="never")
    names = [theta, total, lower, upper, temperature]
    values = [torch.tensor(p.value, dtype=torch.float64) for p in names]
    calls = torch.func.jacrev(
        lambda x, k, low, high, t: ct.budget(x, k, low, high, temperature=t), argnums=(0, 1, 2, 3, 4)
    )(*values)
    for parameter, jacobian in zip(names, calls, strict=True):
        np.testing.assert_allclose(jacobian, sensitivity.jacobian(z, parameter), atol=1e-8)

    problem = argmax.constrained_softmax(n, upper, temperature)
    z, theta = argmax.variable(problem), argmax.parameter(problem)
    theta.value = rng.standard_normal(n)
    upper.value = np.array([0.3, 0.3, 0.25, 0.3, 0.3, 0.3])
    sensitivity = cvxift.differentiate(problem, closed_form="never")
    names = [theta, upper, temperature]
    values = [torch.tensor(p.value, dtype=torch.float64) for p in names]
    calls = torch.func.jacrev(lambda x, high, t: ct.constrained_softmax(x, high, temperature=t), argnums=(0, 1, 2))(
        *values
    )
    assert (sensitivity.value(z) > upper.value - 1e-9).any()
    for parameter, jacobian in zip(names, calls, strict=True):
        np.testing.assert_allclose(jacobian, sensitivity.jacobian(z, parameter), atol=1e-8)


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0])
def test_directions_at_ties(alpha: float, rng: np.random.Generator) -> None:
    """At equal scores the map is smooth; at the threshold itself, its derivative is that towards leaving."""
    tied = torch.tensor([0.7, 0.7, -0.2, 0.7, -9.0], dtype=torch.float64)
    step, direction = 1e-6, torch.tensor(rng.standard_normal(5))
    ahead, behind = (ct.entmax(tied + sign * step * direction, alpha) for sign in (1, -1))
    _, tangent = torch.func.jvp(lambda v: ct.entmax(v, alpha), (tied,), (direction,))
    torch.testing.assert_close(tangent, (ahead - behind) / (2 * step), atol=1e-6, rtol=0)

    edge = 0.7 - ct.entmax(tied[[0, 1, 3]], alpha)[0] ** (alpha - 1) / (alpha - 1)
    kink = torch.tensor([0.7, 0.7, float(edge), 0.7, -9.0], dtype=torch.float64)
    leaving = torch.tensor([0.3, -0.2, -1.0, 0.4, 0.1], dtype=torch.float64)
    _, tangent = torch.func.jvp(lambda v: ct.entmax(v, alpha), (kink,), (leaving,))
    one_sided = (ct.entmax(kink + step * leaving, alpha) - ct.entmax(kink, alpha)) / step
    torch.testing.assert_close(tangent, one_sided, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: argmax.budget(3, 4.0), "sums to 4.0"),
        (lambda: argmax.softmax(0), "n = 0"),
        (lambda: argmax.softmax(3, temperature=0.0), "temperature = 0.0"),
        (lambda: argmax.flow([(0, 1), (2, 1)], 0, 2), "No path"),
        (lambda: argmax.transport([1.0], [0.4, 0.4]), "equal totals"),
        (lambda: argmax.over([], cp.Parameter(2), cp.sum_squares, cp.Variable(3)), "theta has shape"),
    ],
)
def test_problems_refuse_what_cannot_be(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(("alpha", "n"), [(3.0, 31), (3.0, 32), (4.0, 1000), (10.0, 100), (50.0, 3)])
def test_equal_scores_share_alike_at_any_order(alpha: float, n: int) -> None:
    """Their threshold's distance from the scores is n^{1−α}: far below rounding, or just above what is taken for it."""
    jax = pytest.importorskip("jax")
    from cvxift import jax as cj

    x = np.array([*np.zeros(n), -1.0])
    expected = np.array([*np.full(n, 1 / n), 0.0])
    order, ids = torch.tensor(alpha, dtype=torch.float64), torch.zeros(n + 1, dtype=torch.long)
    found = [ct.entmax(torch.tensor(x), alpha), ct.entmax(torch.tensor(x), order)]
    found += [ct.entmax(torch.tensor(x), alpha, segments=ids), ct.entmax(torch.tensor(x), order, segments=ids)]
    with jax.enable_x64(True):
        found += [np.asarray(jax.jit(lambda x: cj.entmax(x, alpha))(jax.numpy.asarray(x)))]
    for z in found:
        np.testing.assert_allclose(np.asarray(z), expected, rtol=1e-12)
