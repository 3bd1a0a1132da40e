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

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import nnls

from cvxift.kkt.instance import Instance
from cvxift.kkt.linearization import Linearization
from cvxift.kkt.newton import Point
from cvxift.kkt.policy import Policy
from cvxift.kkt.regularity.point import KINK, LocalPoint
from cvxift.kkt.regularity.theta import ThetaJacobian
from cvxift.kkt.regularity.thresholds import FAR, JUMP, MEAN_STEP, NULL, PULLED, SAME_POINT, SOLVED, STEP
from cvxift.kkt.system.cone_basis import rotation
from cvxift.kkt.system.reduced import ReducedSystem
from cvxift.program.structure import Data, Floats
from cvxift.solvers.base import Raw

if TYPE_CHECKING:
    from cvxift.kkt.engine import Solution
    from cvxift.kkt.recovery import Recovery

SMALL = 2000  # rows + columns up to which more than the two pieces of one direction are looked for
SURE = 2 * (2 + 4)  # directions that are looked at in any case: two random ones and the parameters alone, both ways
FURTHER = 12  # random directions besides, where all of those lead to one piece
HOPELESS = 2 * (1 + 4)  # directions after which no more are looked at where none of them leads to a solution
NUMBERS = 1_000_000  # entries of tight rows up to which multipliers of dependent ones are looked for
ASIDE = 1e-2  # part of a random step that is added to a parameter's own, so that it leads to a point of one piece
ALONE = 4  # parameters that are moved alone, at most


def find(
    local: LocalPoint,
    jacobian: ThetaJacobian,
    policy: Policy,
    recover: Recovery,
    flat: Floats | None,
    torn: Floats | None,
    free: bool,
) -> tuple[list[tuple[Linearization, Floats]], tuple[int, ...]]:
    """The distinct pieces around a point, and which parameters lead to no solution at all.

    Args:
        local: the point.
        jacobian: F_θ there.
        policy: how derivatives are taken.
        recover: the outputs.
        flat: a random direction along which columns can move at no cost, shape (n,): those may differ between
            solutions of one point; None without.
        torn: a random combination of dependent rows, shape (m,); None without.
        free: whether outputs may move at no cost, so that any motion off all pieces is a jump.

    Returns:
        The pieces, each with the condensed v = s − y of the neighbour that lies on it, the one that a random direction
        leads to first, empty if no neighbour could be solved; and the numbers of the parameters that lead to no
        solution by themselves, with −1 for all of them together, empty if none does.
    """
    found: dict[bytes, tuple[Linearization, Floats]] = {}
    pull = _pull_of_equalities(local, jacobian, torn)
    parameters = local.program.parameters
    ended = {k for k, p in enumerate(parameters) if pull is not None and pull[local.program.offsets[p]].any()}
    for number, (parameter, direction) in enumerate(_directions(local, jacobian)):
        if number >= SURE and len(found) > 1:
            break  # that the pieces differ is known; the further directions are for maps that look smooth so far
        if number >= HOPELESS and not found:
            break
        if pull is not None:  # equalities that contradict each other have no solution: nothing is solved to learn it
            direction = direction - pull * (pull @ direction) / (pull @ pull)
        near = neighbour(local, direction, flat)
        if near is None:
            ended.add(parameter)
            continue
        assert near.point is not None
        key = near.point.v[local.solution.engine.cones.zero :] > 0.0
        if not local.cones.polyhedral:
            found[direction.tobytes()] = near.linearization(policy), near.point.v
        elif key.tobytes() not in found:
            piece = on_active_set(local, near.point.v, _in_units_of(local.solution, near), policy, flat)
            if piece is not None:
                found[key.tobytes()] = piece, near.point.v
            elif _far(local, near, recover, SAME_POINT if free else JUMP):
                ended.add(parameter)
    return list(found.values()), tuple(sorted(ended))


def around(local: LocalPoint, jacobian: ThetaJacobian, policy: Policy, ended: bool) -> tuple[Linearization, ...]:
    """Two linearizations a step away, from which the point's follows up to the step squared.

    For cones that are not linear. Where the pieces that meet are one, they lie on both sides, further away, and their
    mean is the point's; where the map ends, one lies twice as far as the other on the side that there is.
    """
    steps = [step for _, step in itertools.islice(_directions(local, jacobian), HOPELESS)]
    if not ended:
        sides = [neighbour(local, MEAN_STEP / STEP * step) for step in steps[:2]]
        return tuple(side.linearization(policy) for side in sides if side is not None)
    for step in steps:
        near = neighbour(local, step)
        if near is not None:
            far = neighbour(local, 2.0 * step)
            return () if far is None else (near.linearization(policy), far.linearization(policy))
    return ()


def _pull_of_equalities(local: LocalPoint, jacobian: ThetaJacobian, torn: Floats | None) -> Floats | None:
    """How θ pulls dependent rows apart, shape (N,), where these are equalities alone; None where it does not."""
    zero = local.cones.zero
    if torn is None or np.abs(torn[zero:]).max(initial=0.0) > NULL * np.abs(torn[:zero]).max(initial=0.0):
        return None
    pull = jacobian.transposed[1] @ torn
    pull[np.abs(pull) <= PULLED * (jacobian.sizes_of_entries[1] @ np.abs(torn))] = 0.0
    return pull if pull.any() else None


def _directions(local: LocalPoint, jacobian: ThetaJacobian) -> Iterator[tuple[int, Floats]]:
    """Steps of θ: at random and back, then each parameter alone, then others at random.

    Each with the number of the parameter that moves, −1 where several do.
    """
    reach, rng = _reach(local, jacobian, STEP), np.random.default_rng(0)
    random = _random(reach, rng)
    several = -1 if len(local.program.parameters) > 1 else 0
    yield several, random
    yield several, -random
    if local.structure.n + local.structure.m > SMALL:
        return
    if len(local.program.parameters) > 1:
        for number, parameter in enumerate(local.program.parameters[:ALONE]):
            alone = ASIDE * _random(reach, rng)
            alone[local.program.offsets[parameter]] = random[local.program.offsets[parameter]]
            yield number, alone
            yield number, -alone
    if len(reach) > 1:
        other = _random(reach, rng)
        yield several, other
        yield several, -other
        # An odd map, such as the least norm without data, tells nothing by its two sides.
        for _ in range(FURTHER if local.cones.polyhedral else 0):
            yield several, reach * rng.standard_normal(len(reach))


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


def neighbour(local: LocalPoint, step: Floats, flat: Floats | None = None, length: float = STEP) -> Solution | None:
    """The solution a step of θ away; None if there is none.

    Args:
        local: the point.
        step: of θ, shape (N,).
        flat: see `find`.
        length: the part of the program's size that it moves.
    """
    solution = local.solution
    moved, data = local.program.jvp(step), local.data
    near = Data(data.P + moved.P, data.q + moved.q, data.A + moved.A, data.b + moved.b, data.d + moved.d)
    point = solution.point
    assert point is not None
    found = solution.engine.solve(near, warm=solution.start())
    # A step out of the feasible set leaves a residual of the step's own size.
    limit = max(length * SOLVED, 10.0 * solution.residuals.worst)
    if not found.ok or found.residuals.worst > limit:
        return None
    # Rows that are parallel up to rounding meet far away, where nothing tends to the point.
    away = np.abs(found.x - solution.x) / local.units[0]
    settled = local.program.user_columns if flat is None else local.program.user_columns & ~_moves(local, flat)
    return found if float(away[settled].max(initial=0.0)) <= FAR else None


def _far(local: LocalPoint, near: Solution, recover: Recovery, limit: float) -> bool:
    """Whether the outputs at a neighbour are farther than a step leads: there is no solution near the point.

    A linear program's solution may jump to another vertex.
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


def on_active_set(
    local: LocalPoint, v: Floats, start: Point | Raw | None, policy: Policy, flat: Floats | None = None
) -> Linearization | None:
    """The point's own linearization with the rows tight that are so at another point, for linear constraints.

    Args:
        local: the point.
        v: condensed s − y, negative where a row is tight.
        start: a nearby condensed point. Free auxiliary columns keep its values.
        policy: how derivatives are taken.
        flat: as in `find`.

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
    compared = local.program.user_columns.astype(float)
    if flat is not None:
        compared[_moves(local, flat)] = 0.0
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
    return _linearization(local, system, x, y)


def _moves(local: LocalPoint, flat: Floats) -> np.ndarray:
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
