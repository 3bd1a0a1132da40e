"""From stuffed tensors to the canonical program's patterns and the affine map θ ↦ (P, q, A, b, d) on them.

A stuffed tensor T holds, for each entry of its piece of data (column by column), a row of coefficients of (inner
parameters, 1). With the inner parameters linear in the user's, p = Lθ, every entry is  (T_p L) θ + T_1.  The five
pieces are stacked in the order P, q, A, b, d into one affine map; P is replaced by (P + Pᵀ)/2, which leaves xᵀPx as it
is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from cvxpy.reductions.dcp2cone.cone_matrix_stuffing import ParamConeProg

from cvxift.program.row_order import Rows
from cvxift.program.structure import Cones, Floats, Structure, numbered

PIECES = ("P", "q", "A", "b", "d")


@dataclass(frozen=True)
class Stack:
    """The five pieces of data as one affine function of θ.

    Args:
        matrix: M, shape (nnzP + n + nnzA + m + 1, N).
        constant: c, the value at θ = 0.
        slices: where each piece stands.
        theta_size: N.
    """

    matrix: sp.csr_array
    constant: Floats
    slices: dict[str, slice]
    theta_size: int


@dataclass(frozen=True)
class _Terms:
    """Summands of data entries: entry `place` gains value · (inner parameter), or value · 1 for the last parameter."""

    place: np.ndarray
    parameter: np.ndarray
    value: Floats


def stack(program: ParamConeProg, rows: Rows, to_inner: sp.csr_array, theta_size: int) -> tuple[Structure, Stack]:
    """Place CVXPY's tensors into A's rows and compose them with the parameters' map.

    Args:
        program: the stuffed program.
        rows: where its rows go.
        to_inner: L, shape (inner parameter entries, N).
        theta_size: N.

    Returns:
        The structure and the stacked affine map.
    """
    x_size, m, one = program.x.size, rows.cones.m, program.total_param_size
    n = x_size + len(rows.links)

    row, column, parameter, value = _entries(program.P, x_size)
    both = np.concatenate([row, column]), np.concatenate([column, row])
    pattern_P, place = _pattern(*both, n)
    P = _Terms(place, np.tile(parameter, 2), np.tile(value / 2, 2))

    row, column, parameter, value = _entries(program.A, len(rows.target))
    target, value = rows.target[row], value * rows.sign[row] * rows.weight[row]
    offset = column == x_size
    b = _Terms(target[offset], parameter[offset], -value[offset])
    coefficient = ~offset
    link_rows = rows.links.ravel()
    link_columns = np.repeat(x_size + np.arange(len(rows.links)), 2)
    pattern_A, place = _pattern(
        np.concatenate([target[coefficient], link_rows]), np.concatenate([column[coefficient], link_columns]), m
    )
    A = _Terms(
        place,
        np.concatenate([parameter[coefficient], np.full(len(link_rows), one)]),
        np.concatenate([value[coefficient], np.full(len(link_rows), -1.0)]),
    )

    row, _, parameter, value = _entries(program.q, x_size + 1)
    last = row == x_size
    q = _Terms(row[~last], parameter[~last], value[~last])
    d = _Terms(np.zeros(np.count_nonzero(last), dtype=np.int64), parameter[last], value[last])

    slices = _slices((len(pattern_P[0]), n, len(pattern_A[0]), m, 1))
    matrix, constant = _combine((P, q, A, b, d), slices, one)
    stacked = Stack(_product(matrix, to_inner, theta_size), constant, slices, theta_size)
    return Structure.from_patterns(n, rows.cones, pattern_P, pattern_A), stacked


def drop_free_rows(structure: Structure, stacked: Stack) -> tuple[Structure, Stack, np.ndarray]:
    """Remove the nonneg rows whose constant right-hand side is +∞: they bind nothing.

    Args:
        structure: the structure with all rows.
        stacked: its affine map.

    Returns:
        Structure and map without those rows, and the indices of the rows kept.
    """
    cones, where = structure.cones, stacked.slices
    free = np.isposinf(stacked.constant[where["b"]])
    free[: cones.zero] = free[cones.zero + cones.nonneg :] = False
    kept = np.flatnonzero(~free)
    if not free.any():
        return structure, stacked, kept
    cones = replace(cones, nonneg=cones.nonneg - int(free.sum()))
    return *take_rows(structure, stacked, kept, cones), kept


def take_rows(structure: Structure, stacked: Stack, rows: np.ndarray, cones: Cones) -> tuple[Structure, Stack]:
    """The program with some of its rows, in another order.

    Args:
        structure: the structure with all rows.
        stacked: its affine map.
        rows: the rows to take, each once, in the order wanted.
        cones: their cones.

    Returns:
        Structure and map; entries of A that are zero for every θ are left out.
    """
    where, m = stacked.slices, structure.m
    if len(rows) == m and cones == structure.cones and np.array_equal(rows, np.arange(m)):
        return structure, stacked
    place = numbered(m, rows)
    A = where["A"]
    filled, _ = filled_entries(stacked)
    entries = np.flatnonzero((place[structure.A_rows] >= 0) & filled[A])
    row, column = place[structure.A_rows[entries]], structure.A_cols[entries].astype(np.int64)
    order = np.lexsort((row, column))
    taken = np.concatenate(
        [
            np.r_[where["P"], where["q"]],
            A.start + entries[order],
            where["b"].start + np.asarray(rows, dtype=np.int64),
            np.r_[where["d"]],
        ]
    )
    smaller = Structure.from_patterns(
        structure.n, cones, (structure.P_rows, structure.P_cols), (row[order], column[order])
    )
    sizes = (smaller.nnzP, smaller.n, smaller.nnzA, smaller.m, 1)
    return smaller, Stack(stacked.matrix[taken], stacked.constant[taken], _slices(sizes), stacked.theta_size)


def filled_entries(stacked: Stack) -> tuple[np.ndarray, np.ndarray]:
    """Which entries of the data are not zero for every θ, and which of them depend on θ; masks over all pieces."""
    varies = np.diff(stacked.matrix.indptr) > 0
    return varies | (stacked.constant != 0), varies


def combined(
    structure: Structure, stacked: Stack, operations: sp.csr_array, columns: np.ndarray, cones: Cones
) -> tuple[Structure, Stack]:
    """The program after constant row operations, without columns that are zero then.

    Args:
        structure: the structure with all rows and columns.
        stacked: its affine map.
        operations: T in  TA, Tb, shape (rows that are wanted, m).
        columns: the columns kept; P and q have no entries in the others.
        cones: the cones of the rows that are wanted.

    Returns:
        Structure and map; entries that are zero for every θ are left out.
    """
    where, n, m = stacked.slices, structure.n, structure.m
    filled, _ = filled_entries(stacked)
    place = numbered(n, columns)
    at = np.flatnonzero(filled[where["A"]] & (place[structure.A_cols] >= 0))
    members = sp.csr_array((np.ones(len(at)), (structure.A_rows[at], np.arange(len(at)))), shape=(m, len(at)))
    terms = sp.coo_array(operations @ members)
    row, entry = (np.asarray(index, dtype=np.int64) for index in terms.coords)
    pattern, spot = _pattern(row, place[structure.A_cols[at[entry]]].astype(np.int64), cones.m)
    P = np.flatnonzero(filled[where["P"]])
    sizes = (len(P), len(columns), len(pattern[0]), cones.m, 1)
    slices = _slices(sizes)
    rows_of = sp.coo_array(operations)
    parts = [
        (np.arange(len(P)), P, np.ones(len(P)), "P"),
        (np.arange(len(columns)), columns, np.ones(len(columns)), "q"),
        (spot, at[entry], terms.data, "A"),
        (*rows_of.coords, rows_of.data, "b"),
        (np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), np.ones(1), "d"),
    ]
    to = np.concatenate([i + slices[name].start for i, _, _, name in parts])
    of = np.concatenate([j + where[name].start for _, j, _, name in parts])
    weight = np.concatenate([w for _, _, w, _ in parts])
    combine = sp.csr_array((weight, (to, of)), shape=(slices["d"].stop, len(stacked.constant)))
    matrix = sp.csr_array(combine @ stacked.matrix)
    matrix.eliminate_zeros()
    smaller = Structure.from_patterns(
        len(columns), cones, (place[structure.P_rows[P]], place[structure.P_cols[P]]), pattern
    )
    return smaller, Stack(matrix, combine @ stacked.constant, slices, stacked.theta_size)


def _slices(sizes: Iterable[int]) -> dict[str, slice]:
    ends = np.cumsum([0, *sizes])
    return {name: slice(int(start), int(stop)) for name, start, stop in zip(PIECES, ends[:-1], ends[1:], strict=True)}


def _entries(tensor: sp.sparray | None, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Floats]:
    """Row, column, parameter and coefficient of each stored entry of a tensor whose data have `height` rows."""
    if tensor is None or height == 0:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty, np.zeros(0)
    entries = sp.coo_array(tensor)
    flat, parameter = (np.asarray(index, dtype=np.int64) for index in entries.coords)
    value = np.asarray(entries.data, dtype=np.float64)
    keep = value != 0
    flat, parameter, value = flat[keep], parameter[keep], value[keep]
    return flat % height, flat // height, parameter, value


def _pattern(row: np.ndarray, column: np.ndarray, height: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The distinct positions in CSC order, as rows and columns, and each entry's place among them."""
    positions, place = np.unique(column * height + row, return_inverse=True)
    height = max(height, 1)
    return (positions % height, positions // height), place


def _product(matrix: sp.csr_array, to_inner: sp.csr_array, N: int) -> sp.csr_array:
    """The product, in the time and memory of its entries where θ is much longer than these are many."""
    size = len(matrix.indptr) - 1
    if to_inner.nnz >= N:
        return sp.csr_array(matrix @ to_inner)
    used, at = np.unique(to_inner.indices, return_inverse=True)
    few = sp.csr_array((to_inner.data, at, to_inner.indptr), shape=(len(to_inner.indptr) - 1, len(used)))
    out: Any = matrix @ few
    return sp.csr_array((out.data, used[out.indices], out.indptr), shape=(size, N))


def _combine(pieces: Iterable[_Terms], slices: dict[str, slice], one: int) -> tuple[sp.csr_array, Floats]:
    """Matrix on the inner parameters and constant, of all pieces one after the other."""
    starts = [where.start for where in slices.values()]
    size = slices[PIECES[-1]].stop
    place = np.concatenate([terms.place + start for terms, start in zip(pieces, starts, strict=True)])
    parameter = np.concatenate([terms.parameter for terms in pieces])
    value = np.concatenate([terms.value for terms in pieces])
    is_constant = parameter == one
    constant = np.bincount(place[is_constant], value[is_constant], minlength=size).astype(np.float64)
    varying = ~is_constant
    indices = (place[varying], parameter[varying])
    return sp.csr_array((value[varying], indices), shape=(size, one)), constant
