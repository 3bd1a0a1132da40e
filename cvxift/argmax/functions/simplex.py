"""Softmax, sparsemax and α-entmax: exact, differentiable to any order, O(n) memory.

Any shape; float16, bfloat16 (computed in float32), float32 and float64; masks by −∞ (fully masked rows give zeros).
Derivatives are functions of the output, which is all that is kept.
"""

from __future__ import annotations

from typing import Any

from cvxift.argmax.functions.arguments import order_of, placed, scores_of
from cvxift.argmax.functions.documentation import public
from cvxift.argmax.functions.framework import Framework

Array = Any


@public
def entmax(fw: Framework, x: Array, alpha: Any, dim: int, temperature: Any) -> Array:
    """α-entmax: argmax over the simplex of xᵀz − temperature·Ω_α(z), Ω_α the negative Tsallis entropy.

    Args:
        x: scores of any shape; −∞ masks.
        alpha: order ≥ 1, a number or a tensor (differentiable) that broadcasts against x with size 1 along ``dim``,
            such as one order for each attention head; 1 is softmax, 2 sparsemax.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x.

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
        return softmax(fw, x, dim, temperature)
    x = fw.floating("entmax", x)
    scores = scores_of(fw, "entmax", x, dim, temperature)
    order = order_of(fw, "entmax", alpha, x.shape, dim, scores)
    return placed(fw, fw.entmax(scores, order), dim, x)


@public
def sparsemax(fw: Framework, x: Array, dim: int, temperature: Any) -> Array:
    """Sparsemax: the Euclidean projection of x / temperature onto the simplex.

    Args:
        x: scores of any shape; −∞ masks.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x.

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
    return placed(fw, fw.entmax(scores_of(fw, "sparsemax", x, dim, temperature), 2.0), dim, x)


@public
def softmax(fw: Framework, x: Array, dim: int, temperature: Any) -> Array:
    """Softmax, with zeros for fully masked rows.

    Args:
        x: scores of any shape; −∞ masks.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x.

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
    return placed(fw, fw.softmax(scores_of(fw, "softmax", x, dim, temperature)), dim, x)
