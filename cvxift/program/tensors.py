"""From stuffed tensors to the canonical program's patterns and the affine map θ ↦ (P, q, A, b, d) on them.

A stuffed tensor T holds, for each entry of its piece of data (column by column), a row of coefficients of (inner
parameters, 1). With the inner parameters linear in the user's, p = Lθ, every entry is  (T_p L) θ + T_1.  The five
pieces are stacked in the order P, q, A, b, d into one affine map; P is replaced by (P + Pᵀ)/2, which leaves xᵀPx as it
is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from cvxpy.reductions.dcp2cone.cone_matrix_stuffing import ParamConeProg

from cvxift.cones.spec import Cones
from cvxift.program.rows import Rows
from cvxift.program.structure import Floats, Structure

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
    x_size, m = program.x.size, rows.cones.m
    n = x_size + len(rows.links)

    row, column, parameter, value = _entries(program.P, x_size)
    pattern_P, P = _collect(
        np.concatenate([row, column]),
        np.concatenate([column, row]),
        np.tile(parameter, 2),
        np.tile(value / 2, 2),
        (n, n),
        to_inner,
    )
    row, column, parameter, value = _entries(program.A, len(rows.target))
    offset = column == x_size
    link_columns = np.repeat(x_size + np.arange(len(rows.links)), 2)
    weight, sign = rows.weight[row], rows.sign[row]
    is_A = ~offset
    constant_column = program.total_param_size
    pattern_A, A = _collect(
        np.concatenate([rows.target[row[is_A]], rows.links.ravel()]),
        np.concatenate([column[is_A], link_columns]),
        np.concatenate([parameter[is_A], np.full(len(link_columns), constant_column)]),
        np.concatenate([(value * sign * weight)[is_A], np.full(len(link_columns), -1.0)]),
        (m, n),
        to_inner,
    )
    b = _dense(rows.target[row[offset]], parameter[offset], -(value * sign * weight)[offset], m, to_inner)
    row, column, parameter, value = _entries(program.q, x_size + 1)
    last = row == x_size
    q = _dense(row[~last], parameter[~last], value[~last], n, to_inner)
    d = _dense(np.zeros(last.sum(), dtype=np.int64), parameter[last], value[last], 1, to_inner)

    pieces = (P, q, A, b, d)
    matrix = sp.csr_array(sp.vstack([piece[0] for piece in pieces], format="csr"))
    constant = np.concatenate([piece[1] for piece in pieces])
    structure = Structure.from_patterns(n, rows.cones, pattern_P, pattern_A)
    return structure, Stack(matrix, constant, _slices([len(piece[1]) for piece in pieces]), theta_size)


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


def _collect(row, column, parameter, value, shape, to_inner):
    """Sum entries at equal positions; returns the pattern in CSC order and (matrix, constant) aligned with it."""
    key = column * shape[0] + row
    positions, place = np.unique(key, return_inverse=True)
    pattern = (positions % shape[0], positions // shape[0]) if shape[0] else (positions, positions)
    return pattern, _dense(place, parameter, value, len(positions), to_inner)


def _dense(place, parameter, value, size, to_inner):
    """(matrix, constant) of `size` data entries from triplets (place, inner parameter or the constant 1, value)."""
    inner_size = to_inner.shape[0]
    is_constant = parameter == inner_size
    constant = np.bincount(place[is_constant], value[is_constant], minlength=size)[:size]
    varying = ~is_constant
    tensor = sp.csr_array((value[varying], (place[varying], parameter[varying])), shape=(size, inner_size))
    return tensor @ to_inner, constant.astype(float)


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
    renumber = np.cumsum(~free) - 1
    entries = ~free[structure.A_rows]
    keep = np.ones(len(stacked.constant), dtype=bool)
    keep[where["A"]] = entries
    keep[where["b"]] = ~free
    cones = Cones(cones.zero, cones.nonneg - int(free.sum()), cones.soc, cones.psd, cones.exp, cones.pow)
    structure = Structure.from_patterns(
        structure.n,
        cones,
        (structure.P_rows, structure.P_cols),
        (renumber[structure.A_rows[entries]], structure.A_cols[entries]),
    )
    sizes = (structure.nnzP, structure.n, structure.nnzA, structure.m, 1)
    return structure, Stack(stacked.matrix[keep], stacked.constant[keep], _slices(sizes), stacked.theta_size), kept


def _slices(sizes) -> dict[str, slice]:
    ends = np.cumsum([0, *sizes])
    return {name: slice(int(start), int(stop)) for name, start, stop in zip(PIECES, ends[:-1], ends[1:], strict=True)}
