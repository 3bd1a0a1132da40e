"""Multipliers for a point that came without: least squares on the rows that are active there, with their signs.

    minimize ‖∇f + A_aᵀ y‖₂   subject to   y_i ≥ 0 for inequalities,        a: rows with gᵢ ≥ −tol

Of a norm's cone the multiplier is a multiple of (‖w‖, −w) where it is active, and anything where it is zero. A point is
stationary for some multipliers exactly if the residual is zero; whether they are the only ones is for the rank of A_a
to say.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import lsq_linear, nnls

from cvxift.program.smooth import SmoothProgram
from cvxift.program.structure import Floats

ACTIVE = (1e-8, 1e-6, 1e-4, 1e-3)  # slack, relative to its row, up to which a row is tried as active
LARGE = 2000  # rows + columns above which the least squares are sparse
GOOD = 1e-7  # relative residual from which no more rows are tried


def fitted(program: SmoothProgram, p: Floats, x: Floats) -> Floats:
    """Multipliers that fit the point best, shape (m,).

    Args:
        program: the program.
        p: data columns, shape (n_p,).
        x: columns, shape (n,).
    """
    cones, structure = program.cones, program.structure
    _, g, found = program.oracles.derivatives(x, p, np.zeros(cones.m))
    A = structure.A_matrix(found.A).tocsr()
    size = np.asarray(abs(A) @ np.abs(x)).ravel() + np.abs(g) + 1e-12
    best, least = np.zeros(cones.m), np.inf
    for level in ACTIVE:
        directions, positive = _directions(program, g, level * np.maximum(size, 1.0))
        y = directions @ _signed(sp.csr_array(A.T @ directions), -found.gradient, positive)
        error = float(np.linalg.norm(found.gradient + A.T @ y))
        if error < 0.5 * least:
            best, least = y, error
        if least <= GOOD * (1.0 + float(np.linalg.norm(found.gradient))):
            break
    return best


def _directions(program: SmoothProgram, g: Floats, slack: Floats) -> tuple[Any, np.ndarray]:
    """What multipliers of rows with up to that slack are combinations of, (m, k), and where with a factor of a sign."""
    cones, norms = program.cones, program.norms
    linear = cones.zero + cones.nonneg
    rows = np.flatnonzero((np.arange(linear) < cones.zero) | (g[:linear] >= -slack[:linear]))
    cols, values, positive = np.arange(len(rows)), np.ones(len(rows)), rows >= cones.zero
    if norms.dims:
        t, w = -g[norms.row[norms.top]], np.where(norms.top, 0.0, -g[norms.row])
        size, near = np.sqrt(np.bincount(norms.which, w**2)), slack[norms.row[norms.top]]
        apex = (t <= near)[norms.which]
        ray = ((t > near) & (size >= t - near))[norms.which]
        _, of = np.unique(norms.which[ray], return_inverse=True)
        force = np.where(norms.top, 1.0, -w / np.maximum(size, near)[norms.which])
        rows = np.concatenate([rows, norms.row[apex], norms.row[ray]])
        cols = np.concatenate([cols, len(cols) + np.arange(apex.sum()), len(cols) + apex.sum() + of])
        values = np.concatenate([values, np.ones(apex.sum()), force[ray]])
        positive = np.concatenate([positive, norms.top[apex], np.ones(int(of.max(initial=-1)) + 1, dtype=bool)])
    return sp.csr_array((values, (rows, cols)), shape=(cones.m, len(positive))), positive


def _signed(M: Any, f: Floats, positive: np.ndarray) -> Floats:
    """The y that makes M y nearest to f, not negative where `positive` says so."""
    if not M.shape[1]:
        return np.zeros(0)
    if sum(M.shape) <= LARGE:
        dense, free = M.toarray(), np.flatnonzero(~positive)
        # A free multiplier is the difference of two that are not negative.
        y, _ = nnls(np.hstack([dense, -dense[:, free]]), f, maxiter=10 * sum(M.shape))
        out = y[: M.shape[1]].copy()
        out[free] -= y[M.shape[1] :]
        # Of several the shortest: at a cone's apex others may lie outside of the dual cone.
        out[free] = np.linalg.lstsq(dense[:, free], dense[:, free] @ out[free])[0]
        return out
    low = np.where(positive, 0.0, -np.inf)
    return lsq_linear(M, f, bounds=(low, np.inf), tol=1e-12, lsq_solver="lsmr").x
