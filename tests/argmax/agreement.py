"""What tests of closed forms share: tables of problems, the two paths of one, what they agree in, and optimality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

from cvxift.argmax.closed_form.closed_map import ClosedMap, ClosedSolved

Array = NDArray[np.float64]
Built = TypeVar("Built")


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
        close(closed.second(a, bar, dot), generic.second(b, bar, dot), "second")
        close(closed.second_tangent(a, dot, other), generic.second_tangent(b, dot, other), "second tangent")


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
