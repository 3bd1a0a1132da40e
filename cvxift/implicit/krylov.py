"""Krylov methods on the array API standard, for any batch of systems at once.

Vectors have shape (*batch, n); every instance stops for itself. Loops run through `cvxift.argmax.loops.Loop`, so that
the same recurrences run in plain Python and inside compiled programs.

Each returns (y, iterations, status), the last two of shape (*batch, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cvxift.argmax.loops import Loop
from cvxift.implicit.status import BREAKDOWN, CONVERGED, INDEFINITE, LIMIT, RUNNING

Array = Any
Product = Callable[[Array], Array]
Result = tuple[Array, Array, Array]


def dot(xp: Any, u: Array, v: Array) -> Array:
    """Inner products along the last axis, shape (*batch, 1)."""
    return xp.sum(u * v, axis=-1, keepdims=True)


def norm(xp: Any, u: Array) -> Array:
    """Euclidean norms along the last axis, shape (*batch, 1)."""
    return xp.sqrt(dot(xp, u, u))


def divided(xp: Any, u: Array, v: Array) -> Array:
    """u/v, zero where v is."""
    safe = xp.where(v == 0, xp.ones_like(v), v)
    return xp.where(v == 0, xp.zeros_like(u / safe), u / safe)


def _count(xp: Any, like: Array) -> Array:
    return xp.zeros_like(like[..., :1], dtype=xp.int32)


def _going(xp: Any, limit: int) -> Callable[[tuple[Array, ...]], Array]:
    """The loop's condition on states that begin with the step's number, iterations and status."""
    return lambda state: (state[0] < limit) & xp.any(state[2] == RUNNING)


def _closed(xp: Any, status: Array) -> Array:
    return xp.where(status == RUNNING, LIMIT, status)


def cg(xp: Any, loop: Loop, A: Product, M: Product, b: Array, tolerance: float, limit: int) -> Result:
    """Preconditioned conjugate gradients (Hestenes & Stiefel 1952); ends at a direction of negative curvature."""
    goal = tolerance * norm(xp, b)
    z = M(b)
    rz = dot(xp, b, z)
    zero, one = xp.zeros_like(rz), xp.ones_like(rz)
    status = xp.where(norm(xp, b) <= goal, CONVERGED, RUNNING) + _count(xp, b)

    def body(state: tuple[Array, ...]) -> tuple[Array, ...]:
        k, count, status, y, r, p, rz = state
        live = status == RUNNING
        q = A(p)
        curvature = dot(xp, p, q)
        good = live & (xp.minimum(curvature, rz) > 0)
        step = xp.where(good, rz, zero) / xp.where(good, curvature, one)
        y, r = y + step * p, r - step * q
        z = M(r)
        rz_next = dot(xp, r, z)
        p = z + xp.where(good, rz_next, zero) / xp.where(good, rz, one) * p  # of an ended instance p stays bounded
        size = xp.sqrt(rz_next) if z is r else norm(xp, r)
        ended = xp.where(good, xp.where(size <= goal, CONVERGED, status), INDEFINITE)
        return k + 1, count + live, xp.where(live, ended, status), y, r, p, rz_next

    start = (_zero(xp, status), _count(xp, b), status)
    _, count, status, y, *_ = loop(_going(xp, limit), body, (*start, xp.zeros_like(b), b, z, rz))
    return y, count, _closed(xp, status)


def bicgstab(xp: Any, loop: Loop, A: Product, M: Product, b: Array, tolerance: float, limit: int) -> Result:
    """BiCGStab (van der Vorst 1992) with right preconditioning."""
    goal = tolerance * norm(xp, b)
    zero = xp.zeros_like(b)
    one = xp.ones_like(b[..., :1])
    status = xp.where(norm(xp, b) <= goal, CONVERGED, RUNNING) + _count(xp, b)

    def body(state: tuple[Array, ...]) -> tuple[Array, ...]:
        k, count, status, y, r, p, v, rho, alpha, omega = state
        live = status == RUNNING
        rho_next = dot(xp, b, r)  # the shadow residual is b
        beta = divided(xp, rho_next, rho) * divided(xp, alpha, omega)
        p_next = r + beta * (p - omega * v)
        p_hat = M(p_next)
        v_next = A(p_hat)
        alpha_next = divided(xp, rho_next, dot(xp, b, v_next))
        s = r - alpha_next * v_next
        s_hat = M(s)
        t = A(s_hat)
        omega_next = divided(xp, dot(xp, t, s), dot(xp, t, t))
        lost = (rho_next == 0) | (alpha_next == 0)
        y = xp.where(live & ~lost, y + alpha_next * p_hat + omega_next * s_hat, y)
        r = xp.where(live & ~lost, s - omega_next * t, r)
        done = norm(xp, r) <= goal
        stuck = lost | ((omega_next == 0) & ~done)
        status = xp.where(live & done, CONVERGED, xp.where(live & stuck, BREAKDOWN, status))
        return (
            k + 1,
            count + xp.astype(live, count.dtype),
            status,
            y,
            r,
            p_next,
            v_next,
            rho_next,
            alpha_next,
            omega_next,
        )

    start = (_zero(xp, status), _count(xp, b), status)
    _, count, status, y, *_ = loop(_going(xp, limit), body, (*start, zero, b, zero, zero, one, one, one))
    return y, count, _closed(xp, status)


def gmres(xp: Any, loop: Loop, A: Product, M: Product, b: Array, tolerance: float, limit: int, restart: int) -> Result:
    """Restarted GMRES (Saad & Schultz 1986) with right preconditioning; Gram–Schmidt twice.

    A cycle builds a basis V of at most ``restart`` vectors with A M⁻¹ V = V₊ H, then minimizes ‖r − A M⁻¹ V c‖.
    """
    n = b.shape[-1]
    m = min(restart, n)
    goal = tolerance * norm(xp, b)
    status = xp.where(norm(xp, b) <= goal, CONVERGED, RUNNING) + _count(xp, b)
    batch = b.shape[:-1]
    places = xp.astype(xp.arange(m + 1), xp.int32)

    def arnoldi(state: tuple[Array, ...]) -> tuple[Array, ...]:
        j, V, H = state
        here = xp.astype(places == j, b.dtype)
        v = xp.sum(V * here[:, None], axis=-2)
        w = A(M(v))
        size = norm(xp, w)
        h = xp.zeros_like(V[..., 0])
        for _ in range(2):
            c = xp.sum(V * w[..., None, :], axis=-1)
            w = w - xp.sum(V * c[..., None], axis=-2)
            h = h + c
        length = norm(xp, w)
        # A vector of rounding errors only: the space is invariant, and the minimizer in it exact.
        length = xp.where(length <= 10 * xp.finfo(b.dtype).eps * size, xp.zeros_like(length), length)
        following = xp.astype(places == j + 1, b.dtype)
        V = V + following[:, None] * divided(xp, w, length)[..., None, :]
        h = h + following * length
        H = H + h[..., :, None] * here[:m]
        return j + 1, V, H

    def body(state: tuple[Array, ...]) -> tuple[Array, ...]:
        k, count, status, y, r, before = state
        live = status == RUNNING
        beta = norm(xp, r)
        first = xp.astype(places == 0, b.dtype)
        V = first[:, None] * divided(xp, r, beta)[..., None, :]
        H = xp.broadcast_to(xp.zeros_like(b[..., :1, None]), (*batch, m + 1, m))
        _, V, H = loop(lambda inner: inner[0] < m, arnoldi, (_zero(xp, status), V, H))
        c = xp.linalg.pinv(H) @ (first * beta)[..., None]
        y_next = y + M(xp.sum(V[..., :m, :] * c, axis=-2))
        r_next = b - A(y_next)
        better = norm(xp, r_next) < before
        y, r = xp.where(live & better, y_next, y), xp.where(live & better, r_next, r)
        size = norm(xp, r)
        stuck = ~(norm(xp, r_next) < 0.999 * before) & ~(size <= goal)
        status = xp.where(live & (size <= goal), CONVERGED, xp.where(live & stuck, BREAKDOWN, status))
        return k + 1, count + m * xp.astype(live, count.dtype), status, y, r, size

    start = (_zero(xp, status), _count(xp, b), status)
    cycles = max(1, -(-limit // m))
    _, count, status, y, *_ = loop(_going(xp, cycles), body, (*start, xp.zeros_like(b), b, norm(xp, b)))
    return y, count, _closed(xp, status)


def _zero(xp: Any, status: Array) -> Array:
    """The number of the first step, a 0-d array on the device of the others."""
    return xp.sum(xp.zeros_like(status))
