"""The exponential cone, the closure of {(x, y, z) : y > 0, y exp(x/y) ≤ z}.

Its boundary is the curve of rays P(ρ) = (ρ, 1, e^ρ), ρ = x/y, and the flat face {x ≤ 0, y = 0, z ≥ 0}. The dual cone
has the rays N(ρ) = (−1, ρ − 1, e^−ρ), orthogonal to P(ρ); P × P' = −e^ρ N and N × N' = −e^−ρ P. So, with q along P × N,

    θ = e^ρ |N|/|P|²,      ψ = e^−ρ |P|/|N|²,
    φ = [ r (e^−ρ − (ρ − 1)e^ρ) − s (e^ρ + ρe^−ρ) + t (ρ² − ρ + 1) ] / |P||N|          at v = (r, s, t).

Its root is bracketed by where Y = (ρ − 1)r + s and W = r − ρs are positive: on the curve v = yP − wN with
y = Y/(ρ² − ρ + 1), w = W/(ρ² − ρ + 1), and φ = 0 reads y e^ρ − w e^−ρ = t, that is

    ρ + ½ log(Y/W) − asinh( t(ρ² − ρ + 1)/(2√(YW)) ) = 0,

which is nearly linear in the logarithms of ρ's distances from the ends of the bracket; Newton steps on it start those
on φ.
(Friberg, "Projection onto the exponential cone: a univariate root-finding problem", 2023, uses the same ρ.)
"""

from __future__ import annotations

import numpy as np

from cvxift._types import EPS, Floats
from cvxift.cones.curve import CurveCone, descend
from cvxift.cones.curve_group import CURVED, FACE, INSIDE, POLAR, Frame, Regimes

E = float(np.e)
LONGEST = 20.0  # step of the logarithms below
WIDEST = 1e60  # rays further out cannot be told from the ends of the curve, and powers of ρ stay in range


class Exponential(CurveCone):
    """Exponential cones."""

    symmetric = False

    def regime(self, v: Floats, alpha: Floats) -> Regimes:
        """From the definitions of the cone, its polar and the flat face's normal cones."""
        r, s, t = v
        out = np.full(r.shape, CURVED, dtype=np.int8)
        out[(r <= 0.0) & (s <= 0.0)] = FACE
        out[((r > 0.0) & (-E * t >= r * np.exp(s / r))) | ((r == 0.0) & (s <= 0.0) & (t <= 0.0))] = POLAR
        out[((s > 0.0) & (t >= s * np.exp(r / s))) | ((s == 0.0) & (r <= 0.0) & (t >= 0.0))] = INSIDE
        return out

    def frame(self, rho: Floats, alpha: Floats) -> Frame:
        """P and N are divided by e^max(ρ, 0) and e^max(−ρ, 0)."""
        up, down, squared_P, squared_N = _scales(rho)
        length_P, length_N = np.sqrt(squared_P), np.sqrt(squared_N)
        up2, down2 = up * up, down * down
        axes = np.empty((3, 3, *rho.shape))
        axes[0] = rho * down, down, up
        axes[1] = down2 - (rho - 1.0) * up2, -up2 - rho * down2, (rho * (rho - 1.0) + 1.0) * up * down
        axes[2] = -up, (rho - 1.0) * up, down
        axes /= np.stack([length_P, length_P * length_N, length_N])[:, None]
        return Frame(axes, down * length_N / squared_P, up * length_P / squared_N)

    def bend(self, rho: Floats, alpha: Floats) -> tuple[Floats, Floats]:
        """ψ/θ = e^−2ρ (|P|/|N|)³."""
        up, down, squared_P, squared_N = _scales(rho)
        ratio = np.exp(rho) * (squared_P / squared_N) ** 1.5
        turn_P = (rho * down * down + up * up) / squared_P
        turn_N = ((rho - 1.0) * up * up - down * down) / squared_N
        return ratio, 2.0 + 3.0 * (turn_N - turn_P)

    def root(self, v: Floats, alpha: Floats) -> Floats:
        """Three steps on the logarithmic equation, then bracketed Newton steps on φ."""
        rho, lo, hi = _logarithmic(v, 3)
        return descend(_phi, rho, lo, hi, v, value_tolerance=EPS, step_tolerance=1e-5)

    def guess(self, v: Floats, alpha: Floats) -> Floats:
        """Steps on the logarithmic equation alone."""
        return _logarithmic(v, 4)[0]

    def nearby(self, v: Floats, alpha: Floats, polar: bool) -> tuple[list[Floats], Floats]:
        """Rays above and beside v in its own coordinates."""
        r, s, t = v
        with np.errstate(all="ignore"):
            near = [1.0 - s / r, np.log(-r / t)] if polar else [r / s, np.log(t / s)]
        near = [np.clip(np.nan_to_num(ray), -WIDEST, WIDEST) for ray in near]
        return near, np.minimum(r, -t) if polar else np.minimum(s, t)

    def face_distance(self, v: Floats) -> Floats:
        """The points with x, y ≤ 0 project to a flat face or to the origin."""
        return np.hypot(np.maximum(v[0], 0.0), np.maximum(v[1], 0.0))


def _scales(rho: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """e^min(ρ, 0), e^−max(ρ, 0), and the squared lengths of the divided P and N."""
    small = np.exp(-np.abs(rho))
    positive = rho > 0.0
    up, down = np.where(positive, 1.0, small), np.where(positive, small, 1.0)
    up2, down2 = up * up, down * down
    return up, down, (rho * rho + 1.0) * down2 + up2, ((rho - 1.0) ** 2 + 1.0) * up2 + down2


def _phi(rho: Floats, v: Floats) -> tuple[Floats, Floats]:
    """φ(ρ) and the end of Newton's step; the step leaves the bracket where σ or τ is not positive."""
    r, s, t = v
    up, down, squared_P, squared_N = _scales(rho)
    up2, down2, both = up * up, down * down, up * down
    root = np.sqrt(squared_P * squared_N)
    sigma = (rho * r + s) * down + t * up  # times |P|
    tau = (r - (rho - 1.0) * s) * up - t * down  # times |N|
    phi = (r * (down2 - (rho - 1.0) * up2) - s * (up2 + rho * down2) + t * (rho * (rho - 1.0) + 1.0) * both) / root
    speed = down * sigma * squared_N**2 + up * tau * squared_P**2  # times |P|²|N|²·|P||N|
    good = (sigma > 0.0) & (tau > 0.0)
    return phi, np.where(good, rho + phi * (squared_P * squared_N) * root / speed, np.nan)


def _logarithmic(v: Floats, steps: int) -> tuple[Floats, Floats, Floats]:
    """ρ after some steps on the logarithmic equation, and its bracket."""
    r, s, _ = v
    lo = np.where(r > 0.0, np.clip(1.0 - s / r, -WIDEST, WIDEST), -np.inf)
    hi = np.where(s > 0.0, np.clip(r / s, -WIDEST, WIDEST), np.inf)
    rho = np.where(r <= 0.0, hi - 1.0, np.where(s <= 0.0, lo + 1.0, (2.0 * r - s) / (r + s)))
    for _ in range(steps):
        rho = _logarithmic_step(rho, lo, hi, v)
    return rho, lo, hi


def _logarithmic_step(rho: Floats, lo: Floats, hi: Floats, v: Floats) -> Floats:
    r, s, t = v
    width = rho * (rho - 1.0) + 1.0
    Y, W = (rho - 1.0) * r + s, r - rho * s
    tilt = t * width / (2.0 * np.sqrt(Y * W))
    value = rho + 0.5 * np.log(Y / W) - np.arcsinh(tilt)
    lean = tilt / np.sqrt(1.0 + tilt * tilt)
    slope = 1.0 - lean * (2.0 * rho - 1.0) / width + 0.5 * ((1.0 + lean) * r / Y + (1.0 - lean) * s / W)
    # Newton in log(ρ − lo) − log(hi − ρ), in which the logarithms of Y and W are nearly linear and no step leaves.
    left, right = rho - lo, hi - rho
    below, above = np.isfinite(left), np.isfinite(right)
    inverse = np.where(below, 1.0 / left, 0.0) + np.where(above, 1.0 / right, 0.0)
    grow = np.exp(np.clip(-value * np.where(below | above, inverse, 1.0) / slope, -LONGEST, LONGEST))
    one_sided = np.where(below, lo + left * grow, hi - right / grow)
    grown = left * grow
    share = (hi - lo) / (grown + right)
    two_sided = np.where(grown < right, lo + grown * share, hi - right * share)  # from the nearer end: no cancellation
    new = np.where(below & above, two_sided, one_sided)
    return np.where((new > lo) & (new < hi), new, rho)
