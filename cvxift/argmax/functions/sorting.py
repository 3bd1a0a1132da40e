"""Soft sorting and ranking: projections onto permutahedra, O(n log n), derivatives of any order in O(n).

The framework sorts; the blocks of the isotonic regression are found on the host. In eager calls of tensors that NumPy
can see, it does everything (`cvxift.argmax.soft_order`). Dtypes below float32 compute
in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from cvxift._types import Array
from cvxift.argmax import checks, soft_order
from cvxift.argmax.functions.arguments import check_choice, check_dim, placed, temperature_of
from cvxift.argmax.functions.documentation import public
from cvxift.argmax.functions.framework import Framework
from cvxift.argmax.losses import OFF
from cvxift.errors import ProgramError

REGULARIZERS = ("quadratic", "entropic")


@public
def soft_rank(fw: Framework, x: Array, temperature: Any, regularizer: str, descending: bool, dim: int) -> Array:
    """Soft ranks: the projection of ±x / temperature onto the permutahedron of 1, …, n.

    Args:
        x: finite scores of any shape.
        temperature: > 0, a number or a tensor that broadcasts against x; towards 0 the ranks become hard.
        regularizer: ``"quadratic"`` (sparse derivatives) or ``"entropic"``.
        descending: give rank 1 to the largest score, not to the smallest.
        dim: the dimension that is ranked.

    Returns:
        Ranks between 1 and n (quadratic), of x's shape and dtype.

    Raises:
        ProgramError: scores that are not finite, an integer dtype, temperature ≤ 0, no such dimension or regularizer.
            Values that are traced and cannot be seen give NaN instead.

    Source: Blondel, Teboul, Berthet, Djolonga 2020, section 4.

    Example:
        >>> import torch
        >>> from cvxift.torch import soft_rank
        >>> soft_rank(torch.tensor([10.0, -10.0, 0.0])).tolist(), soft_rank(torch.tensor([0.5, 0.0, 0.25])).tolist()
        ([3.0, 1.0, 2.0], [2.25, 1.75, 2.0])
    """
    rows, warmth = _prepared(fw, "soft_rank", x, temperature, regularizer, dim, x.shape)

    def composed(rows: Array) -> Array:
        s, order = fw.sort(-rows / warmth if descending else rows / warmth)
        projection = fw.permutahedron(s, _countdown(fw, s), regularizer)
        return fw.take(projection, fw.xp.argsort(order, axis=-1))

    return placed(fw, _computed(fw, soft_order.ranks, composed, rows, warmth, regularizer, descending), dim, x)


@public
def soft_sort(fw: Framework, x: Array, temperature: Any, regularizer: str, descending: bool, dim: int) -> Array:
    """Soft sorting: the projection of (n, …, 1) / temperature onto the permutahedron of x.

    Args:
        x: finite values of any shape.
        temperature: > 0, a number or a tensor with size one along ``dim``; towards 0 the order becomes hard, towards ∞
            (quadratic) all values become the mean.
        regularizer: ``"quadratic"`` or ``"entropic"``.
        descending: begin with the largest.
        dim: the dimension that is sorted.

    Returns:
        Sorted values of x's shape and dtype.

    Raises:
        ProgramError: as for `soft_rank`.

    Source: Blondel, Teboul, Berthet, Djolonga 2020, section 4.

    Example:
        >>> import torch
        >>> from cvxift.torch import soft_sort
        >>> soft_sort(torch.tensor([3.0, 1.0, 2.0]), temperature=0.125).tolist()
        [1.0, 2.0, 3.0]
    """
    once = (*x.shape[:dim], 1, *x.shape[dim:][1:])
    rows, warmth = _prepared(fw, "soft_sort", x, temperature, regularizer, dim, once)

    def composed(rows: Array) -> Array:
        w, _ = fw.sort(rows if descending else -rows)
        projection = fw.permutahedron(_countdown(fw, w) / warmth, w, regularizer)
        return projection if descending else -projection

    return placed(fw, _computed(fw, soft_order.values, composed, rows, warmth, regularizer, descending), dim, x)


@public
def rank_loss(fw: Framework, x: Array, target: Any, temperature: Any, descending: bool, dim: int) -> Array:
    """Fenchel–Young loss of quadratic `soft_rank`; its gradient is ±(soft ranks − target), + for ascending ranks.

    Args:
        x: finite scores of any shape.
        target: ranks y of x's shape (a permutation of 1, …, n, or averages of such, to a rounding of bfloat16); no
            gradient flows to them.
        temperature: > 0, a number or a tensor that broadcasts against the loss.
        descending: whether rank 1 is the largest.
        dim: the dimension that is ranked.

    Returns:
        Losses ≥ 0 of x's shape without ``dim``; zero where the soft ranks are the target.

    Raises:
        ProgramError: as for `soft_rank`, the shapes differ, or targets are not from 1 to n or have another sum. Values
            that are traced and cannot be seen give NaN instead.

    Source: Blondel, Martins, Niculae 2020, section 7 (SparseMAP over the permutahedron).

    Example:
        >>> import torch
        >>> from cvxift.torch import rank_loss
        >>> float(rank_loss(torch.tensor([0.0, 5.0, 9.0]), torch.tensor([1.0, 2.0, 3.0])))
        0.0
    """
    wide = fw.widest(fw.floating("rank_loss", x))
    y = fw.constant(fw.array(target, fw.wider(wide)))
    if y.shape != x.shape:
        raise ProgramError(f"target has shape {tuple(y.shape)}; expected that of x, {tuple(x.shape)}.")
    t = fw.array(temperature, wide)
    warmth = temperature if fw.is_number(temperature) else fw.xp.expand_dims(t, axis=dim) if t.ndim else t
    rows, warmth = _prepared(fw, "rank_loss", wide, warmth, "quadratic", dim, wide.shape)
    scores = -rows / warmth if descending else rows / warmth
    z, y = soft_rank(fw, scores, 1.0, "quadratic", False, -1), _ranks(fw, fw.moveaxis(y, dim, -1))
    value = fw.permutahedron_loss(fw.constant(scores), fw.constant(z), y)
    return fw.cast(fw.envelope(scores, z, y, value, 1) * t, x)


def _ranks(fw: Framework, y: Array) -> Array:
    """Targets that are no ranks, whose loss would have another gradient: refused, or NaN where they cannot be seen."""
    xp, n = fw.xp, y.shape[-1]
    if not n:
        return y
    total = n * (n + 1) / 2

    def wrong(y: Array) -> Array:
        within = (xp.min(y, axis=-1) >= 1 - OFF) & (xp.max(y, axis=-1) <= n * (1 + OFF))
        return ~(within & (xp.abs(xp.sum(y, axis=-1) - total) <= OFF * total))

    def check(y: Array) -> None:
        if bool(xp.any(wrong(y))):
            raise ProgramError(
                f"rank_loss got targets that are no ranks: they must lie between 1 and n = {n} and sum to n(n + 1)/2."
            )

    return y if fw.look(check, y) else checks.spoiled(xp, y, wrong(y)[..., None])


def _prepared(
    fw: Framework, name: str, x: Array, temperature: Any, regularizer: str, dim: int, shape: Sequence[int]
) -> tuple[Array, Any]:
    """Scores with the dimension last, in the dtype that is computed in, and a temperature that broadcasts to them.

    Args:
        fw: the framework.
        name: of the function, for messages.
        x: floating scores.
        temperature: a number, or an array that broadcasts to ``shape``.
        regularizer: its name.
        dim: the dimension.
        shape: x's, with or without ``dim``.
    """
    x = fw.floating(name, x)
    check_dim(fw, name, x, dim)
    check_choice(name, "regularizer", regularizer, REGULARIZERS)
    scores = fw.wider(x)
    warmth = temperature_of(fw, name, temperature, scores, shape)
    if dim in (-1, x.ndim - 1):
        return scores, warmth
    if not fw.is_number(warmth) and warmth.ndim:
        warmth = fw.moveaxis(warmth.reshape((1,) * (x.ndim - warmth.ndim) + tuple(warmth.shape)), dim, -1)
    return fw.moveaxis(scores, dim, -1), warmth


def _computed(
    fw: Framework,
    rows_map: Callable[..., Any],
    composed: Callable[[Array], Array],
    rows: Array,
    warmth: Any,
    regularizer: str,
    descending: bool,
) -> Array:
    """A map of rows by NumPy in eager calls at one temperature, or in operations of the framework."""
    if not fw.is_number(warmth):
        return composed(rows)
    return fw.eager(
        partial(rows_map, temperature=warmth, regularizer=regularizer, descending=descending), composed, rows
    )


def _countdown(fw: Framework, like: Array) -> Array:
    """n, …, 1 along the last axis."""
    n = like.shape[-1]
    return fw.xp.broadcast_to(n - fw.arange(n, like), like.shape)
