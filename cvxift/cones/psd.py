"""The cone of positive semidefinite matrices in svec coordinates, which is its own dual.

svec takes the upper triangle column by column with off-diagonal entries times √2, so that svec(A)ᵀ svec(B) = tr(AB).
With V = U diag(λ) Uᵀ, λ⁺ = max(λ, 0), λ⁻ = max(−λ, 0) and ∘ the entrywise product,

    Π(V) = U diag(λ⁺) Uᵀ,      DΠ(V) W = U (Θ ∘ UᵀWU) Uᵀ,      Θ_ij = 1 if λ_i, λ_j ≥ 0,  0 if both < 0,
                                                                else λ⁺/(λ⁺ + λ⁻) of the two.
So Q = U ⊗ U in svec coordinates: the eigenvector of Θ_ij is svec of the symmetrized u_i u_jᵀ.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cvxift.cones.base import BELOW_ONE, TINY, Cone, Floats, Group
from cvxift.cones.spec import Part

ROOT_TWO = 2.0**0.5
ROOT_HALF = 0.5**0.5


@lru_cache(maxsize=64)
def _layout(order: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Row i and column j of each svec entry, i ≤ j, and its factor: 1 on the diagonal, √2 off it."""
    cols, rows = np.tril_indices(order)
    return rows, cols, np.where(rows == cols, 1.0, ROOT_TWO)


def svec(matrix: Floats) -> Floats:
    """Coordinates of symmetric matrices (..., n, n), shape (..., n(n + 1)/2); an isometry.

    Example:
        >>> svec(np.array([[1.0, 0.0], [0.0, 2.0]]))
        array([1., 0., 2.])
    """
    rows, cols, factor = _layout(matrix.shape[-1])
    return factor * matrix[..., rows, cols]


def smat(vector: Floats, order: int) -> Floats:
    """Symmetric matrices (..., n, n) of svec coordinates (..., n(n + 1)/2); the inverse of `svec`.

    Example:
        >>> smat(np.array([1.0, 0.0, 2.0]), 2)
        array([[1., 0.],
               [0., 2.]])
    """
    rows, cols, factor = _layout(order)
    matrix = np.empty((*vector.shape[:-1], order, order))
    matrix[..., rows, cols] = matrix[..., cols, rows] = vector / factor
    return matrix


def _eigh(part: Part, v: Floats) -> tuple[Floats, Floats]:
    """Ascending eigenvalues (..., count, n) and eigenvectors; NaN eigenvalues where v is not finite."""
    matrix = smat(v, _order(part))
    bad = ~np.isfinite(v).all(axis=-1)
    if bad.any():  # LAPACK may not return from NaN
        matrix[bad] = 0.0
    values, vectors = np.linalg.eigh(matrix)
    values[bad] = np.nan
    return values, vectors


def _order(part: Part) -> int:
    assert isinstance(part.param, int)
    return part.param


class PsdGroup(Group):
    """Spectrum of PSD cones; eigenvalues in svec order of the pairs (i, j) of ascending matrix eigenvalues.

    Attributes:
        eigenvalues: of the matrices, ascending, shape (..., count, n).
        eigenvectors_of_matrix: orthogonal U, shape (..., count, n, n).
    """

    def __init__(self, part: Part, v: Floats) -> None:
        self.part = part
        self.eigenvalues, self.eigenvectors_of_matrix = _eigh(part, v)
        rows, cols, _ = _layout(_order(part))
        # Ascending order and i ≤ j: of a pair with unlike signs, i is the negative one.
        low, high = self.eigenvalues[..., rows], self.eigenvalues[..., cols]
        slack, tight = low >= 0.0, high < 0.0
        width = np.where(slack | tight, 1.0, high - low)
        inner = np.where(high > 0.0, np.clip(high / width, TINY, BELOW_ONE), 0.0 * high)
        outer = np.where(high > 0.0, np.clip(-low / width, TINY, BELOW_ONE), 1.0)
        self.d = np.where(slack, 1.0, np.where(tight, 0.0, inner))
        self.complement = np.where(slack, 0.0, np.where(tight, 1.0, outer))
        self.s = _positive_part(v, self.eigenvalues, self.eigenvectors_of_matrix)

    def rotate(self, w: Floats) -> Floats:
        """Product Qᵀw = svec(UᵀWU), in O(n³) each."""
        U = self.eigenvectors_of_matrix
        turned = svec(np.swapaxes(U, -1, -2) @ smat(w, _order(self.part)) @ U)
        return np.where(self.mixed[..., None], turned, w)

    def restore(self, w: Floats) -> Floats:
        """Product Qw = svec(UWUᵀ), in O(n³) each."""
        U = self.eigenvectors_of_matrix
        turned = svec(U @ smat(w, _order(self.part)) @ np.swapaxes(U, -1, -2))
        return np.where(self.mixed[..., None], turned, w)

    @property
    def Q(self) -> Floats:
        """Dense eigenvectors (..., count, dim, dim): about n⁴/4 numbers each; for large orders prefer the products."""
        return np.where(self.mixed[..., None, None], _kronecker(self.eigenvectors_of_matrix), np.eye(self.dim))

    def columns(self, k: int, chosen: NDArray[np.bool_]) -> Floats:
        """The chosen eigenvectors of one cone of an unbatched group, as columns, shape (dim, chosen)."""
        if not self.mixed[k]:
            return np.eye(self.dim)[:, chosen]
        rows, cols, factor = _layout(_order(self.part))
        U = self.eigenvectors_of_matrix[k]
        left, right = U[:, rows[chosen]], U[:, cols[chosen]]
        value = left[rows] * right[cols]
        value += left[cols] * right[rows]
        value *= 0.5 * factor[:, None]
        value *= factor[chosen]
        return value

    def eigenvectors(self, chosen: NDArray[np.bool_]) -> Floats:
        """Q of the chosen cones of an unbatched group, all of them mixed, shape (chosen, dim, dim)."""
        return _kronecker(self.eigenvectors_of_matrix[chosen])


def _kronecker(U: Floats) -> Floats:
    """Column (i, j) is svec of (u_i u_jᵀ + u_j u_iᵀ)/√2, or of u_i u_iᵀ."""
    rows, cols, factor = _layout(U.shape[-1])
    top, bottom = U[..., rows, :], U[..., cols, :]
    value = top[..., rows] * bottom[..., cols] + top[..., cols] * bottom[..., rows]
    return value * (0.5 * factor[:, None] * factor)


def _positive_part(v: Floats, values: Floats, U: Floats) -> Floats:
    """Coordinates of U diag(λ⁺) Uᵀ; v itself, to the last digit, where no λ is negative."""
    root = np.sqrt(np.maximum(values, 0.0))[..., None, :] * U
    projected = svec(root @ np.swapaxes(root, -1, -2))
    return np.where((values[..., :1] >= 0.0), v, projected)


class Semidefinite(Cone):
    """Positive semidefinite cones of one order."""

    def project(self, part: Part, v: Floats) -> Floats:
        """Π(v) = svec(U diag(λ⁺) Uᵀ)."""
        return _positive_part(v, *_eigh(part, v))

    def spectrum(self, part: Part, v: Floats, near: Group | None = None) -> PsdGroup:
        """Eigenvalues Θ_ij at the symmetrized u_i u_jᵀ."""
        return PsdGroup(part, v)

    def second_derivative(self, part: Part, v: Floats, a: Floats, b: Floats) -> Floats:
        """By second divided differences f[λ_i, λ_k, λ_j] of f(λ) = max(λ, 0).

        In the coordinates of the eigenvectors it is C_ij = Σ_k f[λ_i, λ_k, λ_j] (A_ik B_kj + B_ik A_kj). The divided
        difference is 0 for three like signs, else |λ_o| r r' with λ_o the one of other sign and r = 1/(λ⁺ + λ⁻) of the
        unlike pairs. With R the matrix of the r (0 for like pairs), A_R = R ∘ A, A_S = A on like pairs, Λ = diag|λ|:

            C = A_R Λ B_R + B_R Λ A_R + R ∘ (GΛ + ΛGᵀ),    G = A_S B_R + B_S A_R.
        """
        order = _order(part)
        values, U = _eigh(part, v)
        turn = np.swapaxes(U, -1, -2)
        A, B = turn @ smat(a, order) @ U, turn @ smat(b, order) @ U
        sign = values >= 0.0
        size = np.abs(values)
        like = sign[..., :, None] == sign[..., None, :]
        width = size[..., :, None] + size[..., None, :]
        R = np.where(like, 0.0 * width, 1.0 / np.where(like, 1.0, width))
        A_R, B_R = R * A, R * B
        G = (like * A) @ B_R + (like * B) @ A_R
        M = (A_R * size[..., None, :]) @ B_R
        N = R * G * size[..., None, :]
        # B_R Λ A_R = (A_R Λ B_R)ᵀ, and R ∘ ΛGᵀ = (R ∘ GΛ)ᵀ.
        return svec(U @ (M + N + np.swapaxes(M + N, -1, -2)) @ turn)

    def margin(self, part: Part, v: Floats, group: Group | None = None) -> Floats:
        """Smallest |λ|: the Frobenius distance to the singular matrices."""
        values = group.eigenvalues if isinstance(group, PsdGroup) else _eigh(part, v)[0]
        return np.abs(values).min(axis=-1)
