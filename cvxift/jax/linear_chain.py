"""Linear chains on JAX arrays: marginals and log-partition function of a CRF or HMM, best path, log-likelihood loss.

The recursions of `cvxift.argmax.chain` run in `jax.lax.scan`. Memory is linear in the length. −∞ forbids a state or a
transition; the marginals of a chain without any path are zero. Dtypes below float32 compute in float32. Inside
`jax.jit` NaN scores give NaN instead of an error.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvxift.argmax import chain, checks
from cvxift.argmax.feasibility import check_entries
from cvxift.errors import ProgramError
from cvxift.jax.arrays import floating, look, temperature_of, visible

Array = jax.Array


def linear_chain(
    unary: Array,
    pairwise: Array,
    log_partition: bool = False,
    lengths: Array | None = None,
    temperature: float | Array = 1.0,
) -> Any:
    """Marginals of a linear-chain CRF (or HMM, with log-probabilities as scores), by the forward–backward recursion.

    Args:
        unary: scores of the states, (..., T, S); −∞ forbids.
        pairwise: scores of the transitions, (..., T−1, S, S) or (S, S), from row to column; −∞ forbids.
        log_partition: return log Z instead, whose gradient are the marginals.
        lengths: lengths of the sequences, integers (...) between 1 and T; None for T. Scores beyond are ignored.
        temperature: > 0, by which all scores are divided; a number or a 0-d array.

    Returns:
        (state marginals (..., T, S), transition marginals (..., T−1, S, S)), zero beyond the length; or log Z (...).

    Raises:
        ProgramError: the shapes do not fit, scores are NaN or +∞, lengths lie outside 1 … T, temperature ≤ 0.

    Source: Lafferty, McCallum, Pereira 2001; Wainwright & Jordan 2008, section 4.1.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import linear_chain
        >>> states, transitions = linear_chain(jnp.zeros((3, 2)), jnp.zeros((2, 2)))
        >>> states[0].tolist(), float(transitions[0].sum())
        ([0.5, 0.5], 1.0)
    """
    u, e, real = _prepared("linear_chain", unary, pairwise, lengths, temperature)
    dtype = jnp.asarray(unary).dtype
    if log_partition:
        return checks.spoiled(jnp, _log_partition(u, e, real)).astype(dtype)
    states, pairs = (checks.spoiled(jnp, part) for part in _marginals(u, e, real))
    return states.astype(dtype), pairs.astype(dtype)


def linear_chain_loss(
    unary: Array,
    pairwise: Array,
    target: Array,
    lengths: Array | None = None,
    temperature: float | Array = 1.0,
) -> Array:
    """CRF loss: the negative log-likelihood of a path; its gradient is marginals − indicators of the target.

    Args:
        unary: as for `linear_chain`.
        pairwise: as for `linear_chain`.
        target: states of the path, integers (..., T); what lies beyond the length is ignored.
        lengths: as for `linear_chain`.
        temperature: > 0; the loss is temperature · log Z(scores / temperature) − score of the target.

    Returns:
        Losses ≥ 0, (...); +∞ where the target's path is forbidden, be it that all are.

    Raises:
        ProgramError: as for `linear_chain`, or the target does not fit.

    Source: Lafferty, McCallum, Pereira 2001; a Fenchel–Young loss: Blondel, Martins, Niculae 2020, section 7.3.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import linear_chain_loss
        >>> round(float(linear_chain_loss(jnp.zeros((3, 2)), jnp.zeros((2, 2)), jnp.array([0, 1, 1]))), 4)
        2.0794
    """
    u, e, real = _prepared("linear_chain_loss", unary, pairwise, lengths, temperature)
    target = jnp.asarray(target)
    if target.shape != u.shape[:-1] or not jnp.issubdtype(target.dtype, jnp.integer):
        raise ProgramError(
            f"target has shape {target.shape} and type {target.dtype}; expected integers of shape {u.shape[:-1]}."
        )
    y = jnp.where(real, target, 0)
    if visible(y) and y.size and not 0 <= int(y.min()) <= int(y.max()) < u.shape[-1]:
        raise ProgramError(
            f"target runs from {int(y.min())} to {int(y.max())}; expected states 0 to {u.shape[-1] - 1}."
        )
    own = jnp.take_along_axis(u, y[..., None], axis=-1)[..., 0]
    score = jnp.where(real, own, 0.0).sum(-1)
    if u.shape[-2] > 1:
        rows = jnp.take_along_axis(e, y[..., :-1, None, None], axis=-2)[..., 0, :]
        links = jnp.take_along_axis(rows, y[..., 1:, None], axis=-1)[..., 0]
        score = score + jnp.where(real[..., 1:], links, 0.0).sum(-1)
    log_z = checks.spoiled(jnp, _log_partition(u, e, real))
    log_z = jnp.where(log_z == -jnp.inf, 0.0, log_z)  # no path at all: as the target's is none, it costs +∞
    return ((log_z - score) * temperature).astype(jnp.asarray(unary).dtype)


def viterbi(unary: Array, pairwise: Array, lengths: Array | None = None) -> tuple[Array, Array]:
    """The best path of a linear chain and its score, without derivatives.

    Args:
        unary: as for `linear_chain`.
        pairwise: as for `linear_chain`.
        lengths: as for `linear_chain`.

    Returns:
        States of the path, integers (..., T), −1 beyond the length; and its score, (...). Where every path is
        forbidden: −1 throughout, and −∞.

    Raises:
        ProgramError: as for `linear_chain`.

    Source: Viterbi 1967.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import viterbi
        >>> path, score = viterbi(jnp.array([[1.0, 0.0], [0.0, 0.5]]), jnp.eye(2))
        >>> path.tolist(), float(score)
        ([0, 0], 2.0)
    """
    u, e, real = jax.lax.stop_gradient(_prepared("viterbi", unary, pairwise, lengths, 1.0))
    _check(u, e)
    path, score = _viterbi(u, e, real)
    bad = _bad(u, e)
    path, score = jnp.where(bad[..., None], -1, path), jnp.where(bad, jnp.nan, score)
    return path, score.astype(jnp.asarray(unary).dtype)


_viterbi = jax.jit(partial(chain.viterbi, run=jax.lax.scan))
_derivative = jax.jit(partial(chain.derivative, run=jax.lax.scan))


@jax.jit
def _value(u: Array, e: Array, real: Array) -> Array:
    return jnp.where(_bad(u, e), jnp.nan, chain.log_partition(u, e, real, jax.lax.scan))


@jax.jit
def _pair(u: Array, e: Array, real: Array) -> tuple[Array, Array]:
    bad = _bad(u, e)
    states, pairs = chain.marginals(u, e, real, jax.lax.scan)
    return jnp.where(bad[..., None, None], jnp.nan, states), jnp.where(bad[..., None, None, None], jnp.nan, pairs)


def _bad(u: Array, e: Array) -> Array:
    """Sequences with scores that would be refused, (...)."""
    return jnp.any(~(u < jnp.inf), axis=(-2, -1)) | jnp.any(~(e < jnp.inf), axis=(-3, -2, -1))


@jax.custom_jvp
def _log_partition(u: Array, e: Array, real: Array) -> Array:
    _check(u, e)
    return _value(u, e, real)


@_log_partition.defjvp
def _log_partition_jvp(primals: Any, tangents: Any) -> Any:
    """Its gradient are the marginals."""
    states, pairs = _marginals(*primals)
    slope = jnp.sum(states * tangents[0], axis=(-2, -1)) + jnp.sum(pairs * tangents[1], axis=(-3, -2, -1))
    return _log_partition(*primals), slope


@jax.custom_jvp
def _marginals(u: Array, e: Array, real: Array) -> tuple[Array, Array]:
    _check(u, e)
    return _pair(u, e, real)


@_marginals.defjvp
def _marginals_jvp(primals: Any, tangents: Any) -> Any:
    """Their derivative is the Hessian of log Z."""
    return _marginals(*primals), _derivative(*primals, *tangents[:2])


def _check(u: Array, e: Array) -> None:
    for scores in (u, e):
        look(partial(check_entries, "linear_chain"), scores)


def _prepared(
    name: str, unary: Any, pairwise: Any, lengths: Any, temperature: float | Array
) -> tuple[Array, Array, Array]:
    """Scores over temperature, those of transitions one for each, and which positions are part of the sequence."""
    unary, pairwise = floating(name, unary, "unary"), floating(name, pairwise, "pairwise")
    if unary.ndim < 2 or unary.shape[-2] < 1:
        raise ProgramError(f"unary has shape {unary.shape}; expected (..., T, S) with T ≥ 1.")
    length, states = unary.shape[-2:]
    expected = (*unary.shape[:-2], length - 1, states, states)
    if pairwise.shape not in ((states, states), expected):
        raise ProgramError(f"pairwise has shape {pairwise.shape}; expected {expected} or {(states, states)}.")
    wide = jnp.promote_types(jnp.promote_types(unary.dtype, pairwise.dtype), jnp.float32)
    u, e = unary.astype(wide), pairwise.astype(wide)
    scale = temperature_of(name, temperature, u, ())
    u, e = u / scale, jnp.broadcast_to(e / scale, expected)
    if lengths is None:
        return u, e, jnp.ones(u.shape[:-1], dtype=bool)
    lengths = jnp.asarray(lengths)
    if lengths.shape != u.shape[:-2] or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ProgramError(
            f"lengths has shape {lengths.shape} and type {lengths.dtype}; expected integers of shape {u.shape[:-2]}."
        )
    if visible(lengths) and lengths.size:
        low, high = int(np.min(lengths)), int(np.max(lengths))
        if not 1 <= low <= high <= length:
            raise ProgramError(f"lengths run from {low} to {high}; expected 1 to T = {length}.")
    real = jnp.arange(length) < lengths[..., None]
    u = jnp.where(real[..., None], u, 0.0)  # scores beyond may be anything
    return u, jnp.where(real[..., 1:, None, None], e, 0.0), real
