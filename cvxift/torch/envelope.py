"""Losses that are differences of an optimal value and a given score: the derivative is that of an envelope.

L(x) = max_z {⟨x, z⟩ − Ω(z)} − ⟨x, y⟩ + Ω(y),

the gradient is z − y, prediction minus target, and the second derivative ∂z/∂x.
"""

from __future__ import annotations

from typing import Any

import torch

from cvxift.torch.nested import keep, kept, nested, primals

Tensor = torch.Tensor


class _Envelope(torch.autograd.Function):
    """The value; the prediction is an input so that a second derivative goes through it, the first does not."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, z: Tensor, y: Tensor, value: Tensor) -> Tensor:
        """The value itself."""
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep prediction and target."""
        keep(ctx, *inputs[1:3], output.ndim)
        ctx.set_materialize_grads(False)

    @staticmethod
    # Named arguments for the base's *args.
    def backward(ctx: Any, bar: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Prediction − target."""
        z, y, _ = kept(ctx)
        if bar is None:
            return None, None, None, None
        return bar.reshape(*bar.shape, *[1] * (z.ndim - bar.ndim)) * (z - y), None, None, None

    @staticmethod
    @nested
    # Named arguments for the base's *args.
    def jvp(ctx: Any, dx: Tensor | None, *_: Any) -> Tensor:  # type: ignore[override]
        """⟨prediction − target, dx⟩."""
        z, y, lead = primals(ctx)
        step = torch.zeros_like(z) if dx is None else dx
        return ((z - y) * step).sum(tuple(range(lead, z.ndim)))


@torch._dynamo.allow_in_graph
def envelope(x: Tensor, z: Tensor, y: Tensor, value: Tensor) -> Tensor:
    """A Fenchel–Young loss, given its value: ∇ = z − y in x alone, the prediction z being differentiated but once more.

    Args:
        x: scores.
        z: their prediction, of x's shape, differentiable in whatever x is.
        y: target of x's shape.
        value: the loss, of the shape of x's leading axes.

    Returns:
        The value.
    """
    return _Envelope.apply(x, z, y.detach(), value.detach())  # type: ignore[return-value]  # torch leaves apply untyped
