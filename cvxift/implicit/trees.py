"""Nested structures whose floating leaves lie side by side in one vector: what does not depend on the array library."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cvxift.errors import ProgramError


def entry_of(names: Sequence[str], shapes: Sequence[Sequence[int]], index: int) -> str:
    """Name of an entry of arrays that lie side by side, such as ``x['w'][2, 0]``."""
    for name, shape in zip(names, shapes, strict=True):
        size = math.prod(shape)
        if index < size:
            where = ", ".join(str(int(k)) for k in np.unravel_index(index, tuple(shape))) if len(shape) else ""
            return name + (f"[{where}]" if where else "")
        index -= size
    raise IndexError(index)


def equation_of(layout: Layout, equalities: int, index: int) -> str:
    """Name of one of the conditions (∇E, G, H) of a constrained minimizer; of its multiplier, too."""
    n = layout.size
    if index < n:
        return layout.entry(index)
    return f"equality[{index - n}]" if index < n + equalities else f"inequality[{index - n - equalities}]"


@dataclass(frozen=True, eq=False)
class Layout(abc.ABC):
    """A tree whose floating leaves lie side by side in one vector.

    Attributes:
        names: of all leaves.
        spec: the structure.
        constants: all leaves, None in place of floating ones: integers, None and what is no array pass through.
        positions: of the floating leaves.
        shapes: of the floating leaves.
        dtypes: of the floating leaves.
        dtype: of the vector.
    """

    names: list[str]
    spec: Any
    constants: list[Any]
    positions: list[int]
    shapes: list[tuple[int, ...]]
    dtypes: list[Any]
    dtype: Any

    word: ClassVar[str] = "array"  # what the library calls one

    @staticmethod
    @abc.abstractmethod
    def flatten(name: str, tree: Any) -> tuple[list[str], list[Any], Any]:
        """Names, leaves and structure of a tree."""

    @staticmethod
    @abc.abstractmethod
    def is_array(leaf: Any) -> bool:
        """Whether a leaf is an array."""

    @staticmethod
    @abc.abstractmethod
    def kind_of(leaf: Any) -> str:
        """The name of an array's dtype, such as ``float32``, ``complex128`` or ``int64``."""

    @abc.abstractmethod
    def ravel(self, leaves: Sequence[Any]) -> Any:
        """The floating leaves among all leaves, as one vector."""

    @abc.abstractmethod
    def unravel(self, flat: Any) -> Any:
        """The tree that holds a vector's entries."""

    @property
    def sizes(self) -> list[int]:
        """Numbers of entries of the floating leaves."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(self.sizes)

    def entry(self, index: int) -> str:
        """Name of an entry of the vector."""
        return entry_of([self.names[i] for i in self.positions], self.shapes, index)

    def matching(self, what: str, tree: Any) -> Any:
        """A tree of this structure, such as F's value, as a vector of this dtype.

        Raises:
            ProgramError: another structure, or a leaf of another shape, by name.
        """
        names, leaves, spec = self.flatten("", tree)
        if spec != self.spec:
            got = ", ".join(name or f"one {self.word}" for name in names) or "nothing"
            wanted = ", ".join(self.names)
            raise ProgramError(f"{what} has another structure than x: leaves {got}; expected those of {wanted}.")
        for i, shape in zip(self.positions, self.shapes):
            leaf = leaves[i]
            found = tuple(np.shape(leaf)) if self.is_array(leaf) else None
            if found != shape:
                got = type(leaf).__name__ if found is None else f"shape {found}"
                raise ProgramError(
                    f"{what} has {got} where {self.names[i]} has shape {shape}: every entry of x needs its equation."
                )
            kind = self.kind_of(leaf)
            if "complex" in kind:
                raise ProgramError(
                    f"{what} is complex at {self.names[i]}; expected real values. Return real and imaginary parts as "
                    "two real unknowns, each with its equation."
                )
            if "float" not in kind:
                raise ProgramError(
                    f"{what} has dtype {kind} at {self.names[i]}, which has no derivative; expected floating values."
                )
        return self.ravel(leaves)

    def floating(self) -> Layout:
        """The layout itself.

        Raises:
            ProgramError: no leaf is a floating array, so that there is nothing to differentiate; or all of them are of
                16 bits, in which no linear system can be solved.
        """
        if str(self.dtype).endswith("float16"):
            name = self.names[self.positions[0]]
            raise ProgramError(
                f"{name} is {self.dtype}: derivatives need float32 at least. Return x in float32, and take the "
                "parameters to it where F uses them."
            )
        if self.positions:
            return self
        leaves = zip(self.names, self.constants, strict=True)
        told = [f"{name} ({self.kind_of(v) if self.is_array(v) else type(v).__name__})" for name, v in leaves]
        raise ProgramError(
            f"The solver returned no floating {self.word}, so nothing can be differentiated: its leaves are "
            f"{', '.join(told[:4]) or 'none'}. Return x as floating {self.word}s."
        )
