"""Newton on the normal map: takes a solver's point to the accuracy that the arithmetic allows.

    J (dx, dv) = −F(x, v),    (x, v) ← (x + dx, v + dv),    s = Π_K(v),   y = s − v

A step is kept only if the worst relative residual falls. Near a regular solution the convergence is quadratic (for
polyhedral K one step on the right active set is exact), so a point of 1e-5 needs two or three steps. The last step's
factorization is handed on: at the new point it is the one the derivatives need as well, when the active set has not
changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvxift import cones as cone
from cvxift.kkt.instance import Instance, Residuals
from cvxift.kkt.system import ReducedSystem, rotation
from cvxift.program.structure import Floats

GOAL = 1e-12  # relative residual from which a point is left as it is
MAX_STEPS = 12  # first-order points of 1e-3 need about six
SHRINK = (1.0, 0.5, 0.1)  # step lengths tried before giving up


@dataclass(frozen=True, eq=False)
class Point:
    """A primal-dual point whose s and y are complementary members of the cones, and its relative residuals.

    Attributes:
        x: columns, shape (n,).
        s: slacks, shape (m,).
        y: multipliers, shape (m,).
        v: s − y, shape (m,).
        residuals: relative residuals.
        steps: Newton steps that were kept.
        system: the reduced system at the point, if one was factorized for it.
        spectrum: the spectrum of DΠ_K(v), which gave s; None if K is polyhedral or s came from elsewhere.
    """

    x: Floats
    s: Floats
    y: Floats
    v: Floats
    residuals: Residuals
    steps: int = 0
    system: ReducedSystem | None = None
    spectrum: cone.Spectrum | None = None


def evaluate(
    instance: Instance, x: Floats, v: Floats, near: cone.Spectrum | None = None
) -> tuple[Point, Floats, Floats]:
    """The point that (x, v) stands for, with its dual error (n,) and primal error (m,); `near` is a nearby spectrum."""
    cones = instance.structure.cones
    # A curved cone's projection comes with its spectrum, which the Newton step and the derivatives at v need as well.
    spectrum = None if cones.polyhedral else cone.spectrum(cones, v, near)
    s = cone.project(cones, v) if spectrum is None else spectrum.s
    y = s - v
    dual, primal, residuals = instance.errors(x, s, y)
    return Point(x, s, y, v, residuals, spectrum=spectrum), dual, primal


def polish(
    instance: Instance,
    x: Floats,
    v: Floats,
    *,
    goal: float = GOAL,
    max_steps: int = MAX_STEPS,
    close: float = np.inf,
) -> Point:
    """Newton from (x, v) until the residual stops falling or is below the goal.

    Args:
        instance: the program.
        x: columns, shape (n,).
        v: s − y, shape (m,).
        goal: relative residual at which to stop.
        max_steps: largest number of steps.
        close: if finite, the start is the solution of a program that was a little different: steps are taken whole as
            long as they lead to no residual larger than this, whether it falls or not, because it is one step in
            which rows become tight or slack, and only the next one in which it falls.

    Returns:
        The best point found; the start itself if no step helped.
    """
    point, dual, primal = evaluate(instance, x, v)
    if point.residuals.worst <= goal:
        return point
    system: ReducedSystem | None = None
    steps = 0
    while point.residuals.worst > goal and steps < max_steps and np.isfinite(point.residuals.worst):
        turn = rotation(instance.structure.cones, point.v, point.spectrum)
        if system is None or not turn.same(system.rotation):
            system = ReducedSystem(instance, turn)  # least squares: a step that does not help is dropped
        dx, dy, _ = system.solve(-dual, -primal)
        ds = -primal - instance.A @ dx
        limit, lengths = (0.9 * point.residuals.worst, SHRINK) if np.isinf(close) else (close, SHRINK[:1])
        for length in lengths:
            trial, trial_dual, trial_primal = evaluate(
                instance, point.x + length * dx, point.v + length * (ds - dy), point.spectrum
            )
            if trial.residuals.worst < limit:
                break
        else:
            break
        point, dual, primal = trial, trial_dual, trial_primal
        steps += 1
    cones = instance.structure.cones
    if system is not None and not (cones.polyhedral and rotation(cones, point.v).same(system.rotation)):
        system = None
    return Point(point.x, point.s, point.y, point.v, point.residuals, steps, system, point.spectrum)
