"""Autograd rules of linear chains on tensors: kernels, and log Z whose gradient are the marginals, and theirs.

Plain eager calls whose positions share the transitions go through `shared_chain` in NumPy; all else through
`cvxift.argmax.chain` as kernels that tracers and transforms can carry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cvxift.argmax import chain, shared_chain
from cvxift.argmax.feasibility import check_entries
from cvxift.torch import kernels
from cvxift.torch.nested import keep, kept, nested, primals
from cvxift.torch.tensors import batched, numpy_serves, plain

Tensor = torch.Tensor


def _empty(u: Tensor, e: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return u.new_empty(u.shape), e.new_empty(e.shape)


def _checked(u: Tensor, e: Tensor, name: str = "linear_chain") -> None:
    check_entries(name, u)
    check_entries(name, e)


def _wide(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()


@kernels.register("log partition", lambda u, *_: (_wide(u.new_empty(u.shape[:-2])),))
def _find_log_partition(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor]:
    found = _messages(u, e, real)
    if found is not None:
        return (torch.from_numpy(found.value).reshape(u.shape[:-2]),)
    _checked(u, e)
    return (chain.log_partition(_wide(u), _wide(e), real),)


def _messages(u: Tensor, e: Tensor, real: Tensor) -> shared_chain.Messages | None:
    """Messages of the chains on a host where one (S, S), given as it is or expanded, serves all, and they suffice."""
    shared = e.ndim == 2 or not any(e.stride()[:-2])
    if not shared or u.device.type != "cpu" or 0 in e.shape:
        return None
    flat = (-1, *u.shape[-2:])
    one = e if e.ndim == 2 else e[(0,) * (e.ndim - 2)]
    return shared_chain.messages(u.reshape(flat).numpy(), one.numpy(), real.reshape(flat[:2]).numpy())


@kernels.register("marginals", _empty)
def _find_marginals(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    found = _messages(u, e, real)
    if found is not None:
        states, pairs = shared_chain.marginals(found)
        return torch.from_numpy(states).to(u.dtype).reshape(u.shape), torch.from_numpy(pairs).to(e.dtype).reshape(
            e.shape
        )
    _checked(u, e)
    return chain.marginals(u, e, real)


@kernels.register(
    "viterbi", lambda u, *_: (torch.empty_like(u[..., 0], dtype=torch.int64).contiguous(), u.new_empty(u.shape[:-2]))
)
def _find_path(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    _checked(u, e, "viterbi")
    if u.device.type != "cpu":
        return chain.viterbi(u, e, real)
    path, score = chain.viterbi(u.numpy(), e.numpy(), real.numpy())
    return torch.from_numpy(np.ascontiguousarray(path)), torch.from_numpy(np.asarray(score))


kernels.register("chain derivative", _empty)(chain.derivative)


class _LogPartition(torch.autograd.Function):
    """log Z; its gradient are the marginals, computed when asked for."""

    @staticmethod
    def forward(u: Tensor, e: Tensor, real: Tensor) -> Tensor:
        """The forward recursion."""
        return kernels.call("log partition", (u, e, real))[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep the scores."""
        keep(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """The marginals, themselves differentiable."""
        u, e, real = kept(ctx)
        states, pairs = _Marginals.apply(u, e, real)  # type: ignore[misc]
        bar = bar.to(u.dtype)
        return bar[..., None, None] * states, bar[..., None, None, None] * pairs, None

    @staticmethod
    @nested
    def jvp(ctx: Any, du: Tensor | None, de: Tensor | None, _: Any) -> Tensor:  # type: ignore[override]
        """⟨marginals, direction⟩."""
        states, pairs = _Marginals.apply(*primals(ctx))  # type: ignore[misc]
        own = 0.0 if du is None else (states * du).sum((-2, -1))
        slope = own + (0.0 if de is None else (pairs * de).sum((-3, -2, -1)))
        return _wide(slope)  # type: ignore[arg-type]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Any, int]:
        """The mapped dimension becomes one more batch dimension."""
        return _LogPartition.apply(*(batched(info.batch_size, dim, x) for dim, x in zip(in_dims, args))), 0


class _SharedLogPartition(torch.autograd.Function):
    """log Z of plain tensors where all positions share the transitions (S, S), in NumPy; see `shared_chain`."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, e: Tensor, real: Tensor) -> Tensor:
        """Products of matrices, or where these would underflow logarithms."""
        ctx.save_for_backward(u, e, real)
        ctx.found = _messages(u.detach(), e.detach(), real)
        if ctx.found is None:
            return _find_log_partition(u.detach(), each(u, e).detach(), real)[0]
        return torch.from_numpy(ctx.found.value).reshape(u.shape[:-2])

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """The marginals, themselves differentiable where that is asked for."""
        u, e, real = ctx.saved_tensors
        if ctx.found is None or torch.is_grad_enabled() or not numpy_serves(bar):
            states, pairs = _Marginals.apply(u, each(u, e), real)  # type: ignore[misc]
            bar = bar.to(u.dtype)
            return bar[..., None, None] * states, (bar[..., None, None, None] * pairs).sum_to_size(e.shape), None
        states, pairs = shared_chain.weighted(ctx.found, bar.reshape(-1).numpy())
        return torch.from_numpy(states).reshape(u.shape).to(u.dtype), torch.from_numpy(pairs).to(e.dtype), None


class _Marginals(torch.autograd.Function):
    """Marginals; their derivative is symmetric, so it serves both modes."""

    @staticmethod
    def forward(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Both recursions."""
        states, pairs = kernels.call("marginals", (u, e, real))
        return states, pairs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the scores."""
        keep(ctx, *inputs)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, bar_states: Tensor, bar_pairs: Tensor
    ) -> tuple[Tensor | None, ...]:
        """The Hessian of log Z times the cotangents, of differentiable operations."""
        u, e, real = kept(ctx)
        return (*_derivative(u, e, real, bar_states, bar_pairs), None)

    @staticmethod
    @nested
    def jvp(ctx: Any, du: Tensor | None, de: Tensor | None, _: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The same times the direction."""
        u, e, real = primals(ctx)
        du = torch.zeros_like(u) if du is None else du
        return _derivative(u, e, real, du, torch.zeros_like(e) if de is None else de)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Any, tuple[int, int]]:
        """The mapped dimension becomes one more batch dimension."""
        return _Marginals.apply(*(batched(info.batch_size, dim, x) for dim, x in zip(in_dims, args))), (0, 0)


class _Derivative(torch.autograd.Function):
    """`chain.derivative` in a traced graph: one operator, not a node for each operation at each position.

    Its own derivatives are the recursion's, laid out in the graph; plain tensors have no need of it.
    """

    @staticmethod
    def forward(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        """The recursion."""
        states, pairs = kernels.call("chain derivative", tensors)
        return states, pairs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep everything."""
        keep(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """By PyTorch's own derivatives."""
        u, e, real, du, de = kept(ctx)

        def recursion(u: Tensor, e: Tensor, du: Tensor, de: Tensor) -> tuple[Tensor, Tensor]:
            return chain.derivative(u, e, real, du, de)

        grads = torch.func.vjp(recursion, u, e, du, de)[1](bars)
        return *grads[:2], None, *grads[2:]

    @staticmethod
    @nested
    def jvp(ctx: Any, *steps: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Likewise."""
        u, e, real, du, de = primals(ctx)
        given = (u, e, du, de)
        moved = [torch.zeros_like(x) if step is None else step for x, step in zip(given, (*steps[:2], *steps[3:]))]

        def recursion(u: Tensor, e: Tensor, du: Tensor, de: Tensor) -> tuple[Tensor, Tensor]:
            return chain.derivative(u, e, real, du, de)

        return torch.func.jvp(recursion, given, tuple(moved))[1]  # type: ignore[return-value]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Any, tuple[int, int]]:
        """The mapped dimension becomes one more batch dimension."""
        return _Derivative.apply(*(batched(info.batch_size, dim, x) for dim, x in zip(in_dims, args))), (0, 0)


def _derivative(u: Tensor, e: Tensor, real: Tensor, du: Tensor, de: Tensor) -> tuple[Tensor, Tensor]:
    if plain(u, e, real, du, de):
        return chain.derivative(u, e, real, du, de)
    return _Derivative.apply(u, e, real, du, de)  # type: ignore[return-value]


@torch._dynamo.allow_in_graph
def best_path(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, ...]:
    """The best path and its score."""
    return kernels.constant("viterbi", (u, e, real))


@torch._dynamo.allow_in_graph
def log_partition(u: Tensor, e: Tensor, real: Tensor) -> Tensor:
    """log Z in float64 where the device has it; e for each position, or (S, S) for all."""
    if e.ndim == 2 and all(map(numpy_serves, (u, e, real))):
        return _SharedLogPartition.apply(u, e, real)  # type: ignore[return-value]
    return _LogPartition.apply(u, each(u, e), real)  # type: ignore[return-value]


def each(u: Tensor, e: Tensor) -> Tensor:
    """Transitions for each position; shared ones stay so in memory."""
    length, states = u.shape[-2:]
    return e.expand(*u.shape[:-2], length - 1, states, states) if e.ndim == 2 else e


@torch._dynamo.allow_in_graph
def marginals(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Marginals of the states and of the transitions; e for each position."""
    return _Marginals.apply(u, e, real)  # type: ignore[return-value]
