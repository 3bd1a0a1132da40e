"""Arguments out of their ranges: refused where they can be seen, NaN with all derivatives where they cannot.

Every closed form, with every argument that has a range, in PyTorch (eager, mapped, compiled) and JAX (eager, compiled,
compiled and mapped). A plausible number is never right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

import cvxift  # noqa: E402
from cvxift import jax as cj  # noqa: E402
from cvxift import torch as ct  # noqa: E402

X, SQUARE = np.array([0.3, -1.2, 0.9, 0.1]), np.array([[0.3, -1.2], [0.9, 0.1]])
HALF, RANKS = np.array([0.5, 0.5]), np.array([1.0, 3.0, 4.0, 2.0])
FORM = Callable[..., Any]


def chain(m: Any, u: Any, e: Any = 0.0, **options: Any) -> Any:
    return m.linear_chain(u, u[:2, :2] * 0.0 + e, **options)


def chain_loss(m: Any, u: Any, **options: Any) -> Any:
    target = torch.zeros(2, dtype=torch.long) if m is ct else jnp.zeros(2, dtype=int)
    return m.linear_chain_loss(u, u * 0.0 + 0.1, target, **options)


def like(m: Any, values: np.ndarray, x: Any) -> Any:
    return torch.tensor(values).to(x.dtype) if m is ct else jnp.asarray(values, dtype=x.dtype)


# What a bad value v stands for, in place of an argument of a form.
TEMPERATURES: dict[str, FORM] = {
    "softmax": lambda m, x, v: m.softmax(x, temperature=v),
    "sparsemax": lambda m, x, v: m.sparsemax(x, temperature=v),
    "entmax": lambda m, x, v: m.entmax(x, 1.5, temperature=v),
    "entmax, α = 2.5": lambda m, x, v: m.entmax(x, 2.5, temperature=v),
    "constrained softmax": lambda m, x, v: m.constrained_softmax(x, 0.5, temperature=v),
    "constrained sparsemax": lambda m, x, v: m.constrained_sparsemax(x, 0.5, temperature=v),
    "budget": lambda m, x, v: m.budget(x, 2.0, temperature=v),
    "box": lambda m, x, v: m.box(x, temperature=v),
    "quadratic box": lambda m, x, v: m.box(x, temperature=v, regularizer="quadratic"),
    "soft rank": lambda m, x, v: m.soft_rank(x, v),
    "entropic soft rank": lambda m, x, v: m.soft_rank(x, v, "entropic"),
    "soft sort": lambda m, x, v: m.soft_sort(x, v),
    "rank loss": lambda m, x, v: m.rank_loss(x, like(m, RANKS, x), v),
    "Fenchel-Young loss": lambda m, x, v: m.fenchel_young_loss(x, like(m, np.eye(4)[0], x), 1.5, temperature=v),
    "transport": lambda m, x, v: m.transport(x.reshape(2, 2), temperature=v),
    "quadratic transport": lambda m, x, v: m.transport(x.reshape(2, 2), temperature=v, regularizer="quadratic"),
    "birkhoff": lambda m, x, v: m.birkhoff(x.reshape(2, 2), v),
    "transport loss": lambda m, x, v: m.transport_loss(x.reshape(2, 2), like(m, np.eye(2), x), v),
    "chain": lambda m, x, v: chain(m, x.reshape(2, 2), temperature=v)[0],
    "chain, transitions": lambda m, x, v: chain(m, x.reshape(2, 2), temperature=v)[1],
    "log partition": lambda m, x, v: chain(m, x.reshape(2, 2), temperature=v, log_partition=True),
    "chain loss": lambda m, x, v: chain_loss(m, x.reshape(2, 2), temperature=v),
}
ORDERS: dict[str, FORM] = {
    "entmax": lambda m, x, v: m.entmax(x, v),
    "Fenchel-Young loss": lambda m, x, v: m.fenchel_young_loss(x, like(m, np.eye(4)[0], x), v),
}
BOUNDS: dict[str, tuple[FORM, float]] = {
    "constrained softmax, empty": (lambda m, x, v: m.constrained_softmax(x, v), 0.1),
    "constrained softmax, negative": (lambda m, x, v: m.constrained_softmax(x, v), -1.0),
    "constrained softmax, NaN": (lambda m, x, v: m.constrained_softmax(x, v), np.nan),
    "constrained sparsemax, empty": (lambda m, x, v: m.constrained_sparsemax(x, v), 0.1),
    "budget, total": (lambda m, x, v: m.budget(x, v), 9.0),
    "budget, NaN": (lambda m, x, v: m.budget(x, v), np.nan),
    "budget, lower": (lambda m, x, v: m.budget(x, 1.0, v), 2.0),
    "budget, no lower": (lambda m, x, v: m.budget(x, 1.0, v), -np.inf),
    "box, crossed": (lambda m, x, v: m.box(x, v, 0.5), 1.0),
    "box, NaN lower": (lambda m, x, v: m.box(x, v, 0.5), np.nan),
    "box, unbounded": (lambda m, x, v: m.box(x, 0.0, v, regularizer="quadratic"), np.inf),
    "masses, totals": (lambda m, x, v: m.transport(x.reshape(2, 2), like(m, HALF, x) * v), 1.1),
    "masses, quadratic": (
        lambda m, x, v: m.transport(x.reshape(2, 2), like(m, HALF, x) * v, regularizer="quadratic"),
        1.1,
    ),
    "masses, far": (lambda m, x, v: m.transport(x.reshape(2, 2), None, like(m, HALF, x) * v), 4.0),
    "masses, negative": (
        lambda m, x, v: m.transport(x.reshape(2, 2), like(m, HALF, x) * 0.0 + like(m, np.array([2.0, -1.0]), x) * v),
        1.0,
    ),
    "masses, NaN": (lambda m, x, v: m.transport(x.reshape(2, 2), None, like(m, HALF, x) * v), np.nan),
}
FINITE = ("soft rank", "entropic soft rank", "soft sort", "rank loss")  # −∞ is no mask there
WEIGHTED = ("box", "quadratic box")  # +∞ gives the upper bound there


def bad_scores(name: str) -> list[tuple[np.ndarray, float]]:
    """Scores that a form refuses, at temperature 1."""
    allowed = {"-inf": name not in FINITE, "inf": name in WEIGHTED}
    return [(np.array([0.3, bad, 0.9, 0.1]), 1.0) for bad in (np.nan, np.inf, -np.inf) if not allowed.get(str(bad))]


# Each form, and pairs of scores and a value of its other argument of which one is out of its range.
CASES: dict[str, tuple[FORM, list[tuple[np.ndarray, float]]]] = {
    **{
        f"{name}, temperature": (form, [(X, bad) for bad in (0.0, -1.0, np.nan, np.inf)] + bad_scores(name))
        for name, form in TEMPERATURES.items()
    },
    **{
        f"{name}, order": (form, [(X, v) for v in (0.5, 0.99, 0.0, -1.0, np.nan, np.inf)])
        for name, form in ORDERS.items()
    },
    **{name: (form, [(X, bad)]) for name, (form, bad) in BOUNDS.items()},
}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("case", CASES)
def test_good_arguments_have_values(case: str) -> None:
    """What is refused below is refused for its bad value alone."""
    good = {"temperature": 0.7, "order": 1.3, "total": 1.0, "masses": 1.0, "lower": 0.1, "crossed": 0.1}
    value = next((number for word, number in good.items() if word in case), 0.6)
    if case != "masses, negative":
        z = CASES[case][0](ct, torch.tensor(X), torch.tensor(value, dtype=torch.float64))
        assert np.isfinite(z.numpy()).all()


@pytest.mark.parametrize("case", CASES)
def test_pytorch_refuses_or_gives_nan(case: str) -> None:
    form, pairs = CASES[case]

    def mapped(x: Any, v: Any) -> Any:
        return torch.vmap(lambda x, v: form(ct, x, v))(x[None], v[None])[0]

    for x, v in _tensors(pairs):
        with pytest.raises(cvxift.ProgramError):
            form(ct, x, v)
        _refused_or_nan(case, lambda x=x, v=v: mapped(x, v))
        _refused_or_nan(case, lambda x=x, v=v: torch.func.grad(lambda *given: mapped(*given).sum(), (0, 1))(x, v))


@pytest.mark.parametrize("case", CASES)
def test_compiled_pytorch_refuses_or_gives_nan(case: str) -> None:
    form, pairs = CASES[case]
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, v: form(ct, x, v), fullgraph=True, backend="aot_eager")
    for x, v in _tensors(pairs):
        given = x.requires_grad_(), v.requires_grad_()
        _refused_or_nan(case, lambda given=given: compiled(*given).detach())
        _refused_or_nan(case, lambda given=given: torch.autograd.grad(compiled(*given).sum(), given))


@pytest.mark.parametrize("case", CASES)
def test_jax_refuses_or_gives_nan(case: str) -> None:
    form, pairs = CASES[case]

    def value(x: Any, v: Any) -> tuple[Any, Any]:
        z = form(cj, x, v)
        return (z**2).sum(), z

    compiled = jax.jit(jax.vmap(jax.value_and_grad(value, (0, 1), has_aux=True)))
    good = (X, 0.6) if "order" not in case else (X, 1.6)
    x, v = (jnp.asarray(np.array(part)) for part in zip(*pairs, good))
    for one in zip(x[:-1], v[:-1]):
        with pytest.raises(cvxift.ProgramError):
            form(cj, *one)
    (_, z), slopes = compiled(x, v)
    nan = [np.isnan(np.asarray(part)[:-1]) for part in (z, *slopes)]
    assert nan[0].any() if "box" in case else all(part.all() for part in nan)
    if case not in BOUNDS:
        assert np.isfinite(np.asarray(z)[-1]).all()


def _tensors(pairs: list[tuple[np.ndarray, float]]) -> list[tuple[Any, Any]]:
    return [(torch.tensor(x), torch.tensor(v, dtype=torch.float64)) for x, v in pairs]


def _refused_or_nan(case: str, call: Callable[[], Any]) -> None:
    """Boxes have separate entries, of which one may be bad; elsewhere all values and derivatives are NaN."""
    try:
        value = call()
    except cvxift.ProgramError:
        return
    parts = value if isinstance(value, tuple) else (value,)
    assert any(part.isnan().any() for part in parts) if "box" in case else all(part.isnan().all() for part in parts)
