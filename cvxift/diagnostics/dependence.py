"""Dependent active constraints: minimal groups of rows whose gradients are linearly dependent.

The null space of A_rᵀ (on directions without curvature) is spanned by vectors w with Aᵀw = 0. Brought to echelon form,
each basis vector is supported on a circuit: a group that is dependent and none of whose proper subgroups is (Oxley,
Matroid Theory, Proposition 1.2.6). Other pivots give other circuits; the smallest found is reported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import qr

from cvxift.diagnostics.names import row_names
from cvxift.kkt.regularity.kernel import Kernel
from cvxift.kkt.regularity.kinks import TOUCH
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.program.structure import Floats

TRIES = 12  # pivot orders that are tried
SUPPORT = 1e-7  # entries of an echelon vector above which a row belongs to the group


def null_multipliers(kernel: Kernel) -> Floats:
    """Orthonormal basis of the dependent combinations of active rows, restored to rows, shape (m, k)."""
    part = kernel.null[kernel.n :]
    if not part.shape[1]:
        return np.zeros((kernel.m, 0))
    u, values, _ = np.linalg.svd(part, full_matrices=False)
    basis = u[:, values > 1e-6]
    return kernel.rotation.restore(basis.T, kernel.m).T


def dependent_groups(point: LocalPoint, kernel: Kernel, user: np.ndarray) -> list[list[str]]:
    """Minimal dependent groups that involve the user's own rows, each as names, the smallest first.

    Args:
        point: the point.
        kernel: K there.
        user: mask of the user's rows, shape (m,).
    """
    W = null_multipliers(kernel)
    W = W[:, np.linalg.norm(W[user], axis=0) > TOUCH] if W.size else W
    groups: dict[frozenset[int], None] = {}
    for vector in _circuits(W):
        support = np.flatnonzero(np.abs(vector) > SUPPORT * np.abs(vector).max())
        if user[support].any():
            groups[frozenset(map(int, support))] = None
    named = {tuple(row_names(point, sorted(group))): None for group in sorted(groups, key=len)}
    covered: set[str] = set()
    out = []
    for names in named:  # one group for each new dependence, not every circuit of the matroid
        if not set(names) <= covered:
            out.append(list(names))
            covered |= set(names)
    return out


def _circuits(W: Floats) -> list[Floats]:
    """Vectors of minimal support in the column space of W, by echelon forms over several pivot orders."""
    k = W.shape[1]
    if not k:
        return []
    out, rng = [], np.random.default_rng(0)
    size = np.linalg.norm(W, axis=1)
    for attempt in range(TRIES if k > 1 else 1):
        weight = np.ones(len(W)) if attempt == 0 else rng.uniform(0.1, 1.0, len(W))
        if attempt == 1:
            weight = 1.0 / np.maximum(size, 1e-3)
        factors: tuple[Any, ...] = qr((weight[:, None] * W).T, mode="r", pivoting=True)
        pivots = factors[1][:k]
        block = W[pivots]
        if np.linalg.cond(block) < 1e8:
            out.extend(np.linalg.solve(block.T, W.T))
    return out
