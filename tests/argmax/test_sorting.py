"""Soft sorting and ranking: against their problem by KKT and a reference regression, limits, derivatives, loss."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

import cvxift
from cvxift import argmax
from cvxift.argmax import isotonic
from cvxift.errors import ProgramError
from tests.counting import calls

torch = pytest.importorskip("torch")
from cvxift import torch as ct  # noqa: E402

KINDS = ["quadratic", "entropic"]
POINTS = {
    "random": np.array([0.3, -1.2, 0.9, 0.55]),
    "ties": np.array([0.7, 0.7, -0.2, 0.7]),
    "far": np.array([100.0, 3.0, 2.6, -40.0]),
    "one": np.array([0.4]),
}


@pytest.mark.parametrize("point", POINTS)
def test_soft_ranks_are_those_of_the_problem(point: str) -> None:
    x = POINTS[point]
    problem = argmax.permutahedron(x.size, temperature=0.5)
    z, theta = argmax.variable(problem), argmax.parameter(problem)
    theta.value = x
    sensitivity = cvxift.differentiate(problem)
    np.testing.assert_allclose(ct.soft_rank(torch.tensor(x), 0.5), sensitivity.value(z), atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(lambda v: ct.soft_rank(v, 0.5), torch.tensor(x))
    np.testing.assert_allclose(jacobian, sensitivity.jacobian(z, theta), atol=1e-8)


def test_entropic_soft_ranks_are_the_logarithm_of_their_problem() -> None:
    x = POINTS["random"]
    problem = argmax.permutahedron(4, np.exp(np.arange(1.0, 5.0)), regularizer="entropic")
    z, theta = argmax.variable(problem), argmax.parameter(problem)
    theta.value = x / 0.5 + 1  # Σ z log z has one more than KL in its derivative
    sensitivity = cvxift.differentiate(problem)
    value = sensitivity.value(z)
    np.testing.assert_allclose(ct.soft_rank(torch.tensor(x), 0.5, "entropic"), np.log(value), atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(lambda v: ct.soft_rank(v, 0.5, "entropic"), torch.tensor(x))
    expected = sensitivity.jacobian(z, theta) / value[:, None] / 0.5
    np.testing.assert_allclose(jacobian, expected, atol=1e-8)


def test_soft_sorting_is_that_of_the_problem(rng: np.random.Generator) -> None:
    import cvxpy as cp

    x = rng.standard_normal(4)
    values = cp.Parameter(4, value=-np.sort(-x))
    problem = argmax.permutahedron(4, values, temperature=2.0)
    z = argmax.variable(problem)
    argmax.parameter(problem).value = np.array([4.0, 3.0, 2.0, 1.0])
    sensitivity = cvxift.differentiate(problem)
    found = ct.soft_sort(torch.tensor(x), 2.0, descending=True)
    np.testing.assert_allclose(found, sensitivity.value(z), atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(lambda v: ct.soft_sort(v, 2.0, descending=True), torch.tensor(x))
    np.testing.assert_allclose(jacobian[:, np.argsort(-x)], sensitivity.jacobian(z, values), atol=1e-8)


@pytest.mark.parametrize("rounds", [32, 0])
@pytest.mark.parametrize("n", [1, 2, 7, 200])
def test_blocks_against_a_reference_regression(n: int, rounds: int, rng, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isotonic, "ROUNDS", rounds)
    w = np.arange(n, 0, -1.0)
    for scale in (0.01, 1.0, 100.0):
        s = -np.sort(-scale * rng.standard_normal((3, n)))
        s[0] = np.round(s[0])
        found = isotonic.project(s, w + 0 * s, isotonic.blocks(s, w), "quadratic", isotonic.segment_sum)
        for row, own in zip(found, s):
            np.testing.assert_allclose(row, own - isotonic_regression(own - w, increasing=False).x, atol=1e-11 * n)
        if scale <= 1:  # the reference takes exponentials
            small = w / n
            found = isotonic.project(
                s, small + 0 * s, isotonic.blocks(s, small, "entropic"), "entropic", isotonic.segment_sum
            )
            for row, own in zip(found, s):
                ratio = isotonic_regression(np.exp(own - small), weights=np.exp(small), increasing=False).x
                np.testing.assert_allclose(row, own - np.log(ratio), atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 1), (7, 13), (3, 200)])
def test_compiled_and_own_pooling_agree(kind, shape, rng: np.random.Generator) -> None:
    """Rows one after another are kept apart, whichever values meet at their ends."""
    down = np.broadcast_to(np.arange(shape[1], 0, -1.0), shape)
    for scale in (0.01, 1.0, 30.0):
        x = scale * -np.sort(-rng.standard_normal(shape)) + scale * rng.standard_normal((shape[0], 1))
        for s, w in ((x, down), (down, x)):
            found = isotonic._compiled(s, w, kind)
            assert found is not None
            np.testing.assert_array_equal(found, isotonic._pooled(s, w, kind))


def test_pooling_by_differences_stops_where_they_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """2⁵⁴ + 4 exceeds 2⁵⁴ by more than the targets differ, but not after these are subtracted."""
    s, w = np.array([[2.0**54 + 4, 2.0**54]]), np.array([[3.0, 1.0]])
    assert isotonic._compiled(s, w, "quadratic").tolist() == [0]
    assert isotonic.blocks(s, w).tolist() == [[0, 1]]
    assert isotonic.blocks(s - 2.0**54, w).tolist() == [[0, 1]]
    monkeypatch.setattr(isotonic, "_pooled", lambda *_: pytest.fail("not asked for"))
    assert isotonic.blocks(np.array([[16 * 4.0, 1.0]]), np.array([[4.0, 1.0]])).tolist() == [[0, 1]]
    with pytest.raises(pytest.fail.Exception):
        isotonic.blocks(np.array([[17 * 4.0, 1.0]]), np.array([[4.0, 1.0]]))


def test_equal_scores_on_equal_targets_are_apart() -> None:
    s, w = np.array([[9.0, 9.0, 1.0, 1.0]]), np.array([[5.0, 5.0, 2.0, 1.0]])
    assert isotonic.blocks(s, w).tolist() == [[0, 1, 2, 2]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", [ct.soft_rank, ct.soft_sort])
def test_eager_calls_agree_with_the_composition(function, kind, rng, monkeypatch: pytest.MonkeyPatch) -> None:
    from cvxift.torch import rule

    x = torch.tensor(np.round(rng.standard_normal((3, 8, 5)), 1), requires_grad=True)  # some are equal
    bars = torch.tensor(rng.standard_normal((2, *x.shape)))

    def results(dim: int, descending: bool, t: float) -> list:
        z = function(x, t, kind, descending, dim)
        (once,) = torch.autograd.grad((z**3 * bars[0]).sum(), x, create_graph=True)
        (twice,) = torch.autograd.grad((once * bars[1]).sum(), x)
        several = torch.autograd.grad(function(x, t, kind, descending, dim), x, bars, is_grads_batched=True)[0]
        (first,) = torch.autograd.grad(function(x, t, kind, descending, dim), x, bars[0])
        with torch.no_grad():
            plain = function(x, t, kind, descending, dim)
        return [z, once, twice, *several, first, plain]

    for dim, descending, t in ((-1, False, 0.05), (1, True, 0.5), (0, False, 5.0)):
        eager = results(dim, descending, t)
        with monkeypatch.context() as patch:
            patch.setattr(rule, "numpy_serves", lambda _: False)
            composed = results(dim, descending, t)
        for ours, theirs in zip(eager, composed):
            torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


def test_a_hundred_thousand_scores_in_any_order_of_events(rng: np.random.Generator) -> None:
    n = 100_000
    w = np.arange(n, 0, -1.0)
    slow = np.concatenate([-(np.arange(n - 1) ** 1.5), [1e12]])  # each pooling makes the next violation
    for y in (rng.standard_normal(n) * n, slow):
        s = -np.sort(-(w + y)) if y is not slow else w + y
        found = []
        assert calls(lambda s=s, found=found: found.append(isotonic.blocks(s, w))) < 1000  # as many whatever n is
        first = found[0]
        value = isotonic.project(s, w, first, "quadratic", isotonic.segment_sum)
        expected = s - isotonic_regression(s - w, increasing=False).x
        np.testing.assert_allclose(value, expected, atol=1e-9 * np.abs(s).max())
    x = torch.tensor(rng.standard_normal(n), requires_grad=True)
    ranks = ct.soft_rank(x, 1e-16)
    np.testing.assert_array_equal(ranks.detach(), np.argsort(np.argsort(x.detach())) + 1)
    ct.soft_rank(x, 1e-4).square().sum().backward()
    assert torch.isfinite(x.grad).all() and abs(x.grad.sum().item()) < 1e-6 * x.grad.abs().sum().item()


def test_limits() -> None:
    x = torch.tensor([0.3, 0.1, 0.2, 0.1], dtype=torch.float64)
    for kind in KINDS:
        cold = ct.soft_rank(x, 1e-8, kind)
        assert cold[0] == 4 and cold[2] == 3 and cold[1] == cold[3]  # tied scores have equal ranks
        torch.testing.assert_close(ct.soft_sort(x, 1e-8, kind), torch.sort(x).values)
    torch.testing.assert_close(ct.soft_rank(x, 1e-8), torch.tensor([4, 1.5, 3, 1.5], dtype=torch.float64))
    torch.testing.assert_close(ct.soft_rank(x, 1e-8, descending=True), 5 - ct.soft_rank(x, 1e-8))
    torch.testing.assert_close(ct.soft_sort(x, 1e12), torch.full_like(x, x.mean()))
    torch.testing.assert_close(ct.soft_sort(x, 0.01, descending=True), ct.soft_sort(x, 0.01).flip(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", [ct.soft_rank, ct.soft_sort])
def test_derivatives_dims_vmap_and_dtypes(function, kind: str, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((2, 4, 3)), requires_grad=True)
    t = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    for descending in (False, True):

        def at(x, t, descending=descending):
            return function(x, t, kind, descending, 1)

        assert torch.autograd.gradcheck(at, (x, t), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(at, (x, t))
    torch.testing.assert_close(at(x, t), function(x.movedim(1, -1), t, kind, True).movedim(-1, 1))

    def plain(x):
        return function(x, 0.5, kind)

    torch.testing.assert_close(torch.func.vmap(plain)(x), plain(x))
    torch.testing.assert_close(
        torch.func.vmap(torch.func.jacrev(plain))(x), torch.func.vmap(torch.func.jacfwd(plain))(x)
    )
    for dtype, tolerance in ((torch.float16, 3e-3), (torch.bfloat16, 2e-2), (torch.float32, 2e-6)):
        low = plain(x.detach().to(dtype))
        assert low.dtype is dtype
        torch.testing.assert_close(low.double(), plain(x.detach().to(dtype).double()), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("descending", [False, True])
def test_loss(descending: bool, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((3, 5)), requires_grad=True)
    y = torch.tensor(rng.permuted(np.tile(np.arange(1.0, 6), (3, 1)), axis=1))
    t = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def loss(x, t):
        return ct.rank_loss(x, y, t, descending)

    (gradient,) = torch.autograd.grad(loss(x, t).sum(), x)
    ranks = ct.soft_rank(x, t, descending=descending)
    torch.testing.assert_close(gradient, (ranks - y).detach() * (-1 if descending else 1))
    assert torch.autograd.gradcheck(loss, (x, t), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, (x, t))
    assert (loss(x, t) > 0).all()
    own = ct.rank_loss(x, ranks.detach(), t, descending)
    assert own.abs().max() < 1e-12


def test_targets_that_are_no_ranks_give_nan_where_they_cannot_be_seen(rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((2, 300)), requires_grad=True)
    ranks = torch.arange(1.0, 301.0).expand(2, 300)
    assert (ct.rank_loss(x, ranks.bfloat16()) > 0).all()
    loss = torch.vmap(ct.rank_loss)(x, ranks - torch.tensor([[0.0], [1.0]]))
    assert loss.isnan().tolist() == [False, True]
    (slope,) = torch.autograd.grad(loss.sum(), x)
    assert slope.isnan().any(1).tolist() == [False, True]
    jax = pytest.importorskip("jax")
    from cvxift import jax as cj

    for part in jax.jit(jax.value_and_grad(cj.rank_loss))(jax.numpy.zeros(3), jax.numpy.arange(3.0)):
        assert np.isnan(part).all()


@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (0, 0)])
def test_jax_sorts_nothing(shape: tuple[int, ...]) -> None:
    jax = pytest.importorskip("jax")
    from cvxift import jax as cj

    x = jax.numpy.zeros(shape)
    for kind in KINDS:
        for function in (cj.soft_rank, cj.soft_sort):
            assert function(x, 1.0, kind).shape == jax.jit(function, static_argnums=(1, 2))(x, 1.0, kind).shape == shape
    for part in jax.value_and_grad(lambda x: cj.rank_loss(x, x).sum())(x):
        assert not part.any()


def test_jax_agrees_with_torch(rng: np.random.Generator) -> None:
    jax = pytest.importorskip("jax")
    from cvxift import jax as cj

    x, w = rng.standard_normal((2, 3, 6))
    y = np.argsort(np.argsort(w, axis=1), axis=1) + 1.0
    with jax.enable_x64(True):
        for kind in KINDS:
            for name in ("soft_rank", "soft_sort"):
                ours, theirs = getattr(cj, name), getattr(ct, name)
                scores = torch.tensor(x, requires_grad=True)
                expected = theirs(scores, 0.5, kind, True, 0)
                (gradient,) = torch.autograd.grad((expected * torch.tensor(w)).sum(), scores)

                def both(x, ours=ours, kind=kind):
                    z = ours(x, 0.5, kind, True, 0)
                    return (w * z).sum(), z

                found, z = jax.jit(jax.grad(both, has_aux=True))(x)
                np.testing.assert_allclose(z, expected.detach(), atol=1e-12)
                np.testing.assert_allclose(found, gradient, atol=1e-12)
        mapped = jax.jit(jax.vmap(lambda x: cj.soft_rank(x, 0.5)))(x)
        np.testing.assert_allclose(mapped, ct.soft_rank(torch.tensor(x), 0.5), atol=1e-12)
        scores = torch.tensor(x, requires_grad=True)
        ct.rank_loss(scores, torch.tensor(y), 0.5).sum().backward()
        np.testing.assert_allclose(
            jax.jit(jax.grad(lambda x: cj.rank_loss(x, y, 0.5).sum()))(x), scores.grad, atol=1e-12
        )
        with pytest.raises(ProgramError, match="nan"):
            cj.soft_rank(np.array([0.0, np.nan]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ct.soft_rank(torch.tensor([1, 2])), "int64"),
        (lambda: ct.soft_rank(torch.tensor([1.0, torch.nan])), r"score nan at \(\d,\)"),
        (lambda: ct.soft_sort(torch.tensor([1.0, torch.inf])), "inf"),
        (lambda: ct.soft_rank(torch.ones(3), 0.0), "temperature = 0.0"),
        (lambda: ct.soft_sort(torch.ones(3), torch.tensor(-1.0)), "temperature = -1.0"),
        (lambda: ct.soft_sort(torch.ones(3), regularizer="gini"), "regularizer = 'gini'"),
        (lambda: ct.soft_rank(torch.ones(3), dim=1), "dim = 1"),
        (lambda: ct.rank_loss(torch.ones(3), torch.ones(2)), r"target has shape \(2,\)"),
        (lambda: ct.rank_loss(torch.ones(3), torch.arange(3.0)), "between 1 and n = 3"),
        (lambda: ct.rank_loss(torch.ones(3), torch.tensor([1.0, 3.0, 3.0])), "sum to"),
    ],
)
def test_bad_input_says_what_is_wrong(call, words: str) -> None:
    with pytest.raises(ProgramError, match=words):
        call()
