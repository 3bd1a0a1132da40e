"""Linear chains whose positions and sequences share one matrix of transitions: products of matrices of probabilities.

As in `chain`, with e_t = e throughout, allowed everywhere. In place of sums of S² exponentials a position costs one
product with E = exp(e − its columns' maxima m), and no joint marginals are laid out:

    forward    r_t = p_{t−1} E,   p_t ∝ r_t ∘ exp(u_t + m)             Z is the product of what p_t is divided by
    backward   q_t = μ_t / r_t,   μ_{t−1} = p_{t−1} ∘ (q_t Eᵀ),        Σ_t μ_{t−1,t} = E ∘ Σ_t p_{t−1}ᵀ q_t

In float64. A state that underflows weighs less than 1e−300 beside another, and what follows can favour it by no more
than exp(max e − min e): where that is below `SPREAD`, what is lost is far below rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SPREAD = 300.0  # of the scores of transitions, largest


class Messages(NamedTuple):
    """What both recursions share, time in front."""

    value: np.ndarray  # log Z, (B,)
    E: np.ndarray  # (S, S)
    p: np.ndarray  # (T, B, S)
    r: np.ndarray  # (T, B, S); the first is not used
    keep: np.ndarray | None  # (T, B) boolean, None where all positions are real


def messages(u: np.ndarray, e: np.ndarray, real: np.ndarray) -> Messages | None:
    """The forward recursion.

    Args:
        u: scores of states, (B, T, S); −∞ forbids.
        e: scores of transitions from row to column, (S, S).
        real: whether a position belongs to the sequence, (B, T) boolean, a prefix.

    Returns:
        log Z and the messages; None where the scores need logarithms, or cannot be used: NaN, +∞, a forbidden
        transition or position, too large a spread.

    Example:
        >>> import numpy as np
        >>> found = messages(np.zeros((1, 3, 2)), np.zeros((2, 2)), np.ones((1, 3), dtype=bool))
        >>> float(np.exp(found.value[0]).round(6)), marginals(found)[0].tolist()
        (8.0, [[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]])
    """
    if 0 in u.shape or not np.max(e) <= np.min(e) + SPREAD or not np.isfinite(np.max(e)):
        return None
    m = np.max(e, axis=0)
    E = np.exp(np.subtract(e, m, dtype=np.float64))
    scores = np.array(np.moveaxis(u, 1, 0), dtype=np.float64)  # (T, B, S)
    scores[1:] += m
    top = np.max(scores, axis=-1, keepdims=True)
    if not np.isfinite(top).all():
        return None
    p = np.exp(np.subtract(scores, top, out=scores), out=scores)
    r, scale = np.empty_like(p), np.empty_like(top)
    keep = None if real.all() else real.T
    np.add.reduce(p[0], axis=-1, keepdims=True, out=scale[0])
    p[0] /= scale[0]
    for t in range(1, len(p)):
        np.matmul(p[t - 1], E, out=r[t])
        p[t] *= r[t]
        np.add.reduce(p[t], axis=-1, keepdims=True, out=scale[t])
        p[t] /= scale[t]
        if keep is not None:
            np.copyto(p[t], p[t - 1], where=~keep[t, :, None])
    logs = (np.log(scale) + top)[..., 0]
    return Messages(np.sum(logs if keep is None else np.where(keep, logs, 0.0), axis=0), E, p, r, keep)


def marginals(found: Messages) -> tuple[np.ndarray, np.ndarray]:
    """Marginals of the states, (B, T, S), and of the transitions, (B, T−1, S, S); zero beyond the length."""
    _, E, p, _, _ = found
    states, q = _backward(found, p[-1])
    pairs = np.einsum("tbi,tbj,ij->btij", p[:-1], q[1:], E)
    return np.moveaxis(states, 0, 1), pairs


def weighted(found: Messages, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same times a weight for each sequence, (B,), and those of transitions summed over positions and sequences.

    Returns:
        (B, T, S) and (S, S): the gradient of the weighted sum of log Z.
    """
    _, E, p, _, _ = found
    states, q = _backward(found, p[-1] * weight[:, None])
    size = p.shape[-1]
    return np.moveaxis(states, 0, 1), E * (p[:-1].reshape(-1, size).T @ q[1:].reshape(-1, size))


def _backward(found: Messages, mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Marginals and q from those of the last position, time in front; both are zero beyond the length."""
    _, E, p, r, keep = found
    states, q = np.empty_like(p), np.empty_like(p)
    turned = np.ascontiguousarray(E.T)
    for t in range(len(p) - 1, 0, -1):
        states[t] = mu
        np.divide(mu, r[t], out=q[t])
        before = q[t] @ turned
        before *= p[t - 1]
        if keep is not None:
            beyond = ~keep[t, :, None]
            np.copyto(before, mu, where=beyond)
            np.copyto(states[t], 0.0, where=beyond)
            np.copyto(q[t], 0.0, where=beyond)
        mu = before
    states[0] = mu
    return states, q
