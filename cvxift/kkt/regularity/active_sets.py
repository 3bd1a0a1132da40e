"""Linearizations of programs with linear constraints on a given active set: the rows that are tight."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from cvxift.kkt.instance import Instance
from cvxift.kkt.newton import Point
from cvxift.kkt.policy import Policy
from cvxift.kkt.regularity.point import KINK, LocalPoint
from cvxift.kkt.regularity.thresholds import NULL, SAME_POINT
from cvxift.kkt.solution import Linearization
from cvxift.kkt.system.cone_basis import rotation
from cvxift.kkt.system.kept import kept_system
from cvxift.kkt.system.reduced import ReducedSystem
from cvxift.program.products import dense
from cvxift.program.structure import Floats
from cvxift.solvers.base import Raw

NUMBERS = 1_000_000  # entries of tight rows up to which multipliers of dependent ones are looked for


def on_active_set(
    local: LocalPoint, v: Floats, start: Point | Raw | None, policy: Policy, flat: Floats | None = None
) -> Linearization | None:
    """The point's own linearization with the rows tight that are so at another point, for linear constraints.

    Args:
        local: the point.
        v: condensed s − y, negative where a row is tight.
        start: a nearby condensed point. Free auxiliary columns keep its values.
        policy: how derivatives are taken.
        flat: as in `cvxift.kkt.regularity.pieces.find`.

    Returns:
        The linearization; None if these rows do not meet in the point, or cannot hold it with multipliers ≥ 0.
    """
    solution = local.solution
    assert solution.point is not None and start is not None
    engine, instance = solution.engine, solution.instance
    system = kept_system(instance, rotation(engine.cones, v), policy.singular)
    tight = _tight(system)
    # One Newton step, exact because everything is linear, to the rows' own multipliers.
    y = np.where(tight, start.y, 0.0)
    dx, dy, _ = system.solve(-(instance.P @ start.x + instance.q + instance.AT @ y), instance.b - instance.A @ start.x)
    x, y = start.x + dx, y + dy
    units = solution.units
    columns, _ = engine.condensation.restrict(*local.units)
    columns = columns if units is None else columns / units.columns
    compared = local.program.user_columns.astype(float)
    if flat is not None:
        compared[columns_moved(local, flat)] = 0.0
    # What the outputs are not tied to is a problem of its own, which may lie anywhere.
    tied_columns, tied_rows = local.connected
    user, tied = (part > 0.0 for part in engine.condensation.restrict(compared * tied_columns, tied_rows * 1.0))
    # At the origin, the point's own size is rounding: one unit of the columns, far above the step, stands in for it.
    size = max(1.0, float(np.abs(solution.point.x / columns).max(initial=0.0)))
    if float(np.abs((x - solution.point.x) / columns)[user].max(initial=0.0)) > SAME_POINT * size:
        return None
    _, weight = engine.condensation.restrict(local.x, local.scales[1])
    weight = weight if units is None else weight * (units.cost / units.rows)
    inequality = tied & (np.arange(len(y)) >= engine.cones.zero)
    if float(np.where(inequality, y / weight, 0.0).min(initial=0.0)) < -KINK:
        y = _multipliers(instance, tight, inequality, x, weight, columns)
        if y is None:
            return None
    return linearization(local, system, x, y)


def columns_moved(local: LocalPoint, flat: Floats) -> np.ndarray:
    """Columns that a direction moves, mask of shape (n,)."""
    size = np.abs(flat) / local.units[0]
    return size > NULL * size.max(initial=0.0)


def _multipliers(
    instance: Instance, tight: np.ndarray, inequality: np.ndarray, x: Floats, weight: Floats, columns: Floats
) -> Floats | None:
    """Multipliers of tight rows, at least zero for inequalities, where those of dependent rows are not unique.

    Args:
        instance: the condensed program.
        tight: the rows, mask of shape (m,).
        inequality: rows whose multipliers have a sign, mask of shape (m,).
        x: columns, shape (n,).
        weight: units of multipliers, shape (m,).
        columns: units of columns, shape (n,).

    Returns:
        The multipliers, shape (m,); None if there are none, or the rows are many.
    """
    rows = np.flatnonzero(tight)
    if len(rows) * len(x) > NUMBERS:
        return None
    A = dense(instance.rows[rows])
    M = (A * weight[rows, None]).T * columns[:, None]
    free = M[:, ~inequality[rows]]  # as a difference of two that have a sign
    wanted = -(instance.P @ x + instance.q) * columns
    try:
        z, off = nnls(np.concatenate([M[:, inequality[rows]], free, -free], axis=1), wanted)
    except RuntimeError:  # its limit of iterations
        return None
    if off > KINK * max(1.0, float(np.abs(wanted).max(initial=0.0))):
        return None
    count = int(inequality[rows].sum())
    y = np.zeros(len(tight))
    y[rows[inequality[rows]]] = z[:count]
    y[rows[~inequality[rows]]] = z[count : count + free.shape[1]] - z[count + free.shape[1] :]
    return y * weight


def with_weak(local: LocalPoint, weak: np.ndarray, policy: Policy, tight: bool) -> Linearization:
    """The linearization with weak rows counted as tight or as slack.

    Args:
        local: the point.
        weak: rows that are weak, as units; none of them a cone that is not linear.
        policy: how derivatives are taken.
        tight: whether they are tight.
    """
    solution = local.solution
    assert solution.point is not None
    rows = np.zeros(local.structure.m, dtype=bool)
    rows[local.cones.unit_starts[weak]] = True
    _, inner = solution.engine.condensation.restrict(local.x, rows)
    side = -1.0 if tight else 1.0
    v = np.where(inner, side, solution.point.v)
    system = kept_system(solution.instance, rotation(solution.engine.cones, v), policy.singular)
    x, y, v = local.x, np.where(rows, 0.0, local.y), np.where(rows, side, local.v)
    return Linearization(local.structure, local.data, x, y, system, v, solution.substitution)


def _tight(system: ReducedSystem) -> np.ndarray:
    """The rows that are kept, mask of shape (m,)."""
    tight = np.zeros(system.m, dtype=bool)
    tight[system.rotation.rows] = True
    return tight


def linearization(local: LocalPoint, system: ReducedSystem, x: Floats, y: Floats) -> Linearization:
    """The linearization of the original program with a condensed system's rows, at a condensed point."""
    solution = local.solution
    engine, tight = solution.engine, _tight(system)
    if solution.substitution is not None:
        x, _, y = solution.substitution.expand(x, np.zeros_like(y), y)
    v = engine.condensation.lift(np.where(tight, -1.0, 1.0))
    return Linearization(local.structure, local.data, x, y, system, v, solution.substitution)
