"""Parallel rows of a system [ P  Aᵀ ; A  −H ], turned into one row each.

Rows ρ_i a of one direction a (repeated, opposed or scaled constraints) become, by an orthogonal change of their
unknowns, one row ‖ρ‖ a and rows of zeros: the eigenvalues stay, the zero rows are null directions that need no search,
and what is left is smaller and less singular.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift.program.structure import Floats

SAME = 1e-13  # difference of unit rows up to which they are parallel


class Repeats:
    """The change of unknowns.

    Args:
        size: N of the whole system.
        classes: for each class of parallel rows, their positions in the system, and their factors ρ.

    Attributes:
        Q: to the whole system from the merged one, orthonormal columns, shape (N, N′).
        null: orthonormal basis of the null directions within classes, sparse, shape (N, N − N′).
        pairs: the same span by pairs: the first row of a class and each of its others.
        first_of_each: as `Q`, with all of a class's weight on its first row, shape (N, N′).
    """

    def __init__(self, size: int, classes: list[tuple[np.ndarray, Floats]]) -> None:
        alone = np.ones(size, dtype=bool)
        for rows, _ in classes:
            alone[rows] = False
        own = np.flatnonzero(alone)
        row, column, value = [own], [np.arange(len(own))], [np.ones(len(own))]
        null_row, null_column, null_value, pair_row, pair_value, width = [], [], [], [], [], 0
        for k, (rows, rho) in enumerate(classes):
            unit, count = rho / np.linalg.norm(rho), len(rows)
            row.append(rows)
            column.append(np.full(count, len(own) + k))
            value.append(unit)
            basis = _complement(unit)
            null_row.append(np.repeat(rows, count - 1))
            null_column.append(np.tile(np.arange(count - 1), count) + width)
            null_value.append(basis.ravel())
            pair_row.append(np.stack([np.full(count - 1, rows[0]), rows[1:]], axis=1).ravel())
            pair_value.append(np.stack([np.full(count - 1, -1.0 / unit[0]), 1.0 / unit[1:]], axis=1).ravel())
            width += count - 1
        shape = (size, len(own) + len(classes))
        self.Q = sp.csc_array((np.concatenate(value), (np.concatenate(row), np.concatenate(column))), shape=shape)
        place = (np.concatenate(null_row), np.concatenate(null_column))
        self.null = sp.csc_array((np.concatenate(null_value), place), shape=(size, width))
        place = (np.concatenate(pair_row), np.repeat(np.arange(width), 2))
        self.pairs = sp.csc_array((np.concatenate(pair_value), place), shape=(size, width))
        first = np.concatenate([own, np.array([rows[0] for rows, _ in classes])])
        weight = np.concatenate([np.ones(len(own)), [np.linalg.norm(rho) / rho[0] for _, rho in classes]])
        self.first_of_each = sp.csc_array((weight, (first, np.arange(shape[1]))), shape=shape)

    @classmethod
    def of(cls, K: Any, first: int) -> Repeats | None:
        """The parallel rows among those after the first block that have no diagonal entry; None if there are none.

        Args:
            K: the system, CSC, shape (N, N).
            first: size of the first block.
        """
        size = K.shape[0]
        rows = first + np.flatnonzero(K.diagonal()[first:] == 0.0)
        body = sp.csr_array(K[:, rows].T)  # K is symmetric
        body.eliminate_zeros()
        filled = np.flatnonzero(np.diff(body.indptr))
        body, rows = body[filled], rows[filled]
        if len(rows) < 2:
            return None
        body.sort_indices()
        rho = np.sqrt(np.add.reduceat(body.data**2, body.indptr[:-1])) * np.sign(body.data[body.indptr[:-1]])
        unit = sp.csr_array((body.data / np.repeat(rho, np.diff(body.indptr)), body.indices, body.indptr), body.shape)
        keys = unit @ np.random.default_rng(0).standard_normal((size, 2))
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        same = np.asarray((np.abs(np.diff(keys[order], axis=0)) <= SAME * 10.0).all(axis=1))
        pairs = np.flatnonzero(same)
        if len(pairs):
            difference = abs(unit[order[pairs + 1]] - unit[order[pairs]])
            same[pairs] = np.asarray(difference.max(axis=1).todense()).ravel() <= SAME
        if not same.any():
            return None
        starts = np.flatnonzero(np.concatenate([[True], ~same]))
        classes = [part for part in np.split(order, starts[1:]) if len(part) > 1]
        return cls(size, [(rows[part], rho[part]) for part in classes])


def _complement(unit: Floats) -> Floats:
    """Orthonormal columns orthogonal to a unit vector, shape (k, k − 1): those of a Householder reflection."""
    v = unit.copy()
    v[0] += 1.0 if v[0] >= 0.0 else -1.0
    return (np.eye(len(v)) - 2.0 * np.outer(v, v) / (v @ v))[:, 1:]
