"""What the closed forms on tensors share: arguments checked and laid out along the last axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from cvxift.argmax import checks
from cvxift.errors import ProgramError

Tensor = torch.Tensor
HALVES = (torch.float16, torch.bfloat16)


def scores_of(name: str, x: Tensor, dim: int, temperature: float | Tensor = 1.0, shift: bool = True) -> Tensor:
    """Scores over temperature with ``dim`` last, in float32 at least.

    Args:
        name: of the function, for messages.
        x: scores.
        dim: dimension of the rows.
        temperature: > 0, a number or a tensor that broadcasts against x.
        shift: subtract the rows' maxima first, where that changes nothing but keeps large scores from overflowing.

    Raises:
        ProgramError: no floating tensor, no such dimension, temperature not positive.
    """
    require_floating(name, x)
    if isinstance(dim, bool) or not isinstance(dim, int) or not -x.ndim <= dim < x.ndim:
        raise ProgramError(f"{name} got dim = {dim}, but the scores have shape {tuple(x.shape)}.")
    scores = x.float() if x.dtype in HALVES else x
    last = dim in (-1, x.ndim - 1)
    if isinstance(temperature, float | int) and temperature == 1:
        return scores if last else scores.movedim(dim, -1)
    warmth = temperature_of(name, temperature, scores)
    if shift and x.shape[dim]:
        top = scores.detach().amax(dim, keepdim=True)
        scores = scores - torch.where(top == -float("inf"), torch.zeros_like(top), top)
    return scores / warmth if last else (scores / warmth).movedim(dim, -1)


def placed(z: Tensor, dim: int, x: Tensor) -> Tensor:
    """Rows along the last axis as results for x: along ``dim``, in its dtype."""
    z = z if dim == -1 else z.movedim(-1, dim)
    return z if z.dtype is x.dtype else z.to(x.dtype)


def require_floating(name: str, x: Any, what: str = "scores") -> None:
    """Refuse what is no floating tensor."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ProgramError(f"{name} got {what} of type {kind}; expected a floating tensor. Convert it with .float().")


def temperature_of(
    name: str, temperature: float | Tensor, scores: Tensor, shape: Sequence[int] | None = None
) -> float | Tensor:
    """The temperature in the scores' dtype; see `checks.guarded`. It broadcasts to the shape, None for the scores'."""
    if not isinstance(temperature, Tensor):
        checks.check_number(name, checks.TEMPERATURE, temperature)
        return temperature
    broadcastable(name, "temperature", temperature, scores.shape if shape is None else shape)
    return checks.guarded(torch, name, checks.TEMPERATURE, temperature.to(scores), visible(temperature))


def bound_of(
    name: str,
    argument: str,
    bound: float | Tensor,
    dtype: torch.dtype,
    scores: Tensor,
    shape: torch.Size,
    dim: int,
) -> Tensor:
    """A bound broadcast to the scores' own shape, ``dim`` last, in a dtype."""
    tensor = torch.as_tensor(bound, dtype=dtype, device=scores.device)
    broadcastable(name, argument, tensor, shape)
    full = tensor.broadcast_to(shape)
    return full.movedim(dim, -1) if shape else full


def broadcastable(name: str, argument: str, tensor: Tensor, shape: Sequence[int]) -> None:
    """Refuse what does not broadcast to the shape."""
    if not broadcasts(tensor.shape, shape):
        raise ProgramError(
            f"{name}: {argument} has shape {tuple(tensor.shape)}, which does not broadcast to {tuple(shape)}."
        )


def broadcasts(own: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a tensor of that own shape can be expanded to the shape."""
    # Not `mine in (1, size)`: a compiler's symbolic sizes know equality, not membership.
    pairs = zip(reversed(own), reversed(shape))
    return len(own) <= len(shape) and all(mine == 1 or mine == size for mine, size in pairs)


def visible(x: Tensor) -> bool:
    """Whether the tensor has values to look at: not under ``torch.compile``, nor mapped by ``torch.vmap``."""
    return not torch.compiler.is_compiling() and not x.is_meta and not mapped(x)


def mapped(x: Tensor) -> bool:
    """Whether the tensor stands for many under ``torch.vmap``, at whatever depth of transforms."""
    functorch = torch._C._functorch  # type: ignore[attr-defined]
    while functorch.is_functorch_wrapped_tensor(x):
        if functorch.is_batchedtensor(x):
            return True
        x = functorch.get_unwrapped(x)
    return False


def plain(*tensors: Any) -> bool:
    """Whether all are ordinary tensors, not the stand-ins of a tracer."""
    return all(type(x) in (Tensor, torch.nn.Parameter) and not x.is_meta for x in tensors if isinstance(x, Tensor))


def numpy_serves(x: Tensor) -> bool:
    """Whether NumPy may take the tensor's values, in a call that nothing traces, maps or pushes forward."""
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._functorch.is_legacy_batchedtensor(x)  # type: ignore[attr-defined]
        and forward_ad._current_level < 0
    )


def batched(size: int, in_dim: int | None, x: Tensor) -> Tensor:
    """A tensor under ``vmap`` with its mapped dimension first, broadcast if it has none."""
    return x.expand(size, *x.shape) if in_dim is None else x.movedim(in_dim, 0)
