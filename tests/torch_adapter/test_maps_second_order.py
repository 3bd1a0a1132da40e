"""Second derivatives of every closed form: the four combinations of the two modes are one matrix."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from torch.func import jacfwd, jacrev  # noqa: E402

from cvxift.torch import (  # noqa: E402
    argmax_loss,
    box,
    budget,
    constrained_softmax,
    entmax,
    fenchel_young_loss,
    linear_chain,
    linear_chain_loss,
    rank_loss,
    soft_rank,
    soft_sort,
    softmax,
    transport,
    transport_loss,
)


def tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SCORES, TARGET = tensor(6), torch.softmax(tensor(6, seed=1), 0)
UNARY, PAIRWISE, LABELS = tensor(4, 3), tensor(3, 3, seed=1), torch.tensor([0, 1, 2, 1])
COSTS, A, B = tensor(3, 4), torch.softmax(tensor(3, seed=2), 0), torch.softmax(tensor(4, seed=3), 0)


def entropy(z: torch.Tensor) -> torch.Tensor:
    return (z * z.log()).sum(-1)


MAPS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]] = {
    "softmax": (lambda t: softmax(t).pow(2).sum(), SCORES),
    "entmax": (lambda t: entmax(t, 1.5).pow(2).sum(), SCORES),
    "entmax in alpha": (lambda a: entmax(SCORES, a).pow(2).sum(), torch.tensor(1.7, dtype=torch.float64)),
    "constrained softmax": (lambda t: constrained_softmax(t, 0.3).pow(2).sum(), SCORES),
    "budget": (lambda t: budget(t, 2.0).pow(3).sum(), SCORES),
    "box": (lambda t: box(t, regularizer="entropic").pow(2).sum(), SCORES),
    "entmax loss": (lambda t: fenchel_young_loss(t, TARGET, 1.5), SCORES),
    "cross-entropy": (lambda t: fenchel_young_loss(t, TARGET, 1.0), SCORES),
    "argmax loss": (lambda t: argmax_loss(t, TARGET, softmax, entropy), SCORES),
    "chain": (lambda u: linear_chain(u, PAIRWISE)[0].pow(2).sum(), UNARY),
    "chain, log Z": (lambda p: linear_chain(UNARY, p, log_partition=True), PAIRWISE),
    "chain loss": (lambda p: linear_chain_loss(UNARY, p, LABELS), PAIRWISE),
    "transport": (lambda t: transport(t, A, B).pow(2).sum(), COSTS),
    "transport, masses": (lambda a: transport(COSTS, a / a.sum(), B).pow(2).sum(), A),
    "quadratic transport": (lambda t: transport(t, A, B, regularizer="quadratic").pow(3).sum(), COSTS),
    "transport loss": (lambda t: transport_loss(t, transport(0.3 * COSTS, A, B).detach()), COSTS),
    "soft rank": (lambda t: soft_rank(t, temperature=2.0, regularizer="entropic").pow(2).sum(), SCORES),
    "soft sort": (lambda t: soft_sort(t, temperature=2.0, regularizer="entropic").pow(2).sum(), SCORES),
    "rank loss": (lambda t: rank_loss(t, torch.arange(1.0, 7.0, dtype=torch.float64), 2.0), SCORES),
}


@pytest.mark.parametrize("name", MAPS)
def test_modes_agree_and_match_differences(name: str) -> None:
    function, x = MAPS[name]
    step = 1e-5
    flat = jacrev(function)
    columns = [
        (flat(x + step * e.reshape(x.shape)) - flat(x - step * e.reshape(x.shape))) / (2 * step)
        for e in torch.eye(max(x.numel(), 1), dtype=x.dtype)
    ]
    expected = torch.stack(columns, -1).reshape((*x.shape, *x.shape))
    assert expected.abs().max() > 1e-3  # there is something to miss
    for outer in (jacrev, jacfwd):
        for inner in (jacrev, jacfwd):
            found = outer(inner(function))(x)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
