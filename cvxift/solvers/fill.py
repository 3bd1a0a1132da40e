"""Fill-in predicted from the pattern alone: the entries of the factor L of the KKT matrix, and the work to find it.

The matrix  [P Aᵀ; A ·]  is ordered by minimum degree; the elimination tree and the number of entries in each column of
L follow in nearly linear time, without L itself. Bounds on single variables add to the diagonal only and are left out.

Sources: Gilbert, Ng & Peyton 1994, "An efficient algorithm to compute row and column counts for sparse Cholesky
factorization"; Davis, Gilbert, Larimore & Ng 2004, "A column approximate minimum degree ordering algorithm".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from numpy.typing import NDArray
from scipy.sparse.csgraph import reverse_cuthill_mckee

from cvxift.program.structure import Structure

DENSE_ROW = 10.0  # a row is set aside in the first look if it has this many times √N entries, as minimum degree does
NEGLIGIBLE_ENTRY = 1e-6  # beside the diagonal's 1


class Fill(NamedTuple):
    """What a factorization LDLᵀ costs.

    Args:
        entries: of L, its diagonal included.
        work: multiplications; the sum of the squared column counts.
    """

    entries: float
    work: float

    @property
    def width(self) -> float:
        """Multiplications for each entry of L: how many triangular solves one factorization is worth."""
        return self.work / self.entries if self.entries else 0.0


def pattern(structure: Structure) -> sp.csc_array:
    """The pattern of [P Aᵀ; A ·] without the bounds on single variables, symmetric, its diagonal full."""
    n = structure.n
    count = np.bincount(structure.A_rows, minlength=structure.m)
    general = np.ones(structure.m, dtype=bool)
    general[structure.cones.zero :] = count[structure.cones.zero :] != 1
    place = n + np.cumsum(general) - 1
    keep = general[structure.A_rows]
    rows, cols = place[structure.A_rows[keep]], structure.A_cols[keep]
    size = n + int(np.count_nonzero(general))
    own = np.arange(size)
    at = (
        np.concatenate([structure.P_rows, rows, cols, own]),
        np.concatenate([structure.P_cols, cols, rows, own]),
    )
    return sp.csc_array((np.ones(len(at[0])), at), shape=(size, size))


def most(K: sp.csc_array) -> Fill:
    """An upper bound that costs little: all of the envelope fills in, in the order of Cuthill and McKee.

    Args:
        K: a symmetric pattern with a full diagonal. Its dense rows are eliminated last and count as full.

    Example:
        >>> chain = sp.csc_array(sp.diags_array([np.ones(999), np.ones(1000), np.ones(999)], offsets=[-1, 0, 1]))
        >>> most(chain)
        Fill(entries=1999.0, work=3997.0)
    """
    size = len(K.indptr) - 1
    dense = np.diff(K.indptr) > max(DENSE_ROW * size**0.5, 16.0)
    rest = sp.csr_array(K[~dense][:, ~dense]) if dense.any() else sp.csr_array(K)
    order = reverse_cuthill_mckee(rest, symmetric_mode=True)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    first = np.minimum.reduceat(place[rest.indices], rest.indptr[:-1]) if len(order) else place
    # Row i of the envelope reaches from its first entry to the diagonal; column j is crossed by the rows that hold j.
    crossings = np.bincount(first, minlength=len(order)) - 1
    counts = 1 + np.cumsum(crossings) + np.count_nonzero(dense)
    last = np.arange(np.count_nonzero(dense), 0, -1)
    counts = np.concatenate([counts, last]).astype(float)
    return Fill(float(counts.sum()), float(counts @ counts))


def predict(K: sp.csc_array) -> Fill:
    """Entries and work of LDLᵀ in an order of minimum degree.

    Args:
        K: a symmetric pattern with a full diagonal.

    Example:
        >>> arrow = np.eye(100)
        >>> arrow[0] = arrow[:, 0] = 1.0
        >>> predict(sp.csc_array(arrow))  # the full row last: nothing fills in
        Fill(entries=199.0, work=397.0)
    """
    order = _minimum_degree(K)
    counts = _column_counts(sp.csc_array(sp.triu(K[order][:, order], format="csc"))).astype(float)
    return Fill(float(counts.sum()), float(counts @ counts))


def _minimum_degree(K: sp.csc_array) -> NDArray:
    """An elimination order of approximately least degree.

    SciPy has an order for AᵀA, COLAMD, as part of SuperLU's incomplete factorization alone. A gets one row for each
    entry of K's upper triangle, with ones in its row and column, so that AᵀA has K's pattern (this is SYMAMD), and
    columns of one entry that make it square. All its entries off the diagonal are dropped: what follows the order costs
    little.
    """
    size = len(K.indptr) - 1
    upper = sp.triu(K, 1, format="coo")
    extra = size + np.arange(upper.nnz)
    rows = np.concatenate([np.arange(size), extra, extra, extra])
    cols = np.concatenate([np.arange(size), *upper.coords, extra])
    values = np.full(len(rows), NEGLIGIBLE_ENTRY)
    values[:size] = values[len(rows) - len(extra) :] = 1.0
    A = sp.csc_array((values, (rows, cols)))
    options = {"DiagPivotThresh": 0.0}
    order = np.argsort(sla.spilu(A, drop_tol=0.5, fill_factor=1.0, permc_spec="COLAMD", options=options).perm_c)
    return order[order < size]


def _column_counts(upper: sp.csc_array) -> NDArray:
    """Entries in each column of the Cholesky factor of a pattern whose upper triangle is given."""
    size = len(upper.indptr) - 1
    starts, rows = _listed(upper)
    parent, ancestor = [-1] * size, [-1] * size
    for k in range(size):
        for i in rows[starts[k] : starts[k + 1]]:
            while i != -1 and i < k:
                above = ancestor[i]
                ancestor[i] = k
                if above == -1:
                    parent[i] = k
                i = above
    post = _postorder(parent)
    first, counts = [-1] * size, [0] * size
    for k, j in enumerate(post):
        counts[j] = 1 if first[j] == -1 else 0
        while j != -1 and first[j] == -1:
            first[j] = k
            j = parent[j]
    below = sp.csc_array(upper.T)  # column j of the lower triangle: the rows i > j
    starts, rows = _listed(below)
    newest, leaf, ancestor = [-1] * size, [-1] * size, list(range(size))
    for j in post:
        if parent[j] != -1:
            counts[parent[j]] -= 1
        for i in rows[starts[j] : starts[j + 1]]:
            if i <= j or first[j] <= newest[i]:
                continue  # j is no leaf of the i-th row's subtree
            newest[i] = first[j]
            counts[j] += 1
            before, leaf[i] = leaf[i], j
            if before == -1:
                continue
            root = before
            while root != ancestor[root]:
                root = ancestor[root]
            while before != root:
                ancestor[before], before = root, ancestor[before]
            counts[root] -= 1
        if parent[j] != -1:
            ancestor[j] = parent[j]
    for j in post:
        if parent[j] != -1:
            counts[parent[j]] += counts[j]
    return np.array(counts)


def _listed(pattern: sp.csc_array) -> tuple[list[int], list[int]]:
    """Where each column starts, and the rows of its entries; lists are what Python's loops read fastest."""
    starts, rows = np.asarray(pattern.indptr), np.asarray(pattern.indices)
    return starts.tolist(), rows.tolist()


def _postorder(parent: list[int]) -> list[int]:
    """The nodes of a forest, children before their parents."""
    children: list[list[int]] = [[] for _ in parent]
    stack = []
    for node in range(len(parent) - 1, -1, -1):
        (children[parent[node]] if parent[node] != -1 else stack).append(node)
    out = []
    while stack:  # parents before children, reversed at the end
        node = stack.pop()
        out.append(node)
        stack += children[node]
    return out[::-1]
