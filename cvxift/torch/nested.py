"""Forward mode inside forward mode, for autograd functions.

PyTorch switches forward mode off while a function's ``jvp`` runs, so that what it computes carries no tangents of this
pass; nor then of a pass around it, whose second derivative would lack a term without a word.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.autograd import forward_ad

Rule = TypeVar("Rule", bound=Callable[..., Any])


def nested(jvp: Rule) -> Rule:
    """A ``jvp`` whose result an outer forward pass can differentiate; it takes what it saved through `primals`."""

    @functools.wraps(jvp)
    def rule(*args: Any) -> Any:
        with forward_ad._set_fwd_grad_enabled(True):
            return jvp(*args)

    return rule  # type: ignore[return-value]  # of the same signature


def primals(ctx: Any) -> tuple[torch.Tensor, ...]:
    """The saved tensors without the tangents of this pass."""
    # PyTorch has but the level 0; in traced graphs it does not know that it is there unless told.
    return tuple(forward_ad.unpack_dual(tensor, level=0).primal for tensor in ctx.saved_tensors)
