"""The derivative from one side, and whether the solution leaves with infinite speed there.

At a kink the derivative from a side is the limit of the derivatives on that side, so it is taken there, a small step
away. Where x moves as hᵖ with p < 1 the derivative has no limit: from one step to the next it grows by the same factor,
(h/h′)^(1−p). Steps of 1e-6 and ten times that tell; a third one tells a power from a kink that lies between them. A
step so small that the point found beside it is not accurate is taken ten times as long.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cvxift.errors import ApplicabilityWarning, SolveError
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.solution_map import SolutionMap
from cvxift.program.structure import Floats

SIDE = 1e-6  # relative step at which a one-sided derivative is taken
STEPS = tuple(SIDE * 10.0**k for k in range(5))
MATCH = 1e-2  # relative difference of a derivative and the slope between two points up to which they are the same
ACCURATE = 1e-9  # residual up to which a point at a side is good enough for its derivative
GROWTH = 1.15  # factor between two steps from which an entry may grow without bound: p up to 0.94
ALIKE = 0.25  # relative difference of the logarithms of two such factors up to which they are one power's
AGREE = 1e-4  # relative difference up to which the two sides have one derivative


@dataclass(frozen=True)
class Side:
    """What was found on one side.

    Attributes:
        derivative: of the map's flat outputs along the direction; infinite, with its sign, where it grows without
            bound; NaN where the points beside it have another slope than their own derivative.
    """

    derivative: Floats

    @property
    def infinite(self) -> bool:
        """Whether an output leaves with infinite speed."""
        return bool(np.isinf(self.derivative).any())


def side(outputs: SolutionMap, point: LocalPoint, theta_dot: Floats) -> Side:
    """The derivative along a direction, from its side.

    Args:
        outputs: the problem's map with the outputs wanted.
        point: the point.
        theta_dot: the direction, shape (N,).

    Raises:
        SolveError: the problem has no solution on that side.
    """
    size = float(np.abs(theta_dot / point.theta_size_of_entry).max(initial=0.0)) if len(theta_dot) else 0.0
    steps = [step / size if size > 0.0 else 0.0 for step in STEPS]
    k = 0
    at = [_at(outputs, point, theta_dot, steps[0])]
    while not at[-1].accurate and k + 3 < len(steps):
        k += 1
        at = [_at(outputs, point, theta_dot, steps[k])]
    at.append(_at(outputs, point, theta_dot, steps[k + 1]))
    near, far = (one.derivative for one in at)
    grows = _growth(near, far)
    suspected = grows >= GROWTH
    if suspected.any():
        try:
            first = _growth(far, _at(outputs, point, theta_dot, steps[k + 2]).derivative)
            logs = np.log(np.maximum(grows, 1.0)), np.log(np.maximum(first, 1e-300))
            suspected &= np.abs(logs[0] - logs[1]) <= ALIKE * np.abs(logs[0])
        except SolveError:  # the second ratio is not to be had
            suspected[:] = False
    slope = (at[1].value - at[0].value) / (steps[k + 1] - steps[k] or 1.0)
    size = max(float(np.abs(slope).max(initial=0.0)), float(np.abs(near).max(initial=0.0)))
    largest = max(float(np.abs(at[1].value).max(initial=0.0)), float(np.abs(point.x).max(initial=0.0)) or 1.0)
    level = MATCH * size + ACCURATE * largest / (steps[k + 1] or 1.0)
    alike = (np.abs(slope - near) <= level) & (np.abs(far - near) <= level)
    limit = near + (near - far) / (STEPS[1] / STEPS[0] - 1.0)  # of what changes with the step
    out = np.where(alike, limit, np.nan)
    return Side(np.where(suspected, np.copysign(np.inf, near), out))


class _Point(NamedTuple):
    """The flat outputs at a point beside, their derivative, and whether the point is accurate."""

    value: Floats
    derivative: Floats
    accurate: bool


def _at(outputs: SolutionMap, point: LocalPoint, theta_dot: Floats, step: float) -> _Point:
    solved = outputs.solve(point.theta + step * theta_dot)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ApplicabilityWarning)  # what happens at the side is read from several steps
        flat = outputs.jvp(solved, theta_dot)
    mask, value = outputs.exp_mask, solved.outputs
    if mask is not None:
        value = np.where(mask, np.exp(np.where(mask, value, 0.0)), value)
        flat = np.where(mask, flat * value, flat)
    return _Point(value, flat, solved.solutions[0].residuals.worst <= ACCURATE)


def _growth(near: Floats, far: Floats) -> Floats:
    """How much larger the derivative is at the nearer step; 0 where it is nothing beside the others."""
    level = 1e-9 * float(np.abs(far).max(initial=0.0))
    large = np.abs(far) > level
    return np.divide(np.abs(near), np.abs(far), out=np.zeros_like(near), where=large)


def compare_sides(point: LocalPoint) -> str:
    """What the asked outputs do on the two sides of a random direction of the parameters.

    Returns:
        ``"infinite"``: they leave with infinite speed; ``"unknown"``: their derivatives beside the point are not the
        solutions' slope; ``"equal"``: both sides have one derivative; ``"different"``; or ``"one"``: there is a
        solution on one side only.
    """
    program = point.program
    if not program.theta_size:
        return "unknown"
    own = _asked(point)
    theta_dot = np.random.default_rng(0).standard_normal(program.theta_size) * point.theta_size_of_entry
    found = []
    for sign in (1.0, -1.0):
        try:
            found.append(side(own, point, sign * theta_dot))
        except SolveError:  # no solution there
            continue
    if any(one.infinite for one in found):
        return "infinite"
    if any(np.isnan(one.derivative).any() for one in found):
        return "unknown"
    if len(found) < 2:
        return "one"
    up, down = found[0].derivative, -found[1].derivative
    size = max(float(np.abs(up).max(initial=0.0)), float(np.abs(down).max(initial=0.0)))
    return "equal" if float(np.abs(up - down).max(initial=0.0)) <= AGREE * size else "different"


def leaves(point: LocalPoint, theta_dot: Floats) -> bool:
    """Whether the asked outputs have no finite derivative along a direction, from its side."""
    return not np.isfinite(side(_asked(point), point, theta_dot).derivative).all()


def _asked(point: LocalPoint) -> SolutionMap:
    """The map to the variables asked for."""
    program = point.program
    outputs = [v for v in program.problem.variables() if point.asked[program.output(v).matrix.indices].all()]
    return SolutionMap(program.problem, None, outputs, program=program, engine=point.solution.engine)
