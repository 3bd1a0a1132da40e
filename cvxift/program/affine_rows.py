"""Rows  b(θ) − A(θ)x  of a canonical program as affine maps, compared with each other up to rounding and scale.

A row is the list of its coefficients: of x_j and of x_j θ_k (the normal), of θ_k and of 1 (the right-hand side). Rows
are compared through random sums of their coefficients, which are linear in the row, so that a multiple of a row has the
multiple of its sum; rows whose sums agree are then compared coefficient by coefficient. All of it takes a time
proportional to the number of coefficients, but for one sort of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cvxift._types import EPS
from cvxift.program.structure import Floats, Structure
from cvxift.program.tensors import Stack

SAME_ROUNDINGS = 16 * EPS  # relative difference of coefficients that are the same: two roundings of a product
SUMS = 1e-11  # so far two sums of the same coefficients may lie apart, relative to the sum of their moduli


@dataclass(frozen=True)
class AffineRows:
    """Coefficients of rows, ordered by row, then by column of x, then by entry of θ.

    Args:
        start: first coefficient of each row, and the end of the last, shape (rows + 1,).
        column: column of x of each coefficient; n for the right-hand side.
        parameter: entry of θ of each coefficient; N for what does not depend on θ.
        value: the coefficients.
        n: number of columns of x.
        N: length of θ.
    """

    start: np.ndarray
    column: np.ndarray
    parameter: np.ndarray
    value: Floats
    n: int
    N: int

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def row(self) -> np.ndarray:
        """Row of each coefficient."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def take(self, rows: np.ndarray) -> AffineRows:
        """Some of the rows, in the order given."""
        length = np.diff(self.start)[rows]
        start = np.concatenate([[0], np.cumsum(length)])
        at = np.arange(start[-1]) + np.repeat(self.start[:-1][rows] - start[:-1], length)
        return AffineRows(start, self.column[at], self.parameter[at], self.value[at], self.n, self.N)

    def sums(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Random sums of each row's normal and of its b's coefficients of θ, each followed by the sum of moduli."""
        rng = np.random.default_rng(20240229)
        used, parameter = np.unique(self.parameter, return_inverse=True)  # few of them where θ is a sparse matrix
        by_column, by_parameter = rng.uniform(0.5, 2.0, self.n + 1), rng.uniform(0.5, 2.0, len(used))
        by_column *= rng.choice([-1.0, 1.0], self.n + 1)
        term = self.value * by_column[self.column] * by_parameter[parameter]
        normal = self.column < self.n
        moving = ~normal & (self.parameter < self.N)
        row, size = self.row, len(self)
        return tuple(  # pyright: ignore[reportReturnType]  # a comprehension has no length
            np.bincount(row[part], weights[part], minlength=size).astype(float)
            for part in (normal, moving)
            for weights in (term, np.abs(term))
        )

    def leading(self) -> Floats:
        """Each row's first coefficient of x, with its sign; 0 for a row without."""
        first = np.zeros(len(self))
        filled = np.flatnonzero(np.diff(self.start) > 0)
        at = self.start[:-1][filled]
        first[filled] = np.where(self.column[at] < self.n, self.value[at], 0.0)
        return first

    def constant(self) -> Floats:
        """Each row's right-hand side at θ = 0."""
        at = (self.column == self.n) & (self.parameter == self.N)
        return np.bincount(self.row[at], self.value[at], minlength=len(self)).astype(float)

    def without_constants(self) -> AffineRows:
        """The rows without what stands on the right for θ = 0."""
        kept = (self.column < self.n) | (self.parameter < self.N)
        start = np.concatenate([[0], np.cumsum(kept)])[self.start]
        return AffineRows(start, self.column[kept], self.parameter[kept], self.value[kept], self.n, self.N)

    def same(self, first: np.ndarray, second: np.ndarray, ratio: Floats) -> np.ndarray:
        """Whether row first[k] is ratio[k] times row second[k], for every k."""
        equal = np.diff(self.start)[first] == np.diff(self.start)[second]
        at = np.flatnonzero(equal)
        one, two = self.take(first[at]), self.take(second[at])
        differs = (one.column != two.column) | (one.parameter != two.parameter)
        differs |= ~(np.abs(one.value - ratio[at][two.row] * two.value) <= SAME_ROUNDINGS * np.abs(one.value))
        equal[at] = np.bincount(one.row[differs], minlength=len(at)) == 0
        return equal


def affine_rows(structure: Structure, stacked: Stack) -> AffineRows:
    """The rows of a program.

    Args:
        structure: its structure.
        stacked: its data as affine functions of θ.

    Returns:
        One row for each row of A.
    """
    n, N = structure.n, stacked.theta_size
    A, b = stacked.slices["A"], stacked.slices["b"]
    entry, parameter, value = _coefficients(stacked, A)
    row, k, right = _coefficients(stacked, b)
    rows = np.concatenate([structure.A_rows[entry].astype(np.int64), row])
    columns = np.concatenate([structure.A_cols[entry].astype(np.int64), np.full(len(row), n)])
    return collect(rows, columns, np.concatenate([parameter, k]), np.concatenate([value, right]), structure.m, n, N)


def collect(
    rows: np.ndarray, columns: np.ndarray, parameters: np.ndarray, values: Floats, size: int, n: int, N: int
) -> AffineRows:
    """Rows from coefficients in any order, equal places summed; sums that are rounding errors are left out."""
    if not len(rows):
        empty = np.zeros(0, dtype=np.int64)
        return AffineRows(np.zeros(size + 1, dtype=np.int64), empty, empty, np.zeros(0), n, N)
    order = np.lexsort((parameters, columns, rows))
    rows, columns, parameters, values = rows[order], columns[order], parameters[order], values[order]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (np.diff(rows) != 0) | (np.diff(columns) != 0) | (np.diff(parameters) != 0)
    first = np.flatnonzero(new)
    summed, moduli = np.add.reduceat(values, first), np.add.reduceat(np.abs(values), first)
    kept = first[np.abs(summed) > SAME_ROUNDINGS * moduli]
    value = summed[np.abs(summed) > SAME_ROUNDINGS * moduli]
    start = np.searchsorted(rows[kept], np.arange(size + 1))
    return AffineRows(start, columns[kept], parameters[kept], value, n, N)


def joined(first: AffineRows, second: AffineRows) -> AffineRows:
    """The rows of both, one after the other."""
    return AffineRows(
        np.concatenate([first.start, first.start[-1] + second.start[1:]]),
        np.concatenate([first.column, second.column]),
        np.concatenate([first.parameter, second.parameter]),
        np.concatenate([first.value, second.value]),
        first.n,
        first.N,
    )


def runs(value: Floats, tolerance: Floats, *earlier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort by earlier keys, then by value, and cut where the value jumps by more than the tolerance.

    Args:
        value: the values.
        tolerance: for each, how far a same one may lie.
        *earlier: integer keys that must be equal, the most significant last.

    Returns:
        The order, and in that order the number of the run that each belongs to.
    """
    order = np.lexsort((value, *earlier))
    jump = np.zeros(len(order), dtype=bool)
    if len(order):
        jump[1:] = np.diff(value[order]) > np.maximum(tolerance[order][1:], tolerance[order][:-1])
        for key in earlier:
            jump[1:] |= np.diff(key[order]) != 0
    return order, np.cumsum(jump)


def _coefficients(stacked: Stack, where: slice) -> tuple[np.ndarray, np.ndarray, Floats]:
    """Entry of the piece, entry of θ (N for the constant) and value of each non-zero coefficient."""
    matrix = sp.coo_array(stacked.matrix[where])
    constant = stacked.constant[where]
    held = np.flatnonzero(constant)
    entry = np.concatenate([matrix.coords[0].astype(np.int64), held])
    parameter = np.concatenate([matrix.coords[1].astype(np.int64), np.full(len(held), stacked.theta_size)])
    value = np.concatenate([np.asarray(matrix.data, dtype=float), constant[held]])
    kept = value != 0
    return entry[kept], parameter[kept], value[kept]
