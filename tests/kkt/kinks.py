"""Problems at degenerate points with their one-sided derivatives, and every way to ask for a derivative there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import cvxpy as cp
import numpy as np
import pytest

from cvxift import ApplicabilityWarning, differentiate


class Case(NamedTuple):
    """⟨bar, output⟩ at a point, and what it does along a direction of one parameter.

    Attributes:
        slopes: the right derivative and the left one (−1 times the derivative along −direction).
        rows: words of the message that name the constraints.
    """

    problem: cp.Problem
    output: cp.Variable
    bar: np.ndarray
    parameter: cp.Parameter
    direction: np.ndarray
    slopes: tuple[float, float]
    rows: str = ""


def heard(ask: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What a call returns, and the warnings of kinks and flat directions that it gives."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        value = ask()
    return value, [str(w.message) for w in said if issubclass(w.category, ApplicabilityWarning)]


def numpy_vjp(case: Case, **options: Any) -> float:
    gradient = differentiate(case.problem, **options).vjp({case.output: case.bar})[case.parameter]
    return float(np.sum(gradient * case.direction))


def numpy_jvp(case: Case, **options: Any) -> float:
    tangent = differentiate(case.problem, **options).jvp({case.parameter: case.direction})[case.output]
    return float(np.sum(tangent * case.bar))


def torch_backward(case: Case, copies: int = 0, **options: Any) -> float:
    torch: Any = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    parameters = case.problem.parameters()
    layer = CvxpyLayer(case.problem, parameters, [case.output], **options)
    values = [torch.tensor(np.asarray(p.value, dtype=float)).requires_grad_() for p in parameters]
    given = [torch.stack([v] * copies) if copies else v for v in values]
    layer(*given)[0].mul(torch.tensor(case.bar)).sum().backward()
    gradient = values[[p.id for p in parameters].index(case.parameter.id)].grad
    return float(np.sum(gradient.numpy() * case.direction)) / max(copies, 1)


def torch_batch(case: Case, **options: Any) -> float:
    return torch_backward(case, copies=3, **options)


def _jax(case: Case, options: dict[str, Any]) -> tuple[Any, np.ndarray]:
    from cvxift.jax import CvxpyLayer

    parameters = case.problem.parameters()
    layer = CvxpyLayer(case.problem, parameters, [case.output], **options)

    def f(value: Any) -> Any:
        given = [value if p.id == case.parameter.id else np.asarray(p.value, dtype=float) for p in parameters]
        return (layer(*given)[0] * case.bar).sum()

    return f, np.asarray(case.parameter.value, dtype=float)


def jax_grad(case: Case, **options: Any) -> float:
    jax: Any = pytest.importorskip("jax")
    with jax.enable_x64(True):
        f, value = _jax(case, options)
        return float(np.sum(np.asarray(jax.grad(f)(jax.numpy.asarray(value))) * case.direction))


def jax_jvp(case: Case, **options: Any) -> float:
    jax: Any = pytest.importorskip("jax")
    with jax.enable_x64(True):
        f, value = _jax(case, options)
        return float(jax.jvp(f, (jax.numpy.asarray(value),), (jax.numpy.asarray(case.direction),))[1])


WAYS = {f.__name__: f for f in (numpy_vjp, numpy_jvp, torch_backward, torch_batch, jax_grad, jax_jvp)}


def every_way(argument: str, values: Iterable[Any], in_jax: Collection[Any]) -> pytest.MarkDecorator:
    """Parametrizes a test by a value and a way: NumPy's two with each value, PyTorch's two in turn, JAX's for some.

    What judges a point is one code below both frameworks: every value has its modes and every way its values, but not
    every value every way.
    """
    cases = []
    for place, value in enumerate(values):
        cases += [(value, "numpy_vjp"), (value, "numpy_jvp"), (value, ("torch_backward", "torch_batch")[place % 2])]
        cases += [(value, way) for way in ("jax_grad", "jax_jvp") if value in in_jax]
    assert any(way == "jax_grad" for _, way in cases)
    return pytest.mark.parametrize((argument, "way"), cases)


def fresh(case: Case) -> Case:
    """The case with a problem that holds no point."""
    for variable in case.problem.variables():
        variable.value = None
    case.problem._status = None
    return case


def two_bounds(names: tuple[str, str] = ("t1", "t2"), values: tuple[float, float] = (1.0, 1.0)) -> Case:
    """x = min(t1, t2)."""
    x, (t1, t2) = cp.Variable(name="x"), (cp.Parameter(name=n, value=v) for n, v in zip(names, values, strict=True))
    problem = cp.Problem(cp.Minimize(cp.square(x - 5)), [x <= t1, x <= t2])
    return Case(problem, x, np.array(1.0), t1, np.array(1.0), (0.0, 1.0), "x <= ")


def tied_maximum() -> Case:
    """x = max(t)."""
    x, t = cp.Variable(name="x"), cp.Parameter(3, name="t", value=np.array([2.0, 1.0, 2.0]))
    return Case(cp.Problem(cp.Minimize(x), [x >= t]), x, np.array(1.0), t, np.eye(3)[0], (1.0, 0.0), "x >= ")


def two_balls() -> Case:
    """The nearest point to (3, 4) in two balls of one centre."""
    x = cp.Variable(2, name="x")
    r = cp.Parameter(2, name="r", value=np.ones(2))
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(x - np.array([3.0, 4.0]))), [cp.norm(x) <= r[0], cp.norm(2 * x) <= 2 * r[1]]
    )
    return Case(problem, x, np.array([1.0, 0.0]), r, np.array([1.0, 0.0]), (0.0, 0.6), "norm")


def detour(copies: int) -> Case:
    """Flows A→C (cheap) and A→B→C (dear) where B demands d = 0: x_AB = max(d, 0), x_BC = max(−d, 0)."""
    x, d = cp.Variable((copies, 3), name="x"), cp.Parameter(copies, name="d", value=np.zeros(copies))
    problem = cp.Problem(
        cp.Minimize(cp.sum(x @ np.array([1.0, 5.0, 5.0])) + 0.05 * cp.sum_squares(x)),
        [x[:, 1] - x[:, 2] == d, x[:, 0] + x[:, 2] == 1, x >= 0],
    )
    bar = np.tile([0.0, 1.0, 3.0], (copies, 1))
    rows = "x >= 0" if copies < 10 else "x[:, 1] - x[:, 2] == d"  # a message names the first three
    return Case(problem, x, bar, d, np.eye(copies)[0], (1.0, -3.0), rows)


def soft_control() -> Case:
    """Hard and soft limits meet at v0 = 0.7, where u[2] is smooth in v0."""
    n, v0 = 4, cp.Parameter(name="v0", value=0.7)
    v, u, e = cp.Variable(n + 1, name="v"), cp.Variable(n, name="u"), cp.Variable(n, name="e")
    cost = cp.sum_squares(v) + 0.1 * cp.sum_squares(u) + 100 * cp.sum_squares(e) + 2 * cp.sum(e)
    problem = cp.Problem(
        cp.Minimize(cost), [v[0] == v0, v[1:] == v[:-1] + 0.1 * u, cp.abs(u) <= 1, v[1:] <= 0.5 + e, e >= 0]
    )
    return Case(problem, u, np.eye(n)[2], v0, np.array(1.0), (-1.603, -1.603))
