"""Total-variation denoising."""

from __future__ import annotations

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from ..model import QP, Array, Case, Formulation, Reference
from ..references import closed
from ..references.qp import tight


@dataclass(frozen=True)
class TotalVariation(Case):
    """argmin ½‖x − θ‖² + λ tv(x), θ and λ parameters; θ is a step signal with noise of deviation 0.3, λ = 1."""

    n: int = 1000

    group = "Total-variation denoising"
    floors = ("piqp", "clarabel")

    @property
    def name(self) -> str:
        return f"tv_{self.n}"

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        x, theta = cp.Variable(self.n, name="x"), cp.Parameter(self.n, name="theta")
        weight = cp.Parameter(nonneg=True, name="lambda")
        problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - theta) + weight * cp.tv(x)))
        return Formulation(problem, (theta, weight), x)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        steps = np.repeat(rng.standard_normal(self.n // 50), 50)
        return steps + 0.3 * rng.standard_normal(self.n), np.array(1.0)

    def qp(self, values: tuple[Array, ...]) -> QP:
        """Variables x (n) and t (n − 1) with −t ≤ Dx ≤ t."""
        theta, weight = values
        n = self.n
        D = sp.diags_array([-np.ones(n - 1), np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n))
        eye = sp.eye_array(n - 1)
        P = sp.diags_array(np.concatenate([np.ones(n), np.zeros(n - 1)]), format="csc")
        A = sp.csc_array(sp.block_array([[D, -eye], [-D, -eye]]))
        q = np.concatenate([-theta, np.full(n - 1, float(weight))])
        return QP(sp.csc_array(P), q, A, np.full(2 * n - 2, -np.inf), np.zeros(2 * n - 2))

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        guess = tight(self.qp(values))[0][: self.n]
        x, theta_bar, weight_bar, margin = closed.total_variation(values[0], float(values[1]), guess, cotangent)
        note = f"certified jumps, margin {margin:.1e}"
        return Reference(x=x, gradients=(theta_bar, np.array(weight_bar)), regular=margin > 1e-9, note=note)
