"""LSMR (Fong & Saunders 2011) and conjugate gradients on the normal equations, on the array API standard."""

from __future__ import annotations

from typing import Any

from cvxift.argmax.loops import Loop
from cvxift.implicit.krylov import Array, Numbers, Product, Result, divided, norm, zero_of
from cvxift.implicit.status import BREAKDOWN, CONVERGED, LEAST_SQUARES, LIMIT, RUNNING


def normal_cg(
    numbers: Numbers, loop: Loop, A: Product, At: Product, M: Product, b: Array, tolerance: float, limit: int
) -> Result:
    """Conjugate gradients on AᵀA y = Aᵀb, as CGLS (Hestenes & Stiefel 1952), which keeps r = b − A y itself.

    It stops when ‖r‖ ≤ tolerance ‖b‖ or, with a least-squares solution, when ‖Aᵀr‖ ≤ tolerance ‖A‖ ‖r‖, as `lsmr` does.
    """
    where, dot, zero, one = numbers.where, numbers.dot, numbers.zero, numbers.one
    goal = tolerance * numbers.norm(b)
    s = At(b)
    z = M(s)
    sz = dot(s, z)
    status = where(numbers.norm(b) <= goal, CONVERGED, RUNNING) + numbers.count

    def body(state: tuple[Any, ...]) -> tuple[Any, ...]:
        k, count, status, y, r, p, sz, squared = state
        live = status == RUNNING
        q = A(p)
        length = dot(q, q)
        rayleigh = numbers.divided(length, dot(p, p))
        squared = where(rayleigh > squared, rayleigh, squared)  # of ‖A‖, from below
        good = live & (sz > 0) & (length > 0)
        step = where(good, sz, zero) / where(good, length, one)
        y, r = y + step * p, r - step * q
        s = At(r)
        z = M(s)
        sz_next = dot(s, z)
        p = z + where(good, sz_next, zero) / where(good, sz, one) * p
        rest = dot(r, r)
        flat = dot(s, s) <= tolerance**2 * squared * rest
        ended = where(rest <= goal**2, CONVERGED, where(flat, LEAST_SQUARES, where(good, status, BREAKDOWN)))
        return k + 1, count + live, where(live, ended, status), y, r, p, sz_next, squared

    start = (zero_of(status), numbers.count, status, numbers.xp.zeros_like(b), b, z, sz, zero)
    _, count, status, y, *_ = loop(numbers.going(limit), body, start)
    return y, *numbers.closed(count, status)


def lsmr(xp: Any, loop: Loop, A: Product, At: Product, b: Array, tolerance: float, limit: int) -> Result:
    """LSMR for min ‖A y − b‖, of minimum norm; the paper's notation.

    Golub–Kahan bidiagonalization with two plane rotations a step; ‖Aᵀr‖ = |ζ̄| falls monotonically. It stops when
    ‖r‖ ≤ tolerance ‖b‖ or ‖Aᵀr‖ ≤ tolerance ‖A‖ ‖r‖.
    """
    beta = norm(xp, b)
    u = divided(xp, b, beta)
    v = At(u)
    alpha = norm(xp, v)
    v = divided(xp, v, alpha)
    one, zero = xp.ones_like(beta), xp.zeros_like(beta)
    count = xp.zeros_like(beta, dtype=xp.int32)
    size = beta
    status = xp.where(alpha * beta == 0, xp.where(beta == 0, CONVERGED, LEAST_SQUARES), RUNNING) + count

    def hypot(a: Array, c: Array) -> Array:
        return xp.sqrt(a * a + c * c)

    def body(state: tuple[Array, ...]) -> tuple[Array, ...]:
        k, count, status, y, u, v, h, hbar, alpha, alphabar, zetabar, rho, rhobar, cbar, sbar, r, frobenius = state
        live = status == RUNNING
        u = A(v) - alpha * u
        beta = norm(xp, u)
        u = divided(xp, u, beta)
        w = At(u) - beta * v
        alpha = norm(xp, w)
        v = divided(xp, w, alpha)
        rho_old = rho
        rho = hypot(alphabar, beta)
        c, s = divided(xp, alphabar, rho), divided(xp, beta, rho)
        theta = s * alpha
        alphabar = c * alpha
        rhobar_old = rhobar
        thetabar = sbar * rho
        turned = cbar * rho
        rhobar = hypot(turned, theta)
        cbar, sbar = divided(xp, turned, rhobar), divided(xp, theta, rhobar)
        zeta = cbar * zetabar
        zetabar = -sbar * zetabar
        hbar = h - divided(xp, thetabar * rho, rho_old * rhobar_old) * hbar
        y = xp.where(live, y + divided(xp, zeta, rho * rhobar) * hbar, y)
        h = v - divided(xp, theta, rho) * h
        r = xp.where(live, b - A(y), r)  # one product more than the paper's recurrence for ‖r‖, and never wrong
        frobenius = xp.sqrt(frobenius * frobenius + alpha * alpha + beta * beta)
        length = norm(xp, r)
        solved = length <= tolerance * size
        flat = xp.abs(zetabar) <= tolerance * frobenius * length
        status = xp.where(live & solved, CONVERGED, xp.where(live & flat, LEAST_SQUARES, status))
        count = count + xp.astype(live, count.dtype)
        return k + 1, count, status, y, u, v, h, hbar, alpha, alphabar, zetabar, rho, rhobar, cbar, sbar, r, frobenius

    y = xp.zeros_like(b)
    start = (xp.sum(count), count, status, y, u, v, v, y, alpha, alpha, alpha * beta, one, one, one, zero, b, alpha)
    _, count, status, y, *_ = loop(lambda s: (s[0] < limit) & xp.any(s[2] == RUNNING), body, start)
    return y, count, xp.where(status == RUNNING, LIMIT, status)
