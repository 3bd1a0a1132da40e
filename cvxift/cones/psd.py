"""The cone of positive semidefinite matrices in svec coordinates, which is its own dual.

svec takes the upper triangle column by column with off-diagonal entries times √2, so that svec(A)ᵀ svec(B) = tr(AB).
With V = U diag(λ) Uᵀ, λ⁺ = max(λ, 0), λ⁻ = max(−λ, 0) and ∘ the entrywise product,

    Π(V) = U diag(λ⁺) Uᵀ,      DΠ(V) W = U (Θ ∘ UᵀWU) Uᵀ,      Θ_ij = 1 if λ_i, λ_j ≥ 0,  0 if both < 0,
                                                                else λ⁺/(λ⁺ + λ⁻) of the two.
So Q = U ⊗ U in svec coordinates: the eigenvector of Θ_ij is svec of the symmetrized u_i u_jᵀ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxift._types import Floats
from cvxift.cones.base import BELOW_ONE, TINY, Cone, Group
from cvxift.program.cones import Part

ROOT_TWO = 2.0**0.5


class _Layout(NamedTuple):
    """Where svec's entries stand in a matrix; index arrays of one namespace.

    Attributes:
        order: n.
        rows: row i of each entry, i ≤ j, shape (dim,).
        cols: its column j, shape (dim,).
        factor: 1 on the diagonal, √2 off it, shape (dim,).
        upper: i n + j, shape (dim,).
        full: the entry that each place of the flat matrix holds, shape (n²,).
    """

    order: int
    rows: Any
    cols: Any
    factor: Any
    upper: Any
    full: Any


@lru_cache(maxsize=64)
def _layout(order: int) -> _Layout:
    cols, rows = np.tril_indices(order)
    full = np.empty((order, order), dtype=np.intp)
    full[rows, cols] = full[cols, rows] = np.arange(len(rows))
    factor = np.where(rows == cols, 1.0, ROOT_TWO)
    return _Layout(order, rows, cols, factor, rows * order + cols, full.ravel())


def _svec(xp: Any, layout: _Layout, matrix: Floats) -> Floats:
    flat = xp.reshape(matrix, (*matrix.shape[:-2], layout.order**2))
    return layout.factor * xp.take(flat, layout.upper, axis=-1)


def _smat(xp: Any, layout: _Layout, vector: Floats) -> Floats:
    flat = xp.take(vector / layout.factor, layout.full, axis=-1)
    return xp.reshape(flat, (*vector.shape[:-1], layout.order, layout.order))


def _eigh(xp: Any, layout: _Layout, v: Floats) -> tuple[Floats, Floats]:
    """Ascending eigenvalues (..., count, n) and eigenvectors; NaN eigenvalues where v is not finite."""
    good = xp.all(xp.isfinite(v), axis=-1)[..., None]
    # LAPACK may not return from NaN.
    values, vectors = xp.linalg.eigh(_smat(xp, layout, xp.where(good, v, xp.zeros_like(v))))
    return xp.where(good, values, xp.full_like(values, float("nan"))), vectors


class PsdGroup(Group):
    """Spectrum of PSD cones; eigenvalues in svec order of the pairs (i, j) of ascending matrix eigenvalues.

    Attributes:
        eigenvalues: of the matrices, ascending, shape (..., count, n).
        eigenvectors_of_matrix: orthogonal U, shape (..., count, n, n).
    """

    def __init__(self, part: Part, v: Floats, xp: Any, layout: _Layout) -> None:
        self.part, self.xp, self._layout = part, xp, layout
        self.eigenvalues, self.eigenvectors_of_matrix = _eigh(xp, layout, v)
        # Ascending order and i ≤ j: of a pair with unlike signs, i is the negative one.
        low = xp.take(self.eigenvalues, layout.rows, axis=-1)
        high = xp.take(self.eigenvalues, layout.cols, axis=-1)
        slack, tight, positive = low >= 0.0, high < 0.0, high > 0.0
        one, nothing = xp.ones_like(low), xp.zeros_like(low)
        width = xp.where(slack | tight, one, high - low)
        inner = xp.where(positive, xp.clip(high / width, TINY, BELOW_ONE), 0.0 * high)
        outer = xp.where(positive, xp.clip(-low / width, TINY, BELOW_ONE), one)
        self.d = xp.where(slack, one, xp.where(tight, nothing, inner))
        self.complement = xp.where(slack, nothing, xp.where(tight, one, outer))
        self.s = _positive_part(xp, layout, v, self.eigenvalues, self.eigenvectors_of_matrix)

    def rotate(self, w: Floats) -> Floats:
        """Product Qᵀw = svec(UᵀWU), in O(n³) each."""
        xp, U = self.xp, self.eigenvectors_of_matrix
        turned = _svec(xp, self._layout, xp.matrix_transpose(U) @ _smat(xp, self._layout, w) @ U)
        return xp.where(self.mixed[..., None], turned, w)

    def restore(self, w: Floats) -> Floats:
        """Product Qw = svec(UWUᵀ), in O(n³) each."""
        xp, U = self.xp, self.eigenvectors_of_matrix
        turned = _svec(xp, self._layout, U @ _smat(xp, self._layout, w) @ xp.matrix_transpose(U))
        return xp.where(self.mixed[..., None], turned, w)

    def bend(self, a: Floats, b: Floats) -> Floats:
        """By second divided differences f[λ_i, λ_k, λ_j] of f(λ) = max(λ, 0).

        In the coordinates of the eigenvectors it is C_ij = Σ_k f[λ_i, λ_k, λ_j] (A_ik B_kj + B_ik A_kj). The divided
        difference is 0 for three like signs, else |λ_o| r r' with λ_o the one of other sign and r = 1/(λ⁺ + λ⁻) of the
        unlike pairs. With R the matrix of the r (0 for like pairs), A_R = R ∘ A, A_S = A on like pairs, Λ = diag|λ|:

            C = A_R Λ B_R + B_R Λ A_R + R ∘ (GΛ + ΛGᵀ),    G = A_S B_R + B_S A_R.
        """
        xp, layout, values, U = self.xp, self._layout, self.eigenvalues, self.eigenvectors_of_matrix
        turn = xp.matrix_transpose(U)
        A, B = turn @ _smat(xp, layout, a) @ U, turn @ _smat(xp, layout, b) @ U
        sign, size = values >= 0.0, xp.abs(values)
        like = sign[..., :, None] == sign[..., None, :]
        width = size[..., :, None] + size[..., None, :]
        one = xp.ones_like(width)
        R = xp.where(like, 0.0 * width, 1.0 / xp.where(like, one, width))
        S = xp.where(like, one, xp.zeros_like(one))
        A_R, B_R = R * A, R * B
        G = (S * A) @ B_R + (S * B) @ A_R
        M = (A_R * size[..., None, :]) @ B_R
        N = R * G * size[..., None, :]
        # B_R Λ A_R = (A_R Λ B_R)ᵀ, and R ∘ ΛGᵀ = (R ∘ GΛ)ᵀ.
        return _svec(xp, layout, U @ (M + N + xp.matrix_transpose(M + N)) @ turn)

    @property
    def Q(self) -> Floats:
        """Dense eigenvectors (..., count, dim, dim): about n⁴/4 numbers each; for large orders prefer the products."""
        return np.where(self.mixed[..., None, None], _kronecker(self.eigenvectors_of_matrix), np.eye(self.dim))

    def columns(self, k: int, chosen: NDArray[np.bool_]) -> Floats:
        """The chosen eigenvectors of one cone of an unbatched group, as columns, shape (dim, chosen)."""
        if not self.mixed[k]:
            return np.eye(self.dim)[:, chosen]
        _, rows, cols, factor, *_ = self._layout
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
    _, rows, cols, factor, *_ = _layout(U.shape[-1])
    top, bottom = U[..., rows, :], U[..., cols, :]
    value = top[..., rows] * bottom[..., cols] + top[..., cols] * bottom[..., rows]
    return value * (0.5 * factor[:, None] * factor)


def _positive_part(xp: Any, layout: _Layout, v: Floats, values: Floats, U: Floats) -> Floats:
    """Coordinates of U diag(λ⁺) Uᵀ; v itself, to the last digit, where no λ is negative."""
    root = xp.sqrt(xp.maximum(values, xp.zeros_like(values)))[..., None, :] * U
    projected = _svec(xp, layout, root @ xp.matrix_transpose(root))
    return xp.where((values[..., :1] >= 0.0), v, projected)


class Semidefinite(Cone):
    """Positive semidefinite cones of one order.

    Args:
        xp: the namespace of the arrays.
        put: makes arrays of it from NumPy's; None for NumPy itself.
    """

    def __init__(self, xp: Any = np, put: Callable[[np.ndarray], Any] | None = None) -> None:
        super().__init__(xp)
        self._put = put
        self._layouts: dict[int, _Layout] = {}

    def _of(self, part: Part) -> _Layout:
        """The order's constants, put in their place once."""
        order = part.param
        assert isinstance(order, int)
        if self._put is None:
            return _layout(order)
        if order not in self._layouts:
            self._layouts[order] = _Layout(order, *map(self._put, _layout(order)[1:]))
        return self._layouts[order]

    def project(self, part: Part, v: Floats) -> Floats:
        """Π(v) = svec(U diag(λ⁺) Uᵀ)."""
        layout = self._of(part)
        return _positive_part(self.xp, layout, v, *_eigh(self.xp, layout, v))

    def spectrum(self, part: Part, v: Floats, near: Group | None = None) -> PsdGroup:
        """Eigenvalues Θ_ij at the symmetrized u_i u_jᵀ."""
        return PsdGroup(part, v, self.xp, self._of(part))

    def margin(self, part: Part, v: Floats, group: Group | None = None) -> Floats:
        """Smallest |λ|: the Frobenius distance to the singular matrices."""
        values = group.eigenvalues if isinstance(group, PsdGroup) else _eigh(self.xp, self._of(part), v)[0]
        return self.xp.min(self.xp.abs(values), axis=-1)
