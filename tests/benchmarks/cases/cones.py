"""Second-order cone and semidefinite programs."""

from __future__ import annotations

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import scipy.linalg as la
import torch

from ..model import Array, Case, Formulation, Reference, ReferenceFailed
from ..references import conic


def solved_tightly(formulation: Formulation, values: tuple[Array, ...]) -> cp.Problem:
    """The case's own problem, solved by Clarabel at 1e-11: a start for Newton, never an answer."""
    for parameter, value in zip(formulation.parameters, values, strict=True):
        parameter.value = value
    tolerances = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
    formulation.problem.solve(solver=cp.CLARABEL, **tolerances)
    if formulation.problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        raise ReferenceFailed(f"Clarabel status {formulation.problem.status}")
    return formulation.problem


@dataclass(frozen=True)
class BallRegression(Case):
    """min ‖Ax − b‖₂ subject to ‖x‖₂ ≤ r, with the ball tight; A, b, r parameters."""

    rows: int = 50
    n: int = 20

    group = "Second-order cones"

    @property
    def name(self) -> str:
        return f"ball_regression_{self.rows}x{self.n}"

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        x = cp.Variable(self.n, name="x")
        A, b = cp.Parameter((self.rows, self.n), name="A"), cp.Parameter(self.rows, name="b")
        r = cp.Parameter(nonneg=True, name="r")
        ball = cp.SOC(r, x) if bounds_as_rows else cp.norm(x) <= r  # CVXPY would bound the epigraph variable
        return Formulation(cp.Problem(cp.Minimize(cp.norm(A @ x - b)), [ball]), (A, b, r), x)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        A, b = rng.standard_normal((self.rows, self.n)), rng.standard_normal(self.rows)
        return A, b, np.array(0.5 * np.linalg.norm(la.lstsq(A, b)[0]))

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        """Minimize ½‖Ax − b‖² on the sphere: AᵀAx − Aᵀb + μx = 0, ½(xᵀx − r²) = 0, μ > 0 by bisection."""
        A, b, r = values
        eigenvalues, V = la.eigh(A.T @ A)
        rhs = V.T @ (A.T @ b)
        low, high = 0.0, float(np.linalg.norm(rhs) / r)
        for _ in range(200):
            mu = (low + high) / 2
            low, high = (mu, high) if np.linalg.norm(rhs / (eigenvalues + mu)) > r else (low, mu)
        x = V @ (rhs / (eigenvalues + mu))

        def lagrangian(x, y, A, b, r):
            return 0.5 * torch.sum((A @ x - b) ** 2) + y @ sphere(x, A, b, r)

        def sphere(x, A, b, r):
            return (0.5 * (x @ x - r**2)).reshape(1)

        x, y, gradients = conic.smooth_kkt(lagrangian, sphere, x, np.array([mu]), values, cotangent)
        return Reference(
            x=x, gradients=gradients, regular=y[0] > 1e-9, note=f"trust-region form, multiplier {y[0]:.1e}"
        )


@dataclass(frozen=True)
class ConeProgram(Case):
    """min ½‖x‖² + fᵀx subject to ‖A_i x + b_i‖₂ ≤ c_iᵀx + d_i, i < cones, with A_i 4×n; f, A, b, C, d parameters.

    Some cones are tight and some slack: CVXPY's epigraph variables of slack norms are not unique.
    """

    n: int = 50
    cones: int = 20

    group = "Second-order cones"

    @property
    def name(self) -> str:
        return self.sized(f"socp_{self.n}x{self.cones}")

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        n, k = self.n, self.cones
        x, f = cp.Variable(n, name="x"), cp.Parameter(n, name="f")
        A, b = cp.Parameter((4 * k, n), name="A"), cp.Parameter(4 * k, name="b")
        C, d = cp.Parameter((k, n), name="C"), cp.Parameter(k, name="d")
        cones = [cp.norm(A[4 * i : 4 * i + 4] @ x + b[4 * i : 4 * i + 4]) <= C[i] @ x + d[i] for i in range(k)]
        problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) + f @ x), cones)
        return Formulation(problem, (f, A, b, C, d), x)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        n, k = self.n, self.cones
        A, b = rng.standard_normal((4 * k, n)), rng.standard_normal(4 * k)
        C, x = rng.standard_normal((k, n)) / 4, rng.standard_normal(n) / np.sqrt(n)
        room = np.linalg.norm((A @ x + b).reshape(k, 4), axis=1) - C @ x
        return rng.standard_normal(n), A, b, C, room + 2 * rng.random(k)

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        formulation = self.formulate()
        problem = solved_tightly(formulation, values)
        k = self.cones
        press = np.array([float(c.dual_value) for c in problem.constraints])
        slack = np.array([float(c.expr.value) for c in problem.constraints]) * -1
        tight = torch.from_numpy(np.flatnonzero(press > slack))

        def gap(x, f, A, b, C, d):
            return (torch.linalg.vector_norm((A @ x + b).reshape(k, 4), dim=1) - C @ x - d)[tight]

        def lagrangian(x, y, f, A, b, C, d):
            return 0.5 * x @ x + f @ x + y @ gap(x, f, A, b, C, d)

        start = np.asarray(formulation.variable.value)
        x, y, gradients = conic.smooth_kkt(lagrangian, gap, start, press[tight.numpy()], values, cotangent)
        _, A, b, C, d = values
        left = C @ x + d - np.linalg.norm((A @ x + b).reshape(k, 4), axis=1)
        left[tight.numpy()] = np.inf
        margin = float(min(y.min(initial=np.inf), left.min()))
        note = f"{tight.numel()} of {k} cones tight, margin {margin:.1e}"
        return Reference(x=x, gradients=gradients, regular=margin > 1e-9, note=note)


@dataclass(frozen=True)
class EntropyProgram(Case):
    """max tᵀz + Σ entr(z_i) subject to 1ᵀz = 1, Gz ≤ h; t, G, h parameters: exponential cones, no closed form."""

    n: int = 10
    inequalities: int = 3

    group = "Exponential cones"

    @property
    def name(self) -> str:
        return self.sized(f"entropy_{self.n}_{self.inequalities}")

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        z, t = cp.Variable(self.n, name="z"), cp.Parameter(self.n, name="t")
        G, h = cp.Parameter((self.inequalities, self.n), name="G"), cp.Parameter(self.inequalities, name="h")
        problem = cp.Problem(cp.Maximize(t @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1, G @ z <= h])
        return Formulation(problem, (t, G, h), z)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        z, G = rng.dirichlet(np.ones(self.n)), rng.standard_normal((self.inequalities, self.n))
        return rng.standard_normal(self.n), G, G @ z + 0.1 * rng.random(self.inequalities)

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        formulation = self.formulate()
        problem = solved_tightly(formulation, values)
        z, (_, G, h) = np.asarray(formulation.variable.value), values
        press, slack = np.asarray(problem.constraints[1].dual_value), h - G @ z
        tight = torch.from_numpy(np.flatnonzero(press > slack))

        def gap(z, t, G, h):
            return torch.cat([(torch.sum(z) - 1.0).reshape(1), (G @ z - h)[tight]])

        def lagrangian(z, y, t, G, h):
            return -t @ z + torch.sum(torch.xlogy(z, z)) + y @ gap(z, t, G, h)

        start = np.concatenate([[float(problem.constraints[0].dual_value)], press[tight.numpy()]])
        z, y, gradients = conic.smooth_kkt(lagrangian, gap, z, start, values, cotangent)
        left = h - G @ z
        left[tight.numpy()] = np.inf
        margin = float(min(y[1:].min(initial=np.inf), left.min(), z.min()))
        note = f"{tight.numel()} of {len(h)} rows tight, margin {margin:.1e}"
        return Reference(x=z, gradients=gradients, regular=margin > 1e-9, note=note)


@dataclass(frozen=True)
class NearestCorrelation(Case):
    """argmin ½‖X − C‖_F² subject to diag X = 1, X ≽ 0; C a parameter."""

    n: int = 30

    group = "Semidefinite cones"

    @property
    def name(self) -> str:
        return f"sdp_correlation_{self.n}"

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        X, C = cp.Variable((self.n, self.n), PSD=True, name="X"), cp.Parameter((self.n, self.n), name="C")
        return Formulation(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(X - C)), [cp.diag(X) == 1]), (C,), X)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        C = rng.uniform(-1, 1, (self.n, self.n))
        C = (C + C.T) / 2
        np.fill_diagonal(C, 1)
        return (C,)

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        X, gradient, margin = conic.nearest_correlation(values[0], cotangent)
        return Reference(x=X, gradients=(gradient,), regular=margin > 1e-9, note=f"dual Newton, margin {margin:.1e}")


@dataclass(frozen=True)
class MaxCut(Case):
    """argmin tr(CX) subject to diag X = 1, X ≽ 0, the relaxation of a maximum cut; C a parameter."""

    n: int = 30

    group = "Semidefinite cones"

    @property
    def name(self) -> str:
        return f"sdp_maxcut_{self.n}"

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        X, C = cp.Variable((self.n, self.n), PSD=True, name="X"), cp.Parameter((self.n, self.n), name="C")
        return Formulation(cp.Problem(cp.Minimize(cp.trace(C @ X)), [cp.diag(X) == 1]), (C,), X)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        C = rng.standard_normal((self.n, self.n))
        return (C + C.T,)

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        formulation = self.formulate()
        solved_tightly(formulation, values)
        X = np.asarray(formulation.variable.value)
        X = (X + X.T) / 2
        sym = (values[0] + values[0].T) / 2
        # SX = 0 on the diagonal, (CX)_ii = y_i X_ii = y_i, starts the multiplier.
        X, gradient, margin = conic.diagonal_sdp(values[0], X, np.diag(sym @ X).copy(), cotangent)
        return Reference(x=X, gradients=(gradient,), regular=margin > 1e-9, note=f"XS + SX = 0, margin {margin:.1e}")
