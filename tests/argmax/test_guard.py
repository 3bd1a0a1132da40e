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


def marginals(m: Any, u: Any, **options: Any) -> Any:
    states, pairs = chain(m, u, **options)
    return (torch.cat if m is ct else jnp.concatenate)([states.flatten(), pairs.flatten()])


def chain_loss(m: Any, u: Any, **options: Any) -> Any:
    target = torch.zeros(2, dtype=torch.long) if m is ct else jnp.zeros(2, dtype=int)
    return m.linear_chain_loss(u, u * 0.0 + 0.1, target, **options)


def transport(m: Any, x: Any, v: Any, **options: Any) -> Any:
    """v: the temperature, the sums of both masses, and what tilts the first ones, towards a negative entry."""
    first = like(m, HALF, x) * v[1] + like(m, np.array([1.0, -1.0]), x) * v[3]
    return m.transport(x.reshape(2, 2), first, like(m, HALF, x) * v[2], temperature=v[0], **options)


def like(m: Any, values: np.ndarray, x: Any) -> Any:
    return torch.tensor(values).to(x.dtype) if m is ct else jnp.asarray(values, dtype=x.dtype)


# Forms of scores x and of what else has a range: their temperature v, or temperature and more as the entries of v.
TEMPERED: dict[str, FORM] = {
    "softmax": lambda m, x, v: m.softmax(x, temperature=v),
    "sparsemax": lambda m, x, v: m.sparsemax(x, temperature=v),
    "entmax": lambda m, x, v: m.entmax(x, 1.5, temperature=v),
    "entmax, α = 2.5": lambda m, x, v: m.entmax(x, 2.5, temperature=v),
    "soft rank": lambda m, x, v: m.soft_rank(x, v),
    "entropic soft rank": lambda m, x, v: m.soft_rank(x, v, "entropic"),
    "soft sort": lambda m, x, v: m.soft_sort(x, v),
    "rank loss": lambda m, x, v: m.rank_loss(x, like(m, RANKS, x), v),
    "Fenchel-Young loss": lambda m, x, v: m.fenchel_young_loss(x, like(m, np.eye(4)[0], x), 1.5, temperature=v),
    "birkhoff": lambda m, x, v: m.birkhoff(x.reshape(2, 2), v),
    "transport loss": lambda m, x, v: m.transport_loss(x.reshape(2, 2), like(m, np.eye(2), x), v),
    "chain": lambda m, x, v: marginals(m, x.reshape(2, 2), temperature=v),
    "log partition": lambda m, x, v: chain(m, x.reshape(2, 2), temperature=v, log_partition=True),
    "chain loss": lambda m, x, v: chain_loss(m, x.reshape(2, 2), temperature=v),
}
# Besides their temperature: good values of the others, and for each of them its bad ones.
BOUNDED: dict[str, tuple[FORM, list[float], list[list[float]]]] = {
    "constrained softmax": (
        lambda m, x, v: m.constrained_softmax(x, v[1], temperature=v[0]),
        [0.6],
        [[0.1, -1.0, np.nan]],
    ),
    "constrained sparsemax": (lambda m, x, v: m.constrained_sparsemax(x, v[1], temperature=v[0]), [0.6], [[0.1]]),
    "budget": (
        lambda m, x, v: m.budget(x, v[1], v[2], temperature=v[0]),
        [1.0, 0.1],
        [[9.0, np.nan], [2.0, -np.inf]],
    ),
    "box": (lambda m, x, v: m.box(x, v[1], 0.5, temperature=v[0]), [0.1], [[1.0, np.nan]]),
    "quadratic box": (
        lambda m, x, v: m.box(x, 0.0, v[1], temperature=v[0], regularizer="quadratic"),
        [0.6],
        [[np.inf]],
    ),
    "transport": (lambda m, x, v: transport(m, x, v), [1.0, 1.0, 0.0], [[1.1], [4.0, np.nan], [1.5]]),
    "quadratic transport": (lambda m, x, v: transport(m, x, v, regularizer="quadratic"), [1.0, 1.0, 0.0], [[1.1]]),
}
ORDERED: dict[str, FORM] = {
    "entmax, order": lambda m, x, v: m.entmax(x, v),
    "Fenchel-Young loss, order": lambda m, x, v: m.fenchel_young_loss(x, like(m, np.eye(4)[0], x), v),
}
FINITE = ("soft rank", "entropic soft rank", "soft sort", "rank loss")  # −∞ is no mask there
WEIGHTED = ("box", "quadratic box")  # +∞ gives the upper bound there
TEMPERATURES = (0.0, -1.0, np.nan, np.inf)


def bad_scores(name: str) -> list[np.ndarray]:
    """Scores that a form refuses."""
    allowed = {"-inf": name not in FINITE, "inf": name in WEIGHTED}
    return [np.array([0.3, bad, 0.9, 0.1]) for bad in (np.nan, np.inf, -np.inf) if not allowed.get(str(bad))]


# Each form, a good value of its other arguments, and pairs of scores and such values of which one is out of its range.
CASES: dict[str, tuple[FORM, Any, list[tuple[np.ndarray, Any]]]] = {
    name: (form, 0.7, [(X, bad) for bad in TEMPERATURES] + [(x, 1.0) for x in bad_scores(name)])
    for name, form in TEMPERED.items()
}
CASES |= {name: (form, 1.3, [(X, v) for v in (0.5, 0.99, 0.0, -1.0, np.nan, np.inf)]) for name, form in ORDERED.items()}
for _name, (_form, _good, _bad) in BOUNDED.items():
    _at = np.array([0.7, *_good])
    _values = [TEMPERATURES, *_bad]
    _pairs = [(X, np.where(np.arange(len(_at)) == k, v, _at)) for k, some in enumerate(_values) for v in some]
    CASES[_name] = (_form, _at, _pairs + [(x, _at) for x in bad_scores(_name)])


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("case", CASES)
def test_good_arguments_have_values(case: str) -> None:
    """What is refused below is refused for its bad value alone."""
    form, good, _ = CASES[case]
    assert np.isfinite(form(ct, torch.tensor(X), torch.tensor(good, dtype=torch.float64)).numpy()).all()


@pytest.mark.parametrize("case", CASES)
def test_pytorch_refuses_or_gives_nan(case: str) -> None:
    form, _, pairs = CASES[case]

    def mapped(x: Any, v: Any) -> Any:
        return torch.vmap(lambda x, v: form(ct, x, v))(x[None], v[None])[0]

    for x, v in _tensors(pairs):
        with pytest.raises(cvxift.ProgramError):
            form(ct, x, v)
        _refused_or_nan(case, lambda x=x, v=v: mapped(x, v))
        _refused_or_nan(case, lambda x=x, v=v: torch.func.grad(lambda *given: mapped(*given).sum(), (0, 1))(x, v))


@pytest.mark.parametrize("case", CASES)
def test_compiled_pytorch_refuses_or_gives_nan(case: str) -> None:
    """The graph that is traced has the guards; what a backend makes of it is tested with the PyTorch adapter."""
    form, _, pairs = CASES[case]
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, v: form(ct, x, v), fullgraph=True, backend="eager")
    for x, v in _tensors(pairs):
        given = x.requires_grad_(), v.requires_grad_()
        _refused_or_nan(case, lambda given=given: compiled(*given).detach())
        _refused_or_nan(case, lambda given=given: torch.autograd.grad(compiled(*given).sum(), given))


@pytest.mark.parametrize("case", CASES)
def test_jax_refuses_or_gives_nan(case: str) -> None:
    form, good, pairs = CASES[case]

    def value(x: Any, v: Any) -> tuple[Any, Any]:
        z = form(cj, x, v)
        return (z**2).sum(), z

    compiled = jax.jit(jax.vmap(jax.value_and_grad(value, (0, 1), has_aux=True)))
    x, v = (jnp.asarray(np.array(part)) for part in zip(*pairs, (X, good)))
    for one in zip(x[:-1], v[:-1]):
        with pytest.raises(cvxift.ProgramError):
            form(cj, *one)
    (_, z), slopes = compiled(x, v)
    nan = [np.isnan(np.asarray(part)[:-1]) for part in (z, *slopes)]
    assert nan[0].any() if "box" in case else all(part.all() for part in nan)
    assert np.isfinite(np.asarray(z)[-1]).all()


def _tensors(pairs: list[tuple[np.ndarray, Any]]) -> list[tuple[Any, Any]]:
    return [(torch.tensor(x), torch.tensor(v, dtype=torch.float64)) for x, v in pairs]


def _refused_or_nan(case: str, call: Callable[[], Any]) -> None:
    """Boxes have separate entries, of which one may be bad; elsewhere all values and derivatives are NaN."""
    try:
        value = call()
    except cvxift.ProgramError:
        return
    parts = value if isinstance(value, tuple) else (value,)
    assert any(part.isnan().any() for part in parts) if "box" in case else all(part.isnan().all() for part in parts)
