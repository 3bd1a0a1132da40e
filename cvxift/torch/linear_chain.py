"""Linear chains on tensors: marginals and log-partition function of a CRF or HMM, best path, and log-likelihood loss.

Derivatives of every order are the recursions of `cvxift.argmax.chain`: log Z has the marginals for its gradient, whose
derivative is one more pass in each direction. Memory is linear in the length. −∞ forbids a state or a transition; the
marginals of a chain without any path are zero. Float16 and bfloat16 compute in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cvxift.argmax import chain, shared_chain
from cvxift.argmax.feasibility import check_entries
from cvxift.errors import ProgramError
from cvxift.torch import kernels
from cvxift.torch.nested import keep, kept, nested, primals
from cvxift.torch.tensors import batched, numpy_serves, plain, require_floating, temperature_of, visible

Tensor = torch.Tensor


def linear_chain(
    unary: Tensor,
    pairwise: Tensor,
    log_partition: bool = False,
    lengths: Tensor | None = None,
    temperature: float | Tensor = 1.0,
) -> Any:
    """Marginals of a linear-chain CRF (or HMM, with log-probabilities as scores), by the forward–backward recursion.

    Args:
        unary: scores of the states, (..., T, S); −∞ forbids.
        pairwise: scores of the transitions, (..., T−1, S, S) or (S, S), from row to column; −∞ forbids.
        log_partition: return log Z instead, whose gradient are the marginals.
        lengths: lengths of the sequences, integers (...) between 1 and T; None for T. Scores beyond are ignored.
        temperature: > 0, by which all scores are divided; a number or a 0-d tensor.

    Returns:
        (state marginals (..., T, S), transition marginals (..., T−1, S, S)), zero beyond the length; or log Z (...).

    Raises:
        ProgramError: the shapes do not fit, scores are NaN or +∞, lengths lie outside 1 … T, temperature ≤ 0.

    Source: Lafferty, McCallum, Pereira 2001; Wainwright & Jordan 2008, section 4.1.

    Example:
        >>> import torch
        >>> from cvxift.torch import linear_chain
        >>> states, transitions = linear_chain(torch.zeros(3, 2), torch.zeros(2, 2))
        >>> states[0], transitions[0].sum()
        (tensor([0.5000, 0.5000]), tensor(1.))
    """
    u, e, real = _prepared("linear_chain", unary, pairwise, lengths, temperature)
    if log_partition:
        return _log_partition(u, e, real).to(unary.dtype)
    states, pairs = _marginals(u, _each(u, e), real)
    return states.to(unary.dtype), pairs.to(unary.dtype)


def linear_chain_loss(
    unary: Tensor,
    pairwise: Tensor,
    target: Tensor,
    lengths: Tensor | None = None,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    """CRF loss: the negative log-likelihood of a path; its gradient is marginals − indicators of the target.

    Args:
        unary: as for `linear_chain`.
        pairwise: as for `linear_chain`.
        target: states of the path, integers (..., T); what lies beyond the length is ignored.
        lengths: as for `linear_chain`.
        temperature: > 0; the loss is temperature · log Z(scores / temperature) − score of the target.

    Returns:
        Losses ≥ 0, (...); +∞ where the target's path is forbidden, be it that all are.

    Raises:
        ProgramError: as for `linear_chain`, or the target does not fit.

    Source: Lafferty, McCallum, Pereira 2001; a Fenchel–Young loss: Blondel, Martins, Niculae 2020, section 7.3.

    Example:
        >>> import torch
        >>> from cvxift.torch import linear_chain_loss
        >>> linear_chain_loss(torch.zeros(3, 2), torch.zeros(2, 2), torch.tensor([0, 1, 1]))
        tensor(2.0794)
    """
    u, e, real = _prepared("linear_chain_loss", unary, pairwise, lengths, temperature)
    if target.shape != u.shape[:-1] or target.is_floating_point():
        raise ProgramError(
            f"target has shape {tuple(target.shape)} and type {target.dtype}; expected integers of shape "
            f"{tuple(u.shape[:-1])}."
        )
    y = torch.where(real, target, 0)
    if visible(y) and y.numel() and not 0 <= int(y.min()) <= int(y.max()) < u.shape[-1]:
        raise ProgramError(
            f"target runs from {int(y.min())} to {int(y.max())}; expected states 0 to {u.shape[-1] - 1}."
        )
    # Both are large for long sequences, and their difference may be small.
    wide = torch.float32 if u.device.type == "mps" else torch.float64
    # By `gather`: torch.take_along_dim would hold a traced graph to one size.
    own = u.gather(-1, y.unsqueeze(-1)).squeeze(-1).to(wide)
    score = torch.where(real, own, 0.0).sum(-1)
    if u.shape[-2] > 1:
        states = u.shape[-1]
        link = states * y[..., :-1] + y[..., 1:]
        if e.ndim == 2:
            links = e.reshape(-1).index_select(0, link.reshape(-1)).reshape(link.shape)
        else:
            links = e.reshape(*e.shape[:-2], states * states).gather(-1, link.unsqueeze(-1)).squeeze(-1)
        score = score + torch.where(real[..., 1:], links.to(wide), 0.0).sum(-1)
    log_z = _log_partition(u, e, real)
    log_z = torch.where(log_z == -float("inf"), 0.0, log_z)  # no path at all: as the target's is none, it costs +∞
    loss = log_z - score
    loss = torch.where(loss < 0, loss - loss.detach(), loss)
    return (loss * temperature).to(unary.dtype)


def viterbi(unary: Tensor, pairwise: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The best path of a linear chain and its score, without derivatives.

    Args:
        unary: as for `linear_chain`.
        pairwise: as for `linear_chain`.
        lengths: as for `linear_chain`.

    Returns:
        States of the path, integers (..., T), −1 beyond the length; and its score, (...). Where every path is
        forbidden: −1 throughout, and −∞.

    Raises:
        ProgramError: as for `linear_chain`.

    Source: Viterbi 1967.

    Example:
        >>> import torch
        >>> from cvxift.torch import viterbi
        >>> viterbi(torch.tensor([[1.0, 0.0], [0.0, 0.5]]), torch.eye(2))
        (tensor([0, 0]), tensor(2.))
    """
    with torch.no_grad():
        u, e, real = _prepared("viterbi", unary, pairwise, lengths, 1.0)
        path, score = _viterbi(u, e, real)
    return path, score.to(unary.dtype)


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
            return _find_log_partition(u.detach(), _each(u, e).detach(), real)[0]
        return torch.from_numpy(ctx.found.value).reshape(u.shape[:-2])

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """The marginals, themselves differentiable where that is asked for."""
        u, e, real = ctx.saved_tensors
        if ctx.found is None or torch.is_grad_enabled() or not numpy_serves(bar):
            states, pairs = _Marginals.apply(u, _each(u, e), real)  # type: ignore[misc]
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
def _viterbi(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, ...]:
    return kernels.constant("viterbi", (u, e, real))


@torch._dynamo.allow_in_graph
def _log_partition(u: Tensor, e: Tensor, real: Tensor) -> Tensor:
    if e.ndim == 2 and all(map(numpy_serves, (u, e, real))):
        return _SharedLogPartition.apply(u, e, real)  # type: ignore[return-value]
    return _LogPartition.apply(u, _each(u, e), real)  # type: ignore[return-value]


def _each(u: Tensor, e: Tensor) -> Tensor:
    """Transitions for each position; shared ones stay so in memory."""
    length, states = u.shape[-2:]
    return e.expand(*u.shape[:-2], length - 1, states, states) if e.ndim == 2 else e


@torch._dynamo.allow_in_graph
def _marginals(u: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    return _Marginals.apply(u, e, real)  # type: ignore[return-value]


def _prepared(
    name: str, unary: Tensor, pairwise: Tensor, lengths: Tensor | None, temperature: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores over temperature and which positions are part of the sequence; transitions (S, S) that are shared stay."""
    for word, scores in (("unary", unary), ("pairwise", pairwise)):
        require_floating(name, scores, word)
    if unary.ndim < 2 or unary.shape[-2] < 1:
        raise ProgramError(f"unary has shape {tuple(unary.shape)}; expected (..., T, S) with T ≥ 1.")
    length, states = unary.shape[-2:]
    expected = (*unary.shape[:-2], length - 1, states, states)
    if pairwise.shape not in ((states, states), torch.Size(expected)):
        raise ProgramError(f"pairwise has shape {tuple(pairwise.shape)}; expected {expected} or {(states, states)}.")
    wide = torch.float64 if torch.float64 in (unary.dtype, pairwise.dtype) else torch.float32
    u, e = unary.to(wide), pairwise.to(wide)
    if not isinstance(temperature, float | int) or temperature != 1:
        warmth = temperature_of(name, temperature, u, ())
        u, e = u / warmth, e / warmth
    if lengths is None:
        return u, e, torch.ones(u.shape[:-1], dtype=torch.bool, device=u.device)
    if lengths.shape != u.shape[:-2] or lengths.is_floating_point():
        raise ProgramError(
            f"lengths has shape {tuple(lengths.shape)} and type {lengths.dtype}; expected integers of shape "
            f"{tuple(u.shape[:-2])}."
        )
    if visible(lengths) and lengths.numel() and not 1 <= int(lengths.min()) <= int(lengths.max()) <= length:
        raise ProgramError(
            f"lengths run from {int(lengths.min())} to {int(lengths.max())}; expected 1 to T = {length}."
        )
    real = torch.arange(length, device=u.device) < lengths.to(u.device)[..., None]
    beyond = ~real  # scores there may be anything
    u = u.masked_fill(beyond[..., None], 0.0)
    return u, e if e.ndim == 2 else e.masked_fill(beyond[..., 1:, None, None], 0.0), real
