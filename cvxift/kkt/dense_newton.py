"""Newton's steps for all instances of a batch of small dense programs at once; see `cvxift.kkt.newton`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxift._types import cached_property
from cvxift.kkt.backend import Array
from cvxift.kkt.dense import DensePrograms
from cvxift.kkt.dense_systems import DenseSystems
from cvxift.kkt.newton import GOAL, MAX_STEPS, SHRINK
from cvxift.program.products import apply


@dataclass(frozen=True, eq=False)
class DensePoints:
    """Primal-dual points of a batch.

    Attributes:
        programs: the batch.
        x: shape (B, n).
        v: s − y, shape (B, m).
        residuals: relative, primal and dual, on the host, shape (B, 2).
        most: largest number of directions with d < 1 in an instance; None if it was not counted.
        known: the spectrum at v, if it was computed.
        settled: instances that a certified step of Newton's does not improve any more, shape (B,), on the host.
    """

    programs: DensePrograms
    x: Array
    v: Array
    residuals: np.ndarray
    most: int | None
    known: Any
    settled: np.ndarray

    @cached_property
    def worst(self) -> np.ndarray:
        """The larger residual of each instance, shape (B,); NaN counts as infinite."""
        worst = self.residuals.max(axis=-1)
        worst[np.isnan(worst)] = np.inf
        return worst

    @cached_property
    def spectrum(self) -> Any:
        """The spectrum of DΠ_K(v)."""
        return self.programs.cones.spectrum(self.v) if self.known is None else self.known


@dataclass(frozen=True, eq=False)
class _Checked:
    """Points with their errors (B, n) and (B, m), and which steps to them were certified, on the host."""

    point: DensePoints
    dual: Array
    primal: Array
    certified: np.ndarray


def check(programs: DensePrograms, x: Array, v: Array, near: Any = None) -> DensePoints:
    """The points with their residuals: one read of 3B numbers from a device.

    Args:
        programs: the batch.
        x: columns, shape (B, n).
        v: s − y, shape (B, m).
        near: the spectrum at nearby v, if one is known.
    """
    return _checked(programs, x, v, programs.errors(x, v, near)).point


def _checked(
    programs: DensePrograms, x: Array, v: Array, errors: tuple[Array, Array, Array, Any], certified: Array = None
) -> _Checked:
    """What the host reads of the errors; `certified` (B,) comes by the same copy."""
    place, xp = programs.place, programs.place.xp
    dual, primal, residuals, spectrum = errors
    if place.reads_freely:
        report, most = residuals, None
    else:
        columns = [residuals, xp.sum(xp.astype(spectrum.kept, xp.float64), axis=-1, keepdims=True)]
        if certified is not None:
            columns.append(xp.astype(certified, xp.float64)[:, None])
        report = place.host(xp.concat(columns, axis=-1))  # one read for all
        most = int(report[:, 2].max(initial=0.0))
        certified = None if certified is None else report[:, 3] > 0.0
    nobody = np.zeros(len(report), dtype=bool)
    point = DensePoints(programs, x, v, report[:, :2], most, spectrum, nobody)
    return _Checked(point, dual, primal, nobody if certified is None else certified)


def polish(
    programs: DensePrograms,
    x: Array,
    v: Array,
    *,
    goal: float = GOAL,
    max_steps: int = MAX_STEPS,
    close: float = np.inf,
    near: float = np.inf,
) -> DensePoints:
    """Newton on all instances until no residual above the goal falls any more.

    A step is kept only in the instances where its system is certified and the residual falls: a singular system is left
    to whoever takes the instance alone. Each step reads 4B numbers from a device.

    Args:
        programs: the batch.
        x: columns, shape (B, n).
        v: s − y, shape (B, m).
        goal: relative residual from which an instance is left as it is.
        max_steps: largest number of steps.
        close: as in `newton.polish`: if finite, whole steps are taken that lead to no larger residual.
        near: relative residual of the start above which an instance is left as it is.

    Returns:
        The best points found.
    """
    at = _checked(programs, x, v, programs.errors(x, v))
    settled = np.zeros(len(at.point.worst), dtype=bool)
    wanting = (at.point.worst > goal) & (at.point.worst <= near) & np.isfinite(at.point.worst)
    for step in range(max_steps):
        if not wanting.any():
            break
        if programs.place.reads_freely and 2 * wanting.sum() <= len(wanting):
            return _some(at.point, np.flatnonzero(wanting), settled, goal, max_steps - step, close)
        new = _stepped(programs, at, wanting, close)
        falls = (new.point.worst < at.point.worst) | (wanting & (new.point.worst <= close) & np.isfinite(close))
        settled |= wanting & new.certified & ~falls
        wanting &= falls & (new.point.worst > goal)
        if not falls.any():
            break
        at = new
    point = at.point
    return DensePoints(programs, point.x, point.v, point.residuals, point.most, point.known, settled)


def _some(
    point: DensePoints, index: np.ndarray, settled: np.ndarray, goal: float, max_steps: int, close: float
) -> DensePoints:
    """Go on with some instances alone; on the host."""
    programs = point.programs
    x, v = point.x[index], point.v[index]
    some = polish(programs.taken(index), x, v, goal=goal, max_steps=max_steps, close=close)
    x, v, residuals = np.array(point.x), np.array(point.v), np.array(point.residuals)
    x[index], v[index], residuals[index], settled[index] = some.x, some.v, some.residuals, some.settled
    return DensePoints(programs, x, v, residuals, None, None, settled)


def _stepped(programs: DensePrograms, at: _Checked, wanting: np.ndarray, close: float) -> _Checked:
    """One step of the wanting instances: the longest of those tried that takes a tenth off, or the whole, or none."""
    place, xp, point = programs.place, programs.place.xp, at.point
    x, v = point.x, point.v
    dx, dy, certified = DenseSystems(programs, point.spectrum, point.most).solve(-at.dual, -at.primal)
    dv = -at.primal - apply(programs.A, dx) - dy
    least = place.put(np.where(wanting, point.worst, -np.inf))
    bound, lengths = (0.9 * least, SHRINK) if np.isinf(close) else (close, SHRINK[:1])
    new_x, new_v, taken = x, v, (least < 0.0) | ~certified
    for length in lengths:
        trial_x, trial_v = x + length * dx, v + length * dv
        errors = programs.errors(trial_x, trial_v, point.spectrum)
        take = (xp.max(errors[2], axis=-1) < bound) & ~taken
        if place.reads_freely and bool(xp.all(take)):
            return _checked(programs, trial_x, trial_v, errors, certified)
        new_x = xp.where(take[:, None], trial_x, new_x)
        new_v = xp.where(take[:, None], trial_v, new_v)
        taken = taken | take
        if place.reads_freely and bool(xp.all(taken)):
            break
    return _checked(programs, new_x, new_v, programs.errors(new_x, new_v, point.spectrum), certified)
