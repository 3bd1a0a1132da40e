"""What the diagnosis needs to know of a function at a point, in NumPy; each framework supplies it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg as sl
import scipy.sparse.linalg as sla

from cvxift.implicit.residual import tolerance_of
from cvxift.implicit.settings import Settings

Vector = np.ndarray
EXACT = 500  # unknowns up to which the matrix is formed
_linear_operator: Any = sla.LinearOperator  # its __new__ dispatches, unseen by type checkers


@dataclass(frozen=True, eq=False)
class Oracle:
    """F(w, θ) at a point; w is x, or (x, ν, λ) of a constrained minimizer.

    Attributes:
        settings: what the function is made of.
        w: the point, shape (N,).
        theta: the floating entries of the arguments θ, side by side, shape (M,).
        variables: number of entries of x, the first ones of w.
        sizes: numbers of entries of G and H.
        active: which rows of H are active, shape (m,).
        margins: how far each is from being tight without a multiplier, relative, shape (m,).
        eps: unit of rounding of the dtype in which F is computed.
        function: (w, θ) ↦ F.
        tangent: (w, θ, ẇ, θ̇) ↦ F_w ẇ + F_θ θ̇.
        matvec: v ↦ J v, J = F_w at the point.
        rmatvec: v ↦ Jᵀ v.
        matrix: J, shape (N, N); to be called for small N only.
        derivative: θ̇ ↦ ẋ by the rule, with the function's own linear solver.
        solver: θ ↦ x by the user's solver.
        entry: index of w ↦ name.
        theta_entry: index of θ ↦ name.
    """

    settings: Settings
    w: Vector
    theta: Vector
    variables: int
    sizes: tuple[int, int]
    active: Vector
    margins: Vector
    eps: float
    function: Callable[[Vector, Vector], Vector]
    tangent: Callable[[Vector, Vector, Vector, Vector], Vector]
    matvec: Callable[[Vector], Vector]
    rmatvec: Callable[[Vector], Vector]
    matrix: Callable[[], Vector]
    derivative: Callable[[Vector], Vector]
    solver: Callable[[Vector], Vector]
    entry: Callable[[int], str]
    theta_entry: Callable[[int], str]

    @property
    def weak(self) -> Vector:
        """Which rows of H are tight without a multiplier, shape (m,)."""
        return self.margins <= (self.settings.tolerance or tolerance_of(self.eps))


def newton(oracle: Oracle, theta: Vector, steps: int = 12) -> Vector:
    """x at parameters near the oracle's, by Newton's method with the Jacobian of the oracle's point.

    Its error falls by the parameters' relative change in each step.

    Args:
        oracle: F at a point.
        theta: the parameters, shape (M,).
        steps: how many.
    """
    w = oracle.w.copy()
    if len(w) <= EXACT:
        factors = sl.lu_factor(oracle.matrix(), check_finite=False)

        def step(residual: Vector) -> Vector:
            return sl.lu_solve(factors, residual, check_finite=False)
    else:
        operator: Any = _linear_operator((len(w), len(w)), matvec=lambda v: oracle.matvec(v.ravel()), dtype=float)

        def step(residual: Vector) -> Vector:
            return sla.gmres(operator, residual, rtol=1e-10, restart=50)[0]

    for _ in range(steps):
        w = w - step(oracle.function(w, theta))
    return w[: oracle.variables]
