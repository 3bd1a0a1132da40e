"""Newton on the optimality conditions of a nonlinear program, as the normal map of its linearization.

At (x, v) with s = Π_K(v), y = Π_K(v) − v the residual of the nonlinear program is that of the quadratic program which
linearizes it there (`cvxift.program.smooth.program`), and so is its Jacobian:

    F(x, v) = [ ∇f + Jᵀy ;  g + s ],        J_F (dx, dv) = −F      (one SQP step on the active set that v's signs name)

Near a regular point convergence is quadratic. Where the second-order condition fails at the point alone, as for x⁴, it
is linear: the steps shrink by a constant factor. That is what tells such a point, whose Hessian is small but not
singular a good way before it (Griewank & Osborne 1983).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cvxift.cones import project
from cvxift.kkt.instance import Instance, Layout
from cvxift.kkt.newton import GOAL, STEP_LENGTHS, Point, evaluate
from cvxift.kkt.system.cone_basis import rotation
from cvxift.kkt.system.reduced import ReducedSystem
from cvxift.program.smooth import LinearizedData, SmoothProgram
from cvxift.program.structure import Floats

MAX_STEPS = 30
SLOW = (0.35, 0.95)  # ratio of one step's length to the one before, of a minimum of order 3 (1/2) and above
FLATTER = 0.7  # of a slope that a step may leave; Newton leaves (1 − 1/(p − 1))^(p − 1) of it at a minimum of order p
STEADY = 4  # steps in a row with such a ratio that tell linear convergence
DUST = 1e-15  # part of the cost's gradient that a multiplier's force must exceed
STILL = 1e-13  # relative length of a step that rounding makes


@dataclass(frozen=True, eq=False)
class Converged:
    """Where Newton ended.

    Attributes:
        point: the point, with its residuals.
        data: the linearized program there.
        instance: its matrices.
        slow: whether the steps shrank by a constant factor to the end.
        moved: how far the columns went from the start, relative to their size.
        contracts: whether the first step was a full one and the second at most half as long, which makes the point the
            one that belongs to the start (Deuflhard 2004, Section 2.1); None where other rows became active on the way.
        step: Newton's last step of the columns, shape (n,); None if there was none.
    """

    point: Point
    data: LinearizedData
    instance: Instance
    slow: bool
    moved: float
    contracts: bool | None
    step: Floats | None


def converge(
    program: SmoothProgram,
    layout: Layout,
    theta: Floats,
    p: Floats,
    x: Floats,
    v: Floats,
    max_steps: int = MAX_STEPS,
) -> Converged:
    """Newton's steps from a point until its residual is at the goal or falls no more.

    Args:
        program: the program.
        layout: of its instances.
        theta: parameters, shape (N,).
        p: data columns, shape (n_p,).
        x: columns, shape (n,).
        v: s − y, shape (m,).
        max_steps: largest number of steps.

    Returns:
        The best point found.
    """
    start = x
    at = best = _at(program, layout, theta, p, x, v)
    lengths: list[float] = []
    contracts: bool | None = True
    step: Floats | None = None
    while np.isfinite(at.worst) and len(lengths) < max_steps:
        if at.worst <= GOAL and not _slow(lengths):
            break
        turn = rotation(program.cones, at.point.v)
        system = ReducedSystem(at.instance, turn)
        dx, dy, _ = system.solve(-at.dual, -at.primal)
        ds = -at.primal - at.instance.A @ dx
        full: _At | None = None
        for length in STEP_LENGTHS:
            with np.errstate(all="ignore"):
                v = _without_dust(at, at.point.v + length * (ds - dy))
                trial = _at(program, layout, theta, p, at.point.x + length * dx, v)
            full = trial if full is None else full
            if trial.worst < 0.9 * at.worst or trial.flatter(at):
                break
        else:
            # Where rows without a force change sides a full step may be worse before it is better: once, since the best
            # point is kept (the watchdog of Chamberlain et al. 1982).
            if best is not at or full is None:
                break
            length, trial = 1.0, full
        step = dx
        lengths.append(float(np.abs(length * dx).max(initial=0.0)) / _size(at.point.x))
        if len(lengths) <= 2 and contracts:
            contracts = length == 1.0 and (len(lengths) == 1 or lengths[1] <= max(0.5 * lengths[0], STILL))
            if not np.array_equal(at.point.v > 0.0, trial.point.v > 0.0):
                contracts = None
        at = trial
        if at.worst < best.worst or at.flatter(best):
            best = at
        if lengths[-1] <= STILL:
            break
    at = best
    point = replace(at.point, steps=len(lengths))
    moved = float(np.abs(point.x - start).max(initial=0.0)) / _size(start)
    return Converged(point, at.data, at.instance, _slow(lengths), moved, contracts, step)


@dataclass(frozen=True, eq=False)
class _At:
    """A point with its linearization and errors."""

    point: Point
    data: LinearizedData
    instance: Instance
    dual: Floats
    primal: Floats

    @property
    def worst(self) -> float:
        return self.point.worst

    def flatter(self, other: _At) -> bool:
        """Whether the slope is less than at another point, where both are feasible to the same accuracy.

        On the way to a minimum of higher order the slope falls with all that it is the sum of, and no relative
        residual does.
        """
        feasible = self.point.residuals.primal <= max(GOAL, other.point.residuals.primal)
        slopes = [float(np.abs(one.dual).max(initial=0.0)) for one in (self, other)]
        return feasible and slopes[0] <= FLATTER * slopes[1]


def _at(program: SmoothProgram, layout: Layout, theta: Floats, p: Floats, x: Floats, v: Floats) -> _At:
    cones = program.cones
    y = project(cones, v) - v
    data = program.linearized(theta, p, x, y)
    instance = layout.instance(data)
    at = evaluate(instance, x, v)
    return _At(at.point, data, instance, at.dual, at.primal)


def _without_dust(at: _At, v: Floats) -> Floats:
    """v without multipliers that rounding makes.

    Where the cost is constant those of equalities are zero, and a Hessian made of rounding alone would have a scale of
    its own; so would the balance of an epigraph's column, whose constraint is slack.
    """
    A: Any = abs(at.instance.rows)
    rows = np.asarray(A.sum(axis=1)).ravel()
    cost = float(np.abs(at.data.program.gradient).max(initial=0.0)) or 1.0
    cones = at.instance.structure.cones
    multiplier = (np.arange(len(v)) < cones.zero) | (v < 0.0)
    multiplier[cones.rows("soc")] = False  # entries of a cone are not small alone
    return np.where(multiplier & (np.abs(v) * rows <= DUST * cost), 0.0, v)


def _slow(lengths: list[float]) -> bool:
    if len(lengths) <= STEADY:
        return False
    last = np.array(lengths[-STEADY - 1 :])
    ratios = last[1:] / np.maximum(last[:-1], 1e-300)
    return bool(((ratios > SLOW[0]) & (ratios < SLOW[1])).all())


def _size(x: Floats) -> float:
    return float(np.abs(x).max(initial=0.0)) or 1.0
