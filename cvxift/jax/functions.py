"""The argmax functions on JAX arrays; `cvxift.argmax.functions` has what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax

from cvxift.argmax.functions import bounded, losses, simplex, sorting
from cvxift.argmax.functions import linear_chain as chains
from cvxift.argmax.functions import transport as plans
from cvxift.argmax.functions.documentation import JAX, documented
from cvxift.argmax.sinkhorn import MAX_ITERATIONS
from cvxift.jax import framework

Array = jax.Array
Number = float | Array
Regularizer = Literal["entropic", "quadratic"]


@documented(JAX)
def softmax(
    x: Any,
    axis: int = -1,
    temperature: Number = 1.0,
    *,
    segments: Array | None = None,
    offsets: Array | None = None,
    num_segments: int | None = None,
) -> Array:
    return simplex.softmax(framework, x, axis, temperature, (segments, offsets, num_segments))


@documented(JAX)
def sparsemax(
    x: Any,
    axis: int = -1,
    temperature: Number = 1.0,
    *,
    segments: Array | None = None,
    offsets: Array | None = None,
    num_segments: int | None = None,
) -> Array:
    return simplex.sparsemax(framework, x, axis, temperature, (segments, offsets, num_segments))


@documented(JAX)
def entmax(
    x: Any,
    alpha: Number = 1.5,
    axis: int = -1,
    temperature: Number = 1.0,
    *,
    segments: Array | None = None,
    offsets: Array | None = None,
    num_segments: int | None = None,
) -> Array:
    return simplex.entmax(framework, x, alpha, axis, temperature, (segments, offsets, num_segments))


@documented(JAX)
def budget(
    x: Any,
    total: Number = 1.0,
    lower: Number = 0.0,
    upper: Number = 1.0,
    axis: int = -1,
    temperature: Number = 1.0,
    *,
    segments: Array | None = None,
    offsets: Array | None = None,
    num_segments: int | None = None,
) -> Array:
    return bounded.budget(framework, x, total, lower, upper, axis, temperature, (segments, offsets, num_segments))


@documented(JAX)
def constrained_sparsemax(x: Any, upper: Number, axis: int = -1, temperature: Number = 1.0) -> Array:
    return bounded.constrained_sparsemax(framework, x, upper, axis, temperature)


@documented(JAX)
def constrained_softmax(x: Any, upper: Number, axis: int = -1, temperature: Number = 1.0) -> Array:
    return bounded.constrained_softmax(framework, x, upper, axis, temperature)


@documented(JAX)
def box(
    x: Any,
    lower: Number = 0.0,
    upper: Number = 1.0,
    temperature: Number = 1.0,
    regularizer: Regularizer = "entropic",
) -> Array:
    return bounded.box(framework, x, lower, upper, temperature, regularizer)


@documented(JAX)
def fenchel_young_loss(
    theta: Any,
    target: Any,
    alpha: Number = 1.5,
    axis: int = -1,
    temperature: Number = 1.0,
    *,
    segments: Array | None = None,
    offsets: Array | None = None,
    num_segments: int | None = None,
) -> Array:
    groups = segments, offsets, num_segments
    return losses.fenchel_young_loss(framework, theta, target, alpha, axis, temperature, groups)


@documented(JAX)
def argmax_loss(
    theta: Any,
    target: Any,
    prediction: Callable[[Array], Array],
    regularizer: Callable[[Array], Array],
    axes: int = 1,
) -> Array:
    return losses.argmax_loss(framework, theta, target, prediction, regularizer, axes)


@documented(JAX)
def soft_rank(
    x: Array,
    temperature: Number = 1.0,
    regularizer: Regularizer = "quadratic",
    descending: bool = False,
    axis: int = -1,
) -> Array:
    return sorting.soft_rank(framework, x, temperature, regularizer, descending, axis)


@documented(JAX)
def soft_sort(
    x: Array,
    temperature: Number = 1.0,
    regularizer: Regularizer = "quadratic",
    descending: bool = False,
    axis: int = -1,
) -> Array:
    return sorting.soft_sort(framework, x, temperature, regularizer, descending, axis)


@documented(JAX)
def rank_loss(x: Array, target: Array, temperature: Number = 1.0, descending: bool = False, axis: int = -1) -> Array:
    return sorting.rank_loss(framework, x, target, temperature, descending, axis)


@documented(JAX)
def transport(
    theta: Array,
    a: Array | None = None,
    b: Array | None = None,
    temperature: Number = 1.0,
    regularizer: Regularizer = "entropic",
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Array:
    return plans.transport(framework, theta, a, b, temperature, regularizer, tol, max_iterations)


@documented(JAX)
def birkhoff(
    theta: Array,
    temperature: Number = 1.0,
    regularizer: Regularizer = "entropic",
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Array:
    return plans.birkhoff(framework, theta, temperature, regularizer, tol, max_iterations)


@documented(JAX)
def transport_loss(
    theta: Array,
    target: Array,
    temperature: Number = 1.0,
    regularizer: Regularizer = "entropic",
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Array:
    return plans.transport_loss(framework, theta, target, temperature, regularizer, tol, max_iterations)


@documented(JAX)
def linear_chain(
    unary: Array,
    pairwise: Array,
    log_partition: bool = False,
    lengths: Array | None = None,
    temperature: Number = 1.0,
) -> Any:
    return chains.linear_chain(framework, unary, pairwise, log_partition, lengths, temperature)


@documented(JAX)
def linear_chain_loss(
    unary: Array,
    pairwise: Array,
    target: Array,
    lengths: Array | None = None,
    temperature: Number = 1.0,
) -> Array:
    return chains.linear_chain_loss(framework, unary, pairwise, target, lengths, temperature)


@documented(JAX)
def viterbi(unary: Array, pairwise: Array, lengths: Array | None = None) -> tuple[Array, Array]:
    return chains.viterbi(framework, unary, pairwise, lengths)
