"""Groups of entries that share a threshold: rows along the last axis, or segments of unequal length side by side.

The closed forms sum over groups and give each entry what its group has; which groups these are is no concern of them.
"""

from __future__ import annotations

from typing import Protocol

import array_api_compat
import numpy as np

from cvxift._types import Array


class Grouping(Protocol):
    """Entries of the last axis in groups; what groups have lies along the last axis, too."""

    def sum(self, values: Array) -> Array:
        """The sum over each group; 0 if it is empty."""
        ...

    def spread(self, values: Array) -> Array:
        """For each entry its group's value, or what broadcasts like it."""
        ...


class Groups(Grouping, Protocol):
    """Groups of which the largest entry is known, too."""

    def max(self, values: Array) -> Array:
        """The largest entry of each group; −∞ if it is empty."""
        ...


class Rows:
    """One group: all entries of the last axis. Groups' values have shape (..., 1)."""

    def sum(self, values: Array) -> Array:
        """The sum of each row."""
        if isinstance(values, np.ndarray):  # which namespace it is takes longer to find than a short sum
            return values.sum(axis=-1, keepdims=True)
        return array_api_compat.array_namespace(values).sum(values, axis=-1, keepdims=True)

    def max(self, values: Array) -> Array:
        """The maximum of each row."""
        if isinstance(values, np.ndarray):
            return values.max(axis=-1, keepdims=True)
        return array_api_compat.array_namespace(values).max(values, axis=-1, keepdims=True)

    def spread(self, values: Array) -> Array:
        """The values, which broadcast against the rows."""
        return values


ROWS = Rows()


class Adjacent:
    """Groups of given lengths side by side along the last axis of NumPy arrays; their values have shape (..., G).

    Args:
        lengths: number of entries of each group, ≥ 1.

    Attributes:
        ids: the group of each entry.
        first: for each group its first entry.

    Example:
        >>> groups = Adjacent(np.array([2, 1]))
        >>> groups.sum(np.array([1.0, 2.0, 4.0])), groups.max(np.array([1.0, 2.0, 4.0]))
        (array([3., 4.]), array([2., 4.]))
    """

    def __init__(self, lengths: np.ndarray) -> None:
        self.ids = np.repeat(np.arange(len(lengths)), lengths)
        self.first = np.cumsum(lengths) - lengths

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum over each group."""
        return np.add.reduceat(values, self.first, axis=-1, dtype=np.float64)

    def max(self, values: np.ndarray) -> np.ndarray:
        """The largest entry of each group."""
        return np.maximum.reduceat(values, self.first, axis=-1)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """For each entry its group's value."""
        return values.take(self.ids, axis=-1)


class NumpySegments:
    """Entries (N,) of NumPy arrays in groups by their number; groups' values have shape (G,), sums are float64.

    Args:
        ids: the group of each entry, integers from 0 to G − 1, in any order.
        number: G; groups may be empty.

    Example:
        >>> groups = NumpySegments(np.array([0, 0, 2]), 3)
        >>> groups.sum(np.array([1.0, 2.0, 4.0])), groups.max(np.array([1.0, 2.0, 4.0]))
        (array([3., 0., 4.]), array([  2., -inf,   4.]))
    """

    def __init__(self, ids: np.ndarray, number: int) -> None:
        self.ids, self.number = ids, number
        self._sorted = not np.any(ids[1:] < ids[:-1])
        self._first: np.ndarray | None = None  # where each group begins, of sorted entries
        if self._sorted and ids.size:
            self._first = np.concatenate([[0], np.flatnonzero(ids[1:] != ids[:-1]) + 1])
            self._there = ids.take(self._first)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum over each group."""
        if self._first is None:
            return np.bincount(self.ids, weights=values, minlength=self.number)
        out = np.zeros(self.number)
        out[self._there] = np.add.reduceat(values, self._first, dtype=np.float64)
        return out

    def max(self, values: np.ndarray) -> np.ndarray:
        """The largest entry of each group."""
        out = np.full(self.number, -np.inf, dtype=values.dtype)
        if self._first is None:
            np.maximum.at(out, self.ids, values)
        else:
            out[self._there] = np.maximum.reduceat(values, self._first)
        return out

    def spread(self, values: np.ndarray) -> np.ndarray:
        """For each entry its group's value."""
        return values.take(self.ids)

    def only(self, index: np.ndarray) -> NumpySegments:
        """The same groups of some of the entries, by increasing indices."""
        return NumpySegments(self.ids.take(index), self.number)
