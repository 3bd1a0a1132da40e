"""Linear chains: against their problem by KKT, against the sum over all paths, derivatives, masks, lengths, loss."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

import cvxift
from cvxift import argmax
from cvxift.argmax import chain
from cvxift.errors import ProgramError

torch = pytest.importorskip("torch")
from cvxift import torch as ct  # noqa: E402


def paths(u: torch.Tensor, e: torch.Tensor, length: int) -> tuple[torch.Tensor, list[tuple[int, ...]]]:
    """Scores of all paths of that length, differentiably, and the paths."""
    every = list(itertools.product(range(u.shape[-1]), repeat=length))
    scores = [
        sum(u[t, p[t]] for t in range(length)) + sum(e[t - 1, p[t - 1], p[t]] for t in range(1, length)) for p in every
    ]
    return torch.stack(scores), every


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_marginals_and_jacobians_are_those_of_the_problem(temperature: float, rng: np.random.Generator) -> None:
    problem = argmax.linear_chain(3, 2, temperature)
    unary, pairwise = rng.standard_normal((3, 2)), rng.standard_normal((2, 2, 2))
    argmax.parameter(problem).value = unary
    for t in range(2):
        argmax.parameter(problem, f"pairwise_{t}").value = pairwise[t]
    z, theta = argmax.variable(problem), argmax.parameter(problem)
    sensitivity = cvxift.differentiate(problem)
    scores, links = torch.tensor(unary), torch.tensor(pairwise)

    def closed(u, e):
        return ct.linear_chain(u, e, temperature=temperature)

    states, transitions = closed(scores, links)
    np.testing.assert_allclose(states, sensitivity.value(z), atol=1e-8)
    np.testing.assert_allclose(transitions[1], sensitivity.value(argmax.variable(problem, "pair_1")), atol=1e-8)
    own, across = torch.autograd.functional.jacobian(lambda u, e: closed(u, e)[0], (scores, links))
    np.testing.assert_allclose(own, sensitivity.jacobian(z, theta), atol=1e-8)
    expected = sensitivity.jacobian(z, argmax.parameter(problem, "pairwise_0"))
    np.testing.assert_allclose(across[:, :, 0], expected, atol=1e-8)


@pytest.mark.parametrize("shape", [(4, 3), (1, 3), (3, 1)])
def test_against_the_sum_over_all_paths(shape: tuple[int, int], rng: np.random.Generator) -> None:
    T, S = shape
    u = torch.tensor(rng.standard_normal((2, T, S)), requires_grad=True)
    e = torch.tensor(rng.standard_normal((2, T - 1, S, S)), requires_grad=True)
    lengths = torch.tensor([T, max(1, T - 2)])
    scores, every = zip(*(paths(u[i], e[i], int(lengths[i])) for i in range(2)))
    log_z = torch.stack([torch.logsumexp(s, 0) for s in scores])
    torch.testing.assert_close(ct.linear_chain(u, e, log_partition=True, lengths=lengths), log_z)
    states, pairs = ct.linear_chain(u, e, lengths=lengths)
    by_u, by_e = torch.autograd.grad(log_z.sum(), (u, e), allow_unused=True)
    torch.testing.assert_close(states, by_u)
    torch.testing.assert_close(pairs, torch.zeros_like(pairs) if by_e is None else by_e)
    best, score = ct.viterbi(u, e, lengths)
    for i in range(2):
        length = int(lengths[i])
        assert tuple(best[i, :length].tolist()) == every[i][int(scores[i].argmax())]
        assert (best[i, length:] == -1).all()
        torch.testing.assert_close(score[i], scores[i].max().detach())


@pytest.mark.parametrize("shape", [(3, 2), (1, 3)])
def test_derivatives_of_any_order_against_differences(shape: tuple[int, int], rng: np.random.Generator) -> None:
    T, S = shape
    u = torch.tensor(rng.standard_normal((2, T, S)), requires_grad=True)
    e = torch.tensor(rng.standard_normal((2, T - 1, S, S)), requires_grad=True)
    t = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    lengths, target = torch.tensor([T, max(1, T - 1)]), torch.tensor(rng.integers(0, S, (2, T)))

    def marginals(u, e, t):
        return ct.linear_chain(u, e, False, lengths, t)

    def loss(u, e, t):
        return ct.linear_chain_loss(u, e, target, lengths, t)

    for function in (marginals, loss):
        if T == 1:  # gradcheck takes no empty tensor

            def alone(u, t, function=function):
                return function(u, e.detach(), t)

            assert torch.autograd.gradcheck(alone, (u, t), check_forward_ad=True)
            assert torch.autograd.gradgradcheck(alone, (u, t))
            continue
        assert torch.autograd.gradcheck(function, (u, e, t), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, (u, e, t))


def test_masks(rng: np.random.Generator) -> None:
    u, e = torch.tensor(rng.standard_normal((4, 3))), torch.tensor(rng.standard_normal((3, 3)))
    e[0, 1] = u[2, 0] = -torch.inf
    u.requires_grad_()
    e.requires_grad_()
    states, pairs = ct.linear_chain(u, e)
    assert states[2, 0] == 0 and (pairs[:, 0, 1] == 0).all()
    torch.testing.assert_close(states.sum(-1), torch.ones(4, dtype=torch.float64))
    scores, every = paths(u, e.expand(3, 3, 3), 4)
    weights = torch.softmax(scores, 0)
    expected = [sum(w for w, p in zip(weights, every) if p[1] == s) for s in range(3)]
    torch.testing.assert_close(states[1], torch.stack(expected))
    first = torch.autograd.grad((states**2).sum(), (u, e), create_graph=True)
    second = torch.autograd.grad(sum((g**2).sum() for g in first), (u, e))
    assert all(torch.isfinite(g).all() for g in (*first, *second)) and first[1][0, 1] == 0
    # No path at all: zeros, and log Z = −∞.
    none = torch.full((3, 2), -torch.inf, requires_grad=True)
    states, pairs = ct.linear_chain(none, torch.zeros(2, 2))
    assert (states == 0).all() and (pairs == 0).all()
    assert ct.linear_chain(none, torch.zeros(2, 2), log_partition=True) == -torch.inf
    states.sum().backward()
    assert (none.grad == 0).all()


def test_long_chains_and_large_scores(rng: np.random.Generator) -> None:
    T = 5_000
    u, e = 50 * rng.standard_normal((T, 3)), 50 * rng.standard_normal((3, 3))
    real, links = np.ones(T, dtype=bool), np.broadcast_to(e, (T - 1, 3, 3))
    states, pairs = chain.marginals(u, links, real)
    np.testing.assert_allclose(states.sum(axis=1), 1, atol=1e-10, rtol=0)  # rounding adds up over the length
    np.testing.assert_allclose(pairs.sum(axis=2), states[:-1], atol=1e-14, rtol=0)
    np.testing.assert_allclose(pairs.sum(axis=1), states[1:], atol=1e-14, rtol=0)
    du, _ = chain.derivative(u, links, real, np.ones_like(u), np.zeros_like(links))
    assert np.abs(du).max() < 1e-12  # a shift of all scores changes nothing


def test_memory_is_linear_in_the_length(rng: np.random.Generator) -> None:
    peaks = []
    for T in (500, 1000, 2000):
        u, e, real = rng.standard_normal((T, 8)), rng.standard_normal((T - 1, 8, 8)), np.ones(T, dtype=bool)
        tracemalloc.start()
        chain.derivative(u, e, real, u, e)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 2.2 * peaks[1] < 5 * peaks[0]
    assert peaks[2] < 12 * 2000 * 64 * 8  # a dozen arrays of the size of the transitions


def test_vmap_dtypes_and_shared_transitions(rng: np.random.Generator) -> None:
    u, e = torch.tensor(rng.standard_normal((4, 5, 3))), torch.tensor(rng.standard_normal((3, 3)), requires_grad=True)
    for part, whole in zip(torch.func.vmap(ct.linear_chain, (0, None))(u, e), ct.linear_chain(u, e)):
        torch.testing.assert_close(part, whole)
    forward, reverse = (
        torch.func.vmap(f(lambda u: ct.linear_chain(u, e.detach())[0]))(u)
        for f in (torch.func.jacfwd, torch.func.jacrev)
    )
    torch.testing.assert_close(forward, reverse)
    (gradient,) = torch.autograd.grad(ct.linear_chain(u, e, log_partition=True).sum(), e)
    torch.testing.assert_close(gradient, ct.linear_chain(u, e)[1].sum((0, 1)).detach())
    low = ct.linear_chain(u.bfloat16(), e.bfloat16())[0]
    assert low.dtype is torch.bfloat16
    torch.testing.assert_close(low.double(), ct.linear_chain(u, e)[0], atol=3e-2, rtol=0)


def test_the_loss_has_marginals_minus_target_for_its_gradient(rng: np.random.Generator) -> None:
    u = torch.tensor(rng.standard_normal((2, 4, 3)), requires_grad=True)
    e = torch.tensor(rng.standard_normal((3, 3)))
    y, lengths = torch.tensor(rng.integers(0, 3, (2, 4))), torch.tensor([4, 2])
    loss = ct.linear_chain_loss(u, e, y, lengths)
    (gradient,) = torch.autograd.grad(loss.sum(), u)
    target = torch.nn.functional.one_hot(y, 3).double()
    target[1, 2:] = 0
    torch.testing.assert_close(gradient, ct.linear_chain(u, e, lengths=lengths)[0].detach() - target)
    scores, every = paths(u[1], e.expand(3, 3, 3), 2)
    expected = torch.logsumexp(scores, 0) - scores[every.index(tuple(y[1, :2].tolist()))]
    torch.testing.assert_close(loss[1], expected)


def test_jax_agrees_with_torch(rng: np.random.Generator) -> None:
    jax = pytest.importorskip("jax")
    from cvxift import jax as cj

    u, e, w = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 3, 3, 3)), rng.standard_normal((2, 4, 3))
    e[0, 1, 2] = -np.inf
    lengths, y = np.array([4, 2]), rng.integers(0, 3, (2, 4))
    tu, tlinks = torch.tensor(u, requires_grad=True), torch.tensor(e, requires_grad=True)
    tl, ty = torch.tensor(lengths), torch.tensor(y)
    states, pairs = ct.linear_chain(tu, tlinks, lengths=tl)
    expected = torch.autograd.grad((states * torch.tensor(w)).sum(), (tu, tlinks))
    with jax.enable_x64(True):

        def both(u, e):
            states, pairs = cj.linear_chain(u, e, lengths=lengths)
            return (w * states).sum(), (states, pairs)

        found, values = jax.jit(jax.grad(both, (0, 1), has_aux=True))(u, e)
        for ours, theirs in zip((*found, *values), (*expected, states, pairs)):
            np.testing.assert_allclose(ours, theirs.detach(), atol=1e-12)
        shared = np.where(np.isinf(e[0, 0]), 0.0, e[0, 0])
        mapped = jax.jit(jax.vmap(lambda u, y, n: cj.linear_chain_loss(u, shared, y, n)))(u, y, lengths)
        np.testing.assert_allclose(mapped, ct.linear_chain_loss(tu, torch.tensor(shared), ty, tl).detach(), atol=1e-12)
        np.testing.assert_array_equal(cj.viterbi(u, e, lengths)[0], ct.viterbi(tu, tlinks, tl)[0])
        with pytest.raises(ProgramError, match="nan"):
            cj.linear_chain(u * np.nan, e)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda u, e: ct.linear_chain(u[0], e), r"unary has shape \(2,\)"),
        (lambda u, e: ct.linear_chain(u[:, :0], e[:0, :0]), r"unary has shape \(3, 0\); .* S ≥ 1"),
        (lambda u, e: ct.viterbi(u[:0], e), r"unary has shape \(0, 2\); .* T ≥ 1"),
        (lambda u, e: ct.linear_chain(u, e[:, :1]), "pairwise has shape"),
        (lambda u, e: ct.linear_chain(u.long(), e), "unary of type"),
        (lambda u, e: ct.linear_chain(u * torch.nan, e), "score nan"),
        (lambda u, e: ct.linear_chain(u, e, temperature=0.0), "temperature = 0.0"),
        (lambda u, e: ct.linear_chain(u, e, lengths=torch.tensor(4)), "lengths run from 4 to 4"),
        (lambda u, e: ct.linear_chain(u, e, lengths=torch.tensor([1, 2])), r"lengths has shape \(2,\)"),
        (lambda u, e: ct.linear_chain_loss(u, e, torch.tensor([0, 1])), r"target has shape \(2,\)"),
        (lambda u, e: ct.linear_chain_loss(u, e, torch.tensor([0, 1, 2])), "target runs from 0 to 2"),
    ],
)
def test_bad_input_says_what_is_wrong(call, words: str) -> None:
    with pytest.raises(ProgramError, match=words):
        call(torch.zeros(3, 2), torch.zeros(2, 2))


@pytest.mark.parametrize("number", [2, 4])
def test_viterbi_under_vmap_with_shared_transitions(number: int, rng: np.random.Generator) -> None:
    """Four sequences are as many as there are transitions in each: one must not be taken for the other."""
    u, e = torch.tensor(rng.standard_normal((number, 5, 3))), torch.tensor(rng.standard_normal((number, 3, 3)))
    for links, dims in ((e[0], (0, None)), (e, (0, 0)), (e, (None, 0))):
        scores = u if dims[0] == 0 else u[0]
        found = torch.func.vmap(ct.viterbi, dims)(scores, links)
        for i in range(number):
            one = ct.viterbi(scores[i] if dims[0] == 0 else scores, links[i] if dims[1] == 0 else links)
            for part, expected in zip(found, one):
                torch.testing.assert_close(part[i], expected)


@pytest.mark.parametrize("shared", [True, False])
def test_viterbi_is_the_same_by_pointers_and_along_the_path(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    u = rng.integers(0, 3, (2, 3, 7, 4)).astype(float)  # with ties
    e = rng.integers(0, 3, (4, 4) if shared else (2, 3, 6, 4, 4)).astype(float)
    real = np.arange(7) < rng.integers(1, 8, (2, 3, 1))
    found = chain.viterbi(u, e, real)
    monkeypatch.setattr(chain, "POINTERS", 0)
    for one, other in zip(found, chain.viterbi(u, e, real)):
        np.testing.assert_array_equal(one, other)
