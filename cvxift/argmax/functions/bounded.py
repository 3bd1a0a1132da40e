"""Argmax maps under bounds: budget, constrained sparsemax, constrained softmax, box.

Which entries stand at their bounds is found without a derivative; given that, the maps are affine or a softmax, and
their derivatives, of any order and in the scores, bounds and sums, are the framework's own. Computed in float64 where
the device has it, whatever the dtype: bounds and sums are met to the rounding of the result.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from cvxift._types import Array
from cvxift.argmax import checks
from cvxift.argmax.functions.arguments import bound_of, check_choice, placed, scores_of, temperature_of
from cvxift.argmax.functions.documentation import public
from cvxift.argmax.functions.framework import Framework
from cvxift.argmax.functions.ragged import NONE, Given, Ragged, is_ragged

REGULARIZERS = ("entropic", "quadratic")


@public
def budget(
    fw: Framework,
    x: Array,
    total: Any,
    lower: Any,
    upper: Any,
    dim: int,
    temperature: Any,
    groups: Given = NONE,
) -> Array:
    """Projection of x / temperature onto {l ≤ z ≤ u, Σ z = total}: soft choice of ``total`` entries, within bounds.

    Args:
        x: scores of any shape; an entry at −∞ is masked: it stands at its lower bound, and so do all, whatever the
            total, where a whole row is masked.
        total: required sum; a number, or a tensor of x's shape with size one along ``dim``.
        lower: finite lower bounds, broadcast against x.
        upper: upper bounds, broadcast against x; may be +∞.
        dim: the dimension that is summed.
        temperature: > 0, a number or a tensor that broadcasts against x; over groups, a number or one for each.
        segments: the group of each entry along ``dim``, integers ≥ 0 in any order: sums are over groups of unequal
            length instead, ``total`` a number or one for each; bounds are for each entry, or of shape (G, 1).
        offsets: instead of segments, where each group begins and the last one ends, (G + 1,) from 0 to the length.
        num_segments: G, the number of groups; None for the largest id plus 1. Needed where ids are traced.

    Returns:
        z of x's shape; differentiable in x, total, the bounds and the temperature.

    Raises:
        ProgramError: the set is empty, bounds cross, temperature ≤ 0, an integer dtype, NaN or +∞ scores. Values that
            are traced and cannot be seen give NaN instead.

    Source: Brucker 1984 (continuous quadratic knapsack).

    Example:
        >>> import torch
        >>> from cvxift.torch import budget
        >>> budget(torch.tensor([3.0, 0.5, 0.25, -2.0]), total=2.0).tolist()
        [1.0, 0.625, 0.375, 0.0]
    """
    x = fw.floating("budget", x)
    if is_ragged(groups):
        ragged = Ragged(fw, "budget", x, dim, groups)
        scores = fw.widest(ragged.scores(x, temperature))
        need = ragged.of_groups("total", fw.array(total, scores), scores)
        low, high = (
            ragged.of_entries(argument, bound, scores) for argument, bound in (("lower", lower), ("upper", upper))
        )
        if 0 in x.shape:
            return x
        return ragged.placed(fw.segment_budget(scores, need, low, high, ragged.ids, ragged.number), x)
    scores = scores_of(fw, "budget", x, dim, temperature)
    wide = fw.widest(scores)
    low = bound_of(fw, "budget", "lower", lower, wide, x.shape, dim)
    high = bound_of(fw, "budget", "upper", upper, wide, x.shape, dim)
    if low.shape[-1] != high.shape[-1]:
        low, high = (fw.xp.broadcast_to(bound, scores.shape) for bound in (low, high))
    whole = list(x.shape)
    whole[dim] = 1
    need = bound_of(fw, "budget", "total", total, wide, whole, dim)
    if 0 in x.shape:
        return x  # keeps its graph
    return placed(fw, fw.budget(scores, need, low, high), dim, x)


@public
def constrained_sparsemax(fw: Framework, x: Array, upper: Any, dim: int, temperature: Any) -> Array:
    """Sparsemax under upper bounds: argmax over {0 ≤ z ≤ u, Σ z = 1} of xᵀz − ½ temperature·‖z‖².

    Args:
        x: scores; −∞ masks.
        upper: upper bounds, broadcast against x.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x.

    Returns:
        Distributions of x's shape; zero for fully masked rows; differentiable in x, the bounds and the temperature.

    Raises:
        ProgramError: the bounds sum to less than 1; otherwise as for `budget`.

    Source: Malaviya, Ferreira, Martins 2018.

    Example:
        >>> import torch
        >>> from cvxift.torch import constrained_sparsemax
        >>> constrained_sparsemax(torch.tensor([3.0, 1.0, 0.0]), 0.5).tolist()
        [0.5, 0.5, 0.0]
    """
    return budget(fw, x, 1.0, 0.0, upper, dim, temperature)


@public
def constrained_softmax(fw: Framework, x: Array, upper: Any, dim: int, temperature: Any) -> Array:
    """Softmax under upper bounds: argmax over {0 ≤ z ≤ u, Σ z = 1} of xᵀz − temperature·Σ z log z.

    Args:
        x: scores; −∞ masks.
        upper: nonnegative upper bounds, broadcast against x; may be +∞.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x.

    Returns:
        Distributions of x's shape; zero for fully masked rows; differentiable in x, the bounds and the temperature.

    Raises:
        ProgramError: the bounds are negative or sum to less than 1; otherwise as for `budget`.

    Source: Martins & Kreutzer 2017.

    Example:
        >>> import torch
        >>> from cvxift.torch import constrained_softmax
        >>> constrained_softmax(torch.tensor([3.0, 0.0, 0.0]), 0.5).tolist()
        [0.5, 0.25, 0.25]
    """
    name = "constrained_softmax"
    x = fw.floating(name, x)
    scores = fw.widest(scores_of(fw, name, x, dim, temperature))
    high = bound_of(fw, name, "upper", upper, scores, x.shape, dim)
    if 0 in x.shape:
        return x
    return placed(fw, fw.capped_softmax(scores, fw.xp.broadcast_to(high, scores.shape)), dim, x)


@public
def box(fw: Framework, x: Array, lower: Any, upper: Any, temperature: Any, regularizer: str) -> Array:
    """Argmax over a box of xᵀz − temperature·Ω(z): sigmoids, or clipped scores.

    Args:
        x: scores of any shape; −∞ gives the lower bound, +∞ the upper.
        lower: finite lower bounds, broadcast against x.
        upper: finite upper bounds ≥ lower, broadcast against x.
        temperature: > 0, a number or a tensor that broadcasts against x.
        regularizer: ``"entropic"``, Ω = Σ (z−l) log(z−l) + (u−z) log(u−z), or ``"quadratic"``, Ω = ½‖z‖².

    Returns:
        z = l + (u − l)/(1 + exp(−x/temperature)), or clip(x/temperature, l, u); of x's shape and dtype.

    Raises:
        ProgramError: bounds cross, temperature ≤ 0, an integer dtype, NaN scores, an unknown regularizer. Values that
            are traced and cannot be seen give NaN instead.

    Source: Blondel, Martins, Niculae 2020, section 6.

    Example:
        >>> import torch
        >>> from cvxift.torch import box
        >>> box(torch.tensor([0.0])).tolist(), box(torch.tensor([0.25, 2.0]), regularizer="quadratic").tolist()
        ([0.5], [0.25, 1.0])
    """
    check_choice("box", "regularizer", regularizer, REGULARIZERS)
    x = fw.floating("box", x)
    xp, scores = fw.xp, fw.wider(x)
    scores = scores / temperature_of(fw, "box", temperature, scores)
    low = bound_of(fw, "box", "lower", lower, scores, x.shape, -1)
    high = bound_of(fw, "box", "upper", upper, scores, x.shape, -1)
    if regularizer == "quadratic":
        z = xp.minimum(xp.maximum(scores, low), high)
    else:
        z = low + (high - low) * fw.sigmoid(scores)
    if not fw.look(partial(checks.check_box, "box"), scores, low, high):
        z = checks.spoiled(xp, z, checks.out_of_box(xp, scores, low, high))
    return fw.cast(z, x)
