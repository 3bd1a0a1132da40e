"""Minima that are not attained: a solver stops on the way to one, at a point whose residuals are small.

By optimality −q = Px + Aᵀy, so that along a direction d with Pd = 0 and −Ad ∈ K the cost changes by qᵀd = yᵀ(−Ad) ≥ 0:
where it does not rise, the multipliers do not hold the columns that d moves. With linear constraints a minimum is
attained (Frank & Wolfe 1956), and a direction without end is a flat one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from cvxift._types import EPS
from cvxift.kkt.conflict import recession
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.thresholds import LOOSE
from cvxift.program.structure import Floats

LEFT = 1e-2  # part of a direction that may be held: what the solver's accuracy leaves of none


def endless_direction(local: LocalPoint, asked: np.ndarray) -> Floats | None:
    """A direction along which columns move without end while the cost does not rise.

    Args:
        local: the point.
        asked: the columns that outputs depend on, mask of shape (n,).

    Returns:
        The direction, shape (n,); None if there is none that moves an asked column which nothing holds.
    """
    if local.cones.polyhedral:
        return None
    A, P = local.magnitudes
    columns, _ = local.units
    solution = local.solution
    force = (A.T @ np.abs(solution.y) + P @ np.abs(solution.x) + np.abs(local.data.q)) * columns
    loose = np.flatnonzero(asked & (force <= LOOSE * force.max(initial=0.0)))
    if not len(loose):
        return None
    functional = np.zeros(local.structure.n)
    functional[loose] = np.random.default_rng(0).uniform(0.5, 1.0, len(loose)) / columns[loose]
    d = recession(local.structure, local.data, functional)
    return d if d is not None and _free(local, d) else None


def _free(local: LocalPoint, d: Floats) -> bool:
    """Whether equalities and P let a direction go: one that they hold by little is no direction of theirs at all."""
    columns, rows = local.units
    equalities = sp.csr_array(local.instance.AT.T)[: local.cones.zero]
    weight = sp.diags_array(np.concatenate([rows[: local.cones.zero], columns]))
    E: Any = weight @ sp.vstack([equalities, sp.csr_array(local.instance.P)]) @ sp.diags_array(columns)
    held = sla.lsmr(E, E @ (d / columns), atol=EPS, btol=EPS, conlim=0.0, maxiter=8 * sum(E.shape))[0]
    return bool(np.abs(held).max() <= LEFT * np.abs(d / columns).max())
