"""Complex tensors as pairs of real ones, by PyTorch's own operations, so that gradients follow its convention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cvxift.layers.interop import refused
from cvxift.program.split_leaves import SplitProblem
from cvxift.torch.traced import kind_of


def split(parts: SplitProblem, params: Sequence[Any]) -> tuple[Any, ...]:
    """Real tensors for the real problem's parameters.

    Args:
        parts: the layer's.
        params: a tensor for each of the user's parameters; a real one, or a number, serves for a complex parameter.
    """
    dtype, device = kind_of(params)

    def take(leaf: Any, value: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if isinstance(value, (int, float, complex)) and not isinstance(value, bool):
            wide = torch.promote_types(dtype, torch.complex64)
            value = torch.tensor(value, dtype=wide, device=device)
        if not isinstance(value, torch.Tensor):
            raise refused(leaf.name(), value, "a torch.Tensor", "torch.as_tensor")
        return (value.real, value.imag) if value.is_complex() else (value, torch.zeros_like(value))

    return parts.split_call(params, take)


def joined(parts: SplitProblem, outputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The layer's outputs, complex where the variable is, from the real layer's."""
    return parts.join_call(
        outputs, torch.complex, torch.zeros_like, lambda array, like: torch.as_tensor(array).to(like)
    )
