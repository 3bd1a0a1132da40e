"""How far the parameters may move before the active set changes, and derivatives from one side.

Along θ + tθ̇ the slacks and multipliers move, to first order, by tṡ and tẏ. The ratio test of parametric programming
(Gal 1979; Guddat et al. 1990) gives the first change: t = min over active rows of −y_i/ẏ_i and over inactive ones of
−s_i/ṡ_i, exact where θ enters q and b alone. For other cones the distance to the nearest kink, which changes no faster
than ‖v̇‖, gives a bound: t ≥ margin / ‖v̇‖.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.diagnostics.analysis import Analysis
from cvxift.diagnostics.boundary import inward, told
from cvxift.diagnostics.names import unit_names
from cvxift.diagnostics.sides import side
from cvxift.errors import ProgramError
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.solution_map import SolutionMap
from cvxift.program.structure import Floats

MOST = 2000  # entries of θ up to which radii of all parameters are computed


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
    s_dot, y_dot = _movement(point, found, theta_direction(point, direction)[None, :])
    linear = slice(point.cones.zero, point.cones.zero + point.cones.nonneg)
    slack = point.moved(found.kinks.shift)[linear] > 0.0
    value = np.where(slack, np.maximum(point.s[linear], 0.0), np.maximum(point.y[linear], 0.0))
    rate = np.where(slack, s_dot[0, linear], y_dot[0, linear])
    size = np.where(slack, point.scales[0][linear], point.scales[1][linear])
    ratio = np.full(point.cones.units, np.inf)
    falling = rate < -1e-12 * size
    ratio[linear][falling] = -value[falling] / rate[falling]
    _cone_ratios(point, s_dot, y_dot, ratio)
    return _first(point, found, ratio)


def radii(point: LocalPoint, found: Analysis) -> dict[str, Radius]:
    """Euclidean radius for each parameter alone; see `Report.radii`."""
    program = point.program
    if len(found.kinks.real) or not found.verdict.ok:
        where = unit_names(point, found.kinks.real)[0] if len(found.kinks.real) else ""
        return {p.name(): Radius(0.0, where) for p in program.parameters}
    if program.theta_size > MOST:
        return {}
    s_dot, y_dot = _movement(point, found, np.eye(program.theta_size))
    linear = slice(point.cones.zero, point.cones.zero + point.cones.nonneg)
    slack = point.moved(found.kinks.shift)[linear] > 0.0
    value = np.where(slack, np.maximum(point.s[linear], 0.0), np.maximum(point.y[linear], 0.0))
    rates = np.where(slack, s_dot[:, linear], y_dot[:, linear])
    size = np.where(slack, point.scales[0][linear], point.scales[1][linear])
    out = {}
    for parameter in program.parameters:
        part = program.offsets[parameter]
        ratio = np.full(point.cones.units, np.inf)
        rate = np.linalg.norm(rates[part], axis=0)
        moving = rate > 1e-12 * size
        ratio[linear][moving] = value[moving] / rate[moving]
        _cone_ratios(point, s_dot[part], y_dot[part], ratio)
        out[parameter.name()] = _first(point, found, ratio)
    return out


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


def _movement(point: LocalPoint, found: Analysis, theta_dot: Floats) -> tuple[Floats, Floats]:
    """(ṡ, ẏ) along tangents of θ, shapes (k, m)."""
    g, h = point.tangents(theta_dot)
    u, w, _ = found.kernel.solve(g, h)
    return h - (point.instance.AT.T @ u.T).T, w


def _cone_ratios(point: LocalPoint, s_dot: Floats, y_dot: Floats, ratio: Floats) -> None:
    sigma_s, sigma_y = point.scales
    moved = (s_dot / sigma_s - y_dot / sigma_y) ** 2
    for unit in range(point.cones.zero + point.cones.nonneg, point.cones.units):
        speed = float(np.sqrt(moved[:, point.rows_of(unit)].sum()))
        if speed > 1e-12:
            ratio[unit] = point.margins[unit] / speed


def _first(point: LocalPoint, found: Analysis, ratio: Floats) -> Radius:
    for units in (found.kinks.opened, found.kinks.closed, found.kinks.harmless):
        ratio[units] = np.inf  # their kinks do not show in the user's variables
    ratio[~point.tied_units] = np.inf  # nor do those of another problem
    if not len(ratio) or not np.isfinite(ratio.min()):
        return Radius(float("inf"))
    unit = int(np.argmin(ratio))
    return Radius(float(ratio[unit]), unit_names(point, [unit])[0])
