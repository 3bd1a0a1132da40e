"""The active set and the multipliers of a constrained minimizer, from the point alone.

    min E(x) s.t. G(x) = 0, H(x) <= 0:   ∇E + G_xᵀν + H_xᵀλ = 0,   λ >= 0,   λᵢ = 0 where Hᵢ < 0

At a solution x, (ν, λ) is a least-squares solution of the first equation over λ >= 0 that is supported on the rows
with Hᵢ = 0. With the active set fixed, the conditions are equations in w = (x, ν, λ), whose Jacobian is symmetric:

    F(w) = [ ∇E + G_xᵀν + H_xᵀ(aλ) ;  G ;  a H + (1 − a) λ ],      aᵢ = 1 where Hᵢ is active, else 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import lsq_linear

from cvxift.implicit.conditions import Equations
from cvxift.implicit.residual import tolerance_of
from cvxift.implicit.voice import say, weakly_active

NEAR = 1e-4  # slack, relative to what balances in its row, up to which a row may be active at a solver's point
NO_FORCE = 1e-8  # of the largest force on a variable, below which all forces on another one are least squares' rounding


def recover(
    conditions: Equations,
    gradient: np.ndarray,
    balanced: np.ndarray,
    slack: np.ndarray,
    rows: Callable[[np.ndarray], np.ndarray],
    given: np.ndarray | None,
    eps: float,
) -> np.ndarray:
    """Multipliers by least squares with signs, and the active set that they imply; says which rows are weakly active.

    A row is active if its multiplier is larger than its slack, or if it is violated, so that the residual shows it. A
    multiplier is measured by its force on the variable where it is largest beside what balances there, so that units
    do not matter and the rounding of a gradient that vanishes is no force.

    Args:
        conditions: of the minimizer.
        gradient: ∇E, shape (n,).
        balanced: what balances in each of its entries, shape (n,).
        slack: Hᵢ relative to what balances in it, shape (m,); positive where violated.
        rows: indices of constraints, of equality before those of inequality ↦ their rows of the Jacobian, (k, n).
        given: (ν, λ), shape (p + m,), where the solver returned them; else None.
        eps: unit of rounding of the dtype in which E is computed.

    Returns:
        ν (p,), λ (m,), which rows are active (m,), and the margins (m,), side by side. A margin is the larger of slack
        and multiplier: how far the row is from being weakly active, where the active set may change either way.
    """
    settings, (p, m) = conditions.settings, conditions.sizes
    tolerance = settings.tolerance or tolerance_of(eps)
    candidates = np.arange(m) if given is not None else np.flatnonzero(slack >= -NEAR)
    which = np.concatenate([np.arange(p), p + candidates])
    A = rows(which)
    values = np.zeros(p + m)
    if given is not None:
        values[:] = given
    elif len(A):
        norms = np.linalg.norm(A, axis=1)
        norms[norms == 0.0] = 1.0
        low = np.where(which < p, -np.inf, 0.0)
        found = lsq_linear((A / norms[:, None]).T, -gradient, bounds=(low, np.inf), method="bvls").x
        values[which] = found / norms
    force = np.abs(A * values[which, None])
    size = np.maximum(np.maximum(np.abs(gradient), balanced), force.max(axis=0, initial=0.0))
    size = np.maximum(size, NO_FORCE * size.max(initial=0.0))
    pressure = np.zeros(m)
    pressure[candidates] = (force[p:] / np.where(size > 0.0, size, 1.0)).max(axis=1, initial=0.0)
    lam = values[p:]
    active = ((lam > 0.0) & (pressure > tolerance) & (pressure > np.abs(slack))) | (slack > tolerance)
    margin = np.maximum(np.abs(slack), pressure)
    weak = np.flatnonzero(margin <= tolerance)
    if len(weak) and settings.check != "off":
        say(weakly_active(settings.title, names(conditions, weak)), settings.check)
    return np.concatenate([values[:p], np.where(active, lam, 0.0), active, margin])


def names(conditions: Equations, which: Sequence[int] | Any) -> list[str]:
    """Names of rows of H."""
    start = conditions.layout.size + conditions.sizes[0]
    return [conditions.entry(start + int(i)) for i in which]
