"""Krylov methods on the array API standard, for any batch of systems at once.

Vectors have shape (*batch, n); every instance stops for itself. Loops run through `cvxift.argmax.loops.Loop`, so that
the same recurrences run in plain Python and inside compiled programs.

Each returns (y, iterations, status), the last two of shape (*batch, 1).
"""

from __future__ import annotations

import math
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


class Numbers:
    """What a recurrence computes beside vectors, a number for each instance: arrays of shape (*batch, 1).

    Args:
        xp: the arrays' namespace.
        like: a vector of each instance.
    """

    def __init__(self, xp: Any, like: Array) -> None:
        self.xp, self.where = xp, xp.where
        self.one = xp.ones_like(like[..., :1])
        self.zero = xp.zeros_like(self.one)
        self.count = _count(xp, like)

    def dot(self, u: Array, v: Array) -> Any:
        """Inner product."""
        return dot(self.xp, u, v)

    def norm(self, u: Array) -> Any:
        """Euclidean norm."""
        return norm(self.xp, u)

    def divided(self, u: Any, v: Any) -> Any:
        """u/v, zero where v is."""
        return divided(self.xp, u, v)

    def going(self, limit: int) -> Callable[[tuple[Any, ...]], Any]:
        """The loop's condition on states that begin with the step's number, iterations and status."""
        return _going(self.xp, limit)

    def closed(self, count: Any, status: Any) -> tuple[Array, Array]:
        """Iterations and status at the end, as arrays."""
        return count, _closed(self.xp, status)


class Floats(Numbers):
    """The same for one instance whose values are at hand, as Python's numbers: a step costs its products and sums."""

    def __init__(self, xp: Any, like: Array) -> None:
        super().__init__(xp, like)
        self._none, self.where = self.count, lambda which, yes, no: yes if which else no
        self.one, self.zero, self.count = 1.0, 0.0, 0

    def dot(self, u: Array, v: Array) -> float:
        """Inner product."""
        return float(u @ v)

    def norm(self, u: Array) -> float:
        """Euclidean norm."""
        return math.sqrt(self.dot(u, u))

    def divided(self, u: float, v: float) -> float:
        """u/v, zero where v is."""
        return u / v if v else 0.0

    def going(self, limit: int) -> Callable[[tuple[Any, ...]], bool]:
        """The loop's condition on states that begin with the step's number, iterations and status."""
        return lambda state: state[0] < limit and state[2] == RUNNING

    def closed(self, count: int, status: int) -> tuple[Array, Array]:
        """Iterations and status at the end, as arrays."""
        return self._none + count, self._none + (LIMIT if status == RUNNING else status)


def _count(xp: Any, like: Array) -> Array:
    return xp.zeros_like(like[..., :1], dtype=xp.int32)


def _going(xp: Any, limit: int) -> Callable[[tuple[Array, ...]], Array]:
    return lambda state: (state[0] < limit) & xp.any(state[2] == RUNNING)


def _closed(xp: Any, status: Array) -> Array:
    return xp.where(status == RUNNING, LIMIT, status)


def cg(numbers: Numbers, loop: Loop, A: Product, M: Product, b: Array, tolerance: float, limit: int) -> Result:
    """Preconditioned conjugate gradients (Hestenes & Stiefel 1952); ends at a direction of negative curvature."""
    where, dot, zero, one = numbers.where, numbers.dot, numbers.zero, numbers.one
    goal = tolerance * numbers.norm(b)
    z = M(b)
    rz = dot(b, z)
    status = where(numbers.norm(b) <= goal, CONVERGED, RUNNING) + numbers.count

    def body(state: tuple[Any, ...]) -> tuple[Any, ...]:
        k, count, status, y, r, p, rz = state
        live = status == RUNNING
        q = A(p)
        curvature = dot(p, q)
        good = live & (curvature > 0) & (rz > 0)
        step = where(good, rz, zero) / where(good, curvature, one)
        y, r = y + step * p, r - step * q
        z = M(r)
        rz_next = dot(r, z)
        p = z + where(good, rz_next, zero) / where(good, rz, one) * p  # of an ended instance p stays bounded
        size = rz_next**0.5 if z is r else numbers.norm(r)
        ended = where(good, where(size <= goal, CONVERGED, status), INDEFINITE)
        return k + 1, count + live, where(live, ended, status), y, r, p, rz_next

    start = (zero_of(status), numbers.count, status)
    _, count, status, y, *_ = loop(numbers.going(limit), body, (*start, numbers.xp.zeros_like(b), b, z, rz))
    return y, *numbers.closed(count, status)


def bicgstab(numbers: Numbers, loop: Loop, A: Product, M: Product, b: Array, tolerance: float, limit: int) -> Result:
    """BiCGStab (van der Vorst 1992) with right preconditioning."""
    where, dot, divided, one = numbers.where, numbers.dot, numbers.divided, numbers.one
    goal = tolerance * numbers.norm(b)
    zero = numbers.xp.zeros_like(b)
    status = where(numbers.norm(b) <= goal, CONVERGED, RUNNING) + numbers.count

    def body(state: tuple[Any, ...]) -> tuple[Any, ...]:
        k, count, status, y, r, p, v, rho, alpha, omega = state
        live = status == RUNNING
        rho_next = dot(b, r)  # the shadow residual is b
        beta = divided(rho_next, rho) * divided(alpha, omega)
        p_next = r + beta * (p - omega * v)
        p_hat = M(p_next)
        v_next = A(p_hat)
        alpha_next = divided(rho_next, dot(b, v_next))
        s = r - alpha_next * v_next
        s_hat = M(s)
        t = A(s_hat)
        omega_next = divided(dot(t, s), dot(t, t))
        lost = (rho_next == 0) | (alpha_next == 0)
        found = where(lost, False, live)
        y = where(found, y + alpha_next * p_hat + omega_next * s_hat, y)
        r = where(found, s - omega_next * t, r)
        done = numbers.norm(r) <= goal
        stuck = lost | where(done, False, omega_next == 0)
        status = where(live, where(done, CONVERGED, where(stuck, BREAKDOWN, status)), status)
        return k + 1, count + live, status, y, r, p_next, v_next, rho_next, alpha_next, omega_next

    start = (zero_of(status), numbers.count, status)
    _, count, status, y, *_ = loop(numbers.going(limit), body, (*start, zero, b, zero, zero, one, one, one))
    return y, *numbers.closed(count, status)


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
        _, V, H = loop(lambda inner: inner[0] < m, arnoldi, (zero_of(status), V, H))
        c = xp.linalg.pinv(H) @ (first * beta)[..., None]
        y_next = y + M(xp.sum(V[..., :m, :] * c, axis=-2))
        r_next = b - A(y_next)
        better = norm(xp, r_next) < before
        y, r = xp.where(live & better, y_next, y), xp.where(live & better, r_next, r)
        size = norm(xp, r)
        stuck = ~(norm(xp, r_next) < 0.999 * before) & ~(size <= goal)
        status = xp.where(live & (size <= goal), CONVERGED, xp.where(live & stuck, BREAKDOWN, status))
        return k + 1, count + m * xp.astype(live, count.dtype), status, y, r, size

    start = (zero_of(status), _count(xp, b), status)
    cycles = max(1, -(-limit // m))
    _, count, status, y, *_ = loop(_going(xp, cycles), body, (*start, xp.zeros_like(b), b, norm(xp, b)))
    return y, count, _closed(xp, status)


def zero_of(status: Any) -> Any:
    """The number of the first step, a 0-d array on the device of the others."""
    return 0 if isinstance(status, int) else status.sum() * 0
