"""Closed forms against their CVXPY problems differentiated by KKT, against differences, and at hard points."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift import argmax

torch = pytest.importorskip("torch")
from cvxift import torch as ct  # noqa: E402

POINTS = {
    "random": np.array([0.3, -1.2, 0.9, 0.55, -0.1]),
    "ties": np.array([0.7, 0.7, -0.2, 0.7, -3.0]),
    "tiny": 1e-6 * np.array([1.0, -2.0, 3.0, 0.5, 0.0]),
    "large": np.array([1000.3, 1000.0, 999.7, 998.0, 1000.1]),
    "one": np.array([0.4]),
}
CASES = {
    "softmax": (argmax.softmax, ct.softmax),
    "sparsemax": (argmax.sparsemax, ct.sparsemax),
    "entmax15": (argmax.entmax, ct.entmax),
    "entmax125": (lambda n: argmax.entmax(n, 1.25), lambda x: ct.entmax(x, 1.25)),
    "entmax3": (lambda n: argmax.entmax(n, 3.0), lambda x: ct.entmax(x, 3.0)),
    "budget": (lambda n: argmax.budget(n, 0.6 * n), lambda x: ct.budget(x, 0.6 * x.shape[-1])),
    "csparsemax": (
        lambda n: argmax.constrained_sparsemax(n, 1.2 if n == 1 else 0.4),
        lambda x: ct.constrained_sparsemax(x, 1.2 if x.shape[-1] == 1 else 0.4),
    ),
    "csoftmax": (
        lambda n: argmax.constrained_softmax(n, 1.2 if n == 1 else 0.4),
        lambda x: ct.constrained_softmax(x, 1.2 if x.shape[-1] == 1 else 0.4),
    ),
}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("case", CASES)
def test_value_and_jacobian_are_those_of_the_problem(case: str, point: str) -> None:
    build, closed = CASES[case]
    x = POINTS[point]
    problem = build(x.size)
    z, theta = argmax.variable(problem), argmax.parameter(problem)
    theta.value = x
    sensitivity = cvxift.differentiate(problem)
    scores = torch.tensor(x)
    np.testing.assert_allclose(closed(scores), sensitivity.value(z), atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(closed, scores)
    np.testing.assert_allclose(jacobian, sensitivity.jacobian(z, theta), atol=1e-8)


@pytest.mark.parametrize("alpha", [1.0, 1.001, 1.3, 1.5, 2.0, 2.7])
def test_derivatives_against_differences(alpha: float, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((3, 6)), requires_grad=True)
    order = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    temperature = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, t: ct.entmax(v, alpha, temperature=t), (x, temperature))
    assert torch.autograd.gradgradcheck(lambda v: ct.entmax(v, alpha), (x,), atol=1e-4)
    if alpha > 1:
        assert torch.autograd.gradcheck(lambda a: ct.entmax(x.detach(), a), (order,), atol=1e-5)
        tangent = torch.randn_like(x)
        _, forward = torch.func.jvp(lambda v: ct.entmax(v, alpha), (x.detach(),), (tangent,))
        _, reverse = torch.autograd.functional.jvp(lambda v: ct.entmax(v, alpha), x, tangent)
        torch.testing.assert_close(forward, reverse)


def test_the_order_derivative_is_continuous_at_one(rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal(6))
    grads = []
    for alpha in (1.0, 1 + 1e-7):
        order = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
        ct.entmax(x, order)[0].backward()
        grads.append(order.grad.item())
    step = 1e-4
    difference = (ct.entmax(x, 1 + step)[0] - ct.softmax(x)[0]) / step
    assert grads[0] == pytest.approx(grads[1], abs=1e-6) and grads[0] == pytest.approx(difference.item(), abs=1e-3)


def test_bounds_and_total_have_gradients(rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((4, 6)), requires_grad=True)
    upper = torch.tensor(rng.uniform(0.25, 0.6, (4, 6)), requires_grad=True)
    total = torch.tensor(rng.uniform(0.7, 1.1, (4, 1)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, u, t: ct.budget(v, t, 0.0, u), (x, upper, total))
    assert torch.autograd.gradcheck(ct.constrained_softmax, (x, upper))


@pytest.mark.parametrize("function", [ct.softmax, ct.sparsemax, ct.entmax])
def test_masks_dims_vmap_and_dtypes(function, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((4, 5, 3)))
    torch.testing.assert_close(function(x, dim=1), function(x.movedim(1, -1)).movedim(-1, 1))
    torch.testing.assert_close(torch.func.vmap(function)(x), function(x))
    x[0, 0] = -torch.inf
    x[1, 0, 1] = -torch.inf
    x.requires_grad_()
    z = function(x)
    torch.testing.assert_close(torch.func.vmap(function)(x), z)
    assert (z[0, 0] == 0).all() and z[1, 0, 1] == 0
    torch.testing.assert_close(z.sum(-1).flatten()[1:], torch.ones(19, dtype=torch.float64))
    z.square().sum().backward()
    assert torch.isfinite(x.grad).all()
    for dtype, tolerance in ((torch.float16, 1e-3), (torch.bfloat16, 8e-3), (torch.float32, 2e-6)):
        low = function(x.detach().to(dtype))
        assert low.dtype is dtype
        torch.testing.assert_close(
            low.double(), function(x.detach().to(dtype).double()), atol=tolerance, rtol=tolerance
        )


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_a_hundred_thousand_scores(alpha: float, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal(100_000) * 10)
    z = ct.entmax(x, alpha)
    assert z.sum().item() == pytest.approx(1, abs=1e-12)
    inside = z > 0
    tau = (alpha - 1) * x[inside] - z[inside] ** (alpha - 1)  # one threshold for the whole support
    assert (tau.max() - tau.min()).item() < 1e-12 * 100
    assert ((alpha - 1) * x[~inside] <= tau.mean() + 1e-12).all()


@pytest.mark.parametrize("alpha", [1, 1.5, 2])
def test_losses(alpha: float, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((3, 5)), requires_grad=True)
    y = torch.eye(5, dtype=torch.float64)[:3]
    loss = ct.fenchel_young_loss(x, y, alpha)
    (grad,) = torch.autograd.grad(loss.sum(), x)
    torch.testing.assert_close(grad, ct.entmax(x, alpha).detach() - y)
    assert torch.autograd.gradcheck(lambda v: ct.fenchel_young_loss(v, y, alpha), (x,))
    expected = cvxift.atoms.fenchel_young_loss(x.detach().numpy(), y.numpy(), alpha, axis=1).value
    np.testing.assert_allclose(loss.detach(), expected, atol=1e-10)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ct.entmax(torch.zeros(3), 0.5), "alpha = 0.5"),
        (lambda: ct.sparsemax(torch.zeros(3), temperature=-1.0), "temperature = -1.0"),
        (lambda: ct.sparsemax(torch.zeros(3, dtype=torch.long)), "int64"),
        (lambda: ct.softmax(torch.tensor([0.0, torch.nan])), "NaN"),
        (lambda: ct.sparsemax(torch.tensor([0.0, torch.nan])), "NaN"),
        (lambda: ct.entmax(torch.zeros(3), dim=1), "dim = 1"),
        (lambda: ct.budget(torch.zeros(3), 4.0), "never to 4"),
        (lambda: ct.constrained_softmax(torch.zeros(3), 0.2), "set is empty"),
        (lambda: argmax.budget(3, 4.0), "sums to 4.0"),
        (lambda: argmax.softmax(0), "n = 0"),
        (lambda: argmax.softmax(3, temperature=0.0), "temperature = 0.0"),
        (lambda: argmax.flow([(0, 1), (2, 1)], 0, 2), "No path"),
        (lambda: argmax.transport([1.0], [0.4, 0.4]), "equal totals"),
        (lambda: argmax.over([], cp.Parameter(2), cp.sum_squares, cp.Variable(3)), "theta has shape"),
    ],
)
def test_bad_input_says_what_is_wrong(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
