"""Fenchel–Young losses on JAX arrays: gradient = prediction − target, the argmax itself not differentiated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cvxift.argmax import losses
from cvxift.errors import ProgramError
from cvxift.jax.arrays import floating, scores_of
from cvxift.jax.envelope import envelope
from cvxift.jax.simplex import entmax_last, order_of

Array = jax.Array


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _known(theta: Array, y: Array, alpha: float) -> Array:
    return losses.fenchel_young(theta, y, entmax_last(theta, alpha), alpha)


@_known.defjvp
def _known_jvp(alpha: float, primals: Any, tangents: Any) -> tuple[Array, Array]:
    theta, y = primals
    z = entmax_last(theta, alpha)
    return _known(theta, y, alpha), jnp.sum((z - y) * tangents[0], axis=-1)


@jax.custom_jvp
def _varying(theta: Array, y: Array, alpha: Array) -> Array:
    return losses.fenchel_young(theta, y, entmax_last(theta, alpha), alpha)


@_varying.defjvp
def _varying_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    theta, y, alpha = primals
    z = entmax_last(theta, alpha)
    change = jnp.sum((z - y) * tangents[0], axis=-1)
    return _varying(theta, y, alpha), change + (tangents[2] * losses.order_derivative(y, z, alpha))[..., 0]


def fenchel_young_loss(
    theta: Any,
    target: Any,
    alpha: float | Array = 1.5,
    axis: int = -1,
    temperature: float | Array = 1.0,
) -> Array:
    """Fenchel–Young loss of α-entmax: Ω*(θ) + Ω(y) − θᵀy, with gradient entmax(θ) − y.

    Args:
        theta: scores of any shape; −∞ masks.
        target: distributions y of θ's shape; no gradient flows to them.
        alpha: order ≥ 1, a number or an array as for `entmax`; 1 is the cross-entropy with logits minus the target's
            entropy, 2 the sparsemax loss.
        axis: the axis along which the distributions lie.
        temperature: > 0, a number or an array that broadcasts against θ; the loss is that of θ/temperature.

    Returns:
        Losses ≥ 0 of θ's shape without ``axis``, differentiable in θ, alpha and the temperature.

    Raises:
        ProgramError: as for `entmax`, or the shapes differ.

    Source: Blondel, Martins, Niculae 2020, Definition 2 and Proposition 2.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import fenchel_young_loss
        >>> float(fenchel_young_loss(jnp.array([2.0, 0.0, 0.0]), jnp.array([1.0, 0.0, 0.0]), alpha=2))
        0.0
    """
    theta = floating("fenchel_young_loss", theta)
    scores = scores_of("fenchel_young_loss", theta, axis, temperature)
    y = jnp.moveaxis(_target("fenchel_young_loss", theta, target, scores.dtype), axis, -1)
    order = order_of("fenchel_young_loss", alpha, theta.shape, axis, scores)
    loss = _known(scores, y, order) if isinstance(order, float) else _varying(scores, y, order)
    return loss.astype(theta.dtype)


def argmax_loss(
    theta: Any,
    target: Any,
    prediction: Callable[[Array], Array],
    regularizer: Callable[[Array], Array],
    axes: int = 1,
) -> Array:
    """Fenchel–Young loss of any regularized argmax z*(θ) = argmax { ⟨θ, z⟩ − Ω(z) : z ∈ C }, with gradient z*(θ) − y.

    The argmax may be any of the maps here, or a `CvxpyLayer` of a problem from `cvxift.argmax` or of one's own; it is
    evaluated, and differentiated only for second derivatives.

    Args:
        theta: scores, (..., *shape of z).
        target: points y of C of θ's shape; no gradient flows to them.
        prediction: θ ↦ z*(θ), of θ's shape.
        regularizer: z ↦ Ω(z), for a batch: the last ``axes`` axes are summed away.
        axes: number of axes of z.

    Returns:
        Losses Ω*(θ) + Ω(y) − ⟨θ, y⟩ ≥ 0, one for each target.

    Raises:
        ProgramError: shapes differ.

    Source: Blondel, Martins, Niculae 2020, Definition 2.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from cvxift.jax import argmax_loss, budget
        >>> target = jnp.array([1.0, 1.0, 0.0, 0.0])
        >>> loss = lambda t: argmax_loss(t, target, lambda x: budget(x, 2.0), lambda z: 0.5 * (z**2).sum(-1))
        >>> jax.grad(loss)(jnp.array([3.0, 0.5, 0.5, -2.0])).tolist()
        [0.0, -0.5, 0.5, 0.0]
    """
    theta = floating("argmax_loss", theta)
    y = _target("argmax_loss", theta, target, theta.dtype)
    if isinstance(axes, bool) or not isinstance(axes, int) or not 0 <= axes <= theta.ndim:
        raise ProgramError(f"argmax_loss got axes = {axes}; expected 0 to {theta.ndim}, the axes of theta.")
    z = prediction(theta)
    if z.shape != theta.shape:
        raise ProgramError(f"argmax_loss: prediction returned shape {z.shape}; expected theta's, {theta.shape}.")
    own, scores = jax.lax.stop_gradient(z), jax.lax.stop_gradient(theta)
    held = jnp.where(own != 0, scores, 0.0) * own - jnp.where(y != 0, scores, 0.0) * y
    value = jnp.sum(held, axis=tuple(range(-axes, 0)))
    gap = jax.lax.stop_gradient(regularizer(y) - regularizer(own))
    if gap.shape != value.shape:
        raise ProgramError(
            f"argmax_loss: regularizer returned shape {gap.shape}; expected {value.shape}, one value for each target:"
            f" sum over the last {axes} axis or axes."
        )
    return envelope(theta, z, y, value + gap, axes)


def _target(name: str, theta: Array, target: Any, dtype: Any) -> Array:
    y = jnp.asarray(target, dtype=dtype)
    if y.shape != theta.shape:
        raise ProgramError(f"{name}: target has shape {y.shape}; expected theta's, {theta.shape}.")
    return jax.lax.stop_gradient(y)
