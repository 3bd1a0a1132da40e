"""Newton on the normal map, for one program or all of a batch: takes solvers' points to the accuracy of the arithmetic.

    J (dx, dv) = −F(x, v),    (x, v) ← (x + dx, v + dv),    s = Π_K(v),   y = s − v

A step is kept only if the worst relative residual falls. Near a regular solution the convergence is quadratic (for
polyhedral K one step on the right active set is exact), so a point of 1e-5 needs two or three steps. One program's last
factorization is handed on: at the new point it is the one the derivatives need as well, when the active set has not
changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np

from cvxift import cones as cone
from cvxift._types import cached_property
from cvxift.kkt.backend import HOST, Array, Arrays
from cvxift.kkt.batch.programs import DensePrograms
from cvxift.kkt.instance import Instance
from cvxift.kkt.residuals import GOAL, Residuals
from cvxift.kkt.system.batched import DenseSystems
from cvxift.kkt.system.kept import kept_system
from cvxift.kkt.system.reduced import ReducedSystem, rotation
from cvxift.program.products import apply
from cvxift.program.structure import Floats

EXPONENTIAL = (
    1e-15  # the same where exponential cones hold entries far below the largest, each wanted to 1e-6 of itself
)
NEWTON_STEPS = 12  # first-order points of 1e-3 need about six
STEP_LENGTHS = (1.0, 0.5, 0.1)  # step lengths tried before giving up


@dataclass(frozen=True, eq=False)
class Point:
    """A primal-dual point whose s and y are complementary members of the cones, and its relative residuals.

    Attributes:
        x: columns, shape (n,).
        s: slacks, shape (m,).
        y: multipliers, shape (m,).
        v: s − y, shape (m,).
        residuals: relative residuals.
        worst: the largest of them.
        steps: Newton steps that were kept.
        system: the reduced system at the point, if one was factorized for it.
        spectrum: the spectrum of DΠ_K(v), which gave s; None if K is polyhedral or s came from elsewhere.
    """

    x: Floats
    s: Floats
    y: Floats
    v: Floats
    residuals: Residuals
    worst: float
    steps: int = 0
    system: ReducedSystem | None = None
    spectrum: cone.Spectrum | None = None


@dataclass(frozen=True, eq=False)
class Points:
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
class Evaluated:
    """A point with its errors, or those of a batch.

    Attributes:
        point: the point or points.
        dual: shape (..., n).
        primal: shape (..., m).
        certified: whether the step to it was, on the host, shape (...).
    """

    point: Any
    dual: Array
    primal: Array
    certified: Any = True


def evaluate(instance: Instance, x: Floats, v: Floats, near: cone.Spectrum | None = None) -> Evaluated:
    """The point that (x, v) stands for, with its dual error (n,) and primal error (m,); `near` is a nearby spectrum."""
    cones = instance.structure.cones
    # A curved cone's projection comes with its spectrum, which the Newton step and the derivatives at v need as well.
    spectrum = None if cones.polyhedral else cone.spectrum(cones, v, near)
    s = cone.project(cones, v) if spectrum is None else spectrum.s
    y = s - v
    dual, primal, residuals = instance.errors(x, s, y)
    return Evaluated(Point(x, s, y, v, residuals, residuals.worst, spectrum=spectrum), dual, primal)


@overload
def polish(
    program: Instance, x: Floats, v: Floats, *, goal: float = ..., max_steps: int = ..., close: float = ...
) -> Point: ...


@overload
def polish(
    program: DensePrograms,
    x: Array,
    v: Array,
    *,
    goal: float = ...,
    max_steps: int = ...,
    close: float = ...,
    near: float = ...,
) -> Points: ...


def goal_of(cones: cone.Cones) -> float:
    """The relative residual from which a solver's point is left as it is."""
    return EXPONENTIAL if cones.exp else GOAL


def polish(
    program: Instance | DensePrograms,
    x: Array,
    v: Array,
    *,
    goal: float = GOAL,
    max_steps: int = NEWTON_STEPS,
    close: float = np.inf,
    near: float = np.inf,
) -> Any:
    """Newton from (x, v) until no residual above the goal falls any more.

    In a batch a step is kept only in the instances where its system is certified, too: a singular system is left to
    whoever takes the instance alone. Each step reads 4B numbers from a device.

    Args:
        program: the program, or the batch.
        x: columns, shape (..., n).
        v: s − y, shape (..., m).
        goal: relative residual from which a point is left as it is.
        max_steps: largest number of steps.
        close: if finite, the start is the solution of a program that was a little different: steps are taken whole as
            long as they lead to no residual larger than this, whether it falls or not, because it is one step in
            which rows become tight or slack, and only the next one in which it falls.
        near: relative residual of the start above which a point is left as it is.

    Returns:
        The best point found, or points; the start itself if no step helped.
    """
    if isinstance(program, Instance):
        steps, at = _Single(program), evaluate(program, x, v)
        if at.point.worst <= goal:
            return at.point
    else:
        steps = _Batch(program)
        at = steps.read(steps.errors(x, v)[1])
    worst = at.point.worst
    wanting = (worst > goal) & (worst <= near) & np.isfinite(worst)
    settled, count = wanting & False, 0
    while count < max_steps and wanting.any():
        done = steps.some(at, wanting, settled, goal=goal, max_steps=max_steps - count, close=close)
        if done is not None:
            return done
        new, certified = _stepped(steps, at, wanting, close)
        worst, before = new.point.worst, at.point.worst
        falls = (worst < before) | (wanting & (worst <= close) & np.isfinite(close) & (new is not at))
        settled = settled | (wanting & certified & ~falls)
        wanting = wanting & falls & (worst > goal)
        if not np.any(falls):
            break
        at, count = new, count + 1
    return steps.end(at, settled, count)


def _stepped(steps: _Single | _Batch, at: Evaluated, wanting: Any, close: float) -> tuple[Evaluated, Any]:
    """One step where it is wanted: the longest of those tried that takes a tenth off, or the whole, or none.

    Returns:
        The point, the old one where nothing was taken; and whether the step was certified.
    """
    place, xp, point = steps.place, steps.place.xp, at.point
    dx, dy, certified = steps.solve(at)
    dv = -at.primal - apply(steps.A, dx) - dy
    least = place.put(np.where(wanting, point.worst, -np.inf))
    bound, lengths = (0.9 * least, STEP_LENGTHS) if np.isinf(close) else (close, STEP_LENGTHS[:1])
    x, v, taken = point.x, point.v, (least < 0.0) | ~certified
    for length in lengths:
        trial_x, trial_v = point.x + length * dx, point.v + length * dv
        worst, found = steps.errors(trial_x, trial_v, point.spectrum)
        take = (worst < bound) & ~taken
        if place.reads_freely:
            if bool(xp.all(take)):
                return steps.read(found, certified), certified
            if not bool(xp.any(take)):
                continue
        x = xp.where(take[..., None], trial_x, x)
        v = xp.where(take[..., None], trial_v, v)
        taken = taken | take
        if place.reads_freely and bool(xp.all(taken)):
            break
    if x is point.x:
        return at, certified
    new = steps.read(steps.errors(x, v, point.spectrum)[1], certified)
    return new, new.certified


@dataclass
class _Single:
    """What the steps of one program need: its reduced system, of which one without a solution gives least squares.

    `errors` gives the relative residual, shape (...), and what `read` makes a point of, which alone waits for a device.
    `solve` gives dx, dy and whether they are certified; `some` goes on with a few of a batch; `end` hands over.
    """

    instance: Instance
    system: ReducedSystem | None = None
    place: Arrays = field(default=HOST, init=False)

    @property
    def A(self) -> Any:
        return self.instance.A

    def errors(self, x: Floats, v: Floats, near: Any = None) -> tuple[Any, Evaluated]:
        found = evaluate(self.instance, x, v, near)
        return np.float64(found.point.worst), found

    def read(self, found: Evaluated, certified: Any = None) -> Evaluated:
        return found

    def solve(self, at: Evaluated) -> tuple[Floats, Floats, Any]:
        turn = rotation(self.instance.structure.cones, at.point.v, at.point.spectrum)
        if self.system is None or not turn.same(self.system.rotation):
            self.system = kept_system(self.instance, turn)
        dx, dy, _ = self.system.solve(-at.dual, -at.primal)
        return dx, dy, np.True_  # a step that does not help is dropped

    def some(self, at: Evaluated, wanting: np.ndarray, settled: np.ndarray, **options: Any) -> None:
        return None

    def end(self, at: Evaluated, settled: np.ndarray, steps: int) -> Point:
        return at.point if self.system is None else reached(self.instance, at.point, steps, self.system)


def reached(instance: Instance, point: Point, steps: int, system: ReducedSystem | None) -> Point:
    """A point that Newton's steps have led to, with the last reduced system if it is the point's own."""
    cones = instance.structure.cones
    same = system is not None and cones.polyhedral and rotation(cones, point.v).same(system.rotation)
    return replace(point, steps=steps, system=system if same else None)


@dataclass
class _Batch:
    """The same for a batch, by its dense systems."""

    programs: DensePrograms

    @property
    def place(self) -> Arrays:
        return self.programs.place

    @property
    def A(self) -> Any:
        return self.programs.A

    def errors(self, x: Array, v: Array, near: Any = None) -> tuple[Array, Any]:
        errors = self.programs.errors(x, v, near)
        return self.place.xp.max(errors[2], axis=-1), (x, v, errors)

    def read(self, found: Any, certified: Any = None) -> Evaluated:
        place, xp = self.place, self.place.xp
        x, v, (dual, primal, residuals, spectrum) = found
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
        point = Points(self.programs, x, v, report[:, :2], most, spectrum, nobody)
        return Evaluated(point, dual, primal, nobody if certified is None else certified)

    def solve(self, at: Evaluated) -> tuple[Array, Array, Array]:
        return DenseSystems(self.programs, at.point.spectrum, at.point.most).solve(-at.dual, -at.primal)

    def some(self, at: Evaluated, wanting: np.ndarray, settled: np.ndarray, **options: Any) -> Points | None:
        """On the host, where less than half of the instances are wanting."""
        point, index = at.point, np.flatnonzero(wanting)
        if not self.place.reads_freely or 2 * len(index) > len(wanting):
            return None
        some = polish(self.programs.taken(index), point.x[index], point.v[index], **options)
        x, v, residuals = np.array(point.x), np.array(point.v), np.array(point.residuals)
        x[index], v[index], residuals[index], settled[index] = some.x, some.v, some.residuals, some.settled
        return Points(self.programs, x, v, residuals, None, None, settled)

    def end(self, at: Evaluated, settled: np.ndarray, steps: int) -> Points:
        p = at.point
        return Points(self.programs, p.x, p.v, p.residuals, p.most, p.known, settled)
