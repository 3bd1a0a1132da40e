"""What tests of closed forms share: tables of problems, the two paths of one, what they agree in, and optimality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import cvxpy as cp
import numpy as np
import pytest
from numpy.typing import NDArray

from cvxift.argmax.closed_form.closed_map import GENERIC, ClosedMap, ClosedSolved
from cvxift.layers.core import LayerCore

Array = NDArray[np.float64]
Built = TypeVar("Built")


RANGES = {"temperature": (0.3, 2.0), "upper": (0.35, 0.7), "lower": (-0.2, 0.1), "total": (0.9, 1.3)}
RANGES |= {"prior": (0.2, 1.5), "totals": (0.7, 1.2), "caps": (1.3, 1.6), "a": (0.1, 1.0), "mass": (0.1, 1.0)}


def draw(parameters: Sequence[cp.Parameter], rng: np.random.Generator, batch: tuple[int, ...] = ()) -> list[Array]:
    """Values at which the sets are not empty, by the parameters' names: bounds, sums, masses and sorted values."""
    out = {}
    for p in parameters:
        name, shape = p.name(), (*batch, *p.shape)
        out[name] = rng.uniform(*RANGES[name], shape) if name in RANGES else rng.standard_normal(shape)
        if name == "values":
            out[name] = -np.sort(-np.cumsum(rng.uniform(0.2, 1.0, shape), axis=-1), axis=-1)
    heads = {p.name(): p.size for p in parameters if p.name() in ("b", "b_head")}
    for name, size in heads.items():  # of the same total as a
        share = rng.dirichlet(np.full(size + (name == "b_head"), 3.0), batch)
        out[name] = (share * out["a"].sum(-1, keepdims=True))[..., :size]
    return [out[p.name()] for p in parameters]


def point(parameters: Sequence[cp.Parameter], rng: np.random.Generator, batch: tuple[int, ...] = ()) -> Array:
    """θ of such values."""
    return flat(draw(parameters, rng, batch), batch)


def flat(values: Sequence[Array], batch: tuple[int, ...] = ()) -> Array:
    """θ from the parameters' values."""
    return np.concatenate([value.reshape(*batch, -1) for value in values], axis=-1)


class Builders(dict[str, Callable[[], Built]]):
    """What builds a problem, by name; an instance decorates functions, whose names they enter it by."""

    def __call__(self, build: Callable[[], Built]) -> None:
        self[build.__name__] = build


def both(problem: cp.Problem, variables: Sequence[cp.Variable]) -> tuple[ClosedMap, ClosedMap]:
    """The problem's map with its closed form, and without."""
    closed = ClosedMap(problem, None, variables)
    return closed, ClosedMap(problem, None, variables, closed_form="never", program=closed.program)


def agree(
    closed: ClosedMap,
    generic: ClosedMap,
    theta: Array,
    rng: np.random.Generator,
    second: bool = True,
    tolerance: float = 1e-8,
) -> None:
    """Both paths at θ: value, and products of first and second order, relative to the largest entry."""
    a, b = closed.solve(theta), generic.solve(theta)
    assert isinstance(a, ClosedSolved) and not isinstance(b, ClosedSolved)
    bar = rng.standard_normal(a.outputs.shape)
    dot, other = rng.standard_normal((2, *theta.shape))

    def close(left: Array, right: Array, what: str) -> None:
        size = 1.0 + np.abs(right).max(initial=0.0)
        assert np.abs(left - right).max(initial=0.0) <= tolerance * size, (
            f"{what} differs by {np.abs(left - right).max() / size:.1e}"
        )

    close(a.outputs, b.outputs, "value")
    close(closed.vjp(a, bar), generic.vjp(b, bar), "vjp")
    close(closed.jvp(a, dot), generic.jvp(b, dot), "jvp")
    if second:
        close(closed.derivative(a, (dot,), bar), generic.derivative(b, (dot,), bar), "second")
        close(closed.derivative(a, (dot, other)), generic.derivative(b, (dot, other)), "second tangent")


def optimal(closed: ClosedMap, theta: Array) -> ClosedSolved:
    """One instance solved in closed form: optimal by the problem's terms, and by its canonical program."""
    assert closed.violation(theta) <= 1e-11
    solved = closed.solve(theta)
    assert isinstance(solved, ClosedSolved)
    (solution,) = solved.solutions
    assert solution.ok
    outputs = np.concatenate([output.value(solution.x).ravel() for output in closed.outputs])
    np.testing.assert_allclose(outputs, solved.outputs, atol=1e-8 * (1.0 + np.abs(outputs).max()))
    return solved


def core_of(problem: cp.Problem, **options: Any) -> LayerCore:
    """What layers of both frameworks hold, of all parameters and variables."""
    return LayerCore(problem, problem.parameters(), problem.variables(), **options)


def torch_layers_agree(problem: cp.Problem, values: Sequence[Array], path: str) -> tuple[Any, list[Any]]:
    """PyTorch layers with the closed form and without: outputs and gradients of two orders, at a batch of values.

    Returns:
        The layer with the closed form, and the tensors.
    """
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    tensors = [torch.tensor(value, requires_grad=True) for value in values]
    layers, found = [], []
    for closed_form in ("auto", "never"):
        layers.append(CvxpyLayer(problem, problem.parameters(), problem.variables(), closed_form=closed_form))
        outputs = layers[-1](*tensors)
        assert layers[-1].last_report.path == (path if closed_form == "auto" else GENERIC)
        loss = sum((out**3).sum() for out in outputs)
        grads = torch.autograd.grad(loss, tensors, create_graph=True)
        found.append([*outputs, *grads, *torch.autograd.grad(sum((grad**2).sum() for grad in grads), tensors)])
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, atol=1e-8, rtol=1e-8)
    return layers[0], tensors


def jax_layers_agree(problem: cp.Problem, values: Sequence[Array], path: str) -> None:
    """JAX layers with the closed form and without: gradients of a batch, and one instance's Hessian."""
    jax = pytest.importorskip("jax")
    from cvxift.jax import CvxpyLayer

    every, found = tuple(range(len(values))), []
    with jax.enable_x64(True):
        for closed_form in ("auto", "never"):
            # Outputs in another order than the program's own.
            layer = CvxpyLayer(problem, problem.parameters(), problem.variables()[::-1], closed_form=closed_form)

            def loss(*args: Any, layer: Any = layer) -> Any:
                return sum((out**3).sum() for out in layer(*args))

            grads = jax.jit(jax.vmap(jax.grad(loss, argnums=every)))(*values)
            hessian = jax.jit(jax.hessian(loss))(*(value[0] for value in values))
            assert layer.last_report.path == (path if closed_form == "auto" else GENERIC)
            found.append([*map(np.asarray, grads), np.asarray(hessian)])
    for left, right in zip(*found, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-8 * (1.0 + np.abs(right).max()))
