"""A layer's call as tracers see it: the tensors checked and laid side by side, and one operator.

For `torch.compile` the whole is one opaque step. Its tracer would otherwise look at every name and attribute that the
checks read, and at every call make sure that none has changed, which takes longer than a tenth of a small solve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cvxift.errors import ProgramError
from cvxift.layers.core import LayerCore
from cvxift.layers.interop import number, refused, wrong_dtype
from cvxift.layers.solve_cache import Options
from cvxift.program.parameters import called
from cvxift.torch.function import packed, separated
from cvxift.torch.operators import compute, encoded, host_of

PLAIN = encoded(Options())  # a call without options of its own


def tensors_taken(params: tuple[Any, ...]) -> tuple[Any, ...]:
    """Python numbers and 0-d arrays as tensors of the others' dtype and device; sparse tensors as dense ones."""
    params = tuple(p if not isinstance(p, torch.Tensor) or p.layout is torch.strided else p.to_dense() for p in params)
    dtype, device = kind_of(params)
    numbers = [None if isinstance(p, torch.Tensor) else number(p) for p in params]
    return tuple(
        p if value is None else torch.tensor(value, dtype=dtype, device=device)
        for p, value in zip(params, numbers, strict=True)
    )


def kind_of(params: Sequence[Any]) -> tuple[torch.dtype, torch.device | None]:
    """Dtype and device of the first tensor, which numbers beside it take; the defaults where there is none."""
    for p in params:  # next(…, None) is a break in the graph to the compiler of PyTorch 2.8
        if isinstance(p, torch.Tensor):
            return p.dtype, p.device
    return torch.get_default_dtype(), None


def checked(core: LayerCore, params: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
    """The tensors, of one floating dtype and device; under autocast, of the widest dtype and at least float32."""
    first = params[0] if params else None
    if isinstance(first, torch.Tensor):
        dtype, device = first.dtype, first.device
        if (dtype is torch.float64 or dtype is torch.float32) and all(
            isinstance(p, torch.Tensor) and p.dtype is dtype and p.device == device for p in params
        ):
            return params
        if device.type != "meta" and torch.is_autocast_enabled(device.type):
            params = _widened(params)
    for parameter, tensor in zip(core.parameters, params, strict=False):
        if not isinstance(tensor, torch.Tensor):
            raise refused(called(parameter), tensor, "a torch.Tensor", "torch.as_tensor")
        if not tensor.is_floating_point():
            raise wrong_dtype(called(parameter), tensor.dtype, tensor.is_complex(), ".double()")
        if tensor.dtype != params[0].dtype or tensor.device != params[0].device:
            raise ProgramError(
                f"Parameter '{called(parameter)}' is {tensor.dtype} on {tensor.device}, but "
                f"'{called(core.parameters[0])}' is {params[0].dtype} on {params[0].device}; "
                "give all tensors one dtype and device."
            )
    return params


def _widened(params: tuple[Any, ...]) -> tuple[Any, ...]:
    """Floating tensors in the widest of their dtypes, float32 at least, as autocast does for delicate operators."""
    floating = [p.dtype for p in params if isinstance(p, torch.Tensor) and p.is_floating_point()]
    widest = torch.float32
    for dtype in floating:
        widest = torch.promote_types(widest, dtype)
    return tuple(p.to(widest) if isinstance(p, torch.Tensor) and p.is_floating_point() else p for p in params)


def logarithms(core: LayerCore, params: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The parameters as the program takes them: of a geometric program, the logarithms of positive ones."""
    if len(params) != len(core.logs):
        return params  # refused where they are packed
    return tuple(torch.log(p) if log else p for p, log in zip(params, core.logs, strict=True))


def exponentials(core: LayerCore, outputs: Any) -> tuple[torch.Tensor, ...]:
    """The outputs as the user knows them: of a geometric program, the exponentials."""
    return tuple(torch.exp(out) if exp else out for out, exp in zip(outputs, core.exps, strict=True))


def through_operator(core: LayerCore, key: str, options: str, params: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
    """A layer's call through `cvxift.torch.operators`.

    Args:
        core: the layer without its framework.
        key: of its host.
        options: of the call, encoded.
        params: a tensor for each parameter.

    Returns:
        The requested variables.
    """
    params = logarithms(core, checked(core, params))
    return exponentials(core, separated(core, compute(key, options, packed(core, params), (), None)))


@torch.compiler.allow_in_graph
def opaque(key: str, options: str, *params: Any) -> tuple[torch.Tensor, ...]:
    """`through_operator`, by the host's key alone."""
    return through_operator(host_of(key).core, key, options, params)
