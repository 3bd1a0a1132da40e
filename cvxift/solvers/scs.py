"""SCS: operator splitting for quadratic cost and every cone here (O'Donoghue, 2021).

Its form and signs are ours, and so is its order of cones; symmetric matrices come as the lower triangle column by
column (off-diagonals scaled by √2), so those rows are permuted. While P and A stay the same, a new instance only
updates b and c and the factorization is kept. Every solve starts from zero unless a point is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift._types import Floats
from cvxift.errors import ProgramError
from cvxift.program.structure import Structure
from cvxift.solvers.base import Raw, Session, Solver, Status
from cvxift.solvers.layout import RowOrder, lower_columnwise, upper_triangle
from cvxift.solvers.settings import optional

scs = optional("scs")

_STATUS = {
    1: Status.SOLVED,
    2: Status.INACCURATE,
    -1: Status.UNBOUNDED,
    -2: Status.INFEASIBLE,
    -3: Status.NUMERICAL,
    -4: Status.FAILED,
    -5: Status.FAILED,
    -6: Status.UNBOUNDED,
    -7: Status.INFEASIBLE,
}
# The package has no settings object to read: the names and defaults of its documentation.
_OPTIONS = {
    "verbose": True,
    "normalize": True,
    "scale": 0.1,
    "adaptive_scale": True,
    "rho_x": 1e-6,
    "alpha": 1.5,
    "max_iters": 100000,
    "eps_abs": 1e-4,
    "eps_rel": 1e-4,
    "eps_infeas": 1e-7,
    "time_limit_secs": 0.0,
    "acceleration_lookback": 10,
    "acceleration_interval": 10,
    "linear_solver": "auto",
    "write_data_filename": None,
    "log_csv_filename": None,
}


class Scs(Solver):
    """SCS through its Python package `scs`, which solves outside Python's lock.

    Besides SCS's own settings it takes `eps`, which sets `eps_abs` and `eps_rel`.
    """

    name = "scs"
    package = scs
    verbose_options = MappingProxyType({"verbose": True})
    defaults = MappingProxyType({"verbose": False, "eps_abs": 1e-9, "eps_rel": 1e-9})

    tight = MappingProxyType({"eps_abs": 1e-12, "eps_rel": 1e-12})
    patient = True
    brief = MappingProxyType({"max_iters": 2000})

    def unsupported(self, structure: Structure) -> str | None:
        """None wherever there is a row: SCS takes every cone but wants at least one."""
        return None if structure.m else "SCS needs at least one constraint"

    @property
    def options(self) -> Mapping[str, Any]:
        """SCS's settings, and `eps`."""
        return {**_OPTIONS, **self.defaults, "eps": None}

    def _session(self, structure: Structure, options: Mapping[str, Any]) -> Session:
        options = dict(options)
        eps = options.pop("eps", None)
        if eps is not None:
            options.update(eps_abs=eps, eps_rel=eps)
        _check_values(options)
        return ScsSession(structure, options)


def _check_values(options: Mapping[str, Any]) -> None:
    """Refuse a value now, not at the first solve: SCS checks them as it is set up."""
    data = {"A": sp.csc_matrix(np.ones((1, 1))), "b": np.ones(1), "c": np.ones(1)}
    quiet = {key: value for key, value in options.items() if not key.endswith("_filename") and key != "verbose"}
    try:
        scs.SCS(data, {"l": 1}, verbose=False, **quiet)
    except (TypeError, ValueError, OverflowError, ImportError) as error:
        raise ProgramError(f"Solver 'scs' refuses one of the options {dict(options)}: {error}") from error


class ScsSession(Session):
    """One SCS workspace for as long as P and A stay the same."""

    releases_gil = True

    def __init__(self, structure: Structure, options: Mapping[str, Any]) -> None:
        super().__init__(structure, options)
        cones = structure.cones
        order = [
            block.start
            + (lower_columnwise(int(block.param or 0)) if block.kind == "psd" else np.arange(block.stop - block.start))
            for block in cones.blocks()
        ]
        self._rows = RowOrder(structure, np.concatenate(order).astype(np.intp))
        keys = {
            "z": cones.zero,
            "l": cones.nonneg,
            "q": list(cones.soc),
            "s": list(cones.psd),
            "ep": cones.exp,
            "p": list(cones.pow),
        }
        self._cones = {key: value for key, value in keys.items() if value}
        n, m = structure.n, structure.m
        self._upper, self._P = upper_triangle(structure)
        self._A = sp.csc_matrix((np.zeros(structure.nnzA), self._rows.A_rows, structure.A_indptr), shape=(m, n))
        self._solver: Any = None
        self._matrices: tuple[Floats, Floats] | None = None

    def _solve(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        rows, known = self._rows, self._matrices
        b = rows.there(b)
        if known is not None and np.array_equal(known[0], P) and np.array_equal(known[1], A):
            self._solver.update(b, q)
        else:
            self._setup(P, q, A, b)
        if warm is None:
            result = self._solver.solve(warm_start=False)
        else:
            result = self._solver.solve(warm_start=True, x=warm.x, y=rows.there(warm.y), s=rows.there(warm.s))
        info = result["info"]
        status = _STATUS.get(info["status_val"], Status.FAILED)
        if status is Status.INACCURATE and info["iter"] >= self.options.get("max_iters", _OPTIONS["max_iters"]):
            status = Status.ITERATION_LIMIT
        if not status.has_point:
            return self.failure(info["status"], status)
        return Raw(result["x"], rows.back(result["s"]), rows.back(result["y"]), status, info["status"], info["iter"])

    def _setup(self, P: Floats, q: Floats, A: Floats, b: Floats) -> None:
        self._P.data, self._A.data = P[self._upper], self._rows.matrix(A)
        data = {"P": self._P if len(self._upper) else None, "A": self._A, "b": b, "c": q}
        self._matrices = None
        self._solver = scs.SCS(data, self._cones, **self.options)
        self._matrices = P.copy(), A.copy()
