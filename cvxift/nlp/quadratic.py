"""The quadratic program that linearizes a nonlinear one, solved near its point: what neighbours of a kink are found by.

Its P need not be positive semidefinite, only along what the strongly active rows Z leave free. With

    P + ρ ZᵀZ,   q − ρ Zᵀb_Z

the cost is the same wherever Z x = b_Z, as it is near the point, and is convex for ρ large enough where the
second-order sufficient condition holds (Debreu 1952), so that a convex solver finds the solution.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxift.kkt import convexity
from cvxift.kkt.engine import ACCEPTABLE, TOLERANCE, Engine, Solution
from cvxift.kkt.newton import polish
from cvxift.kkt.system.cone_basis import rotation
from cvxift.program.structure import Data, Floats, Structure
from cvxift.solvers.base import Raw, Status

STRONG = 1e-6  # multiplier, relative to the largest, from which an active row counts as strongly active
WEIGHTS = (1.0, 1e2, 1e4, 1e6)  # ρ that are tried, relative to P
NAME = "quadratic model"


class QuadraticModel:
    """Solves quadratic programs of one structure near a known solution.

    Args:
        engine: the nonlinear engine, whose solutions they are to be.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._dense: Engine | None = None

    def solve(self, data: Data, warm: Raw) -> Solution:
        """The solution near a point; not `ok` if there is none.

        Args:
            data: of the quadratic program.
            warm: the point.
        """
        engine = self._engine
        instance = engine.layout.instance(data)
        point = polish(instance, warm.x, warm.s - warm.y)
        if point.worst > TOLERANCE or self._falls(data, instance, point.v):
            convex = self._convex(data, warm)
            if convex is not None:
                point = polish(instance, convex.x, convex.s - convex.y)
        good = point.worst <= ACCEPTABLE and not self._falls(data, instance, point.v)
        status = Status.SOLVED if good else Status.INACCURATE
        attempts = [(NAME, status, "", point.worst)]
        return engine.solution(data, point if good else None, instance, None, NAME, status, attempts)

    def _falls(self, data: Data, instance: Any, v: Floats) -> bool:
        if self._engine.convex(data.P, instance):
            return False
        return convexity.descent(instance, rotation(self._engine.cones, v)) is not None

    def _convex(self, data: Data, warm: Raw) -> Solution | None:
        """The solution of the program made convex; None if it cannot be made so, or has none."""
        structure = self._engine.structure
        n, zero = structure.n, structure.cones.zero
        if n > convexity.DENSE_NULL_SPACE:
            return None
        P, A = structure.P_matrix(data.P).toarray(), structure.A_matrix(data.A).toarray()
        strong = warm.y > STRONG * max(1.0, float(np.abs(warm.y).max(initial=0.0)))
        strong[:zero] = True
        Z, b = A[strong], data.b[strong]
        size = float(np.abs(P).max(initial=0.0)) / max(float(np.abs(Z.T @ Z).max(initial=0.0)), 1e-300)
        for weight in (0.0, *WEIGHTS):
            convex = P + weight * size * (Z.T @ Z)
            if convexity.semidefinite(convex.copy()):
                q = data.q - weight * size * (Z.T @ b)
                found = self._of(structure).solve(Data(convex.T.ravel(), q, data.A, data.b, data.d), warm=warm)
                return found if found.ok else None
        return None

    def _of(self, structure: Structure) -> Engine:
        """An engine for the same rows with a full P."""
        if self._dense is None:
            n = structure.n
            full = (np.tile(np.arange(n), n), np.repeat(np.arange(n), n))
            A = (structure.A_rows.astype(int), structure.A_cols.astype(int))
            self._dense = Engine(Structure.from_patterns(n, structure.cones, P=full, A=A))
        return self._dense
