"""What the linear solvers need of an array library beyond the array API standard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cvxift.argmax.loops import Loop

Array = Any
Factor = Callable[[Array, bool], Array]  # (right-hand sides as rows (*more, *batch, n), transposed?) ↦ solutions


@dataclass(frozen=True)
class Backend:
    """An array library.

    Attributes:
        xp: its namespace after the array API standard.
        loop: its while loop.
        factor: ("lu" or "cholesky", matrices (*batch, n, n)) ↦ a function that solves with them; where a factorization
            fails it returns NaN or infinity.
        asarray: (NumPy array, an array whose dtype and device it shall have) ↦ array.
        eager: whether its arrays have values at hand, so that a recurrence may look at every number.
        device: array ↦ what ``device=`` of the library's constructors takes.
    """

    xp: Any
    loop: Loop
    factor: Callable[[str, Array], Factor]
    asarray: Callable[[Any, Array], Array]
    eager: bool
    device: Callable[[Array], Any]


class Operator(Protocol):
    """A Jacobian, or its transpose, at a point; vectors have shape (*more, *batch, n).

    Attributes:
        symmetric: whether it is by construction.
    """

    symmetric: bool

    def matvec(self, v: Array) -> Array:
        """J v."""
        ...

    def rmatvec(self, v: Array) -> Array:
        """Jᵀ v."""
        ...

    def dense(self) -> Array:
        """J, shape (*batch, n, n)."""
        ...

    def call(self, function: Callable[..., Any], b: Array) -> Array:
        """A user's (matvec, b) ↦ y, whose vectors have x's structure, for every instance."""
        ...

    def precondition(self, function: Callable[[Any], Any], v: Array) -> Array:
        """A user's v ↦ M⁻¹v, whose vectors have x's structure, for every instance."""
        ...
