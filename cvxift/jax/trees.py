"""Pytrees of arrays as flat vectors, and their leaves by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvxift.errors import ProgramError
from cvxift.implicit import trees

Array = Any


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array or a number, which JAX makes one of."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | float | complex)


def flatten(name: str, tree: Any) -> tuple[list[str], list[Any], Any]:
    """Names such as ``x['w'][0]``, leaves, and structure of a tree."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [name + jax.tree_util.keystr(path) for path, _ in paths], [leaf for _, leaf in paths], treedef


def unflatten(leaves: Sequence[Any], treedef: Any) -> Any:
    """The inverse of `flatten`."""
    return jax.tree_util.tree_unflatten(treedef, leaves)


def floating(leaf: Any) -> bool:
    """Whether a leaf is a floating array."""
    return is_array(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def require_real(name: str, leaf: Any) -> None:
    """Refuse a complex leaf by its name."""
    if is_array(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
        kind = jnp.result_type(leaf)
        raise ProgramError(f"{name} is complex ({kind}); expected real arrays. Split it into real and imaginary parts.")


@dataclass(frozen=True, eq=False)
class Layout(trees.Layout):
    """The layout of arrays."""

    flatten = staticmethod(flatten)
    is_array = staticmethod(is_array)

    @classmethod
    def of(cls, names: list[str], leaves: list[Any], spec: Any) -> Layout:
        """The layout of leaves; complex ones are refused by name."""
        for name, leaf in zip(names, leaves):
            require_real(name, leaf)
        positions = [i for i, leaf in enumerate(leaves) if floating(leaf)]
        dtypes = [jnp.result_type(leaves[i]) for i in positions]
        return cls(
            names,
            spec,
            [None if i in positions else leaf for i, leaf in enumerate(leaves)],
            positions,
            [tuple(jnp.shape(leaves[i])) for i in positions],
            dtypes,
            jnp.result_type(*dtypes) if dtypes else jnp.result_type(float),
        )

    @staticmethod
    def kind_of(leaf: Array) -> str:
        """The name of an array's dtype."""
        return str(jnp.result_type(leaf))

    def ravel(self, leaves: Sequence[Any]) -> Array:
        """The floating leaves among all leaves, as one vector."""
        parts = [jnp.ravel(jnp.asarray(leaves[i], dtype=self.dtype)) for i in self.positions]
        if len(parts) == 1:
            return parts[0]
        return jnp.concatenate(parts) if parts else jnp.zeros(0, self.dtype)

    def unravel(self, flat: Array) -> Any:
        """The tree that holds a vector's entries."""
        leaves, start = list(self.constants), 0
        for i, size, shape, dtype in zip(self.positions, self.sizes, self.shapes, self.dtypes):
            part = flat[start : start + size].reshape(shape)
            leaves[i] = part if part.dtype == dtype else part.astype(dtype)
            start += size
        return unflatten(leaves, self.spec)
