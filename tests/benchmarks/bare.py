"""Bare solver calls on a QP, nothing around them: the floor of every comparison and the start of every reference.

Each ``ready_…`` takes the data of ``QP``, brings them into the solver's form, and returns a call without arguments that
sets the solver up, solves and returns (x, y) with the signs stated in ``model``. Rows of A with a single
entry are handed over as bounds where a solver knows bounds, since that is how a user of the bare solver would call it.
"""

from __future__ import annotations

from collections.abc import Callable

import clarabel
import daqp
import numpy as np
import piqp
import scipy.linalg as la
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from .model import QP, Array


class SolverFailed(RuntimeError):
    """The bare solver did not report success."""


def split_rows(qp: QP) -> tuple[Array, Array, Array, Array]:
    """Sort the rows of A into what solvers distinguish.

    Returns:
        indices of equality rows, of inequality rows, of rows that bound one variable (at most one for each variable),
        and those variables' columns. Rows without a finite bound are in none.
    """
    A = qp.A.tocsr()
    finite = np.isfinite(qp.l) | np.isfinite(qp.u)
    equal = finite & (qp.l == qp.u)
    single = finite & ~equal & (np.diff(A.indptr) == 1)
    rows = np.flatnonzero(single)
    rows = rows[A.data[A.indptr[rows]] != 0]
    columns = A.indices[A.indptr[rows]]
    columns, first = np.unique(columns, return_index=True)
    bounds = rows[first]
    rest = finite & ~equal
    rest[bounds] = False
    return np.flatnonzero(equal), np.flatnonzero(rest), bounds, columns


def _bounds(qp: QP, rows: Array, columns: Array) -> tuple[Array, Array, Array]:
    n = qp.q.size
    scale = np.asarray(qp.A.tocsr()[rows].sum(axis=1)).ravel()
    low, high = qp.l[rows] / scale, qp.u[rows] / scale
    low, high = np.where(scale > 0, low, high), np.where(scale > 0, high, low)
    lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
    lower[columns], upper[columns] = low, high
    return lower, upper, scale


Call = Callable[[], tuple[Array, Array]]


def ready_daqp(qp: QP) -> Call:
    """Dense active-set method (D. Arnström, A. Bemporad, D. Axehill, IEEE TAC 2022)."""
    P, A = qp.P.toarray(), np.ascontiguousarray(qp.A.toarray())
    sense = np.where(qp.l == qp.u, 5, 0).astype(np.int32)
    low, high = np.maximum(qp.l, -1e30), np.minimum(qp.u, 1e30)

    def call() -> tuple[Array, Array]:
        x, _, flag, info = daqp.solve(P, qp.q, A, high, low, sense)
        if flag < 1:
            raise SolverFailed(f"DAQP exit flag {flag}")
        return np.asarray(x), np.asarray(info["lam"])

    return call


def ready_piqp(qp: QP, tolerance: float | None = None) -> Call:
    """Proximal interior point (R. Schwan, Y. Jiang, D. Kuhn, C. N. Jones, CDC 2023); dense where the data are."""
    dense = qp.q.size <= 500 and qp.A.nnz + qp.P.nnz > 0.3 * qp.q.size * (qp.q.size + qp.l.size)
    equal, rest, bounds, columns = split_rows(qp)
    lower, upper, scale = _bounds(qp, bounds, columns)
    A = qp.A.tocsr()
    form = (lambda M: M.toarray()) if dense else sp.csc_matrix
    data = (form(qp.P), qp.q, form(A[equal]), qp.l[equal], form(A[rest]), qp.l[rest], qp.u[rest], lower, upper)

    def call() -> tuple[Array, Array]:
        solver = piqp.DenseSolver() if dense else piqp.SparseSolver()
        if tolerance is not None:
            solver.settings.eps_abs = solver.settings.eps_rel = tolerance
            solver.settings.eps_duality_gap_abs = solver.settings.eps_duality_gap_rel = tolerance
        solver.setup(*data)
        status = solver.solve()
        if status != piqp.PIQP_SOLVED:
            raise SolverFailed(f"PIQP status {status}")
        result = solver.result
        y = np.zeros(qp.l.size)
        y[equal] = result.y
        y[rest] = result.z_u - result.z_l
        y[bounds] = (result.z_bu - result.z_bl)[columns] / scale
        return np.array(result.x), y

    return call


def ready_clarabel(qp: QP, tolerance: float | None = None) -> Call:
    """Homogeneous interior point (P. J. Goulart, Y. Chen, 2024)."""
    A = qp.A.tocsr()
    equal = np.flatnonzero(qp.l == qp.u)
    upper = np.flatnonzero(np.isfinite(qp.u) & (qp.l != qp.u))
    lower = np.flatnonzero(np.isfinite(qp.l) & (qp.l != qp.u))
    G = sp.csc_matrix(sp.vstack([A[equal], A[upper], -A[lower]], format="csc"))
    h = np.concatenate([qp.u[equal], qp.u[upper], -qp.l[lower]])
    cones = [clarabel.ZeroConeT(equal.size), clarabel.NonnegativeConeT(upper.size + lower.size)]
    cones = [cone for cone, size in zip(cones, (equal.size, upper.size + lower.size), strict=True) if size]
    P = sp.csc_matrix(sp.triu(qp.P))

    def call() -> tuple[Array, Array]:
        x, z = run_clarabel(P, qp.q, G, h, cones, tolerance)
        y = np.zeros(qp.l.size)
        y[equal] = z[: equal.size]
        y[upper] = z[equal.size : equal.size + upper.size]
        y[lower] -= z[equal.size + upper.size :]
        return x, y

    return call


def run_clarabel(P, q, A, b, cones, tolerance: float | None = None) -> tuple[Array, Array]:
    """Clarabel on conic data; returns (x, z)."""
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    if tolerance is not None:
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
        settings.max_iter = 500
    solution = clarabel.DefaultSolver(P, q, A, b, cones, settings).solve()
    if str(solution.status) not in ("Solved", "AlmostSolved"):
        raise SolverFailed(f"Clarabel status {solution.status}")
    return np.array(solution.x), np.array(solution.z)


READY: dict[str, Callable[[QP], Call]] = {"daqp": ready_daqp, "piqp": ready_piqp, "clarabel": ready_clarabel}


def ready_factorization(qp: QP) -> Callable[[Array, Array, Array], Array]:
    """One factorization of the reduced KKT system at a solver's active set and one solve: the floor of a backward.

    Returns:
        function of (x, y, dz) that solves [P, A_aᵀ; A_a, 0] w = [dz; 0], dense up to 500 rows.
    """
    n, A = qp.q.size, qp.A.tocsr()
    dense = n <= 400
    P, rows = (qp.P.toarray(), A.toarray()) if dense else (qp.P, A)

    def call(x: Array, y: Array, dz: Array) -> Array:
        value = A @ x
        slack = np.minimum(qp.u - value, value - qp.l)
        active = np.flatnonzero((qp.l == qp.u) | (np.abs(y) > slack))
        rhs = np.concatenate([dz, np.zeros(active.size)])
        if not dense:
            corner = sp.csr_array((active.size, active.size))
            K = sp.vstack([sp.hstack([P, rows[active].T]), sp.hstack([rows[active], corner])])
            return spla.splu(sp.csc_matrix(K)).solve(rhs)
        K = np.zeros((rhs.size, rhs.size))
        K[:n, :n] = P
        K[n:, :n] = rows[active]
        K[:n, n:] = K[n:, :n].T
        factor, pivots = la.lu_factor(K, overwrite_a=True, check_finite=False)
        return la.lu_solve((factor, pivots), rhs, check_finite=False)

    return call
