"""Kinds of tensors: which have values to look at, which NumPy may take, which stand for many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.autograd import forward_ad

Tensor = torch.Tensor
Function = TypeVar("Function", bound=Callable[..., Any])
HALVES = (torch.float16, torch.bfloat16)


def untraced(function: Function) -> Function:
    """The function out of tracers' sight.

    Where the user's graph is broken they look into what runs, and tell the user what they cannot follow there.
    """
    return torch.compiler.disable(function)  # type: ignore[return-value]  # it loses the signature


def visible(x: Tensor) -> bool:
    """Whether the tensor has values to look at: not in a program that is being recorded, nor mapped by `torch.vmap`."""
    return not torch.compiler.is_compiling() and not recorded() and not x.is_meta and not mapped(x)


def recorded() -> bool:
    """Whether a mode sees every operation on ordinary tensors: `make_fx`, `torch.func.linearize`, `torch.jit.trace`.

    It would take what comes from NumPy for a constant.
    """
    return torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() is not None


def wider(x: Tensor) -> Tensor:
    """The tensor in float32 at least."""
    return x.float() if x.dtype in HALVES else x


def widest(x: Tensor) -> Tensor:
    """The tensor in float64, where its device has that."""
    return x if x.device.type == "mps" else x.double()


def mapped(x: Tensor) -> bool:
    """Whether the tensor stands for many under ``torch.vmap``, at whatever depth of transforms."""
    functorch = torch._C._functorch  # type: ignore[attr-defined]
    while functorch.is_functorch_wrapped_tensor(x):
        if functorch.is_batchedtensor(x):
            return True
        x = functorch.get_unwrapped(x)
    return False


def plain(*tensors: Any) -> bool:
    """Whether all are ordinary tensors, not the stand-ins of a tracer, and nothing records what is done to them."""
    return not recorded() and all(
        type(x) in (Tensor, torch.nn.Parameter) and not x.is_meta for x in tensors if isinstance(x, Tensor)
    )


def numpy_serves(x: Tensor) -> bool:
    """Whether NumPy may take the tensor's values, in a call that nothing traces, maps or pushes forward."""
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not recorded()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._functorch.is_legacy_batchedtensor(x)  # type: ignore[attr-defined]
        and forward_ad._current_level < 0
    )


def batched(size: int, in_dim: int | None, x: Tensor) -> Tensor:
    """A tensor under ``vmap`` with its mapped dimension first, broadcast if it has none."""
    return x.expand(size, *x.shape) if in_dim is None else x.movedim(in_dim, 0)
