"""The power cone {(x, y, z) : x^α y^β ≥ |z|, x, y ≥ 0} with 0 < α < 1 and β = 1 − α.

It is symmetric in z, so let z ≥ 0. Its boundary is the curve of rays P(ρ) = (e^βρ, e^−αρ, 1), ρ = log(x/y), which ends
at the first and second axis as ρ → ±∞. The dual cone's rays are N(ρ) = (αe^−βρ, βe^αρ, −1), orthogonal to P(ρ), with
P × P' = e^(β−α)ρ N and N × N' = αβ e^(α−β)ρ P. So, with q along −P × N,

    θ = e^(β−α)ρ |N|/|P|²,      ψ = αβ e^(α−β)ρ |P|/|N|².

With b = β and x first for ρ ≥ 0, b = α and y first for ρ < 0, and A = |ρ|, dividing P by e^bA and N by e^(1−b)A gives
(1, e^−A, e^−bA) and ((1 − b)e^−A, b, −e^−(1−b)A), which never overflow.

A point v = (r, s, t) = σp − τn projects to (x, y, z) with z < t and (Hien, "Differential properties of Euclidean
projection onto power cone", 2015)

    x = ½(r + √(r² + 4α zλ)),    y = ½(s + √(s² + 4β zλ)),    λ = t − z,    α log x + β log y = log z.

In u = log(z/λ) the difference M(u) of the last equation's sides falls everywhere: with
e = α(1 − r/√(r² + 4αzλ))/2 + β(1 − s/√(s² + 4βzλ))/2, M' = −((1 − e)λ + ez)/t. It levels off only where a root is near
a boundary: for u → ∞ if r, s > 0, being nearly linear in λ there, and for u → −∞ if r, s < 0, being nearly linear in z.
Newton's steps are taken in those variables there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxift._types import Floats
from cvxift.cones.curve import END, CurveCone, descend
from cvxift.cones.curve_group import CURVED, INSIDE, POLAR, Frame, Regimes


class Power(CurveCone):
    """Power cones, each with its own exponent."""

    symmetric = True

    def regime(self, v: Floats, alpha: Floats) -> Regimes:
        """From the definitions of the cone and its polar."""
        r, s, t = v
        beta = 1.0 - alpha
        out = np.full(r.shape, CURVED, dtype=np.int8)
        out[(r <= 0.0) & (s <= 0.0) & ((-r / alpha) ** alpha * (-s / beta) ** beta >= t)] = POLAR
        out[(r >= 0.0) & (s >= 0.0) & (r**alpha * s**beta >= t)] = INSIDE
        return out

    def frame(self, rho: Floats, alpha: Floats) -> Frame:
        """In the scaled form above; at |ρ| = ∞ its limit."""
        first, b, tail, z_P, z_N, length_P, length_N = _scale(rho, alpha)
        near, away = (1.0 - b) * tail, b
        # −P × N = (y + N₂, −(x + N₁), yN₁ − xN₂)
        short, long, flat = z_N * tail + away * z_P, z_N + near * z_P, near * tail - away
        axes = np.empty((3, 3, *first.shape))
        axes[0] = np.where(first, 1.0, tail), np.where(first, tail, 1.0), z_P
        axes[1] = np.where(first, short, long), -np.where(first, long, short), np.where(first, flat, -flat)
        axes[2] = np.where(first, near, away), np.where(first, away, near), -z_N
        axes /= np.stack([length_P, length_P * length_N, length_N])[:, None]
        return Frame(axes, z_P * length_N / length_P**2, b * (1.0 - b) * z_N * length_P / length_N**2)

    def bend(self, rho: Floats, alpha: Floats) -> tuple[Floats, Floats]:
        """ψ/θ = αβ e^2(α−β)ρ (|P|/|N|)³."""
        at = _scale(rho, alpha)
        b, product = at.b, at.b * (1.0 - at.b)
        ratio = product * np.exp((2.0 * b - 1.0) * np.abs(rho)) * (at.length_P / at.length_N) ** 3
        turn = b - (1.0 - b) * at.tail**2
        twist = 2.0 * (2.0 * b - 1.0) + 3.0 * turn * (product / at.length_N**2 - 1.0 / at.length_P**2)
        return ratio, np.where(at.first, twist, -twist)

    def root(self, v: Floats, alpha: Floats) -> Floats:
        """Bracketed Newton steps on M(u); v₃ = 0 only at the ends of the curve."""
        r, _, t = v
        rho = np.where(r > 0.0, END, -END)
        rho = np.where(np.isnan(t), np.nan, rho)
        inner = np.flatnonzero(t > 0.0)
        v, alpha = v[:, inner], alpha[inner]
        data = v, np.log(v[2]), alpha, np.sign(v[0]) + np.sign(v[1])
        wide = np.full(inner.size, np.inf)
        # |dρ/dM| ≤ 1/min(α, β): an M as small as its rounding leaves ρ half of its digits and more.
        u = descend(_step, np.zeros(inner.size), -wide, wide, *data, value_tolerance=1e-12, step_tolerance=1e-6)
        log_x, log_y, *_ = _logarithms(u, *data[:3])
        rho[inner] = log_x - log_y
        return rho

    def nearby(self, v: Floats, alpha: Floats, polar: bool) -> tuple[list[Floats], Floats]:
        """The ray above v in its own coordinates."""
        r, s, _ = v
        beta = 1.0 - alpha
        with np.errstate(all="ignore"):
            ray = np.log(s * alpha / (r * beta)) if polar else np.log(r / s)
        return [np.clip(np.nan_to_num(ray), -END, END)], np.minimum(np.abs(r), np.abs(s))


class _Scale(NamedTuple):
    """ρ ≥ 0, b, e^−A, e^−bA, e^−(1−b)A and the lengths of the divided P and N."""

    first: NDArray[np.bool_]
    b: Floats
    tail: Floats
    z_P: Floats
    z_N: Floats
    length_P: Floats
    length_N: Floats


def _scale(rho: Floats, alpha: Floats) -> _Scale:
    first, size = rho >= 0.0, np.abs(rho)
    b = np.where(first, 1.0 - alpha, alpha)
    tail, z_P, z_N = np.exp(-size), np.exp(-b * size), np.exp(-(1.0 - b) * size)
    length_P = np.sqrt(1.0 + tail * tail + z_P * z_P)
    length_N = np.sqrt(((1.0 - b) * tail) ** 2 + b * b + z_N * z_N)
    return _Scale(first, b, tail, z_P, z_N, length_P, length_N)


def _logarithms(u: Floats, v: Floats, log_t: Floats, alpha: Floats) -> tuple[Floats, ...]:
    """log x, log y, log(z/t), log(λ/t), and the e of M'."""
    log_z, log_rest = -np.logaddexp(0.0, -u), -np.logaddexp(0.0, u)
    both = 2.0 * log_t + log_z + log_rest
    log_x, lean_x = _coordinate(v[0], np.log(4.0 * alpha) + both)
    log_y, lean_y = _coordinate(v[1], np.log(4.0 * (1.0 - alpha)) + both)
    return log_x, log_y, log_z, log_rest, 0.5 * (alpha * (1.0 - lean_x) + (1.0 - alpha) * (1.0 - lean_y))


def _coordinate(r: Floats, log_square: Floats) -> tuple[Floats, Floats]:
    """Logarithm of ½(r + √(r² + h²)) without cancellation, and r/√(r² + h²), from log h²."""
    size = np.abs(r)
    root = np.hypot(r, np.exp(0.5 * log_square))
    log_sum = np.log(0.5 * (size + root))
    log_half = 0.5 * log_square - np.log(2.0)  # ½h, which x is at r = 0
    log_x = np.where(r > 0.0, log_sum, np.where(r < 0.0, 2.0 * log_half - log_sum, log_half))
    return log_x, np.where(r == 0.0, 0.0, r / root)


def _step(u: Floats, v: Floats, log_t: Floats, alpha: Floats, signs: Floats) -> tuple[Floats, Floats]:
    """M(u) and the end of Newton's step, in u, λ or z."""
    log_x, log_y, log_z, log_rest, e = _logarithms(u, v, log_t, alpha)
    value = alpha * log_x + (1.0 - alpha) * log_y - log_z - log_t
    step = value / ((1.0 - e) * np.exp(log_rest) + e * np.exp(log_z))
    in_rest, in_z = (signs == 2.0) & (u >= 0.0), (signs == -2.0) & (u <= 0.0)
    # A step to λ ≤ 0 or z ≤ 0 gives NaN, which is outside any bracket.
    step = np.where(in_rest, -np.log1p(-step), np.where(in_z, np.log1p(step), step))
    return value, u + step
