"""Derivatives of the argmax maps, as functions of what is kept of a call; each adapter makes a rule of its own of them.

    push   directions of the inputs ↦ directions of the outputs (forward mode)
    pull   cotangents of the outputs ↦ cotangents of the inputs (reverse mode)

Both are written in operations that the framework differentiates again, so that they give every order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import array_api_compat

from cvxift._types import Array
from cvxift.argmax import losses, polytope, tsallis
from cvxift.argmax.groups import ROWS, Groups

Moves = Sequence[Any]  # one array for each input or output, or None: it does not move


@dataclass(frozen=True, eq=False)
class Derivative:
    """Of a map of arrays, and options that are no arrays.

    Attributes:
        push: (kept, directions, options) ↦ directions of the outputs that have any, which are the first.
        pull: (kept, cotangents of those outputs, options, which inputs' are wanted) ↦ cotangents of the inputs, before
            they are summed over the axes along which the inputs broadcast.
        outputs: how many outputs have derivatives.
        keep_outputs: whether these outputs are kept.
        keep_inputs: indices of the inputs that are kept, after the outputs.
        broadcast: indices of inputs that broadcast against the others, with as many axes.
    """

    push: Callable[[Moves, Moves, Sequence[Any]], tuple[Any, ...]]
    pull: Callable[[Moves, Moves, Sequence[Any], Sequence[bool]], tuple[Any, ...]]
    outputs: int = 1
    keep_outputs: bool = True
    keep_inputs: tuple[int, ...] = ()
    broadcast: tuple[int, ...] = ()


Segments = Callable[[Array, int], Groups]


def of_entmax(order: bool, segments: Segments | None = None) -> Derivative:
    """Of z = α-entmax(x), whose Jacobian in x is symmetric.

    Args:
        order: whether the inputs are (x, α); else α is the first option, and has no derivative.
        segments: makes groups of the last input, their ids, and the last option, their number; None for rows.
    """

    def parts(kept: Moves, options: Sequence[Any]) -> tuple[Array, Any, Groups]:
        groups = segments(kept[-1], options[-1]) if segments else ROWS
        return kept[0], kept[1] if order else options[0], groups

    def push(kept: Moves, moves: Moves, options: Sequence[Any]) -> tuple[Any]:
        z, alpha, groups = parts(kept, options)
        dz = None if moves[0] is None else tsallis.derivative(z, moves[0], alpha, groups)
        if not order or moves[1] is None:
            return (dz,)
        return (_plus(dz, groups.spread(moves[1]) * tsallis.order_derivative(z, alpha, groups)),)

    def pull(kept: Moves, bars: Moves, options: Sequence[Any], wanted: Sequence[bool]) -> tuple[Any, ...]:
        z, alpha, groups = parts(kept, options)
        grads = [tsallis.derivative(z, bars[0], alpha, groups) if wanted[0] else None]
        if order:
            grads.append(groups.sum(bars[0] * tsallis.order_derivative(z, alpha, groups)) if wanted[1] else None)
        return (*grads, None) if segments else tuple(grads)

    kept = range(1, 1 + order + (segments is not None))
    return Derivative(push, pull, keep_inputs=tuple(kept), broadcast=(1,) if order and segments is None else ())


def of_entmax_loss(entmax: Callable[..., Array], order: bool, segments: Segments | None = None) -> Derivative:
    """Of α-entmax's loss, one value for each group, of (θ, y); its prediction is computed anew, to be differentiated.

    Args:
        entmax: the prediction from θ, α, and ids and number of segments.
        order: whether α is the third input; else it is the first option, and has no derivative.
        segments: makes groups of the last input, their ids, and the last option, their number; None for rows.
    """

    def parts(kept: Moves, options: Sequence[Any]) -> tuple[Array, Array, Any, Groups]:
        theta, y, alpha = kept[0], kept[1], kept[2] if order else options[0]
        if segments is None:
            return y, entmax(theta, alpha), alpha, ROWS
        return y, entmax(theta, alpha, kept[-1], options[-1]), alpha, segments(kept[-1], options[-1])

    def push(kept: Moves, moves: Moves, options: Sequence[Any]) -> tuple[Any]:
        y, z, alpha, groups = parts(kept, options)
        change = None if moves[0] is None else groups.sum((z - y) * moves[0])
        if not order or moves[2] is None:
            return (change,)
        return (_plus(change, moves[2] * losses.order_derivative(y, z, alpha, groups)),)

    def pull(kept: Moves, bars: Moves, options: Sequence[Any], wanted: Sequence[bool]) -> tuple[Any, ...]:
        y, z, alpha, groups = parts(kept, options)
        grads = [groups.spread(bars[0]) * (z - y), None]
        if order:
            grads.append(bars[0] * losses.order_derivative(y, z, alpha, groups) if wanted[2] else None)
        return (*grads, None) if segments else tuple(grads)

    kept = range(2 + order + (segments is not None))
    broadcast = (2,) if order and segments is None else ()
    return Derivative(push, pull, keep_outputs=False, keep_inputs=tuple(kept), broadcast=broadcast)


def _push_transport(kept: Moves, moves: Moves, options: Sequence[Any]) -> tuple[Any]:
    z = kept[0]
    xp = array_api_compat.array_namespace(z)
    still = (z, z[..., :, 0], z[..., 0, :])
    full = [xp.zeros_like(like) if move is None else move for move, like in zip(moves, still)]
    return (polytope.pushforward(_weights(z, options[0]), *full),)


def _pull_transport(kept: Moves, bars: Moves, options: Sequence[Any], _: Sequence[bool]) -> tuple[Any, ...]:
    return polytope.pullback(_weights(kept[0], options[0]), bars[0])


def _weights(z: Array, regularizer: str) -> Array:
    return z if regularizer == "entropic" else array_api_compat.array_namespace(z).astype(z > 0, z.dtype)


# The plan z of (x, a, b), its regularizer the first option; the level beside it has no derivative.
TRANSPORT = Derivative(_push_transport, _pull_transport)


def _push_envelope(kept: Moves, moves: Moves, options: Sequence[Any]) -> tuple[Any]:
    z, y = kept
    return (None if moves[0] is None else _inner(z - y, moves[0], options[0]),)


def _pull_envelope(kept: Moves, bars: Moves, options: Sequence[Any], _: Sequence[bool]) -> tuple[Any, ...]:
    z, y = kept
    return bars[0][(..., *[None] * options[0])] * (z - y), None, None, None


# The value of (x, z, y, value), a difference of an optimal value and a given score,
#     L(x) = max_z {⟨x, z⟩ − Ω(z)} − ⟨x, y⟩ + Ω(y):
# the gradient is z − y, prediction minus target, and the second derivative ∂z/∂x. The option: how many axes z has.
ENVELOPE = Derivative(_push_envelope, _pull_envelope, keep_outputs=False, keep_inputs=(1, 2))


def of_log_partition(marginals: Callable[[Array, Array, Array], tuple[Array, ...]]) -> Derivative:
    """log Z's of (unary, pairwise, real), whose gradient are the marginals."""

    def push(kept: Moves, moves: Moves, _: Sequence[Any]) -> tuple[Any]:
        states, pairs = marginals(*kept)
        own = None if moves[0] is None else _inner(states, moves[0], 2)
        return (own if moves[1] is None else _plus(own, _inner(pairs, moves[1], 3)),)

    def pull(kept: Moves, bars: Moves, _: Sequence[Any], wanted: Sequence[bool]) -> tuple[Any, ...]:
        states, pairs = marginals(*kept)
        bar = array_api_compat.array_namespace(states).astype(bars[0], states.dtype)
        return bar[..., None, None] * states, bar[..., None, None, None] * pairs, None

    return Derivative(push, pull, keep_outputs=False, keep_inputs=(0, 1, 2))


def of_marginals(derivative: Callable[..., tuple[Array, ...]]) -> Derivative:
    """The marginals' of (unary, pairwise, real): the Hessian of log Z, symmetric."""

    def push(kept: Moves, moves: Moves, _: Sequence[Any]) -> tuple[Any, ...]:
        return derivative(*kept, *_full(kept, moves))

    def pull(kept: Moves, bars: Moves, _: Sequence[Any], wanted: Sequence[bool]) -> tuple[Any, ...]:
        return (*derivative(*kept, *_full(kept, bars)), None)

    return Derivative(push, pull, outputs=2, keep_outputs=False, keep_inputs=(0, 1, 2))


def _full(like: Moves, moves: Moves) -> list[Any]:
    """Two directions, zeros for None."""
    xp = array_api_compat.array_namespace(like[0])
    return [xp.zeros_like(x) if move is None else move for x, move in zip(like[:2], moves)]


def _plus(first: Any, second: Any) -> Any:
    return second if first is None else first + second


def _inner(x: Array, y: Array, axes: int = 1) -> Array:
    """⟨x, y⟩ along the last axes."""
    xp = array_api_compat.array_namespace(x)
    return xp.sum(x * y, axis=tuple(range(-axes, 0))) if axes else x * y
