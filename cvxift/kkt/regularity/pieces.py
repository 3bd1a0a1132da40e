"""The pieces of the solution map that meet at a degenerate point.

Where active rows are weak (slack and multiplier vanish together) or dependent (multipliers are not unique), the
solution map is the meeting of several smooth pieces. A small step of θ along almost any direction leads to a regular
point of one of them. With linear constraints the piece is known by its active set there: the rows that are tight a step
away, at the point itself, with the multipliers that they alone have. With other cones the linearization a step away is
the piece's, up to the step.

The derivatives of the pieces reached this way are limits of derivatives at nearby regular points (the B-subdifferential
of the solution map; Qi & Sun 1993). An average over pieces, which a least-squares solution over dependent rows is, is
none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import nnls

from cvxift.kkt.cone_basis import rotation
from cvxift.kkt.instance import Instance
from cvxift.kkt.linearization import Linearization
from cvxift.kkt.newton import Point
from cvxift.kkt.policy import Policy
from cvxift.kkt.regularity.point import KINK, LocalPoint
from cvxift.kkt.regularity.theta import ThetaJacobian
from cvxift.kkt.regularity.thresholds import JUMP, MEAN_STEP, SAME_POINT, SOLVED, STEP
from cvxift.kkt.system import ReducedSystem
from cvxift.program.structure import Data, Floats
from cvxift.solvers.base import Raw

if TYPE_CHECKING:
    from cvxift.kkt.engine import Solution
    from cvxift.kkt.recovery import Recovery

SMALL = 2000  # rows + columns up to which more than the two pieces of one direction are looked for
SURE = 2 * (2 + 4)  # directions that are looked at in any case: two random ones and the parameters alone, both ways
FURTHER = 12  # random directions besides, where all of those lead to one piece
NUMBERS = 1_000_000  # entries of tight rows up to which multipliers of dependent ones are looked for
ASIDE = 1e-2  # part of a random step that is added to a parameter's own, so that it leads to a point of one piece
ALONE = 4  # parameters that are moved alone, at most


def find(
    local: LocalPoint, jacobian: ThetaJacobian, policy: Policy, recover: Recovery, flat: bool = False
) -> tuple[list[tuple[Linearization, Floats]], bool]:
    """The distinct pieces around a point, and whether some direction of θ leads to no solution near it.

    Args:
        local: the point.
        jacobian: F_θ there.
        policy: how derivatives are taken.
        recover: the outputs.
        flat: whether outputs may move at no cost, so that any motion off all pieces is a jump.

    Returns:
        The pieces, each with the condensed v = s − y of the neighbour that lies on it, the one that a random direction
        leads to first; empty if no neighbour could be solved.
    """
    found: dict[bytes, tuple[Linearization, Floats]] = {}
    ended = False
    for number, direction in enumerate(_directions(local, jacobian)):
        if number >= SURE and len(found) > 1:
            break  # that the pieces differ is known; the further directions are for maps that look smooth so far
        near = neighbour(local, direction)
        if near is None:
            ended = True
            continue
        assert near.point is not None
        key = near.point.v[local.solution.engine.cones.zero :] > 0.0
        if not local.cones.polyhedral:
            found[direction.tobytes()] = near.linearization(policy), near.point.v
        elif key.tobytes() not in found:
            piece = on_active_set(local, near.point.v, _in_units_of(local.solution, near), policy)
            if piece is not None:
                found[key.tobytes()] = piece, near.point.v
            else:
                ended |= _far(local, near, recover, SAME_POINT if flat else JUMP)
    return list(found.values()), ended


def around(local: LocalPoint, jacobian: ThetaJacobian, policy: Policy) -> tuple[Linearization, ...]:
    """Linearizations on both sides of a point, a larger step away: their mean is the point's up to the step squared.

    For cones that are not linear, where the pieces that meet were found to be one.
    """
    directions = _directions(local, jacobian)
    sides = [neighbour(local, MEAN_STEP / STEP * next(directions)) for _ in range(2)]
    return tuple(side.linearization(policy) for side in sides if side is not None)


def _directions(local: LocalPoint, jacobian: ThetaJacobian) -> Iterator[Floats]:
    """Steps of θ: at random and back, then each parameter alone, then others at random."""
    reach, rng = _reach(local, jacobian, STEP), np.random.default_rng(0)
    random = _random(reach, rng)
    yield random
    yield -random
    if local.structure.n + local.structure.m > SMALL:
        return
    if len(local.program.parameters) > 1:
        for parameter in local.program.parameters[:ALONE]:
            alone = ASIDE * _random(reach, rng)
            alone[local.program.offsets[parameter]] = random[local.program.offsets[parameter]]
            yield alone
            yield -alone
    if len(reach) > 1:
        other = _random(reach, rng)
        yield other
        yield -other
        # An odd map, such as the least norm without data, tells nothing by its two sides.
        for _ in range(FURTHER if local.cones.polyhedral else 0):
            yield reach * rng.standard_normal(len(reach))


def steps_of_theta(local: LocalPoint, jacobian: ThetaJacobian, length: float, count: int) -> Iterator[Floats]:
    """Random steps of θ that move the program by a part of its size.

    Args:
        local: the point.
        jacobian: F_θ there.
        length: the part.
        count: how many.

    Yields:
        Steps, shape (N,).
    """
    reach, rng = _reach(local, jacobian, length), np.random.default_rng(0)
    for _ in range(count):
        yield _random(reach, rng)


def _reach(local: LocalPoint, jacobian: ThetaJacobian, length: float) -> Floats:
    rows, columns = local.balance(1.0)
    sizes = jacobian.sizes(columns, rows)
    return np.divide(length, sizes, out=np.zeros_like(sizes), where=sizes > 0.0)


def _random(reach: Floats, rng: np.random.Generator) -> Floats:
    return reach * rng.uniform(0.5, 1.0, len(reach)) * rng.choice((-1.0, 1.0), len(reach))


def neighbour(local: LocalPoint, step: Floats, length: float = STEP) -> Solution | None:
    """The solution a step of θ away; None if there is none.

    Args:
        local: the point.
        step: of θ, shape (N,).
        length: the part of the program's size that it moves.
    """
    solution = local.solution
    moved, data = local.program.jvp(step), local.data
    near = Data(data.P + moved.P, data.q + moved.q, data.A + moved.A, data.b + moved.b, data.d + moved.d)
    found = solution.engine.solve(near, warm=solution.start())
    # A step out of the feasible set leaves a residual of the step's own size.
    limit = max(length * SOLVED, 10.0 * solution.residuals.worst)
    return found if found.ok and found.residuals.worst <= limit else None


def _far(local: LocalPoint, near: Solution, recover: Recovery, limit: float) -> bool:
    """Whether the outputs at a neighbour are farther than a step leads: there is no solution near the point.

    A linear program's solution may jump to another vertex, and a step out of the feasible set may leave a residual that
    is small only beside a solution that it blew up.
    """
    columns, _ = local.units
    size = max(1.0, float(np.abs(local.x / columns).max(initial=0.0)))
    moved, unit = np.abs(recover.X @ (near.x - local.x)), abs(recover.X) @ columns
    return bool((moved > limit * size * unit).any())


def _in_units_of(solution: Solution, near: Solution) -> Raw | None:
    """A neighbour's condensed point in a solution's units, which may be others than its own."""
    start, units = near.start(), solution.units
    if start is None or units is None:
        return start
    return Raw(*units.point(start.x, start.s, start.y), start.status, start.message)


def on_active_set(local: LocalPoint, v: Floats, start: Point | Raw | None, policy: Policy) -> Linearization | None:
    """The point's own linearization with the rows tight that are so at another point, for linear constraints.

    Args:
        local: the point.
        v: condensed s − y, negative where a row is tight.
        start: a nearby condensed point. Free auxiliary columns keep its values.
        policy: how derivatives are taken.

    Returns:
        The linearization; None if these rows do not meet in the point, or cannot hold it with multipliers ≥ 0.
    """
    solution = local.solution
    assert solution.point is not None and start is not None
    engine, instance = solution.engine, solution.instance
    system = ReducedSystem(instance, rotation(engine.cones, v), policy.singular)
    tight = _tight(system)
    # One Newton step, exact because everything is linear, to the rows' own multipliers.
    y = np.where(tight, start.y, 0.0)
    dx, dy, _ = system.solve(-(instance.P @ start.x + instance.q + instance.AT @ y), instance.b - instance.A @ start.x)
    x, y = start.x + dx, y + dy
    units = solution.units
    columns, _ = engine.condensation.restrict(*local.units)
    columns = columns if units is None else columns / units.columns
    # What the outputs are not tied to is a problem of its own, which may lie anywhere.
    tied_columns, tied_rows = local.connected
    masks: Any = local.program.user_columns & tied_columns, tied_rows
    kept: Any = engine.condensation.restrict(*masks)
    user, tied = kept
    # At the origin, the point's own size is rounding: one unit of the columns, far above the step, stands in for it.
    size = max(1.0, float(np.abs(solution.point.x / columns).max(initial=0.0)))
    if float(np.abs(np.where(user, (x - solution.point.x) / columns, 0.0)).max(initial=0.0)) > SAME_POINT * size:
        return None
    _, weight = engine.condensation.restrict(local.x, local.scales[1])
    weight = weight if units is None else weight * (units.cost / units.rows)
    inequality = tied & (np.arange(len(y)) >= engine.cones.zero)
    if float(np.where(inequality, y / weight, 0.0).min(initial=0.0)) < -KINK:
        y = _multipliers(instance, tight, inequality, x, weight, columns)
        if y is None:
            return None
    return _linearization(local, system, x, y)


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
    stored: Any = instance.A if instance.dense else instance.AT.T
    A = stored[rows] if instance.dense else stored[rows].toarray()
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


def opened(local: LocalPoint, weak: np.ndarray, policy: Policy) -> Linearization:
    """The linearization with weak rows counted as slack, for linear constraints.

    Args:
        local: the point.
        weak: units that are weak.
        policy: how derivatives are taken.
    """
    solution = local.solution
    assert solution.point is not None
    rows = np.zeros(local.structure.m, dtype=bool)
    rows[local.cones.unit_starts[weak]] = True
    _, rows = solution.engine.condensation.restrict(local.x, rows)
    v = np.where(rows, 1.0, solution.point.v)
    system = ReducedSystem(solution.instance, rotation(solution.engine.cones, v), policy.singular)
    return _linearization(local, system, solution.point.x, np.where(rows, 0.0, solution.point.y))


def _tight(system: ReducedSystem) -> np.ndarray:
    """The rows that are kept, mask of shape (m,)."""
    tight = np.zeros(system.m, dtype=bool)
    tight[system.rotation.rows] = True
    return tight


def _linearization(local: LocalPoint, system: ReducedSystem, x: Floats, y: Floats) -> Linearization:
    """The linearization of the original program with a condensed system's rows, at a condensed point."""
    solution = local.solution
    engine, tight = solution.engine, _tight(system)
    if solution.substitution is not None:
        x, _, y = solution.substitution.expand(x, np.zeros_like(y), y)
    v = engine.condensation.lift(np.where(tight, -1.0, 1.0))
    return Linearization(local.structure, local.data, x, y, system, v, solution.substitution)
