"""Lines shifted so that their positive parts have given sums: a projection onto scaled simplices, many times over.

What a sweep of `quadratic_transport` does most. On small arrays it is the number of operations that counts, so what
stays the same from call to call is computed once.
"""

from __future__ import annotations

from typing import Any

from cvxift._types import Array


class Lines:
    """Lines along the last axis and their masses.

    Args:
        xp: the namespace.
        masses: ≥ 0, (..., n).
        like: an array whose lines they are, (..., n, m).
        seen: whether values may be looked at, to leave out what serves masked entries and lines without mass.
    """

    def __init__(self, xp: Any, masses: Array, like: Array, seen: bool) -> None:
        self.xp, self.masses = xp, masses[..., :, None]
        self._some = self.masses > 0
        self._zero, self._one = (fill(like[(0,) * like.ndim]) for fill in (xp.zeros_like, xp.ones_like))
        self._index = xp.cumulative_sum(xp.ones_like(like[(0,) * (like.ndim - 1)]), axis=-1)
        self._masked = not seen or bool(xp.any(xp.isinf(like)))
        self._idle = not seen or not bool(xp.all(self._some))

    def positive(self, L: Array) -> Array:
        """[L]_+; NaN stays."""
        return self.xp.where(L <= 0, self._zero, L)

    def level(self, L: Array) -> Array:
        """What to subtract from each line, (..., n, 1), so that its positive part sums to the mass."""
        top = self._top(L)
        return top + self._below(L - top)

    def fill(self, L: Array) -> Array:
        """The lines shifted; lines of −∞ stay."""
        xp = self.xp
        shifted = L - self._top(L)
        shifted = shifted - self._below(shifted)
        # Once more from zero, where sums of large scores have left a remainder, as entries may come and go by it.
        for _ in range(2):
            positive = self.positive(shifted)
            lack = self.masses - xp.sum(positive, axis=-1, keepdims=True)
            shifted = shifted + lack / self._number(positive > 0)
        return shifted

    def _top(self, L: Array) -> Array:
        top = self.xp.max(L, axis=-1, keepdims=True)
        return self.xp.where(self.xp.isinf(top), self._zero, top) if self._masked else top

    def _below(self, L: Array) -> Array:
        """`level` of lines whose largest entries are zero, beside which no mass is too small to count."""
        xp = self.xp
        order = xp.flip(xp.sort(L, axis=-1), axis=-1)
        finite = xp.where(xp.isinf(order), self._zero, order) if self._masked else order
        inside = self._index * order > xp.cumulative_sum(finite, axis=-1) - self.masses
        held = xp.sum(xp.where(inside, order, self._zero), axis=-1, keepdims=True)
        level = (held - self.masses) / self._number(inside)
        return xp.where(self._some, level, self._zero) if self._idle else level

    def _number(self, marks: Array) -> Array:
        """The number of marks in each line, at least 1."""
        return self.xp.maximum(self.xp.sum(self.xp.astype(marks, self._one.dtype), axis=-1, keepdims=True), self._one)
