"""Matrix-free solution of the KKT system, for programs too large to factorize.

The unreduced Jacobian  J = [ P  Aᵀ(D − I) ; A  D ]  needs products with P, A and D only. J (u, v) = (g, h) gives u and
w = (D − I) v, the same pair that the reduced system gives. LSMR (Fong & Saunders 2011) solves it after diagonal
scaling; it returns the minimum-norm least-squares solution when J is singular.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from cvxift import cones as cone
from cvxift.kkt.instance import Instance
from cvxift.kkt.policy import Iterative
from cvxift.kkt.system.factor import Certificate, equilibrate
from cvxift.program.structure import Floats

_linear_operator: Any = sla.LinearOperator  # its __new__ dispatches, unseen by type checkers

_REASONS = {
    0: "the right-hand side is zero",
    1: "solved to the tolerance",
    2: "least-squares solution to the tolerance",
    3: "condition limit",
    4: "solved to machine precision",
    5: "least-squares solution to machine precision",
    6: "condition limit of machine precision",
    7: "iteration limit",
}


class IterativeSystem:
    """Solves the KKT system of an instance at v without forming it; same `solve` as `ReducedSystem`.

    Args:
        instance: the program's matrices.
        v: s − y, shape (m,).
        options: tolerance and iteration limit.

    Attributes:
        spectrum: of D, made once: the eigenvectors of a matrix cone cost more than all products with them.
    """

    singular = "least_squares"

    def __init__(self, instance: Instance, v: Floats, options: Iterative) -> None:
        self.instance, self.v, self.options = instance, v, options
        self.n, self.m = instance.structure.n, instance.structure.m
        structure = instance.structure
        A, AT = instance.A, instance.AT
        P = sp.csc_array(instance.P)
        eye = sp.eye_array(self.m) if self.m else None
        pattern = sp.csc_array(sp.block_array([[P, sp.csc_array(AT)], [sp.csc_array(A), eye]], format="csc"))
        self.scale = equilibrate(pattern)
        self.spectrum = cone.spectrum(structure.cones, v)
        tilt = self._tilt = self.spectrum.apply

        def forward(z: Floats) -> Floats:
            z = self.scale * z
            u, t = z[: self.n], z[self.n :]
            Dt = tilt(t)
            return self.scale * np.concatenate([P @ u + AT @ (Dt - t), A @ u + Dt])

        def backward(z: Floats) -> Floats:
            z = self.scale * z
            u, t = z[: self.n], z[self.n :]
            Au = A @ u
            return self.scale * np.concatenate([P @ u + AT @ t, tilt(Au + t) - Au])

        size = self.n + self.m
        self._J = _linear_operator((size, size), matvec=forward, rmatvec=backward, dtype=float)

    def solve(self, g: Floats, h: Floats | None) -> tuple[Floats, Floats, Certificate]:
        """Solve for (u, w), each column by itself.

        Args:
            g: right-hand side on columns, shape (n,) or (k, n).
            h: right-hand side on rows, shape (m,) or (k, m); None for zero.

        Returns:
            u and w, of the shapes of g and (..., m), and the certificate of the worst column.
        """
        if h is None:
            h = np.zeros((*g.shape[:-1], self.m))
        if g.ndim == 1:
            return self._solve(g, h)
        parts = [self._solve(column, row) for column, row in zip(g, h, strict=True)]
        if not parts:
            return np.zeros_like(g), np.zeros_like(h), Certificate(0.0, 1.0, "LSMR")
        worst = max((part[2] for part in parts), key=lambda certificate: certificate.residual)
        return np.stack([part[0] for part in parts]), np.stack([part[1] for part in parts]), worst

    def _solve(self, g: Floats, h: Floats) -> tuple[Floats, Floats, Certificate]:
        f = self.scale * np.concatenate([g, h])
        size = len(f)
        tolerance = self.options.tolerance
        limit = self.options.max_iterations or 4 * size
        # Tangents through exponential cones may be far below the largest, and are wanted to their own size.
        rounds = 2 if self.instance.structure.cones.exp else 1
        z, reason, iterations, condition = np.zeros(size), 0, 0, 1.0
        for _ in range(rounds):
            if iterations >= limit:
                break
            step, reason, taken, _, _, _, condition, _ = sla.lsmr(
                self._J, f - self._J.matvec(z), atol=tolerance, btol=tolerance, conlim=0.0, maxiter=limit - iterations
            )
            z, iterations = z + step, iterations + taken
        norm = float(np.abs(f).max(initial=0.0))
        residual = float(np.abs(f - self._J.matvec(z)).max(initial=0.0)) / norm if norm > 0 else 0.0
        z = self.scale * z
        u, t = z[: self.n], z[self.n :]
        return (
            u,
            self._tilt(t) - t,
            Certificate(residual, float(condition), "LSMR", int(iterations), _REASONS[int(reason)]),
        )
