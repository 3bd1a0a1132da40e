"""Linear chains of tensors: kernels, and the rules of log Z, whose gradient are the marginals, and of these.

Plain eager calls whose positions share the transitions go through `shared_chain` in NumPy; all else through
`cvxift.argmax.chain` as kernels that tracers and transforms can carry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cvxift.argmax import chain, derivatives, shared_chain
from cvxift.argmax.derivatives import Derivative
from cvxift.argmax.feasibility import check_entries
from cvxift.torch import kernels, rule
from cvxift.torch.tensors import numpy_serves, plain, widest

Tensor = torch.Tensor


def _empty(u: Tensor, e: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return u.new_empty(u.shape), e.new_empty(e.shape)


def _checked(u: Tensor, e: Tensor, name: str = "linear_chain") -> None:
    check_entries(name, u)
    check_entries(name, e)


@kernels.register("log partition", lambda u, *_: (widest(u.new_empty(u.shape[:-2])),))
def _log_partition(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor]:
    found = _messages(u, e, real)
    if found is not None:
        return (torch.from_numpy(found.value.reshape(u.shape[:-2])),)
    _checked(u, e)
    return (chain.log_partition(widest(u), widest(e), real),)


def _messages(u: Tensor, e: Tensor, real: Tensor) -> shared_chain.Messages | None:
    """Messages of the chains on a host where one (S, S), given as it is or expanded, serves all, and they suffice."""
    shared = e.ndim == 2 or not any(e.stride()[:-2])
    if not shared or u.device.type != "cpu" or 0 in e.shape:
        return None
    flat = (-1, *u.shape[-2:])
    one = e if e.ndim == 2 else e[(0,) * (e.ndim - 2)]
    return shared_chain.messages(u.reshape(flat).numpy(), one.numpy(), real.reshape(flat[:2]).numpy())


@kernels.register("marginals", _empty)
def _marginals_kernel(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, ...]:
    found = _messages(u, e, real)
    if found is not None:
        states, pairs = shared_chain.marginals(found)
        parts = zip((states, pairs), (u, e))
        return tuple(torch.from_numpy(part.reshape(x.shape)).to(x.dtype) for part, x in parts)
    _checked(u, e)
    return chain.marginals(u, e, real)


@kernels.register(
    "viterbi", lambda u, *_: (torch.empty_like(u[..., 0], dtype=torch.int64).contiguous(), u.new_empty(u.shape[:-2]))
)
def _best_path(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    _checked(u, e, "viterbi")
    if u.device.type != "cpu":
        return chain.viterbi(u, e, real)
    path, score = chain.viterbi(u.numpy(), e.numpy(), real.numpy())
    return torch.from_numpy(np.ascontiguousarray(path)), torch.from_numpy(np.asarray(score))


kernels.register("chain derivative", _empty)(chain.derivative)


class _SharedLogPartition(torch.autograd.Function):
    """log Z of plain tensors where all positions share the transitions (S, S), in NumPy; see `shared_chain`."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, e: Tensor, real: Tensor) -> Tensor:
        """Products of matrices, or where these would underflow logarithms."""
        ctx.save_for_backward(u, e, real)
        ctx.found = _messages(u.detach(), e.detach(), real)
        if ctx.found is None:
            return _log_partition(u.detach(), _each(u, e).detach(), real)[0]
        return torch.from_numpy(ctx.found.value.reshape(u.shape[:-2]))

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # of any number
        """The marginals, themselves differentiable where that is asked for."""
        u, e, real = ctx.saved_tensors
        if ctx.found is None or torch.is_grad_enabled() or not numpy_serves(bar):
            states, pairs = _marginals(u, _each(u, e), real)
            bar = bar.to(u.dtype)
            return bar[..., None, None] * states, (bar[..., None, None, None] * pairs).sum_to_size(e.shape), None
        states, pairs = shared_chain.weighted(ctx.found, bar.reshape(-1).numpy())
        return torch.from_numpy(states).reshape(u.shape).to(u.dtype), torch.from_numpy(pairs).to(e.dtype), None


def _recursion(kept: Any) -> Any:
    """`chain.derivative` as a function of what moves: scores, and directions."""
    u, e, real, du, de = kept
    return lambda u, e, du, de: chain.derivative(u, e, real, du, de), (u, e, du, de)


def _push_derivative(kept: Any, moves: Any, _: Any) -> tuple[Tensor, ...]:
    function, given = _recursion(kept)
    moved = [torch.zeros_like(x) if move is None else move for x, move in zip(given, (*moves[:2], *moves[3:]))]
    return torch.func.jvp(function, given, tuple(moved))[1]


def _pull_derivative(kept: Any, bars: Any, *_: Any) -> tuple[Tensor | None, ...]:
    function, given = _recursion(kept)
    full = tuple(torch.zeros_like(x) if bar is None else bar for x, bar in zip(kept, bars))
    grads = torch.func.vjp(function, *given)[1](full)
    return *grads[:2], None, *grads[2:]


# In a traced graph the recursion is one operator, not a node for each operation at each position; its own derivatives
# are the recursion's, laid out in the graph.
_OF_DERIVATIVE = Derivative(
    _push_derivative, _pull_derivative, outputs=2, keep_outputs=False, keep_inputs=(0, 1, 2, 3, 4)
)


def _derivative(u: Tensor, e: Tensor, real: Tensor, du: Tensor, de: Tensor) -> tuple[Tensor, ...]:
    if plain(u, e, real, du, de):
        return chain.derivative(u, e, real, du, de)
    return rule.apply("chain derivative", _OF_DERIVATIVE, (u, e, real, du, de))


_OF_MARGINALS = derivatives.of_marginals(_derivative)


def _marginals(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, ...]:
    return rule.apply("marginals", _OF_MARGINALS, (u, e, real))


_OF_LOG_PARTITION = derivatives.of_log_partition(_marginals)


@torch._dynamo.allow_in_graph
def best_path(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, ...]:
    # Mapped, shared transitions have one more dimension, and would be taken for those of each position.
    return kernels.constant("viterbi", (u, e if all(map(numpy_serves, (u, e, real))) else _each(u, e), real))


@torch._dynamo.allow_in_graph
def log_partition(u: Tensor, e: Tensor, real: Tensor) -> Tensor:
    """See `Framework.log_partition`; in float64 where the device has it."""
    if e.ndim == 2 and all(map(numpy_serves, (u, e, real))):
        return _SharedLogPartition.apply(u, e, real)  # type: ignore[return-value]  # torch leaves apply untyped
    return rule.apply("log partition", _OF_LOG_PARTITION, (u, _each(u, e), real))[0]


@torch._dynamo.allow_in_graph
def marginals(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, ...]:
    return _marginals(u, _each(u, e), real)


def _each(u: Tensor, e: Tensor) -> Tensor:
    """Transitions for each position; shared ones stay so in memory."""
    length, states = u.shape[-2:]
    return e.expand(*u.shape[:-2], length - 1, states, states) if e.ndim == 2 else e
