"""Nested structures of tensors as flat vectors, and their leaves by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from cvxift.errors import ProgramError
from cvxift.implicit import trees

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


def require_real(name: str, leaf: Tensor) -> None:
    """Refuse a complex leaf by its name."""
    if leaf.is_complex():
        raise ProgramError(
            f"{name} is complex ({leaf.dtype}); expected real tensors. Split it with torch.view_as_real."
        )


@dataclass(frozen=True, eq=False)
class Layout(trees.Layout):
    """The layout of tensors.

    Attributes:
        device: of the vector.
    """

    device: torch.device

    word = "tensor"
    flatten = staticmethod(flatten)

    @classmethod
    def of(cls, names: list[str], leaves: list[Any], spec: Any) -> Layout:
        """The layout of leaves; complex ones are refused by name, as are leaves on several devices."""
        positions, dtype, device = [], None, None
        for i, leaf in enumerate(leaves):
            if not isinstance(leaf, Tensor):
                continue
            require_real(names[i], leaf)
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
            [leaf.dtype for leaf in chosen],
            dtype or torch.get_default_dtype(),
            device or torch.device("cpu"),
        )

    @staticmethod
    def is_array(leaf: Any) -> bool:
        """Whether a leaf is a tensor."""
        return isinstance(leaf, Tensor)

    @staticmethod
    def kind_of(leaf: Tensor) -> str:
        """The name of a tensor's dtype."""
        return str(leaf.dtype)

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
        parts = flat.split(self.sizes) if len(self.shapes) > 1 else (flat,)
        for i, part, shape, dtype in zip(self.positions, parts, self.shapes, self.dtypes):
            leaves[i] = part.reshape(shape).to(dtype)
        return unflatten(leaves, self.spec)
