"""Multipliers for a point that came without: least squares on the rows that are active there, with their signs.

    minimize ‖∇f + A_aᵀ y‖₂   subject to   y_i ≥ 0 for inequalities,        a: rows with gᵢ ≥ −tol

A point is stationary for some multipliers exactly if the residual is zero; whether they are the only ones is for the
rank of A_a to say.
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
        active = np.flatnonzero((np.arange(cones.m) < cones.zero) | (g >= -level * np.maximum(size, 1.0)))
        y = np.zeros(cones.m)
        y[active] = _signed(sp.csr_array(A[active].T), -found.gradient, active >= cones.zero)
        error = float(np.linalg.norm(found.gradient + A.T @ y))
        if error < 0.5 * least:
            best, least = y, error
        if least <= GOOD * (1.0 + float(np.linalg.norm(found.gradient))):
            break
    return best


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
        return out
    low = np.where(positive, 0.0, -np.inf)
    return lsq_linear(M, f, bounds=(low, np.inf), tol=1e-12, lsq_solver="lsmr").x
