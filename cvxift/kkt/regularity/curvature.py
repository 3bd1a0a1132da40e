"""Derivatives where the solution is unique, but curvature vanishes at it: the fourth power at its minimum.

    minimize (x − t)⁴        x = t, dx/dt = 1;      canonical: minimize w²  s.t.  (x − t)² ≤ w,  w = 0 at the solution

The cone (x − t)² ≤ w is on its boundary without a multiplier. Counted as slack, as the other weak cones of a singular
point are, it leaves x free. Given a multiplier ε it has curvature, which pulls x after t however small ε is:

    2ε (ẋ − ṫ) = 0

So the cones that are weak, or near it beside the size of the whole solution (such a minimum is found only to the root
of a solver's tolerance), get a multiplier each. What K then gives is the limit of derivatives along some data of the
cone program near the user's, not along the user's parameters: it is believed only if solutions at nearby parameters
bear it out.

For the same reason a small residual does not show such a point to be near the solution: a Newton step would still move
it by a third of its distance. Where that is as far as the nearest kink, the derivative there must be borne out as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cvxift import cones as cone
from cvxift.kkt.policy import Policy
from cvxift.kkt.regularity.null_space import is_regular
from cvxift.kkt.regularity.pieces import neighbour, steps_of_theta
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.thresholds import (
    BORNE_OUT,
    BORNE_OUT_MEAN,
    FAR_STEPS,
    MULTIPLIER,
    NO_LIMIT,
    SETTLED,
    STEEP,
    STEP,
)
from cvxift.kkt.solution import Linearization
from cvxift.kkt.system.cone_basis import rotation
from cvxift.kkt.system.factor import DenseFactor
from cvxift.kkt.system.reduced import ReducedSystem
from cvxift.program.structure import Floats

if TYPE_CHECKING:
    from cvxift.kkt.recovery import Recovery

DIRECTIONS = 3  # random changes of θ, there and back, at which the derivative is compared with solutions


def curved(local: LocalPoint) -> Linearization | None:
    """The linearization at a point whose weak cones have a small multiplier each; None if there are no such cones.

    Args:
        local: the point.
    """
    sigma_s, sigma_y = local.scales_of(1.0)
    scaled = local.s / sigma_s - local.y / sigma_y
    weak = np.flatnonzero(cone.margin(local.cones, scaled) <= MULTIPLIER)
    if not len(weak):
        return None
    for unit in weak:
        scaled[local.rows_of(int(unit))] -= MULTIPLIER * local.interior(int(unit))
    rows = np.isin(local.cones.unit_of_row, weak)
    s = cone.project(local.cones, scaled)
    v = np.where(rows, sigma_s * s - sigma_y * (s - scaled), local.v)
    system = ReducedSystem(local.instance, rotation(local.cones, v))
    return Linearization(local.structure, local.data, local.x, local.y, system, v, None)


def unsettled(local: LocalPoint, piece: Linearization) -> bool:
    """Whether a point of curved cones is as far from the solution, by a Newton step, as from a kink.

    Args:
        local: the point.
        piece: its linearization.
    """
    columns, rows = piece.entries.act(local.data, local.x, local.y)
    dx, dy = piece.solve(-(columns + local.data.q), local.data.b - rows - local.s)
    ds = local.data.b - rows - local.s - piece.entries.act(local.data, dx, dy)[1]
    sigma_s, sigma_y = local.scales
    step = np.maximum(np.abs(ds / sigma_s), np.abs(dy / sigma_y))
    return bool((np.maximum.reduceat(step, local.cones.unit_starts) > SETTLED * local.margins).any())


def runs_away(local: LocalPoint, recover: Recovery, piece: Linearization, policy: Policy) -> bool:
    """Whether outputs move so fast that the derivative does not hold even for a step in which they stay near the point.

    The square root of a parameter at zero: x is found at the root of the rounding, not at 0, where K is still regular.

    Args:
        local: the point.
        recover: the outputs.
        piece: the point's linearization.
        policy: how derivatives are taken.
    """
    if is_regular(piece) and not _poor(piece):
        return False  # nothing moves that much
    unit = np.maximum(abs(recover.X) @ local.units[0], np.finfo(float).tiny)
    (step,) = steps_of_theta(local, STEP, 1)
    tangent = local.program.jvp(step)
    here = recover.X @ piece.jvp(tangent)[0] / unit
    reach = float(np.abs(here).max(initial=0.0))
    if reach <= NO_LIMIT:
        return False
    for part in (SETTLED / reach, -SETTLED / reach):
        near = neighbour(local, part * step)
        if near is None:
            return True
        there = recover.X @ near.linearization(policy).jvp(tangent)[0] / unit
        if np.abs(there - here).max() > STEEP * reach:
            return True
    return False


def _poor(piece: Linearization) -> bool:
    """Whether K may be so ill-conditioned that `STEP` of a right-hand side moves a column by `NO_LIMIT`."""
    factor = piece.system.factor if isinstance(piece.system, ReducedSystem) else None
    return isinstance(factor, DenseFactor) and factor.rcond * NO_LIMIT < STEP


def borne_out(local: LocalPoint, recover: Recovery, pieces: Sequence[Linearization]) -> Linearization | None:
    """Of some linearizations the one that solutions at nearby parameters bear out; None if they bear out none.

    Each side must be where the linearization says, up to the curvature of the step, and their mean without that. It
    tells which is right of linearizations that differ by less than a step bends. Where curvature has no end at the
    point (|x|^1.5 at zero: x moves as ±θ²), the mean is off by the step as well, which that of another step takes away.

    Args:
        local: the point.
        recover: the outputs.
        pieces: the linearizations, one at least.
    """
    columns, _ = local.units
    unit = np.maximum(abs(recover.X) @ columns, np.finfo(float).tiny)
    last, last_length = None, 0.0
    for length in FAR_STEPS:
        found = _off(local, recover, pieces, length, unit)
        if found is None:
            last = None
            continue
        sides, mean = found
        off = np.abs(mean).max(axis=(1, 2), initial=0.0)
        if last is not None:
            ratio = last_length / length
            off = np.minimum(off, np.abs(ratio * mean - last).max(axis=(1, 2), initial=0.0) / (ratio - 1.0))
        off[(sides > BORNE_OUT) | (off > BORNE_OUT_MEAN)] = np.inf
        best = int(off.argmin())
        if np.isfinite(off[best]):
            return pieces[best]
        last, last_length = mean, length
    return None


def _off(
    local: LocalPoint,
    recover: Recovery,
    pieces: Sequence[Linearization],
    length: float,
    unit: Floats,
) -> tuple[Floats, Floats] | None:
    """How far solutions are off what each linearization says, relative to what it says; None where there are none.

    Returns:
        The farther side's distance, shape (pieces,), and the mean's, shape (pieces, directions, outputs).
    """
    apart, mean = np.zeros(len(pieces)), np.zeros((len(pieces), DIRECTIONS, len(unit)))
    for number, step in enumerate(steps_of_theta(local, length, DIRECTIONS)):
        ahead, behind = (neighbour(local, sign * step, length=length) for sign in (1.0, -1.0))
        if ahead is None or behind is None:
            return None
        sides = np.stack([recover.X @ (ahead.x - local.x), recover.X @ (local.x - behind.x)]) / unit
        tangent = local.program.jvp(step)
        for k, piece in enumerate(pieces):
            expected = recover.X @ piece.jvp(tangent)[0] / unit
            size = float(np.abs(expected).max(initial=0.0))
            off = np.abs(sides - expected).max(initial=0.0)
            if size == 0.0:  # nothing to compare with: what must not move must not move at all
                apart[k] = np.inf if off > 0.0 else apart[k]
                continue
            apart[k] = max(apart[k], off / size)
            mean[k, number] = (sides.mean(axis=0) - expected) / size
    return apart, mean
