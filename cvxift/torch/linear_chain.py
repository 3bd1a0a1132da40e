"""Linear chains on tensors: marginals and log-partition function of a CRF or HMM, best path, and log-likelihood loss.

Derivatives of every order are the recursions of `cvxift.argmax.chain`: log Z has the marginals for its gradient, whose
derivative is one more pass in each direction. Memory is linear in the length. −∞ forbids a state or a transition; the
marginals of a chain without any path are zero, its log Z is −∞. Float16 and bfloat16 compute in float32, log Z and the
loss in float64.
"""

from __future__ import annotations

from typing import Any

import torch

from cvxift.errors import ProgramError
from cvxift.torch import chain_rules
from cvxift.torch.tensors import require_floating, temperature_of, visible

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
        return chain_rules.log_partition(u, e, real).to(unary.dtype)
    states, pairs = chain_rules.marginals(u, chain_rules.each(u, e), real)
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
    log_z = chain_rules.log_partition(u, e, real)
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
        path, score = chain_rules.best_path(u, e, real)
    return path, score.to(unary.dtype)


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
