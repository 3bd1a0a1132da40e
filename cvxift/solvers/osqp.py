"""OSQP: operator splitting for convex quadratic programs (Stellato, Banjac, Goulart, Bemporad, Boyd, 2020).

It minimizes ½xᵀPx + qᵀx subject to l ≤ Ax ≤ u with Px + q + Aᵀy = 0, so y is ours; rows of the nonneg cone have l =
−∞. Instances update the numbers of one workspace. Every solve starts from zero unless a point is given, so that its
result does not depend on the instance before.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift._types import Floats
from cvxift.program.structure import Structure
from cvxift.solvers.base import Raw, Session, Solver, Status
from cvxift.solvers.settings import optional, read_settings, write_settings

osqp = optional("osqp")

_STATUS = {
    "solved": Status.SOLVED,
    "solved inaccurate": Status.INACCURATE,
    "primal infeasible": Status.INFEASIBLE,
    "primal infeasible inaccurate": Status.INFEASIBLE,
    "dual infeasible": Status.UNBOUNDED,
    "dual infeasible inaccurate": Status.UNBOUNDED,
    "maximum iterations reached": Status.ITERATION_LIMIT,
    "run time limit reached": Status.ITERATION_LIMIT,
    "problem non convex": Status.NUMERICAL,
}
_OLD_NAMES = {"polish": "polishing", "warm_start": "warm_starting"}


class Osqp(Solver):
    """OSQP through its Python package `osqp`, which solves outside Python's lock."""

    name = "osqp"
    package = osqp
    conic = False
    verbose_options = MappingProxyType({"verbose": True})
    # Its polishing is left out: the point is polished by Newton steps anyway, and where no inequality is active OSQP's
    # own prints a line whatever `verbose` says.
    defaults = MappingProxyType(
        {"verbose": False, "eps_abs": 1e-9, "eps_rel": 1e-9, "max_iter": 20000, "polishing": False}
    )

    tight = MappingProxyType({"eps_abs": 1e-12, "eps_rel": 1e-12, "max_iter": 100000})
    patient = True
    # What is solved at all takes a tenth of the iterations that are allowed: 75 to 1300 (`cvxift.solvers.table`).
    brief = MappingProxyType({"max_iter": 2000})

    @property
    def options(self) -> Mapping[str, Any]:
        """OSQP's settings, and the names they had before version 1 (`polish`, `warm_start`)."""
        known = {**read_settings(_settings()), **self.defaults}
        return {**known, **{old: known[new] for old, new in _OLD_NAMES.items()}}

    def _session(self, structure: Structure, options: Mapping[str, Any]) -> Session:
        options = {_OLD_NAMES.get(name, name): value for name, value in options.items()}
        write_settings(self.name, _settings(), options)  # refuse a value now, not at the first solve
        return OsqpSession(structure, options)


def _settings() -> Any:
    extension = osqp.OSQP().ext
    settings = extension.OSQPSettings()
    extension.osqp_set_default_settings(settings)
    return settings


class OsqpSession(Session):
    """One OSQP workspace, set up on the first instance and updated for the following ones."""

    releases_gil = True

    def __init__(self, structure: Structure, options: Mapping[str, Any]) -> None:
        super().__init__(structure, options)
        self._upper = np.flatnonzero(structure.P_rows <= structure.P_cols)
        self._lower = np.full(structure.m, -np.inf)
        self._ready = False
        self._solver = osqp.OSQP()
        self._origin = np.zeros(structure.n), np.zeros(structure.m)

    def _solve(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        structure, solver, lower = self.structure, self._solver, self._lower
        zero = structure.cones.zero
        lower[:zero] = b[:zero]
        if self._ready:
            solver.update(q=q, l=lower, u=b, Px=P[self._upper], Ax=A)
        else:
            self._setup(P, q, A, b)
        x0, y0 = self._origin if warm is None else (warm.x, warm.y)
        solver.warm_start(x=x0, y=y0)
        result = solver.solve(raise_error=False)
        word = result.info.status
        status = _STATUS.get(word, Status.FAILED)
        if not status.has_point:
            return self.failure(word, status)
        x, y = np.array(result.x), np.array(result.y)
        np.maximum(y[zero:], 0.0, out=y[zero:])
        s = b - structure.A_matrix(A) @ x
        s[:zero] = 0.0
        np.maximum(s, 0.0, out=s)
        return Raw(x, s, y, status, word, result.info.iter)

    def _setup(self, P: Floats, q: Floats, A: Floats, b: Floats) -> None:
        structure = self.structure
        n, m = structure.n, structure.m
        P_matrix = sp.triu(sp.csc_matrix((P, structure.P_rows, structure.P_indptr), shape=(n, n)), format="csc")
        A_matrix = sp.csc_matrix((A, structure.A_rows, structure.A_indptr), shape=(m, n))
        self._solver.setup(P_matrix, q, A_matrix, self._lower, b, **self.options)
        self._ready = True
