"""Clarabel: interior-point method for quadratic cost and every cone here (Goulart and Chen, 2024).

Its form, signs, row order within cones and svec are ours: min ½xᵀPx + qᵀx, Ax + s = b, Px + q + Aᵀz = 0. P is passed
as its upper triangle. A solver that scales is set up for each instance: with its numbers updated it would keep the
scaling of the first one, and its point would depend on what was solved before. One that does not scale is updated,
which keeps the ordering and the symbolic factorization.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift._types import Floats
from cvxift.program.cones import Cones
from cvxift.program.structure import Structure
from cvxift.solvers.base import Raw, Session, Solver, Status
from cvxift.solvers.layout import upper_triangle
from cvxift.solvers.settings import optional, read_settings, write_settings

clarabel = optional("clarabel")

STATUS = {
    "Solved": Status.SOLVED,
    "AlmostSolved": Status.INACCURATE,
    "PrimalInfeasible": Status.INFEASIBLE,
    "AlmostPrimalInfeasible": Status.INFEASIBLE,
    "DualInfeasible": Status.UNBOUNDED,
    "AlmostDualInfeasible": Status.UNBOUNDED,
    "MaxIterations": Status.ITERATION_LIMIT,
    "MaxTime": Status.ITERATION_LIMIT,
    "NumericalError": Status.NUMERICAL,
    "InsufficientProgress": Status.NUMERICAL,
}


class Clarabel(Solver):
    """Clarabel through its Python package `clarabel`, which solves outside Python's lock."""

    name = "clarabel"
    package = clarabel
    verbose_options = MappingProxyType({"verbose": True})
    # - Its numbers can be updated only without presolve and chordal decomposition.
    # - Regularization: with the solver's own 1e-8 the factorization breaks down where the cost is linear and rows are
    #   dense (random SDPs: 22 of 30 end in NumericalError; random LPs: 26 of 300 are inaccurate; with 1e-7 none). Of
    #   the Maros–Mészáros set 1e-7 costs two problems, which PIQP solves.
    # - Tolerances: one iteration more than the solver's own 1e-8. At 1e-10 half of the random second-order programs
    #   end as inaccurate, after more iterations than polishing by a Newton step costs.
    # - QDLDL starts no threads; the solver's choice was three times slower on two busy cores.
    defaults = MappingProxyType(
        {
            "verbose": False,
            "tol_gap_abs": 1e-9,
            "tol_gap_rel": 1e-9,
            "tol_feas": 1e-9,
            "static_regularization_constant": 1e-7,
            "presolve_enable": False,
            "chordal_decomposition_enable": False,
            "direct_solve_method": "qdldl",
        }
    )
    # Batches: Newton's steps, which cost less than an iteration there, take second-order and exponential programs from
    # 1e-6 to 1e-12 as from 1e-9, in about as many steps; an instance that ends elsewhere is taken alone.
    together = MappingProxyType(
        {"tol_gap_abs": 1e-6, "tol_gap_rel": 1e-6, "tol_feas": 1e-6, "equilibrate_enable": False}
    )
    tight = MappingProxyType({"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13})

    @property
    def options(self) -> Mapping[str, Any]:
        """Clarabel's settings."""
        return {**read_settings(clarabel.DefaultSettings()), **self.defaults}

    def _session(self, structure: Structure, options: Mapping[str, Any]) -> Session:
        return ClarabelSession(structure, options)


class ClarabelSession(Session):
    """One Clarabel workspace, set up for each instance, or updated where nothing of the last one stays."""

    releases_gil = True

    def __init__(self, structure: Structure, options: Mapping[str, Any]) -> None:
        super().__init__(structure, options)
        self._settings = clarabel.DefaultSettings()
        write_settings("clarabel", self._settings, options)
        self._updates = not self._settings.equilibrate_enable
        self._cones = _cones(structure.cones)
        n, m = structure.n, structure.m
        self._upper, self._P = upper_triangle(structure)
        self._A = sp.csc_matrix((np.zeros(structure.nnzA), structure.A_rows, structure.A_indptr), shape=(m, n))
        self._solver: Any = None

    def _solve(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        P = P[self._upper]
        if self._updates and self._solver is not None and self._solver.is_data_update_allowed():
            self._solver.update(P=P, q=q, A=A, b=b)
        else:
            self._setup(P, q, A, b)
        return self._run()

    def _setup(self, P: Floats, q: Floats, A: Floats, b: Floats) -> None:
        self._P.data, self._A.data = P, A
        self._solver = clarabel.DefaultSolver(self._P, q, self._A, b, self._cones, self._settings)

    def _run(self) -> Raw:
        solution = self._solver.solve()
        word = str(solution.status)
        status = STATUS.get(word, Status.FAILED)
        if not status.has_point:
            return self.failure(word, status)
        x, s, z = np.array(solution.x), np.array(solution.s), np.array(solution.z)
        return Raw(x, s, z, status, word, solution.iterations)


def _cones(cones: Cones) -> list[Any]:
    """Clarabel's cones; those of one row are half lines, whatever their kind."""
    out: list[Any] = []
    for block in cones.blocks():
        size = block.stop - block.start
        if block.kind == "zero":
            out.append(clarabel.ZeroConeT(size))
        elif block.kind == "nonneg" or size == 1:
            out.append(clarabel.NonnegativeConeT(size))
        elif block.kind == "soc":
            out.append(clarabel.SecondOrderConeT(size))
        elif block.kind == "psd":
            out.append(clarabel.PSDTriangleConeT(block.param))
        elif block.kind == "exp":
            out.append(clarabel.ExponentialConeT())
        else:
            out.append(clarabel.PowerConeT(block.param))
    return out
