"""Cones in three dimensions whose curved boundary is swept by one curve of rays: the mathematics of exp and power.

Let p(ρ) be the unit ray of the boundary of K at ρ, n(ρ) the unit ray of the dual cone orthogonal to it (the inner
normal there), and q = ±p × n the third direction. As ρ moves they turn with the speeds θ, ψ ≥ 0:

    p' = θ q,      n' = −ψ q,      q' = −θ p + ψ n.

A point whose projection lies on the curved boundary is v = σ p − τ n with σ = ‖Π(v)‖ > 0, τ = ‖Π(v) − v‖ > 0, and its
ρ is the one root, among those with σ, τ > 0, of

    φ(ρ) = q(ρ)ᵀv,      φ' = −(θσ + ψτ).

p, q and n have unit length, so rounding in φ moves σ p by rounding relative to ‖v‖ whatever ρ is: no parametrization
of the curve can spoil the projection. Moving v moves ρ by q/(θσ + ψτ), σ by p and τ by −n, hence

    D = p pᵀ + d q qᵀ,      d = θσ/(θσ + ψτ) = 1/(1 + κ),      κ = ψτ/(θσ),

and differentiating once more, with a_p = pᵀa and so on, D²Π(v)[a, b] is

    c_p (a_q b_q p + (a_p b_q + a_q b_p) q) + c_n (a_q b_q n + (a_n b_q + a_q b_n) q) + c_q a_q b_q q,
    c_p = d(1 − d)/σ,    c_n = d(1 − d)/τ,    c_q = d(1 − d)/(θσ + ψτ) · (log θ/ψ)'.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import numpy as np

from cvxift._types import Floats
from cvxift.cones.base import BELOW_ONE, TINY, Cone, Group
from cvxift.cones.curve_group import (
    CURVED,
    INSIDE,
    NONE,
    POLAR,
    Between,
    Curved,
    CurveGroup,
    Frame,
    Regimes,
    projections,
)
from cvxift.program.cones import Part

END = 1e300  # |ρ| of an end of the curve, where the frame is a limit
POLISH = 3  # Newton steps on φ at most, once the root is bracketed; one is enough nearly always
REFINEMENTS = 6  # steps that sharpen the best ray of the grid; the distance's error is the square of the ray's
GRID = np.sinh(np.linspace(-4.8, 4.8, 33))  # rays tried for the distance from the inside to the boundary, |ρ| ≤ 61
CHUNK = 4096  # points tried on the grid at a time
MOST_TRIALS = 100  # met only where subnormal data leave a function no root
NEAR_END = 1e-3  # how near to the end of its bracket a step that leaves it is taken


class CurveCone(Cone):
    """A cone whose curved boundary is one curve of rays; subclasses give the curve and find the root.

    Points come as columns v of shape (3, N), with v₃ ≥ 0 where the cone is symmetric in it.
    """

    symmetric: bool  # whether (x, y, z) ∈ K ⇔ (x, y, −z) ∈ K

    @abc.abstractmethod
    def regime(self, v: Floats, alpha: Floats) -> Regimes:
        """Where Π(v) lies, shape (N,): INSIDE, CURVED, POLAR or FACE."""

    @abc.abstractmethod
    def frame(self, rho: Floats, alpha: Floats) -> Frame:
        """The frame at ρ, without overflow for any ρ; derivatives as in the module's first lines."""

    @abc.abstractmethod
    def bend(self, rho: Floats, alpha: Floats) -> tuple[Floats, Floats]:
        """The ratio ψ/θ, which may overflow to inf, and (log θ/ψ)', each of shape (N,)."""

    @abc.abstractmethod
    def root(self, v: Floats, alpha: Floats) -> Floats:
        """The ρ with φ(ρ) = 0 and σ, τ > 0, to about half of the digits, for CURVED points with max |v| = 1."""

    @abc.abstractmethod
    def nearby(self, v: Floats, alpha: Floats, polar: bool) -> tuple[list[Floats], Floats]:
        """For points INSIDE (or POLAR): rays close to a near boundary, and the distance to the boundary's end rays."""

    def guess(self, v: Floats, alpha: Floats) -> Floats | None:
        """A cheap guess of `root`; it is used where Newton's step from it is short."""
        return

    def face_distance(self, v: Floats) -> Floats:
        """Distance of CURVED points to the points that project to a flat face, shape (N,); inf if there is none."""
        return np.full(v.shape[1], np.inf)

    def project(self, part: Part, v: Floats) -> Floats:
        """Π(v): v, 0, σp, or on a flat face v without its second and negative third entry."""
        regime, curved = self._locate(part, v)
        return projections(v, regime, curved)

    def spectrum(self, part: Part, v: Floats, near: Group | None = None) -> CurveGroup:
        """Eigenvalues 1, d, 0 at p, q, n."""
        regime, curved = self._locate(part, v, near)
        return CurveGroup(part, v, regime, curved, self._between(curved))

    def margin(self, part: Part, v: Floats, group: Group | None = None) -> Floats:
        """Distance to the boundaries of the cone, of its polar, and of what projects to a flat face."""
        points, alpha = self._columns(part, v)
        if isinstance(group, CurveGroup):
            regime, curved = group.regime.ravel(), group.curved
        else:
            regime, curved = self._locate(part, v)
        out = np.abs(points).min(axis=0)  # right for FACE, whose neighbours are v₁ > 0, v₂ > 0 and the other sign of v₃
        faces = self.face_distance(points[:, curved.chosen])
        out[curved.chosen] = np.minimum(np.minimum(curved.sigma, curved.tau), faces)
        for which in (INSIDE, POLAR):
            chosen = np.flatnonzero(regime == which)
            for first in range(0, chosen.size, CHUNK):
                some = chosen[first : first + CHUNK]
                out[some] = self._depth(points[:, some], alpha[some], which == POLAR)
        return out.reshape(v.shape[:-1])

    def _depth(self, v: Floats, alpha: Floats, polar: bool) -> Floats:
        """Distance to the boundary from inside the cone, or its polar: the least nᵀv, or −pᵀv, over all rays.

        Its derivative in ρ is −ψφ, or −θφ, so it falls in the direction of φ.
        """
        scale = np.abs(v).max(axis=0)
        scale = np.where(scale > 0.0, scale, 1.0)
        v = v / scale
        near, depth = self.nearby(v, alpha, polar)

        def gap(rho: Floats) -> tuple[Floats, Floats, Floats]:
            frame = self.frame(rho, alpha)
            along_p, slope, along_n = np.einsum("ki...n,in->k...n", frame.axes, v)
            return (-along_p if polar else along_n), slope, frame.theta * along_p - frame.psi * along_n

        tried = np.concatenate([np.repeat(GRID[:, None], v.shape[1], axis=1), near])
        values = gap(tried)[0]
        values = np.where(np.isnan(values), np.inf, values)
        first = values.argmin(axis=0)
        rho = np.take_along_axis(tried, first[None], axis=0)[0]
        reach = 0.5 * (1.0 + np.abs(rho))
        value, slope, speed = gap(rho)
        for _ in range(REFINEMENTS):
            step = slope / np.maximum(np.abs(speed), TINY)
            trial = rho + np.clip(step, -reach, reach)
            new = gap(trial)
            better = new[0] < value
            reach = np.where(better, reach, 0.125 * reach)
            rho = np.where(better, trial, rho)
            value, slope, speed = (np.where(better, now, old) for now, old in zip(new, (value, slope, speed)))
        return scale * np.maximum(np.minimum(value, depth), 0.0)

    def _columns(self, part: Part, v: Floats) -> tuple[Floats, Floats]:
        """The points as columns (3, M), folded to v₃ ≥ 0 where the cone is symmetric, and their α (M,)."""
        points = v.reshape(-1, 3).T
        alpha = np.broadcast_to(0.0 if part.param is None else part.param, v.shape[:-1]).ravel()
        if self.symmetric:
            points = np.stack([points[0], points[1], np.abs(points[2])])
        return points, alpha

    def _locate(self, part: Part, v: Floats, near: Group | None = None) -> tuple[Regimes, Curved]:
        """Where the points project to, and those on the curved boundary.

        Args:
            part: the cones.
            v: the points.
            near: the spectrum at nearby points, whose rays are tried first.
        """
        points, alpha = self._columns(part, v)
        with np.errstate(all="ignore"):  # overflow and 0/0 give the right side of every comparison
            regime = self.regime(points, alpha)
            every = not regime.any()  # CURVED is 0
            chosen = np.arange(regime.size) if every else np.flatnonzero(regime == CURVED)
            if chosen.size == 0:
                return regime, NONE
            if not every:
                points, alpha = points[:, chosen], alpha[chosen]
            scale = np.abs(points).max(axis=0)
            points = points / scale
            known = None
            if isinstance(near, CurveGroup) and near.regime.size == regime.size and near.curved.chosen.size:
                known = np.full(regime.size, np.nan)
                known[near.curved.chosen] = near.curved.rho
                known = known[chosen]
            found = self._polish(*self._start(points, alpha, known), points, alpha)
            if found is None:  # a guess that looked like the root was none
                rho = self.root(points, alpha)
                found = self._polish(rho, self._at(rho, points, alpha), points, alpha, sure=True)
            rho, (frame, sigma, _, tau) = found
        if self.symmetric:
            frame.axes[:, 2] *= np.where(v.reshape(-1, 3)[chosen, 2] < 0.0, -1.0, 1.0)
        return regime, Curved(chosen, rho, alpha, frame, scale * sigma, scale * tau)

    def _start(self, points: Floats, alpha: Floats, known: Floats | None) -> tuple[Floats, Any]:
        """Rays close to the roots, and `_at` there: guesses with a short Newton step, the roots of the other points."""
        rho = self.guess(points, alpha) if known is None else known
        if rho is None:
            rho = self.root(points, alpha)
            return rho, self._at(rho, points, alpha)
        frame, sigma, phi, tau = at = self._at(rho, points, alpha)
        speed = frame.theta * sigma + frame.psi * tau
        good = (np.abs(phi) <= _reach(rho) * speed) & (sigma > TINY) & (tau > TINY) & (np.abs(rho) < END)
        if good.all():
            return rho, at
        bad = np.flatnonzero(~good)
        rho = rho.copy()
        rho[bad] = self.root(points[:, bad], alpha[bad])
        return rho, self._at(rho, points, alpha)

    def _polish(self, rho: Floats, at: Any, points: Floats, alpha: Floats, sure: bool = False) -> Any:
        """Newton on φ: the rays and what `_at` gives there; None where it did not settle, unless the start is sure."""
        settled = False
        for _ in range(POLISH):
            frame, sigma, phi, tau = at
            speed = frame.theta * sigma + frame.psi * tau
            step = phi / np.where(speed > 0.0, speed, np.inf)
            # The root is known to half of the digits: a longer step is rounding where the curve hardly turns.
            reach = _reach(rho)
            rho = rho + np.minimum(np.maximum(step, -reach), reach)
            at = self._at(rho, points, alpha)
            settled = not (np.abs(step) > 1e-5 * reach).any()
            if settled:
                break
        return (rho, at) if settled or sure else None

    def _at(self, rho: Floats, v: Floats, alpha: Floats) -> tuple[Frame, Floats, Floats, Floats]:
        """The frame at ρ, σ, φ and τ."""
        frame = self.frame(rho, alpha)
        sigma, phi, minus_tau = np.einsum("kin,in->kn", frame.axes, v)
        return frame, np.maximum(sigma, TINY), phi, np.maximum(-minus_tau, TINY)

    def _between(self, curved: Curved) -> Between:
        """The eigenvalue d and what its derivative needs."""
        if curved.chosen.size == 0:
            return Between(curved.sigma, curved.sigma, curved.sigma)
        with np.errstate(all="ignore"):  # infinite κ is a limit like any other
            ratio, twist = self.bend(curved.rho, curved.alpha)
            kappa = ratio * (curved.tau / curved.sigma)
            d, complement = 1.0 / (1.0 + kappa), 1.0 / (1.0 + 1.0 / kappa)
        at_end = np.abs(curved.rho) >= END
        d = np.where(at_end, d, np.clip(d, TINY, BELOW_ONE))
        return Between(d, np.where(at_end, complement, np.clip(complement, TINY, BELOW_ONE)), twist)


def _reach(rho: Floats) -> Floats:
    """The longest step of the last refinement."""
    return 1e-3 * (1.0 + np.abs(rho))


def descend(
    evaluate: Callable[..., tuple[Floats, Floats]],
    x: Floats,
    lo: Floats,
    hi: Floats,
    *data: Floats,
    value_tolerance: float,
    step_tolerance: float,
) -> Floats:
    """Roots of functions that are positive below their root and negative above it.

    A step beyond an end of its bracket is first taken almost to that end, because roots near the ends are what Newton's
    method overshoots; every third such step halves the bracket instead (in asinh x). Towards an unbounded side the
    distance from the start is tripled.

    Args:
        evaluate: from x and the data, the values and the points that Newton's method would go to, each of shape (N,).
        x: starting points inside the brackets, shape (N,).
        lo: lower ends, shape (N,); may be −inf.
        hi: upper ends, shape (N,); may be inf.
        *data: arguments of the functions, last axis N.
        value_tolerance: a function whose |value| is at most this is done.
        step_tolerance: a function whose step is at most this, relative to 1 + |x|, is done.

    Returns:
        The roots, shape (N,); NaN data end at once.

    Example:
        >>> def halve(x, target):
        ...     return target - x**2, 0.5 * (x + target / x)
        >>> target, low = np.array([2.0, 3.0]), np.zeros(2)
        >>> descend(halve, target, low, target, target, value_tolerance=0.0, step_tolerance=1e-9).round(6)
        array([1.414214, 1.732051])
    """
    found, active, start = x.copy(), np.arange(x.size), x
    for trial in range(MOST_TRIALS):
        value, target = evaluate(x, *data)
        lo, hi = np.where(value > 0.0, x, lo), np.where(value < 0.0, x, hi)
        inside = (target > lo) & (target < hi)
        if not inside.all():
            target = np.where(inside, target, _fallback(x, value, lo, hi, start, halve=trial % 3 == 2))
        busy = np.abs(value) > value_tolerance  # false for NaN too
        target = np.where(busy, target, x)
        busy &= np.abs(target - x) > step_tolerance * (1.0 + np.abs(x))
        x = found[active] = target
        left = np.count_nonzero(busy)
        if left == 0:
            break
        if 2 * left <= busy.size:  # go on with the others alone
            active, x, lo, hi, start = active[busy], x[busy], lo[busy], hi[busy], start[busy]
            data = tuple(item[..., busy] for item in data)
    return found


def _fallback(x: Floats, value: Floats, lo: Floats, hi: Floats, start: Floats, *, halve: bool) -> Floats:
    """Points inside the brackets, on the side of x where the root lies."""
    up = value > 0.0
    end = np.where(up, hi, lo)
    unbounded = np.isinf(end)
    away = x + np.where(up, 2.0, -2.0) * np.maximum(1.0, np.abs(x - start))
    if halve:
        with np.errstate(invalid="ignore"):
            step = np.sinh(0.5 * (np.arcsinh(x) + np.arcsinh(end)))
    else:
        step = end - NEAR_END * np.where(unbounded, 0.0, end - x)
    return np.where(unbounded, away, step)
