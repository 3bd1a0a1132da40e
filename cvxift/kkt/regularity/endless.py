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
from cvxift.kkt.equilibration import LEAST, MOST
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.thresholds import LOOSE
from cvxift.program.structure import Floats

MODERATE = MOST / LEAST  # ratio of two columns' units where a program is solved in its own
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
    solution, s, data = local.solution, local.structure, local.data
    x, y = np.abs(solution.x), np.abs(solution.y)
    force = np.abs(data.q)
    for rows, cols, values, other in ((s.A_rows, s.A_cols, data.A, y), (s.P_rows, s.P_cols, data.P, x)):
        force = force + np.bincount(cols, np.abs(values) * other.take(rows), minlength=s.n)
    if solution.units is None and force[asked].min(initial=np.inf) > MODERATE * LOOSE * force.max(initial=0.0):
        return None  # whatever the units are exactly
    # A cost of 1e-12 that holds a column of 1e4 beside one of 1e-8 is none in the units of P and A alone.
    units = solution.units if solution.units is not None and len(solution.units.columns) == s.n else None
    columns = local.units[0] if units is None else units.columns
    force *= columns
    loose = np.flatnonzero(asked & (force <= LOOSE * force.max(initial=0.0)))
    if not len(loose):
        return None
    functional = np.zeros(s.n)
    functional[loose] = np.random.default_rng(0).uniform(0.5, 1.0, len(loose))
    if units is None:
        d = recession(s, data, functional / columns)
    else:
        d = recession(s, units.data(s, data), functional)
        d = None if d is None else columns * d
    return d if d is not None and _free(local, d, columns) else None


def _free(local: LocalPoint, d: Floats, columns: Floats) -> bool:
    """Whether equalities and P let a direction go: one that they hold by little is no direction of theirs at all."""
    rows = local.units[1]
    equalities = local.instance.rows[: local.cones.zero]
    weight = sp.diags_array(np.concatenate([rows[: local.cones.zero], columns]))
    E: Any = weight @ sp.vstack([equalities, sp.csr_array(local.instance.P)]) @ sp.diags_array(columns)
    held = sla.lsmr(E, E @ (d / columns), atol=EPS, btol=EPS, conlim=0.0, maxiter=8 * sum(E.shape))[0]
    return bool(np.abs(held).max() <= LEFT * np.abs(d / columns).max())
