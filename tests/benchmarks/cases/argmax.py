"""Regularized argmax problems, recognized and through the generic path: softmax, sparsemax, simplex projection."""

from __future__ import annotations

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from ..model import QP, Array, Case, Formulation, Reference
from ..references import closed


@dataclass(frozen=True)
class Softmax(Case):
    """max θᵀx + Σ entr(x) on the simplex."""

    n: int = 10

    group = "Softmax"
    closed_form = True

    @property
    def name(self) -> str:
        return f"softmax_{self.n}"

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        x, theta = cp.Variable(self.n, name="x"), cp.Parameter(self.n, name="theta")
        problem = cp.Problem(cp.Maximize(theta @ x + cp.sum(cp.entr(x))), [cp.sum(x) == 1])
        return Formulation(problem, (theta,), x)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        return (rng.standard_normal(self.n),)

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        z, gradient = closed.softmax(values[0], cotangent)
        return Reference(x=z, gradients=(gradient,), note="closed form")


@dataclass(frozen=True)
class Sparsemax(Case):
    """max θᵀx − ½‖x‖² on the simplex (A. Martins, R. Astudillo, 2016)."""

    n: int = 10

    group = "Sparsemax"
    closed_form = True
    floors = ("daqp", "piqp", "clarabel")

    @property
    def name(self) -> str:
        return f"sparsemax_{self.n}"

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        x, theta = cp.Variable(self.n, name="x"), cp.Parameter(self.n, name="theta")
        bound = 2 * x >= 0 if bounds_as_rows else x >= 0
        problem = cp.Problem(cp.Maximize(theta @ x - 0.5 * cp.sum_squares(x)), [cp.sum(x) == 1, bound])
        return Formulation(problem, (theta,), x)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        return (rng.standard_normal(self.n),)

    def qp(self, values: tuple[Array, ...]) -> QP:
        n = self.n
        A = sp.csc_array(sp.vstack([np.ones((1, n)), sp.eye_array(n)]))
        upper = np.concatenate([[1.0], np.full(n, np.inf)])
        return QP(sp.csc_array(sp.eye_array(n)), -values[0], A, np.concatenate([[1.0], np.zeros(n)]), upper)

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        z, gradient, margin = closed.simplex(values[0], cotangent)
        return Reference(x=z, gradients=(gradient,), regular=margin > 1e-9, note=f"closed form, margin {margin:.1e}")


@dataclass(frozen=True)
class SimplexProjection(Sparsemax):
    """argmin ‖x − θ‖² on the simplex.

    Attributes:
        spread: ``False`` for standard normal θ, whose projection has a handful of non-zeros; ``True`` for θ scaled so
            that about half of the entries stay positive, which leaves margins of about 1/n² at the kink.
    """

    spread: bool = False

    group = "Projection onto the simplex"

    @property
    def name(self) -> str:
        return f"simplex{'_spread' if self.spread else ''}_{self.n}"

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        x, theta = cp.Variable(self.n, name="x"), cp.Parameter(self.n, name="theta")
        bound = 2 * x >= 0 if bounds_as_rows else x >= 0
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [cp.sum(x) == 1, bound])
        return Formulation(problem, (theta,), x)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        return (rng.standard_normal(self.n) * (2.5 / self.n if self.spread else 1.0),)
