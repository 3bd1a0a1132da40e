"""Separable argmax maps and their losses on JAX arrays: PyTorch's values and derivatives, under transforms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

jnp = pytest.importorskip("jax.numpy")
torch = pytest.importorskip("torch")
import jax  # noqa: E402

import cvxift  # noqa: E402
from cvxift import jax as cj  # noqa: E402
from cvxift import torch as ct  # noqa: E402
from cvxift.argmax.quadratic_transport import quadratic_transport  # noqa: E402
from cvxift.argmax.simplex import entmax  # noqa: E402

MAPS: dict[str, Callable[[Any, Any], Any]] = {
    "softmax": lambda m, x: m.softmax(x),
    "entmax13": lambda m, x: m.entmax(x, 1.3),
    "entmax15": lambda m, x: m.entmax(x, temperature=0.7),
    "sparsemax": lambda m, x: m.sparsemax(x),
    "entmax25": lambda m, x: m.entmax(x, 2.5),
    "budget": lambda m, x: m.budget(x, 1.7, -0.1, 0.9),
    "csparsemax": lambda m, x: m.constrained_sparsemax(x, 0.4),
    "csoftmax": lambda m, x: m.constrained_softmax(x, 0.35, temperature=0.8),
    "box": lambda m, x: m.box(x),
    "clipped_box": lambda m, x: m.box(x, -0.4, 0.6, regularizer="quadratic"),
}


@pytest.fixture(autouse=True)
def double(request: pytest.FixtureRequest):
    """64-bit types within a test, but where it asks for 32, and nowhere else."""
    with jax.enable_x64("without_64_bits" not in request.node.name):
        yield


def close(ours: Any, theirs: Any, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=atol, rtol=0)


def third_derivative(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return jax.jacfwd(jax.jacrev(jax.jacfwd(f)))


@pytest.mark.parametrize("name", MAPS)
def test_values_and_derivatives_are_pytorchs(name: str, rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((3, 5)), rng.standard_normal(5)

    def ours(v):
        return MAPS[name](cj, v)

    def theirs(v):
        return MAPS[name](ct, v)

    def value(v):
        return (ours(v) * w).sum() ** 2

    modes = [jax.hessian]  # which uses both; every nesting of them for the maps with the longest rules
    if name in ("entmax13", "csoftmax"):
        modes = [lambda f: jax.jacrev(jax.jacrev(f)), lambda f: jax.jacfwd(jax.jacfwd(f)), third_derivative]

    def their_value(v):
        return (theirs(v) * torch.tensor(w)).sum() ** 2

    @jax.jit  # one program: XLA takes a while for each
    def found(v):
        return (
            jax.vmap(ours, in_axes=1, out_axes=1)(v.T).T,
            jax.vmap(jax.jacrev(ours))(v),
            jax.jacfwd(ours)(v[0]),
            *([mode(value)(v[0]) for mode in modes]),
        )

    tensor = torch.tensor(x)
    values, jacobians, forward, *higher = found(x)
    expected = torch.func.vmap(torch.func.jacrev(theirs))(tensor)
    close(ours(x), theirs(tensor))
    close(values, theirs(tensor))
    close(jacobians, expected)
    close(forward, expected[0])
    second = torch.func.hessian(their_value)(tensor[0])
    for ours_second in higher[:2]:
        close(ours_second, second)
    for third in higher[2:]:
        close(third, torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(their_value)))(tensor[0]), 1e-11)


def test_orders_bounds_sums_and_temperatures_have_derivatives(rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((3, 5)), rng.standard_normal((3, 5))
    alpha, warmth = np.array([[1.0], [1.5], [2.6]]), np.array([[0.5], [1.0], [2.0]])
    upper, lower = rng.uniform(0.3, 0.8, (3, 5)), rng.uniform(-0.2, 0.1, (3, 5))
    total = rng.uniform(0.8, 1.1, (3, 1))

    def compare(call: Callable[..., Any], *args: np.ndarray) -> None:
        def ours(*values):
            return (call(cj, *values) * w).sum()

        def theirs(*values):
            return (call(ct, *values) * torch.tensor(w)).sum()

        numbers = tuple(range(len(args)))
        tensors = [torch.tensor(arg) for arg in args]
        first, their_first = jax.jit(jax.grad(ours, numbers))(*args), torch.func.grad(theirs, numbers)(*tensors)
        second, their_second = jax.jit(jax.hessian(ours, numbers))(*args), torch.func.hessian(theirs, numbers)(*tensors)
        for i in numbers:
            close(first[i], their_first[i])
            for j in numbers:
                close(second[i][j], their_second[i][j], 1e-11)

    compare(lambda m, v, a, t: m.entmax(v, a, temperature=t), x, alpha, warmth)
    compare(lambda m, v, k, low, high: m.budget(v, k, low, high), x, total, lower, upper)
    compare(lambda m, v, high, t: m.constrained_softmax(v, high, temperature=t), x, upper, warmth)
    close(jax.vmap(cj.entmax)(x, alpha[:, 0]), ct.entmax(torch.tensor(x), torch.tensor(alpha)))


@pytest.mark.parametrize("alpha", [1, 1.3, 2, 3])
def test_losses_are_pytorchs(alpha: float, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((3, 5)), np.eye(5)[:3]
    tensor, target = torch.tensor(x), torch.eye(5, dtype=torch.float64)[:3]
    close(cj.fenchel_young_loss(x, y, alpha), ct.fenchel_young_loss(tensor, target, alpha))
    slope = jax.jit(jax.grad(lambda v: cj.fenchel_young_loss(v, y, alpha).sum()))(x)
    close(slope, ct.entmax(tensor, alpha) - target)

    def ours(v, a):
        return jax.vmap(lambda row, t: cj.fenchel_young_loss(row, t, a))(v, y).sum()

    def theirs(v, a):
        return ct.fenchel_young_loss(v, target, a).sum()

    order = torch.tensor(float(alpha), dtype=torch.float64)
    second, their_second = (
        jax.jit(jax.hessian(ours, (0, 1)))(x, float(alpha)),
        torch.func.hessian(theirs, (0, 1))(tensor, order),
    )
    for i in range(2):
        for j in range(2):
            close(second[i][j], their_second[i][j], 1e-11)


def test_loss_of_any_map_has_prediction_minus_target_for_gradient(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((3, 5)), cj.budget(rng.standard_normal((3, 5)), 2.0)

    def prediction(v):
        return cj.budget(v, 2.0)

    def loss(v):
        return cj.argmax_loss(v, y, prediction, lambda z: 0.5 * (z**2).sum(-1))

    @jax.jit
    def derived(v):
        def total(v):
            return loss(v).sum()

        return loss(v), jax.grad(total)(v), jax.hessian(total)(v)[0, :, 0], jax.jacrev(prediction)(v[0])

    value, slope, curvature, jacobian = derived(x)
    assert (value > 0).all()
    close(slope, prediction(x) - y)
    close(curvature, jacobian)
    close(cj.argmax_loss(x, prediction(x), prediction, lambda z: 0.5 * (z**2).sum(-1)), np.zeros(3))


@pytest.mark.parametrize("name", ["softmax", "entmax13", "entmax15", "sparsemax", "csparsemax", "csoftmax"])
def test_masks_empty_rows_and_dtypes(name: str, rng: np.random.Generator) -> None:
    def function(v):
        return MAPS[name](cj, v)

    x = rng.standard_normal((4, 5))
    x[0], x[1, 2] = -np.inf, -np.inf
    z = function(x)
    assert (z[0] == 0).all() and z[1, 2] == 0
    close(z.sum(-1)[1:], np.ones(3))
    slope = jax.jit(jax.grad(lambda v: jnp.sum(jax.grad(lambda u: (function(u) ** 2).sum())(v) ** 2)))(x)
    assert np.isfinite(slope).all()
    for dtype, tolerance in ((jnp.float16, 1e-3), (jnp.bfloat16, 8e-3)):  # float32 has a test of its own below
        low = jnp.asarray(x, dtype)
        narrow = function(low)
        assert narrow.dtype == dtype
        close(narrow.astype(float), MAPS[name](ct, torch.tensor(np.asarray(low, float))), tolerance)
    assert function(jnp.zeros((2, 0))).shape == (2, 0)


@pytest.mark.parametrize("alpha", [1.1, 1.5, 2.0, 4.0])
def test_without_64_bits(alpha: float, rng: np.random.Generator) -> None:
    """Values as exact as float32 can hold them; a compiler must leave the exact sums alone."""
    scale = np.repeat([0.01, 1.0, 3.0, 1e4], 8)[:, None]
    x = (scale * rng.standard_normal((32, 300))).astype(np.float32)
    z = cj.entmax(x, alpha)
    assert z.dtype == np.float32
    close(z, entmax(x.astype(float), alpha), 1.5e-7)
    if alpha == 4.0:
        y = cj.constrained_softmax(x, 0.2), cj.budget(x, 3.0)
        close(y[0].sum(-1), np.ones(32), 1e-6)
        close(y[1].sum(-1), np.full(32, 3.0), 1e-6)
        orders = np.tile(np.linspace(1, alpha, 8, dtype=np.float32), 4)
        reference = entmax(x.astype(float), orders[:, None].astype(float))
        close(jax.jit(jax.vmap(cj.entmax))(x, orders), reference, 1.5e-7)
    if alpha == 1.1:
        long = rng.standard_normal(100_000).astype(np.float32)
        close(cj.entmax(long, alpha), entmax(long.astype(float), alpha), 1.5e-7)


def test_constants_in_a_traced_function_are_looked_at() -> None:
    x, bad = jnp.array([[0.3, 1.0, 2.0], [0.1, 0.2, 0.4]]), jnp.array([[0.0, jnp.nan], [0.0, 1.0]])
    functions: tuple[Callable[[Any, Any, Any], Any], ...] = (
        lambda m, array, x: m.sparsemax(x),
        lambda m, array, x: m.entmax(x, array(1.3), temperature=array(2.0)),
        lambda m, array, x: m.budget(x, 1.0),
        lambda m, array, x: m.constrained_softmax(x, 0.6),
        lambda m, array, x: m.box(x),
        lambda m, array, x: m.soft_rank(x),
        lambda m, array, x: m.transport(x),
        lambda m, array, x: m.linear_chain(x, array(np.eye(3)))[0],
    )
    found = jax.jit(lambda: [function(cj, jnp.array, x) for function in functions])()
    for ours, function in zip(found, functions, strict=True):
        close(ours, function(ct, partial(torch.tensor, dtype=torch.float64), torch.tensor(np.asarray(x))))
    for function in (cj.sparsemax, lambda x: cj.budget(x, 1.0)):
        with pytest.raises(cvxift.ProgramError, match="NaN"):
            jax.jit(lambda function=function: function(bad))()


def test_what_cannot_be_refused_is_nan() -> None:
    bad = jnp.array([[0.0, jnp.nan], [0.0, 1.0], [jnp.inf, 0.0]])
    for function in (cj.softmax, cj.sparsemax, cj.entmax, lambda v: cj.entmax(v, 1.3), lambda v: cj.budget(v, 1.0)):
        z = jax.jit(function)(bad)
        assert np.isnan(z[0]).all() and np.isnan(z[2]).all() and not np.isnan(z[1]).any()
    x = jnp.zeros(3)
    assert np.isnan(jax.jit(cj.entmax)(x, 0.5)).all()
    assert np.isnan(jax.jit(lambda v, t: cj.entmax(v, temperature=t))(x, -1.0)).all()
    assert np.isnan(jax.jit(cj.constrained_softmax)(x, 0.2)).all()
    assert np.isnan(jax.jit(cj.budget)(x, 4.0)).all()
    assert np.isnan(jax.jit(cj.box)(x, 1.0, 0.0)).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cj.entmax(jnp.zeros(3), 0.5), "alpha = 0.5"),
        (lambda: cj.entmax(jnp.zeros(3), jnp.array(0.5)), "alpha = 0.5"),
        (lambda: cj.entmax(jnp.zeros((2, 3)), jnp.ones(3)), "size 1 along"),
        (lambda: cj.sparsemax(jnp.zeros(3), temperature=-1.0), "temperature = -1.0"),
        (lambda: cj.softmax(jnp.zeros(3), temperature=jnp.ones(2)), "does not broadcast"),
        (lambda: cj.sparsemax(jnp.zeros(3, dtype=int)), "int"),
        (lambda: cj.softmax(jnp.array([[0.0], [jnp.nan]])), "NaN.*row 1"),
        (lambda: cj.sparsemax(jnp.array([0.0, jnp.inf])), r"\+∞"),
        (lambda: cj.entmax(jnp.zeros(3), axis=1), "axis = 1"),
        (lambda: cj.budget(jnp.zeros(3), 4.0), "between 0 and 3, never to 4"),
        (lambda: cj.budget(jnp.zeros(3), upper=jnp.ones(2)), "upper has shape"),
        (lambda: cj.constrained_softmax(jnp.zeros(3), 0.2), "set is empty"),
        (lambda: cj.box(jnp.zeros(3), 1.0, 0.0), "lower at most upper"),
        (lambda: cj.fenchel_young_loss(jnp.zeros(3), jnp.zeros(2)), "target has shape"),
        (lambda: cj.argmax_loss(jnp.zeros(3), jnp.zeros(3), lambda t: t[:2], jnp.sum), "prediction returned"),
        (lambda: cj.argmax_loss(jnp.zeros((2, 3)), jnp.zeros((2, 3)), cj.softmax, jnp.sum), "regularizer returned"),
    ],
)
def test_bad_input_says_what_is_wrong(call, words: str) -> None:
    with pytest.raises(cvxift.ProgramError, match=words):
        call()


def test_masses_in_half_precision_differ_by_their_rounding_without_64_bits() -> None:
    rng = np.random.default_rng(0)
    masses = [rng.dirichlet(np.ones(n), 3) for n in (5, 4)]
    for dtype, regularizer in ((jnp.bfloat16, "quadratic"), (jnp.float16, "entropic")):
        x = jnp.asarray(rng.standard_normal((3, 5, 4)), dtype)
        a, b = (jnp.asarray(mass, dtype) for mass in masses)
        z = cj.transport(x, a, b, regularizer=regularizer)
        assert z.dtype == dtype
        np.testing.assert_allclose(z.astype(float).sum(-1), a.astype(float), atol=1e-2)
        with pytest.raises(cvxift.ProgramError, match="Normalize"):
            cj.transport(x, a, 1.1 * b)


@pytest.mark.parametrize("bits", ["without_64_bits", "with_64_bits"])
def test_quadratic_plans_in_single_precision(bits: str, rng: np.random.Generator) -> None:
    """Which entries have mass is decided among masses over eight orders of magnitude under scores up to 1e5."""
    x = (10.0 ** rng.uniform(-1, 5, (60, 1, 1)) * rng.standard_normal((60, 5, 4))).astype(np.float32)
    a, b = (10.0 ** rng.uniform(-8, 0, (60, n)) for n in (5, 4))
    a, b = ((mass / mass.sum(-1, keepdims=True)).astype(np.float32) for mass in (a, b))
    exact = quadratic_transport(x.astype(float), a.astype(float), b.astype(float)).z
    most = np.minimum(a[:, :, None], b[:, None, :])  # an entry's size at most

    def plan(*given):
        return cj.transport(*given, regularizer="quadratic")

    def value(*given):
        z = plan(*given)
        return (z**2).sum(), z

    found = [plan(x, a, b)]
    if bits == "without_64_bits":  # where the host computes; elsewhere a compilation takes XLA ten seconds
        slopes, mapped = jax.jit(jax.vmap(jax.grad(value, has_aux=True)))(x, a, b)
        found += [jax.jit(plan)(x, a, b), mapped]
        close(jax.vmap(plan, (0, None, None))(x, a[0], b[0]), plan(x, a[:1], b[:1]), 0)
    for z in found:
        assert z.dtype == np.float32
        close(z / most, exact / most, 1e-6)
    if bits == "with_64_bits":  # with derivatives in tests/argmax/test_transport.py
        return
    tensors = [torch.tensor(part, dtype=torch.float64) for part in (x, a, b)]
    tensors[2] *= tensors[1].sum(-1, keepdim=True) / tensors[2].sum(-1, keepdim=True)  # equal but for float32
    tensors[0].requires_grad_()
    (theirs,) = torch.autograd.grad((ct.transport(*tensors, regularizer="quadratic") ** 2).sum(), tensors[0])
    close(slopes, theirs, 1e-5)
