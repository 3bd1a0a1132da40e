"""Minimum-norm least-squares solutions of a KKT system that has no solution, or where refinement does not end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from cvxift._types import cached_property
from cvxift.kkt.system.assembly import scale_symmetric
from cvxift.kkt.system.factor import column_size, relative_size
from cvxift.program.structure import Floats


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
