"""Full arrays and the free entries that an attribute leaves: symmetric, PSD, NSD, diagonal and sparse leaves.

Flat indices of the user's arrays are in C order; CVXPY's inner leaves hold the free entries in its own order, or the
whole array in Fortran order. A leaf that is symmetric is read as (θ + θᵀ)/2, so that gradients come out symmetric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxift.errors import ProgramError
from cvxift.program.canonicalize import Stuffed
from cvxift.program.structure import Floats

if TYPE_CHECKING:
    from cvxift.program.program import Program

SYMMETRIC = ("symmetric", "PSD", "NSD")
SIGN_OF_ATTRIBUTE = {"nonneg": 1.0, "pos": 1.0, "nonpos": -1.0, "neg": -1.0}


def free_entry(leaf: cp.Variable | cp.Parameter) -> np.ndarray:
    """Which free entry each entry of a leaf shows.

    Returns:
        Integers of the leaf's shape: position among the inner leaf's entries, −1 where the leaf is always zero.
    """
    if any(leaf.attributes[name] for name in SYMMETRIC):
        order, batch = leaf.shape[-1], leaf.shape[:-2]
        row, column = np.triu_indices(order)
        entry = np.empty((order, order), dtype=np.int64)
        entry[row, column] = entry[column, row] = np.arange(len(row))
        count = int(np.prod(batch))
        return np.arange(count).reshape(batch, order="F")[..., None, None] + count * entry
    if leaf.attributes["diag"]:
        entry = np.full(leaf.shape, -1)
        np.fill_diagonal(entry, np.arange(leaf.shape[0]))
        return entry
    if leaf.sparse_idx is not None:
        entry = np.full(leaf.shape, -1)
        entry[leaf.sparse_idx] = np.arange(len(leaf.sparse_idx[0]))
        return entry
    return np.arange(leaf.size).reshape(leaf.shape, order="F")


def expand(leaf: cp.Variable | cp.Parameter) -> sp.csr_array:
    """The full array, C order, from the free entries.

    Returns:
        Sparse matrix of shape (leaf.size, number of free entries).
    """
    entry = free_entry(leaf).ravel()
    shown = np.flatnonzero(entry >= 0)
    size = int(entry.max(initial=-1)) + 1
    return sp.csr_array((np.ones(len(shown)), (shown, entry[shown])), shape=(len(entry), size))


def read(leaf: cp.Parameter, is_reduced: bool) -> tuple[np.ndarray, np.ndarray, Floats]:
    """How an inner parameter reads the user's array: the entries of a sparse matrix.

    A free entry is the mean of the entries that show it; an inner parameter holds the free entries, or the whole array
    in Fortran order rebuilt from them.

    Args:
        leaf: the user's parameter.
        is_reduced: whether the inner parameter holds only the free entries.

    Returns:
        Inner positions, C-order positions in the user's array, and weights.
    """
    if is_reduced and leaf.sparse_idx is not None:
        shown = np.asarray(np.ravel_multi_index(leaf.sparse_idx, leaf.shape))
        return np.arange(len(shown)), shown, np.ones(len(shown))
    entry = free_entry(leaf).ravel()
    shown = np.flatnonzero(entry >= 0)
    weight = 1.0 / np.bincount(entry[shown])[entry[shown]]
    if is_reduced or len(shown) == len(entry) == entry.max(initial=-1) + 1:
        return entry[shown], shown, weight
    mean = sp.csr_array((weight, (entry[shown], shown)), shape=(entry.max(initial=-1) + 1, len(entry)))
    whole = sp.coo_array((expand(leaf) @ mean)[fortran_order(leaf.shape)])
    return whole.row, whole.col, np.asarray(whole.data, dtype=np.float64)


def fortran_order(shape: tuple[int, ...]) -> np.ndarray:
    """C-order index of each entry taken in Fortran order, shape (size,)."""
    return np.arange(int(np.prod(shape))).reshape(shape).ravel(order="F")


def to_inner(
    stuffed: Stuffed, parameters: Sequence[cp.Parameter], offsets: Mapping[cp.Parameter, slice], size: int
) -> tuple[sp.csr_array, np.ndarray]:
    """CVXPY's inner parameters from θ.

    Args:
        stuffed: the canonical program that has them.
        parameters: the problem's parameters in θ's order.
        offsets: where each stands in θ.
        size: N, the length of θ.

    Returns:
        The matrix, shape (inner, N), and which entries of θ enter through their logarithm, shape (N,).

    Raises:
        ProgramError: a parameter enters by itself and through its logarithm.
    """
    columns, mask, ways = stuffed.program.param_id_to_col, np.zeros(size, dtype=bool), {}
    rows, cols = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    values: list[Floats] = [np.zeros(0)]
    for identifier, (number, log, is_reduced) in stuffed.parameters.items():
        if identifier not in columns:
            continue
        parameter = parameters[number]
        inner, own, weight = read(parameter, is_reduced)
        rows.append(inner + columns[identifier])
        cols.append(own + offsets[parameter].start)
        values.append(weight)
        mask[offsets[parameter]] |= log
        if ways.setdefault(number, log) != log:
            raise ProgramError(
                f"Parameter '{parameter.name()}' stands both as a factor and as an exponent, which sweeps do not take. "
                "Put a second parameter in the exponents, with the same values; the derivative is the sum of both."
            )
    indices, shape = (np.concatenate(rows), np.concatenate(cols)), (stuffed.program.total_param_size, size)
    return sp.csr_array((np.concatenate(values), indices), shape=shape), mask


def inward(program: Program, theta: Floats) -> Floats:
    """For each entry of θ that lies at the end of its domain the direction inside, 0 for the others.

    Args:
        program: whose parameters say of what sign they are.
        theta: in the user's units, shape (N,).

    Returns:
        Entries 1, −1 or 0, shape (N,).
    """
    out = np.zeros(program.theta_size)
    for parameter, part in program.offsets.items():
        for name, sign in SIGN_OF_ATTRIBUTE.items():
            if parameter.attributes[name]:
                out[part] = np.where(theta[part] == 0.0, sign, 0.0)
    return out if program.log_mask is None else np.where(program.log_mask, 0.0, out)
