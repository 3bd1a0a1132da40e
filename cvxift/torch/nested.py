"""Forward mode inside forward mode, for autograd functions.

PyTorch switches forward mode off while a function's ``jvp`` runs, so that what it computes carries no tangents of this
pass; nor then of a pass around it, whose second derivative would lack a term without a word.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch.autograd import forward_ad

Rule = TypeVar("Rule", bound=Callable[..., Any])


def nested(jvp: Rule) -> Rule:
    """A ``jvp`` whose result an outer forward pass can differentiate; it takes what was kept through `primals`."""

    @functools.wraps(jvp)
    def rule(*args: Any) -> Any:
        with forward_ad._set_fwd_grad_enabled(True):
            return jvp(*args)

    return rule  # type: ignore[return-value]  # of the same signature


def keep(ctx: Any, *values: Any) -> None:
    """Keep tensors, and what is none after them, for both modes."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    ctx.constants = values[len(tensors) :]


def kept(ctx: Any) -> tuple[Any, ...]:
    """What `keep` was given."""
    return (*ctx.saved_tensors, *ctx.constants)


def primals(ctx: Any) -> tuple[Any, ...]:
    """The same without the tangents of this pass."""
    return (*unpacked(ctx.saved_tensors), *ctx.constants)


def unpacked(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Tensors without the tangents of this pass."""
    # PyTorch has but the level 0; in traced graphs it does not know that it is there unless told.
    return tuple(forward_ad.unpack_dual(tensor, level=0).primal for tensor in tensors)
