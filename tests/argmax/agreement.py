"""What every closed form must pass: the other path's numbers, and a canonical point that is optimal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cvxift import cones as cone
from cvxift.argmax.recognition.closed_map import ClosedMap, ClosedSolved
from cvxift.argmax.recognition.multipliers import violation

Array = NDArray[np.float64]


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
        assert np.abs(left - right).max(initial=0.0) <= tolerance * size, what

    close(a.outputs, b.outputs, "value")
    close(closed.vjp(a, bar), generic.vjp(b, bar), "vjp")
    close(closed.jvp(a, dot), generic.jvp(b, dot), "jvp")
    if second:
        close(closed.second(a, bar, dot), generic.second(b, bar, dot), "second")
        close(closed.second_tangent(a, dot, other), generic.second_tangent(b, dot, other), "second tangent")


def optimal(closed: ClosedMap, theta: Array) -> ClosedSolved:
    """One instance solved in closed form, whose whole primal-dual point is optimal and accepted as it is."""
    structure, point = closed.program.structure, closed.point(theta)
    assert point is not None
    x, s, y = point
    assert violation(structure, closed.data(theta), x, s, y) <= 1e-12
    assert cone.distance(structure.cones, s).max(initial=0.0) <= 1e-12
    assert cone.distance_dual(structure.cones, y).max(initial=0.0) <= 1e-11
    solved = closed.solve(theta)
    assert isinstance(solved, ClosedSolved)
    (solution,) = solved.solutions
    assert solution.ok and solution.solver == closed.path and solution.residuals.worst <= 1e-12
    return solved
