"""Every closed form as a function of its inputs, for comparing devices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from cvxift import torch as ct

Tensor = torch.Tensor
Case = tuple[Callable[..., Tensor], tuple[Tensor, ...]]


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")


def _chain(unary: Tensor, pairwise: Tensor, **options: Tensor) -> Tensor:
    nodes, edges = ct.linear_chain(unary, pairwise, **options)
    return torch.cat([nodes.flatten(), edges.flatten()])


def cases() -> dict[str, Case]:
    """By name, a map and its inputs: floating tensors on the CPU, each of them differentiable."""
    x, plan = _normal(0, 3, 7), _normal(1, 2, 4, 5)
    masked = x.clone()
    masked[0, :2], masked[1] = -torch.inf, -torch.inf
    a, b = _normal(2, 2, 4).softmax(-1), _normal(3, 2, 5).softmax(-1)
    order = torch.full((3, 1), 1.7, dtype=torch.float64, device="cpu")
    upper = 0.3 + 0.1 * _normal(4, 3, 7).sigmoid()
    total = torch.full((3, 1), 2.0, dtype=torch.float64, device="cpu")
    unary, pairwise = _normal(5, 2, 4, 3), _normal(6, 2, 3, 3, 3)
    target, labels = x.flip(-1).softmax(-1), torch.tensor([[0, 2, 1, 1], [2, 2, 0, 1]], device="cpu")
    ranks = torch.arange(1.0, 8.0, dtype=torch.float64, device="cpu").expand(3, 7)

    def chain_loss(unary: Tensor, pairwise: Tensor) -> Tensor:
        return ct.linear_chain_loss(unary, pairwise, labels.to(unary.device))

    return {
        "softmax": (partial(ct.softmax, temperature=0.7), (x,)),
        "softmax, masked": (ct.softmax, (masked,)),
        "sparsemax": (ct.sparsemax, (x,)),
        "1.5-entmax": (ct.entmax, (x,)),
        "entmax of an order": (lambda x, order: ct.entmax(x, order), (x, order)),
        "constrained softmax": (ct.constrained_softmax, (x, upper)),
        "constrained sparsemax": (ct.constrained_sparsemax, (x, upper)),
        "budget": (ct.budget, (x, total)),
        "box": (partial(ct.box, regularizer="entropic"), (x,)),
        "Fenchel-Young loss": (lambda x: ct.fenchel_young_loss(x, target.to(x), 1.5), (x,)),
        "argmax loss": (
            lambda x: ct.argmax_loss(x, target.to(x), ct.sparsemax, lambda z: 0.5 * z.square().sum(-1)),
            (x,),
        ),
        "entropic transport": (ct.transport, (plan, a, b)),
        "quadratic transport": (partial(ct.transport, regularizer="quadratic"), (plan, a, b)),
        "birkhoff": (partial(ct.birkhoff, temperature=0.5), (plan[..., :4],)),
        "transport loss": (lambda t: ct.transport_loss(t, ct.transport(0.3 * t.detach())), (plan,)),
        "soft rank": (ct.soft_rank, (x,)),
        "soft sort": (partial(ct.soft_sort, regularizer="entropic"), (x,)),
        "rank loss": (lambda x: ct.rank_loss(x, ranks.to(x), 2.0), (x,)),
        "linear chain": (_chain, (unary, pairwise)),
        "linear chain of lengths": (
            lambda u, p: _chain(u, p, lengths=torch.tensor([4, 2], device=u.device)),
            (unary, pairwise),
        ),
        "chain loss": (chain_loss, (unary, pairwise)),
    }


def value_and_derivatives(name: str, device: torch.device | str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """A map's value, its products with a fixed cotangent and with fixed tangents, on a device."""
    function, inputs = cases()[name]
    moved = [v.to(device=device, dtype=dtype).requires_grad_() for v in inputs]
    value = function(*moved)
    weight = torch.linspace(-1, 1, value.numel(), dtype=dtype, device=device).reshape(value.shape)
    grads = torch.autograd.grad((value * weight).sum(), moved)
    tangents = tuple(0.1 * torch.ones_like(v) for v in moved)
    tangent = torch.func.jvp(function, tuple(v.detach() for v in moved), tangents)[1]
    assert all(t.device == moved[0].device and t.dtype == dtype for t in (value, *grads, tangent))
    return (value.detach(), *grads, tangent.detach())
