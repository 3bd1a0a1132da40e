"""Fenchel–Young losses on tensors: gradient = prediction − target, the argmax itself not differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cvxift.argmax import losses, short_rows
from cvxift.errors import ProgramError
from cvxift.torch import kernels
from cvxift.torch.envelope import envelope
from cvxift.torch.nested import keep, kept, nested, primals
from cvxift.torch.simplex import entmax_last, mapped_order, order_of
from cvxift.torch.tensors import batched, numpy_serves, scores_of

Tensor = torch.Tensor


@kernels.register(
    "Fenchel-Young loss", lambda theta, *_: (theta.new_empty(theta.shape[:-1]), theta.new_empty(theta.shape))
)
def _kernel(theta: Tensor, y: Tensor, alpha: float | Tensor) -> tuple[Tensor, Tensor]:
    """The loss and the prediction."""
    if (
        isinstance(alpha, float)
        and theta.device.type == "cpu"
        and short_rows.serves(theta.numel(), theta.shape[-1], alpha)
    ):
        scores = theta.numpy()
        z = short_rows.entmax(scores, alpha)
        if z is not None:
            d = np.subtract(scores, np.maximum.reduce(scores, axis=-1, keepdims=True), dtype=np.float64)
            value = np.add.reduce(losses.terms(np, d, y.numpy().astype(np.float64), z, alpha), axis=-1)
            return torch.from_numpy(np.asarray(value, dtype=scores.dtype)), torch.from_numpy(z).to(theta.dtype)
    z = entmax_last(theta, alpha)
    return losses.fenchel_young(theta, y, z, alpha), z


class _Loss(torch.autograd.Function):
    """The loss of α-entmax; the prediction is taken for constant, but where a derivative is differentiated."""

    @staticmethod
    def forward(theta: Tensor, y: Tensor, alpha: float | Tensor) -> Tensor:
        """The loss."""
        if isinstance(alpha, Tensor):
            return kernels.call("Fenchel-Young loss", (theta, y, alpha))[0]
        return kernels.call("Fenchel-Young loss", (theta, y), alpha)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        """Keep the scores, the target and the order."""
        keep(ctx, *inputs)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, bar: Tensor
    ) -> tuple[Tensor | None, None, Tensor | None]:
        """Prediction − target, itself differentiable."""
        theta, y, alpha = kept(ctx)
        z = entmax_last(theta, alpha)
        bar = bar.unsqueeze(-1)
        if not ctx.needs_input_grad[2]:
            return bar * (z - y), None, None
        return bar * (z - y), None, (bar * losses.order_derivative(y, z, alpha)).sum_to_size(alpha.shape)

    @staticmethod
    @nested
    def jvp(  # type: ignore[override]
        ctx: Any, dtheta: Tensor | None, dy: Tensor | None, dalpha: Tensor | None
    ) -> Tensor:
        """Directional derivative."""
        theta, y, alpha = primals(ctx)
        z = entmax_last(theta, alpha)
        change = torch.zeros_like(y[..., 0]) if dtheta is None else ((z - y) * dtheta).sum(-1)
        return change if dalpha is None else change + (dalpha * losses.order_derivative(y, z, alpha)).squeeze(-1)

    @staticmethod
    def vmap(  # type: ignore[override]
        info: Any, in_dims: tuple[int | None, ...], theta: Tensor, y: Tensor, alpha: float | Tensor
    ) -> tuple[Tensor, int]:
        """The mapped dimension becomes one more batch dimension."""
        theta, y = (batched(info.batch_size, dim, x) for dim, x in zip(in_dims, (theta, y)))
        if in_dims[2] is not None:
            assert isinstance(alpha, Tensor)
            alpha = mapped_order(alpha, in_dims[2], theta.ndim)
        return _Loss.apply(theta, y, alpha), 0  # type: ignore[return-value]


class _Plain(torch.autograd.Function):
    """The same in an eager call of plain tensors, the prediction kept, with as little around it as can be."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, y: Tensor, alpha: float) -> Tensor:
        """The loss."""
        value, z = _kernel(theta.detach(), y, alpha)
        ctx.save_for_backward(theta, y, z)
        ctx.alpha = alpha
        return value

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """Prediction − target, itself differentiable where that is asked for."""
        theta, y, z = ctx.saved_tensors
        z = entmax_last(theta, ctx.alpha) if torch.is_grad_enabled() else z
        return bar.unsqueeze(-1) * (z - y), None, None


@torch._dynamo.allow_in_graph
def _loss(theta: Tensor, y: Tensor, alpha: float | Tensor) -> Tensor:
    if isinstance(alpha, float) and theta.numel() and numpy_serves(theta):
        return _Plain.apply(theta, y, alpha)  # type: ignore[return-value]
    return _Loss.apply(theta, y, alpha)  # type: ignore[return-value]


def fenchel_young_loss(
    theta: Tensor,
    target: Tensor,
    alpha: float | Tensor = 1.5,
    dim: int = -1,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    """Fenchel–Young loss of α-entmax: Ω*(θ) + Ω(y) − θᵀy, with gradient entmax(θ) − y.

    Args:
        theta: scores of any shape; −∞ masks.
        target: distributions y of θ's shape; no gradient flows to them.
        alpha: order ≥ 1, a number or a tensor as for `entmax`; 1 is the cross-entropy with logits minus the target's
            entropy, 2 the sparsemax loss.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against θ; the loss is that of θ/temperature.

    Returns:
        Losses ≥ 0 of θ's shape without ``dim``, differentiable in θ, alpha and the temperature.

    Raises:
        ProgramError: as for `entmax`, or the shapes differ.

    Source: Blondel, Martins, Niculae 2020, Definition 2 and Proposition 2.

    Example:
        >>> import torch
        >>> from cvxift.torch import fenchel_young_loss
        >>> fenchel_young_loss(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]), alpha=2)
        tensor(0.)
    """
    scores = scores_of("fenchel_young_loss", theta, dim, temperature)
    _same_shape("fenchel_young_loss", theta, target)
    order = order_of("fenchel_young_loss", alpha, theta.shape, dim, scores)
    y = target.detach().to(scores.dtype)
    loss = _loss(scores, y if dim == -1 else y.movedim(dim, -1), order)
    return loss if loss.dtype is theta.dtype else loss.to(theta.dtype)


def argmax_loss(
    theta: Tensor,
    target: Tensor,
    prediction: Callable[[Tensor], Tensor],
    regularizer: Callable[[Tensor], Tensor],
    dims: int = 1,
) -> Tensor:
    """Fenchel–Young loss of any regularized argmax z*(θ) = argmax { ⟨θ, z⟩ − Ω(z) : z ∈ C }, with gradient z*(θ) − y.

    The argmax may be any of the maps here, or a `CvxpyLayer` of a problem from `cvxift.argmax` or of one's own; it is
    evaluated, and differentiated only for second derivatives.

    Args:
        theta: scores, (..., *shape of z).
        target: points y of C of θ's shape; no gradient flows to them.
        prediction: θ ↦ z*(θ), of θ's shape.
        regularizer: z ↦ Ω(z), for a batch: the last ``dims`` dimensions are summed away.
        dims: number of dimensions of z.

    Returns:
        Losses Ω*(θ) + Ω(y) − ⟨θ, y⟩ ≥ 0, one for each target.

    Raises:
        ProgramError: shapes differ.

    Source: Blondel, Martins, Niculae 2020, Definition 2.

    Example:
        >>> import torch
        >>> from cvxift.torch import argmax_loss, budget
        >>> theta = torch.tensor([3.0, 0.5, 0.4, -2.0], requires_grad=True)
        >>> target = torch.tensor([1.0, 1.0, 0.0, 0.0])
        >>> loss = argmax_loss(theta, target, lambda t: budget(t, 2.0), lambda z: 0.5 * (z**2).sum(-1))
        >>> loss.backward(); theta.grad
        tensor([ 0.0000, -0.4500,  0.4500,  0.0000])
    """
    _same_shape("argmax_loss", theta, target)
    if isinstance(dims, bool) or not isinstance(dims, int) or not 0 <= dims <= theta.ndim:
        raise ProgramError(f"argmax_loss got dims = {dims}; expected 0 to {theta.ndim}, the dimensions of theta.")
    z = prediction(theta)
    if z.shape != theta.shape:
        raise ProgramError(
            f"argmax_loss: prediction returned shape {tuple(z.shape)}; expected theta's, {tuple(theta.shape)}."
        )
    with torch.no_grad():
        held = torch.where(z != 0, theta, 0.0) * z - torch.where(target != 0, theta, 0.0) * target
        value = held.sum(tuple(range(-dims, 0))) if dims else held
        gap = regularizer(target) - regularizer(z)
    if gap.shape != value.shape:
        raise ProgramError(
            f"argmax_loss: regularizer returned shape {tuple(gap.shape)}; expected {tuple(value.shape)}, one value for"
            f" each target: sum over the last {dims} dimension(s)."
        )
    return envelope(theta, z, target, value + gap)


def _same_shape(name: str, theta: Tensor, target: Tensor) -> None:
    if theta.shape != target.shape:
        raise ProgramError(f"{name}: target has shape {tuple(target.shape)}; expected theta's, {tuple(theta.shape)}.")
