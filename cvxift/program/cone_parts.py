"""Cones in parts: matrix cones cut into the blocks that their pattern leaves, cones stated twice, and what cones imply.

A matrix whose entries between two sets of indices are zero for every x and θ is semidefinite exactly if both diagonal
blocks are; their connected components are cones of their own, with the multiplier of what lies between them zero. A
block of order one is a nonnegative row. Of cones whose rows agree up to one positive factor the first stays.

Where M e = 0 for every x and θ, as in [X X; X X] or in a graph's Laplacian, a row with e_i ≠ 0 is a combination of the
others, and M is semidefinite exactly if it is without row and column i. With it M is singular however x is, and tight
along e with a multiplier that nothing needs: a kink that is none, where points are known to the root of the accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg
from scipy.sparse.csgraph import connected_components

from cvxift._types import EPS
from cvxift.program.affine_rows import SUMS, AffineRows, runs
from cvxift.program.cones import Cones
from cvxift.program.row_order import triangle
from cvxift.program.structure import Floats

LEAST_SINGULAR_VALUE = 1e-9  # least singular value, of unit rows, above which a matrix at random x and θ is regular


@dataclass(frozen=True)
class Stack:
    """Cones of one kind, one size and one exponent.

    Args:
        kind: "soc", "psd", "exp" or "pow".
        param: rows, order, 0 or exponent.
        rows: the rows of each, shape (cones, rows of one).
    """

    kind: str
    param: float
    rows: np.ndarray


def parts(cones: Cones, rows: AffineRows) -> tuple[list[Stack], np.ndarray]:
    """The cones that are no linear rows, matrix cones cut into their blocks.

    Returns:
        The cones, stacked, in row order; and the rows that became nonnegative ones.
    """
    start = cones.zero + cones.nonneg
    stacks, start = _stacked("soc", cones.soc, np.array(cones.soc, dtype=np.int64), start)
    matrices: dict[int, list[np.ndarray]] = {}
    single: list[int] = []
    whole = rows.at_random()[0] if cones.psd else np.zeros(0)
    for order in cones.psd:
        stop = start + order * (order + 1) // 2
        for size, part in _blocks(*_without_combinations(order, np.arange(start, stop), rows, whole), rows):
            if size == 1:
                single.append(int(part[0]))
            else:
                matrices.setdefault(size, []).append(part)
        start = stop
    stacks += [Stack("psd", order, np.array(each)) for order, each in matrices.items()]
    for kind, params in (("exp", (0.0,) * cones.exp), ("pow", cones.pow)):
        more, start = _stacked(kind, params, np.full(len(params), 3), start)
        stacks += more
    return stacks, np.array(single, dtype=np.int64)


def _stacked(kind: str, params: Sequence[float], dims: np.ndarray, start: int) -> tuple[list[Stack], int]:
    """Cones that follow each other from a row on, stacked by their parameter; and the row after the last."""
    if not len(dims):
        return [], start
    first = start + np.cumsum(dims) - dims
    values, which = np.unique(np.asarray(params, dtype=float), return_inverse=True)
    stacks = []
    for k, value in enumerate(values):
        own = np.flatnonzero(which == k)
        stacks.append(Stack(kind, float(value), first[own, None] + np.arange(int(dims[own[0]]))))
    return stacks, start + int(dims.sum())


def _without_combinations(order: int, at: np.ndarray, rows: AffineRows, whole: Floats) -> tuple[int, np.ndarray]:
    """Order and rows of a matrix cone without the rows and columns that are combinations of the others."""
    i, j = triangle(order)
    place = np.zeros((order, order), dtype=np.int64)
    place[i, j] = place[j, i] = at
    weight = np.where(np.eye(order) > 0, 1.0, np.sqrt(0.5))  # M's entries from those of its rows
    M = weight * whole[place]
    size = np.linalg.norm(M, axis=1)
    unit = M / np.where(size > 0.0, size, 1.0)[:, None]
    if np.linalg.svd(unit, compute_uv=False)[-1] > LEAST_SINGULAR_VALUE:
        return order, at
    # T holds the coefficients of each row of M side by side: Tᵀe = 0 is M e = 0 for every x and θ.
    own = rows.take(place.ravel())
    index, position = np.divmod(own.row, order)
    _, column = np.unique((position * (own.n + 1) + own.column) * (own.N + 1) + own.parameter, return_inverse=True)
    value = own.value * weight[index, position]
    T = sp.csr_array((value, (index, column)), shape=(order, column.max(initial=0) + 1))
    T.data /= np.repeat(sp.linalg.norm(T, axis=1), np.diff(T.indptr))
    values, vectors = np.linalg.eigh((T @ T.T).toarray())
    null: Floats = vectors[:, values <= order * EPS * values[-1]]
    held = (np.abs(T.T @ null) <= SUMS * (abs(T).T @ np.abs(null))).all(axis=0)
    null = null[:, held]
    # As many rows leave as there are null vectors: those that are best known from the others, the last of equal ones.
    later = null * (1.0 + 1e-3 * np.arange(order))[:, None]
    *_, pivots = scipy.linalg.qr(later.T, mode="r", pivoting=True)
    stays = np.ones(order, dtype=bool)
    stays[pivots[: null.shape[1]]] = False
    return int(stays.sum()), at[stays[i] & stays[j]]


def _blocks(order: int, at: np.ndarray, rows: AffineRows) -> list[tuple[int, np.ndarray]]:
    """Order and rows of each block of a matrix cone; constant semidefinite ones are left out."""
    filled = np.diff(rows.start)[at] > 0
    i, j = triangle(order)
    if filled.all() and order > 1:
        return [(order, at)]
    graph = sp.coo_array((np.ones(np.count_nonzero(filled)), (i[filled], j[filled])), shape=(order, order))
    count, member = connected_components(graph, directed=False)
    found = []
    for part in range(count):
        inside = (member[i] == part) & (member[j] == part)
        size, own = int(np.count_nonzero(member == part)), at[inside]
        if size == 1 or not _constant_and_semidefinite(size, rows.take(own)):
            found.append((size, own))
    return found


def _constant_and_semidefinite(order: int, rows: AffineRows) -> bool:
    if np.any((rows.column < rows.n) | (rows.parameter < rows.N)):
        return False
    i, j = triangle(order)
    matrix = np.zeros((order, order))
    matrix[i, j] = matrix[j, i] = np.where(i == j, 1.0, np.sqrt(0.5)) * rows.constant()
    return bool(np.linalg.eigvalsh(matrix)[0] >= 0)


def without_repeats(stacks: list[Stack], rows: AffineRows, rank: np.ndarray) -> list[Stack]:
    """The cones without those that repeat an earlier one.

    Args:
        stacks: the cones.
        rows: all rows.
        rank: which of two same cones stays; for each row.

    Returns:
        The cones that stay.
    """
    whole, size = rows.at_random()
    first = np.zeros(len(rows))
    filled = np.flatnonzero(np.diff(rows.start) > 0)
    first[filled] = np.abs(rows.value[rows.start[:-1][filled]])
    rng = np.random.default_rng(7)
    kept = []
    for stack in stacks:
        count, dim = stack.rows.shape
        if count == 1:
            kept.append(stack)
            continue
        head = first[stack.rows]
        scale = np.take_along_axis(head, np.argmax(head > 0, axis=1)[:, None], axis=1)[:, 0]
        scale = np.where(scale > 0, scale, 1.0)
        weight = rng.uniform(0.5, 2.0, dim)
        order, run = runs(whole[stack.rows] @ weight / scale, SUMS * (size[stack.rows] @ weight) / scale)
        # The earliest cone of each run stays: by rank, then by row.
        by_rank = np.lexsort((stack.rows[order, 0], rank[stack.rows[order, 0]], run))
        order, run = order[by_rank], run[by_rank]
        start = np.searchsorted(run, run)  # first of each one's run
        later = np.flatnonzero(start < np.arange(count))
        if not len(later):
            kept.append(stack)
            continue
        one, two = order[later], order[start[later]]
        ratio = np.repeat(scale[one] / scale[two], dim)
        agree = rows.same(stack.rows[one].ravel(), stack.rows[two].ravel(), ratio).reshape(len(one), dim).all(axis=1)
        stays = np.ones(count, dtype=bool)
        stays[one[agree]] = False
        kept.append(Stack(stack.kind, stack.param, stack.rows[stays]))
    return kept


def implied(stacks: list[Stack], rows: AffineRows) -> AffineRows:
    """Rows that cones make nonnegative: diagonals of matrices, bounds of an atom's domain.

        soc    t            psd    the diagonal            exp    y, z            pow    x, y

    The factors t ± z of a second-order cone of three rows are nonnegative, too, but a bound on one stays: in the towers
    of integer powers it is tight where the cones are at their apex, and alone tells the active set there.

    Returns:
        The implied rows.
    """
    plain = [np.zeros(0, dtype=np.int64)]
    for stack in stacks:
        if stack.kind == "psd":
            i, j = triangle(int(stack.param))
            plain.append(stack.rows[:, i == j].ravel())
        elif stack.kind == "exp":
            plain.append(stack.rows[:, 1:].ravel())
        elif stack.kind == "pow":
            plain.append(stack.rows[:, :2].ravel())
        else:
            plain.append(stack.rows[:, 0])
    return rows.take(np.concatenate(plain))
