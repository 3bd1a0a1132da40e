"""Systems whose Jacobian is formed: equilibrated, factorized, with an estimate of the condition number."""

from __future__ import annotations

from typing import Any

from cvxift.implicit.backend import Backend
from cvxift.implicit.krylov import Array
from cvxift.implicit.options import Cholesky, LinearSolver
from cvxift.implicit.status import ASYMMETRIC, CONVERGED, INDEFINITE, SINGULAR

INVERTED = (
    64  # unknowns up to which the inverse itself gives the condition number; it costs less than an estimate there
)


def solve_dense(backend: Backend, J: Array, b: Array, option: LinearSolver) -> tuple[Array, Array, Array, Array]:
    """Solve J y = b.

    Rows and columns are scaled by powers of two to entries of size one first, so that units decide nothing: what is
    called singular or ill-conditioned is the scaled matrix.

    Args:
        backend: the arrays' library.
        J: shape (*batch, n, n).
        b: shape (*more, *batch, n).
        option: `LU` or `Cholesky`.

    Returns:
        y of b's shape; iterations, status and condition estimate, each of shape (*more, *batch, 1).
    """
    xp = backend.xp
    n = b.shape[-1]
    symmetric = isinstance(option, Cholesky)
    tiny = xp.finfo(J.dtype).tiny
    size = xp.abs(J)
    diagonal = xp.sum(J * xp.eye(n, dtype=J.dtype, device=backend.device(J)), axis=-1)
    if symmetric:
        row = column = _power(xp, xp.sqrt(xp.where(diagonal > tiny, diagonal, xp.ones_like(diagonal))))
    else:
        row = _power(xp, _positive(xp, xp.max(size, axis=-1)))
        column = _power(xp, _positive(xp, xp.max(size / row[..., :, None], axis=-2)))
    scaled = J / row[..., :, None] / column[..., None, :]
    solve = backend.factor("cholesky" if symmetric else "lu", scaled)
    y = solve(b / row, False) / column
    condition = _condition(backend, scaled, solve)[..., None]
    singular = ~(condition * xp.finfo(J.dtype).eps < 1.0)
    status = xp.where(singular, SINGULAR, CONVERGED) + xp.zeros_like(condition, dtype=xp.int32)
    if symmetric:
        skew = xp.max(xp.abs(scaled - xp.matrix_transpose(scaled)), axis=(-2, -1))[..., None]
        asymmetric = skew > 1e3 * n * xp.finfo(J.dtype).eps
        negative = ~xp.all(xp.isfinite(solve(xp.ones_like(row), False)), axis=-1, keepdims=True)
        negative = negative | xp.any(diagonal <= 0, axis=-1, keepdims=True)
        status = xp.where(asymmetric, ASYMMETRIC, xp.where(negative, INDEFINITE, status))
    spread = xp.zeros_like(b[..., :1])
    return y, xp.astype(spread, xp.int32), status + xp.astype(spread, xp.int32), condition + spread


def _positive(xp: Any, size: Array) -> Array:
    return xp.where(size > 0, size, xp.ones_like(size))


def _power(xp: Any, size: Array) -> Array:
    """The nearest power of two: scaling by it rounds nothing."""
    return 2.0 ** xp.round(xp.log2(size))


def _condition(backend: Backend, J: Array, solve: Any) -> Array:
    """Condition number in the 1-norm, shape (*batch,): exact for small matrices, else a lower bound.

    The bound is Hager's (1984): a few steps of ascent on ‖J⁻¹v‖₁ over ‖v‖₁ = 1. Infinite where J⁻¹ is not finite.
    """
    xp, n = backend.xp, J.shape[-1]
    size = xp.max(xp.sum(xp.abs(J), axis=-2), axis=-1)
    eye = xp.eye(n, dtype=J.dtype, device=backend.device(J))
    if n <= INVERTED:
        lead = (n, *(1 for _ in J.shape[:-2]), n)
        rows = solve(xp.broadcast_to(xp.reshape(eye, lead), (n, *J.shape[:-1])), False)  # row i holds J⁻¹ eᵢ
        length = xp.max(xp.sum(xp.abs(rows), axis=-1), axis=0)
    else:
        v = xp.broadcast_to(eye[0, :] * 0 + 1.0 / n, J.shape[:-1])
        length = xp.zeros_like(size)
        for _ in range(3):
            y = solve(v, False)
            length = xp.maximum(length, xp.sum(xp.abs(y), axis=-1))
            z = solve(xp.where(y >= 0, xp.ones_like(y), -xp.ones_like(y)), True)
            v = _largest(xp, z)
        length = xp.where(xp.isfinite(length), length, xp.full_like(length, xp.inf))
    found = size * length
    return xp.where(xp.isnan(found), xp.full_like(found, xp.inf), found)


def _largest(xp: Any, z: Array) -> Array:
    """The unit vector of each instance's largest entry; of equal ones their mean."""
    ties = xp.astype(xp.abs(z) == xp.max(xp.abs(z), axis=-1, keepdims=True), z.dtype)
    return ties / xp.sum(ties, axis=-1, keepdims=True)
