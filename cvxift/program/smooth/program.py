"""A nonlinear CVXPY problem as a parametrized smooth program.

    minimize f(x, p)   subject to   g(x, p) + s = 0,  s ∈ K = {0}^z × R₊^k,        p = p(θ)

Columns x are the user's variables and those that smoothing adds; columns p hold parameters and what depends on them
alone. Its linearization at a point (`cvxift.program.smooth.linearized`) is what the KKT systems are made of.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxift.errors import ProgramError
from cvxift.program import parameters as _parameters
from cvxift.program.canonicalize import Origin
from cvxift.program.declared import DeclaredSet
from cvxift.program.labels import ColumnBlock, ColumnLabels, RowLabels
from cvxift.program.messages import short
from cvxift.program.parameters import side_by_side
from cvxift.program.recover import Output
from cvxift.program.row_order import RowBlock
from cvxift.program.smooth.checks import check_nonlinear
from cvxift.program.smooth.data_columns import bent
from cvxift.program.smooth.linearized import LinearizedData, LocalProgram, Request
from cvxift.program.smooth.norms import NormRows
from cvxift.program.smooth.oracles import Bounds, Oracles
from cvxift.program.smooth.rewrite import rewrite
from cvxift.program.smooth.smoothing import Smoothed, Stated, smooth, start
from cvxift.program.structure import Cones, Data, Floats, Structure


class SmoothProgram:
    """The parametrized smooth program of a CVXPY problem; it answers as `cvxift.program.program.Program` does.

    Args:
        problem: a problem that follows the rules of disciplined nonlinear programs.

    Attributes:
        problem, structure, parameters, theta_size, offsets, objective_sign, row_labels, column_labels, user_columns: as
            those of `Program`.
        data: the columns that hold parameters and what depends on them alone.
        oracles: the derivatives.

    Raises:
        ProgramError: the problem is not such a program; names the part that is not.
    """

    nonlinear = True
    gp = False
    log_mask = None
    objective_exp = False
    release = None
    P_varies = False
    approximation = 0.0

    def __init__(self, problem: cp.Problem) -> None:
        self.parameters: tuple[cp.Parameter, ...] = check_nonlinear(problem)
        self.problem = problem
        self.theta_size = sum(p.size for p in self.parameters)
        self.offsets: dict[cp.Parameter, slice] = side_by_side(self.parameters)
        self.objective_sign = -1.0 if isinstance(problem.objective, cp.Maximize) else 1.0
        rewritten = rewrite(problem, self.parameters)
        self.data = rewritten.data
        smoothed = smooth(rewritten)
        read = {v.id for e in (smoothed.objective, *(item.expr for item in smoothed.stated)) for v in e.variables()}
        self._used = tuple(d for d in rewritten.data if d.column.id in read)
        self._atoms = smoothed.atoms
        self._variables, self._inner = tuple(problem.variables()), rewritten.variables
        self._columns = (*rewritten.variables, *(column for column, _ in smoothed.added))
        self._lay_out(smoothed)

    def _lay_out(self, smoothed: Smoothed) -> None:
        """Number columns and rows: equalities first, then inequalities, bounds last in each; then the norms' cones."""
        ends = np.cumsum([0] + [v.size for v in self._columns])
        n = int(ends[-1])
        self._low, self._high = (np.concatenate(part) for part in zip(*map(_bounds_of, self._columns), strict=True))
        fixed = np.flatnonzero(self._low == self._high)
        starts = {v.id: int(i) for v, i in zip(self._columns, ends[:-1], strict=True)}
        bounded = np.isfinite(self._low) & (self._low != self._high)
        for norm in smoothed.norms:  # its cone says that it is not negative
            bounded[starts[norm.t.id] + np.arange(norm.t.size)] = False
        lower = np.flatnonzero(bounded)
        upper = np.flatnonzero(np.isfinite(self._high) & (self._low != self._high))
        of_norm = {norm.constraint.id: norm for norm in smoothed.norms}
        order = sorted(smoothed.stated, key=lambda item: (not item.equality, item.id in of_norm))
        solvers = [item for item in order if item.id in of_norm]
        equalities = sum(item.expr.size for item in order if item.equality)
        zero = equalities + len(fixed)
        blocks, origins, rows, at = [], [], [], 0
        owner = np.searchsorted(ends, np.arange(n), side="right") - 1
        whose = [Origin(variable=k) for k in range(len(self._variables))] + [origin for _, origin in smoothed.added]

        def bounds(columns: np.ndarray, kind: str) -> None:
            nonlocal at
            for column in columns:
                blocks.append(RowBlock(-1 - len(blocks), kind, at, at + 1, 1))
                origins.append(whose[int(owner[column])])
                at += 1

        def state(items: list[Stated], kind: str) -> None:
            nonlocal at
            for item in items:
                blocks.append(RowBlock(item.id, kind, at, at + item.expr.size, 1))
                origins.append(item.origin)
                rows.append(np.arange(at, at + item.expr.size))
                at += item.expr.size

        state([item for item in order if item.equality], "zero")
        bounds(fixed, "zero")
        state([item for item in order if not item.equality and item.id not in of_norm], "nonneg")
        first_bound = at
        bounds(np.concatenate([lower, upper]), "nonneg")
        self.bounds = Bounds(
            np.concatenate([equalities + np.arange(len(fixed)), np.arange(first_bound, at)]).astype(int),
            np.concatenate([fixed, lower, upper]),
            np.concatenate([np.ones(len(fixed)), -np.ones(len(lower)), np.ones(len(upper))]),
            np.concatenate([self._low[fixed], self._low[lower], self._high[upper]]),
        )
        inequalities = at - zero
        self.norms = NormRows.of([of_norm[item.id] for item in solvers], starts, at)
        for item in solvers:
            parts = of_norm[item.id].parts
            blocks.append(RowBlock(item.id, "soc", at, at + parts.size + len(parts), parts.shape[1] + 1))
            origins.append(item.origin)
            rows.append(np.full(len(parts), -1))
            at += parts.size + len(parts)
        self._of_engine = np.concatenate(rows) if rows else np.zeros(0, dtype=int)
        used = [d.column for d in self._used]
        linear = self.bounds.with_rows(self.norms.row, self.norms.column)
        self.oracles = Oracles(smoothed.objective, order, self._columns, used, self._of_engine, linear, at)
        P, A = self.oracles.structure_patterns
        cones = Cones(zero=zero, nonneg=inequalities, soc=self.norms.dims)
        self.structure = Structure.from_patterns(n, cones, P=P, A=A)
        self._set_labels(ends, whose, blocks, origins)
        self.user_columns = np.zeros(n, dtype=bool)
        self.user_columns[: sum(v.size for v in self._variables)] = True
        starts = {block.id: block for block in blocks}
        self._blocks = [starts.get(key) for key in smoothed.user]
        self._starts = ends

    def _set_labels(self, ends: np.ndarray, whose: list[Origin], blocks: list[RowBlock], origins: list[Origin]) -> None:
        columns = [
            ColumnBlock(int(i), int(j), v.shape, origin)
            for v, i, j, origin in zip(self._columns, ends[:-1], ends[1:], whose, strict=True)
        ]
        self.column_labels = ColumnLabels(columns, np.arange(int(ends[-1])), self.problem.constraints, self._variables)
        structure = self.structure
        column_of_row = np.full(structure.m, -1)
        column_of_row[structure.A_rows] = structure.A_cols
        positive = np.zeros(structure.m, dtype=bool)
        positive[self.bounds.row] = self.bounds.sign > 0
        self.row_labels = RowLabels(
            blocks, origins, np.arange(structure.m), {}, (column_of_row, positive), self.column_labels, self._variables
        )

    @property
    def cones(self) -> Cones:
        """The product cone K."""
        return self.structure.cones

    @property
    def column_bounds(self) -> tuple[Floats, Floats]:
        """Lower and upper bounds of the columns, shapes (n,)."""
        return self._low, self._high

    @property
    def engine_rows(self) -> np.ndarray:
        """The row of each of the engine's rows, in its order; −1 for those that solvers alone get."""
        return self._of_engine

    def pack(self, values: Mapping[cp.Parameter, Any], check: bool = True) -> Floats:
        """As `Program.pack`."""
        theta = _parameters.pack(self.parameters, self.offsets, values, self.theta_size)
        if check:
            self.check(theta)
        return theta

    def check(self, theta: Floats) -> None:
        """As `Program.check`; nonlinear programs have no infinite parameters."""
        none = np.zeros(self.theta_size, dtype=bool)
        _parameters.check(self.parameters, self.offsets, theta, (none, none), None)

    def evaluate(self, theta: Floats) -> Request:
        """What is to be solved at θ, shape (..., N)."""
        return Request(None, np.zeros((*theta.shape[:-1], 0)), None, None, None, theta)  # type: ignore[arg-type]  # a request has no matrices

    def at(self, solution: Any) -> LocalProgram:
        """The program linearized at a solution's point."""
        return solution.data.program

    def p(self, theta: Floats) -> Floats:
        """The data columns at θ, shape (N,).

        Raises:
            ProgramError: an expression of parameters has no value there.
        """
        self._set_data(theta)
        parts = [_flat(d.column) for d in self._used]
        return np.concatenate(parts) if parts else np.zeros(0)

    def p_theta(self, theta: Floats) -> Any:
        """dp/dθ, sparse, shape (n_p, N)."""
        if self._constant_p_theta is not None:
            return self._constant_p_theta
        self._set_data(theta)
        return self._p_theta()

    def sizes(self, theta: Floats) -> Floats:
        """Of the entries of θ, shape (N,); one of zero is as large as its parameter."""
        sizes = np.abs(theta)
        for part in self.offsets.values():
            own = sizes[part]
            own[own == 0.0] = own.max(initial=0.0) or 1.0
        return sizes

    def kinks(self, theta: Floats) -> list[str]:
        """Expressions of parameters alone that have no derivative at θ, shape (N,)."""
        if all(d.smooth for d in self.data):
            return []
        bends = bent(self.p, theta, self.sizes(theta))
        self._set_data(theta)
        ends = np.cumsum([d.column.size for d in self._used])
        return [
            short(d.source) for d, end in zip(self._used, ends, strict=True) if bends[end - d.column.size : end].any()
        ]

    @cached_property
    def _constant_p_theta(self) -> Any:
        return self._p_theta() if all(d.constant for d in self.data) else None

    @cached_property
    def _reading(self) -> list[Any]:
        return [d.reading() for d in self.data if d.direct]

    def _p_theta(self) -> Any:
        rows, at = {}, 0
        for d, reading in zip(self.data, self._reading, strict=False):  # a parameter's own column comes before others
            size = d.column.size
            place = sp.csr_array(
                (np.ones(size), (np.arange(size), at + np.arange(size))), shape=(size, self.theta_size)
            )
            rows[d.column] = sp.csr_array(reading @ place)
            at += size
        for d in self.data[len(rows) :]:
            total = sp.csr_array((d.column.size, self.theta_size))
            for column, matrix in d.derivative().items():
                total = total + matrix @ rows[column]
            rows[d.column] = total
        parts = [rows[d.column] for d in self._used]
        return sp.csr_array(sp.vstack(parts)) if parts else sp.csr_array((0, self.theta_size))

    def _set_data(self, theta: Floats) -> None:
        """Give the data columns their values at θ."""
        at = 0
        for d, reading in itertools.zip_longest(self.data, self._reading):
            if reading is not None:
                value = reading @ theta[at : at + d.column.size]
                at += d.column.size
            else:
                value = d.value()
            d.column.save_value(value.reshape(d.column.shape, order="F"))

    def start(self, values: Sequence[Any], theta: Floats) -> Floats:
        """A first point: the variables' values, and the values that tie the added columns to them.

        Args:
            values: of the user's variables in order; those that are None start between their bounds, or at zero.
            theta: the parameters, shape (N,).
        """
        self._set_data(theta)
        for value, inner in zip(values, self._inner, strict=True):
            low, high = (np.broadcast_to(np.asarray(end, dtype=float), inner.shape) for end in inner.get_bounds())
            if value is None:
                with np.errstate(invalid="ignore"):
                    both, one = np.isfinite(low) & np.isfinite(high), np.isfinite(low)
                    value = np.where(both, 0.5 * (low + high), np.where(one, low + 1.0, np.minimum(high - 1.0, 0.0)))
            inner.save_value(np.clip(np.asarray(value, dtype=float).reshape(inner.shape), low, high))
        start(self._atoms)
        return np.concatenate([_flat(v) for v in self._columns])

    @property
    def bound_weights(self) -> Floats:
        """As `Program.bound_weights`: no bounds are put into cones."""
        return np.zeros(self.structure.m)

    def values(self, x: Floats, theta: Floats | None = None) -> dict[cp.Variable, Floats]:
        """As `Program.values`."""
        return {variable: self.output(variable).value(x, theta) for variable in self._variables}

    def output(self, obj: cp.Variable) -> Output:
        """As `Program.output`."""
        if not isinstance(obj, cp.Variable):
            raise ProgramError(f"Expected a cp.Variable or a constraint's dual variable, got {type(obj).__name__}.")
        for k, variable in enumerate(self._variables):
            if variable is obj:
                columns = self._starts[k] + np.arange(obj.size).reshape(obj.shape, order="F").ravel()
                matrix = _selection(columns, self.structure.n)
                declared = DeclaredSet.of(obj, self.offsets, self.theta_size)
                return Output("primal", matrix, None, obj.shape, False, None, declared)
        for constraint, block in zip(self.problem.constraints, self._blocks, strict=True):
            for dual in constraint.dual_variables:
                if dual is obj and block is not None:
                    rows = block.start + np.arange(obj.size).reshape(obj.shape, order="F").ravel()
                    return Output("dual", _selection(rows, self.structure.m), None, obj.shape, False)
        known = ", ".join(variable.name() for variable in self._variables)
        raise ProgramError(
            f"Variable '{obj.name()}' is not in the problem. Its variables: {known}; dual variables are "
            "constraint.dual_variables[i] of its constraints."
        )

    def primal_value(self, data: Data, x: Floats) -> Floats:
        """The user's objective at the point of linearized data."""
        structure = self.structure
        quadratic = np.sum(data.P * x[..., structure.P_rows] * x[..., structure.P_cols], axis=-1)
        return self.objective_sign * (0.5 * quadratic + np.sum(data.q * x, axis=-1) + data.d)

    def linearized(self, theta: Floats, p: Floats, x: Floats, y: Floats) -> LinearizedData:
        """The quadratic program at a point, with the derivatives of its data.

        Args:
            theta: shape (N,).
            p: the data columns there, shape (n_p,).
            x: shape (n,).
            y: multipliers, shape (m,).
        """
        return LocalProgram(self, theta, p, x, y).data


def _bounds_of(variable: cp.Variable) -> tuple[Floats, Floats]:
    low, high = variable.get_bounds()
    return tuple(  # type: ignore[return-value]  # of two
        np.broadcast_to(np.asarray(end, dtype=float), variable.shape).ravel(order="F") for end in (low, high)
    )


def _flat(variable: cp.Variable) -> Floats:
    return np.asarray(variable.value, dtype=float).ravel(order="F")


def _selection(columns: np.ndarray, size: int) -> sp.csr_array:
    return sp.csr_array((np.ones(len(columns)), (np.arange(len(columns)), columns)), shape=(len(columns), size))
