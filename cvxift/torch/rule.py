"""The autograd rule of every argmax map: its kernel is run, and differentiated by a formula.

Both modes and every order, under `torch.func.vmap` (a mapped dimension is one more batch dimension) and in traced
graphs, where the kernel is one operator; see `cvxift.torch.kernels` and `cvxift.argmax.derivatives`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from cvxift.argmax.derivatives import Derivative
from cvxift.torch import kernels
from cvxift.torch.nested import nested, unpacked
from cvxift.torch.tensors import batched, numpy_serves

Tensor = torch.Tensor


class Rule(torch.autograd.Function):
    """A kernel by its name, and the derivative of its first outputs."""

    @staticmethod
    def forward(name: str, derivative: Derivative, options: tuple[Any, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the kernel."""
        return kernels.call(name, tensors, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the derivative is a function of."""
        _, derivative, options, *tensors = inputs
        ctx.derivative, ctx.options = derivative, options
        ctx.others = len(output) - derivative.outputs
        ctx.shapes = [tensor.shape for tensor in tensors]
        saved = [output[i] for i in range(derivative.outputs)] if derivative.keep_outputs else []
        saved += [tensors[i] for i in derivative.keep_inputs]
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        ctx.mark_non_differentiable(*output[derivative.outputs :])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor | None) -> tuple[Tensor | None, ...]:
        """Cotangents of the inputs, summed over the dimensions along which these broadcast."""
        bars = bars[: ctx.derivative.outputs]
        if all(bar is None for bar in bars):
            return (None,) * (3 + len(ctx.shapes))
        grads = ctx.derivative.pull(ctx.saved_tensors, bars, ctx.options, ctx.needs_input_grad[3:])
        return (
            None,
            None,
            None,
            *(
                grad if grad is None or grad.shape == shape else grad.sum_to_size(shape)
                for grad, shape in zip(grads, ctx.shapes)
            ),
        )

    @staticmethod
    @nested
    def jvp(ctx: Any, *moves: Tensor | None) -> tuple[Tensor | None, ...]:
        """Tangents of the outputs."""
        derivative, saved = ctx.derivative, ctx.saved_tensors
        # Outputs as they are: an outer pass differentiates them as such.
        cut = derivative.outputs if derivative.keep_outputs else 0
        dots = derivative.push((*saved[:cut], *unpacked(saved[cut:])), moves[3:], ctx.options)
        return *dots, *(None,) * ctx.others

    @staticmethod
    # Named arguments for the base's *args.
    def vmap(  # type: ignore[override]
        info: Any,
        in_dims: tuple[int | None, ...],
        name: str,
        derivative: Derivative,
        options: tuple[Any, ...],
        *tensors: Tensor,
    ) -> tuple[Any, tuple[int, ...]]:
        """The mapped dimension becomes one more batch dimension."""
        given = [
            x.unsqueeze(0) if dim is None and i in derivative.broadcast else batched(info.batch_size, dim, x)
            for i, (dim, x) in enumerate(zip(in_dims[3:], tensors))
        ]
        outputs = Rule.apply(name, derivative, options, *given)
        return outputs, (0,) * len(outputs)  # type: ignore[arg-type]  # torch leaves apply untyped


def apply(name: str, derivative: Derivative, tensors: tuple[Tensor, ...], *options: Any) -> tuple[Tensor, ...]:
    """Run a kernel with a derivative."""
    return Rule.apply(name, derivative, options, *tensors)  # type: ignore[return-value]


class _Eager(torch.autograd.Function):
    """A map by NumPy, in an eager call of plain tensors, with as little around it as can be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, compute: Any, composed: Callable[[Tensor], Tensor]) -> Tensor:
        """Result and product in one."""
        found = compute(x.detach().numpy(), True)
        if found is None:
            return composed(x.detach())
        z, ctx.pull = found
        ctx.composed = composed
        ctx.save_for_backward(x)
        return torch.from_numpy(z)

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """Vector-Jacobian product; of differentiable operations where it is to be differentiated, or is mapped."""
        (x,) = ctx.saved_tensors
        if not torch.is_grad_enabled() and numpy_serves(bar):
            return torch.from_numpy(ctx.pull(bar.numpy())), None, None
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if again else x.detach().requires_grad_()
            return torch.autograd.grad(ctx.composed(x), x, bar, create_graph=again)[0], None, None


def eager(compute: Any, composed: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """See `Framework.eager`."""
    if not (x.numel() and numpy_serves(x)):
        return composed(x)
    if x.requires_grad and torch.is_grad_enabled():
        return _Eager.apply(x, compute, composed)  # type: ignore[return-value]
    found = compute(x.detach().numpy(), False)
    return composed(x) if found is None else torch.from_numpy(found[0])
