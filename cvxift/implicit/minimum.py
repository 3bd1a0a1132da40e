"""Whether a stationary point is a minimum: a maximum or a saddle is a root of ∇E, too."""

from __future__ import annotations

from typing import Any

from cvxift.implicit.backend import Backend

Array = Any

NO_MINIMUM = (
    "the point is stationary, but no strict minimum: the Hessian is not positive definite on the null space of the "
    "active constraints"
)


def is_minimum(backend: Backend, J: Array, n: int) -> Array:
    """Whether the Hessian of the Lagrangian is positive definite on the null space of the active constraints.

    J = [P, Aᵀ; A, D] in the order of `cvxift.implicit.multipliers`. P is positive definite on the null space of A iff
    P + ρAᵀA is positive definite for large ρ (Debreu 1952); rows of inactive constraints are zero in A.

    Args:
        backend: the arrays' library.
        J: shape (*batch, N, N).
        n: number of variables; the other N − n unknowns are multipliers.

    Returns:
        Booleans, shape (*batch,). False where P is but semidefinite there.
    """
    xp = backend.xp
    P, A = J[..., :n, :n], J[..., n:, :n]
    H = P
    if A.shape[-2]:
        lengths = xp.sum(A * A, axis=-1, keepdims=True)
        A = A / xp.sqrt(xp.where(lengths > 0, lengths, xp.ones_like(lengths)))
        size = xp.max(xp.abs(P), axis=(-2, -1))[..., None, None]
        rho = xp.finfo(J.dtype).eps ** -0.5 * xp.where(size > 0, size, xp.ones_like(size))
        H = P + rho * (xp.matrix_transpose(A) @ A)
    H = 0.5 * (H + xp.matrix_transpose(H))
    return xp.all(xp.isfinite(backend.factor("cholesky", H)(xp.ones_like(H[..., 0]), False)), axis=-1)
