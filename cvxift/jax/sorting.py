"""Soft sorting and ranking on JAX arrays: projections onto permutahedra, O(n log n), derivatives of any order in O(n).

Sorting happens in JAX; the blocks of the isotonic regression are found in NumPy on the host. Dtypes
below float32 compute in float32. Inside `jax.jit` scores that are not finite give NaN instead of an error.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray

from cvxift.argmax import checks, isotonic
from cvxift.argmax.feasibility import check_entries
from cvxift.argmax.isotonic import Regularizer
from cvxift.errors import ProgramError
from cvxift.jax.arrays import doubles, floating, look, temperature_of, wider
from cvxift.jax.envelope import envelope
from cvxift.jax.host_call import constant

Array = jax.Array


def soft_rank(
    x: Array,
    temperature: float | Array = 1.0,
    regularizer: Regularizer = "quadratic",
    descending: bool = False,
    axis: int = -1,
) -> Array:
    """Soft ranks: the projection of ±x / temperature onto the permutahedron of 1, …, n.

    Args:
        x: finite scores of any shape.
        temperature: > 0, a number or an array that broadcasts against x; towards 0 the ranks become hard.
        regularizer: ``"quadratic"`` (sparse derivatives) or ``"entropic"``.
        descending: give rank 1 to the largest score, not to the smallest.
        axis: the axis that is ranked.

    Returns:
        Ranks between 1 and n (quadratic), of x's shape and dtype.

    Raises:
        ProgramError: scores that are not finite, an integer dtype, temperature ≤ 0, no such axis or regularizer.

    Source: Blondel, Teboul, Berthet, Djolonga 2020, section 4.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import soft_rank
        >>> soft_rank(jnp.array([10.0, -10.0, 0.0])).tolist()
        [3.0, 1.0, 2.0]
    """
    x = jnp.asarray(x)
    scores = _prepared("soft_rank", x, temperature, regularizer, axis)
    signed = -scores if descending else scores
    order = jnp.argsort(signed, axis=-1, descending=True, stable=True)
    s = jnp.take_along_axis(signed, order, axis=-1)
    w = jnp.broadcast_to(jnp.arange(s.shape[-1], 0, -1, dtype=s.dtype), s.shape)
    projection = _project(s, w, regularizer)
    return jnp.moveaxis(jnp.take_along_axis(projection, jnp.argsort(order, axis=-1), axis=-1), -1, axis).astype(x.dtype)


def soft_sort(
    x: Array,
    temperature: float | Array = 1.0,
    regularizer: Regularizer = "quadratic",
    descending: bool = False,
    axis: int = -1,
) -> Array:
    """Soft sorting: the projection of (n, …, 1) / temperature onto the permutahedron of x.

    Args:
        x: finite values of any shape.
        temperature: > 0, a number or an array with length one along ``axis``; towards 0 the order becomes hard, towards
            ∞ (quadratic) all values become the mean.
        regularizer: ``"quadratic"`` or ``"entropic"``.
        descending: begin with the largest.
        axis: the axis that is sorted.

    Returns:
        Sorted values of x's shape and dtype.

    Raises:
        ProgramError: as for `soft_rank`.

    Source: Blondel, Teboul, Berthet, Djolonga 2020, section 4.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import soft_sort
        >>> soft_sort(jnp.array([3.0, 1.0, 2.0]), temperature=0.1).round(5).tolist()
        [1.0, 2.0, 3.0]
    """
    x = jnp.asarray(x)
    values = _prepared("soft_sort", x, 1.0, regularizer, axis)
    w = jnp.sort(values if descending else -values, axis=-1, descending=True)
    scale = temperature_of("soft_sort", temperature, values, (*x.shape[:axis], 1, *x.shape[axis:][1:]))
    if scale.ndim:
        scale = jnp.moveaxis(scale.reshape((1,) * (x.ndim - scale.ndim) + scale.shape), axis, -1)
    s = jnp.broadcast_to(jnp.arange(w.shape[-1], 0, -1, dtype=w.dtype), w.shape) / scale
    projection = _project(s, w, regularizer)
    return jnp.moveaxis(projection if descending else -projection, -1, axis).astype(x.dtype)


def rank_loss(
    x: Array, target: Array, temperature: float | Array = 1.0, descending: bool = False, axis: int = -1
) -> Array:
    """Fenchel–Young loss of quadratic `soft_rank`; its gradient is ±(soft ranks − target), + for ascending ranks.

    Args:
        x: finite scores of any shape.
        target: ranks y of x's shape (a permutation of 1, …, n, or averages of such); no gradient flows to them.
        temperature: > 0, a number or an array that broadcasts against the loss.
        descending: whether rank 1 is the largest.
        axis: the axis that is ranked.

    Returns:
        Losses ≥ 0 of x's shape without ``axis``; zero where the soft ranks are the target.

    Raises:
        ProgramError: as for `soft_rank`, or the shapes differ.

    Source: Blondel, Martins, Niculae 2020, section 7 (SparseMAP over the permutahedron).

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import rank_loss
        >>> float(rank_loss(jnp.array([0.0, 5.0, 9.0]), jnp.array([1.0, 2.0, 3.0])))
        0.0
    """
    x, target = jnp.asarray(x), jnp.asarray(target)
    if x.shape != target.shape:
        raise ProgramError(f"target has shape {target.shape}; expected that of x, {x.shape}.")
    wide = floating("rank_loss", x).astype(jnp.float64 if doubles() else jnp.float32)
    t = jnp.asarray(temperature, dtype=wide.dtype)
    scores = _prepared("rank_loss", wide, jnp.expand_dims(t, axis) if t.ndim else temperature, "quadratic", axis)
    scores = -scores if descending else scores
    z, y = soft_rank(scores), jnp.moveaxis(jax.lax.stop_gradient(target).astype(scores.dtype), axis, -1)
    value = isotonic.loss(*jax.lax.stop_gradient((scores, z, y)))
    return (envelope(scores, z, y, value, 1) * t).astype(x.dtype)


def _project(s: Array, w: Array, regularizer: Regularizer) -> Array:
    """The projection; NaN in rows that are not finite."""
    for scores in (s, w):
        look(partial(check_entries, "The sorting", masks=False), scores)
    bad = ~jnp.all(jnp.isfinite(s) & jnp.isfinite(w), axis=-1, keepdims=True)
    # The blocks are found on the host and constant in their neighbourhood.
    first = _blocks_of_rows(*(jnp.where(bad, 0.0, scores) for scores in (s, w)), regularizer=regularizer)
    return checks.spoiled(jnp, isotonic.project(s, w, first, regularizer, _segment_sum), bad)


def _host(s: np.ndarray, w: np.ndarray, *, regularizer: Regularizer) -> np.ndarray:
    return isotonic.blocks(s, w, regularizer).astype(np.int32)


def _shape(s: ShapedArray, w: ShapedArray, *, regularizer: Regularizer) -> ShapedArray:
    return s.update(dtype=np.dtype(np.int32), weak_type=False)


_blocks_of_rows = constant("cvxift_isotonic_blocks", _host, _shape)


def _segment_sum(values: Array, index: Array) -> Array:
    n = values.shape[-1]
    sums = jax.vmap(lambda v, i: jax.ops.segment_sum(v, i, num_segments=n))
    return sums(values.reshape(-1, n), index.reshape(-1, n)).reshape(values.shape)


def _prepared(name: str, x: Array, temperature: float | Array, regularizer: str, axis: int) -> Array:
    """Scores over temperature with the axis last, in the dtype that is computed in."""
    x = floating(name, x)
    if not -x.ndim <= axis < x.ndim:
        raise ProgramError(f"{name} got axis = {axis}, but the scores have shape {x.shape}.")
    if regularizer not in ("quadratic", "entropic"):
        raise ProgramError(f"{name} got regularizer = {regularizer!r}; expected 'quadratic' or 'entropic'.")
    scores = wider(x)
    return jnp.moveaxis(scores / temperature_of(name, temperature, scores), axis, -1)
