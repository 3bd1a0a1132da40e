"""The way back: the user's variables and dual variables as sparse linear maps of the canonical x and y.

    variable (C order) = S x        (exp(S x) after a log-log transform)
    dual variable (C order) = S y   with CVXPY's signs and shapes

Columns of x hold the free entries of the leaves. Rows of y are the multipliers of A's rows (see `rows`), so a dual
variable is a selection of them; a PSD constraint's is the symmetric matrix whose scaled triangle they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.constraints.constraint import Constraint
from cvxpy.constraints.exponential import ExpCone
from cvxpy.constraints.nonpos import Inequality, NonNeg, NonPos
from cvxpy.constraints.power import PowCone3D, PowConeND
from cvxpy.constraints.psd import PSD
from cvxpy.constraints.second_order import SOC
from cvxpy.constraints.zero import Equality, Zero

from cvxift.errors import ProgramError
from cvxift.program.attributes import expand
from cvxift.program.canonicalize import InnerVariable
from cvxift.program.declared import Declared, DeclaredSet
from cvxift.program.messages import short
from cvxift.program.presolve import Presolved
from cvxift.program.row_order import SQRT2, RowBlock, triangle
from cvxift.program.structure import Floats

ELEMENTWISE = (Zero, NonNeg, NonPos, Equality, Inequality)


@dataclass(frozen=True)
class Output:
    """One of the user's variables or dual variables as a function of the canonical point.

    Args:
        kind: "primal" reads x, "dual" reads y.
        matrix: S, shape (size, n) or (size, m); rows in C order of the object.
        offset: added to S x, shape (size,), or None.
        shape: the object's shape.
        exp: whether the value is exp(S x).
        positive: entries whose value is the positive part of S y, shape (size,); None where there are none. They are
            the multipliers of two inequalities that act as one equality.
        declared: the set that the variable's attributes declare, within which values are returned; None without.

    Example:
        >>> import cvxpy as cp
        >>> from cvxift.program import Program
        >>> x, t = cp.Variable(2, name="x"), cp.Parameter(2, name="t")
        >>> output = Program(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= t])).output(x)
        >>> output.kind, output.shape
        ('primal', (2,))
    """

    kind: Literal["primal", "dual"]
    matrix: sp.csr_array
    offset: Floats | None
    shape: tuple[int, ...]
    exp: bool
    positive: np.ndarray | None = None
    declared: DeclaredSet | None = None

    def value(self, point: Floats, theta: Floats | None = None) -> Floats:
        """The object's value at a canonical point.

        Args:
            point: x or y, shape (..., n) or (..., m).
            theta: the program's θ, shape (..., N), to return a value in the declared set; None for the point's own.

        Returns:
            Array of shape (..., *shape).
        """
        batch = point.shape[:-1]
        flat = (self.matrix @ point.reshape(math.prod(batch), point.shape[-1]).T).T
        if self.offset is not None:
            flat = flat + self.offset
        if self.exp:
            flat = np.exp(flat)
        if self.positive is not None:
            flat = np.where(self.positive, np.maximum(flat, 0.0), flat)
        if self.declared is not None and theta is not None:
            flat = Declared([self.declared], [flat.shape[-1]]).nearest(np, flat, theta)
        return flat.reshape((*batch, *self.shape))


def primal_output(
    variable: cp.Variable,
    inner: InnerVariable,
    column: int | None,
    n: int,
    offsets: Mapping[cp.Parameter, slice],
    theta_size: int,
) -> Output:
    """A variable as a function of x.

    Args:
        variable: the user's variable.
        inner: the inner variable that determines it.
        column: first column of the inner variable; None if the problem does not depend on it.
        n: number of columns.
        offsets: where each parameter stands in θ.
        theta_size: N, the length of θ.

    Returns:
        The output; zero for a variable without columns, as CVXPY returns.
    """
    if column is None:
        return Output("primal", sp.csr_array((variable.size, n)), None, variable.shape, False)
    fill = sp.coo_array(expand(inner.leaf))
    matrix = sp.csr_array((fill.data, (fill.row, fill.col + column)), shape=(variable.size, n))
    declared = None if inner.log else DeclaredSet.of(variable, offsets, theta_size)
    return Output("primal", matrix, None, variable.shape, inner.log, declared=declared)


def constant_output(variable: cp.Variable, value: Floats | None, n: int) -> Output:
    """A variable that is held at a value, or zero; it moves with nothing.

    Args:
        variable: the user's variable.
        value: of its shape.
        n: number of columns.
    """
    offset = None if value is None else np.ravel(value).astype(np.float64)
    return Output("primal", sp.csr_array((variable.size, n)), offset, variable.shape, False)


def dual_outputs(constraint: Constraint, block: RowBlock | None, rows: Presolved) -> list[Output]:
    """The dual variables of one constraint as functions of y.

    Args:
        constraint: the user's constraint.
        block: its rows in the full program; None if it has no entries.
        rows: where the full program's rows have their multipliers.

    Returns:
        One output for each of `constraint.dual_variables`.

    Raises:
        ProgramError: if CVXPY defines no dual variable for this constraint, or it is complex.
    """
    shapes = [dual.shape for dual in constraint.dual_variables]
    if block is None:
        return [_selection(np.zeros(0, dtype=np.int64), shape, rows) for shape in shapes]
    if not constraint.is_real():
        raise ProgramError(
            f"Constraint {short(constraint)} is complex; its dual variable is not available. Split real and imaginary "
            "parts."
        )
    if isinstance(constraint, PSD):
        if len(shapes) == 2:  # of a Hermitian matrix in real numbers: see `program.split_leaves`
            return _hermitian_duals(shapes[0], block, rows)
        return [_matrix_dual(shapes[0], block, rows)]
    return [_selection(at, shape, rows) for at, shape in zip(_dual_rows(constraint, block), shapes, strict=True)]


def _dual_rows(constraint: Constraint, block: RowBlock) -> list[np.ndarray]:
    """For each dual variable, the row of each of its entries in C order."""
    rows = np.arange(block.start, block.stop)
    if isinstance(constraint, ELEMENTWISE):
        return [rows.reshape(constraint.shape, order="F").ravel()]
    if isinstance(constraint, SOC):
        cones = rows.reshape(constraint.num_cones(), -1)
        return [cones[:, 0], (cones[:, 1:].T if constraint.axis == 0 else cones[:, 1:]).ravel()]
    if isinstance(constraint, ExpCone | PowCone3D) and len(rows) == constraint.size:
        cones = rows.reshape(-1, 3)
        return [cones[:, k].reshape(arg.shape, order="F").ravel() for k, arg in enumerate(constraint.args)]
    if isinstance(constraint, PowConeND):
        count = constraint.num_cones()
        chain = rows.reshape(count, -1, 3)  # cone, link of its chain, (x, y, z)
        factors = np.concatenate([chain[:, :, 0], chain[:, -1:, 1]], axis=1)  # (count, factors)
        along_rows = constraint.axis == 1 or constraint.args[0].ndim == 1
        return [(factors if along_rows else factors.T).ravel(), chain[:, 0, 2]]
    raise ProgramError(f"CVXPY defines no dual variable for {short(constraint)} of type {type(constraint).__name__}.")


def _selection(at: np.ndarray, shape: tuple[int, ...], rows: Presolved, scale: Floats | float = 1.0) -> Output:
    """The multipliers of rows of the full program, times a scale."""
    size = max(len(at), int(np.prod(shape)))
    place = np.arange(len(at))
    weights = sp.csr_array((np.broadcast_to(scale, at.shape), (place, place)), shape=(size, len(at)))
    matrix = sp.csr_array(weights @ rows.multipliers[at])
    paired = rows.paired[at]
    return Output("dual", matrix, None, shape, False, paired if paired.any() else None)


def _matrix_dual(shape: tuple[int, ...], block: RowBlock, rows: Presolved) -> Output:
    """Symmetric matrices from scaled triangles; a batch of matrices is stored with its first index running fastest."""
    order, batch = shape[-1], shape[:-2]
    row, column = triangle(order)
    place = np.empty((order, order), dtype=np.int64)
    place[row, column] = place[column, row] = np.arange(len(row))
    scale = np.full((order, order), 1.0 / SQRT2)
    np.fill_diagonal(scale, 1.0)
    count = int(np.prod(batch))
    first = block.start + len(row) * np.arange(count).reshape(batch, order="F")
    at = (first[..., None, None] + place).ravel()
    return _selection(at, shape, rows, np.broadcast_to(scale, (*batch, order, order)).ravel())


def _hermitian_duals(shape: tuple[int, ...], block: RowBlock, rows: Presolved) -> list[Output]:
    """D₁₁ + D₂₂ and D₂₁ − D₁₂, D being the multiplier of a matrix of twice the order."""
    n = shape[0]
    D = _matrix_dual((2 * n, 2 * n), block, rows).matrix
    at = np.arange(4 * n * n).reshape(2, n, 2, n)  # block row, row, block column, column
    one, two, three, four = (D[at[i, :, j].ravel()] for i, j in ((0, 0), (1, 1), (1, 0), (0, 1)))
    return [Output("dual", sp.csr_array(matrix), None, shape, False) for matrix in (one + two, three - four)]
