"""Argmax maps over groups of unequal length in one flat array; padded dense rows are the reference."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from torch.func import grad, hessian, jacfwd, jacrev, vmap  # noqa: E402

import cvxift  # noqa: E402
from cvxift import jax as cj  # noqa: E402
from cvxift import torch as ct  # noqa: E402
from cvxift.argmax.groups import NumpySegments  # noqa: E402

LENGTHS = np.array([3, 0, 5, 1, 4, 0])
IDS, OFFSETS = np.repeat(np.arange(6), LENGTHS), np.concatenate([[0], np.cumsum(LENGTHS)])
PLACES = np.arange(LENGTHS.max()) < LENGTHS[:, None]
SHUFFLE = np.random.default_rng(7).permutation(len(IDS))
ORDERS = np.array([1.0, 1.2, 1.5, 2.0, 2.5, 3.0])
WARMTH = np.array([0.5, 1.0, 2.0, 0.3, 0.7, 1.0])
TOTALS = 0.4 * LENGTHS
UPPER = np.random.default_rng(8).uniform(0.5, 0.9, len(IDS))

# (module, scores, what is per group, what is per entry, how groups are given) ↦ values of entries
Map = Callable[..., Any]
MAPS: dict[str, Map] = {
    "softmax": lambda m, x, group, entry, **how: m.softmax(x, temperature=group(WARMTH), **how),
    "sparsemax": lambda m, x, group, entry, **how: m.sparsemax(x, **how),
    "entmax 1.5": lambda m, x, group, entry, **how: m.entmax(x, 1.5, temperature=0.7, **how),
    "entmax 1.3": lambda m, x, group, entry, **how: m.entmax(x, 1.3, temperature=group(WARMTH), **how),
    "entmax 2.5": lambda m, x, group, entry, **how: m.entmax(x, 2.5, **how),
    "entmax of orders": lambda m, x, group, entry, **how: m.entmax(x, group(ORDERS), **how),
    "budget": lambda m, x, group, entry, **how: m.budget(x, group(TOTALS), 0.0, entry(UPPER), **how),
}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def padded(values: np.ndarray, fill: float) -> np.ndarray:
    """Groups as rows of one length."""
    rows = np.full(PLACES.shape, fill, dtype=values.dtype)
    rows[PLACES] = values
    return rows


def dense(name: str, x: torch.Tensor) -> torch.Tensor:
    """The map of padded rows, as a differentiable function of the flat entries (..., N)."""
    places, entry = torch.tensor(PLACES), np.zeros(PLACES.shape, dtype=int)
    entry[PLACES] = np.arange(len(IDS))
    rows = x[..., torch.tensor(entry)].masked_fill(~places, -torch.inf)
    z = MAPS[name](ct, rows, lambda v: torch.tensor(v, dtype=x.dtype)[:, None], lambda v: torch.tensor(padded(v, 0.0)))
    return z[..., places]


def ragged(name: str, m: Any, x: Any, order: np.ndarray | None = None, offsets: bool = False) -> Any:
    """The map of the groups, entries in another order if one is given."""
    array = partial(torch.tensor, dtype=torch.float64) if m is ct else jnp.asarray
    order = np.arange(len(IDS)) if order is None else order
    ids = torch.tensor(IDS[order]) if m is ct else jnp.asarray(IDS[order])
    how = {"offsets": torch.tensor(OFFSETS) if m is ct else jnp.asarray(OFFSETS)} if offsets else {"segments": ids}
    return MAPS[name](m, x, array, lambda v: array(v[order]), num_segments=6, **how)


@pytest.mark.parametrize("name", MAPS)
def test_values_are_those_of_padded_rows(name: str, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal(len(IDS)))
    expected = dense(name, x)
    for m, given in ((ct, x), (cj, x.numpy())):
        for found in (ragged(name, m, given), ragged(name, m, given, offsets=True)):
            np.testing.assert_allclose(np.asarray(found), expected, atol=1e-14, rtol=0)
        shuffled = ragged(name, m, given[SHUFFLE], SHUFFLE)
        np.testing.assert_allclose(np.asarray(shuffled), expected[SHUFFLE], atol=1e-14, rtol=0)


def slope_and_hessian(value: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The Hessian and, from the same program, the gradient."""

    def slope(v: Any) -> Any:
        g = jax.grad(value)(v)
        return g, g

    return jax.jacfwd(slope, has_aux=True)


@pytest.mark.parametrize("name", MAPS)
def test_derivatives_are_those_of_padded_rows_and_of_differences(name: str, rng: np.random.Generator) -> None:
    x, w = torch.tensor(rng.standard_normal(len(IDS))), torch.tensor(rng.standard_normal(len(IDS)))
    order = SHUFFLE

    def ours(v: torch.Tensor) -> torch.Tensor:
        return ragged(name, ct, v, order)

    given = x[order].clone().requires_grad_()
    assert torch.autograd.gradcheck(ours, (given,), check_forward_ad=True)

    def value(f: Callable[[torch.Tensor], torch.Tensor], v: torch.Tensor) -> torch.Tensor:
        return (f(v) * w).sum().square()

    def flat(v: torch.Tensor) -> torch.Tensor:
        return ragged(name, ct, v)

    expected = hessian(partial(value, partial(dense, name)))(x)
    for outer in (jacrev, jacfwd):
        for inner in (jacrev, jacfwd):
            torch.testing.assert_close(outer(inner(partial(value, flat)))(x), expected, atol=1e-11, rtol=0)

    def theirs(v: Any) -> Any:
        return (ragged(name, cj, v) * w.numpy()).sum() ** 2

    slope = grad(partial(value, partial(dense, name)))(x)
    second, first = jax.jit(slope_and_hessian(theirs))(x.numpy())
    np.testing.assert_allclose(first, slope, atol=1e-12, rtol=0)
    np.testing.assert_allclose(second, expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("name", MAPS)
def test_mapped_and_batched_calls(name: str, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((2, 3, len(IDS))))
    expected = dense(name, x)

    def torch_map(v: torch.Tensor) -> torch.Tensor:
        return ragged(name, ct, v)

    torch.testing.assert_close(torch_map(x), expected, atol=1e-14, rtol=0)
    torch.testing.assert_close(vmap(vmap(torch_map))(x), expected, atol=1e-14, rtol=0)
    jax_map = partial(ragged, name, cj)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax_map))(x.numpy()), expected, atol=1e-14, rtol=0)
    jacobian = vmap(jacrev(torch_map))(x[0])
    torch.testing.assert_close(jacobian, vmap(jacrev(partial(dense, name)))(x[0]), atol=1e-12, rtol=0)
    given = x[0, 0].clone().requires_grad_()
    eye = torch.eye(len(IDS), dtype=torch.float64)
    (rows,) = torch.autograd.grad(torch_map(given), given, eye, is_grads_batched=True)
    torch.testing.assert_close(rows, jacobian[0], atol=1e-12, rtol=0)


def test_ids_can_be_mapped(rng: np.random.Generator) -> None:
    x, ids = rng.standard_normal((4, 7)), rng.integers(0, 3, (4, 7))
    one = partial(cj.sparsemax, num_segments=3)
    expected = np.stack([one(row, segments=own) for row, own in zip(x, ids, strict=True)])
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda v, i: one(v, segments=i)))(x, ids), expected, atol=1e-15)
    mapped = vmap(lambda v, i: ct.sparsemax(v, segments=i, num_segments=3))(torch.tensor(x), torch.tensor(ids))
    np.testing.assert_allclose(mapped, expected, atol=1e-15)


def test_what_groups_have_is_differentiated(rng: np.random.Generator) -> None:
    ids = torch.tensor(IDS[SHUFFLE])
    x = torch.tensor(rng.standard_normal(len(IDS)), requires_grad=True)
    orders, warmth = (torch.tensor(v, requires_grad=True) for v in (ORDERS + 0.1, WARMTH))

    def entmax(v: torch.Tensor, a: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return ct.entmax(v, a, temperature=t, segments=ids, num_segments=6)

    assert torch.autograd.gradcheck(entmax, (x, orders, warmth), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(entmax, (x, orders, warmth), atol=1e-4)
    totals = torch.tensor(TOTALS, requires_grad=True)
    lower, upper = (torch.tensor(v, requires_grad=True) for v in (0.1 * UPPER, UPPER))

    def budget(v: torch.Tensor, k: torch.Tensor, low: Any, high: torch.Tensor) -> torch.Tensor:
        return ct.budget(v, k, low, high, segments=ids, num_segments=6)

    assert torch.autograd.gradcheck(budget, (x, totals, lower, upper), check_forward_ad=True)
    caps = torch.tensor(rng.uniform(0.5, 0.9, (6, 1)))
    torch.testing.assert_close(budget(x, totals, 0.0, caps), budget(x, totals, 0.0, caps[ids, 0]))

    def sums(m: Any, v: Any, a: Any, t: Any) -> Any:
        given = ids if m is ct else ids.numpy()
        return (m.entmax(v, a, temperature=t, segments=given, num_segments=6) ** 2).sum()

    slopes = jax.jit(jax.grad(partial(sums, cj), (0, 1, 2)))(*(v.detach().numpy() for v in (x, orders, warmth)))
    for ours, theirs in zip(slopes, torch.autograd.grad(sums(ct, x, orders, warmth), (x, orders, warmth)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("alpha", [1.0, 1.3, 1.5, 2.0, 2.7, "orders"])
def test_losses(alpha: Any, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal(len(IDS)), requires_grad=True)
    y = ct.softmax(torch.tensor(rng.standard_normal(len(IDS))), segments=torch.tensor(IDS))
    order = torch.tensor(ORDERS + 0.05) if alpha == "orders" else alpha
    column = order[:, None] if alpha == "orders" else order
    rows = torch.tensor(padded(x.detach().numpy(), -np.inf))
    expected = ct.fenchel_young_loss(rows, torch.tensor(padded(y.numpy(), 0.0)), column)
    ids = torch.tensor(IDS[SHUFFLE])

    def loss(v: torch.Tensor, a: Any = order) -> torch.Tensor:
        return ct.fenchel_young_loss(v, y[SHUFFLE], a, segments=ids, num_segments=6)

    v = x.detach()[SHUFFLE].requires_grad_()
    found = loss(v)
    assert found.shape == (6,) and (found[[1, 5]] == 0).all() and (found >= 0).all()
    torch.testing.assert_close(found, expected, atol=1e-14, rtol=0)
    assert torch.autograd.gradcheck(loss, (v,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, (v,), check_fwd_over_rev=True, atol=1e-4)
    (slope,) = torch.autograd.grad(found.sum(), v)
    prediction = ct.entmax(v, order, segments=ids, num_segments=6)
    torch.testing.assert_close(slope, (prediction - y[SHUFFLE]).detach(), atol=1e-14, rtol=0)
    if alpha == "orders":
        assert torch.autograd.gradcheck(loss, (v, order.clone().requires_grad_()), check_forward_ad=True)
    their_order = order.numpy() if alpha == "orders" else order

    def theirs(u: Any) -> Any:
        return cj.fenchel_young_loss(u, y.numpy(), their_order, segments=IDS, num_segments=6)

    np.testing.assert_allclose(jax.jit(theirs)(x.detach().numpy()), expected, atol=1e-14)
    curve = jax.jit(jax.hessian(lambda u: (theirs(u) ** 2).sum()))(x.detach().numpy())
    own = hessian(lambda u: (ct.fenchel_young_loss(u, y, order, segments=torch.tensor(IDS), num_segments=6) ** 2).sum())
    np.testing.assert_allclose(curve, own(x.detach()), atol=1e-11)


def test_ties_masks_empty_arrays_and_dtypes() -> None:
    x = torch.tensor([1.0, 1.0, -torch.inf, 0.0, 0.0, -torch.inf, -torch.inf, 5.0])
    ids = torch.tensor([0, 0, 0, 1, 1, 2, 2, 4])
    expected = [0.5, 0.5, 0.0, 0.5, 0.5, 0.0, 0.0, 1.0]
    for m, given, own in ((ct, x, ids), (cj, jnp.asarray(x.numpy()), jnp.asarray(ids.numpy()))):
        for function in (m.softmax, m.sparsemax, m.entmax, partial(m.entmax, alpha=1.2), partial(m.entmax, alpha=2.6)):
            assert np.asarray(function(given, segments=own)).tolist() == pytest.approx(expected, abs=1e-7)
        masked = m.budget(given, 0.5, segments=own)
        assert np.asarray(masked).tolist() == pytest.approx([0.25, 0.25, 0, 0.25, 0.25, 0, 0, 0.5])
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        z = ct.sparsemax(x.to(dtype), segments=ids)
        assert z.dtype is dtype and z.tolist() == expected
    huge = torch.tensor([3e30, 3e30, 1e30], dtype=torch.float64)
    assert ct.sparsemax(huge, temperature=1e-20, segments=torch.zeros(3, dtype=torch.int32)).tolist() == [0.5, 0.5, 0]
    none = torch.zeros(0, requires_grad=True)
    nobody = torch.zeros(0, dtype=torch.long)
    for call in (ct.softmax, ct.sparsemax, ct.budget):
        assert call(none, segments=nobody).shape == (0,) and call(none, segments=nobody).requires_grad
        assert call(none, offsets=torch.zeros(4, dtype=torch.long)).shape == (0,)
    assert ct.fenchel_young_loss(none, none, offsets=torch.zeros(4, dtype=torch.long)).tolist() == [0, 0, 0]


def test_dim_is_the_dimension_of_the_entries(rng: np.random.Generator) -> None:
    """Attention of several heads over the edges of a graph: (edges, heads), groups along the first dimension."""
    x, ids = torch.tensor(rng.standard_normal((len(IDS), 2))), torch.tensor(IDS)
    warmth = torch.tensor(rng.uniform(0.5, 2.0, (5, 2)))
    z = ct.sparsemax(x, 0, warmth, segments=ids)
    for head in range(2):
        torch.testing.assert_close(z[:, head], ct.sparsemax(x[:, head], temperature=warmth[:, head], segments=ids))
    np.testing.assert_allclose(cj.sparsemax(x.numpy(), 0, warmth.numpy(), segments=IDS), z, atol=1e-15)
    loss = ct.fenchel_young_loss(x, z, 2.0, 0, segments=ids, num_segments=6)
    assert loss.shape == (6, 2)


@pytest.mark.parametrize("name", ["softmax", "sparsemax", "entmax 1.3", "budget"])
def test_compiled_whole(name: str, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal(len(IDS)), requires_grad=True)
    ids, totals, upper = torch.tensor(IDS), torch.tensor(TOTALS), torch.tensor(UPPER)
    call = {
        "softmax": lambda v: ct.softmax(v, segments=ids, num_segments=6),
        "sparsemax": lambda v: ct.sparsemax(v, segments=ids, num_segments=6),
        "entmax 1.3": lambda v: ct.entmax(v, 1.3, segments=ids, num_segments=6),
        "budget": lambda v: ct.budget(v, totals, 0.0, upper, segments=ids, num_segments=6),
    }[name]
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    ours, theirs = compiled(x), call(x)
    torch.testing.assert_close(ours, theirs, atol=1e-15, rtol=0)
    slopes = [torch.autograd.grad(z.square().sum(), x)[0] for z in (ours, theirs)]
    torch.testing.assert_close(*slopes, atol=1e-14, rtol=0)


def test_memory_is_linear() -> None:
    """One long group beside many short ones: rows padded to its length would be 2 · 10⁹ numbers."""
    n = 40_000
    ids = np.concatenate([np.zeros(n, dtype=int), np.arange(1, n + 1)])
    x = np.random.default_rng(0).standard_normal(2 * n)
    from cvxift.argmax.segments import entmax

    tracemalloc.start()
    z = entmax(x, 1.5, NumpySegments(ids, n + 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * x.nbytes
    np.testing.assert_allclose(np.bincount(ids, z), 1.0, atol=1e-12)


X, N = torch.zeros(3), jnp.zeros(3)
LONG = torch.long


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ct.softmax(X, segments=torch.tensor([0, 1])), r"segments of shape \(2,\)"),
        (lambda: ct.softmax(X, segments=torch.tensor([0.0, 1.0, 2.0])), "type torch.float32; expected integers"),
        (lambda: ct.softmax(X, segments=torch.tensor([True, False, True])), "torch.bool"),
        (lambda: ct.softmax(X, segments=torch.tensor([0, -1, 2])), "run from -1 to 2"),
        (lambda: ct.softmax(X, segments=torch.tensor([0, 1, 2]), num_segments=2), "expected ids from 0 to .* = 1"),
        (lambda: ct.softmax(X, segments=torch.tensor([0, 1, 2]), offsets=torch.tensor([0, 3])), "both"),
        (lambda: ct.softmax(X, num_segments=2), "neither"),
        (lambda: ct.softmax(X, segments=torch.tensor([0, 1, 2]), num_segments=-1), "num_segments = -1"),
        (lambda: ct.softmax(X, offsets=torch.tensor([0, 2])), "expected 0 to 3"),
        (lambda: ct.softmax(X, offsets=torch.tensor([1, 3])), "run from 1 to 3"),
        (lambda: ct.softmax(X, offsets=torch.tensor([0, 2, 1, 3])), "offsets decrease"),
        (lambda: ct.softmax(X, offsets=torch.tensor([0, 3]), num_segments=2), r"expected \(3,\)"),
        (lambda: ct.softmax(X, offsets=torch.zeros(0, dtype=LONG)), "offsets of shape"),
        (lambda: ct.softmax(X, 1, segments=torch.tensor([0, 1, 2])), "dim = 1"),
        (lambda: ct.sparsemax(X / 0, segments=torch.tensor([0, 1, 2])), "score nan"),
        (lambda: ct.entmax(X, torch.ones(2), segments=torch.tensor([0, 1, 2])), r"alpha of shape \(2,\)"),
        (lambda: ct.entmax(X, 0.5, segments=torch.tensor([0, 1, 2])), "alpha = 0.5"),
        (lambda: ct.entmax(X, temperature=torch.tensor([1.0, 0.0]), segments=torch.tensor([0, 1, 1])), "temperature ="),
        (lambda: ct.budget(X, 2.0, segments=torch.tensor([0, 1, 1])), "group 0 is empty.*never to 2"),
        (lambda: ct.budget(X, 1.0, 0.5, 0.2, segments=torch.tensor([0, 1, 1])), "at most upper"),
        (lambda: ct.budget(X, 1.0, upper=torch.ones(2), segments=torch.tensor([0, 1, 1])), "upper has shape"),
        (lambda: cj.softmax(N, segments=jnp.array([0, -1, 2])), "run from -1 to 2"),
        (lambda: cj.softmax(N, offsets=jnp.array([0, 2])), "expected 0 to 3"),
        (lambda: cj.sparsemax(N / 0, segments=jnp.array([0, 1, 2])), "score nan"),
        (lambda: cj.budget(N, 2.0, segments=jnp.array([0, 1, 1])), "never to 2"),
        (lambda: jax.jit(lambda i: cj.softmax(N, segments=i))(jnp.array([0, 1, 2])), "give num_segments"),
    ],
)
def test_bad_input_says_what_is_wrong(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(cvxift.ProgramError, match=words):
        call()


def test_what_cannot_be_refused_is_nan() -> None:
    x = jnp.array([0.1, 0.5, 0.2, 0.3])
    ids = jax.jit(lambda i: cj.sparsemax(x, segments=i, num_segments=3))
    assert np.isnan(ids(jnp.array([0, 0, 1, 7]))[3]) and np.isnan(ids(jnp.array([-2, 1, 1, 1]))[0])
    offsets = jax.jit(lambda o: cj.softmax(x, offsets=o))
    assert np.isfinite(offsets(jnp.array([0, 2, 2, 4]))).all()
    for bad in ([0, 3, 2, 4], [1, 2, 3, 4], [0, 1, 2, 3]):
        assert np.isnan(offsets(jnp.array(bad))).all()
    scores = jax.jit(lambda v: cj.entmax(v, segments=np.array([0, 0, 1, 1])))(x.at[0].set(jnp.nan))
    assert np.isnan(scores[:2]).all() and np.isfinite(scores[2:]).all()
    empty = jax.jit(lambda k: cj.budget(x, k, segments=np.array([0, 0, 1, 1])))(jnp.array([1.0, 3.0]))
    assert np.isfinite(empty[:2]).all() and np.isnan(empty[2:]).all()
    with pytest.raises(cvxift.ProgramError):
        vmap(lambda o: ct.softmax(torch.zeros(3), offsets=o))(torch.tensor([[0, 1, 3], [0, 4, 3]]))


@pytest.mark.parametrize("alpha", [1.0, 1.2, 1.5, 2.0, 2.5, "orders"])
def test_kernels_of_other_devices(alpha: Any, rng: np.random.Generator) -> None:
    """What serves where NumPy cannot, run on the host."""
    from cvxift.argmax import bounded, segments
    from cvxift.torch.segment_maps import Segments

    x, ids = rng.standard_normal(len(IDS)), IDS[SHUFFLE]
    theirs, ours = NumpySegments(ids, 6), Segments(torch.tensor(ids), 6)
    order = ORDERS if alpha == "orders" else alpha
    given = torch.tensor(order) if alpha == "orders" else alpha
    found = segments.entmax(torch.tensor(x), given, ours)
    np.testing.assert_allclose(found, segments.entmax(x, order, theirs), atol=1e-13)
    arrays = x, TOTALS, np.zeros(len(IDS)), UPPER[SHUFFLE]
    tensors = [torch.tensor(part) for part in arrays]
    z = bounded.value(*tensors, bounded.sides(*tensors, groups=ours), groups=ours)
    expected = bounded.value(*arrays, bounded.sides(*arrays, groups=theirs), groups=theirs)
    np.testing.assert_allclose(z, expected, atol=1e-14)
