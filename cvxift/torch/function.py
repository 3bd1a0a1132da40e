"""The autograd rule of plain eager calls: the solve and its vector-Jacobian product, with as little between as can be.

Everything else (forward mode, derivatives of derivatives, mapped cotangents) goes through `cvxift.torch.form`, which
takes the parameters side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from cvxift.layers.core import Call, LayerCore
from cvxift.program.parameters import batch_of
from cvxift.torch.form import applied
from cvxift.torch.source import Source, is_legacy_batched, summed, to_numpy, to_torch


class Solve(torch.autograd.Function):
    """Parameters ↦ variables, solved in float64 on the CPU whatever the dtype and device of the tensors."""

    @staticmethod
    def forward(
        ctx: Any,
        source: Source,
        differentiated: bool,
        *params: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Solve."""
        core, options = source.host.core, source.options
        call, outputs = core.solve(arrays(params), options.solver_args, options.warm_start, differentiated)
        ctx.source, ctx.call = source, call
        dual = forward_ad._current_level >= 0  # PyTorch has no public word for it; saving for nothing costs time
        if differentiated or dual:
            ctx.save_for_backward(*params)
        if dual:
            ctx.save_for_forward(*params)
        like = params[0] if params else torch.empty(0, dtype=torch.get_default_dtype())
        return tuple(map(to_torch, outputs, repeat(like)))

    @staticmethod
    def backward(ctx: Any, *bars: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """One vector-Jacobian product, itself differentiable."""
        params, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        core, call = ctx.source.host.core, ctx.call
        if not (torch.is_grad_enabled() or any(map(is_legacy_batched, bars))):
            grads = core.vjp(call, [to_numpy(bar) for bar in bars])
            return (
                None,
                None,
                *(to_torch(grad, p) if want else None for grad, p, want in zip(grads, params, wanted, strict=True)),
            )
        theta = _kept(ctx, params)
        theta_bar = applied(ctx.source)(theta, (), joined(core, bars, call.solved.batch_shape))
        parts = unpacked(core, theta_bar)
        return (
            None,
            None,
            *(summed(part, p) if want else None for part, p, want in zip(parts, params, wanted, strict=True)),
        )

    @staticmethod
    def jvp(ctx: Any, *dots: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """One Jacobian-vector product, itself differentiable."""
        params, core = ctx.saved_tensors, ctx.source.host.core
        moved = [
            torch.zeros_like(p) if dot is None else dot.expand_as(p) for dot, p in zip(dots[2:], params, strict=True)
        ]
        theta = _kept(ctx, params)
        z_dot = applied(ctx.source)(theta, (packed(core, moved),), None)
        return tuple(separated(core, z_dot))


def arrays(params: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """`to_numpy` of tensors of one dtype and device."""
    if params and params[0].dtype is torch.float64 and params[0].is_cpu:
        return [p.detach().numpy() if p.requires_grad else p.numpy() for p in params]
    return [to_numpy(p) for p in params]


def _kept(ctx: Any, params: Sequence[torch.Tensor]) -> torch.Tensor:
    """θ of the call, by which its host finds the solved points."""
    call: Call = ctx.call
    theta = packed(ctx.source.host.core, params)
    ctx.source.host.keep(to_numpy(theta), ctx.source.options, call.solved)
    return theta


def packed(core: LayerCore, params: Sequence[torch.Tensor]) -> torch.Tensor:
    """θ of shape (*batch, N): the parameters side by side, each raveled in C order.

    Raises:
        ProgramError: wrong number of tensors, a wrong shape, or leading dimensions that do not agree.
    """
    leads = []
    for p, shape in zip(params, core.shapes, strict=False):
        rank = p.dim() - len(shape)
        if rank < 0 or tuple(p.shape[rank:]) != shape:
            break
        leads.append(tuple(p.shape[:rank]))
    if len(leads) != len(params) or len(params) != len(core.shapes):
        core.batch_shape(tuple(tuple(p.shape) for p in params))  # raises, by name
    if not params:
        return torch.empty(0)
    if not any(leads):
        return torch.cat([p.reshape(-1) for p in params])
    batch = batch_of(core.parameters, leads)
    return torch.cat(
        [
            p.reshape((*lead, size)).expand((*batch, size))
            for p, lead, size in zip(params, leads, core.sizes, strict=True)
        ],
        dim=-1,
    )


def unpacked(core: LayerCore, theta: torch.Tensor) -> list[torch.Tensor]:
    """The parts of a θ-shaped tensor, (*lead, N), in the parameters' shapes: (*lead, *shape)."""
    lead = theta.shape[:-1]
    parts = theta.split(core.sizes, dim=-1)
    return [part.reshape((*lead, *shape)) for part, shape in zip(parts, core.shapes, strict=True)]


def separated(core: LayerCore, flat: torch.Tensor) -> list[torch.Tensor]:
    """Outputs that lie side by side, (*lead, K), one tensor each: (*lead, *shape)."""
    lead = flat.shape[:-1]
    parts = flat.split([math.prod(shape) for shape in core.output_shapes], dim=-1)
    return [part.reshape((*lead, *shape)) for part, shape in zip(parts, core.output_shapes, strict=True)]


def joined(core: LayerCore, bars: Sequence[torch.Tensor], batch: tuple[int, ...]) -> torch.Tensor:
    """The inverse of `separated`."""
    return torch.cat(
        [bar.reshape((*batch, math.prod(shape))) for bar, shape in zip(bars, core.output_shapes, strict=True)], dim=-1
    )
