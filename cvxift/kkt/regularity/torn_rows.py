"""Steps of θ that leave no point near a solution, told by the tight rows alone.

A step θ̇ moves the rows to A x + s = b + h. With w ≥ 0 on tight inequalities, Aᵀw = 0 and wᵀ(h + s) < 0 no x satisfies
them (Farkas' lemma): a small linear program over the tight rows says so where interior-point methods run to their
limits.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

from cvxift.kkt.regularity.point import LocalPoint
from cvxift.program.structure import Floats

SOONER_THAN_SOLVED = 2000  # rows + columns up to which a linear program is less work than the solution of a neighbour
CLEARLY = 0.1  # part of wᵀh that is left of it where all that is rounding, or slack, is taken off


class TornRows:
    """The tight rows of a point whose A does not depend on θ.

    Args:
        local: the point.
    """

    def __init__(self, local: LocalPoint) -> None:
        self._local = local
        columns, unit = local.units
        slack = local.s / local.scales[0] > local.tolerance
        slack[: local.cones.zero] = False
        self._rows = np.flatnonzero(~slack)
        self._unit = unit[self._rows]
        A = local.instance.rows[self._rows]
        self._pull = sp.csc_array(sp.diags_array(columns) @ A.T @ sp.diags_array(self._unit))
        least = np.where(self._rows < local.cones.zero, -1.0, 0.0)
        self._bounds = np.c_[least, np.ones(len(least))]

    @classmethod
    def of(cls, local: LocalPoint) -> TornRows | None:
        """Those of a point; None where A depends on θ, or where neighbours are as soon solved."""
        fixed = local.cones.polyhedral and not local.constants.maps["A"].nnz
        return cls(local) if fixed and local.structure.n + local.structure.m <= SOONER_THAN_SOLVED else None

    def __call__(self, step: Floats) -> bool:
        """Whether a step of θ, shape (N,), leads to no solution; False where that is not sure."""
        local = self._local
        h = local.program.jvp(step).b[self._rows] * self._unit
        size = float(np.abs(h).max(initial=0.0))
        if not size:
            return False
        found = linprog(h / size, A_eq=self._pull, b_eq=np.zeros(len(local.x)), bounds=self._bounds)
        if found.status != 0:
            return False
        # The solver's w is 0 up to its tolerance where a row has no part, and of the right sign up to rounding.
        w = np.clip(found.x, *self._bounds.T)
        s = np.abs(local.s[self._rows]) * self._unit
        x = np.abs(local.x) / local.units[0] + 1.0
        rest = np.abs(self._pull @ w) @ x + np.abs(w) @ s
        return bool(h @ w + rest < CLEARLY * (h @ w) < 0.0)
