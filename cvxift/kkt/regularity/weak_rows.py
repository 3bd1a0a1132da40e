"""Whether weak rows (slack and multiplier vanish together) matter to the outputs; cones that are not linear may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cvxift.kkt.regularity.null_space import NullVector, largest, null_part
from cvxift.kkt.regularity.thresholds import FELT, MANY, NULL

if TYPE_CHECKING:
    from cvxift.kkt.regularity.account import Regularity


def not_opened(account: Regularity, weak: np.ndarray) -> np.ndarray:
    """Weak units whose slack does not open when columns move that no output and no entry of θ feels."""
    null = account.null
    if null is None or not account.local.cones.polyhedral:
        return weak
    at = account.local.cones.unit_starts[weak]
    A = account.local.instance.AT.T
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


def felt(account: Regularity, weak: np.ndarray) -> bool:
    """Whether closing weak rows can move an output, and θ can move their slacks."""
    if not account.local.weak_is_linear or len(weak) > MANY:
        return True
    structure = account.local.structure
    at = account.local.cones.unit_starts[weak]
    rows_of_A: Any = account.local.instance.AT.T[at]
    A = rows_of_A.toarray()
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
