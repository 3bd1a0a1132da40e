"""Nested structures of tensors as flat vectors, and their leaves by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from cvxift.errors import ProgramError

Tensor = torch.Tensor


def flatten(name: str, tree: Any) -> tuple[list[str], list[Any], Any]:
    """Names such as ``x['w'][0]``, leaves, and structure of a tree."""
    if isinstance(tree, Tensor):
        return [name], [tree], None
    paths, spec = pytree.tree_flatten_with_path(tree)
    return [name + pytree.keystr(path) for path, _ in paths], [leaf for _, leaf in paths], spec


def unflatten(leaves: Sequence[Any], spec: Any) -> Any:
    """The inverse of `flatten`."""
    return leaves[0] if spec is None else pytree.tree_unflatten(list(leaves), spec)


@dataclass(frozen=True, eq=False)
class Layout:
    """A tree whose floating leaves lie side by side in one vector.

    Attributes:
        names: of all leaves.
        spec: the structure.
        constants: all leaves, None in place of floating ones: integers, None and what is no tensor passes through.
        positions: of the floating leaves.
        shapes: of the floating leaves.
        sizes: of the floating leaves.
        dtypes: of the floating leaves.
        dtype: of the vector.
        device: of the vector.
    """

    names: list[str]
    spec: Any
    constants: list[Any]
    positions: list[int]
    shapes: list[tuple[int, ...]]
    sizes: list[int]
    dtypes: list[torch.dtype]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, names: list[str], leaves: list[Any], spec: Any) -> Layout:
        """The layout of leaves; complex ones are refused by name, as are leaves on several devices."""
        positions, dtype, device = [], None, None
        for i, leaf in enumerate(leaves):
            if not isinstance(leaf, Tensor):
                continue
            if leaf.is_complex():
                raise ProgramError(
                    f"{names[i]} is complex ({leaf.dtype}); expected real tensors. Split it with torch.view_as_real."
                )
            if leaf.is_floating_point():
                positions.append(i)
                dtype = leaf.dtype if dtype is None else torch.promote_types(dtype, leaf.dtype)
                device = device or leaf.device
                if leaf.device != device:
                    raise ProgramError(f"{names[i]} lies on {leaf.device}, {names[positions[0]]} on {device}.")
        chosen = [leaves[i] for i in positions]
        return cls(
            names,
            spec,
            [None if i in positions else leaf for i, leaf in enumerate(leaves)],
            positions,
            [tuple(leaf.shape) for leaf in chosen],
            [leaf.numel() for leaf in chosen],
            [leaf.dtype for leaf in chosen],
            dtype or torch.get_default_dtype(),
            device or torch.device("cpu"),
        )

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(self.sizes)

    def ravel(self, leaves: Sequence[Any]) -> Tensor:
        """The floating leaves among all leaves, as one vector."""
        parts = [leaves[i].reshape(-1).to(self.dtype) for i in self.positions]
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts) if parts else torch.empty(0, dtype=self.dtype, device=self.device)

    def unravel(self, flat: Tensor) -> Any:
        """The tree that holds a vector's entries."""
        if self.spec is None and self.positions:
            return flat.reshape(self.shapes[0])
        leaves = list(self.constants)
        parts = flat.split(self.sizes) if len(self.sizes) > 1 else (flat,)
        for i, part, shape, dtype in zip(self.positions, parts, self.shapes, self.dtypes):
            leaves[i] = part.reshape(shape).to(dtype)
        return unflatten(leaves, self.spec)

    def entry(self, index: int) -> str:
        """Name of an entry of the vector, such as ``x['w'][2, 0]``."""
        for i, size, shape in zip(self.positions, self.sizes, self.shapes):
            if index < size:
                where = ", ".join(str(int(k)) for k in np.unravel_index(index, shape)) if shape else ""
                return self.names[i] + (f"[{where}]" if where else "")
            index -= size
        raise IndexError(index)

    def matching(self, what: str, tree: Any) -> Tensor:
        """A tree of this structure, such as F's value, as a vector of this dtype.

        Raises:
            ProgramError: another structure, or a leaf of another shape, by name.
        """
        if self.spec is None and isinstance(tree, Tensor):
            leaves = [tree]
        else:
            names, leaves, spec = flatten("", tree)
            if spec != self.spec:
                got = ", ".join(name or "one tensor" for name in names) or "nothing"
                wanted = ", ".join(name for name in self.names)
                raise ProgramError(f"{what} has another structure than x: leaves {got}; expected those of {wanted}.")
        for i, shape in zip(self.positions, self.shapes):
            leaf = leaves[i]
            if not isinstance(leaf, Tensor) or tuple(leaf.shape) != shape:
                got = f"shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else type(leaf).__name__
                raise ProgramError(
                    f"{what} has {got} where {self.names[i]} has shape {shape}: every entry of x needs its equation."
                )
            if leaf.is_complex():
                raise ProgramError(f"{what} is complex at {self.names[i]}; expected real values.")
        return self.ravel(leaves)
