"""Derivatives where dependent cones share a force, and bend differently: a ball and its tangent half-space, say.

Any split of the force holds the point, but derivatives depend on it, for multipliers say how much cones bend. Let Y be
the set of multipliers, none of whose dependences θ pulls apart. Along θ̇ the solution moves by the saddle point of

    min_ẋ max_{y ∈ Y}  ½ẋᵀPẋ + ẋᵀ(Ṗx + q̇ + Ȧᵀy) + ½ ṡᵀ(D(s − y)⁻¹ − I)ṡ,      ṡ = ḃ − Ȧx − Aẋ

(the second-order conditions of Bonnans & Shapiro 2000, section 5.3). Where y has the maximum at its own ẋ, that ẋ is
the derivative: so the ends of Y are tried, where some of the cones have no force. Solutions at nearby parameters do
not tell: a step h off the point violates the cone that bends most by h², which may be less than their accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from cvxift import cones as cone
from cvxift.kkt.regularity.null_space import null_vector
from cvxift.kkt.regularity.pieces import steps_of_theta
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.thresholds import NOISE, PROMISE, SPLIT
from cvxift.kkt.solution import Linearization
from cvxift.kkt.system.cone_basis import Rotation, rotation
from cvxift.kkt.system.reduced import ReducedSystem
from cvxift.program.structure import Data, Floats

if TYPE_CHECKING:
    from cvxift.kkt.regularity.account import Regularity

ONE_CURVATURE = PROMISE * SPLIT  # relative difference up to which splits, and curvatures, are one
CHANGES = 4  # random changes of θ at which an end must have the largest curvature
STARTS = 4  # random null vectors from which ends are looked for, both ways, where there is more than one dependence
LITTLE = 1e-5  # part of the force that cones without it get, so that columns that only they hold are held
CANCELLED_FORCE = 1e-7  # part of forces that cancel up to which what tells them apart, its square, is below rounding
MOST_DEPENDENCES = 20  # dependences that are followed to their ends from one start


def depends_on_multipliers(account: Regularity) -> bool:
    """Whether derivatives depend on which of the multipliers of dependent cones are taken."""
    local, null = account.local, account.null
    if local.cones.polyhedral:
        return False
    w, alike = (null.w, ONE_CURVATURE) if null is not None and null.w.any() else (_nearly_dependent(account), PROMISE)
    if w is None:
        return False
    ends = [end for sign in (1.0, -1.0) if (end := _end_of(local, local.y, sign * w)) is not None]
    if not ends:
        return False  # equalities alone, which have no curvature
    unit = local.units[1]
    farthest = max((y - local.y for y, _ in ends), key=lambda away: float(np.abs(away / unit).max()))
    bent = _at(local, local.y + SPLIT * farthest)
    (step,) = steps_of_theta(local, 1.0, 1)
    tangent = local.program.jvp(step)
    size = np.where(account.output_unit > 0.0, account.output_unit, 1.0)  # zero: multipliers of no row of the program
    here, there = (account.recover.X @ piece.jvp(tangent)[0] / size for piece in (account.plain, bent))
    return bool(np.abs(there - here).max(initial=0.0) > alike * np.abs(here).max(initial=0.0))


def _nearly_dependent(account: Regularity) -> Floats | None:
    """Multipliers (m,) whose forces cancel up to `CANCELLED_FORCE`, as where cones nearly touch; None without."""
    local, piece = account.local, account.plain
    system = piece.system
    if not account.direct or not isinstance(system, ReducedSystem):
        return None
    if system.special is not None or system.fixed is None:
        return None  # else rows that nearly depend on eliminated columns look like any others
    columns, rows = local.units
    signs = np.random.default_rng(1).choice((-1.0, 1.0), len(columns) + len(rows))
    _, w = piece.solve(*np.split(signs / np.concatenate([columns, rows]), [len(columns)]))
    force, _ = piece.entries.act(local.data, np.zeros_like(local.x), w)
    whole = float((local.magnitudes[0].T @ np.abs(w)).max(initial=0.0))
    return w if whole > 0.0 and float(np.abs(force).max(initial=0.0)) <= CANCELLED_FORCE * whole else None


class Shared(NamedTuple):
    """The pieces that meet where cones share a force.

    Attributes:
        pieces: of the ends that have the largest curvature along some change of θ; one where it has it along all.
        whole: whether along all changes some end has it: else other multipliers do, which change with the direction.
    """

    pieces: tuple[Linearization, ...]
    whole: bool


def of_largest_curvature(account: Regularity) -> Shared | None:
    """The pieces where dependent cones share a force; None where they do not, θ pulls them apart, or others are weak.

    Args:
        account: of the point.
    """
    if not account.split or not account.direct or len(account.pulled) or len(account.local.weak):
        return None
    local = account.local
    ends = list(_ends(local, account.plain))
    if not ends:
        return None
    # Auxiliary columns that only a cone without force would hold are held by a little of it.
    middle = np.mean([end.y for end in ends], axis=0)
    held = [_at(local, end.y + LITTLE * (middle - end.y)) for end in ends]
    largest = np.zeros((len(ends), CHANGES), dtype=bool)
    for number, step in enumerate(steps_of_theta(local, 1.0, CHANGES)):
        tangent = local.program.jvp(step)
        for k, end in enumerate(held):
            values = _lagrangian(local, tangent, end.jvp(tangent)[0], ends)
            largest[k, number] = (
                np.isfinite(values).all() and values.max() - values[k] <= ONE_CURVATURE * np.abs(values).max()
            )
    always = np.flatnonzero(largest.all(axis=1))
    some = always[:1] if len(always) else np.flatnonzero(largest.any(axis=1))
    return Shared(tuple(ends[k] for k in some), bool(largest.any(axis=0).all())) if len(some) else None


def _lagrangian(local: LocalPoint, tangent: Data, x_dot: Floats, ends: list[Linearization]) -> Floats:
    """Twice the saddle function at ẋ for each end's y, without the terms that no y has, shape (ends,)."""
    entries, cones, units = local.solution.engine.entries, local.cones, local.solution.units
    inner, cost = local.solution.engine.cones, 1.0 if units is None else float(units.cost)
    _, h = entries.residual_tangent(tangent, local.x, local.y)
    s_dot = _in_units(local, h - entries.act(local.data, x_dot, local.y)[1], "slacks")
    columns = local.units[0]
    moved = columns * float(np.abs(x_dot / columns).max(initial=0.0))  # a row that stands still has only rounding
    whole = local.magnitudes[0] @ moved + np.abs(h)
    whole = _in_units(local, np.maximum.reduceat(whole, cones.unit_starts)[cones.unit_of_row], "slacks")
    whole = np.maximum.reduceat(np.abs(whole), inner.unit_starts)[inner.unit_of_row]
    values = []
    for end in ends:
        turn: Rotation = end.system.rotation  # type: ignore[union-attr]  # `_at` makes a reduced system
        r, d = turn.reduce(s_dot), np.zeros(turn.size)
        if turn.h is not None:
            d[turn.size - len(turn.h) :] = turn.h
        size = whole[turn.rows] if turn.directions is None else abs(turn.directions).T @ whole
        bent = np.divide(r**2, d, out=np.where(np.abs(r) > NOISE * size, np.inf, 0.0), where=d > 0.0)
        g, _ = entries.residual_tangent(tangent, local.x, end.y)
        values.append(float(bent.sum()) - 2.0 * cost * float(x_dot @ g))
    return np.array(values)


def _in_units(local: LocalPoint, rows: Floats, kind: Literal["slacks", "multipliers"]) -> Floats:
    """Slacks or multipliers of the original program in the condensed one's rows and units."""
    _, kept = local.solution.engine.condensation.restrict(local.x, rows)
    units = local.solution.units
    return kept if units is None else getattr(units, kind)(kept)


def _ends(local: LocalPoint, piece: Linearization) -> Iterator[Linearization]:
    for seed in range(1, 1 + STARTS):
        several = False
        for sign in (1.0, -1.0):
            end, y, gone = piece, local.y, np.zeros(local.cones.units, dtype=bool)
            for dependence in range(MOST_DEPENDENCES):
                null = null_vector(local, end, seed)
                further = None if null is None or not null.w.any() else _end_of(local, y, sign * null.w)
                if further is None:
                    break
                several = several or dependence > 0
                y, gone = further[0], gone | further[1]
                end = _at(local, y, gone)
            if end is not piece:
                yield end
        if not several:
            return


def _at(local: LocalPoint, y: Floats, gone: np.ndarray | None = None) -> Linearization:
    """The linearization for other multipliers, where the cones that have none (`gone`, a mask of units) are slack."""
    solution, s = local.solution, local.s.copy()
    if gone is not None:
        sizes, _ = local.scales_of(1.0)
        for unit in np.flatnonzero(gone):
            rows = local.rows_of(int(unit))
            s[rows] += sizes[rows] * local.interior(int(unit))
    v = _in_units(local, s, "slacks") - _in_units(local, y, "multipliers")
    system = ReducedSystem(solution.instance, rotation(solution.engine.cones, v))
    way, entries = solution.substitution, solution.engine.entries
    return Linearization(local.structure, local.data, local.x, y, system, s - y, way, entries=entries)


def _end_of(local: LocalPoint, y: Floats, w: Floats) -> tuple[Floats, np.ndarray] | None:
    """The farthest y + t w in the dual cone for t ≥ 0, and which cones have no force there; None without an end."""
    unit, starts, of_row = local.units[1], local.cones.unit_starts, local.cones.unit_of_row
    size = float(np.abs(y / unit).max(initial=0.0))
    w = w * (size / np.abs(w / unit).max())

    def outside(t: float) -> np.ndarray:
        off = cone.project(local.cones, -(y + t * w)) / (size * unit)
        off[: local.cones.zero] = 0.0
        return np.maximum.reduceat(np.abs(off), starts) > NOISE

    inside, beyond = 0.0, 1.0
    while not outside(beyond).any():
        inside, beyond = beyond, 2.0 * beyond
        if beyond > 1.0 / NOISE:
            return None
    while beyond - inside > NOISE * max(beyond, 1.0):
        t = (inside + beyond) / 2.0
        inside, beyond = (inside, t) if outside(t).any() else (t, beyond)
    # A force along one ray ends at zero, exactly: bisection knows that to `NOISE` only.
    y_unit, w_unit = y / unit, w / unit
    across, along = (np.add.reduceat(part * w_unit, starts) for part in (y_unit, w_unit))
    t_zero = np.divide(-across, along, out=np.zeros_like(along), where=along > 0.0)
    left = np.maximum.reduceat(np.abs(y_unit + t_zero[of_row] * w_unit), starts)
    gone = outside(beyond) & (left <= NOISE * size)
    if gone.any():
        inside = float(t_zero[gone].min())
    return np.where(gone[of_row], 0.0, y + inside * w), gone
