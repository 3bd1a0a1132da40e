"""Epigraph columns that one bound holds: the bound is put in their place.

CVXPY writes ‖f(x)‖ ≤ h(x) as  ‖f(x)‖ ≤ t,  t ≤ h(x)  with a column t of its own; sums of squares and their ratios
likewise. Where the constraint is slack, t is not unique and the KKT system is singular, although the user's map is
smooth. Such a t

    costs nothing, has constant coefficients, and is bounded from above by one nonneg row r:  a_r t + … + s_r = b_r
    stands in second-order cones besides, which it leaves the further inside the larger it is:  −A_t lies in them,
    strictly where b_r depends on θ and so may be infinite

so that raising t until s_r = 0 keeps every row satisfied. The set of the other columns is that of the program with
t = (b_r − …)/a_r put in, which has neither t nor r. Row operations do that, with constants alone:

    row i − (a_i/a_r) row r  for each other row i of t,        y_r = −Σ_i (a_i/a_r) y_i   by the stationarity of t.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from cvxift.program.structure import Floats, Structure
from cvxift.program.tensors import Stack, combined, filled_entries

STRICTLY_INSIDE = 1e-9  # part by which a direction must lie in a cone for an infinite multiple to leave nothing
MAY_ADD = 2  # entries that the row operations may add, per entry that leaves with t and r


@dataclass(frozen=True)
class Eliminated:
    """A program without its epigraph columns.

    Args:
        structure: its structure.
        stacked: its data as affine functions of θ.
        rows: the rows kept.
        columns: the columns kept.
        multipliers: L in y = L y', the multipliers of all rows from those of the kept ones.
        bounds: for each kept row, the row of the bound that was put into it; −1 for none.
        weights: −a_i/a_r of those rows, zero elsewhere. An infinite b of their sign means that the cone binds nothing.
    """

    structure: Structure
    stacked: Stack
    rows: np.ndarray
    columns: np.ndarray
    multipliers: sp.csr_array
    bounds: np.ndarray
    weights: Floats


def without_epigraphs(structure: Structure, stacked: Stack, auxiliary: np.ndarray) -> Eliminated:
    """Put the bounds of epigraph columns in their place.

    Args:
        structure: a program's structure.
        stacked: its data as affine functions of θ.
        auxiliary: the columns that are not the user's, a mask.

    Returns:
        The program without those columns and bounds.
    """
    A, m = stacked.slices["A"], structure.m
    if not auxiliary.any():
        every = sp.csr_array(sp.eye_array(m))
        own = np.arange(m), np.arange(structure.n)
        return Eliminated(structure, stacked, *own, every, np.full(m, -1), np.zeros(m))
    filled, varies = filled_entries(stacked)
    at = np.flatnonzero(filled[A])
    row, column = structure.A_rows[at].astype(np.int64), structure.A_cols[at].astype(np.int64)
    value = stacked.constant[A][at]
    bound = _bounds(structure, stacked, auxiliary, filled, (row, column, value, varies[A][at]))  # t's r
    t = np.flatnonzero(bound >= 0)
    rows, columns = np.ones(m, dtype=bool), np.ones(structure.n, dtype=bool)
    rows[bound[t]], columns[t] = False, False
    kept = np.flatnonzero(rows)
    own = np.zeros(structure.n)
    of = (bound[column] == row) & ~columns[column]
    own[column[of]] = value[of]
    other = ~columns[column] & ~of
    weight = -value[other] / own[column[other]]
    coords = np.concatenate([kept, row[other]]), np.concatenate([kept, bound[column[other]]])
    operations = sp.csr_array((np.concatenate([np.ones(len(kept)), weight]), coords), shape=(m, m))[kept]
    into, weights = np.full(m, -1), np.zeros(m)
    into[row[other]], weights[row[other]] = bound[column[other]], weight
    if len(t):
        cones = replace(structure.cones, nonneg=structure.cones.nonneg - len(t))
        structure, stacked = combined(structure, stacked, operations, np.flatnonzero(columns), cones)
    multipliers = sp.csr_array(operations.T)
    left = np.flatnonzero(columns)
    return Eliminated(structure, stacked, kept, left, multipliers, into[kept], weights[kept])


def _bounds(
    structure: Structure,
    stacked: Stack,
    auxiliary: np.ndarray,
    filled: np.ndarray,
    entries: tuple[np.ndarray, np.ndarray, Floats, np.ndarray],
) -> np.ndarray:
    """For each column the nonneg row to put in its place; −1 for none.

    Args:
        structure: the program's structure.
        stacked: its data.
        auxiliary: which columns may be taken.
        filled: which entries of all data are not zero.
        entries: row, column and constant of A's entries, and whether they depend on θ.
    """
    row, column, value, varies = entries
    n, m, cones, where = structure.n, structure.m, structure.cones, stacked.slices
    able = auxiliary & ~filled[where["q"]]
    P = filled[where["P"]]
    able[structure.P_cols[P]] = False
    linear = cones.zero + cones.nonneg
    above = (row >= cones.zero) & (row < linear) & (value > 0.0)
    varied_bounds = np.diff(stacked.matrix.indptr)[where["b"]] > 0
    able &= np.bincount(column[above], minlength=n) == 1
    # The direction d = −A_t in the other rows: heads that rise by no less than the norm of the tails.
    first, head = cones.heads
    inside = above | (first[row] & (value < 0.0))
    able[column[varies | ~(inside | (head[row] >= 0))]] = False
    tail = np.flatnonzero((head[row] >= 0) & able[column])
    if len(tail):
        key, group = np.unique(column[tail] * m + head[row[tail]], return_inverse=True)
        length = np.sqrt(np.bincount(group, value[tail] ** 2))
        rise = np.zeros(len(key))
        heads = np.flatnonzero(first[row])
        place = np.searchsorted(key, column[heads] * m + row[heads])
        found = (place < len(key)) & (key[np.minimum(place, len(key) - 1)] == column[heads] * m + row[heads])
        rise[place[found]] = -value[heads[found]]
        # On the cone's boundary, as for squares, an infinite bound leaves a half-space: the divisor's sign.
        open_row = np.zeros(n, dtype=bool)
        open_row[column[above]] = varied_bounds[row[above]]
        edge = (length >= (1.0 - STRICTLY_INSIDE) * rise) & open_row[key // m]
        able[key[edge | (length > rise)] // m] = False
    # Another column of the canonicalization in r would be left as free as t was; and rows must not grow.
    candidates = above & able[column]
    alone = np.bincount(row[auxiliary[column]], minlength=m) == 1
    width, others = np.bincount(row, minlength=m), np.bincount(column, minlength=n) - 1
    w, k = width[row[candidates]], others[column[candidates]]
    good = alone[row[candidates]] & (k * (w - 1) <= MAY_ADD * (k + w))
    bound = np.full(n, -1)
    bound[column[candidates][good]] = row[candidates][good]
    return bound
