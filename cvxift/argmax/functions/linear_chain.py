"""Linear chains: marginals and log-partition function of a CRF or HMM, best path, and log-likelihood loss.

Derivatives of every order are the recursions of `cvxift.argmax.chain`: log Z has the marginals for its gradient, whose
derivative is one more pass in each direction. Memory is linear in the length. −∞ forbids a state or a transition; the
marginals of a chain without any path are zero, its log Z is −∞. Dtypes below float32 compute in float32.
"""

from __future__ import annotations

from typing import Any

from cvxift._types import Array
from cvxift.argmax.functions.arguments import temperature_of
from cvxift.argmax.functions.documentation import public
from cvxift.argmax.functions.framework import Framework
from cvxift.errors import ProgramError


@public
def linear_chain(
    fw: Framework, unary: Array, pairwise: Array, log_partition: bool, lengths: Any, temperature: Any
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
        >>> states, transitions = linear_chain(torch.zeros((3, 2)), torch.zeros((2, 2)))
        >>> states[0].tolist(), float(transitions[0].sum())
        ([0.5, 0.5], 1.0)
    """
    u, e, real = _prepared(fw, "linear_chain", unary, pairwise, lengths, temperature)
    like = fw.floating("linear_chain", unary, "unary")
    if log_partition:
        return fw.cast(fw.log_partition(u, e, real), like)
    states, pairs = fw.marginals(u, e, real)
    return fw.cast(states, like), fw.cast(pairs, like)


@public
def linear_chain_loss(
    fw: Framework, unary: Array, pairwise: Array, target: Any, lengths: Any, temperature: Any
) -> Array:
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
        >>> round(float(linear_chain_loss(torch.zeros((3, 2)), torch.zeros((2, 2)), torch.tensor([0, 1, 1]))), 4)
        2.0794
    """
    u, e, real = _prepared(fw, "linear_chain_loss", unary, pairwise, lengths, temperature)
    target, xp, states = fw.integers(target, u), fw.xp, u.shape[-1]
    if target.shape != u.shape[:-1] or not fw.is_integer(target):
        raise ProgramError(
            f"target has shape {tuple(target.shape)} and type {target.dtype}; expected integers of shape "
            f"{tuple(u.shape[:-1])}."
        )
    y = xp.where(real, target, xp.zeros_like(target))
    _check_range(fw, "target runs", y, 0, states - 1, f"states 0 to {states - 1}")
    # Both are large for long sequences, and their difference may be small.
    own = fw.widest(fw.take(u, y[..., None])[..., 0])
    score = xp.sum(xp.where(real, own, xp.zeros_like(own)), axis=-1)
    if u.shape[-2] > 1:
        link = states * y[..., :-1] + y[..., 1:]
        if e.ndim == 2:
            links = xp.take(e.reshape((-1,)), link.reshape((-1,)), axis=0).reshape(link.shape)
        else:
            links = fw.take(e.reshape((*e.shape[:-2], states * states)), link[..., None])[..., 0]
        links = fw.widest(links)
        score = score + xp.sum(xp.where(real[..., 1:], links, xp.zeros_like(links)), axis=-1)
    log_z = fw.log_partition(u, e, real)
    # No path at all: as the target's is none, it costs +∞.
    log_z = xp.where(log_z == -xp.inf, xp.zeros_like(log_z), log_z)
    loss = log_z - score
    loss = xp.where(loss < 0, loss - fw.constant(loss), loss)
    return fw.cast(loss * temperature, fw.floating("linear_chain_loss", unary, "unary"))


@public
def viterbi(fw: Framework, unary: Array, pairwise: Array, lengths: Any) -> tuple[Array, Array]:
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
        >>> path, score = viterbi(torch.tensor([[1.0, 0.0], [0.0, 0.5]]), torch.eye(2))
        >>> path.tolist(), float(score)
        ([0, 0], 2.0)
    """
    u, e, real = _prepared(fw, "viterbi", unary, pairwise, lengths, 1.0)
    path, score = fw.best_path(fw.constant(u), fw.constant(e), real)
    return path, fw.cast(score, fw.floating("viterbi", unary, "unary"))


def _prepared(
    fw: Framework, name: str, unary: Any, pairwise: Any, lengths: Any, temperature: Any
) -> tuple[Array, Array, Array]:
    """Scores over temperature and which positions are part of the sequence; transitions (S, S) that are shared stay."""
    unary, pairwise = fw.floating(name, unary, "unary"), fw.floating(name, pairwise, "pairwise")
    if unary.ndim < 2 or 0 in unary.shape[-2:]:
        raise ProgramError(f"unary has shape {tuple(unary.shape)}; expected (..., T, S) with T ≥ 1 and S ≥ 1.")
    length, states = unary.shape[-2:]
    expected = (*unary.shape[:-2], length - 1, states, states)
    if tuple(pairwise.shape) not in ((states, states), expected):
        raise ProgramError(f"pairwise has shape {tuple(pairwise.shape)}; expected {expected} or {(states, states)}.")
    xp, u, e = fw.xp, fw.wider(unary), fw.wider(pairwise)
    kind = xp.result_type(u.dtype, e.dtype)
    u, e = xp.astype(u, kind), xp.astype(e, kind)
    if not isinstance(temperature, (float, int)) or temperature != 1:
        warmth = temperature_of(fw, name, temperature, u, ())
        u, e = u / warmth, e / warmth
    index = fw.arange(length, u)
    if lengths is None:
        return u, e, xp.broadcast_to(index >= 0, u.shape[:-1])
    lengths = fw.integers(lengths, u)
    if lengths.shape != u.shape[:-2] or not fw.is_integer(lengths):
        raise ProgramError(
            f"lengths has shape {tuple(lengths.shape)} and type {lengths.dtype}; expected integers of shape "
            f"{tuple(u.shape[:-2])}."
        )
    _check_range(fw, "lengths run", lengths, 1, length, f"1 to T = {length}")
    real = index < lengths[..., None]
    u = xp.where(real[..., None], u, xp.zeros_like(u))  # scores beyond may be anything
    return u, e if e.ndim == 2 else xp.where(real[..., 1:, None, None], e, xp.zeros_like(e)), real


def _check_range(fw: Framework, what: str, values: Array, low: int, high: int, expected: str) -> None:
    """Refuse integers outside low … high, where they can be seen."""

    def check(values: Array) -> None:
        least, most = int(values.min()), int(values.max())
        if not low <= least <= most <= high:
            raise ProgramError(f"{what} from {least} to {most}; expected {expected}.")

    if 0 not in values.shape:
        fw.look(check, values)
