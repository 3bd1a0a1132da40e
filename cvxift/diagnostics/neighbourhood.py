"""What lies beside a point: the derivative from one side, infinite speed, and how far the active set stays the same.

At a kink the derivative from a side is the limit of the derivatives on that side, so it is taken there, a small step
away. Where x moves as hᵖ with p < 1 the derivative has no limit: from one step to the next it grows by the same factor,
(h/h′)^(1−p). Steps of 1e-6 and ten times that tell; a third one tells a power from a kink that lies between them. A
step so small that the point found beside it is not accurate is taken ten times as long.

Along θ + tθ̇ the slacks and multipliers move, to first order, by tṡ and tẏ. The ratio test of parametric programming
(Gal 1979; Guddat et al. 1990) gives the first change: t = min over active rows of −y_i/ẏ_i and over inactive ones of
−s_i/ṡ_i, exact where θ enters q and b alone. For other cones the distance to the nearest kink, which changes no faster
than ‖v̇‖, gives a bound: t ≥ margin / ‖v̇‖.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import cvxpy as cp
import numpy as np

from cvxift.diagnostics.domain import told
from cvxift.diagnostics.user_terms import unit_names
from cvxift.errors import ApplicabilityWarning, ProgramError, SolveError
from cvxift.kkt.engine import TOLERANCE
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.thresholds import BORNE_OUT, DIFFERENT_CURVED, NOISE, STEP
from cvxift.kkt.solution_map import SolutionMap
from cvxift.program.attributes import inward
from cvxift.program.products import apply
from cvxift.program.structure import Floats

if TYPE_CHECKING:
    from cvxift.diagnostics.analysis import Analysis

SIDE_STEPS = tuple(STEP * 10.0**k for k in range(5))  # relative, at which a one-sided derivative is taken
INFINITE_GROWTH = 1.15  # factor between two steps from which an entry may grow without bound: p up to 0.94
ALIKE = 0.25  # relative difference of the logarithms of two such factors up to which they are one power's
MOST_RADII = 2000  # entries of θ up to which radii of all parameters are computed


@dataclass(frozen=True)
class Side:
    """What was found on one side.

    Attributes:
        derivative: of the flat outputs along the direction; infinite, with its sign, where it grows without bound; NaN
            where the points beside it have another slope than their own derivative.
        unit: of each output, in which they are compared.
    """

    derivative: Floats
    unit: Floats

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
    steps, start = _steps(point, theta_dot), _start(outputs, point)
    at, first = [_at(outputs, point, theta_dot, steps[0])], None
    for k in range(len(steps) - 2):
        try:
            at.append(_at(outputs, point, theta_dot, steps[k + 1]))
        except SolveError:
            if first is None:
                raise
            break
        if not at[k].accurate and k + 3 < len(steps):
            continue
        further = lambda k=k: _at(outputs, point, theta_dot, steps[k + 2]).derivative / start.unit  # noqa: E731
        found, since_start = _of_two(start, at[k:], steps[k : k + 2], steps[0], further)
        first = first or found
        if not np.isnan(found.derivative).any() and (found is first or since_start):
            return found
    assert first is not None
    return first


class _Start(NamedTuple):
    """The flat outputs at the point itself, the unit of each, and the largest column's size in units, at least 1."""

    value: Floats
    unit: Floats
    size: float


def _start(outputs: SolutionMap, point: LocalPoint) -> _Start:
    account = outputs.account(point.solution)
    here, unit = _value(outputs, account.recover(point.x, point.y, point.theta)), account.output_unit
    if outputs.exp_mask is not None:
        unit = np.where(outputs.exp_mask, unit * np.abs(here), unit)
    size = float(np.abs(point.x / point.units[0]).max(initial=1.0))
    return _Start(here, np.where(unit > 0.0, unit, 1.0), size)


def _of_two(
    start: _Start, at: Sequence[_Point], steps: Sequence[float], first_step: float, further: Callable[[], Floats]
) -> tuple[Side, bool]:
    """The derivative that two points of one side tell.

    Args:
        start: what is known at the point itself.
        at: the nearer point and the farther one.
        steps: how far they are.
        first_step: how far the nearest of all points is.
        further: the derivative, in units, at a point beyond both.

    Returns:
        The side; and whether the nearer point's derivative is the slope from the point itself.
    """
    unit = start.unit
    near, far = (one.derivative / unit for one in at)
    slope = (at[1].value - at[0].value) / unit / (steps[1] - steps[0] or 1.0)
    since = (at[0].value - start.value) / unit / (steps[0] or 1.0)
    largest = float(np.abs(at[1].value / unit).max(initial=start.size))
    level = BORNE_OUT * float(np.abs([slope, near]).max(initial=0.0)) + TOLERANCE * largest / (steps[1] or 1.0)
    straight = (np.abs(slope - near) <= level) & (np.abs(far - near) <= level)
    since_start = bool((np.abs(since - near) <= level).all())
    ratio = SIDE_STEPS[1] / SIDE_STEPS[0]
    limit = near + (near - far) / (ratio - 1.0)  # of what changes with the step; of hᵖ with p > 1 it is 0
    p = 1.0 + np.log(np.maximum(np.divide(far, near, out=np.ones_like(near), where=near != 0.0), 1.0)) / np.log(ratio)
    power = (np.abs(since - near / p) <= level) & (np.abs(slope - (ratio * far - near) / (ratio - 1.0) / p) <= level)
    suspected = _infinite(near, far, further)
    suspected &= np.abs(near) * first_step > NOISE * SIDE_STEPS[0]  # rounding may grow like a power as well
    out = np.where(straight, limit, np.where(power & (p > 1.0), 0.0, near if since_start else np.nan))
    return Side(np.where(suspected, np.copysign(np.inf, near), out * unit), unit), since_start


def _steps(point: LocalPoint, theta_dot: Floats) -> list[float]:
    """Multiples of a direction, from `STEP` of θ's size on, but within what moves the program by 0.1 to 1 `STEP`."""
    own, moved = np.abs(theta_dot / point.theta_size_of_entry), np.abs(theta_dot) * point.theta_sizes()
    if not moved.any():
        return [0.0] * len(SIDE_STEPS)
    unit = 1.0 / moved.max()  # nearer than a tenth, rows that leave their kink still count as on it
    unit = min(max(1.0 / own.max(), 0.1 * unit), unit)
    return [step * unit for step in SIDE_STEPS]


def _infinite(near: Floats, far: Floats, further: Callable[[], Floats]) -> np.ndarray:
    """Which derivatives grow by one power of the step from one to the next."""
    grows = _growth(near, far)
    suspected = grows >= INFINITE_GROWTH
    if suspected.any():
        try:
            again = _growth(far, further())
        except SolveError:  # the second ratio is not to be had
            return np.zeros_like(suspected)
        logs = np.log(np.maximum(grows, 1.0)), np.log(np.maximum(again, 1e-300))
        suspected &= np.abs(logs[0] - logs[1]) <= ALIKE * np.abs(logs[0])
    return suspected


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
    value = _value(outputs, solved.outputs)
    if outputs.exp_mask is not None:
        flat = np.where(outputs.exp_mask, flat * value, flat)
    return _Point(value, flat, solved.solutions[0].worst <= TOLERANCE)


def _value(outputs: SolutionMap, value: Floats) -> Floats:
    """Outputs in the user's units: exponentials of those that a geometric program has as logarithms."""
    mask = outputs.exp_mask
    return value if mask is None else np.where(mask, np.exp(np.where(mask, value, 0.0)), value)


def _growth(near: Floats, far: Floats) -> Floats:
    """How much larger the derivative is at the nearer step; 0 where it is nothing beside the others."""
    large = np.abs(far) > NOISE * np.abs(far).max(initial=0.0)
    return np.divide(np.abs(near), np.abs(far), out=np.zeros_like(near), where=large)


def compare_sides(point: LocalPoint) -> str:
    """What the asked outputs do on the two sides of a random direction of the parameters.

    Returns:
        ``"infinite"`` speed; ``"unknown"``: derivatives beside the point are not the solutions' slope; ``"equal"`` or
        ``"different"`` derivatives; or ``"one"``: there is a solution on one side only.
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
    up, down = found[0].derivative / found[0].unit, -found[1].derivative / found[0].unit
    size = np.abs([up, down]).max(initial=0.0)
    return "equal" if np.abs(up - down).max(initial=0.0) <= DIFFERENT_CURVED * size else "different"


def leaves(point: LocalPoint, theta_dot: Floats) -> bool:
    """Whether the asked outputs have no finite derivative along a direction, from its side."""
    return not np.isfinite(side(_asked(point), point, theta_dot).derivative).all()


def _asked(point: LocalPoint) -> SolutionMap:
    """The map to the variables asked for."""
    program = point.program
    outputs = [v for v in program.problem.variables() if point.asked[program.output(v).matrix.indices].all()]
    return SolutionMap(program.problem, None, outputs, program=program, engine=point.solution.engine)


@dataclass(frozen=True)
class Radius:
    """Distance to the first change of the active set.

    Attributes:
        distance: in multiples of the direction (or Euclidean, for a ball); infinite if nothing changes.
        limit: the user's name of what changes there; "" if nothing does.
    """

    distance: float
    limit: str = ""


def theta_direction(point: LocalPoint, direction: Mapping[cp.Parameter, Any]) -> Floats:
    """A direction keyed by parameters as a vector in θ, logarithms' scale taken, shape (N,).

    Raises:
        ProgramError: a parameter is not of the problem, or a shape is wrong.
    """
    program = point.program
    out = np.zeros(program.theta_size)
    for parameter, value in direction.items():
        if parameter not in program.offsets:
            known = ", ".join(p.name() for p in program.parameters) or "none"
            raise ProgramError(f"Parameter '{parameter.name()}' is not in the problem; its parameters are: {known}.")
        array = np.asarray(value, dtype=float)
        if array.shape != parameter.shape:
            raise ProgramError(
                f"The direction of parameter '{parameter.name()}' has shape {array.shape}; expected {parameter.shape}."
            )
        out[program.offsets[parameter]] = array.ravel()
    mask = program.log_mask
    if mask is not None:
        out[mask] /= np.exp(point.theta[mask])
    return out


def radius(point: LocalPoint, found: Analysis, direction: Mapping[cp.Parameter, Any]) -> Radius:
    """The ratio test along one direction; see `Report.radius`."""
    if len(found.kinks.real):
        return Radius(0.0, unit_names(point, found.kinks.real)[0])
    moved = _Movement(point, found, theta_direction(point, direction)[None, :])
    falling = np.maximum(-moved.rates[0], 0.0)
    return _first(point, found, moved.ratios(falling, slice(1)))


def radii(point: LocalPoint, found: Analysis) -> dict[str, Radius]:
    """Euclidean radius for each parameter alone; see `Report.radii`."""
    program = point.program
    if len(found.kinks.real) or not found.verdict.ok:
        where = unit_names(point, found.kinks.real)[0] if len(found.kinks.real) else ""
        return {p.name(): Radius(0.0, where) for p in program.parameters}
    if program.theta_size > MOST_RADII:
        return {}
    moved = _Movement(point, found, np.eye(program.theta_size))
    ratios = {p: moved.ratios(np.linalg.norm(moved.rates[part], axis=0), part) for p, part in program.offsets.items()}
    return {p.name(): _first(point, found, ratio) for p, ratio in ratios.items()}


def one_sided(mapping: SolutionMap, point: LocalPoint, direction: Mapping[cp.Parameter, Any]) -> dict[cp.Variable, Any]:
    """The derivative along a direction from its side; see `Report.one_sided`."""
    theta_dot = theta_direction(point, direction)
    inside = inward(point.program, point.theta)
    if bool((inside * theta_dot < 0.0).any()):
        where = ", ".join(told(point.program, np.where(inside * theta_dot < 0.0, inside, 0.0)).where)
        raise ProgramError(f"The direction leaves the parameters' own domain, at whose end they are: {where}.")
    variables = point.program.problem.variables()
    outputs = SolutionMap(point.program.problem, None, variables, program=point.program, engine=mapping.engine)
    flat = side(outputs, point, theta_dot).derivative
    return {v: flat[part].reshape(v.shape) for v, part in zip(variables, outputs.slices, strict=True)}


class _Movement:
    """How slacks and multipliers move along tangents of θ, shape (k, N).

    Attributes:
        rates: of the linear rows that of the two which is not zero, shape (k, rows).
    """

    def __init__(self, point: LocalPoint, found: Analysis, theta_dot: Floats) -> None:
        g, h = point.tangents(theta_dot)
        u, y_dot, _ = found.kernel.solve(g, h)
        s_dot = h - apply(point.instance.rows, u)
        self._point, (sigma_s, sigma_y) = point, point.scales
        self._scaled = s_dot / sigma_s - y_dot / sigma_y
        self._linear = linear = slice(point.cones.zero, point.cones.zero + point.cones.nonneg)
        slack = point.moved(found.kinks.shift)[linear] > 0.0
        self._value = np.maximum(np.where(slack, point.s[linear], point.y[linear]), 0.0)
        self._size = np.where(slack, sigma_s[linear], sigma_y[linear])
        self.rates = np.where(slack, s_dot[:, linear], y_dot[:, linear])

    def ratios(self, rate: Floats, tangents: slice) -> Floats:
        """How far each unit is from its kink, by the rows' rates and the cones' along some tangents."""
        point, ratio = self._point, np.full(self._point.cones.units, np.inf)
        moving = rate > NOISE * self._size
        ratio[self._linear][moving] = self._value[moving] / rate[moving]
        for unit in range(point.cones.zero + point.cones.nonneg, point.cones.units):
            speed = float(np.linalg.norm(self._scaled[tangents, point.rows_of(unit)]))
            if speed > NOISE:
                ratio[unit] = point.margins[unit] / speed
        return ratio


def _first(point: LocalPoint, found: Analysis, ratio: Floats) -> Radius:
    for units in (found.kinks.opened, found.kinks.closed, found.kinks.harmless):
        ratio[units] = np.inf  # their kinks do not show in the user's variables
    ratio[~point.tied_units] = np.inf  # nor do those of another problem
    if not len(ratio) or not np.isfinite(ratio.min()):
        return Radius(float("inf"))
    unit = int(np.argmin(ratio))
    return Radius(float(ratio[unit]), unit_names(point, [unit])[0])
