"""Whether a direction without curvature is one in which the solution can move: uniqueness is decided, not inferred.

A null vector of K says that the objective has no slope and no curvature along it at the point. If it moves linear rows
alone, that holds for a whole step: there are other solutions. If it moves a curved cone, the curvature may vanish at
the point alone, as that of x⁴ does at 0, and the solution is unique; then the user's own objective and constraints are
evaluated a good way along it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift.diagnostics.domain import evaluate, values_at
from cvxift.kkt.regularity.kernel import Kernel
from cvxift.kkt.regularity.kinks import TOUCH
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.program.structure import Floats

REACH = (0.1, 0.3)  # of the variables' size, that a direction is followed; at 0.1 even x⁸ has grown by 1e-8
COSTS = 1e-9  # of the objective's growth along the whole size, up to which nothing was gained or lost
ROUNDING = 1e-12  # of the objective, and of constraints, that evaluating them leaves
STILL = 1e-9  # of its row's size, that a direction may move a curved cone and count as leaving it alone


def flat_direction(point: LocalPoint, kernel: Kernel) -> Floats | None:
    """A direction, shape (n,), in which the variables asked for can move without loss; None if none is found.

    First among those that leave curved cones and weakly active rows where they are.
    """
    null = kernel.null_columns
    scale, free = kernel.scale[: kernel.n], null
    fixed = np.isin(point.unit_of_row, point.weak)
    fixed[point.cones.zero + point.cones.nonneg :] = True
    if fixed.any():
        A, sigma = sp.csr_array(point.instance.AT.T)[np.flatnonzero(fixed)], point.scales[0][fixed, None]
        moved = (A @ (scale[:, None] * null)) / sigma
        _, values, V = np.linalg.svd(moved, full_matrices=True)
        size = np.linalg.norm(abs(A) @ np.abs(scale[:, None] * null) / sigma) or 1.0
        values = np.concatenate([values, np.zeros(V.shape[0] - len(values))])
        free = null @ V[values <= STILL * size].T
    part = free[point.asked]
    if part.size and np.linalg.norm(part, 2) > TOUCH:
        u = scale * (free @ np.linalg.svd(part, full_matrices=False)[2][0])
        # Rows that an inaccurate point leaves slack say that it can move; the objective further on says whether it can.
        if point.program.log_mask is not None or _stays(point, _unit(point, u)):
            return u
    for z in _candidates(null[point.asked]):
        for sign in (1.0, -1.0):
            if costs_nothing(point, sign * scale * (null @ z)):
                return sign * scale * (null @ z)
    return None


def steepest(point: LocalPoint, kernel: Kernel) -> Floats:
    """The direction of the null space, shape (n,), that moves the variables asked for most."""
    part = kernel.null_columns[point.asked]
    return kernel.flat_columns() @ np.linalg.svd(part, full_matrices=False)[2][0]


def moves_curved(point: LocalPoint, u: Floats) -> bool:
    """Whether a direction moves a curved cone that is not slack by a good way."""
    linear = point.cones.zero + point.cones.nonneg
    A, tight = sp.csr_array(point.instance.AT.T)[linear:], point.margins[point.unit_of_row[linear:]] <= REACH[0]
    return bool((np.abs(A @ u)[tight] > STILL * (abs(A) @ np.abs(u))[tight]).any())


def costs_nothing(point: LocalPoint, u: Floats) -> bool:
    """Whether the user's objective stays, and constraints hold, a good way along a direction."""
    program = point.program
    if program.log_mask is not None:
        return False
    asked = np.abs(u[point.asked]).max(initial=0.0)
    if asked == 0.0:
        return False
    unit = _unit(point, u)
    return _stays(point, unit) and _feasible(point, point.x + REACH[0] * unit)


def _unit(point: LocalPoint, u: Floats) -> Floats:
    """A direction as long as the variables asked for are."""
    asked = float(np.abs(u[point.asked]).max(initial=0.0)) or 1.0
    return u / asked * (float(np.abs(point.x[point.asked]).max(initial=0.0)) or 1.0)


def _stays(point: LocalPoint, unit: Floats) -> bool:
    """Whether the user's objective is the same a good way along a direction."""
    start = _objective(point, point.x)
    far = [abs(value - start) for value in (_objective(point, point.x + t * unit) for t in (*REACH, 1.0))]
    spread = max([value for value in far if np.isfinite(value)], default=0.0)
    return far[0] <= COSTS * spread + ROUNDING * abs(start)


def _objective(point: LocalPoint, x: Floats) -> float:
    with np.errstate(all="ignore"):
        return float(np.ravel(evaluate(point.program.problem.objective.expr, values_at(point, x)))[0])


def _feasible(point: LocalPoint, x: Floats) -> bool:
    """Whether the user's constraints and attributes hold to rounding; no where a kind of constraint is not known."""
    values = values_at(point, x)
    for variable in point.program.problem.variables():
        value = values[variable.id]
        if np.abs(variable.project(value) - value).max(initial=0.0) > _level(value, 0.0):
            return False
    return all(_holds(constraint, values) for constraint in point.program.problem.constraints)


def _holds(constraint: Any, values: dict[int, Floats]) -> bool:
    kind = type(constraint).__name__
    sides = [np.asarray(evaluate(arg, values), dtype=float) for arg in constraint.args]
    if kind == "PSD":
        matrix = (sides[0] + np.swapaxes(sides[0], -1, -2)) / 2.0
        return bool(np.linalg.eigvalsh(matrix).min() >= -_level(matrix, 0.0))
    left, right = (*sides, np.zeros(()))[:2]
    gap = left - right
    if kind in ("Equality", "Zero"):
        return bool(np.abs(gap).max(initial=0.0) <= _level(left, right))
    if kind in ("Inequality", "NonPos", "NonNeg"):
        return bool((-gap if kind == "NonNeg" else gap).max(initial=0.0) <= _level(left, right))
    return False


def _level(left: Any, right: Any) -> float:
    return 1e3 * ROUNDING * max(1.0, float(np.abs(left).max(initial=0.0)), float(np.abs(right).max(initial=0.0)))


def _candidates(part: Floats) -> Iterator[Floats]:
    """Combinations of the columns: the one that moves most, and those that move few entries."""
    if not part.size:
        return
    yield from np.linalg.svd(part, full_matrices=False)[2][:1]
    k = part.shape[1]
    if k > 1:
        pivots = np.argsort(-np.linalg.norm(part, axis=1), kind="stable")[: 2 * k]
        yield from np.linalg.lstsq(part[pivots], np.eye(len(pivots)), rcond=None)[0].T[:8]
