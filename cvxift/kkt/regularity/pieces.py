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
from typing import TYPE_CHECKING

import numpy as np

from cvxift.kkt.policy import Policy
from cvxift.kkt.regularity.active_sets import columns_moved, linearization, on_active_set
from cvxift.kkt.regularity.null_space import NullVector, null_vector
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.theta import ThetaJacobian
from cvxift.kkt.regularity.thresholds import (
    ANOTHER,
    BEYOND,
    FELT,
    LEAST_JUMP,
    MEAN_STEPS,
    NO_LIMIT,
    NULL,
    PULLED,
    SAME_POINT,
    SOLVED,
    STEP,
)
from cvxift.kkt.regularity.torn_rows import TornRows
from cvxift.kkt.solution import Linearization
from cvxift.kkt.system.cone_basis import rotation
from cvxift.kkt.system.kept import kept_system
from cvxift.program.attributes import inward
from cvxift.program.program import Program
from cvxift.program.structure import Data, Floats
from cvxift.solvers.base import Raw

if TYPE_CHECKING:
    from cvxift.kkt.engine import Solution
    from cvxift.kkt.recovery import Recovery

LOOKED_AROUND = 2000  # rows + columns up to which more than the two pieces of one direction are looked for
SURE = 2 * (2 + 4)  # directions that are looked at in any case: two random ones and the parameters alone, both ways
FURTHER = 12  # random directions besides, where all of those lead to one piece
HOPELESS = 2 * (1 + 4)  # directions after which no more are looked at where none of them leads to a solution
RANDOM_PART = 1e-2  # part of a random step that is added to a parameter's own, so that it leads to a point of one piece
ALONE = 4  # parameters that are moved alone, at most


def find(
    local: LocalPoint,
    jacobian: ThetaJacobian,
    policy: Policy,
    recover: Recovery,
    flat: Floats | None,
    torn: Floats | None,
    free: bool,
    length: float = STEP,
) -> tuple[dict[bytes | int, tuple[Linearization, Floats]], tuple[int, ...]]:
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
        length: the part of the program's size by which neighbours are away.

    Returns:
        The pieces, each with the condensed v = s − y of the neighbour that lies on it, the one that a random direction
        leads to first, empty if no neighbour could be solved, by active set or, for curved cones, the direction's
        number; and the numbers of the parameters that lead to no solution by themselves, with −1 for all of them
        together, empty if none does.
    """
    found: dict[bytes | int, tuple[Linearization, Floats]] = {}
    pull = _pull_of_equalities(local, jacobian, torn)
    parameters = local.program.parameters
    exclude = None if torn is None else TornRows.of(local)
    unsolved: set[int] = set()
    ended = {k for k, p in enumerate(parameters) if pull is not None and pull[local.program.offsets[p]].any()}
    for number, (parameter, direction) in enumerate(_directions(local, length)):
        if number >= SURE and len(found) > 1:
            break  # that the pieces differ is known; the further directions are for maps that look smooth so far
        if number >= HOPELESS and not found:
            break
        if pull is not None:  # equalities that contradict each other have no solution: nothing is solved to learn it
            direction = direction - pull * (pull @ direction) / (pull @ pull)
        if exclude is not None and exclude(direction):
            ended.add(parameter)
            continue
        near = neighbour(local, direction, flat, length)
        if near is None:
            # Curved cones may leave no accurate point near a kink. Where the map ends, there is none further on either.
            further = None if local.cones.polyhedral else neighbour(local, BEYOND * direction, flat, BEYOND * length)
            (ended if further is None else unsolved).add(parameter)
            continue
        assert near.point is not None
        key = near.point.v[local.solution.engine.cones.zero :] > 0.0
        if not local.cones.polyhedral:
            if free and _far(local, near, recover, ANOTHER):  # a jump to another solution, where many are
                ended.add(parameter)
            else:
                found[number] = near.linearization(policy), near.point.v
        elif key.tobytes() not in found:
            piece = on_active_set(local, near.point.v, _in_units_of(local.solution, near), policy, flat)
            if piece is not None:
                found[key.tobytes()] = piece, near.point.v
            else:
                jump = SAME_POINT if free else LEAST_JUMP
                if _far(local, near, recover, jump) or _flat_at(local, near, recover, policy):
                    ended.add(parameter)
    return found, tuple(sorted(ended if found else ended | unsolved))


def around(
    local: LocalPoint, policy: Policy, ended: bool, lengths: tuple[float, ...] = MEAN_STEPS
) -> tuple[Linearization, ...]:
    """Two linearizations a step away, from which the point's follows up to the step squared; none if there are not two.

    For cones that are not linear. Where the pieces that meet are one, they lie on both sides, further away, and their
    mean is the point's; where the map ends, one lies twice as far as the other on the side that there is.

    Args:
        local: the point.
        policy: how derivatives are taken.
        ended: whether the map ends at the point.
        lengths: how far away the sides are where it does not, as parts of the program's size; the first that can be
            solved.
    """
    steps = [step for _, step in itertools.islice(_directions(local, STEP), HOPELESS)]
    if not ended:
        for length in lengths:  # a fast solution leaves the point's surroundings within the longest
            sides = [neighbour(local, length / STEP * step) for step in steps[:2]]
            found = tuple(side.linearization(policy) for side in sides if side is not None)
            if len(found) == len(sides):
                return found
        return ()
    for step in steps:
        near = neighbour(local, step)
        if near is not None:
            far = neighbour(local, 2.0 * step)
            return () if far is None else (near.linearization(policy), far.linearization(policy))
    return ()


def held(local: LocalPoint, null: NullVector) -> bool:
    """Whether no change of θ leads to another piece: the rows that are tight stay so, or there is no solution.

    So it is away from kinks where all that K's null space holds is flat, or equalities that depend on each other. Not
    where θ can pull at columns that are free and no output feels: they go where other rows hold them.

    Args:
        local: the point.
        null: a random vector of K's null space.
    """
    away = local.cones.polyhedral and local.solution.clear
    return away and (not null.w.any() or _of_equalities(local, null.w))


def parameters_of(program: Program, entries: np.ndarray) -> tuple[int, ...]:
    """The numbers of the parameters that have these entries of θ, and −1 for all of them together."""
    chosen = np.zeros(program.theta_size, dtype=bool)
    chosen[entries] = True
    parts = (program.offsets[parameter] for parameter in program.parameters)
    return -1, *(number for number, part in enumerate(parts) if chosen[part].any())


def _of_equalities(local: LocalPoint, torn: Floats) -> bool:
    """Whether a combination of dependent rows is one of equalities alone."""
    zero, part = local.cones.zero, np.abs(torn) / local.units[1]
    return float(part[zero:].max(initial=0.0)) <= NULL * float(part[:zero].max(initial=0.0))


def _pull_of_equalities(local: LocalPoint, jacobian: ThetaJacobian, torn: Floats | None) -> Floats | None:
    """How θ pulls dependent rows apart, shape (N,), where these are equalities alone; None where it does not."""
    if torn is None or not _of_equalities(local, torn):
        return None
    pull = jacobian.transposed[1] @ torn
    pull[np.abs(pull) <= PULLED * (jacobian.sizes_of_entries[1] @ np.abs(torn))] = 0.0
    return pull if pull.any() else None


def _directions(local: LocalPoint, length: float) -> Iterator[tuple[int, Floats]]:
    """Steps of θ: at random and back, then each parameter alone, then others at random.

    Each with the number of the parameter that moves, −1 where several do.
    """
    reach, rng = reach_of(local, length), np.random.default_rng(0)
    random = _random(reach, rng)
    several = -1 if len(local.program.parameters) > 1 else 0
    yield several, random
    yield several, -random
    if local.structure.n + local.structure.m > LOOKED_AROUND:
        return
    if len(local.program.parameters) > 1:
        inside = inward(local.program, local.theta)
        for number, parameter in enumerate(local.program.parameters[:ALONE]):
            own = local.program.offsets[parameter]
            alone = RANDOM_PART * _random(reach, rng)
            alone[own] = random[own]
            for step in (alone, -alone):  # the others stay in their domains: a weight of zero cannot become negative
                others = np.where(inside != 0.0, np.abs(step) * inside, step)
                others[own] = step[own]
                yield number, others
    if len(reach) > 1:
        other = _random(reach, rng)
        yield several, other
        yield several, -other
        # An odd map, such as the least norm without data, tells nothing by its two sides.
        for _ in range(FURTHER if local.cones.polyhedral else 0):
            yield several, reach * rng.standard_normal(len(reach))


def steps_of_theta(local: LocalPoint, length: float, count: int) -> Iterator[Floats]:
    """Random steps of θ that move the program by a part of its size.

    Args:
        local: the point.
        length: the part.
        count: how many.

    Yields:
        Steps, shape (N,).
    """
    reach, rng = reach_of(local, length), np.random.default_rng(0)
    for _ in range(count):
        yield _random(reach, rng)


def reach_of(local: LocalPoint, length: float) -> Floats:
    """How far each entry of θ moves where it moves a row or column by that part of its size, shape (N,)."""
    sizes = local.theta_sizes()
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
    # In the point's own units: entries that were zero have the size of the step, which is no unit.
    found = solution.engine.solve(near, warm=solution.start(), beside=solution, brief=True)
    # A step out of the feasible set leaves a residual of the step's own size.
    limit = max(length * SOLVED, 10.0 * solution.residuals.worst)
    if not found.ok or found.residuals.worst > limit:
        return None
    # Rows that are parallel up to rounding meet far away, where nothing tends to the point.
    away = np.abs(found.x - solution.x) / local.units[0]
    settled = local.program.user_columns if flat is None else local.program.user_columns & ~columns_moved(local, flat)
    return found if float(away[settled].max(initial=0.0)) <= NO_LIMIT else None


def _far(local: LocalPoint, near: Solution, recover: Recovery, limit: float) -> bool:
    """Whether the outputs at a neighbour are farther than a step leads: there is no solution near the point.

    A linear program's solution may jump to another vertex.
    """
    columns, _ = local.units
    size = max(1.0, float(np.abs(local.x / columns).max(initial=0.0)))
    moved, unit = np.abs(recover.X @ (near.x - local.x)), abs(recover.X) @ columns
    return bool((moved > limit * size * unit).any())


def _flat_at(local: LocalPoint, near: Solution, recover: Recovery, policy: Policy) -> bool:
    """Whether outputs at a neighbour can move at no cost, so that it is on no piece although it is close."""
    solution = local.solution
    assert near.point is not None and solution.point is not None
    system = kept_system(solution.instance, rotation(solution.engine.cones, near.point.v), policy.singular)
    null = null_vector(local, linearization(local, system, solution.point.x, solution.point.y))
    columns, _ = local.units
    return null is not None and bool((np.abs(recover.X @ null.u) > FELT * (abs(recover.X) @ columns)).any())


def _in_units_of(solution: Solution, near: Solution) -> Raw | None:
    """A neighbour's condensed point in a solution's units, which may be others than its own."""
    start, units = near.start(), solution.units
    if start is None or units is None:
        return start
    return Raw(*units.point(start.x, start.s, start.y), start.status, start.message)
