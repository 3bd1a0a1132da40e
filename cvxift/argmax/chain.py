"""Linear chains: log-partition function, marginals and their derivative by recursion, on any array-API namespace.

    p(x) = exp(Σ_t u_t(x_t) + Σ_t e_t(x_{t−1}, x_t)) / Z,     x_t one of S states, t = 0, …, T−1

    forward    α_t(j) = u_t(j) + lse_i(α_{t−1}(i) + e_t(i, j)),   log Z = lse_j α_{T−1}(j),   lse = log Σ exp
               B_t(i|j) = exp(α_{t−1}(i) + e_t(i, j) + u_t(j) − α_t(j)), the chance of i before j given the past
    backward   μ_{T−1} = exp(α_{T−1} − log Z),   μ_{t−1,t}(i, j) = B_t(i|j) μ_t(j),   μ_{t−1} = Σ_j μ_{t−1,t}

Marginals are the gradient of log Z; only the forward pass is in logarithms, and the backward pass multiplies
probabilities. Their derivative in a direction (du, de), a product with the Hessian of log Z and so its own transpose,
is the derivative of both recursions:

    dα_t(j) = du_t(j) + Σ_i B_t(i|j) (dα_{t−1}(i) + de_t(i, j)),      dB_t = B_t (dα_{t−1} + de_t − (dα_t − du_t))

Memory is that of the marginals, T S². Scores of −∞ forbid states or transitions; they are replaced by −10³⁰, which is
absorbing in sums of scores and has derivatives of zero, so that no recursion meets ∞ − ∞. Where every path is
forbidden, marginals are zero and log Z is −∞. Shorter sequences in a batch: messages pass unchanged through positions
beyond the length, which have marginals of zero. L. Rabiner 1989; J. Lafferty, A. McCallum, F. Pereira 2001.
"""

from __future__ import annotations

from typing import Any

import array_api_compat

from cvxift._types import Array
from cvxift.argmax.loops import Scan, scan

FORBIDDEN = -1e30
POSSIBLE = -1e29  # scores above are those of allowed paths
POINTERS = 1 << 16  # numbers up to which all pointers at once cost less than the operations along a path


def log_partition(u: Array, e: Array, real: Array, run: Scan = scan) -> Array:
    """log Z, the log of the sum over all paths of their exponentiated scores.

    Args:
        u: scores of states, (..., T, S).
        e: scores of transitions from row to column, (..., T−1, S, S).
        real: whether a position belongs to the sequence, (..., T) boolean, a prefix.
        run: how to iterate, see `control`.

    Returns:
        log Z, (...); −∞ where every path is forbidden.

    Example:
        >>> import numpy as np
        >>> z = log_partition(np.zeros((3, 2)), np.zeros((2, 2, 2)), np.ones(3, dtype=bool))
        >>> float(np.exp(z).round(6))
        8.0
    """
    xp = array_api_compat.array_namespace(u, e)
    last, past, _ = _forward(u, e, real, run)
    value = past + xp.log(xp.sum(xp.exp(last), axis=-1))
    return xp.where(past < POSSIBLE, xp.full_like(value, -xp.inf), value)


def marginals(u: Array, e: Array, real: Array, run: Scan = scan) -> tuple[Array, Array]:
    """Marginals of the states and of the transitions (arguments as for `log_partition`).

    Returns:
        μ (..., T, S) and (..., T−1, S, S); zeros beyond the length, and where every path is forbidden.

    Example:
        >>> import numpy as np
        >>> states, pairs = marginals(np.log([[1.0, 1.0], [1.0, 3.0]]), np.zeros((1, 2, 2)), np.ones(2, dtype=bool))
        >>> states.round(6).tolist()
        [[0.5, 0.5], [0.25, 0.75]]
    """
    xp = array_api_compat.array_namespace(u, e)
    last, past, back = _forward(u, e, real, run)
    return _backward(xp, _final(xp, last, past), back, real, run)


def derivative(u: Array, e: Array, real: Array, du: Array, de: Array, run: Scan = scan) -> tuple[Array, Array]:
    """Derivative of the marginals in the direction (du, de): the Hessian of log Z times it, hence also the transpose.

    Args:
        u: scores, as for `log_partition`.
        e: scores.
        real: positions of the sequence.
        du: direction, of u's shape.
        de: direction, of e's shape.
        run: how to iterate.

    Returns:
        dμ of the states and of the transitions.
    """
    xp = array_api_compat.array_namespace(u, e)
    last, past, back = _forward(u, e, real, run)
    mu = _final(xp, last, past)
    # What is forbidden does not move, and counts for nothing whatever its direction.
    du, de = xp.where(u < POSSIBLE, xp.zeros_like(u), du), xp.where(e < POSSIBLE, xp.zeros_like(e), de)
    d_first = du[..., 0, :]
    if u.shape[-2] == 1:
        d_mu = mu * (d_first - xp.sum(mu * d_first, axis=-1, keepdims=True))
        return xp.where(real[..., None], d_mu[..., None, :], xp.zeros_like(du)), de
    kept, dus, des = _leading(real[..., 1:], 1), _leading(du[..., 1:, :], 2), _leading(de, 3)

    def forward(d: Array, now: tuple[Array, ...]) -> tuple[Array, tuple[Array]]:
        B, step, de_t, keep = now
        raised = d[..., :, None] + de_t
        mean = xp.sum(B * raised, axis=-2)
        new = mean + step
        new = new - xp.mean(new, axis=-1, keepdims=True)  # a common shift has no effect, and would grow with time
        return xp.where(keep[..., None], new, d), (B * (raised - mean[..., None, :]),)

    d_last, (d_back,) = run(forward, d_first, (back, dus, des, kept))
    d_mu = mu * (d_last - xp.sum(mu * d_last, axis=-1, keepdims=True))

    def backward(state: tuple[Array, Array], now: tuple[Array, ...]) -> tuple[Any, tuple[Array, ...]]:
        mu, d_mu = state
        B, dB, keep = now
        d_pair = dB * mu[..., None, :] + B * d_mu[..., None, :]
        keep1, keep2 = keep[..., None], keep[..., None, None]
        out = xp.where(keep1, d_mu, xp.zeros_like(d_mu)), xp.where(keep2, d_pair, xp.zeros_like(d_pair))
        before = xp.where(keep1, xp.sum(B * mu[..., None, :], axis=-1), mu)
        return (before, xp.where(keep1, xp.sum(d_pair, axis=-1), d_mu)), out

    flipped = tuple(xp.flip(part, axis=0) for part in (back, d_back, kept))
    (_, first), (states, pairs) = run(backward, (mu, d_mu), flipped)
    first = xp.where(real[..., 0, None], first, xp.zeros_like(first))
    return _joined(xp, first, states), _trailing(xp, xp.flip(pairs, axis=0), 3)


def viterbi(u: Array, e: Array, real: Array, run: Scan = scan) -> tuple[Array, Array]:
    """The best path and its score: the limit of marginals at temperature 0.

    Args:
        u: scores of states, (..., T, S).
        e: scores of transitions from row to column, (..., T−1, S, S), or (S, S) for all.
        real: positions of the sequence, as for `log_partition`.
        run: how to iterate.

    Returns:
        States of the path, (..., T) integers, −1 beyond the length; and its score, (...). Where every path is
        forbidden: −1 throughout, and −∞.

    Source: Viterbi 1967.

    Example:
        >>> import numpy as np
        >>> unary, pairwise = np.array([[1.0, 0.0], [0.0, 0.5]]), np.array([[[1.0, 0.0], [0.0, 1.0]]])
        >>> path, score = viterbi(unary, pairwise, np.ones(2, dtype=bool))
        >>> path.tolist(), float(score)
        ([0, 0], 2.0)
    """
    xp = array_api_compat.array_namespace(u, e)
    shared = e.ndim == 2
    u, e, kept = _batch_last(_finite(xp, u), 2), _finite(xp, e), _batch_last(real, 1)
    e = e[(..., *(None,) * (u.ndim - 2))] if shared else _batch_last(e, 3)

    def forward(best: Array, now: tuple[Array, ...]) -> tuple[Array, tuple[Array]]:
        step, keep, *links = now
        raised = xp.max(best[:, None, ...] + (links[0] if links else e), axis=0) + step
        return xp.where(keep[None, ...], raised, best), (best,)

    # Pointers are needed along one path alone: if they are many, the same maximum is sought again there.
    def backward(state: Array, now: tuple[Array, ...]) -> tuple[Array, tuple[Array]]:
        best, keep, *links = now
        into = _column(xp, links[0] if links else e, state)
        before = xp.argmax(best + into, axis=0)
        return xp.where(keep, before, state), (xp.where(keep, state, none),)

    links = () if shared else (e,)
    best, bests = u[0, ...], ()
    if u.shape[0] > 1:
        best, bests = run(forward, best, (u[1:, ...], kept[1:, ...], *links))
    state, score = xp.argmax(best, axis=0), xp.max(best, axis=0)
    if bests and u.shape[1] * array_api_compat.size(bests[0]) <= POINTERS:
        raised = bests[0][:, :, None, ...] + (links[0] if links else e)
        path = _followed(xp, xp.argmax(raised, axis=1), state, kept, run)
        return _possible(xp, _trailing(xp, xp.where(kept, path, -xp.ones_like(path)), 1), score)
    none = -xp.ones_like(state)
    rest = state[None, ...][:0, ...]
    if bests:
        flipped = (xp.flip(part, axis=0) for part in (*bests, kept[1:, ...], *links))
        state, (rest,) = run(backward, state, tuple(flipped))
    path = xp.concat([xp.where(kept[0, ...], state, none)[None, ...], xp.flip(rest, axis=0)], axis=0)
    return _possible(xp, _trailing(xp, path, 1), score)


def _followed(xp: Any, pointers: Array, state: Array, kept: Array, run: Scan) -> Array:
    """States along the paths, (T, ...), from the best one before each state, (T−1, S, ...), and the last.

    States of all sequences are numbered through, s N + k of sequence k: a step is one look-up.
    """
    flat = xp.reshape(pointers, (pointers.shape[0], -1))
    own = xp.cumulative_sum(xp.ones_like(flat), axis=1) - 1
    number = flat.shape[1] // pointers.shape[1]
    stays = xp.broadcast_to(~kept[1:, None, ...], pointers.shape)
    flat = xp.where(xp.reshape(stays, flat.shape), own, flat * number + own % number)
    last = xp.reshape(state, (-1,)) * number + own[0, :number]
    first, (rest,) = run(lambda at, now: (xp.take(now[0], at, axis=0), (at,)), last, (xp.flip(flat, axis=0),))
    return xp.reshape(xp.concat([first[None, ...], xp.flip(rest, axis=0)], axis=0) // number, kept.shape)


def _column(xp: Any, links: Array, state: Array) -> Array:
    """links (S, S, ...), with 1 for sequences that share them, at one column for each sequence: (S, ...)."""
    if links.ndim == 2 + state.ndim and links.shape[2:] == state.shape:
        return xp.take_along_axis(links, xp.broadcast_to(state, (links.shape[0], 1, *state.shape)), axis=1)[:, 0, ...]
    flat = xp.reshape(links, links.shape[:2])
    return xp.reshape(xp.take(flat, xp.reshape(state, (-1,)), axis=1), (links.shape[0], *state.shape))


def _possible(xp: Any, path: Array, score: Array) -> tuple[Array, Array]:
    """The path and its score; −1 and −∞ where it is a forbidden one."""
    allowed = ~(score < POSSIBLE)
    return xp.where(allowed[..., None], path, -xp.ones_like(path)), xp.where(allowed, score, score - xp.inf)


def _forward(u: Array, e: Array, real: Array, run: Scan) -> tuple[Array, Array, Array]:
    """α at the last position less its maximum, the maximum, and all B_t with time in front, (T−1, ..., S, S).

    α is kept near zero: otherwise its rounding, relative to a sum over the whole past, would get into B.
    """
    xp = array_api_compat.array_namespace(u, e)
    u, e = _finite(xp, u), _finite(xp, e)
    first, top = _lowered(xp, u[..., 0, :])
    if u.shape[-2] == 1:
        return first, top, _leading(e, 3)

    def step(state: tuple[Array, Array], now: tuple[Array, ...]) -> tuple[Any, tuple[Array]]:
        alpha, past = state
        own, links, keep = now
        scores = alpha[..., :, None] + links
        highest = xp.max(scores, axis=-2, keepdims=True)
        weights = xp.exp(scores - highest)
        total = xp.sum(weights, axis=-2, keepdims=True)
        new, top = _lowered(xp, (xp.log(total) + highest)[..., 0, :] + own)
        return (xp.where(keep[..., None], new, alpha), xp.where(keep, past + top, past)), (weights / total,)

    steps = (_leading(u[..., 1:, :], 2), _leading(e, 3), _leading(real[..., 1:], 1))
    (last, past), (back,) = run(step, (first, top), steps)
    return last, past, back


def _lowered(xp: Any, alpha: Array) -> tuple[Array, Array]:
    top = xp.max(alpha, axis=-1)
    return alpha - top[..., None], top


def _backward(xp: Any, mu: Array, back: Array, real: Array, run: Scan) -> tuple[Array, Array]:
    if back.shape[0] == 0:
        first = xp.where(real[..., 0, None], mu, xp.zeros_like(mu))
        return first[..., None, :], _trailing(xp, back, 3)

    def step(mu: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        B, keep = now
        pair = B * mu[..., None, :]
        pair = xp.where(keep[..., None, None], pair, xp.zeros_like(pair))
        here = xp.where(keep[..., None], mu, xp.zeros_like(mu))
        return xp.where(keep[..., None], xp.sum(pair, axis=-1), mu), (here, pair)

    kept = xp.flip(_leading(real[..., 1:], 1), axis=0)
    first, (rest, pairs) = run(step, mu, (xp.flip(back, axis=0), kept))
    first = xp.where(real[..., 0, None], first, xp.zeros_like(first))
    return _joined(xp, first, rest), _trailing(xp, xp.flip(pairs, axis=0), 3)


def _final(xp: Any, last: Array, past: Array) -> Array:
    """Marginal of the last state; zero where every path is forbidden."""
    weights = xp.exp(last)
    mu = weights / xp.sum(weights, axis=-1, keepdims=True)
    return xp.where((past > POSSIBLE)[..., None], mu, xp.zeros_like(mu))


def _joined(xp: Any, first: Array, rest: Array) -> Array:
    """The first position, and the others in reverse, as one array with time last but one."""
    # PyTorch's `concat` is its `cat`, but unknown where `is_grads_batched` maps over cotangents.
    concat = getattr(xp, "cat", None) or xp.concat
    return _trailing(xp, concat([first[None, ...], xp.flip(rest, axis=0)]), 2)


def _finite(xp: Any, x: Array) -> Array:
    return xp.where(x < FORBIDDEN, xp.full_like(x, FORBIDDEN), x)


def _leading(x: Array, place: int) -> Array:
    """Time, the axis ``place`` from the end, in front."""
    xp = array_api_compat.array_namespace(x)
    axis = x.ndim - place
    return xp.permute_dims(x, (axis, *(i for i in range(x.ndim) if i != axis)))


def _batch_last(x: Array, places: int) -> Array:
    """The last axes in front: where sequences lie side by side, operations over states are operations on long rows."""
    xp = array_api_compat.array_namespace(x)
    axes = range(x.ndim)
    return xp.permute_dims(x, (*axes[x.ndim - places :], *axes[: x.ndim - places]))


def _trailing(xp: Any, x: Array, place: int) -> Array:
    axis = x.ndim - place
    return xp.permute_dims(x, (*range(1, axis + 1), 0, *range(axis + 1, x.ndim)))
