"""Systems whose Jacobian is formed: equilibrated, factorized, with an estimate of the condition number."""

from __future__ import annotations

from typing import Any

from cvxift.implicit.backend import Backend, Factor
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
    if n <= INVERTED:
        y, inverse = _both(backend, scaled, b / row, solve)
        length = xp.max(xp.sum(xp.abs(inverse), axis=-1), axis=0)
    else:
        y, length = solve(b / row, False), _length(xp, scaled, solve)
    condition = xp.max(xp.sum(xp.abs(scaled), axis=-2), axis=-1) * length
    negative = xp.isnan(condition)[..., None]
    condition = xp.where(xp.isnan(condition), xp.full_like(condition, xp.inf), condition)[..., None]
    singular = ~(condition * xp.finfo(J.dtype).eps < 1.0)
    status = xp.where(singular, SINGULAR, CONVERGED) + xp.zeros_like(condition, dtype=xp.int32)
    if symmetric:
        skew = xp.max(xp.abs(scaled - xp.matrix_transpose(scaled)), axis=(-2, -1))[..., None]
        asymmetric = skew > 1e3 * n * xp.finfo(J.dtype).eps
        negative = negative | xp.any(diagonal <= 0, axis=-1, keepdims=True)
        status = xp.where(asymmetric, ASYMMETRIC, xp.where(negative, INDEFINITE, status))
    spread = xp.zeros_like(b[..., :1])
    return y / column, xp.astype(spread, xp.int32), status + xp.astype(spread, xp.int32), condition + spread


def _both(backend: Backend, J: Array, b: Array, solve: Factor) -> tuple[Array, Array]:
    """J⁻¹b, and J⁻¹ with the columns in front, from one solve."""
    xp, n = backend.xp, J.shape[-1]
    eye = xp.eye(n, dtype=J.dtype, device=backend.device(J))
    eye = xp.broadcast_to(xp.reshape(eye, (n, *(1 for _ in J.shape[:-2]), n)), (n, *J.shape[:-1]))
    found = solve(xp.concat([eye, xp.reshape(b, (-1, *J.shape[:-1]))]), False)
    return xp.reshape(found[n:, ...], b.shape), found[:n, ...]


def _positive(xp: Any, size: Array) -> Array:
    return xp.where(size > 0, size, xp.ones_like(size))


def _power(xp: Any, size: Array) -> Array:
    """The nearest power of two: scaling by it rounds nothing."""
    return 2.0 ** xp.round(xp.log2(size))


def _length(xp: Any, J: Array, solve: Factor) -> Array:
    """A lower bound of ‖J⁻¹‖₁, shape (*batch,), by a few steps of ascent on ‖J⁻¹v‖₁ over ‖v‖₁ = 1 (Hager 1984)."""
    v = xp.full_like(J[..., 0], 1.0 / J.shape[-1])
    length = xp.zeros_like(v[..., 0])
    for _ in range(3):
        y = solve(v, False)
        length = xp.maximum(length, xp.sum(xp.abs(y), axis=-1))
        z = solve(xp.where(y >= 0, xp.ones_like(y), -xp.ones_like(y)), True)
        v = _largest(xp, z)
    return length


def _largest(xp: Any, z: Array) -> Array:
    """The unit vector of each instance's largest entry; of equal ones their mean."""
    ties = xp.astype(xp.abs(z) == xp.max(xp.abs(z), axis=-1, keepdims=True), z.dtype)
    return ties / xp.sum(ties, axis=-1, keepdims=True)
