"""Whether weak rows (slack and multiplier vanish together) matter to the outputs; cones that are not linear may."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

from cvxift.kkt.regularity.active_sets import with_weak
from cvxift.kkt.regularity.kinks import nonunique
from cvxift.kkt.regularity.null_space import NullVector, is_regular, largest, null_part
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.thresholds import FELT, MANY, NOISE, NULL, SHARED
from cvxift.kkt.solution import Linearization

if TYPE_CHECKING:
    from cvxift.kkt.regularity.account import Regularity


def not_opened(account: Regularity, weak: np.ndarray) -> np.ndarray:
    """Weak units whose slack does not open when columns move that no output and no entry of θ feels."""
    null = account.null
    if null is None or not account.local.cones.polyhedral:
        return weak
    at = account.local.cones.unit_starts[weak]
    A = account.local.instance.rows
    columns, rows = account.local.units
    # The steepest way to open all of them at once, within the null space of K.
    downhill = -(A[at].T @ rows[at]) * columns**2
    u = null_part(account.local, account.plain, downhill, np.zeros(account.local.structure.m)).u
    if largest(u / columns) <= NULL * largest(downhill / columns):
        return weak  # what is left of it is rounding
    if account.moves(NullVector(u, np.zeros_like(account.solution.y))):
        return weak
    opening = -(A[at] @ u) * rows[at]
    return weak[opening <= FELT * largest(u / columns)]


def closed(account: Regularity) -> Linearization | None:
    """The piece on which all weak rows are tight, where multipliers that are not unique can be positive on all of them.

    With y, y + αw are multipliers for Aᵀw = 0, w on the tight rows, and small α. Where w > 0 on all weak rows,
    complementarity is strict with those: the rows are tight in every solution nearby, and there is no piece but this
    one, if θ does not pull the dependent rows apart, not even by so little as other pieces may differ without a word.
    """
    local = account.local
    if account.clear or account.recover.has_dual or account.policy.singular != "least_squares":
        return None
    if not (account.direct and local.cones.polyhedral and len(local.weak)):
        return None
    piece = with_weak(local, local.weak, account.policy, tight=True)
    if is_regular(piece):
        return None
    shared = local.constants.judged(account.active_set("closed", piece), lambda: _share_a_force(local, piece))
    return piece if shared and not len(account.pulled_by(piece, NOISE)) else None


def _share_a_force(local: LocalPoint, piece: Linearization) -> bool:
    """Whether there is w with Aᵀw = 0 on the tight rows of a piece that is positive on all weak ones."""
    tight = np.flatnonzero(piece.v <= 0.0)
    A, (columns, unit) = local.instance.rows[tight], local.units
    # Aᵀw = 0 in units, w of equalities and of rows that have a force already free, of weak rows positive.
    M = sp.csc_array(sp.diags_array(columns) @ A.T @ sp.diags_array(unit[tight]))
    least = np.where(np.isin(tight, local.cones.unit_starts[local.weak]), SHARED, -1.0)
    found = linprog(np.zeros(len(tight)), A_eq=M, b_eq=np.zeros(len(columns)), bounds=np.c_[least, np.ones(len(tight))])
    return found.status == 0 and bool(largest(M @ found.x) <= NOISE * largest(found.x))


def flat_on_weak_rows(account: Regularity) -> NullVector | None:
    """A flat direction that weak rows bound on one side: at a vertex of the set of solutions no piece has one."""
    local = account.local
    if account.clear or not (account.direct and local.cones.polyhedral and len(local.weak)):
        return None
    if account.null is None or not account.moves(account.null):
        return None

    def find() -> NullVector | None:
        u = nonunique(local)
        return None if u is None else NullVector(u, np.zeros_like(account.solution.y))

    found = local.constants.judged(account.active_set("flat", account.plain), find)
    return found if found is not None and account.moves(found) else None


def felt(account: Regularity, weak: np.ndarray) -> bool:
    """Whether closing weak rows can move an output, and θ can move their slacks."""
    if not account.local.weak_is_linear or len(weak) > MANY:
        return True
    structure = account.local.structure
    at = account.local.cones.unit_starts[weak]
    A = account.local.instance.rows[at].toarray()
    u, w = account.plain.solve(A, np.zeros((len(at), structure.m)))
    certificate = account.plain.certificate
    if certificate is not None and not certificate.consistent:
        return True
    columns, multipliers = account.local.units
    size = np.maximum(np.abs(u / columns).max(axis=1, initial=0.0), np.abs(w / multipliers).max(axis=1, initial=0.0))
    moved = (np.abs(account.recover.linear(u, w)) > FELT * np.outer(size, account.output_unit)).any(axis=1)
    # A row that K's other rows determine moves nothing when it closes, but becomes dependent on them.
    moved |= np.abs(np.sum(A * u, axis=1)) <= FELT * size * (np.abs(A) @ columns)
    (GT, HT), (G_size, H_size) = account.jacobian.transposed, account.jacobian.sizes_of_entries
    own = account.jacobian.H[at].T.toarray()
    rate = -(GT @ u.T + HT @ w.T) + own
    whole = G_size @ np.abs(u.T) + H_size @ np.abs(w.T) + np.abs(own)
    driven = (np.abs(rate) > FELT * whole).any(axis=0)
    return bool(moved.any() and driven.any())


def unsettled_rows(account: Regularity) -> list[int]:
    """Rows of A that are weak, depend on each other, or differ between pieces; first the user's own."""
    local = account.local
    rows = np.zeros(local.structure.m, dtype=bool)
    rows[np.isin(local.cones.unit_of_row, local.weak)] = True
    linear = local.cones.zero + local.cones.nonneg  # a sign of v says nothing of a row of another cone
    for piece in account.pieces[1:]:
        rows[:linear] |= (piece.v[:linear] > 0.0) != (account.pieces[0].v[:linear] > 0.0)
    if account.null is not None:
        rows |= np.abs(account.null.w / local.units[1]) > FELT
    labels = account.program.row_labels
    return sorted(map(int, np.flatnonzero(rows)), key=lambda row: labels[row].atom is not None)
