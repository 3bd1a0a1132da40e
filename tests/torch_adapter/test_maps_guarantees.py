"""What every closed form on tensors keeps: graphs of empty batches, mapped cotangents, losses ≥ 0, allowed paths."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from cvxift import torch as ct  # noqa: E402
from tests.torch_adapter.map_cases import cases  # noqa: E402

INFINITE = float("inf")


@pytest.mark.parametrize("name", cases())
def test_cotangents_can_be_mapped(name: str) -> None:
    function, inputs = cases()[name]
    given = [v.clone().requires_grad_() for v in inputs]
    z = function(*given)
    bars = torch.randn(3, *z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(0))
    mapped = torch.autograd.grad(z, given, bars, is_grads_batched=True, retain_graph=True)
    for k, bar in enumerate(bars):
        for ours, theirs in zip(mapped, torch.autograd.grad(z, given, bar, retain_graph=True), strict=True):
            torch.testing.assert_close(ours[k], theirs, atol=1e-13, rtol=1e-12)
    (rows, *_) = torch.autograd.functional.jacobian(function, tuple(given), vectorize=True)
    (plain, *_) = torch.autograd.functional.jacobian(function, tuple(given))
    torch.testing.assert_close(rows, plain, atol=1e-13, rtol=1e-12)


@pytest.mark.parametrize("name", cases())
def test_recorded_operations_hold_no_constants(name: str) -> None:
    """A graph recorded of ordinary tensors, by `torch.fx` or `torch.jit`, is that of the map, its gradient likewise."""
    function, inputs = cases()[name]
    other = tuple(v.flip(0) for v in inputs)

    def value(*given: torch.Tensor) -> torch.Tensor:
        return function(*given)

    def slope(*given: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda *moved: (function(*moved) ** 2).sum())(*given)

    for part in (value, slope):
        torch.testing.assert_close(make_fx(part)(*inputs)(*other), part(*other), atol=1e-12, rtol=1e-12)
    traced = torch.jit.trace(value, inputs, check_trace=False)
    torch.testing.assert_close(traced(*other), value(*other), atol=1e-12, rtol=1e-12)
    tangents = tuple(0.1 * torch.ones_like(v) for v in inputs)
    _, push = torch.func.linearize(value, *inputs)
    torch.testing.assert_close(push(*tangents), torch.func.jvp(value, inputs, tangents)[1], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", cases())
def test_results_can_be_changed_in_place(name: str) -> None:
    """As those of `torch.softmax`: autograd has the change, or says that it needs what was there before."""
    function, inputs = cases()[name]
    given = [v.clone().requires_grad_() for v in inputs]
    expected = torch.autograd.grad(function(*given).sum(), given)
    z = function(*given)
    z.mul_(2.0)  # refused for views
    try:
        found = torch.autograd.grad(z.sum(), given)
    except RuntimeError as refused:
        message = str(refused)
    else:
        message = "modified by an inplace operation"
        torch.testing.assert_close(found, tuple(2.0 * part for part in expected), atol=1e-12, rtol=1e-12)
    assert "modified by an inplace operation" in message


@pytest.mark.parametrize(
    "function",
    [
        ct.softmax,
        ct.sparsemax,
        ct.entmax,
        partial(ct.entmax, alpha=2.5),
        ct.budget,
        partial(ct.constrained_softmax, upper=0.7),
        partial(ct.constrained_sparsemax, upper=0.7),
        ct.box,
        ct.soft_rank,
        ct.soft_sort,
        lambda x: ct.rank_loss(x, torch.zeros_like(x)),
        lambda x: ct.fenchel_young_loss(x, torch.zeros_like(x)),
        lambda x: ct.fenchel_young_loss(x, torch.zeros_like(x), 2.5),
        lambda x: ct.transport(x.reshape(0, 1, 5)),
        lambda x: ct.transport(x.reshape(0, 1, 5), regularizer="quadratic"),
        lambda x: ct.transport_loss(x.reshape(0, 1, 5), torch.zeros(0, 1, 5)),
        lambda x: ct.linear_chain(x.reshape(0, 1, 5), torch.zeros(5, 5))[0],
        lambda x: ct.linear_chain(x.reshape(0, 1, 5), torch.zeros(5, 5), log_partition=True),
        lambda x: ct.linear_chain_loss(x.reshape(0, 1, 5), torch.zeros(5, 5), torch.zeros(0, 1, dtype=torch.long)),
    ],
)
def test_empty_batches_keep_the_graph(function) -> None:
    weight = torch.ones(5, 3, requires_grad=True)
    z = function(torch.zeros(0, 3) @ weight.T)
    assert z.shape[0] == 0 and z.requires_grad
    z.sum().backward()
    assert weight.grad is not None and (weight.grad == 0).all()


@pytest.mark.parametrize("where", ["transitions", "a position"])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_chain_without_a_path(where: str, mapped: bool) -> None:
    u, e = torch.zeros(2, 3, 2), torch.zeros(2, 2, 2, 2)
    if where == "transitions":
        e[0] = -INFINITE
    else:
        u[0, 1] = -INFINITE
    target = torch.tensor([[0, 1, 0], [0, 1, 0]])
    call = (lambda f, *given: torch.vmap(f)(*given)) if mapped else (lambda f, *given: f(*given))
    path, score = call(ct.viterbi, u, e)
    assert path[0].tolist() == [-1, -1, -1] and score.tolist() == [-INFINITE, 0.0]
    assert path[1].tolist() == [0, 0, 0]
    log_z = call(lambda u, e: ct.linear_chain(u, e, log_partition=True), u, e)
    assert log_z[0] == -INFINITE and log_z[1].item() == pytest.approx(3 * np.log(2))
    states, pairs = call(ct.linear_chain, u, e)
    assert (states[0] == 0).all() and (pairs[0] == 0).all()
    loss = call(ct.linear_chain_loss, u, e, target)
    assert loss[0] == INFINITE and loss[1].item() == pytest.approx(3 * np.log(2))


def test_losses_in_single_precision_are_right_and_not_negative(rng: np.random.Generator) -> None:
    """Scores of size 1000 and targets next to the predictions: what is left is far below the terms' rounding."""
    for size in (1.0, 1e3):
        x = torch.tensor(size * rng.standard_normal((40, 16, 12)), dtype=torch.float32)
        near = x + size * 1e-4 * torch.tensor(rng.standard_normal(x.shape), dtype=torch.float32)
        forms = {
            "rank": (ct.rank_loss, ct.soft_rank(near)),
            "softmax": (partial(ct.fenchel_young_loss, alpha=1), ct.softmax(near)),
            "1.5": (ct.fenchel_young_loss, ct.entmax(near)),
            "sparsemax": (partial(ct.fenchel_young_loss, alpha=2), ct.sparsemax(near)),
            "2.5": (partial(ct.fenchel_young_loss, alpha=2.5), ct.entmax(near, 2.5)),
        }
        plan = torch.stack([x[:3, :12], near[:3, :12]]) / size
        pairs = [(name, form(x, y), form(x.double(), y.double())) for name, (form, y) in forms.items()]
        for regularizer in ("entropic", "quadratic"):
            y = ct.transport(plan[1], regularizer=regularizer)
            form = partial(ct.transport_loss, regularizer=regularizer)
            pairs.append((regularizer, form(plan[0], y), form(plan[0].double(), y.double())))
        for name, loss, exact in pairs:
            assert (loss >= 0).all(), name
            assert ((loss - exact).abs() <= 2e-6 + 1e-5 * exact.abs()).all(), (name, size, (loss - exact).abs().max())


@pytest.mark.parametrize("temperature", [1.0, 1e-3])
def test_chain_losses_in_single_precision(temperature: float, rng: np.random.Generator) -> None:
    """The best path of a long chain with large scores: its loss is small, its score and log Z are not."""
    u = torch.tensor(100 * rng.standard_normal((5, 200, 4)), dtype=torch.float32)
    for e in (
        torch.tensor(rng.standard_normal((4, 4))).float(),
        torch.tensor(rng.standard_normal((5, 199, 4, 4))).float(),
    ):
        target = ct.viterbi(u, e)[0]
        loss = ct.linear_chain_loss(u, e, target, temperature=temperature)
        exact = ct.linear_chain_loss(u.double(), e.double(), target, temperature=temperature)
        assert (loss >= 0).all()
        torch.testing.assert_close(loss.double(), exact, atol=1e-4 * temperature, rtol=1e-5)


@pytest.mark.parametrize("infinite", [INFINITE, -INFINITE, float("nan")])
def test_what_does_not_move_takes_no_notice_of_its_cotangent(infinite: float) -> None:
    """As on the generic path: 0 outside the support, whatever the cotangent there; nothing finite if it is inside."""
    for function in (ct.sparsemax, ct.entmax, partial(ct.entmax, alpha=1.7), lambda v: ct.budget(v, 1.0)):
        x = torch.tensor([0.3, -1.2, 0.5, -torch.inf], dtype=torch.float64, requires_grad=True)
        z = function(x)
        assert z[1] == 0 and z[3] == 0
        bar = torch.tensor([1.0, infinite, 2.0, infinite], dtype=torch.float64)
        for graph in (False, True):
            (slope,) = torch.autograd.grad(z, x, bar, retain_graph=True, create_graph=graph)
            finite = torch.where(bar.isfinite(), bar, 0.0)
            torch.testing.assert_close(slope, torch.autograd.grad(z, x, finite, retain_graph=True)[0])
    plan = torch.eye(2, dtype=torch.float64, requires_grad=True)
    z = ct.transport(plan, regularizer="quadratic")
    bar = torch.tensor([[1.0, infinite], [infinite, 3.0]], dtype=torch.float64)
    assert torch.autograd.grad(z, plan, bar)[0].isfinite().all()
