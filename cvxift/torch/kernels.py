"""The kernels of the closed forms, as functions of tensors and, for tracers, as one operator ``cvxift::kernel``.

A kernel may look at values: loop until it converges, refuse NaN, work in NumPy. Under ``torch.func`` it runs at the
lowest level, where tensors are plain; ``torch.compile``, ``torch.export`` and fake tensors see an opaque operator with
a rule for the shapes of what it returns. Derivatives are no concern of it: they are rules of `torch.autograd.Function`s
that call it, or there are none (`constant`).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from cvxift.torch.tensors import batched, plain

Tensor = torch.Tensor


class Kernel(NamedTuple):
    """Both take the same arguments: tensors, then options (strings, numbers, None)."""

    run: Callable[..., tuple[Tensor, ...]]
    shapes: Callable[..., tuple[Tensor, ...]]  # empty tensors like those that `run` returns; reads no values


_kernels: dict[str, Kernel] = {}


def register(name: str, shapes: Callable[..., tuple[Tensor, ...]]) -> Callable[[Any], Any]:
    """Make the decorated function the kernel of that name."""

    def decorate(run: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        _kernels[name] = Kernel(run, shapes)
        return run

    return decorate


def call(name: str, tensors: Sequence[Tensor], *options: Any) -> tuple[Tensor, ...]:
    """Run a kernel: directly on plain tensors, as an operator on the stand-ins of a tracer.

    Args:
        name: under which it is registered.
        tensors: its tensors; no derivative passes.
        options: its options, strings, numbers or None; constants in a traced graph.

    Returns:
        Its tensors.
    """
    if plain(*tensors):
        # Views of something else could not be changed in place.
        return tuple(x if x._base is None else x.clone() for x in _kernels[name].run(*tensors, *options))
    return tuple(operator(name, list(tensors), repr(tuple(_constant(option) for option in options))))


def _constant(option: Any) -> Any:
    """A number that a tracer holds for a variable, as the one that it is now."""
    if isinstance(option, torch.SymInt):
        return int(option)
    return float(option) if isinstance(option, torch.SymFloat) else option


@lru_cache(maxsize=64)
def _options(text: str) -> tuple[Any, ...]:
    return ast.literal_eval(text)


# Before version 2.7 PyTorch does not read `list[Tensor]`.
SCHEMA = "(str name, Tensor[] tensors, str options) -> Tensor[]"


@torch.library.custom_op("cvxift::kernel", mutates_args=(), schema=SCHEMA)
def operator(name: str, tensors: list[Tensor], options: str) -> list[Tensor]:
    """A kernel by its name, the options written out; what it returns is contiguous and nobody else's."""
    taken = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    results = []
    for result in _kernels[name].run(*tensors, *_options(options)):
        own = result.is_contiguous() and result.untyped_storage().data_ptr() not in taken
        results.append(result if own else result.clone(memory_format=torch.contiguous_format))
        taken.add(results[-1].untyped_storage().data_ptr())
    return results


@operator.register_fake
def _(name: str, tensors: list[Tensor], options: str) -> list[Tensor]:
    return list(_kernels[name].shapes(*tensors, *_options(options)))


class _Constant(torch.autograd.Function):
    """A kernel without derivative."""

    @staticmethod
    def forward(name: str, options: tuple[Any, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run it."""
        return call(name, tensors, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, ...]) -> None:
        """Nothing is kept."""
        ctx.mark_non_differentiable(*output)
        ctx.number = len(inputs)

    @staticmethod
    def backward(ctx: Any, *bars: Any) -> Any:
        """None."""
        return (None,) * ctx.number

    @staticmethod
    # Named arguments for the base's *args.
    def vmap(info: Any, in_dims: Any, name: str, options: Any, *tensors: Tensor) -> Any:  # type: ignore[override]
        """The mapped dimension becomes one more batch dimension."""
        given = (batched(info.batch_size, dim, x) for dim, x in zip(in_dims[2:], tensors))
        outputs = _Constant.apply(name, options, *given)
        return outputs, (0,) * len(outputs)  # type: ignore[arg-type]


def constant(name: str, tensors: Sequence[Tensor], *options: Any) -> tuple[Tensor, ...]:
    """Run a kernel whose results do not vary near almost every point; under ``torch.vmap`` on the whole batch."""
    return _Constant.apply(name, options, *(tensor.detach() for tensor in tensors))  # type: ignore[return-value]
