"""DAQP: dense dual active-set method for strictly convex quadratic programs (Arnström, Bemporad, Axehill, 2022).

It minimizes ½xᵀHx + fᵀx subject to lower ≤ Ax ≤ upper, where the first rows may be bounds on the first variables; its
multipliers λ satisfy Hx + f + Aᵀλ = 0 with λ > 0 at an upper and λ < 0 at a lower bound. Rows have an upper side only
here (equalities both), so λ is y. The active set is exact, hence s = 0 wherever y > 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from cvxift.program.structure import Structure
from cvxift.solvers.base import Floats, Raw, Session, Solver, Status, optional
from cvxift.solvers.layout import Bounds, Dense, only_linear_cones

daqp = optional("daqp")

_EXITS = {
    2: (Status.SOLVED, "optimal with soft constraints"),
    1: (Status.SOLVED, "optimal"),
    -1: (Status.INFEASIBLE, "primal infeasible"),
    -2: (Status.NUMERICAL, "cycling between active sets"),
    -3: (Status.UNBOUNDED, "unbounded"),
    -4: (Status.ITERATION_LIMIT, "iteration limit"),
    -5: (Status.NUMERICAL, "cost matrix not positive semidefinite"),
    -6: (Status.NUMERICAL, "the equalities, or the starting active set, are linearly dependent"),
    -7: (Status.ITERATION_LIMIT, "time limit"),
}
_EQUALITY, _ACTIVE_UPPER, _ACTIVE_LOWER = 5, 1, 3


class Daqp(Solver):
    """DAQP through its Python package `daqp`, which solves outside Python's lock."""

    name = "daqp"
    # Inactive rows may be violated by primal_tol; 1e-6 (the solver's default) would decide the active set of a
    # nearly degenerate point wrongly.
    defaults = MappingProxyType({"primal_tol": 1e-9})

    def missing(self) -> str | None:
        """None if `daqp` is importable, else what to install."""
        return None if daqp is not None else "the package daqp is not installed; pip install daqp"

    def unsupported(self, structure: Structure) -> str | None:
        """None for programs with zero and nonneg cones."""
        return only_linear_cones(structure)

    @property
    def options(self) -> Mapping[str, Any]:
        """DAQP's settings."""
        return {**daqp.Model().settings, **self.defaults}

    def _session(self, structure: Structure, options: Mapping[str, Any]) -> Session:
        return DaqpSession(structure, options)


class DaqpSession(Session):
    """Dense matrices are filled in place; each solve is one stateless call of `daqp.solve`."""

    raises = (ValueError, TypeError, OverflowError)
    infinite_b = True
    releases_gil = True

    def __init__(self, structure: Structure, options: Mapping[str, Any]) -> None:
        super().__init__(structure, options)
        n, zero = structure.n, structure.cones.zero
        self._zero = zero
        self._P = Dense(structure.P_rows, structure.P_cols, (n, n)) if structure.nnzP else None
        self._bounds = Bounds(structure)
        general = self._bounds.general
        if self._bounds.count:
            place = np.full(structure.m, -1)
            place[general] = np.arange(len(general))
            self._kept = np.flatnonzero(place[structure.A_rows] >= 0)
            self._A = Dense(place[structure.A_rows[self._kept]], structure.A_cols[self._kept], (len(general), n))
        else:
            self._A = Dense(structure.A_rows, structure.A_cols, (structure.m, n))
        width = self._bounds.width
        self._sense = np.zeros(width + len(general), dtype=np.intc)
        self._sense[width : width + zero] = _EQUALITY
        self._lower = np.full(width + len(general), -np.inf)

    def _solve(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        if self._bounds.count:
            return self._solve_bounded(P, q, A, b, warm)
        zero, lower, sense = self._zero, self._lower, self._sense
        matrix = self._A(A)
        lower[:zero] = b[:zero]
        if warm is not None:
            sense = np.where(warm.y > 0.0, _ACTIVE_UPPER, 0).astype(np.intc)
            sense[:zero] = _EQUALITY
        H = None if self._P is None else self._P(P)
        x, _, flag, info = daqp.solve(H, q, matrix, b, lower, sense, **self.options)
        status, message = _EXITS.get(flag, (Status.FAILED, f"exit flag {flag}"))
        if not status.has_point:
            return self.failure(message, status)
        y = info["lam"]
        s = b - matrix.dot(x)
        _complement(s, y, zero)
        return Raw(x, s, y, status, message, info["iterations"])

    def _solve_bounded(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        """The same with the bound rows first, as DAQP wants them."""
        zero, bounds, sense = self._zero, self._bounds, self._sense
        width, general = bounds.width, bounds.general
        limits = bounds.evaluate(A, b, width)
        if isinstance(limits, str):
            return self.failure(limits, Status.INFEASIBLE)
        matrix = self._A(A[self._kept])
        b_general = b[general]
        upper = np.concatenate([limits[1], b_general])
        lower = self._lower
        lower[:width] = limits[0]
        lower[width : width + zero] = b[:zero]
        if warm is not None:
            sense = np.zeros_like(sense)
            sense[width:][warm.y[general] > 0.0] = _ACTIVE_UPPER
            sense[width : width + zero] = _EQUALITY
            held = (warm.y[bounds.rows] > 0.0) & limits[2]
            sense[bounds.cols[held]] = np.where(A[bounds.entries[held]] > 0.0, _ACTIVE_UPPER, _ACTIVE_LOWER)
        H = None if self._P is None else self._P(P)
        x, _, flag, info = daqp.solve(H, q, matrix, upper, lower, sense, **self.options)
        status, message = _EXITS.get(flag, (Status.FAILED, f"exit flag {flag}"))
        if not status.has_point:
            return self.failure(message, status)
        lam = info["lam"]
        y, s = np.empty_like(b), np.empty_like(b)
        y[general] = lam[width:]
        y[bounds.rows] = bounds.multipliers(A, np.maximum(-lam[:width], 0.0), np.maximum(lam[:width], 0.0), limits[2])
        s[general] = b_general - matrix.dot(x)
        s[bounds.rows] = b[bounds.rows] - A[bounds.entries] * x[bounds.cols]
        _complement(s, y, zero)
        return Raw(x, s, y, status, message, info["iterations"])


def _complement(s: Floats, y: Floats, zero: int) -> None:
    """Put s and y exactly on their cones and complementary: rounding must not blur an exact active set."""
    s[:zero] = 0.0
    slack, multiplier = s[zero:], y[zero:]
    np.maximum(multiplier, 0.0, out=multiplier)
    np.maximum(slack, 0.0, out=slack)
    slack[multiplier > 0.0] = 0.0
