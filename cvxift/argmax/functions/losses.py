"""Fenchel–Young losses: gradient = prediction − target, the argmax itself not differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cvxift._types import Array
from cvxift.argmax import checks
from cvxift.argmax.functions.arguments import order_of, scores_of
from cvxift.argmax.functions.documentation import public
from cvxift.argmax.functions.framework import Framework
from cvxift.argmax.functions.ragged import NONE, Given, Ragged, is_ragged
from cvxift.errors import ProgramError


@public
def fenchel_young_loss(
    fw: Framework, theta: Array, target: Array, alpha: Any, dim: int, temperature: Any, groups: Given = NONE
) -> Array:
    """Fenchel–Young loss of α-entmax: Ω*(θ) + Ω(y) − θᵀy, with gradient entmax(θ) − y.

    Args:
        theta: scores of any shape; −∞ masks.
        target: distributions y of θ's shape, ≥ 0 with sums of 1 (of 0 where all scores are −∞), to a rounding of
            bfloat16; no gradient flows to them.
        alpha: order ≥ 1, a number or a tensor as for `entmax`; 1 is the cross-entropy with logits minus the target's
            entropy, 2 the sparsemax loss.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against θ; the loss is that of θ/temperature.
        segments: groups of unequal length, as for `entmax`.
        offsets: as for `entmax`.
        num_segments: as for `entmax`.

    Returns:
        Losses ≥ 0 of θ's shape without ``dim``, differentiable in θ, alpha and the temperature; of groups, one for each
        along ``dim``, 0 where a group is empty.

    Raises:
        ProgramError: as for `entmax`, the shapes differ, or targets are no distributions. Values that are traced and
            cannot be seen give NaN instead.

    Source: Blondel, Martins, Niculae 2020, Definition 2 and Proposition 2.

    Example:
        >>> import torch
        >>> from cvxift.torch import fenchel_young_loss
        >>> float(fenchel_young_loss(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]), alpha=2))
        0.0
    """
    name = "fenchel_young_loss"
    theta = fw.floating(name, theta)
    if is_ragged(groups):
        ragged = Ragged(fw, name, theta, dim, groups)
        scores = ragged.scores(theta, temperature)
        y = ragged.flat(target_of(fw, name, theta, target, scores))
        order = ragged.of_groups("alpha", alpha, scores, checks.ORDER)
        return ragged.placed_groups(fw.segment_loss(scores, y, order, ragged.ids, ragged.number), theta)
    scores = scores_of(fw, name, theta, dim, temperature)
    y = target_of(fw, name, theta, target, scores)
    order = order_of(fw, name, alpha, theta.shape, dim, scores)
    if 0 in scores.shape:
        return fw.cast(fw.xp.sum(scores, axis=-1), theta)  # keeps its graph
    return fw.cast(fw.entmax_loss(scores, y if dim == -1 else fw.moveaxis(y, dim, -1), order), theta)


@public
def argmax_loss(
    fw: Framework,
    theta: Array,
    target: Array,
    prediction: Callable[[Array], Array],
    regularizer: Callable[[Array], Array],
    dims: int,
) -> Array:
    """Fenchel–Young loss of any regularized argmax z*(θ) = argmax { ⟨θ, z⟩ − Ω(z) : z ∈ C }, with gradient z*(θ) − y.

    The argmax may be any of the maps here, or a `CvxpyLayer` of a problem from `cvxift.argmax` or of one's own; it is
    evaluated, and differentiated only for second derivatives.

    Args:
        theta: scores, (..., *shape of z).
        target: points y of C of θ's shape; no gradient flows to them.
        prediction: θ ↦ z*(θ), of θ's shape.
        regularizer: z ↦ Ω(z), for a batch: the last ``dims`` dimensions are summed away.
        dims: number of dimensions of z.

    Returns:
        Losses Ω*(θ) + Ω(y) − ⟨θ, y⟩ ≥ 0, one for each target.

    Raises:
        ProgramError: shapes differ.

    Source: Blondel, Martins, Niculae 2020, Definition 2.

    Example:
        >>> import torch
        >>> from cvxift.torch import argmax_loss, budget
        >>> theta, target = torch.tensor([3.0, 0.5, 0.25, -2.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
        >>> loss = argmax_loss(theta, target, lambda t: budget(t, 2.0), lambda z: 0.5 * (z**2).sum(-1))
        >>> float(loss)
        0.140625
    """
    theta = fw.floating("argmax_loss", theta)
    y = target_of(fw, "argmax_loss", theta, target, theta)
    word = f"{fw.DIM}s" if fw.DIM == "dim" else "axes"
    if isinstance(dims, bool) or not isinstance(dims, int) or not 0 <= dims <= theta.ndim:
        raise ProgramError(f"argmax_loss got {word} = {dims}; expected 0 to {theta.ndim}, the {word} of theta.")
    z = prediction(theta)
    if z.shape != theta.shape:
        raise ProgramError(
            f"argmax_loss: prediction returned shape {tuple(z.shape)}; expected theta's, {tuple(theta.shape)}."
        )
    xp, own, scores = fw.xp, fw.constant(z), fw.constant(theta)
    nothing = xp.zeros_like(scores)
    held = xp.where(own != 0, scores, nothing) * own - xp.where(y != 0, scores, nothing) * y
    value = xp.sum(held, axis=tuple(range(-dims, 0))) if dims else held
    gap = fw.constant(regularizer(y) - regularizer(own))
    if gap.shape != value.shape:
        raise ProgramError(
            f"argmax_loss: regularizer returned shape {tuple(gap.shape)}; expected {tuple(value.shape)}, one value for"
            f" each target: sum over the last {dims} {word}."
        )
    return fw.envelope(theta, z, y, value + gap, dims)


def target_of(fw: Framework, name: str, theta: Array, target: Any, like: Array) -> Array:
    """The target without derivative, in the dtype of ``like``; refused where its shape is not θ's."""
    y = fw.constant(fw.array(target, like))
    if y.shape != theta.shape:
        raise ProgramError(f"{name}: target has shape {tuple(y.shape)}; expected theta's, {tuple(theta.shape)}.")
    return y
