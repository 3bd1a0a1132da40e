"""Newton's whole steps for linear constraints, and the rows of an active set that a solver's point does not tell.

A step is exact on its active set, so that its length is no question: where signs change, the next one is on another
set. It does not end where K is singular and K z = f has no solution. What least squares leaves of f then lies in K's
null space, which is the sum of two parts:

    (u, 0)   the cost falls along u, and no tight row holds it: the first slack row that blocks becomes tight
    (0, w)   tight rows that depend on each other cannot all be tight: multipliers move along w at no cost until the
             first one is zero, whose row becomes slack

as in the primal and the dual simplex method.
"""

from __future__ import annotations

import numpy as np

from cvxift.kkt.instance import Instance
from cvxift.kkt.newton import Evaluated, Point, evaluate, reached
from cvxift.kkt.residuals import GOAL, errors
from cvxift.kkt.system.assembly import equilibrate
from cvxift.kkt.system.kept import kept_system
from cvxift.kkt.system.reduced import ReducedSystem, rotation
from cvxift.program.products import apply
from cvxift.program.structure import Floats

WHOLE_STEPS = 16  # steps at most; each that changes the active set takes a factorization
ASTRAY = 1e-1  # relative residual after a step from which it leads away: QSHARE2B's and PRIMAL3's lead to 5e-4 first
STALLED = 0.5  # part of the residual from which a step on the same set is the last one that helps
ABOVE_ROUNDING = 10.0  # times what K makes of a vector that it should turn to zero: larger entries are no rounding
TINY = float(np.finfo(float).tiny)
RATE_ROUNDING = 1e-9  # part of its terms under which a row's change along a direction is rounding


def settle(instance: Instance, start: Evaluated, most: int = WHOLE_STEPS) -> Point:
    """The point of the active set that a point is near to, for linear constraints.

    Args:
        instance: the program.
        start: the point; rows of negative v count as tight.
        most: steps at most.

    Returns:
        The best point found; the start itself if no step helped.
    """
    cones, system = instance.structure.cones, None
    best = at = start
    turn, count, kept, seen = rotation(cones, at.point.v), 0, 0, set()
    while count < most:
        if system is None or not turn.same(system.rotation):
            system = kept_system(instance, turn)
        dx, dy, certificate = system.solve(-at.dual, -at.primal, brief=True)
        dv = -at.primal - instance.A @ dx
        dv[turn.rows] = 0.0  # what least squares leaves of a tight row is no multiplier
        new = evaluate(instance, at.point.x + dx, at.point.v + dv - dy)
        count += 1
        falls = new.point.worst < STALLED * best.point.worst
        if new.point.worst < best.point.worst:
            best, kept = new, count
        if best.point.worst <= GOAL or not new.point.worst <= ASTRAY:
            break
        turn = rotation(cones, new.point.v)
        same = turn.same(system.rotation)
        if (same and not falls) or (not certificate.consistent and (same or turn.rows.tobytes() in seen)):
            other = _on_another_set(instance, new, system)
            if other is None:
                break
            new, turn = other, rotation(cones, other.point.v)
        if not turn.same(system.rotation):
            if turn.rows.tobytes() in seen:
                break
            seen.add(turn.rows.tobytes())
        at = new
    return reached(instance, best.point, kept, system)


def _on_another_set(instance: Instance, at: Evaluated, system: ReducedSystem) -> Evaluated | None:
    """The point with one more row tight, or one less, as the module says; None where no row is found."""
    fixed, rows, n = system.fixed, system.rotation.rows, system.n
    columns = np.arange(n) if fixed is None else fixed.U
    others = rows if fixed is None else rows[fixed.u]
    tight = np.isin(np.arange(system.m), rows)  # whatever the signs of a step that solved nothing
    x, v = at.point.x, at.point.v
    dual, primal = errors(instance, x, np.where(tight, 0.0, v), np.where(tight, -v, 0.0))
    scale, left = equilibrate(system.K), np.concatenate([dual[columns], primal[others]])
    # Least squares in the scaled system K̂ = cKc leaves r = c·(f − K z) in the null space of K̂, so that c·r is in K's.
    r = -scale * left
    moved = np.abs(scale * apply(system.K, scale * r)).max(initial=0.0)
    r[np.abs(r) <= ABOVE_ROUNDING * moved] = 0.0
    down, apart = np.zeros(n), np.zeros(system.m)
    down[columns], apart[others] = np.split(scale * r, [len(columns)])
    if np.abs(r[: len(columns)]).max(initial=0.0) >= np.abs(r[len(columns) :]).max(initial=0.0):
        return _tighter(instance, at, rows, down) if down.any() else None
    return _looser(instance, at, rows, -apart)


def _tighter(instance: Instance, at: Evaluated, rows: np.ndarray, u: Floats) -> Evaluated | None:
    """The point where the first slack row blocks the way along u, which becomes tight."""
    point, zero = at.point, instance.structure.cones.zero
    rate, whole = instance.A @ u, abs(instance.A) @ np.abs(u)
    slack = np.ones(len(rate), dtype=bool)
    slack[rows], slack[:zero] = False, False
    first, length = _first(point.v, rate, slack & (rate > RATE_ROUNDING * whole))
    if first is None:
        return None
    v = np.where(slack, np.maximum(point.v - length * rate, TINY), point.v)
    tight = np.append(rows[rows >= zero], first)
    v[tight] = np.minimum(v[tight], -TINY)
    return evaluate(instance, point.x + length * u, v)


def _looser(instance: Instance, at: Evaluated, rows: np.ndarray, w: Floats) -> Evaluated | None:
    """The point where the first multiplier along w is zero, whose row becomes slack."""
    point, zero = at.point, instance.structure.cones.zero
    tight = np.zeros(len(w), dtype=bool)
    tight[rows] = True
    tight[:zero] = False
    largest = np.abs(w).max(initial=0.0)
    first, length = _first(-point.v, -w, tight & (w < -RATE_ROUNDING * largest))
    if first is None:
        return None
    v = np.where(tight, np.minimum(point.v - length * w, -TINY), point.v - length * w)
    v[first] = TINY
    return evaluate(instance, point.x, v)


def _first(value: Floats, rate: Floats, candidates: np.ndarray) -> tuple[int | None, float]:
    """Which of some positive values reaches zero first at these rates, and after what length; None if none does."""
    at = np.flatnonzero(candidates & np.isfinite(value))
    if not len(at):
        return None, 0.0
    lengths = np.maximum(value[at], 0.0) / rate[at]
    first = int(lengths.argmin())
    return int(at[first]), float(lengths[first])
