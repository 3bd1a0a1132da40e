"""The reduced KKT system of one point: assembled from the cones' spectrum, solved under the policy for singular systems.

With D = DΠ_K(v) = Q diag(d) Qᵀ, the directions with d = 1 (slack) carry no multiplier change and leave; those with d = 0 (tight) stay as equality
rows; those between carry the cone's curvature:

    K = [ P   A_rᵀ ;  A_r   −H ],    A_r = Q_rᵀ A,    H = diag(d_r / (1 − d_r)),    r = {i : d_i < 1}

One symmetric system serves both modes. `solve(g, h)` returns (u, w) with

    P u + Aᵀ w = g,    Q_rᵀ(A u − h) = H Q_rᵀ w,    w in the span of Q_r.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
import scipy.sparse as sp

from cvxift import cones as cone
from cvxift.errors import ApplicabilityError
from cvxift.kkt.factor import Certificate, DenseFactor, Factor, LeastSquares, SparseFactor, equilibrate
from cvxift.kkt.instance import Instance
from cvxift.program.products import apply
from cvxift.program.structure import Floats

Singular = Literal["least_squares", "regularize", "smooth", "raise"]
SINGULAR = get_args(Singular)
PROXIMAL = 1e-6  # weight of the proximal term under singular="regularize", relative to the largest entry of K


class Rotation(NamedTuple):
    """The kept directions Q_r of the spectrum: an index array when K is polyhedral, else a sparse (m, r) matrix; with their H.

    Attributes:
        rows: indices of the kept rows, shape (r,), or Q_r, shape (m, r).
        h: diagonal of H, shape (r,); None when it is zero.
        slack: the left-out directions Q_1, same kind; None when polyhedral (the complement of the index array).
        kept: 1 − d of the kept directions, shape (r,); None when all ones.
    """

    rows: np.ndarray | sp.csr_array
    h: Floats | None
    slack: sp.csr_array | None = None
    kept: Floats | None = None

    def reduce(self, value: Floats) -> Floats:
        """Q_rᵀ value, along the last axis."""
        return value[..., self.rows] if isinstance(self.rows, np.ndarray) else apply(self.rows.T, value)

    def restore(self, value: Floats, m: int) -> Floats:
        """Q_r value, along the last axis."""
        if not isinstance(self.rows, np.ndarray):
            return apply(self.rows, value)
        out = np.zeros((*value.shape[:-1], m))
        out[..., self.rows] = value
        return out

    def same(self, other: Rotation) -> bool:
        """Whether both are the same polyhedral active set, so that a factorization may serve for both."""
        return (
            isinstance(self.rows, np.ndarray)
            and isinstance(other.rows, np.ndarray)
            and len(self.rows) == len(other.rows)
            and bool(np.all(self.rows == other.rows))
        )


def rotation(cones: cone.Cones, v: Floats, spectrum: cone.Spectrum | None = None) -> Rotation:
    """The kept directions at v = s − y.

    Args:
        cones: the product cone.
        v: the point, shape (m,).
        spectrum: the spectrum of DΠ_K(v) or of its smoothing; computed when absent.
    """
    if cones.polyhedral and spectrum is None:
        # D is 0 on zero rows; on a nonnegative row it is 1 where v > 0. v = 0 is the kink: it is counted as slack and reported by the margin.
        tight = np.flatnonzero(v[cones.zero :] < 0.0)
        if cones.zero:
            tight = np.concatenate([np.arange(cones.zero), tight + cones.zero])
        return Rotation(tight, None)
    spectrum = cone.spectrum(cones, v) if spectrum is None else spectrum
    d = spectrum.d
    basis = spectrum.basis().tocsc()
    keep = np.flatnonzero(d < 1.0)
    slack = np.flatnonzero(d == 1.0)
    kept = spectrum.complement[keep]
    return Rotation(basis[:, keep].tocsr(), d[keep] / kept, basis[:, slack].tocsr(), kept)


class ReducedSystem:
    """The reduced KKT system of an instance at a point, factorized when first used.

    Args:
        instance: the program's matrices.
        rotation: the kept directions at the point.
        singular: what to do when the system is singular or nearly so: ``"least_squares"`` (minimum-norm solution; right wherever the derivative
            exists), ``"regularize"`` (proximal term), ``"smooth"`` (as least squares; the point and its D are the central path's), ``"raise"``.
        proximal: weight of the proximal term under ``"regularize"``, relative to the largest entry of K.

    Raises:
        ApplicabilityError: from `solve`, under ``"raise"``, when the system is singular to working precision.
    """

    def __init__(
        self, instance: Instance, rotation: Rotation, singular: Singular = "least_squares", proximal: float = PROXIMAL
    ) -> None:
        self.instance, self.rotation, self.singular, self.proximal = instance, rotation, singular, proximal
        self.n, self.m = instance.structure.n, instance.structure.m

    @cached_property
    def K(self):
        """The reduced KKT matrix, shape (n + r, n + r): dense array or CSC."""
        P, A, rows, h = self.instance.P, self.instance.A, self.rotation.rows, self.rotation.h
        n = self.n
        if isinstance(P, np.ndarray):
            A_r = np.asarray(A[rows] if isinstance(rows, np.ndarray) else rows.T @ A)
            r = len(A_r)
            K = np.zeros((n + r, n + r))
            K[:n, :n] = P
            K[n:, :n] = A_r
            K[:n, n:] = A_r.T
            if h is not None:
                K[range(n, n + r), range(n, n + r)] = -h
            if self.singular == "regularize":
                K[range(n + r), range(n + r)] += self._shift(K, r)
            return K
        A_r = (self._A_rows[rows] if isinstance(rows, np.ndarray) else rows.T @ self._A_rows).tocsr()
        r = A_r.shape[0]
        H = sp.csc_array((r, r)) if h is None else sp.diags_array(-h, format="csc")
        K = sp.block_array([[P, A_r.T], [A_r, H]], format="csc")
        if self.singular == "regularize":
            K = (K + sp.diags_array(self._shift(K, r), format="csc")).tocsc()
        return K

    @property
    def _A_rows(self):
        return self.instance.AT.T  # CSR with the same entries: rows are what is selected

    def _shift(self, K, r: int) -> Floats:
        largest = float(abs(K).max()) if K.shape[0] else 0.0
        return self.proximal * (largest or 1.0) * np.concatenate([np.ones(self.n), -np.ones(r)])

    @cached_property
    def factor(self) -> Factor:
        """The factorization of K."""
        return DenseFactor(self.K) if isinstance(self.K, np.ndarray) else SparseFactor(self.K, self.n)

    @cached_property
    def least_squares(self) -> LeastSquares:
        """Minimum-norm solver for a singular K."""
        return LeastSquares(self.K, equilibrate(self.K))

    def solve(self, g: Floats, h: Floats) -> tuple[Floats, Floats, Certificate]:
        """Solve for (u, w) and certify.

        Args:
            g: right-hand side on columns, shape (n,) or (k, n).
            h: right-hand side on rows, shape (m,) or (k, m).

        Returns:
            u and w, of the shapes of g and h, and the certificate of the linear solve.
        """
        f = np.concatenate([g, self.rotation.reduce(h)], axis=-1)
        solution, certificate = self._solve(f.T)
        solution = solution.T
        return solution[..., : self.n], self.rotation.restore(solution[..., self.n :], self.m), certificate

    def _solve(self, f: Floats) -> tuple[Floats, Certificate]:
        factor = self.factor
        singular = isinstance(factor, DenseFactor) and factor.singular
        if not singular:
            u, residual, steps = factor.solve(f)
            condition = factor.condition if isinstance(factor, DenseFactor) else float("nan")
            certificate = Certificate(residual, condition, factor.method, steps)
            if certificate.consistent:
                return u, certificate
        if self.singular == "raise":
            raise ApplicabilityError(
                "The KKT system is singular at this point (condition 3 of the implicit function theorem), so the solution map may have no derivative "
                f"here (condition number ≈ {factor.condition:.1e}). Remove dependent constraints, add curvature to the objective, or choose "
                "singular='least_squares', 'regularize' or 'smooth'."
            )
        u, residual, steps = self.least_squares.solve(f)
        return u, Certificate(residual, factor.condition, "least squares", steps)
