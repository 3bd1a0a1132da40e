"""Symmetric indefinite factorizations of the reduced KKT matrix, each solve with its certificate.

    K = [ P   A_rᵀ ;  A_r   −H ]        K u = f

Dense: Bunch–Kaufman LDLᵀ (LAPACK sytrf) with its 1-norm condition estimate (sycon); sparse ones are in
`cvxift.kkt.system.sparse_factor`. A factorization may be that of a shifted K + δ·diag(I, −I): refinement against K
itself leaves no trace of δ in the result. Refinement converges to a solution whenever K u = f has one, also when K is
singular; where it does not, the residual says so, and `LeastSquares` gives the least-squares solution of least norm.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from scipy.linalg import lapack

from cvxift._types import EPS, cached_property
from cvxift.kkt.system.assembly import equilibrate, scale_symmetric
from cvxift.program.structure import Floats

_lapack: Any = lapack  # its functions are made at import, unseen by type checkers

REFINE_STEPS = 8
SHIFTED_STEPS = 40  # for an LU of the shifted K, which converges wherever K u = f has a solution, if slowly
REFINE_GOAL = 1e-14  # refinement stops at this relative residual, or when it stops helping
CONSISTENT = 1e-9  # relative residual up to which K u = f counts as solved
SINGULAR_RCOND = 1e-14  # reciprocal condition (after equilibration) under which K counts as singular
POOR_RCOND = 1e-9  # reciprocal condition under which equilibration is worth its cost
MOST_ROUNDING = 1e-6  # largest relative residual that is put down to rounding where K is ill-conditioned
DENSE_DELTA = 1e-8  # the shift of a singular dense K, relative to the equilibrated K


@dataclass(frozen=True, eq=False)
class Certificate:
    """What is known of one linear solve.

    Attributes:
        residual: ‖f − K u‖∞ / ‖f‖∞ (0 when f = 0).
        source: the condition estimate, or what computes it when asked.
        method: how the system was solved.
        iterations: refinement steps, or iterations of an iterative method.
        message: an iterative method's stopping reason, else empty.
        rounding: what rounding alone leaves of the residual, known where the residual is above the threshold: a few
            units of ‖|K||u|‖∞ / ‖f‖∞, which is large where K is ill-conditioned and f not along its large directions.
    """

    residual: float
    source: float | Factor
    method: str
    iterations: int = 0
    message: str = ""
    rounding: float = 0.0

    @property
    def condition(self) -> float:
        """Estimate of K's 1-norm condition number, after equilibration where that was needed.

        A sparse K's takes about ten more solves, so it is made when it is first asked for.
        """
        return self.source.condition if isinstance(self.source, Factor) else self.source

    @property
    def consistent(self) -> bool:
        """Whether the system was solved: the derivative asked for exists as far as linear algebra can tell.

        A residual of rounding is the backward error of a K that is known to rounding alone. Where K is poorly scaled,
        but well-conditioned once it is equilibrated, the solution is right however large that is beside f.
        """
        if self.residual <= max(CONSISTENT, min(self.rounding, MOST_ROUNDING)):
            return True
        return self.residual <= self.rounding and self.condition <= 1.0 / POOR_RCOND

    def __str__(self) -> str:
        stop = f", {self.message}" if self.message else ""
        return f"relative residual {self.residual:.1e}, condition ≈ {self.condition:.1e} ({self.method}{stop})"


class Factor(abc.ABC):
    """A factorization of one symmetric K: `solve` returns u with K u = f for f of shape (N,) or (N, k)."""

    method: str
    K: Any
    steps = REFINE_STEPS
    further = 0  # steps beyond the goal: one gives every entry its own relative accuracy (Skeel 1980)
    stall = 0.5  # refinement stops where a step leaves more than this of the residual

    @abc.abstractmethod
    def apply_inverse(self, f: Floats) -> Floats:
        """One application of the factors, without refinement."""

    @abc.abstractmethod
    def estimate(self) -> float:
        """Compute `condition`."""

    @cached_property
    def condition(self) -> float:
        """Estimate of the 1-norm condition number; infinite when singular to working precision."""
        return self.estimate()

    def solve(self, f: Floats) -> tuple[Floats, float, int]:
        """Solve with iterative refinement.

        Args:
            f: right-hand side, shape (N,) or (N, k).

        Returns:
            the solution, the worst relative residual over the columns, and the number of refinement steps.
        """
        u = self.apply_inverse(f)
        scale = column_size(f)
        residual = f - self.K @ u
        best = relative_size(residual, scale)
        steps, further = 0, self.further
        while steps < self.steps:
            if best <= REFINE_GOAL:
                if not further:
                    break
                further -= 1
            trial = u + self.apply_inverse(residual)
            trial_residual = f - self.K @ trial
            error = relative_size(trial_residual, scale)
            steps += 1
            if not error < max(best, REFINE_GOAL):
                break
            stalled = error > self.stall * best
            u, residual, best = trial, trial_residual, error
            if stalled:
                break
        return u, best, steps

    def certified(self, f: Floats) -> tuple[Floats, Certificate]:
        """Solve as `solve` does, and say what the solution is worth.

        Args:
            f: right-hand side, shape (N,) or (N, k).
        """
        u, residual, steps = self.solve(f)
        rounding = 0.0
        if CONSISTENT < residual < math.inf:
            rounding = relative_size(4.0 * EPS * (abs(self.K) @ np.abs(u)), column_size(f))
        return u, Certificate(residual, self, self.method, steps, rounding=rounding)


class DenseFactor(Factor):
    """Bunch–Kaufman LDLᵀ of a dense symmetric K, shape (N, N); equilibrated first where K is poorly scaled."""

    method = "dense LDLᵀ"

    def __init__(self, K: Floats) -> None:
        self.K = K
        self.scale: Floats | None = None
        self._factorize(K)
        if self.rcond < POOR_RCOND and len(K):
            scale = equilibrate(K)
            self.scale = scale
            self._factorize(scale[:, None] * K * scale[None, :])

    def _factorize(self, K: Floats) -> None:
        size = len(K)
        if not size:
            self.rcond = 1.0
            return
        self._ldu, self._pivots, info = _lapack.dsytrf(K, lower=1, lwork=32 * size)
        if info:
            self.rcond = 0.0
            return
        self.rcond = float(_lapack.dsycon(self._ldu, self._pivots, _lapack.dlange("1", K), lower=1)[0])

    @property
    def singular(self) -> bool:
        """Whether K is singular to working precision; also where K is not finite, which makes the estimate NaN."""
        return not self.rcond >= SINGULAR_RCOND

    def estimate(self) -> float:
        """1-norm condition estimate of K, after equilibration where that was needed."""
        return 1.0 / self.rcond if self.rcond > 0 else math.inf

    def apply_inverse(self, f: Floats) -> Floats:
        """One solve with the factors."""
        if not len(self.K):
            return f.copy()
        if self.scale is None:
            return _lapack.dsytrs(self._ldu, self._pivots, f, lower=1)[0]
        scale = self.scale if f.ndim == 1 else self.scale[:, None]
        return scale * _lapack.dsytrs(self._ldu, self._pivots, scale * f, lower=1)[0]


class ShiftedFactor(DenseFactor):
    """LDLᵀ of an equilibrated dense K that may be singular, shifted by δJ, J = diag(I, −I).

    It costs a fraction of the spectral decomposition that `LeastSquares` takes. Refinement converges wherever K u = f
    has a solution (see `LuFactor`). Rounding errors over δ go into the null space meanwhile. As J maps it to itself,
    (K + δJ)⁻¹δJ is the identity on it and O(δ/σ) elsewhere: subtracting that of u leaves the solution of least norm (in
    the equilibrated scale), up to what one more step puts back.

    Args:
        K: symmetric dense array, shape (N, N).
        n: size of the first block, which is shifted upwards; the rest is shifted downwards.
    """

    method = "shifted dense LDLᵀ"
    steps = SHIFTED_STEPS
    stall = 0.9

    def __init__(self, K: Floats, n: int) -> None:
        self.K = K
        self.scale = equilibrate(K)
        shifted = self.scale[:, None] * K * self.scale[None, :]
        self._shift = np.where(np.arange(len(K)) < n, DENSE_DELTA, -DENSE_DELTA)
        shifted.reshape(-1)[:: len(K) + 1] += self._shift
        self._factorize(shifted)

    def solve(self, f: Floats) -> tuple[Floats, float, int]:
        """As `Factor.solve`; the solution of least norm."""
        assert self.scale is not None
        if self.rcond == 0.0:  # the shift has hit an eigenvalue
            return np.zeros_like(f), math.inf, 0
        u, _, steps = super().solve(f)
        # In the scaled variables z = u/c, apply_inverse(f) = c (cKc + δJ)⁻¹ c f.
        weight = self._shift / self.scale**2
        u = u - self.apply_inverse((weight if f.ndim == 1 else weight[:, None]) * u)
        u += self.apply_inverse(f - self.K @ u)
        return u, relative_size(f - self.K @ u, column_size(f)), steps + 2

    def error(self, f: Floats, u: Floats) -> float:
        """Estimate of a solution's relative error: what one more step of refinement would change, null space apart.

        A small residual says little where K has small singular values besides its null ones: a step divides by them.
        """
        assert self.scale is not None
        weight, scale = self._shift / self.scale**2, self.scale
        if f.ndim > 1:
            weight, scale = weight[:, None], scale[:, None]
        step = self.apply_inverse(f - self.K @ u)
        step = step - self.apply_inverse(weight * step)
        return relative_size(step / scale, column_size(u / scale))


@dataclass(frozen=True)
class LeastSquares:
    """Minimum-norm least-squares solutions of a singular K u = f.

    Dense K: spectral decomposition of the equilibrated K, eigenvalues below `tolerance` of the largest dropped. Sparse
    K: the Tikhonov system [ I  K ; K  −ε²I ] [r; u] = [f; 0], by LU, iterated so that ε leaves no trace.
    """

    K: Any
    scale: Floats
    tolerance: float = 1e-11
    epsilon: float = 1e-6

    @cached_property
    def _eigen(self):
        values, vectors = np.linalg.eigh(self.scale[:, None] * self.K * self.scale[None, :])
        keep = np.abs(values) > self.tolerance * np.abs(values).max(initial=0.0)
        return values, vectors, keep

    @cached_property
    def _augmented(self):
        K = scale_symmetric(self.K, self.scale)
        eye = sp.eye_array(len(self.scale), format="csc")
        return sla.splu(sp.block_array([[eye, K], [K, -(self.epsilon**2) * eye]], format="csc")), K

    def _tikhonov(self, f: Floats) -> tuple[Floats, int]:
        """Minimum-norm solution of the equilibrated sparse system, and the number of solves it took."""
        solver, K = self._augmented
        size = len(f)
        nothing = np.zeros(size)
        u, steps = np.zeros(size), 0
        while steps < 20:
            steps += 1
            step = solver.solve(np.concatenate([f - K @ u, nothing]))[size:]
            u += step
            if np.abs(step).max(initial=0.0) <= 1e-13 * np.abs(u).max(initial=0.0):
                break
        # Rounding errors over ε² have gone into the null space. The system's first block projects on it, up to ε² of
        # what lies outside, which one more step puts back.
        fitted = K @ u
        u -= solver.solve(np.concatenate([u, nothing]))[:size]
        u += solver.solve(np.concatenate([fitted - K @ u, nothing]))[size:]
        return u, steps + 2

    def solve(self, f: Floats) -> tuple[Floats, float, int]:
        """As `Factor.solve`; the residual tells whether f lies in the range of K."""
        if f.ndim == 2:
            parts = [self.solve(np.ascontiguousarray(column)) for column in f.T]
            u = np.stack([part[0] for part in parts], axis=1) if parts else np.empty_like(f)
            return u, max((part[1] for part in parts), default=0.0), max((part[2] for part in parts), default=0)
        scaled = self.scale * f
        steps = 0
        if sp.issparse(self.K):
            u, steps = self._tikhonov(scaled)
        else:
            values, vectors, keep = self._eigen
            kept = vectors[:, keep]
            u = kept @ ((kept.T @ scaled) / values[keep])
            u += kept @ ((kept.T @ (scaled - self.scale * (self.K @ (self.scale * u)))) / values[keep])
        u = self.scale * u
        return u, relative_size(f - self.K @ u, column_size(f)), steps


def column_size(f: Floats) -> Any:
    """‖·‖∞ of a vector, or of each column."""
    return np.maximum.reduce(np.abs(f), axis=0, initial=0.0)


def relative_size(residual: Floats, scale: Any) -> float:
    """Worst relative residual over the columns; a NaN or infinite one is infinite."""
    size = column_size(residual)
    if residual.ndim == 1:
        worst = float(size / scale) if scale > 0 else 0.0
    else:
        worst = float(np.max(np.divide(size, scale, out=np.zeros_like(size), where=scale > 0), initial=0.0))
    return worst if math.isfinite(worst) else math.inf
