"""A nonlinear problem with its parameters swapped for variables, before anything is canonicalized.

CVXPY's differentiation engine knows variables and constants. A parameter that is swapped for a variable first is
differentiated with the others; swapped after canonicalization its value would be part of the constants. What depends on
parameters alone and is not a mere selection or sum of their entries becomes a variable of its own, whose value and
derivative CVXPY's expressions give: as a factor of the problem it would be smoothed by an epigraph, which nothing ties
to its value.

    problem in (x, θ)   →   problem in (x, p),   p = p(θ)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.atoms.affine.add_expr import AddExpression
from cvxpy.atoms.affine.binary_operators import DivExpression, MulExpression, multiply
from cvxpy.atoms.affine.broadcast_to import broadcast_to
from cvxpy.atoms.affine.conv import conv, convolve
from cvxpy.atoms.affine.cumsum import cumsum
from cvxpy.atoms.affine.hstack import Hstack
from cvxpy.atoms.affine.index import index, special_index
from cvxpy.atoms.affine.kron import kron
from cvxpy.atoms.affine.promote import Promote
from cvxpy.atoms.affine.reshape import reshape
from cvxpy.atoms.affine.sum import Sum
from cvxpy.atoms.affine.transpose import transpose
from cvxpy.atoms.affine.unary_operators import NegExpression
from cvxpy.atoms.affine.vstack import Vstack
from cvxpy.atoms.cummax import cummax
from cvxpy.atoms.cumprod import cumprod
from cvxpy.atoms.elementwise.log1p import log1p
from cvxpy.atoms.log_sum_exp import log_sum_exp
from cvxpy.atoms.norm_inf import norm_inf
from cvxpy.atoms.pnorm import Pnorm
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.atoms.quad_over_lin import quad_over_lin
from cvxpy.atoms.sum_largest import sum_largest
from cvxpy.constraints.constraint import Constraint
from cvxpy.constraints.nonpos import Inequality, NonNeg
from cvxpy.constraints.zero import Equality, Zero

from cvxift.errors import ProgramError
from cvxift.program.messages import short
from cvxift.program.smooth.data_columns import DataColumn

# Of parameters, these and products are left to the differentiation engine.
SELECTIONS = (
    AddExpression, NegExpression, Promote, broadcast_to, index, special_index, reshape, transpose, Sum, Hstack, Vstack,
)  # fmt: skip
PRODUCTS = (MulExpression, multiply)
SIGNS = ("nonneg", "nonpos", "pos", "neg")


@dataclass(frozen=True, eq=False)
class Rewritten:
    """A problem in variables alone.

    Attributes:
        objective: the expression to minimize.
        constraints: for each of the user's constraints and each parametric bound the equality or inequality it is, with
            the position of the user's constraint (None for a bound) and of the variable (None for a constraint).
        variables: a copy of each of the user's variables, of which values may be set.
        data: the columns that hold parameters and what depends on them alone.
    """

    objective: cp.Expression
    constraints: tuple[tuple[Equality | Inequality, int | None, int | None], ...]
    variables: tuple[cp.Variable, ...]
    data: tuple[DataColumn, ...]


def rewrite(problem: cp.Problem, parameters: Sequence[cp.Parameter]) -> Rewritten:
    """Swap parameters for variables.

    Args:
        problem: a problem that follows the rules of disciplined nonlinear programs.
        parameters: its parameters.

    Raises:
        ProgramError: a parameter stands where no value can be swapped, such as an exponent; names the expression.
    """
    swap = _Swap(problem, parameters)
    sign = -1.0 if isinstance(problem.objective, cp.Maximize) else 1.0
    objective = swap(problem.objective.args[0])
    objective = objective if sign > 0 else -objective
    constraints: list[tuple[Equality | Inequality, int | None, int | None]] = [
        (swap.constraint(constraint), number, None) for number, constraint in enumerate(problem.constraints)
    ]
    for number, (variable, inner) in enumerate(zip(problem.variables(), swap.variables, strict=True)):
        for bound, lower in zip(variable.attributes["bounds"] or (), (True, False), strict=False):
            if isinstance(bound, cp.Expression) and bound.parameters():
                stated = swap(bound)
                constraints.append((stated <= inner if lower else inner <= stated, None, number))
    left = [p for item in (objective, *(c for c, _, _ in constraints)) for p in item.parameters()]
    if left:
        raise ProgramError(
            f"Parameter '{left[0].name()}' is an exponent, a threshold or another setting of an atom, with respect to "
            "which CVXPY's engine has no derivative. Make it a constant, or write the expression out."
        )
    return Rewritten(objective, tuple(constraints), swap.variables, tuple(swap.data))


class _Swap:
    """Rewrites expressions; a shared subexpression is rewritten once."""

    def __init__(self, problem: cp.Problem, parameters: Sequence[cp.Parameter]) -> None:
        self._done: dict[int, Any] = {}
        self._kept: list[Any] = []  # ids are those of living objects
        self.data: list[DataColumn] = []
        self._stand_in: dict[cp.Parameter, cp.Variable] = {}
        for parameter in parameters:
            column = cp.Variable(parameter.shape, name=parameter.name(), **_signs(parameter))
            self._stand_in[parameter] = column
            self.data.append(DataColumn.of_parameter(column, parameter))
            self._done[id(parameter)] = column
        inner = []
        for variable in problem.variables():
            inner.append(_copy(variable))
            self._done[id(variable)] = inner[-1]
        self.variables: tuple[cp.Variable, ...] = tuple(inner)

    def __call__(self, expr: Any) -> Any:
        """The expression in variables alone."""
        if id(expr) not in self._done:
            self._kept.append(expr)
            self._done[id(expr)] = self._rewritten(expr)
        return self._done[id(expr)]

    def constraint(self, constraint: Constraint) -> Equality | Inequality:
        """A constraint as an equality or inequality."""
        args: list[Any] = [self(arg) for arg in constraint.args]
        if isinstance(constraint, Equality | Inequality):
            return type(constraint)(*args)
        if isinstance(constraint, Zero):
            return Equality(args[0], cp.Constant(0.0))
        if isinstance(constraint, NonNeg):
            return Inequality(cp.Constant(0.0), args[0])
        return Inequality(args[0], cp.Constant(0.0))  # NonPos

    def _rewritten(self, expr: Any) -> Any:
        fixed = not expr.variables()
        if fixed and not expr.parameters():
            return expr
        if isinstance(expr, QuadForm) and expr.args[1].parameters():
            x, P = self(expr.args[0]), self(expr.args[1])
            return cp.sum(cp.multiply(x, P @ x))
        if isinstance(expr, DivExpression) and not expr.args[1].variables():
            return self._divided(self(expr.args[0]), expr.args[1])
        if isinstance(expr, quad_over_lin) and not expr.args[1].variables():
            squares: Any = cp.sum(cp.power(self(expr.args[0]), 2), getattr(expr, "axis", None))
            squares = squares if squares.shape == expr.shape else cp.reshape(squares, expr.shape, order="F")
            return self._divided(squares, expr.args[1])
        if isinstance(expr, cumsum) and expr.args[0].ndim <= 2 and not fixed:
            return _cumulated(self(expr.args[0]), expr.axis)
        if isinstance(expr, log_sum_exp) and expr.axis in (0, 1, -1) and expr.args[0].ndim == 2 and not fixed:
            x = self(expr.args[0])  # CVXPY smooths it of all entries alone
            parts = [x[:, j] for j in range(x.shape[1])] if expr.axis == 0 else [x[i, :] for i in range(x.shape[0])]
            return cp.reshape(cp.hstack([cp.log_sum_exp(part) for part in parts]), expr.shape, order="F")
        if isinstance(expr, log1p) and not fixed:
            return self(cp.log(1.0 + expr.args[0]))
        if isinstance(expr, Sum) and expr.keepdims:  # which the engine knows without its kept dimensions
            return cp.reshape(cp.sum(self(expr.args[0]), expr.axis), expr.shape, order="F")
        if isinstance(expr, Pnorm) and expr.p != 2 and not fixed and (written := _powers(expr)) is not None:
            return self(written)
        if isinstance(expr, sum_largest) and (written := _sum_of_largest(expr)) is not None:
            return self(written)
        if isinstance(expr, cummax | cumprod) and expr.args[0].ndim <= 2:
            return self(_running(cp.maximum if isinstance(expr, cummax) else cp.multiply, expr.args[0], expr.axis))
        if isinstance(expr, norm_inf) and fixed:  # CVXPY has no derivative of it
            return self(cp.max(cp.abs(expr.args[0]), expr.axis, expr.keepdims))
        args = [self(arg) for arg in expr.args]
        if isinstance(expr, conv | convolve) and expr.args[0].parameters():
            return _convolved(args[0], args[1], expr.shape)
        if isinstance(expr, kron):  # which the engine does not know
            return _kronecker(args[0], args[1])
        if fixed and not isinstance(expr, (*SELECTIONS, *PRODUCTS)):
            return self._column(expr, _with(expr, args))
        return expr if all(new is old for new, old in zip(args, expr.args, strict=True)) else _with(expr, args)

    def _divided(self, numerator: Any, denominator: Any) -> Any:
        if denominator.parameters():
            factor = self._column(denominator, self(denominator), reciprocal=True)
        else:
            factor = cp.Constant(1.0 / np.asarray(denominator.value, dtype=float))
        return cp.multiply(factor, numerator)

    def _column(self, source: Any, expr: Any, reciprocal: bool = False) -> cp.Variable:
        """A variable for one atom of other such variables: CVXPY's derivative of a single atom is all that it needs."""
        signs = {"nonneg": bool(expr.is_nonneg()), "nonpos": bool(expr.is_nonpos()) and not expr.is_nonneg()}
        column = cp.Variable(expr.shape, name=short(source), **signs)
        self.data.append(DataColumn(column, expr, source, reciprocal))
        return column


def _with(expr: Any, args: list[Any]) -> Any:
    """An atom of other arguments."""
    try:
        return expr.copy(args)
    except ValueError as error:
        raise ProgramError(
            f"CVXPY's {type(expr).__name__} takes constants alone where a parameter stands in {short(expr)}, and its "
            "engine has no derivative with respect to it. Make it a constant, or write the expression out."
        ) from error


def _cumulated(x: Any, axis: Any) -> cp.Expression:
    """The cumulative sums of a vector or matrix, as a triangular matrix times it."""
    x = cp.vec(x, order="C") if axis is None else x
    along = x.ndim - 1 if axis is None else axis % x.ndim
    ones = sp.csr_array(np.tri(x.shape[along]))
    return ones @ x if along == 0 else x @ ones.T


def _powers(norm: Any) -> cp.Expression | None:
    """A p-norm other than the Euclidean one as (Σ xᵢ^p)^(1/p); None where the powers have no second derivatives."""
    x, p = norm.args[0], float(norm.p)
    if p < 1.0 or p % 2.0 == 0.0 or (p > 2.0 and x.is_nonneg()):
        return cp.power(cp.sum(cp.power(x, p), axis=norm.axis, keepdims=norm.keepdims), 1.0 / p)
    return None


def _sum_of_largest(expr: Any) -> cp.Expression | None:
    """The sum of all entries, or of part of one more than a whole number, neither of which CVXPY smooths; else None."""
    x, k = expr.args[0], expr.k
    if k >= (x.size if expr.axis is None else x.shape[expr.axis]):
        whole: Any = cp.sum(x, expr.axis, expr.keepdims)
        return whole
    if not k % 1.0:
        return None
    less, more = (cp.sum_largest(x, whole, expr.axis, expr.keepdims) for whole in (int(k) or 1, int(k) + 1))
    return k * more if k < 1.0 else (1.0 - k % 1.0) * less + k % 1.0 * more


def _running(both: Any, x: Any, axis: Any) -> cp.Expression:
    """Entries cumulated by a function of the last result and the next entry."""
    x, shape = (cp.vec(x, order="C"), (x.size,)) if axis is None else (x, x.shape)
    along = axis or 0
    parts = [x[k] if along % x.ndim == 0 else x[:, k] for k in range(shape[along])]
    for k in range(1, len(parts)):
        parts[k] = both(parts[k - 1], parts[k])
    if x.ndim == 1:
        return cp.hstack(parts)
    return cp.vstack(parts) if along % 2 == 0 else cp.vstack(parts).T


def _convolved(c: Any, x: Any, shape: tuple[int, ...]) -> cp.Expression:
    """The convolution of two vectors, as a Toeplitz matrix of the first times the second."""
    n, m = c.size, x.size
    i, j = (part.ravel() for part in np.meshgrid(np.arange(n), np.arange(m), indexing="ij"))
    entries = sp.csr_array((np.ones(n * m), (j * (n + m - 1) + i + j, i)), shape=((n + m - 1) * m, n))
    toeplitz = cp.reshape(entries @ cp.vec(c, order="F"), (n + m - 1, m), order="F")
    return cp.reshape(toeplitz @ cp.vec(x, order="F"), shape, order="F")


def _kronecker(a: Any, b: Any) -> cp.Expression:
    """The Kronecker product, as the entries of one matrix repeated times those of the other tiled."""
    (m, n), (p, q) = a.shape, b.shape
    repeated = np.kron(np.eye(m), np.ones((p, 1))) @ a @ np.kron(np.eye(n), np.ones((1, q)))
    tiled = np.kron(np.ones((m, 1)), np.eye(p)) @ b @ np.kron(np.ones((1, n)), np.eye(q))
    return cp.multiply(repeated, tiled)


def _signs(leaf: cp.Variable | cp.Parameter) -> dict[str, Any]:
    return {name: leaf.attributes[name] for name in SIGNS if leaf.attributes[name]}


def _copy(variable: cp.Variable) -> cp.Variable:
    """A variable of the same name, shape, sign and constant bounds."""
    bounds = variable.attributes["bounds"]
    if bounds is not None:
        ends = [
            (-np.inf, np.inf)[k] if isinstance(end, cp.Expression) and end.parameters() else end
            for k, end in enumerate(bounds)
        ]
        ends = [end.value if isinstance(end, cp.Expression) else end for end in ends]
        return cp.Variable(variable.shape, name=variable.name(), bounds=ends)
    return cp.Variable(variable.shape, name=variable.name(), **_signs(variable))
