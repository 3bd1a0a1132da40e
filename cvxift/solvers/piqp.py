"""PIQP: proximal interior-point method for convex quadratic programs (Schwan, Jiang, Kuhn, Jones, 2023).

It minimizes ½xᵀPx + cᵀx subject to Ax = b, h_l ≤ Gx ≤ h_u, x_l ≤ x ≤ x_u, with multipliers in Px + c + Aᵀy + Gᵀ(z_u −
z_l) + (z_bu − z_bl) = 0. Rows of the zero cone go to A; rows of the nonneg cone with one entry become bounds, the
others G with an upper side only. The solver is set up on the first instance and its numbers updated afterwards.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cvxift._types import Floats
from cvxift.errors import ProgramError
from cvxift.program.structure import Structure
from cvxift.solvers.base import Raw, Session, Solver, Status
from cvxift.solvers.layout import Bounds, Dense, singletons, very_sparse
from cvxift.solvers.settings import optional, read_settings, writable, write_settings

piqp = optional("piqp")

_STATUS = {
    "PIQP_SOLVED": Status.SOLVED,
    "PIQP_MAX_ITER_REACHED": Status.ITERATION_LIMIT,
    "PIQP_PRIMAL_INFEASIBLE": Status.INFEASIBLE,
    "PIQP_DUAL_INFEASIBLE": Status.UNBOUNDED,
    "PIQP_NUMERICS": Status.NUMERICAL,
}
_BACKENDS = ("auto", "dense", "sparse")


class Piqp(Solver):
    """PIQP through its Python package `piqp`, which holds Python's lock while it solves.

    Besides PIQP's own settings it takes `backend`: "dense", "sparse", or "auto" by the size and fill of the pattern;
    and `kkt_solver` by its name, such as "sparse_multistage".
    """

    name = "piqp"
    package = piqp
    conic = False
    verbose_options = MappingProxyType({"verbose": True})
    defaults = MappingProxyType({"backend": "auto", "eps_abs": 1e-9, "eps_rel": 1e-10, "eps_duality_gap_abs": 1e-9})
    # Where these cannot be reached the last iterate is as good as it gets: QFORPLAN of the Maros–Mészáros set.
    tight = MappingProxyType(
        {
            "eps_abs": 1e-13,
            "eps_rel": 1e-13,
            "eps_duality_gap_abs": 1e-13,
            "eps_duality_gap_rel": 1e-13,
            "max_iter": 100,
        }
    )

    @property
    def options(self) -> Mapping[str, Any]:
        """PIQP's settings, and `backend`."""
        return {**read_settings(piqp.SparseSolver().settings), "kkt_solver": None, **self.defaults}

    def _session(self, structure: Structure, options: Mapping[str, Any]) -> Session:
        backend = options["backend"]
        if backend not in _BACKENDS:
            raise ProgramError(
                f"Solver 'piqp' refuses option backend={backend!r}: choose one of {', '.join(_BACKENDS)}."
            )
        if backend == "auto":
            backend = "dense" if prefers_dense(structure) else "sparse"
        rest = {name: value for name, value in options.items() if name != "backend"}
        return (DensePiqp if backend == "dense" else SparsePiqp)(structure, rest)


def prefers_dense(structure: Structure) -> bool:
    """Whether the dense backend is the faster one: not too large, and a sparse factorization would fill in.

    Measured: with a tenth of the entries the two are level at 1000 variables, below the dense one is up to three times
    faster; with a handful of entries a column the sparse one is faster from 30 variables on.
    """
    n, rows = structure.n, structure.m - singletons(structure)
    if n > 1000 or n + rows > 4000 or very_sparse(structure):
        return n <= 15
    return structure.nnzP + structure.nnzA > 0.05 * n * (n + rows)


class _PiqpSession(Session):
    """What the two backends share: bounds, statuses, signs."""

    def __init__(self, structure: Structure, options: Mapping[str, Any], solver: Any) -> None:
        super().__init__(structure, options)
        self._solver = solver
        options = dict(options)
        kkt_solver = options.pop("kkt_solver", None)
        if kkt_solver is not None:
            known = [name for name in dir(piqp.KKTSolver) if name.startswith(("dense_", "sparse_"))]
            if str(kkt_solver) not in known:
                raise ProgramError(
                    f"Solver 'piqp' refuses option kkt_solver={kkt_solver!r}: it has {', '.join(known)}."
                )
            options["kkt_solver"] = getattr(piqp.KKTSolver, str(kkt_solver))
        write_settings("piqp", solver.settings, options)
        zero = structure.cones.zero
        self._zero = zero
        self._bounds = Bounds(structure)
        self._inequalities = self._bounds.general[zero:]  # rows of G
        place = np.full(structure.m, -1)
        place[self._inequalities] = np.arange(len(self._inequalities))
        self._in_A = np.flatnonzero(structure.A_rows < zero)
        self._in_G = np.flatnonzero(place[structure.A_rows] >= 0)
        self._G_rows: NDArray = place[structure.A_rows[self._in_G]]

    @abc.abstractmethod
    def _matrices(self, P: Floats, A: Floats) -> tuple[Any, Any, Any]:
        """P, A and G in the backend's form."""

    def _solve(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        zero, bounds, structure = self._zero, self._bounds, self.structure
        P, q, A, b = writable(P, q, A, b)
        limits = None
        if bounds.count:
            limits = bounds.evaluate(A, b, structure.n)
            if isinstance(limits, str):
                return self.failure(limits, Status.INFEASIBLE)
        lower, upper = (None, None) if limits is None else (limits.lower, limits.upper)
        P_matrix, A_matrix, G = self._matrices(P, A)
        b_zero = b[:zero] if zero else None
        h = b[self._inequalities] if len(self._inequalities) else None
        # Its update saves a tenth of a solve, and its points then depend on the instances before.
        self._solver.setup(P_matrix, q, A_matrix, b_zero, G, None, h, lower, upper)
        word = self._solver.solve().name
        status = _STATUS.get(word, Status.FAILED)
        if not status.has_point:
            return self.failure(word, status)
        result = self._solver.result
        x = np.array(result.x)
        y, s = np.zeros(structure.m), np.zeros(structure.m)
        if zero:
            y[:zero] = result.y
        if h is not None:
            y[self._inequalities] = result.z_u
            s[self._inequalities] = result.s_u
        if limits is not None:
            y[bounds.rows] = bounds.multipliers(limits, result.z_bl, result.z_bu)
            s[bounds.rows] = np.maximum(b[bounds.rows] - A[bounds.entries] * x[bounds.cols], 0.0)
        return Raw(x, s, y, status, word, result.info.iter)


class DensePiqp(_PiqpSession):
    """PIQP's dense backend."""

    def __init__(self, structure: Structure, options: Mapping[str, Any]) -> None:
        super().__init__(structure, options, piqp.DenseSolver())
        n = structure.n
        # PIQP wants column-major matrices: the transposes are filled row-major.
        self._P = Dense(structure.P_cols, structure.P_rows, (n, n))
        self._A = Dense(structure.A_cols[self._in_A], structure.A_rows[self._in_A], (n, self._zero))
        self._G = Dense(structure.A_cols[self._in_G], self._G_rows, (n, len(self._inequalities)))

    def _matrices(self, P: Floats, A: Floats) -> tuple[Any, Any, Any]:
        equalities = self._A(A[self._in_A]).T if self._zero else None
        inequalities = self._G(A[self._in_G]).T if len(self._inequalities) else None
        return self._P(P).T, equalities, inequalities


class SparsePiqp(_PiqpSession):
    """PIQP's sparse backend."""

    def __init__(self, structure: Structure, options: Mapping[str, Any]) -> None:
        super().__init__(structure, options, piqp.SparseSolver())
        n = structure.n
        self._P = sp.csc_matrix((np.zeros(structure.nnzP), structure.P_rows, structure.P_indptr), shape=(n, n))
        self._A = _template(structure.A_rows[self._in_A], structure.A_cols[self._in_A], (self._zero, n))
        self._G = _template(self._G_rows, structure.A_cols[self._in_G], (len(self._inequalities), n))

    def _matrices(self, P: Floats, A: Floats) -> tuple[Any, Any, Any]:
        self._P.data, self._A.data, self._G.data = P, A[self._in_A], A[self._in_G]
        return self._P, self._A if self._zero else None, self._G if len(self._inequalities) else None


def _template(rows: NDArray, cols: NDArray, shape: tuple[int, int]) -> sp.csc_matrix:
    """A sparse matrix whose entries, already in column order, are yet to be filled in."""
    indptr = np.concatenate([[0], np.cumsum(np.bincount(cols, minlength=shape[1]))]).astype(np.int32)
    return sp.csc_matrix((np.zeros(len(rows)), rows.astype(np.int32), indptr), shape=shape)
