"""Linear chains of JAX arrays: log Z, whose gradient are the marginals, and their rules; the best path.

The recursions of `cvxift.argmax.chain` run in `jax.lax.scan`. Inside `jax.jit` NaN scores give NaN instead of an error.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from cvxift.argmax import chain, checks, derivatives
from cvxift.argmax.feasibility import check_entries
from cvxift.jax.argmax_rule import differentiable
from cvxift.jax.arrays import look

Array = jax.Array


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


def _checked_marginals(u: Array, e: Array, real: Array) -> tuple[Array, Array]:
    _check(u, e)
    return _pair(u, e, real)


_marginals = differentiable(_checked_marginals, derivatives.of_marginals(_derivative))


def _checked_value(u: Array, e: Array, real: Array) -> tuple[Array]:
    _check(u, e)
    return (_value(u, e, real),)


_log_partition = differentiable(
    _checked_value,
    derivatives.of_log_partition(lambda *kept: _marginals(kept)),
)


def log_partition(u: Array, e: Array, real: Array) -> Array:
    return checks.spoiled(jnp, _log_partition((u, _each(u, e, real), real))[0])


def marginals(u: Array, e: Array, real: Array) -> tuple[Array, ...]:
    return tuple(checks.spoiled(jnp, part) for part in _marginals((u, _each(u, e, real), real)))


def best_path(u: Array, e: Array, real: Array) -> tuple[Array, Array]:
    e = _each(u, e, real)
    _check(u, e)
    path, score = _viterbi(u, e, real)
    bad = _bad(u, e)
    return jnp.where(bad[..., None], -1, path), jnp.where(bad, jnp.nan, score)


def _each(u: Array, e: Array, real: Array) -> Array:
    """Transitions for each position."""
    if e.ndim > 2:
        return e
    length, states = u.shape[-2:]
    full = jnp.broadcast_to(e, (*u.shape[:-2], length - 1, states, states))
    return jnp.where(real[..., 1:, None, None], full, 0.0)  # scores beyond may be anything


def _check(u: Array, e: Array) -> None:
    for scores in (u, e):
        look(partial(check_entries, "linear_chain"), scores)
