"""Solution maps that have a formula: softmax, projection onto the simplex, total-variation denoising."""

from __future__ import annotations

import numpy as np

from ..model import Array, ReferenceFailed


def softmax(theta: Array, dz: Array) -> tuple[Array, Array]:
    """z = softmax(θ) and its VJP (diag z − zzᵀ) dz, in extended precision."""
    theta, dz = theta.astype(np.longdouble), dz.astype(np.longdouble)
    z = np.exp(theta - theta.max())
    z /= z.sum()
    return z.astype(float), (z * (dz - z @ dz)).astype(float)


def simplex(theta: Array, dz: Array) -> tuple[Array, Array, float]:
    """Euclidean projection onto {z ≥ 0, Σz = 1} (M. Held, P. Wolfe, H. Crowder, 1974) and its VJP.

    On the support S the map is θ_S − mean(θ_S) + 1/|S|, so the VJP centers dz on S and is zero elsewhere.

    Returns:
        z, θ̄, and the margin: the smallest distance of an entry to the threshold, relative to the largest.
    """
    ordered = np.sort(theta.astype(np.longdouble))[::-1]
    thresholds = (np.cumsum(ordered) - 1) / np.arange(1, theta.size + 1)
    tau = thresholds[np.flatnonzero(ordered > thresholds)[-1]]
    support = theta > tau
    z = np.where(support, theta - tau, 0).astype(float)
    gradient = np.zeros_like(z)
    gradient[support] = dz[support] - dz[support].astype(np.longdouble).mean()
    return z, gradient, float(np.abs(theta - tau).min() / max(z.max(), np.finfo(float).tiny))


def total_variation(theta: Array, weight: float, guess: Array, dz: Array) -> tuple[Array, Array, float, float]:
    """argmin ½‖x − θ‖² + λ Σ|x_{i+1} − x_i| from its jumps, and its VJP.

    x is constant between jumps; a segment S with jump signs a (left) and b (right) has x_S = mean(θ_S) + λ(b − a)/|S|
    (a or b zero at the ends). Optimal iff every jump has the sign it is given and the dual u_i = Σ_{k ≤ i}(x_k − θ_k)
    lies within ±λ between jumps, u = λ·sign at the jumps. The VJP averages dz over segments for θ and is
    Σ_S (b − a)·mean(dz_S) for λ.

    Args:
        theta: signal, (n,).
        weight: λ > 0.
        guess: approximate solution; only its jumps are used, and corrected until they are certified.
        dz: cotangent, (n,).

    Returns:
        x, θ̄, λ̄, margin (distance of the dual from ±λ between jumps and of jumps from 0, relative).

    Raises:
        ReferenceFailed: the jumps could not be certified.
    """
    n = theta.size
    long = theta.astype(np.longdouble)
    total = np.concatenate([[0], np.cumsum(long)])
    jumps = np.diff(guess)
    at = np.flatnonzero(np.abs(jumps) > 1e-7 * max(1.0, float(np.abs(theta).max())))
    sign = np.sign(jumps[at])
    for _ in range(10 * n):
        edges = np.concatenate([[0], at + 1, [n]])
        lengths = np.diff(edges)
        pull = np.diff(np.concatenate([[0], sign, [0]]))
        level = np.diff(total[edges]) / lengths + weight * pull / lengths
        x = np.repeat(level, lengths)
        actual = np.diff(level)
        wrong = np.flatnonzero(actual * sign <= 0)
        if wrong.size:
            keep = np.ones(at.size, bool)
            keep[wrong] = False
            at, sign = at[keep], sign[keep]
            continue
        # ∂/∂x_k: x_k − θ_k + u_{k−1} − u_k = 0 with u_k = λ sign(x_{k+1} − x_k), hence u_k = Σ_{i ≤ k}(x_i − θ_i).
        dual = np.cumsum(x - long)[:-1]
        flat = np.ones(n - 1, bool)
        flat[at] = False
        excess = np.where(flat, np.abs(dual) - weight, -np.inf)
        worst = int(np.argmax(excess)) if n > 1 else 0
        if n > 1 and excess[worst] > 0:
            place = int(np.searchsorted(at, worst))
            at = np.insert(at, place, worst)
            sign = np.insert(sign, place, np.sign(float(dual[worst])))
            continue
        margin = min(
            float(-excess[flat].max(initial=-np.inf)) / weight,
            float(np.abs(actual).min(initial=np.inf)) / float(np.abs(x).max()),
        )
        mean = np.add.reduceat(dz.astype(np.longdouble), edges[:-1]) / lengths
        return x.astype(float), np.repeat(mean, lengths).astype(float), float(pull @ mean), margin
    raise ReferenceFailed("the jumps of the total-variation solution were not certified")
