"""Control flow for array-API code that must also run inside compiled programs.

The closed forms iterate through a ``Loop`` or a ``Scan`` that the caller may choose: the ones here are plain Python
(NumPy, PyTorch); JAX passes `jax.lax.while_loop` and `jax.lax.scan`, whose signatures they share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cvxift._types import namespace

State = Any
Loop = Callable[[Callable[[State], Any], Callable[[State], State], State], State]
Scan = Callable[[Callable[[Any, Any], tuple[Any, Any]], Any, Any], tuple[Any, Any]]

# Steps of a search that halves its interval at least every second time: 2⁻¹⁰⁰ of it is rounding in any dtype.
LIMIT = 200


def while_loop(condition: Callable[[State], Any], body: Callable[[State], State], state: State) -> State:
    """Apply ``body`` to ``state`` while ``condition(state)``, a 0-d array, holds.

    Example:
        >>> import numpy as np
        >>> int(while_loop(lambda x: x < 10, lambda x: 2 * x, np.array(1)))
        16
    """
    while bool(condition(state)):
        state = body(state)
    return state


def repeat(number: int, body: Callable[[State], State], state: tuple[Any, ...], loop: Loop) -> tuple[Any, ...]:
    """Apply ``body`` a number of times; a compiled loop has it once.

    Example:
        >>> repeat(3, lambda state: (2 * state[0],), (1,), while_loop)
        (8,)
    """

    def again(counted: State) -> State:
        *state, count = counted
        return *body(tuple(state)), count + 1

    return loop(lambda counted: counted[-1] < number, again, (*state, 0))[:-1]


def scan(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: tuple[Any, ...]) -> tuple[Any, Any]:
    """Fold ``step`` over the leading axis of the arrays ``xs``, stacking what it returns beside the carry.

    Args:
        step: (carry, slices of xs) ↦ (carry, tuple of arrays).
        carry: the initial state.
        xs: arrays with equal leading axes, at least 1 long.

    Returns:
        The last carry, and the tuple of stacked outputs.

    Example:
        >>> import numpy as np
        >>> total, (partial,) = scan(lambda c, x: (c + x[0], (c + x[0],)), np.array(0), (np.array([1, 2, 3]),))
        >>> int(total), partial.tolist()
        (6, [1, 3, 6])
    """
    xp = namespace(*xs)
    outputs = []
    for t in range(xs[0].shape[0]):
        carry, output = step(carry, tuple(x[t, ...] for x in xs))
        outputs.append(output)
    return carry, tuple(xp.stack(parts, axis=0) for parts in zip(*outputs, strict=True))
