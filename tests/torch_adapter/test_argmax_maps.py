"""Separable argmax maps and their losses on tensors: transforms, orders of derivatives, dtypes, masks, bad input."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.func import grad, hessian, jacfwd, jacrev, vmap  # noqa: E402

import cvxift  # noqa: E402
from cvxift import argmax  # noqa: E402
from cvxift import torch as ct  # noqa: E402
from cvxift.errors import ProgramError  # noqa: E402

MAPS: dict[str, Callable] = {
    "softmax": ct.softmax,
    "entmax13": lambda x: ct.entmax(x, 1.3),
    "entmax15": ct.entmax,
    "sparsemax": ct.sparsemax,
    "entmax25": lambda x: ct.entmax(x, 2.5),
    "budget": lambda x: ct.budget(x, 2.0, temperature=0.5),
    "csparsemax": lambda x: ct.constrained_sparsemax(x, 0.4),
    "csoftmax": lambda x: ct.constrained_softmax(x, 0.35),
    "box": ct.box,
    "clipped_box": lambda x: ct.box(x, -0.4, 0.6, regularizer="quadratic"),
}
OVER_SIMPLEX = ["softmax", "entmax13", "entmax15", "sparsemax", "entmax25", "csparsemax", "csoftmax"]


def scores(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.tensor(rng.standard_normal(shape))


@pytest.mark.parametrize("name", MAPS)
def test_derivatives_of_every_kind_and_order_agree(name: str, rng: np.random.Generator) -> None:
    function, x, w = MAPS[name], scores(rng, 2, 4), scores(rng, 4)
    given = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(function, (given,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, (given,), check_fwd_over_rev=True, atol=1e-4)

    def value(v: torch.Tensor) -> torch.Tensor:
        return (function(v) * w).sum().square()

    one = x[0]
    torch.testing.assert_close(jacrev(function)(one), jacfwd(function)(one))
    second = jacrev(jacrev(value))(one)
    for pair in ((jacfwd, jacfwd), (jacfwd, jacrev), (jacrev, jacfwd)):
        torch.testing.assert_close(pair[0](pair[1](value))(one), second)
    third = jacrev(jacrev(jacfwd(value)))(one)
    torch.testing.assert_close(jacfwd(jacfwd(jacfwd(value)))(one), third)
    torch.testing.assert_close(vmap(hessian(value))(x)[0], second)


@pytest.mark.parametrize("name", MAPS)
def test_mapped_calls_are_batched_calls(name: str, rng: np.random.Generator) -> None:
    function, x = MAPS[name], scores(rng, 3, 4, 5)
    z = function(x)
    torch.testing.assert_close(vmap(vmap(function))(x), z, atol=1e-15, rtol=0)
    torch.testing.assert_close(vmap(function, in_dims=1, out_dims=1)(x), z, atol=1e-15, rtol=0)


def test_bounds_and_orders_can_be_mapped(rng: np.random.Generator) -> None:
    x, upper = scores(rng, 3, 5), torch.tensor(rng.uniform(0.3, 0.8, (3, 5)))
    total, warmth = torch.tensor(rng.uniform(0.9, 1.2, 3)), torch.tensor(rng.uniform(0.5, 2, 3))
    alpha = torch.tensor([1.0, 1.5, 2.5], dtype=torch.float64)
    torch.testing.assert_close(
        vmap(lambda k, u: ct.budget(x[0], k, 0.0, u))(total, upper),
        torch.stack([ct.budget(x[0], k, 0.0, u) for k, u in zip(total, upper, strict=True)]),
    )
    torch.testing.assert_close(vmap(ct.constrained_softmax)(x, upper), ct.constrained_softmax(x, upper))
    torch.testing.assert_close(vmap(ct.entmax)(x, alpha), ct.entmax(x, alpha[:, None]))
    torch.testing.assert_close(
        vmap(lambda v, t: ct.entmax(v, temperature=t))(x, warmth), ct.entmax(x, temperature=warmth[:, None])
    )


@pytest.mark.parametrize("alpha", [1.0, 1.3, 2.0, 2.7])
def test_order_and_temperature_have_derivatives(alpha: float, rng: np.random.Generator) -> None:
    x = scores(rng, 2, 4).requires_grad_()
    warmth = torch.tensor([[0.7], [2.0]], dtype=torch.float64, requires_grad=True)
    orders = torch.tensor([[alpha], [alpha + 0.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, t: ct.entmax(v, alpha, temperature=t), (x, warmth), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda v, t: ct.entmax(v, alpha, temperature=t), (x, warmth), atol=1e-4)
    inner = (orders.detach() + 1e-2).requires_grad_()  # differences from 1 would leave the orders that there are
    assert torch.autograd.gradcheck(ct.entmax, (x, inner), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(ct.entmax, (x, inner), check_fwd_over_rev=True, atol=1e-4)
    row, w = x[0].detach(), scores(rng, 4)

    def value(a: torch.Tensor) -> torch.Tensor:
        return (ct.entmax(row, a) * w).sum()

    order = torch.tensor(alpha, dtype=torch.float64)
    torch.testing.assert_close(hessian(value)(order), jacfwd(jacfwd(value))(order))
    # From the right: there is nothing left of 1.
    ahead, here = grad(value)(order + 1e-6), grad(value)(order)
    torch.testing.assert_close(grad(grad(value))(order), (ahead - here) / 1e-6, atol=1e-4, rtol=1e-4)


def test_bounds_and_total_have_derivatives(rng: np.random.Generator) -> None:
    x = scores(rng, 2, 5).requires_grad_()
    upper = torch.tensor(rng.uniform(0.25, 0.6, (2, 5)), requires_grad=True)
    lower = torch.tensor(rng.uniform(-0.2, 0.05, (2, 5)), requires_grad=True)
    total = torch.tensor(rng.uniform(0.7, 1.1, (2, 1)), requires_grad=True)
    assert torch.autograd.gradcheck(ct.budget, (x, total, lower, upper), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(ct.budget, (x, total, lower, upper))
    assert torch.autograd.gradcheck(ct.constrained_softmax, (x, upper), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(ct.constrained_softmax, (x, upper))
    for regularizer in ("entropic", "quadratic"):
        assert torch.autograd.gradcheck(
            lambda v, low, high, r=regularizer: ct.box(v, low, high, regularizer=r), (x, lower, upper)
        )


@pytest.mark.parametrize("name", MAPS)
def test_masks_dims_and_dtypes(name: str, rng: np.random.Generator) -> None:
    function, x = MAPS[name], scores(rng, 4, 5, 3)
    if name in OVER_SIMPLEX:
        moved = x.movedim(1, -1)
        masked = moved.clone()
        masked[0, 0] = -torch.inf
        masked[1, 0, 1] = -torch.inf
        masked.requires_grad_()
        z = function(masked)
        assert (z[0, 0] == 0).all() and z[1, 0, 1] == 0
        torch.testing.assert_close(z.sum(-1).flatten()[1:], torch.ones(11, dtype=torch.float64))
        torch.testing.assert_close(vmap(function)(masked), z)
        (slope,) = torch.autograd.grad(z.square().sum(), masked, create_graph=True)
        (curve,) = torch.autograd.grad(slope.square().sum(), masked)
        assert torch.isfinite(slope).all() and torch.isfinite(curve).all()
    for dtype, tolerance in ((torch.float16, 1e-3), (torch.bfloat16, 8e-3), (torch.float32, 1.2e-7)):
        low = function(x.to(dtype).movedim(1, -1))
        assert low.dtype is dtype
        torch.testing.assert_close(low.double(), function(x.to(dtype).double().movedim(1, -1)), atol=tolerance, rtol=0)


def test_dim_is_the_dimension_of_the_rows(rng: np.random.Generator) -> None:
    x = scores(rng, 4, 5, 3)
    alpha, upper = torch.tensor(rng.uniform(1, 2.5, (4, 1, 3))), torch.tensor(rng.uniform(0.3, 0.9, (4, 5, 3)))
    total = torch.tensor(rng.uniform(0.9, 1.1, (4, 1, 3)))
    last = x.movedim(1, -1)

    def check(ours: torch.Tensor, theirs: torch.Tensor) -> None:
        torch.testing.assert_close(ours.movedim(1, -1), theirs, atol=1e-14, rtol=0)

    check(ct.softmax(x, 1), ct.softmax(last))
    check(ct.sparsemax(x, -2), ct.sparsemax(last))
    check(ct.entmax(x, alpha, 1), ct.entmax(last, alpha.movedim(1, -1)))
    check(ct.budget(x, total, 0.0, upper, 1), ct.budget(last, total.movedim(1, -1), 0.0, upper.movedim(1, -1)))
    check(ct.constrained_softmax(x, upper, 1), ct.constrained_softmax(last, upper.movedim(1, -1)))
    y = torch.softmax(x, 1)
    torch.testing.assert_close(
        ct.fenchel_young_loss(x, y, alpha, 1), ct.fenchel_young_loss(last, y.movedim(1, -1), alpha.movedim(1, -1))
    )


def test_empty_shapes() -> None:
    for function in MAPS.values():
        assert function(torch.zeros(0, 3)).shape == (0, 3)
    for name in OVER_SIMPLEX:
        assert MAPS[name](torch.zeros(2, 0)).shape == (2, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_temperature_does_not_overflow(dtype: torch.dtype) -> None:
    x = torch.tensor([3e30, 2e30, 3e30], dtype=dtype)
    for function in (ct.softmax, ct.sparsemax, ct.entmax):
        assert function(x, temperature=1e-20).tolist() == pytest.approx([0.5, 0, 0.5], abs=1e-15)


@pytest.mark.parametrize("name", ["softmax", "sparsemax", "csoftmax"])  # others: test_compile
def test_compiled_whole(name: str, rng: np.random.Generator) -> None:
    function, x = MAPS[name], scores(rng, 3, 40).requires_grad_()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    z, expected = compiled(x), function(x)
    torch.testing.assert_close(z, expected)
    ours, theirs = (torch.autograd.grad(v.square().sum(), x)[0] for v in (z, expected))
    torch.testing.assert_close(ours, theirs)


def test_losses_compile_with_a_trained_order(rng: np.random.Generator) -> None:
    x, y = scores(rng, 3, 5).requires_grad_(), torch.eye(5, dtype=torch.float64)[:3]
    alpha = torch.tensor(1.4, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(lambda v, a: ct.fenchel_young_loss(v, y, a).sum(), fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(
        torch.autograd.grad(compiled(x, alpha), (x, alpha)),
        torch.autograd.grad(ct.fenchel_young_loss(x, y, alpha).sum(), (x, alpha)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2, 3])
def test_losses(alpha: float, rng: np.random.Generator) -> None:
    x, y = scores(rng, 3, 5).requires_grad_(), torch.eye(5, dtype=torch.float64)[:3]
    loss = ct.fenchel_young_loss(x, y, alpha)
    (slope,) = torch.autograd.grad(loss.sum(), x)
    torch.testing.assert_close(slope, ct.entmax(x, alpha).detach() - y)
    order = torch.tensor(alpha + 0.05, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, a: ct.fenchel_young_loss(v, y, a), (x, order), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda v, a: ct.fenchel_young_loss(v, y, a), (x, order), atol=1e-4)
    torch.testing.assert_close(vmap(lambda v, t: ct.fenchel_young_loss(v, t, alpha))(x, y), loss)
    expected = cvxift.atoms.fenchel_young_loss(x.detach().numpy(), y.numpy(), alpha, axis=1).value
    np.testing.assert_allclose(loss.detach(), expected, atol=1e-10)
    huge = torch.tensor([[1e30, 0.0, -torch.inf]], dtype=torch.float64)
    hit, miss, forbidden = torch.eye(3, dtype=torch.float64)
    assert ct.fenchel_young_loss(huge, hit[None], alpha).item() == 0
    assert ct.fenchel_young_loss(huge, miss[None], alpha).item() == pytest.approx(1e30)
    assert ct.fenchel_young_loss(huge, forbidden[None], alpha).item() == np.inf


@pytest.mark.parametrize("alpha", [1.0, 1.3, 1.5, 2.0])
def test_targets_of_losses_are_distributions(alpha: float, rng: np.random.Generator) -> None:
    """Elsewhere the loss is +∞; a finite value would not have the gradient prediction − target."""
    x = scores(rng, 3, 5).requires_grad_()
    y = ct.softmax(scores(rng, 3, 5))
    off = {"sum": y * 1.01, "sign": y + torch.tensor([0.5, -0.5, 0.0, 0.0, 0.0]), "NaN": y.log() * 0 + torch.nan}
    ids = torch.arange(3).repeat_interleave(5)
    calls = (
        lambda v, w: ct.fenchel_young_loss(v, w, alpha),
        vmap(lambda v, w: ct.fenchel_young_loss(v, w, alpha)),
        lambda v, w: ct.fenchel_young_loss(v.flatten(), w.flatten(), alpha, segments=ids),
    )
    for wrong, call in itertools.product(off.values(), calls):
        with pytest.raises(ProgramError, match="no distributions"):
            call(x, wrong)
    for near in (y, y.bfloat16().double(), y * (1 + 1 / 256)):
        assert (ct.fenchel_young_loss(x, near, alpha) > 0).all()
    masked = torch.full((1, 3), -torch.inf, dtype=torch.float64)
    assert ct.fenchel_young_loss(masked, torch.zeros_like(masked), alpha).item() == 0
    with pytest.raises(ProgramError, match="masked"):
        ct.fenchel_young_loss(masked, torch.full_like(masked, 1 / 3), alpha)
    empty = x[:0]
    ct.fenchel_young_loss(empty, y[:0], alpha).sum().backward()
    jax = pytest.importorskip("jax")
    from cvxift import jax as cj

    given = jax.numpy.asarray(x.detach().numpy())
    for wrong in off.values():
        with pytest.raises(ProgramError, match="no distributions"):
            cj.fenchel_young_loss(given, wrong.numpy(), alpha)
        traced = jax.jit(jax.value_and_grad(lambda v, w: cj.fenchel_young_loss(v, w, alpha).sum()))
        for part in traced(given, wrong.numpy()):
            assert np.isnan(part).any()


def test_loss_of_any_map(rng: np.random.Generator) -> None:
    """Ω*(θ) + Ω(y) − ⟨θ, y⟩ ≥ 0, zero at the prediction, gradient prediction − target, Hessian the map's Jacobian."""
    regularizers = {
        "budget": lambda z: 0.25 * z.square().sum(-1),
        "csparsemax": lambda z: 0.5 * z.square().sum(-1),
        "csoftmax": lambda z: torch.special.xlogy(z, z).sum(-1),
        "box": lambda z: (torch.special.xlogy(z, z) + torch.special.xlogy(1 - z, 1 - z)).sum(-1),
    }
    for name, omega in regularizers.items():
        x, y = scores(rng, 3, 5).requires_grad_(), MAPS[name](scores(rng, 3, 5))

        def loss(theta: torch.Tensor, name=name, omega=omega, y=y) -> torch.Tensor:
            return ct.argmax_loss(theta, y, MAPS[name], omega)

        z = MAPS[name](x)
        assert (loss(x) >= 0).all()
        torch.testing.assert_close(ct.argmax_loss(x, z, MAPS[name], omega), torch.zeros(3, dtype=x.dtype))
        assert torch.autograd.gradcheck(loss, (x,))
        (slope,) = torch.autograd.grad(loss(x).sum(), x)
        torch.testing.assert_close(slope, z - y)
        one = hessian(lambda theta: loss(theta).sum())(x.detach())
        torch.testing.assert_close(one[0, :, 0], jacrev(MAPS[name])(x[0].detach()))


def test_loss_of_a_problem_through_its_layer(rng: np.random.Generator) -> None:
    theta, z = cp.Parameter((2, 3), name="theta"), cp.Variable((2, 3), name="z")
    problem = argmax.over([cp.sum(z) == 1, z >= 0, z[0] <= z[1]], theta, lambda v: 0.5 * cp.sum_squares(v), z)
    layer = ct.CvxpyLayer(problem, [theta], [z])
    x = scores(rng, 4, 2, 3).requires_grad_()
    target = layer(scores(rng, 4, 2, 3))[0]
    loss = ct.argmax_loss(x, target, lambda t: layer(t)[0], lambda v: 0.5 * v.square().sum((-2, -1)), dims=2)
    (slope,) = torch.autograd.grad(loss.sum(), x)
    torch.testing.assert_close(slope, layer(x)[0].detach() - target, atol=1e-9, rtol=0)
    for i in range(4):
        theta.value = x[i].detach().numpy()
        best = problem.solve(solver=cp.CLARABEL)
        z.value = target[i].numpy()
        assert loss[i].item() == pytest.approx(best - problem.objective.value, abs=1e-7)


NAN = torch.tensor([[0.0, 1.0], [0.0, torch.nan]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ct.entmax(torch.zeros(3), 0.5), "alpha = 0.5"),
        (lambda: ct.entmax(torch.zeros(3), torch.tensor(0.5)), "alpha = 0.5"),
        (lambda: ct.entmax(torch.zeros(3), float("inf")), "alpha = inf"),
        (lambda: ct.entmax(torch.zeros(2, 3), torch.ones(3)), "size 1 along dim"),
        (lambda: ct.entmax(torch.zeros(2, 3), torch.ones(5, 1)), "does not broadcast"),
        (lambda: ct.sparsemax(torch.zeros(3), temperature=-1.0), "temperature = -1.0"),
        (lambda: ct.softmax(torch.zeros(3), temperature=torch.tensor(0.0)), "temperature = 0"),
        (lambda: ct.softmax(torch.zeros(3), temperature=torch.ones(2)), "does not broadcast"),
        (lambda: ct.sparsemax(torch.zeros(3, dtype=torch.long)), "int64"),
        (lambda: ct.sparsemax([1.0, 2.0]), "list"),
        (lambda: ct.softmax(NAN), "NaN.*row 1"),
        (lambda: ct.sparsemax(NAN), "NaN.*row 1"),
        (lambda: ct.sparsemax(torch.stack([NAN, NAN])), r"row \(0, 1\)"),
        (lambda: vmap(ct.entmax)(NAN), "NaN.*row 1"),
        (lambda: ct.entmax(torch.tensor([0.0, torch.inf])), r"\+∞"),
        (lambda: ct.entmax(torch.zeros(3), dim=1), "dim = 1"),
        (lambda: ct.entmax(torch.tensor(1.0)), "dim = -1"),
        (lambda: ct.budget(NAN, 1.0), "NaN"),
        (lambda: ct.budget(torch.zeros(3), 4.0), "between 0 and 3, never to 4"),
        (lambda: ct.budget(torch.zeros(2, 3), torch.tensor([[1.0], [4.0]])), "row 1.*never to 4"),
        (lambda: ct.budget(torch.tensor([0.0, -torch.inf, -torch.inf]), 2.0), "between 0 and 1, never to 2"),
        (lambda: ct.budget(torch.zeros(3), 1.0, 0.5, 0.2), "lower must be"),
        (lambda: ct.budget(torch.zeros(3), torch.ones(2)), "total has shape"),
        (lambda: ct.budget(torch.zeros(3), upper=torch.ones(2)), "upper has shape"),
        (lambda: ct.constrained_softmax(torch.zeros(3), 0.2), "set is empty"),
        (lambda: ct.constrained_softmax(torch.zeros(3), -1.0), "lower must be"),
        (lambda: ct.box(torch.zeros(3), 1.0, 0.0), "lower at most upper"),
        (lambda: ct.box(torch.zeros(3), regularizer="none"), "regularizer = 'none'"),
        (lambda: ct.fenchel_young_loss(torch.zeros(3), torch.zeros(2)), "target has shape"),
        (lambda: ct.argmax_loss(torch.zeros(3), torch.zeros(3), lambda t: t[:2], torch.sum), "prediction returned"),
        (lambda: ct.argmax_loss(torch.zeros(2, 3), torch.zeros(2, 3), ct.softmax, torch.sum), "regularizer returned"),
        (lambda: ct.argmax_loss(torch.zeros(3), torch.zeros(3), ct.softmax, torch.sum, dims=2), "dims = 2"),
    ],
)
def test_bad_input_says_what_is_wrong(call, words: str) -> None:
    with pytest.raises(cvxift.ProgramError, match=words):
        call()
