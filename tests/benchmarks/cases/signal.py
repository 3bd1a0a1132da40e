"""Total-variation denoising, sparse regression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from ..model import QP, Array, Case, Formulation, Reference
from ..references import closed
from ..references.qp import certified, tight
from .qp import reference_of


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


@dataclass(frozen=True)
class TallLasso(Case):
    """argmin ½‖Aw − b‖² + λ‖w‖₁ for a constant A of five times as many rows as columns; b and λ parameters, λ = 0.1."""

    rows: int = 500

    group = "Sparse regression"
    floors = ("piqp", "clarabel")

    @property
    def name(self) -> str:
        return f"lasso_{self.rows}x{self.rows // 5}"

    @cached_property
    def A(self) -> Array:
        rng = np.random.default_rng(self.rows)
        return rng.standard_normal((self.rows, self.rows // 5)) / np.sqrt(self.rows)

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        w, b = cp.Variable(self.rows // 5, name="w"), cp.Parameter(self.rows, name="b")
        weight = cp.Parameter(nonneg=True, name="lambda")
        problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(self.A @ w - b) + weight * cp.norm1(w)))
        return Formulation(problem, (b, weight), w)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        n = self.rows // 5
        w = rng.standard_normal(n) * (rng.random(n) < 0.2)
        return self.A @ w + 0.1 * rng.standard_normal(self.rows), np.array(0.1)

    def qp(self, values: tuple[Array, ...]) -> QP:
        """Variables w and t with −t ≤ w ≤ t; the rows of A are gone."""
        b, weight = values
        n = self.rows // 5
        eye = sp.eye_array(n)
        P = sp.csc_array(sp.block_diag([self.A.T @ self.A, sp.csc_array((n, n))]))
        rows = sp.csc_array(sp.block_array([[eye, -eye], [-eye, -eye]]))
        q = np.concatenate([-self.A.T @ b, np.full(n, float(weight))])
        return QP(P, q, rows, np.full(2 * n, -np.inf), np.zeros(2 * n))

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        n = self.rows // 5
        point = certified(self.qp(values))
        w, _ = point.vjp(np.concatenate([cotangent, np.zeros(n)]))
        # q = (−Aᵀb, λ1) and q̄ = −(w_w, w_t).
        return reference_of(point, point.x[:n], (self.A @ w[:n], np.array(-w[n:].sum())))
