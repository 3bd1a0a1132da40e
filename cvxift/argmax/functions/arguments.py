"""Arguments of the argmax functions: checked, broadcast, and laid out along the last axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from cvxift._types import Array
from cvxift.argmax import checks
from cvxift.argmax.functions.framework import Framework
from cvxift.errors import ProgramError


def scores_of(fw: Framework, name: str, x: Array, dim: int, temperature: Any = 1.0) -> Array:
    """Scores over temperature with ``dim`` last, in float32 at least.

    Where there is a temperature, the rows' maxima are subtracted first: large scores do not overflow.

    Args:
        fw: the framework.
        name: of the function, for messages.
        x: floating scores.
        dim: dimension of the rows.
        temperature: > 0, a number or an array that broadcasts against x.

    Raises:
        ProgramError: no such dimension, temperature not positive.
    """
    check_dim(fw, name, x, dim)
    scores = fw.wider(x)
    last = dim in (-1, x.ndim - 1)
    if not fw.KERNELS_LOOK:
        fw.look(partial(checks.check_scores, name), scores if last else fw.moveaxis(scores, dim, -1))
    if isinstance(temperature, (float, int)) and temperature == 1:
        return scores if last else fw.moveaxis(scores, dim, -1)
    warmth = temperature_of(fw, name, temperature, scores)
    if x.shape[dim]:
        top = fw.xp.max(fw.constant(scores), axis=dim, keepdims=True)
        scores = scores - fw.xp.where(top == -fw.xp.inf, fw.xp.zeros_like(top), top)
    scores = scores / warmth
    return scores if last else fw.moveaxis(scores, dim, -1)


def placed(fw: Framework, z: Array, dim: int, x: Array) -> Array:
    """Rows along the last axis as results for x: along ``dim``, in its dtype."""
    return fw.cast(z if dim == -1 else fw.moveaxis(z, -1, dim), x)


def check_dim(fw: Framework, name: str, x: Array, dim: Any) -> None:
    """Refuse what is no dimension of the scores."""
    if isinstance(dim, bool) or not isinstance(dim, int) or not -x.ndim <= dim < x.ndim:
        raise ProgramError(f"{name} got {fw.DIM} = {dim}, but the scores have shape {tuple(x.shape)}.")


def check_choice(name: str, argument: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse a word that is none of the choices."""
    if value not in choices:
        raise ProgramError(f"{name} got {argument} = {value!r}; expected {' or '.join(map(repr, choices))}.")


def temperature_of(
    fw: Framework, name: str, temperature: Any, scores: Array, shape: Sequence[int] | None = None
) -> Any:
    """The temperature, a number or in the scores' dtype; see `checks.guarded`.

    Args:
        fw: the framework.
        name: of the function, for messages.
        temperature: > 0, a number or an array.
        scores: whose temperature it is.
        shape: to which it must broadcast, None for the scores'.
    """
    if fw.is_number(temperature):
        checks.check_number(name, checks.TEMPERATURE, temperature)
        return float(temperature) if isinstance(temperature, (float, int)) else temperature
    warmth = fw.array(temperature, scores)
    check_broadcastable(name, "temperature", warmth, scores.shape if shape is None else shape)
    return fw.guarded(name, checks.TEMPERATURE, warmth)


def order_of(fw: Framework, name: str, alpha: Any, shape: Sequence[int], dim: int, like: Array) -> Any:
    """The order as a float, or as an array of the scores' rank whose last axis, their ``dim``, has size one."""
    if fw.is_number(alpha):
        checks.check_number(name, checks.ORDER, alpha)
        return float(alpha)
    order = fw.array(alpha, like)
    if not fw.KERNELS_LOOK or fw.visible(order):
        order = fw.guarded(name, checks.ORDER, order)
    check_broadcastable(name, "alpha", order, shape)
    order = fw.moveaxis(order.reshape((1,) * (len(shape) - order.ndim) + tuple(order.shape)), dim, -1)
    if order.shape[-1] != 1:
        raise ProgramError(
            f"{name} got alpha of shape {tuple(alpha.shape)}; it must have size 1 along {fw.DIM} = {dim}."
        )
    return order


def bound_of(fw: Framework, name: str, argument: str, bound: Any, like: Array, shape: Sequence[int], dim: int) -> Array:
    """A bound broadcast to the scores' own shape, ``dim`` last; a size of one along ``dim`` stays.

    Args:
        fw: the framework.
        name: of the function, for messages.
        argument: what the bound is called.
        bound: a number or an array.
        like: an array of the dtype that is computed in.
        shape: the scores', before ``dim`` was moved.
        dim: dimension of the rows.
    """
    array = fw.array(bound, like)
    check_broadcastable(name, argument, array, shape)
    if not shape:
        return array
    array = array.reshape((1,) * (len(shape) - array.ndim) + tuple(array.shape))
    target = list(shape)
    target[dim] = array.shape[dim]
    full = fw.xp.broadcast_to(array, tuple(target))
    return full if dim in (-1, len(shape) - 1) else fw.moveaxis(full, dim, -1)


def check_broadcastable(name: str, argument: str, array: Array, shape: Sequence[int]) -> None:
    """Refuse what does not broadcast to the shape."""
    if not broadcasts(array.shape, shape):
        raise ProgramError(
            f"{name}: {argument} has shape {tuple(array.shape)}, which does not broadcast to {tuple(shape)}."
        )


def broadcasts(own: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether an array of that own shape can be expanded to the shape."""
    # Not `mine in (1, size)`: a compiler's symbolic sizes know equality, not membership.
    pairs = zip(reversed(own), reversed(shape))
    return len(own) <= len(shape) and all(mine == 1 or mine == size for mine, size in pairs)
