"""Sequences whose items are made when they are asked for."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TypeVar, overload

Item = TypeVar("Item")


class Made(Sequence[Item]):
    """A sequence that knows how to make each of its items; slices are lists."""

    @abc.abstractmethod
    def make(self, index: int) -> Item:
        """The item at 0 ≤ index < len(self)."""

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self.make(i) for i in range(*index.indices(len(self)))]
        return self.make(range(len(self))[index])
