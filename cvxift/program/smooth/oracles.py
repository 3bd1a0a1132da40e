"""Values and exact derivatives of a smooth problem in columns u = (x, p), as sparse matrices on fixed patterns.

    minimize f(x, p)   subject to   g(x, p) + s = 0,  s ∈ {0}^z × R₊^k          L(x, y, p) = f + yᵀg

CVXPY's differentiation engine (`sparsediffpy`) gives f, g, ∇f, the Jacobian of g and the Hessian of L in all columns at
once. Rows that state bounds of columns are added here; the engine does not see them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.constraints.zero import Zero
from cvxpy.reductions.inverse_data import InverseData

from cvxift.errors import ProgramError
from cvxift.program.smooth.smoothing import Stated
from cvxift.program.structure import Floats

try:
    from cvxpy.reductions.solvers.nlp_solvers.diff_engine import C_problem
except ImportError:  # CVXPY before 1.9, or its engine is missing
    C_problem = None


@dataclass(frozen=True, eq=False)
class Derivatives:
    """First and second derivatives at a point.

    Attributes:
        gradient: ∇ₓf, shape (n,).
        A: values of ∂g/∂x on the pattern of A, shape (nnzA,).
        P: values of ∂²L/∂x² on the pattern of P, shape (nnzP,).
        f_p: ∂f/∂p, shape (n_p,).
        g_p: ∂g/∂p, shape (m, n_p).
        L_xp: ∂²L/∂x∂p, shape (n, n_p).
    """

    gradient: Floats
    A: Floats
    P: Floats
    f_p: Floats
    g_p: Entries
    L_xp: Entries


@dataclass(frozen=True, eq=False)
class Bounds:
    """Rows that state bounds, ±x_j ∓ bound, or are those of cones of columns.

    Attributes:
        row: row of each, shape (k,).
        column: its column of x.
        sign: +1 for an upper bound, −1 for a lower one.
        value: the bound.
    """

    row: np.ndarray
    column: np.ndarray
    sign: Floats
    value: Floats

    def with_rows(self, row: np.ndarray, column: np.ndarray) -> Bounds:
        """These, and rows that are a column times −1."""
        more = np.zeros(len(row))
        pairs = ((self.row, row), (self.column, column), (self.sign, more - 1.0), (self.value, more))
        return Bounds(*(np.concatenate(pair) for pair in pairs))


class Oracles:
    """The derivatives of one smooth problem.

    Args:
        objective: the expression to minimize.
        stated: the equalities and inequalities, in the order of the engine's rows.
        columns: the variables of x, in order.
        data: the variables of p, in order.
        rows: the row of g of each row of the engine's, shape (k,); −1 for one that solvers alone get.
        bounds: the rows that the engine does not have.
        m: number of rows.

    Raises:
        ProgramError: the engine does not know an atom; or there is no engine.
    """

    def __init__(
        self,
        objective: Any,
        stated: Sequence[Stated],
        columns: Sequence[cp.Variable],
        data: Sequence[cp.Variable],
        rows: np.ndarray,
        bounds: Bounds,
        m: int,
    ) -> None:
        self._problem = cp.Problem(cp.Minimize(objective), [Zero(item.expr) for item in stated])
        known = {v.id for v in self._problem.variables()}
        missing = [v for v in (*columns, *data) if v.id not in known]
        if missing:  # columns that nothing reads, such as a parameter's own where only its norm stands in the problem
            anchor = sum((cp.sum(0.0 * v) for v in missing), cp.Constant(0.0))
            self._problem = cp.Problem(cp.Minimize(objective + anchor), self._problem.constraints)
        self.rows, self.bounds, self.m = rows, bounds, m
        self._kept = rows >= 0
        places = InverseData(self._problem).var_offsets
        self._x = _places(columns, places)
        self._p = _places(data, places)
        self._set_up()

    def _set_up(self) -> None:
        if C_problem is None:
            raise ProgramError("CVXPY's differentiation engine is missing: pip install 'cvxpy>=1.9' sparsediffpy.")
        try:
            self._engine = C_problem(self._problem, verbose=False)
        except (NotImplementedError, ValueError, KeyError) as error:
            raise ProgramError(f"CVXPY's differentiation engine cannot take this problem: {error}") from error
        self._engine.init_jacobian_coo()
        self._engine.init_hessian_coo_lower_tri()
        self.alone = threading.RLock()
        self._full = np.zeros(len(self._x) + len(self._p))

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_engine", "alone", "_full", "_maps"):
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()

    @cached_property
    def _maps(self) -> _Maps:
        return _Maps(self)

    @property
    def structure_patterns(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Rows and columns of P's entries and of A's, in column order."""
        return self._maps.P_at, self._maps.A_at

    def values(self, x: Floats, p: Floats) -> tuple[float, Floats]:
        """f and g, shape (m,); not finite outside of the domain."""
        with self.alone:
            self._put(x, p)
            return self._values(x)

    def derivatives(self, x: Floats, p: Floats, y: Floats) -> tuple[float, Floats, Derivatives]:
        """f, g and their derivatives, those of L with multipliers y, shape (m,)."""
        maps = self._maps
        with self.alone:
            self._put(x, p)
            f, g = self._values(x)
            gradient = self._engine.gradient().copy()
            jacobian = self._engine.eval_jacobian_vals() if len(self.rows) else np.zeros(0)
            hessian = self._engine.eval_hessian_vals_coo_lower_tri(1.0, self._weights(y))
            A, P = maps.A @ jacobian + maps.A_bounds, maps.P @ hessian
            mixed = Entries(maps.g_p, jacobian), Entries(maps.L_xp, hessian)
        return f, g, Derivatives(gradient[self._x], A, P, gradient[self._p], *mixed)

    def _weights(self, y: Floats) -> Floats:
        """The engine's multipliers of y, shape (m,)."""
        weights = np.zeros(len(self.rows))
        weights[self._kept] = y[self.rows[self._kept]]
        return weights

    def _put(self, x: Floats, p: Floats) -> None:
        self._full[self._x], self._full[self._p] = x, p

    def _values(self, x: Floats) -> tuple[float, Floats]:
        f = float(self._engine.objective_forward(self._full))
        g = np.empty(self.m)
        if len(self.rows):
            g[self.rows[self._kept]] = self._engine.constraint_forward(self._full)[self._kept]
        bounds = self.bounds
        g[bounds.row] = bounds.sign * (x[bounds.column] - bounds.value)
        return f, g


class SolverOracles:
    """What an NLP solver asks for at fixed p, in the form that CVXPY's solver interfaces call it.

    The rows are the engine's; bounds go to the solver as bounds.

    Args:
        oracles: of the problem.
        p: values of the data columns.
    """

    def __init__(self, oracles: Oracles, p: Floats) -> None:
        self._of, self._p = oracles, p
        self._maps = oracles._maps
        self._engine = oracles._engine
        self.iterations = 0

    def _put(self, x: Floats) -> None:
        self._of._put(x, self._p)

    def objective(self, x: Floats) -> float:
        """f."""
        self._put(x)
        return self._engine.objective_forward(self._of._full)

    def gradient(self, x: Floats) -> Floats:
        """∇ₓf."""
        self.objective(x)
        return self._engine.gradient()[self._of._x]

    def constraints(self, x: Floats) -> Floats:
        """The engine's rows of g."""
        self._put(x)
        return self._engine.constraint_forward(self._of._full)

    def jacobian(self, x: Floats) -> Floats:
        """Values of their Jacobian in x."""
        self.constraints(x)
        return self._engine.eval_jacobian_vals()[self._maps.x_entries]

    def jacobianstructure(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of these values."""
        return self._maps.solver_jacobian

    def hessian(self, x: Floats, duals: Floats, obj_factor: float) -> Floats:
        """Values of the Hessian of obj_factor f + dualsᵀg, lower triangle."""
        self.objective(x)
        if len(duals):
            self._engine.constraint_forward(self._of._full)
        return self._engine.eval_hessian_vals_coo_lower_tri(obj_factor, np.asarray(duals, dtype=float))[
            self._maps.xx_entries
        ]

    def hessianstructure(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of these values."""
        return self._maps.solver_hessian

    def intermediate(self, *args: Any) -> bool:
        """Called once an iteration by solvers that can be stopped."""
        self.iterations += 1
        return True


class _Maps:
    """Where the engine's entries stand in P, A, ∂g/∂p and ∂²L/∂x∂p."""

    def __init__(self, oracles: Oracles) -> None:
        n, n_p = len(oracles._x), len(oracles._p)
        own = np.full(n + n_p, -1)
        own[oracles._x] = np.arange(n)
        data = np.full(n + n_p, -1)
        data[oracles._p] = np.arange(n_p)
        rows, cols = oracles._engine.get_jacobian_sparsity_coo() if len(oracles.rows) else (np.zeros(0, int),) * 2
        count = len(rows)
        self.x_entries = np.flatnonzero(own[cols] >= 0)
        self.solver_jacobian = (
            np.ascontiguousarray(rows[self.x_entries], dtype=np.int32),
            np.ascontiguousarray(own[cols[self.x_entries]], dtype=np.int32),
        )
        row = oracles.rows[rows] if count else np.zeros(0, dtype=int)
        bounds, entries = oracles.bounds, self.x_entries[row[self.x_entries] >= 0]
        at = np.concatenate([row[entries], bounds.row]), np.concatenate([own[cols[entries]], bounds.column])
        self.A_at, where = _pattern(*at, oracles.m)
        k, nnz = len(entries), len(self.A_at[0])
        self.A = sp.csr_array((np.ones(k), (where[:k], entries)), shape=(nnz, count))
        self.A_bounds: Floats = np.zeros(nnz)
        np.add.at(self.A_bounds, where[k:], bounds.sign)
        of_p = np.flatnonzero((data[cols] >= 0) & (row >= 0))
        self.g_p = _Places(row[of_p], data[cols[of_p]], of_p, (oracles.m, n_p))

        rows, cols = oracles._engine.get_problem_hessian_sparsity_coo()
        self.xx_entries = xx = np.flatnonzero((own[rows] >= 0) & (own[cols] >= 0))
        a, b = own[rows[xx]], own[cols[xx]]
        self.solver_hessian = (
            np.ascontiguousarray(np.maximum(a, b), dtype=np.int32),
            np.ascontiguousarray(np.minimum(a, b), dtype=np.int32),
        )
        off = a != b
        self.P_at, where = _pattern(np.concatenate([a, b[off]]), np.concatenate([b, a[off]]), n)
        source = np.concatenate([xx, xx[off]])
        self.P = sp.csr_array((np.ones(len(where)), (where, source)), shape=(len(self.P_at[0]), len(rows)))
        mixed = np.flatnonzero((own[rows] >= 0) != (own[cols] >= 0))
        first = own[rows[mixed]] >= 0
        x = np.where(first, own[rows[mixed]], own[cols[mixed]])
        p = np.where(first, data[cols[mixed]], data[rows[mixed]])
        self.L_xp = _Places(x, p, mixed, (n, n_p))


@dataclass(frozen=True, eq=False)
class _Places:
    """Where some of the engine's entries stand in a matrix; those at one place are added."""

    rows: np.ndarray
    cols: np.ndarray
    source: np.ndarray
    shape: tuple[int, int]


class Entries:
    """A sparse matrix of the engine's entries; it is made where more than one vector asks for it.

    Args:
        places: where they stand.
        values: all of the engine's.
    """

    def __init__(self, places: _Places, values: Floats) -> None:
        self._places, self._values = places, values[places.source]

    @cached_property
    def matrix(self) -> Any:
        """In compressed rows."""
        return sp.csr_array((self._values, (self._places.rows, self._places.cols)), shape=self._places.shape)

    def times(self, v: Floats) -> Floats:
        """M v, for columns (·, B)."""
        at = self._places
        return self._sums(at.rows, at.cols, at.shape[0], v) if v.shape[1] == 1 else self.matrix @ v

    def transposed_times(self, u: Floats) -> Floats:
        """Mᵀ u, likewise."""
        at = self._places
        return self._sums(at.cols, at.rows, at.shape[1], u) if u.shape[1] == 1 else self.matrix.T @ u

    def _sums(self, to: np.ndarray, source: np.ndarray, size: int, v: Floats) -> Floats:
        bincount: Any = np.bincount  # its stub leaves the weights' dtype out
        return bincount(to, weights=self._values * v[source, 0], minlength=size)[:, None]


def _pattern(rows: np.ndarray, cols: np.ndarray, m: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The distinct places in column order, and which of them each entry is."""
    keys, where = np.unique(cols.astype(np.int64) * max(m, 1) + rows, return_inverse=True)
    return (keys % max(m, 1), keys // max(m, 1)), where


def _places(variables: Sequence[cp.Variable], offsets: Any) -> np.ndarray:
    """The engine's columns of some variables, in order."""
    parts = [offsets[v.id] + np.arange(v.size) for v in variables]
    return np.concatenate(parts).astype(int) if parts else np.zeros(0, dtype=int)
