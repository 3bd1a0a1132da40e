"""Solves base-unit problems by CVXPY with other people's solvers, tightly; cvxift is not imported here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from .kit import Stated, Values

_CLARABEL = {
    "tol_gap_abs": 1e-12,
    "tol_gap_rel": 1e-12,
    "tol_feas": 1e-12,
    "max_iter": 200,
    "iterative_refinement_reltol": 1e-15,
    "iterative_refinement_abstol": 1e-15,
    "iterative_refinement_max_iter": 20,
}
_EASIER = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
_TIGHTER = {"tol_gap_abs": 1e-14, "tol_gap_rel": 1e-14, "tol_feas": 1e-14, "max_step_fraction": 0.9}
_SETTINGS: dict[str, list[dict[str, Any]]] = {
    "CLARABEL": [_CLARABEL, {**_CLARABEL, **_EASIER}, _EASIER],  # where it stops short of the first, the next
    "DAQP": [{}],
    "HIGHS": [{}],
}
_SECOND = {**_SETTINGS, "CLARABEL": [{**_CLARABEL, **_TIGHTER}, *_SETTINGS["CLARABEL"]]}
_NONE = ("infeasible", "infeasible_inaccurate", "infeasible_or_unbounded")
_ENDLESS = ("unbounded", "unbounded_inaccurate")


@dataclass(frozen=True)
class Point:
    """What a solver found.

    Attributes:
        status: "solved", "infeasible", "unbounded", "outside" (a parameter's attribute forbids the value) or "failed".
        x: the outputs asked for, one after the other, in base units; None without a point.
        optimum: the objective.
    """

    status: str
    x: np.ndarray | None = None
    optimum: float = float("nan")


class Oracle:
    """The solution map of a base-unit problem, by one family of solvers.

    Args:
        stated: the problem; it may be solved with any values here, and is the oracle's own.
        second: take another solver, or the same at other settings, than the first oracle does.
    """

    def __init__(self, stated: Stated, second: bool = False) -> None:
        self.stated, self.truth = stated, stated.truth
        self.settings = _SECOND if second else _SETTINGS
        problem = stated.problem
        self.outputs = [variable for variable, _ in stated.variables.values()]
        own = {variable.id for variable in problem.variables()}  # of the outputs, multipliers cannot be in the cost
        primal = [] if stated.gp else [variable for variable in self.outputs if variable.id in own]
        self.tilts = [cp.Parameter(variable.size, value=np.zeros(variable.size)) for variable in primal]
        pairs = zip(self.tilts, primal)
        tilt = sum((w @ cp.vec(variable, order="C") for w, variable in pairs), cp.Constant(0.0))
        sense = problem.objective
        maximizes = isinstance(sense, cp.Maximize)
        objective = cp.Maximize(sense.expr - tilt) if maximizes else cp.Minimize(sense.expr + tilt)
        self.problem = problem if stated.gp else cp.Problem(objective, problem.constraints)
        self.twin = self.problem if stated.gp else cp.Problem(objective, problem.constraints)
        """The same problem for Clarabel; each keeps its solver's compiled form."""
        self.linear = not stated.gp and self.problem.is_lp()
        self.polyhedral = not stated.gp and self.problem.is_qp()
        if self.linear:
            order = ["HIGHS", "CLARABEL"]
        elif self.polyhedral:
            order = ["DAQP", "CLARABEL"]
        else:
            order = ["CLARABEL"]
        order = [solver for solver in order if solver in cp.installed_solvers()]
        if self.truth is None and self.polyhedral and (second or not self._agree(order[0])):
            order = ["CLARABEL"]
        self.solvers = order
        self.vertex = self.truth is not None or order[0] != "CLARABEL"
        """Whether points are exact at kinks too, where interior points are off by the root of their tolerance."""

    def _agree(self, solver: str) -> bool:
        """Whether a solver's optimum at the case's point is Clarabel's; of some problems CVXPY hands over another."""
        optima = [self._solved(problem, name) for problem, name in ((self.twin, "CLARABEL"), (self.problem, solver))]
        if any(point.status != "solved" for point in optima):
            return optima[0].status == optima[1].status
        return abs(optima[0].optimum - optima[1].optimum) <= 1e-6 * (1.0 + abs(optima[0].optimum))

    def at(self, values: Mapping[str, np.ndarray], tilt: np.ndarray | None = None) -> Point:
        """The solution at parameter values, with a linear term added to the cost."""
        if tilt is None and self.truth is not None:
            found = self.truth(dict(values))
            return Point("solved", np.concatenate([np.ravel(found[name]) for name in self.stated.variables]))
        try:
            self.stated.set(values)
        except ValueError:
            return Point("outside")
        start = 0
        for w in self.tilts:
            w.value = np.zeros(w.size) if tilt is None else tilt[start : start + w.size]
            start += w.size
        if tilt is not None:  # an active-set solver's own regularization would hide that a solution is not unique
            return self._solved(self.twin, "CLARABEL")
        last = Point("failed")
        for solver in self.solvers:
            last = self._solved(self.problem, solver)
            if last.status == "solved":
                return last
        return last

    def _solved(self, problem: cp.Problem, solver: str) -> Point:
        for settings in self.settings[solver]:
            point = _solved_with(problem, solver, settings, self.stated)
            if point.status != "failed":
                return point
        return Point("failed")


def _solved_with(problem: cp.Problem, solver: str, settings: dict[str, Any], stated: Stated) -> Point:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for variable in problem.variables():
            variable.save_value(None)  # some atoms canonicalize to something else, or fail, where values are held
        try:
            problem.solve(solver=solver, gp=stated.gp, **settings)
        except (cp.SolverError, ValueError, ArithmeticError):
            return Point("failed")
    if problem.status in ("optimal", "optimal_inaccurate"):
        x = np.concatenate([_flat(variable.value) for variable, _ in stated.variables.values()])
        return Point("solved", x, float(problem.value)) if np.all(np.isfinite(x)) else Point("failed")
    if problem.status in _NONE:
        return Point("infeasible")
    return Point("unbounded" if problem.status in _ENDLESS else "failed")


def _flat(value: Any) -> np.ndarray:
    """A variable's value as a vector; CVXPY holds that of a diagonal variable as a sparse matrix."""
    return np.ravel(value.toarray() if hasattr(value, "toarray") else value).astype(float)


def moved(values: Values, direction: Values, step: float) -> Values:
    """values + step · direction."""
    return {name: value + step * direction[name] for name, value in values.items()}
