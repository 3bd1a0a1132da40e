"""Softmax, sparsemax and α-entmax: exact, differentiable to any order, O(n) memory.

Any shape; float16, bfloat16 (computed in float32), float32 and float64; masks by −∞ (fully masked rows give zeros).
Derivatives are functions of the output, which is all that is kept.
"""

from __future__ import annotations

from typing import Any

from cvxift._types import Array
from cvxift.argmax import checks
from cvxift.argmax.functions.arguments import order_of, placed, scores_of
from cvxift.argmax.functions.documentation import public
from cvxift.argmax.functions.framework import Framework
from cvxift.argmax.functions.ragged import NONE, Given, Ragged, is_ragged


@public
def entmax(fw: Framework, x: Array, alpha: Any, dim: int, temperature: Any, groups: Given = NONE) -> Array:
    """α-entmax: argmax over the simplex of xᵀz − temperature·Ω_α(z), Ω_α the negative Tsallis entropy.

    Args:
        x: scores of any shape; −∞ masks.
        alpha: order ≥ 1, a number or a tensor (differentiable) that broadcasts against x with size 1 along ``dim``,
            such as one order for each attention head; over groups, one for each. 1 is softmax, 2 sparsemax.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x; over groups, a number or one for each.
        segments: the group of each entry along ``dim``, integers ≥ 0 in any order: distributions lie over groups of
            unequal length instead. Groups may be empty.
        offsets: instead of segments, where each group begins and the last one ends, (G + 1,) from 0 to the length.
        num_segments: G, the number of groups; None for the largest id plus 1. Needed where ids are traced.

    Returns:
        Distributions of x's shape and dtype.

    Raises:
        ProgramError: α < 1, temperature ≤ 0, an integer dtype, no such dimension, NaN or +∞ scores. Values that are
            traced and cannot be seen give NaN instead.

    Source: Peters, Niculae, Martins 2019; ∂/∂α: Correia, Niculae, Martins 2019.

    Example:
        >>> import torch
        >>> from cvxift.torch import entmax
        >>> entmax(torch.tensor([1.0, 1.0, -3.0, -float("inf")])).round(decimals=4).tolist()
        [0.5, 0.5, 0.0, 0.0]
    """
    if fw.is_number(alpha) and alpha == 1:
        return softmax(fw, x, dim, temperature, groups)
    x = fw.floating("entmax", x)
    if is_ragged(groups):
        return _ragged(fw, "entmax", x, alpha, dim, temperature, groups)
    scores = scores_of(fw, "entmax", x, dim, temperature)
    order = order_of(fw, "entmax", alpha, x.shape, dim, scores)
    return placed(fw, fw.entmax(scores, order), dim, x)


@public
def sparsemax(fw: Framework, x: Array, dim: int, temperature: Any, groups: Given = NONE) -> Array:
    """Sparsemax: the Euclidean projection of x / temperature onto the simplex.

    Args:
        x: scores of any shape; −∞ masks.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x; over groups, a number or one for each.
        segments: the group of each entry along ``dim``, integers ≥ 0 in any order: distributions lie over groups of
            unequal length instead. Groups may be empty.
        offsets: instead of segments, where each group begins and the last one ends, (G + 1,) from 0 to the length.
        num_segments: G, the number of groups; None for the largest id plus 1. Needed where ids are traced.

    Returns:
        Distributions of x's shape and dtype.

    Raises:
        ProgramError: temperature ≤ 0, an integer dtype, no such dimension, NaN or +∞ scores. Values that are traced
            and cannot be seen give NaN instead.

    Source: Martins & Astudillo 2016.

    Example:
        >>> import torch
        >>> from cvxift.torch import sparsemax
        >>> sparsemax(torch.tensor([0.5, 0.25, -1.0])).tolist()
        [0.625, 0.375, 0.0]
    """
    x = fw.floating("sparsemax", x)
    if is_ragged(groups):
        return _ragged(fw, "sparsemax", x, 2.0, dim, temperature, groups)
    return placed(fw, fw.entmax(scores_of(fw, "sparsemax", x, dim, temperature), 2.0), dim, x)


@public
def softmax(fw: Framework, x: Array, dim: int, temperature: Any, groups: Given = NONE) -> Array:
    """Softmax, with zeros for fully masked rows.

    Args:
        x: scores of any shape; −∞ masks.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x; over groups, a number or one for each.
        segments: the group of each entry along ``dim``, integers ≥ 0 in any order: distributions lie over groups of
            unequal length instead. Groups may be empty.
        offsets: instead of segments, where each group begins and the last one ends, (G + 1,) from 0 to the length.
        num_segments: G, the number of groups; None for the largest id plus 1. Needed where ids are traced.

    Returns:
        Distributions of x's shape and dtype.

    Raises:
        ProgramError: temperature ≤ 0, an integer dtype, no such dimension, NaN or +∞ scores. Values that are traced
            and cannot be seen give NaN instead.

    Source: Boltzmann 1868.

    Example:
        >>> import torch
        >>> from cvxift.torch import softmax
        >>> softmax(torch.tensor([[0.0, 0.0], [-float("inf"), -float("inf")]])).tolist()
        [[0.5, 0.5], [0.0, 0.0]]
    """
    x = fw.floating("softmax", x)
    if is_ragged(groups):
        return _ragged(fw, "softmax", x, 1.0, dim, temperature, groups)
    return placed(fw, fw.softmax(scores_of(fw, "softmax", x, dim, temperature)), dim, x)


def _ragged(fw: Framework, name: str, x: Array, alpha: Any, dim: int, temperature: Any, given: Given) -> Array:
    ragged = Ragged(fw, name, x, dim, given)
    scores = ragged.scores(x, temperature)
    order = ragged.of_groups("alpha", alpha, scores, checks.ORDER)
    return ragged.placed(fw.segment_entmax(scores, order, ragged.ids, ragged.number), x)
