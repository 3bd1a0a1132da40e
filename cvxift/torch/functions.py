"""The argmax functions on tensors; `cvxift.argmax.functions` has what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch

from cvxift.argmax.functions import bounded, losses, simplex, sorting
from cvxift.argmax.functions import linear_chain as chains
from cvxift.argmax.functions import transport as plans
from cvxift.argmax.functions.documentation import documented
from cvxift.argmax.sinkhorn import MAX_ITERATIONS
from cvxift.torch import framework

Tensor = torch.Tensor
Number = float | Tensor
Regularizer = Literal["entropic", "quadratic"]


@documented()
def softmax(
    x: Tensor,
    dim: int = -1,
    temperature: Number = 1.0,
    *,
    segments: Tensor | None = None,
    offsets: Tensor | None = None,
    num_segments: int | None = None,
) -> Tensor:
    return simplex.softmax(framework, x, dim, temperature, (segments, offsets, num_segments))


@documented()
def sparsemax(
    x: Tensor,
    dim: int = -1,
    temperature: Number = 1.0,
    *,
    segments: Tensor | None = None,
    offsets: Tensor | None = None,
    num_segments: int | None = None,
) -> Tensor:
    return simplex.sparsemax(framework, x, dim, temperature, (segments, offsets, num_segments))


@documented()
def entmax(
    x: Tensor,
    alpha: Number = 1.5,
    dim: int = -1,
    temperature: Number = 1.0,
    *,
    segments: Tensor | None = None,
    offsets: Tensor | None = None,
    num_segments: int | None = None,
) -> Tensor:
    return simplex.entmax(framework, x, alpha, dim, temperature, (segments, offsets, num_segments))


@documented()
def budget(
    x: Tensor,
    total: Number = 1.0,
    lower: Number = 0.0,
    upper: Number = 1.0,
    dim: int = -1,
    temperature: Number = 1.0,
    *,
    segments: Tensor | None = None,
    offsets: Tensor | None = None,
    num_segments: int | None = None,
) -> Tensor:
    return bounded.budget(framework, x, total, lower, upper, dim, temperature, (segments, offsets, num_segments))


@documented()
def constrained_sparsemax(x: Tensor, upper: Number, dim: int = -1, temperature: Number = 1.0) -> Tensor:
    return bounded.constrained_sparsemax(framework, x, upper, dim, temperature)


@documented()
def constrained_softmax(x: Tensor, upper: Number, dim: int = -1, temperature: Number = 1.0) -> Tensor:
    return bounded.constrained_softmax(framework, x, upper, dim, temperature)


@documented()
def box(
    x: Tensor,
    lower: Number = 0.0,
    upper: Number = 1.0,
    temperature: Number = 1.0,
    regularizer: Regularizer = "entropic",
) -> Tensor:
    return bounded.box(framework, x, lower, upper, temperature, regularizer)


@documented()
def fenchel_young_loss(
    theta: Tensor,
    target: Tensor,
    alpha: Number = 1.5,
    dim: int = -1,
    temperature: Number = 1.0,
    *,
    segments: Tensor | None = None,
    offsets: Tensor | None = None,
    num_segments: int | None = None,
) -> Tensor:
    groups = segments, offsets, num_segments
    return losses.fenchel_young_loss(framework, theta, target, alpha, dim, temperature, groups)


@documented()
def argmax_loss(
    theta: Tensor,
    target: Tensor,
    prediction: Callable[[Tensor], Tensor],
    regularizer: Callable[[Tensor], Tensor],
    dims: int = 1,
) -> Tensor:
    return losses.argmax_loss(framework, theta, target, prediction, regularizer, dims)


@documented()
def soft_rank(
    x: Tensor,
    temperature: Number = 1.0,
    regularizer: Regularizer = "quadratic",
    descending: bool = False,
    dim: int = -1,
) -> Tensor:
    return sorting.soft_rank(framework, x, temperature, regularizer, descending, dim)


@documented()
def soft_sort(
    x: Tensor,
    temperature: Number = 1.0,
    regularizer: Regularizer = "quadratic",
    descending: bool = False,
    dim: int = -1,
) -> Tensor:
    return sorting.soft_sort(framework, x, temperature, regularizer, descending, dim)


@documented()
def rank_loss(x: Tensor, target: Tensor, temperature: Number = 1.0, descending: bool = False, dim: int = -1) -> Tensor:
    return sorting.rank_loss(framework, x, target, temperature, descending, dim)


@documented()
def transport(
    theta: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    temperature: Number = 1.0,
    regularizer: Regularizer = "entropic",
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Tensor:
    return plans.transport(framework, theta, a, b, temperature, regularizer, tol, max_iterations)


@documented()
def birkhoff(
    theta: Tensor,
    temperature: Number = 1.0,
    regularizer: Regularizer = "entropic",
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Tensor:
    return plans.birkhoff(framework, theta, temperature, regularizer, tol, max_iterations)


@documented()
def transport_loss(
    theta: Tensor,
    target: Tensor,
    temperature: Number = 1.0,
    regularizer: Regularizer = "entropic",
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Tensor:
    return plans.transport_loss(framework, theta, target, temperature, regularizer, tol, max_iterations)


@documented()
def linear_chain(
    unary: Tensor,
    pairwise: Tensor,
    log_partition: bool = False,
    lengths: Tensor | None = None,
    temperature: Number = 1.0,
) -> Any:
    return chains.linear_chain(framework, unary, pairwise, log_partition, lengths, temperature)


@documented()
def linear_chain_loss(
    unary: Tensor,
    pairwise: Tensor,
    target: Tensor,
    lengths: Tensor | None = None,
    temperature: Number = 1.0,
) -> Tensor:
    return chains.linear_chain_loss(framework, unary, pairwise, target, lengths, temperature)


@documented()
def viterbi(unary: Tensor, pairwise: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return chains.viterbi(framework, unary, pairwise, lengths)
