"""LSMR (Fong & Saunders 2011) and conjugate gradients on the normal equations, on the array API standard."""

from __future__ import annotations

from typing import Any

from cvxift.argmax.loops import Loop
from cvxift.implicit.krylov import Array, Numbers, Product, Result, cg, divided, norm
from cvxift.implicit.status import CONVERGED, LEAST_SQUARES, LIMIT, RUNNING


def normal_cg(
    numbers: Numbers, loop: Loop, A: Product, At: Product, M: Product, b: Array, tolerance: float, limit: int
) -> Result:
    """Conjugate gradients on AᵀA y = Aᵀb, started anew from the true residual until ‖b − A y‖ meets the tolerance.

    The recurrence watches ‖Aᵀ(b − A y)‖, whose relative size differs from that of the residual by the condition number.
    """
    xp = numbers.xp
    goal = tolerance * norm(xp, b)

    def square(v: Array) -> Array:
        return At(A(v))

    def body(state: tuple[Array, ...]) -> tuple[Array, ...]:
        k, count, status, y, r, before = state
        live = status == RUNNING
        step, steps, _ = cg(numbers, loop, square, M, At(r), tolerance, limit)
        y_next = y + step
        r_next = b - A(y_next)
        size = norm(xp, r_next)
        better = live & (size < before)
        y, r = xp.where(better, y_next, y), xp.where(better, r_next, r)
        last = norm(xp, r)
        flat = norm(xp, At(r)) <= tolerance * norm(xp, At(b))
        ended = xp.where(flat & (last > goal), LEAST_SQUARES, LIMIT)
        status = xp.where(live, xp.where(last <= goal, CONVERGED, xp.where(size < 0.5 * before, status, ended)), status)
        return k + 1, count + xp.where(live, steps, 0), status, y, r, last

    size = norm(xp, b)
    count = xp.zeros_like(size, dtype=xp.int32)
    status = xp.where(size <= goal, CONVERGED, RUNNING) + count
    start = (xp.sum(count), count, status, xp.zeros_like(b), b, size)
    _, count, status, y, *_ = loop(lambda s: (s[0] < 5) & xp.any(s[2] == RUNNING), body, start)
    return y, count, xp.where(status == RUNNING, LIMIT, status)


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
