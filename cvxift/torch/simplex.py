"""Softmax, sparsemax and α-entmax on tensors: exact, differentiable to any order, O(n) memory.

Any shape; float16, bfloat16 (computed in float32), float32 and float64; masks by −∞ (fully masked rows give zeros);
under ``torch.func`` and ``torch.compile``. Derivatives are functions of the output, which is all that is kept.
"""

from __future__ import annotations

from typing import Any

import torch

from cvxift.argmax import checks, short_rows, tsallis
from cvxift.argmax import simplex as maps
from cvxift.errors import ProgramError
from cvxift.torch import kernels
from cvxift.torch.nested import keep, kept, nested, primals
from cvxift.torch.tensors import batched, broadcastable, numpy_serves, placed, scores_of, visible

Tensor = torch.Tensor


@kernels.register("entmax", lambda x, *_: (torch.empty_like(x, memory_format=torch.contiguous_format),))
def _kernel(x: Tensor, alpha: float | Tensor) -> tuple[Tensor]:
    checks.check_scores("entmax", x)
    if isinstance(alpha, Tensor):
        checks.guarded(torch, "entmax", checks.ORDER, alpha, True)
    if isinstance(alpha, Tensor) and alpha.numel() == 1 and alpha.device.type == "cpu":
        alpha = float(alpha)  # one number has faster ways
    if isinstance(alpha, float) and x.device.type == "cpu" and short_rows.serves(x.numel(), x.shape[-1], alpha):
        z = short_rows.entmax(x.numpy(), alpha)
        if z is not None:
            return (torch.from_numpy(z).to(x.dtype),)
    # Accelerators hold float64 slowly or not at all, if they are not made for science; their rows need no shortening.
    return (maps.entmax(x, alpha, wide=x.device.type != "mps"),)


class _Entmax(torch.autograd.Function):
    """α-entmax along the last axis; alpha is a number, or a tensor that broadcasts against the rows."""

    @staticmethod
    def forward(x: Tensor, alpha: float | Tensor) -> Tensor:
        """The closed form."""
        if isinstance(alpha, Tensor):
            return kernels.call("entmax", (x, alpha))[0]
        return kernels.call("entmax", (x,), alpha)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float | Tensor], output: Tensor) -> None:
        """Keep the output, and the order."""
        keep(ctx, output, inputs[1])

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, bar: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Vector-Jacobian product, of differentiable operations on the output and the order."""
        z, alpha = kept(ctx)
        dx = tsallis.derivative(z, bar, alpha) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return dx, None
        return dx, (bar * tsallis.order_derivative(z, alpha)).sum_to_size(alpha.shape)

    @staticmethod
    @nested
    def jvp(  # type: ignore[override]
        ctx: Any, dx: Tensor | None, dalpha: Tensor | None
    ) -> Tensor:
        """Jacobian-vector product."""
        z = kept(ctx)[0]  # the result as it is: an outer pass differentiates it as such
        alpha = primals(ctx)[1]
        dz = torch.zeros_like(z) if dx is None else tsallis.derivative(z, dx, alpha)
        return dz if dalpha is None else dz + dalpha * tsallis.order_derivative(z, alpha)

    @staticmethod
    def vmap(  # type: ignore[override]
        info: Any, in_dims: tuple[int | None, int | None], x: Tensor, alpha: float | Tensor
    ) -> tuple[Tensor, int]:
        """The mapped dimension becomes one more batch dimension."""
        x = batched(info.batch_size, in_dims[0], x)
        if in_dims[1] is not None:
            assert isinstance(alpha, Tensor)
            alpha = mapped_order(alpha, in_dims[1], x.ndim)
        return _Entmax.apply(x, alpha), 0  # type: ignore[return-value]


def mapped_order(alpha: Tensor, dim: int, ndim: int) -> Tensor:
    """An order under ``vmap`` with its mapped dimension first, to broadcast against ndim dimensions."""
    alpha = alpha.movedim(dim, 0)
    return alpha.reshape(alpha.shape[0], *(1,) * (ndim - alpha.ndim), *alpha.shape[1:])


class _Short(torch.autograd.Function):
    """The same for `short_rows` of plain tensors, in NumPy, with as little around it as can be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        """The closed form."""
        z = short_rows.entmax(x.detach().numpy(), alpha)
        out = _kernel(x.detach(), alpha)[0] if z is None else torch.from_numpy(z).to(x.dtype)
        ctx.save_for_backward(out)
        ctx.alpha = alpha
        return out

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Vector-Jacobian product; of differentiable operations where it is to be differentiated, or is mapped."""
        (z,) = ctx.saved_tensors
        if torch.is_grad_enabled() or not numpy_serves(bar):
            return tsallis.derivative(z, bar, ctx.alpha), None
        return torch.from_numpy(short_rows.derivative(z.numpy(), bar.numpy(), ctx.alpha)), None


@torch._dynamo.allow_in_graph
def entmax_last(x: Tensor, alpha: float | Tensor) -> Tensor:
    """α-entmax along the last axis of checked scores; alpha a float, or a tensor that broadcasts against the rows."""
    if short(x, alpha):
        return _Short.apply(x, alpha)  # type: ignore[return-value]
    return _Entmax.apply(x, alpha) if x.numel() else x  # type: ignore[return-value]


def short(x: Tensor, alpha: float | Tensor) -> bool:
    """Whether `short_rows` serve the tensor, called eagerly."""
    return short_rows.serves(x.numel(), x.shape[-1], alpha) and numpy_serves(x)


def order_of(name: str, alpha: float | Tensor, shape: torch.Size, dim: int, like: Tensor) -> float | Tensor:
    """The order as `entmax_last` takes it."""
    if not isinstance(alpha, Tensor):
        checks.check_number(name, checks.ORDER, alpha)
        return float(alpha)
    if visible(alpha):  # the kernel sees the others
        checks.guarded(torch, name, checks.ORDER, alpha.detach(), True)
    if alpha.ndim == 0:
        return alpha.to(like)
    broadcastable(name, "alpha", alpha, shape)
    order = alpha.reshape((1,) * (len(shape) - alpha.ndim) + alpha.shape).movedim(dim, -1)
    if order.shape[-1] != 1:
        raise ProgramError(f"{name} got alpha of shape {tuple(alpha.shape)}; it must have size 1 along dim = {dim}.")
    return order.to(like)


def entmax(x: Tensor, alpha: float | Tensor = 1.5, dim: int = -1, temperature: float | Tensor = 1.0) -> Tensor:
    """α-entmax: argmax over the simplex of xᵀz − temperature·Ω_α(z), Ω_α the negative Tsallis entropy.

    Args:
        x: scores of any shape; −∞ masks.
        alpha: order ≥ 1, a number or a tensor (which may require a gradient) that broadcasts against x with size 1
            along ``dim``, such as one order for each attention head; 1 is softmax, 2 sparsemax.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x.

    Returns:
        Distributions of x's shape, dtype and device.

    Raises:
        ProgramError: α < 1, temperature ≤ 0, an integer dtype, no such dimension, NaN or +∞ scores.

    Source: Peters, Niculae, Martins 2019; ∂/∂α: Correia, Niculae, Martins 2019.

    Example:
        >>> import torch
        >>> from cvxift.torch import entmax
        >>> entmax(torch.tensor([1.0, 1.0, -3.0, -torch.inf]))
        tensor([0.5000, 0.5000, 0.0000, 0.0000])
    """
    if not isinstance(alpha, Tensor) and alpha == 1:
        return softmax(x, dim, temperature)
    scores = scores_of("entmax", x, dim, temperature)
    order = order_of("entmax", alpha, x.shape, dim, scores)
    return placed(entmax_last(scores, order), dim, x)


def sparsemax(x: Tensor, dim: int = -1, temperature: float | Tensor = 1.0) -> Tensor:
    """Sparsemax: the Euclidean projection of x / temperature onto the simplex.

    Args:
        x: scores of any shape; −∞ masks.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x.

    Returns:
        Distributions of x's shape, dtype and device.

    Raises:
        ProgramError: temperature ≤ 0, an integer dtype, no such dimension, NaN or +∞ scores.

    Source: Martins & Astudillo 2016.

    Example:
        >>> import torch
        >>> from cvxift.torch import sparsemax
        >>> sparsemax(torch.tensor([0.5, 0.4, -1.0]))
        tensor([0.5500, 0.4500, 0.0000])
    """
    scores = scores_of("sparsemax", x, dim, temperature)
    return placed(entmax_last(scores, 2.0), dim, x)


def softmax(x: Tensor, dim: int = -1, temperature: float | Tensor = 1.0) -> Tensor:
    """Softmax, with zeros for fully masked rows.

    Args:
        x: scores of any shape; −∞ masks.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x.

    Returns:
        Distributions of x's shape, dtype and device.

    Raises:
        ProgramError: temperature ≤ 0, an integer dtype, no such dimension, NaN or +∞ scores (which give NaN where
            values cannot be looked at: under ``torch.vmap`` and ``torch.compile``).

    Source: Boltzmann 1868.

    Example:
        >>> import torch
        >>> from cvxift.torch import softmax
        >>> softmax(torch.tensor([[0.0, 0.0], [-torch.inf, -torch.inf]]))
        tensor([[0.5000, 0.5000],
                [0.0000, 0.0000]])
    """
    scores = scores_of("softmax", x, dim, temperature)
    if scores.numel() == 0:
        return x  # keeps its graph
    if visible(scores):
        z = torch.softmax(scores, -1)
        if not bool(torch.isnan(z.detach()[..., 0]).any()):  # a row is NaN altogether or not at all
            return placed(z, dim, x)
        checks.check_scores("softmax", scores.detach())
    masked = scores.detach().amax(-1, keepdim=True) == -float("inf")
    z = torch.softmax(scores.masked_fill(masked, 0.0), -1).masked_fill(masked, 0.0)
    return placed(z, dim, x)
