"""PyTorch, as the argmax functions know a framework; see `cvxift.argmax.functions.framework`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat.torch as xp
import torch

from cvxift.argmax import checks
from cvxift.errors import ProgramError
from cvxift.torch.chain_maps import best_path, log_partition, marginals
from cvxift.torch.row_maps import budget, capped_softmax, entmax, entmax_loss, envelope, softmax
from cvxift.torch.rule import eager
from cvxift.torch.segment_maps import Segments as segments
from cvxift.torch.segment_maps import segment_budget, segment_entmax, segment_loss
from cvxift.torch.structured_maps import permutahedron, permutahedron_loss, transport, transport_loss
from cvxift.torch.tensors import HALVES, visible, wider, widest

Tensor = torch.Tensor
DIM: str = "dim"
KERNELS_LOOK: bool = True


def is_number(value: Any) -> bool:
    return not isinstance(value, Tensor)


def floating(name: str, x: Any, what: str = "scores") -> Tensor:
    """The argument, a floating tensor.

    Raises:
        ProgramError: it is none.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind, cure = (x.dtype, ".float()") if isinstance(x, Tensor) else (type(x).__name__, "torch.as_tensor")
        raise ProgramError(f"{name} got {what} of type {kind}; expected a floating tensor. Convert it with {cure}.")
    return x


def is_integer(x: Tensor) -> bool:
    return not x.is_floating_point() and not x.is_complex() and x.dtype is not torch.bool


def is_half(x: Tensor) -> bool:
    return x.dtype in HALVES


def array(value: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def integers(value: Any, like: Tensor) -> Tensor:
    """A tensor on another's device."""
    return torch.as_tensor(value, device=like.device)


def index(x: Tensor) -> Tensor:
    return x.long()


def cast(x: Tensor, like: Tensor) -> Tensor:
    return x if x.dtype is like.dtype else x.to(like.dtype)


def moveaxis(x: Tensor, source: int, destination: int) -> Tensor:
    return x.movedim(source, destination)


def take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(-1, index)  # torch.take_along_dim would hold a traced graph to one size


def sort(x: Tensor) -> tuple[Tensor, Tensor]:
    values, order = torch.sort(x, dim=-1, descending=True, stable=True)
    return values, order


def sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


def arange(number: int, like: Tensor) -> Tensor:
    return torch.arange(number, dtype=like.dtype, device=like.device)


def constant(x: Tensor) -> Tensor:
    return x.detach()


def look(check: Callable[..., None], *tensors: Tensor) -> bool:
    if not all(map(visible, tensors)):
        return False
    check(*(tensor.detach() for tensor in tensors))
    return True


def guarded(name: str, allowed: checks.Range, value: Tensor) -> Tensor:
    return checks.guarded(torch, name, allowed, value, visible(value))
