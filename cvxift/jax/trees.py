"""Pytrees of arrays as flat vectors, and their leaves by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvxift.errors import ProgramError

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
class Layout:
    """A tree whose floating leaves lie side by side in one vector.

    Attributes:
        names: of all leaves.
        treedef: the structure.
        constants: all leaves, None in place of floating ones.
        positions: of the floating leaves.
        shapes: of the floating leaves.
        dtypes: of the floating leaves.
        dtype: of the vector.
    """

    names: list[str]
    treedef: Any
    constants: list[Any]
    positions: list[int]
    shapes: list[tuple[int, ...]]
    dtypes: list[Any]
    dtype: Any

    @classmethod
    def of(cls, names: list[str], leaves: list[Any], treedef: Any) -> Layout:
        """The layout of leaves; complex ones are refused by name."""
        for name, leaf in zip(names, leaves):
            require_real(name, leaf)
        positions = [i for i, leaf in enumerate(leaves) if floating(leaf)]
        dtypes = [jnp.result_type(leaves[i]) for i in positions]
        return cls(
            names,
            treedef,
            [None if i in positions else leaf for i, leaf in enumerate(leaves)],
            positions,
            [tuple(jnp.shape(leaves[i])) for i in positions],
            dtypes,
            jnp.result_type(*dtypes) if dtypes else jnp.result_type(float),
        )

    @property
    def sizes(self) -> list[int]:
        """Numbers of entries of the floating leaves."""
        return [int(np.prod(shape)) for shape in self.shapes]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(self.sizes)

    def ravel(self, leaves: Sequence[Any]) -> Array:
        """The floating leaves among all leaves, as one vector."""
        parts = [jnp.ravel(jnp.asarray(leaves[i], dtype=self.dtype)) for i in self.positions]
        return jnp.concatenate(parts) if parts else jnp.zeros(0, self.dtype)

    def unravel(self, flat: Array) -> Any:
        """The tree that holds a vector's entries."""
        leaves, start = list(self.constants), 0
        for i, size, shape, dtype in zip(self.positions, self.sizes, self.shapes, self.dtypes):
            part = flat[start : start + size].reshape(shape)
            leaves[i] = part if part.dtype == dtype else part.astype(dtype)
            start += size
        return unflatten(leaves, self.treedef)

    def entry(self, index: int) -> str:
        """Name of an entry of the vector, such as ``x['w'][2, 0]``."""
        for i, size, shape in zip(self.positions, self.sizes, self.shapes):
            if index < size:
                where = ", ".join(str(int(k)) for k in np.unravel_index(index, shape)) if shape else ""
                return self.names[i] + (f"[{where}]" if where else "")
            index -= size
        raise IndexError(index)

    def matching(self, what: str, tree: Any) -> Array:
        """A tree of this structure, such as F's value, as a vector of this dtype.

        Raises:
            ProgramError: another structure, or a leaf of another shape, by name.
        """
        names, leaves, treedef = flatten("", tree)
        if treedef != self.treedef:
            got = ", ".join(name or "one array" for name in names) or "nothing"
            wanted = ", ".join(self.names)
            raise ProgramError(f"{what} has another structure than x: leaves {got}; expected those of {wanted}.")
        for i, shape in zip(self.positions, self.shapes):
            if not is_array(leaves[i]) or tuple(jnp.shape(leaves[i])) != shape:
                got = f"shape {jnp.shape(leaves[i])}" if is_array(leaves[i]) else type(leaves[i]).__name__
                raise ProgramError(
                    f"{what} has {got} where {self.names[i]} has shape {shape}: every entry of x needs its equation."
                )
            if jnp.issubdtype(jnp.result_type(leaves[i]), jnp.complexfloating):
                raise ProgramError(f"{what} is complex at {self.names[i]}; expected real values.")
        return self.ravel(leaves)
