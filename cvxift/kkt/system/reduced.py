"""The reduced KKT system of one point, solved under the policy for singular systems.

With D = DΠ_K(v) = Q diag(d) Qᵀ, the directions with d = 1 (slack) carry no multiplier change and leave; those with
d = 0 (tight) stay as equality rows; those between carry the cone's curvature:

    K = [ P   A_rᵀ ;  A_r   −H ],    A_r = Q_rᵀ A,    H = diag(d_r / (1 − d_r)),    r = {i : d_i < 1}

One symmetric system serves both modes. `solve(g, h)` returns (u, w) with

    P u + Aᵀ w = g,    Q_rᵀ(A u − h) = H Q_rᵀ w,    w in the span of Q_r.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvxift._types import cached_property
from cvxift.errors import ApplicabilityError
from cvxift.kkt.instance import DENSE_DENSITY, DENSE_LIMIT, Instance
from cvxift.kkt.policy import Singular
from cvxift.kkt.regularity.thresholds import GROWN, PROMISE, REGULAR
from cvxift.kkt.system.assembly import equilibrate, kkt_matrix
from cvxift.kkt.system.cone_basis import Rotation, rotation
from cvxift.kkt.system.factor import (
    SINGULAR_RCOND,
    Certificate,
    DenseFactor,
    Factor,
    LeastSquares,
    ShiftedFactor,
)
from cvxift.kkt.system.fixed_columns import FixedColumns
from cvxift.kkt.system.psd_eigenbasis import Turned
from cvxift.kkt.system.soc_extension import Lifted
from cvxift.kkt.system.sparse_factor import LU_DELTA, LuFactor, SparseFactor
from cvxift.program.products import apply
from cvxift.program.structure import Floats

__all__ = ["PROXIMAL", "ReducedSystem", "Rotation", "rotation"]

CANCELLED = 1e-14  # part of its terms under which an entry of a right-hand side is what rounding left of them
PROXIMAL = 1e-6  # weight of the proximal term under singular="regularize", relative to the largest entry of K


class ReducedSystem:
    """The reduced KKT system of an instance at a point, factorized when first used.

    Args:
        instance: the program's matrices.
        rotation: the kept directions at the point.
        singular: what to do when the system is singular or nearly so: ``"least_squares"`` (minimum-norm solution; right
            wherever the derivative exists), ``"regularize"`` (proximal term), ``"smooth"`` (as least squares; the point
            and its D are the central path's), ``"raise"``.
        proximal: weight of the proximal term under ``"regularize"``, relative to the largest entry of K.

    Raises:
        ApplicabilityError: from `solve`, under ``"raise"``, when the system is singular to working precision.
    """

    def __init__(
        self, instance: Instance, rotation: Rotation, singular: Singular = "least_squares", proximal: float = PROXIMAL
    ) -> None:
        self.instance, self.rotation, self.singular, self.proximal = instance, rotation, singular, proximal
        self.n, self.m = instance.structure.n, instance.structure.m
        self._K: Any = None
        self._factor: Factor | None = None
        # What is known at once: properties of the same names find the rest.
        if rotation.spectrum is None:
            self.special = None
            if rotation.h is None:
                self._h = None
            if isinstance(instance.A, np.ndarray):
                self.A_r = instance.A[rotation.rows]
        if instance.matrices.single is None:
            self.fixed = None

    @cached_property
    def A_r(self) -> Any:
        """The kept rows A_r, shape (r, n): dense array or CSR."""
        A = self.instance.rows
        return A[self.rotation.rows] if self.rotation.spectrum is None else self.rotation.rotated(A)

    @cached_property
    def _h(self) -> Floats | None:
        h = self.rotation.h
        return None if h is None else np.concatenate([np.zeros(self.rotation.size - len(h)), h])

    @cached_property
    def special(self) -> Turned | Lifted | None:
        """The system in the eigenvectors of matrix variables, or with large cones lifted.

        None without them, and where a regularized system is wanted.
        """
        if self.singular == "regularize" or self.rotation.spectrum is None:
            return None
        return Lifted.of(self.instance, self.rotation) or Turned.of(self.instance, self.rotation)

    @property
    def first_block(self) -> int:
        """Number of unknowns of the first block of K, on which P is."""
        if self.special is not None:
            return self.special.first_block
        return self.n if self.fixed is None else len(self.fixed.U)

    @cached_property
    def fixed(self) -> FixedColumns | None:
        """Columns that tight single-entry rows fix; None if there are none, or a regularized system needs them."""
        if self.singular == "regularize" or self.special is not None:
            return None
        return FixedColumns.of(self.instance, self.rotation)

    @property
    def K(self) -> Any:
        """The reduced KKT matrix that is factorized, fixed columns left out, shape (N, N): dense array or CSC."""
        if self._K is None:
            self._K = self._assembled()
        return self._K

    def _assembled(self) -> Any:
        if self.special is not None:
            return self.special.K
        P: Any = self.instance.P
        A_r, h, fixed = self.A_r, self._h, self.fixed
        if fixed is not None:
            P, A_r = P[fixed.U][:, fixed.U], fixed.others(A_r, self.rotation)
            h = None if h is None else h[fixed.u]
        r, n = A_r.shape
        if isinstance(A_r, np.ndarray):
            K = np.zeros((n + r, n + r))
            K[:n, :n] = P
            K[n:, :n] = A_r
            K[:n, n:] = A_r.T
            diagonal = K.reshape(-1)[:: n + r + 1]
            if h is not None:
                diagonal[n:] = -h
            if self.singular == "regularize":
                diagonal += self._shift(np.abs(K).max(initial=0.0), n, n + r)
            return K
        diagonal = np.zeros(n + r)
        if h is not None:
            diagonal[n:] = -h
        if self.singular == "regularize":
            largest = max(abs(P).max() if P.nnz else 0.0, abs(A_r).max() if A_r.nnz else 0.0)
            diagonal += self._shift(largest, n, n + r)
        return kkt_matrix(P, A_r.tocsr(), diagonal)

    def _shift(self, largest: float, n: int, size: int) -> Floats:
        shift = np.full(size, -self.proximal * (float(largest) or 1.0))
        shift[:n] *= -1.0
        return shift

    @property
    def factor(self) -> Factor:
        """The factorization of K; a sparse K that cones have filled in (a large SDP) is factorized as a dense one."""
        if self._factor is None:
            K, further = self.K, self._further
            size = K.shape[0]
            if isinstance(K, np.ndarray):
                self._factor = DenseFactor(K)
            elif size <= DENSE_LIMIT and K.nnz >= DENSE_DENSITY * size * size:
                self._factor = DenseFactor(K.toarray())
            else:
                self._factor = SparseFactor(K, self.first_block)
            self._factor.further = further
        return self._factor

    @property
    def _further(self) -> int:
        """Steps of refinement beyond the goal: entries of an entropic argmax differ by decades, and each counts."""
        return 1 if self.instance.structure.cones.entropic else 0

    @property
    def regular(self) -> bool:
        """Whether the factorization says at once that K is not singular."""
        factor = self.factor
        if isinstance(factor, DenseFactor):
            return factor.rcond > REGULAR
        return isinstance(factor, SparseFactor) and factor.growth < GROWN

    @cached_property
    def least_squares(self) -> LeastSquares:
        """Minimum-norm solver for a singular K."""
        return LeastSquares(self.K, equilibrate(self.K))

    def solve(self, g: Floats, h: Floats | None, brief: bool = False) -> tuple[Floats, Floats, Certificate]:
        """Solve for (u, w) and certify.

        Args:
            g: right-hand side on columns, shape (n,) or (k, n).
            h: right-hand side on rows, shape (m,) or (k, m); None for zero.
            brief: whether a system without a solution is solved about, for steps that look for another one.

        Returns:
            u and w, of the shapes of g and (..., m), and the certificate of the linear solve.
        """
        n, turn = self.n, self.rotation
        if self.special is not None:
            return self.special.solve(partial(self._solve, brief=brief), g, h)
        f = np.zeros((*g.shape[:-1], n + turn.size))
        f[..., :n] = g
        if h is not None:
            f[..., n:] = turn.reduce(h)
        if self.fixed is not None:
            u, w_r, certificate = self._solve_fixed(g, f[..., n:], self.fixed, brief)
        elif g.ndim == 1:
            solution, certificate = self._solve(f, brief)
            u, w_r = solution[:n], solution[n:]
        else:
            solution, certificate = self._solve(f.T, brief)
            u, w_r = solution.T[..., :n], solution.T[..., n:]
        return u, turn.restore(w_r, self.m), certificate

    def _solve_fixed(
        self, g: Floats, h_r: Floats, fixed: FixedColumns, brief: bool
    ) -> tuple[Floats, Floats, Certificate]:
        """Solve with the fixed columns eliminated.

        u_F = h_f / a comes first, and w_f = (g − P u − A_uᵀ w_u)_F / a once the rest is known.
        """
        F, U = fixed.F, fixed.U
        u = np.zeros_like(g)
        u[..., F] = h_r[..., fixed.f] / fixed.a
        moved_g = (g - apply(self.instance.P, u))[..., U]
        moved_h = (h_r - apply(self.A_r, u))[..., fixed.u]
        f = np.concatenate([moved_g, moved_h], axis=-1)
        solution, certificate = self._solve(f.T, brief)
        if not certificate.consistent:  # dependent rows feel what rounding left of fixed columns that cancel in them
            g_terms = (np.abs(g) + apply(self.instance.magnitudes[0], np.abs(u)))[..., U]
            h_terms = (np.abs(h_r) + apply(abs(self.A_r), np.abs(u)))[..., fixed.u]
            rounding = np.abs(f) <= CANCELLED * np.concatenate([g_terms, h_terms], axis=-1)
            if bool((rounding & (f != 0.0)).any()):
                solution, certificate = self._solve(np.where(rounding, 0.0, f).T, brief)
        solution = solution.T
        u[..., U] = solution[..., : len(U)]
        w_r = np.zeros_like(h_r)
        w_r[..., fixed.u] = solution[..., len(U) :]
        rest = g - apply(self.instance.P, u) - apply(self.A_r.T, w_r)
        w_r[..., fixed.f] = rest[..., F] / fixed.a
        return u, w_r, certificate

    @cached_property
    def _lu(self) -> LuFactor | None:
        """The unshifted factorization of a sparse K; None if K is exactly singular."""
        try:
            factor = LuFactor(self.K)
        except RuntimeError:
            return None
        factor.further = self._further
        return factor

    def _solve(self, f: Floats, brief: bool = False) -> tuple[Floats, Certificate]:
        factor: Factor = self.factor
        dense = isinstance(factor, DenseFactor)
        if not (isinstance(factor, DenseFactor) and factor.singular):
            u, certificate = factor.certified(f)
            if certificate.consistent:
                return u, certificate
        if brief and isinstance(factor, SparseFactor) and f.ndim == 1:
            u, residual = factor.nearly(f)
            return u, Certificate(residual, factor, "approximate least squares")
        if isinstance(factor, SparseFactor) and self.singular != "raise" and factor.growth >= GROWN:
            found = factor.least_norm(f)
            if found is not None:
                u, residual, steps = found
                return u, Certificate(residual, factor, "least squares", steps)
        if not dense and self._lu is not None:
            u, certificate = self._lu.certified(f)
            if certificate.consistent and certificate.condition < 1.0 / SINGULAR_RCOND:
                return u, certificate
        if self.singular == "raise":
            raise ApplicabilityError(
                "The KKT system is singular at this point (condition 3 of the implicit function theorem), so the "
                f"solution map may have no derivative here (condition number ≈ {factor.condition:.1e}). Remove "
                "dependent constraints, add curvature to the objective, or choose singular='least_squares', "
                "'regularize' or 'smooth'."
            )
        if self._touched is not None:
            touched, rest = self._touched
            u = np.zeros_like(f)
            u[touched], certificate = rest.certified(f[touched])
            if certificate.consistent and not f[~touched].any():
                return u, certificate
        shifted = self._shifted
        u, certificate = shifted.certified(f)
        if certificate.consistent and not (isinstance(shifted, ShiftedFactor) and shifted.error(f, u) > PROMISE):
            return u, certificate
        u, residual, steps = self.least_squares.solve(f)
        return u, Certificate(residual, factor, "least squares", steps)

    @cached_property
    def _touched(self) -> tuple[NDArray[np.bool_], DenseFactor] | None:
        """The unknowns that a singular dense K has entries of, where K is regular on them alone; None elsewhere.

        Auxiliary columns of slack constraints have none. A shift, which finds null directions of any kind, costs small
        entries of an entropy their relative accuracy.
        """
        K: Any = self.factor.K
        if not isinstance(K, np.ndarray):
            return None
        touched: NDArray[np.bool_] = np.asarray(K.any(axis=0))
        if touched.all() or not touched.any():
            return None
        rest = DenseFactor(K[touched][:, touched])
        rest.further = self._further
        return None if rest.singular else (touched, rest)

    @cached_property
    def _shifted(self) -> ShiftedFactor | LuFactor:
        """The factorization of a K that may be singular."""
        n = self.first_block
        K: Any = self.factor.K
        return ShiftedFactor(K, n) if isinstance(K, np.ndarray) else LuFactor(K, n, LU_DELTA)
