"""A CVXPY problem as a parametrized canonical program, built once, evaluated in microseconds.

    minimize ½ xᵀP(θ)x + q(θ)ᵀx + d(θ)   subject to   A(θ)x + s = b(θ),  s ∈ K

All data are affine in θ, which holds the user's parameters one after the other, each in C order. With `gp=True` θ holds
the logarithms of the entries in `log_mask`, x those of the variables, and the objective is that of the user's.

That DPP problems have affine data: A. Agrawal, B. Amos, S. Barratt, S. Boyd, S. Diamond, Z. Kolter, "Differentiable
Convex Optimization Layers", NeurIPS 2019, section 4 (affine-solver-affine form).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxift._types import cached_property
from cvxift.errors import ProgramError
from cvxift.program import parameters as _parameters
from cvxift.program.attributes import to_inner
from cvxift.program.canonicalize import Origin, Stuffed, canonicalize
from cvxift.program.checks import check_problem
from cvxift.program.integers import with_integers
from cvxift.program.labels import ColumnBlock, ColumnLabels, RowLabels, check_finite, ranks
from cvxift.program.maps import Maps
from cvxift.program.presolve import presolve
from cvxift.program.recover import Output, constant_output, dual_outputs, primal_output
from cvxift.program.row_order import Rows, arrange
from cvxift.program.structure import Cones, Data, Floats
from cvxift.program.tensors import Stack, stack


class Program:
    """The parametrized canonical program of a CVXPY problem, and the way back to the user's names.

    Args:
        problem: a DPP problem without integer or complex variables.
        gp: read the problem as a geometric program (log-log convex).
        canon_backend: CVXPY's canonicalization backend ("CPP", "SCIPY", "COO"); None takes "COO", the fastest.
        integers: values at which integer variables are held; others are free. None refuses integer variables.
        parameters: all of the problem's parameters, in the order in which θ is to hold them; by default its own.

    Attributes:
        problem: the user's problem.
        gp: as given.
        integers: likewise; empty for a problem without.
        approximation: relative error of the atoms that CVXPY approximates; None where it is not known.
        vouched: whether the user said of a matrix that it is definite.
        structure: sizes, cones and patterns; the same for every θ.
        parameters: the user's parameters in θ's order.
        theta_size: N, the length of θ.
        offsets: where each parameter stands in θ.
        log_mask: with `gp`, which entries of θ are logarithms of the user's values, shape (N,); None otherwise.
        objective_sign: −1 for Maximize: the user's objective is this times the canonical one.
        objective_exp: with `gp`, the user's objective is the exponential of that.
        row_labels: who each row of A belongs to.
        column_labels: who each column of x belongs to.
        user_columns: columns that determine the user's variables, shape (n,); the others are auxiliary.
        A_varies: entries of A that depend on θ, shape (nnzA,).
        A_constants: values of the others, and what θ is added to in those, shape (nnzA,).
        P_varies: whether an entry of P depends on θ.

    Raises:
        ProgramError: for a problem that is not DPP, not convex, integer, complex, without variables, or not finite.

    Example:
        >>> import cvxpy as cp
        >>> x, c = cp.Variable(2), cp.Parameter(2)
        >>> program = Program(cp.Problem(cp.Minimize(cp.sum_squares(x) + c @ x), [x >= 0]))
        >>> data = program.evaluate(program.pack({c: [1.0, -2.0]}))
        >>> program.structure.m, data.q.tolist()
        (2, [1.0, -2.0])
    """

    nonlinear = False  # whether solutions are local ones

    def __init__(
        self,
        problem: cp.Problem,
        gp: bool = False,
        canon_backend: str | None = None,
        integers: Mapping[cp.Variable, Floats] | None = None,
        parameters: Sequence[cp.Parameter] | None = None,
    ) -> None:
        continuous = problem if integers is None else with_integers(problem, integers)
        reach = check_problem(continuous, gp)
        own = reach.parameters
        self.parameters = own if parameters is None else _parameters.in_callers_order(parameters, own)
        self.approximation, self.vouched = reach.approximation, reach.vouched
        self.problem, self.gp, self.integers = problem, gp, dict(integers or {})
        self._variables: tuple[cp.Variable, ...] = tuple(continuous.variables())
        self._held = tuple(v for v in problem.variables() if v not in set(self._variables))
        self.theta_size = sum(parameter.size for parameter in self.parameters)
        self.offsets: dict[cp.Parameter, slice] = _parameters.side_by_side(self.parameters)
        self.objective_sign = -1.0 if isinstance(problem.objective, cp.Maximize) else 1.0
        self.objective_exp = gp

        with reach.values_aside():
            stuffed = canonicalize(continuous, self.parameters, gp, canon_backend)
        rows = arrange(stuffed.program.constraints)
        inner, log_mask = to_inner(stuffed, self.parameters, self.offsets, self.theta_size)
        self.log_mask = log_mask if gp else None
        full, stacked = stack(stuffed.program, rows, inner, self.theta_size)
        self._presolved = presolve(full, stacked, ranks(rows, stuffed.origins), stuffed.auxiliary(full.n))
        self.structure, stacked = self._presolved.structure, self._presolved.stacked
        self._set_labels(stuffed, rows, stacked)
        check_finite(stacked, self.structure, self.row_labels)
        self._maps = Maps(self.structure, stacked, self._presolved.weights)
        self.A_varies, self.A_constants = self._maps.A_varies, stacked.constant[stacked.slices["A"]]
        self.P_varies = self._maps.P_varies
        self._set_outputs(stuffed, rows)

    @property
    def cones(self) -> Cones:
        """The product cone K."""
        return self.structure.cones

    def at(self, solution: Any) -> Program:
        """The program whose data are affine in θ around a solution: this one, whatever the solution."""
        return self

    def pack(self, values: Mapping[cp.Parameter, Any], check: bool = True) -> Floats:
        """Concatenate parameter values into θ.

        Args:
            values: values by parameter, shape (..., *parameter.shape); batch dimensions broadcast. A parameter that is
                not named takes the value it holds.
            check: refuse NaN, infinities and values that break a parameter's attributes.

        Returns:
            θ in the user's units (no logarithms taken), shape (..., N).

        Raises:
            ProgramError: naming the parameter, what was got, what was expected.
        """
        theta = _parameters.pack(self.parameters, self.offsets, values, self.theta_size)
        if check:
            _parameters.check(self.parameters, self.offsets, theta, self._maps.may_be_infinite, self.log_mask)
        return theta

    def check(self, theta: Floats) -> None:
        """Refuse NaN, infinities other than absent bounds, and values that break a parameter's attributes.

        Args:
            theta: in the user's units, shape (..., N).

        Raises:
            ProgramError: naming the parameter and the entry.
        """
        _parameters.check(self.parameters, self.offsets, theta, self._maps.may_be_infinite, self.log_mask)

    def evaluate(self, theta: Floats) -> Data:
        """The program's data at θ.

        A nonneg row whose right-hand side is +∞ binds nothing: it is returned as 0ᵀx ≤ 1.

        Args:
            theta: shape (..., N); logarithms already taken where `log_mask` says so.

        Returns:
            Values on the structure's patterns. Pieces that do not depend on θ are read-only views.

        Raises:
            ProgramError: if θ has another length.
        """
        return self._maps.evaluate(self._vector(theta))

    def vjp(self, bar: Data) -> Floats:
        """Transpose of the linear part of `evaluate`.

        Args:
            bar: cotangents of P, q, A, b, d, shapes (..., k); a field that is None counts as zero.

        Returns:
            Cotangent of θ, shape (..., N).
        """
        return self._maps.vjp(bar)

    def jvp(self, dtheta: Floats) -> Data:
        """Linear part of `evaluate`.

        Args:
            dtheta: tangent of θ, shape (..., N).

        Returns:
            Tangents of P, q, A, b, d.

        Raises:
            ProgramError: if dθ has another length.
        """
        return self._maps.jvp(self._vector(dtheta))

    def affine(self) -> dict[str, tuple[sp.csr_array, Floats]]:
        """P, q, A, b and d as affine functions of θ, for evaluations elsewhere than here.

        Returns:
            By name, M of shape (k, N) and c of shape (k,): the values are c + Mθ, before rows are released.
        """
        return self._maps.affine()

    @property
    def bound_weights(self) -> Floats:
        """w, shape (m,): the multiplier of a bound that was put into a cone is ⟨w, y⟩ over its rows; zero elsewhere."""
        return self._presolved.weights

    @property
    def release(self) -> tuple[Floats, Floats] | None:
        """By row, the infinite b with which its cone binds nothing (or NaN), what is put there; None if none may."""
        return (self._maps.limits, self._maps.inside) if self._maps.may_release else None

    def output(self, obj: cp.Variable) -> Output:
        """A variable or dual variable of the user's as a function of the canonical point.

        Args:
            obj: one of the problem's variables, or one of a constraint's `dual_variables`.

        Returns:
            The map; a dual variable has CVXPY's sign and shape.

        Raises:
            ProgramError: if `obj` is neither.
        """
        if not isinstance(obj, cp.Variable):
            raise ProgramError(f"Expected a cp.Variable or a constraint's dual variable, got {type(obj).__name__}.")
        primal = self._primal_positions.get(obj)
        if primal is not None:
            return self._primal[primal]
        dual = self._dual_positions.get(obj)
        if dual is None:
            known = ", ".join(variable.name() for variable in self.problem.variables())
            raise ProgramError(
                f"Variable '{obj.name()}' is not in the problem. Its variables: {known}; dual variables are "
                "constraint.dual_variables[i] of its constraints. What is asked for must be a subset of "
                "problem.variables() and these."
            )
        number, part = dual
        if number not in self._dual:
            block = self._blocks.get(self._constraint_ids[number])
            constraint = self.problem.constraints[number]
            self._dual[number] = dual_outputs(constraint, block, self._presolved)
        return self._dual[number][part]

    def values(self, x: Floats, theta: Floats | None = None) -> dict[cp.Variable, Floats]:
        """The user's variables at a canonical point x, shape (..., n), and at `theta`, as `Output.value` gives them."""
        outputs = zip((*self._variables, *self._held), self._primal, strict=True)
        return {variable: output.value(x, theta) for variable, output in outputs}

    def primal_value(self, data: Data, x: Floats) -> Floats:
        """The user's objective at x.

        Args:
            data: the program's data, shapes (..., k).
            x: canonical point, shape (..., n).

        Returns:
            Objective in the user's sense (Maximize and gp undone), shape (...).
        """
        structure = self.structure
        quadratic = np.sum(data.P * x[..., structure.P_rows] * x[..., structure.P_cols], axis=-1)
        value = self.objective_sign * (0.5 * quadratic + np.sum(data.q * x, axis=-1) + data.d)
        return np.exp(value) if self.objective_exp else value

    def _vector(self, theta: Floats) -> Floats:
        theta = np.asarray(theta, dtype=np.float64)
        if theta.shape[-1:] != (self.theta_size,):
            raise ProgramError(f"θ has shape {theta.shape}; expected (..., {self.theta_size}). Use pack().")
        return theta

    def _set_labels(self, stuffed: Stuffed, rows: Rows, stacked: Stack) -> None:
        origin_of, problem, columns = stuffed.origins, self.problem, []
        for variable in stuffed.program.variables:
            start = stuffed.program.var_id_to_col[variable.id]
            origin = origin_of.get(variable.id, Origin())
            columns.append(ColumnBlock(start, start + variable.size, variable.shape, origin))
        for start, number in enumerate(rows.links_block, start=stuffed.program.x.size):
            columns.append(ColumnBlock(start, start + 1, (), origin_of.get(rows.blocks[number].id, Origin())))
        structure = self.structure
        column_of_row = np.full(structure.m, -1)
        column_of_row[structure.A_rows] = structure.A_cols
        positive = np.zeros(structure.m, dtype=bool)
        positive[structure.A_rows] = stacked.constant[stacked.slices["A"]] > 0
        origins, partners = [origin_of.get(block.id, Origin()) for block in rows.blocks], self._presolved.partners
        self.column_labels = ColumnLabels(columns, self._presolved.columns, problem.constraints, self._variables)
        self.row_labels = RowLabels(
            rows.blocks,
            origins,
            self._presolved.named,
            partners,
            (column_of_row, positive),
            self.column_labels,
            self._variables,
        )

    def _set_outputs(self, stuffed: Stuffed, rows: Rows) -> None:
        n, kept = self.structure.n, self._presolved.columns
        columns = {key: int(np.searchsorted(kept, start)) for key, start in stuffed.program.var_id_to_col.items()}
        self._primal = [
            primal_output(variable, inner, columns.get(inner.id), n, self.offsets, self.theta_size)
            for variable, inner in zip(self._variables, stuffed.variables, strict=True)
        ]
        self._primal += [constant_output(variable, self.integers.get(variable), n) for variable in self._held]
        self.user_columns = np.zeros(n, dtype=bool)
        for output in self._primal:
            self.user_columns[output.matrix.indices] = True
        self._blocks = {block.id: block for block in reversed(rows.blocks)}  # the first of a constraint given twice
        self._constraint_ids = stuffed.constraints
        self._dual: dict[int, list[Output]] = {}

    # Positions go by the identity of the user's objects: a copy of the program answers for its own copies of them.

    @cached_property
    def _primal_positions(self) -> dict[cp.Variable, int]:
        return {variable: k for k, variable in enumerate((*self._variables, *self._held))}

    @cached_property
    def _dual_positions(self) -> dict[cp.Variable, tuple[int, int]]:
        return {
            dual: (k, part)
            for k, constraint in enumerate(self.problem.constraints)
            for part, dual in enumerate(constraint.dual_variables)
        }
