"""Linear chains on tensors: marginals and log-partition function of a CRF or HMM."""

from __future__ import annotations

from typing import Any

import torch

from cvxift.errors import ProgramError

Tensor = torch.Tensor


def linear_chain(unary: Tensor, pairwise: Tensor, log_partition: bool = False) -> Any:
    """Marginals of a linear-chain CRF (or HMM, with log-probabilities as scores), by the log-space forward algorithm.

    The marginals are the gradient of the log-partition function, so one backward pass through the forward recursion is
    the backward recursion; a second differentiates the marginals. Memory is linear in the length.

    Args:
        unary: scores of the states, (..., T, S).
        pairwise: scores of the transitions, (..., T−1, S, S) or (S, S), from row to column.
        log_partition: return log Z instead, whose gradient are the marginals.

    Returns:
        (state marginals (..., T, S), transition marginals (..., T−1, S, S)), or log Z (...).

    Raises:
        ProgramError: the shapes do not fit.

    Source: Lafferty, McCallum, Pereira 2001; Wainwright & Jordan 2008, section 4.1.

    Example:
        >>> import torch
        >>> from cvxift.torch import linear_chain
        >>> states, transitions = linear_chain(torch.zeros(3, 2), torch.zeros(2, 2))
        >>> states[0], transitions[0].sum()
        (tensor([0.5000, 0.5000]), tensor(1.))
    """
    if unary.ndim < 2 or unary.shape[-2] < 1:
        raise ProgramError(f"unary has shape {tuple(unary.shape)}; expected (..., T, S) with T ≥ 1.")
    length, states = unary.shape[-2:]
    expected = (*unary.shape[:-2], length - 1, states, states)
    if pairwise.shape not in ((states, states), torch.Size(expected)):
        raise ProgramError(f"pairwise has shape {tuple(pairwise.shape)}; expected {expected} or {(states, states)}.")
    edges = pairwise.expand(expected)
    if log_partition:
        return _log_partition(unary, edges)
    keep = torch.is_grad_enabled() and (unary.requires_grad or pairwise.requires_grad)
    with torch.enable_grad():
        nodes = unary if unary.requires_grad else unary.detach().requires_grad_()
        links = edges if edges.requires_grad else edges.detach().requires_grad_()
        value = _log_partition(nodes, links).sum()
        grads = torch.autograd.grad(value, (nodes, links), create_graph=keep, allow_unused=True)
    return grads[0], torch.zeros_like(edges) if grads[1] is None else grads[1]


def _log_partition(unary: Tensor, edges: Tensor) -> Tensor:
    message = unary[..., 0, :]
    for t in range(1, unary.shape[-2]):
        message = torch.logsumexp(message.unsqueeze(-1) + edges[..., t - 1, :, :], -2) + unary[..., t, :]
    return torch.logsumexp(message, -1)
