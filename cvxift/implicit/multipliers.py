"""The active set and the multipliers of a constrained minimizer, from the point alone.

    min E(x) s.t. G(x) = 0, H(x) <= 0:   ∇E + G_xᵀν + H_xᵀλ = 0,   λ >= 0,   λᵢ = 0 where Hᵢ < 0

At a solution x, (ν, λ) is a least-squares solution of the first equation over λ >= 0 that is supported on the rows
with Hᵢ = 0. With the active set fixed, the conditions are equations in w = (x, ν, λ), whose Jacobian is symmetric:

    F(w) = [ ∇E + G_xᵀν + H_xᵀ(aλ) ;  G ;  a H + (1 − a) λ ],      aᵢ = 1 where Hᵢ is active, else 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import lsq_linear

NEAR = 1e-4  # slack, relative to what balances in its row, up to which a row may be active at a solver's point


@dataclass(frozen=True, eq=False)
class Multipliers:
    """What is found at a point.

    Attributes:
        equality: ν, shape (p,).
        inequality: λ, shape (m,); zero where inactive.
        active: whether a row is active, shape (m,).
        margin: the larger of slack and multiplier, relative to what they are compared with, shape (m,): how far the row
            is from being weakly active, tight without a multiplier, where the active set may change either way.
        weak: whether it is, shape (m,).
    """

    equality: np.ndarray
    inequality: np.ndarray
    active: np.ndarray
    margin: np.ndarray
    weak: np.ndarray


def recover(
    gradient: np.ndarray,
    equality_rows: np.ndarray,
    candidates: np.ndarray,
    inequality_rows: np.ndarray,
    slack: np.ndarray,
    tolerance: float,
    given: tuple[np.ndarray, np.ndarray] | None = None,
) -> Multipliers:
    """Multipliers by least squares with signs, and the active set that they imply.

    Args:
        gradient: ∇E, shape (n,).
        equality_rows: G_x, shape (p, n).
        candidates: rows of H that may be active, shape (k,), integers.
        inequality_rows: H_x at these rows, shape (k, n).
        slack: Hᵢ of all rows, relative to what balances in it, shape (m,); positive where violated.
        tolerance: below which slacks and multipliers, relative to what balances, count as zero.
        given: ν (p,) and λ (m,), where the solver returned them.

    Returns:
        The multipliers. A row is active if its multiplier, relative to the gradient, is larger than its slack, or if it
        is violated, so that the residual shows it.
    """
    p, m = len(equality_rows), len(slack)
    rows = np.concatenate([equality_rows, inequality_rows])
    norms = np.linalg.norm(rows, axis=1)
    norms[norms == 0.0] = 1.0
    size = float(np.linalg.norm(gradient))
    lam = np.zeros(m)
    if given is not None:
        nu, lam = np.asarray(given[0], dtype=float), np.asarray(given[1], dtype=float)
    elif len(rows):
        low = np.concatenate([np.full(p, -np.inf), np.zeros(len(candidates))])
        found = lsq_linear((rows / norms[:, None]).T, -gradient, bounds=(low, np.inf), method="bvls").x
        found = found / norms
        nu = found[:p]
        lam[candidates] = found[p:]
    else:
        nu = np.zeros(0)
    pressure = np.zeros(m)
    pressure[candidates] = lam[candidates] * norms[p:] / (size if size > 0.0 else 1.0)
    active = ((pressure > tolerance) & (pressure > np.abs(slack))) | (slack > tolerance)
    margin = np.maximum(np.abs(slack), pressure)
    return Multipliers(nu, np.where(active, lam, 0.0), active, margin, margin <= tolerance)
