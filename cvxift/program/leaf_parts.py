"""What a leaf of the user's becomes: a complex one its parts, a parameter of two roles one parameter for each.

    z = Re z + i Im z        a Hermitian variable: Re z symmetric, Im z = U − Uᵀ with U strictly upper triangular
    p and p                  a parameter of a geometric program that is a factor and an exponent

A derivative with respect to z is the pair of those with respect to its parts, of which each framework makes its own
convention; one with respect to p is the sum over both, since one enters through its logarithm and one by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.program.integers import replaced


@dataclass(frozen=True, eq=False)
class Parts:
    """The real leaves of one complex leaf of the user's.

    Attributes:
        real: the real part; None where it is zero.
        imaginary: the imaginary part, or the free entries of it; None where it is zero.
        expand: S of shape (size, free entries): Im z = S @ imaginary, raveled in C order; None for all entries.
        value: the leaf as an expression of its parts.
    """

    real: Any
    imaginary: Any
    expand: np.ndarray | None
    value: Any

    @property
    def leaves(self) -> list[Any]:
        """The parts that there are, the real one first."""
        return [leaf for leaf in (self.real, self.imaginary) if leaf is not None]

    def split(self, leaf: Any, array: np.ndarray) -> list[np.ndarray]:
        """Values, tangents or cotangents of the parts, from those of the leaf with any leading dimensions."""
        out = [] if self.real is None else [np.real(array)]
        if self.imaginary is not None:
            imaginary = np.imag(array)
            if self.expand is not None:  # the transpose of the expansion: what a cotangent becomes
                imaginary = imaginary.reshape(*array.shape[: array.ndim - leaf.ndim], leaf.size) @ self.expand
            out.append(imaginary)
        return out

    def join(self, leaf: Any, values: Mapping[Any, Any]) -> Any:
        """Values, tangents or gradients of the leaf, from those of the parts with any trailing dimensions."""
        out: Any = 0j if self.real is None else values[self.real] + 0j
        if self.imaginary is None:
            return out
        imaginary = values[self.imaginary]
        if self.expand is not None:
            imaginary = (self.expand @ imaginary.reshape(len(imaginary), -1)).reshape(*leaf.shape, *imaginary.shape[1:])
        return out + 1j * imaginary

    def jacobian(self, wrt: Callable[[Any], np.ndarray]) -> np.ndarray:
        """Derivatives with respect to the real and to the imaginary part, side by side on a last axis."""
        imaginary = wrt(self.imaginary)
        real = np.zeros_like(imaginary) if self.real is None else wrt(self.real)
        return np.stack([real, imaginary], axis=-1)


@dataclass(frozen=True, eq=False)
class Roles:
    """A parameter of a geometric program as two parameters: one in the exponents, and one everywhere else.

    Attributes:
        factor: the one whose logarithm enters.
        exponent: the one that enters by itself.
    """

    factor: cp.Parameter
    exponent: cp.Parameter

    @property
    def value(self) -> cp.Parameter:
        """What stands in the arguments of atoms; exponents are no arguments, and keep the user's own."""
        return self.factor

    @property
    def leaves(self) -> list[Any]:
        """Both."""
        return [self.factor, self.exponent]

    def split(self, leaf: Any, array: np.ndarray) -> list[np.ndarray]:
        """As `Parts.split`: both have the value of the one."""
        return [array, array]

    def join(self, leaf: Any, values: Mapping[Any, Any]) -> Any:
        """Gradients of the parameter, from those of the two."""
        return values[self.factor] + values[self.exponent]

    def jacobian(self, wrt: Callable[[Any], np.ndarray]) -> np.ndarray:
        """The sum over both."""
        return wrt(self.factor) + wrt(self.exponent)


def parts_of(leaf: Any) -> Parts:
    """The parts of a complex variable or parameter; each knows the leaf by its attribute ``part_of``, for messages."""
    parts = _parts_of(leaf)
    for part in parts.leaves:
        part.part_of = leaf
    return parts


def _parts_of(leaf: Any) -> Parts:
    variable = isinstance(leaf, cp.Variable)
    kind: Any = cp.Variable if variable else cp.Parameter
    names, attributes = (f"real({leaf.name()})", f"imag({leaf.name()})"), leaf.attributes
    if leaf.is_hermitian():
        n = leaf.shape[0]
        real = kind((n, n), name=names[0], symmetric=True)
        if not variable:
            imaginary = cp.Parameter((n, n), name=names[1])
            return Parts(real, imaginary, None, real + 0.5j * (imaginary - imaginary.T))
        if n == 1:
            return Parts(real, None, None, real + 0j)
        row, column = np.triu_indices(n, k=1)
        S = np.zeros((n, n, len(row)))
        S[row, column, np.arange(len(row))], S[column, row, np.arange(len(row))] = 1.0, -1.0
        S = S.reshape(n * n, len(row))
        free = cp.Variable(len(row), name=names[1])
        return Parts(real, free, S, real + 1j * cp.reshape(S @ free, (n, n), order="C"))
    kept = {name: attributes[name] for name in ("diag", "sparsity") if attributes.get(name)}
    imaginary = kind(leaf.shape, name=names[1], **kept)
    if leaf.is_imag():
        return Parts(None, imaginary, None, 1j * imaginary)
    real = kind(leaf.shape, name=names[0], **kept)
    return Parts(real, imaginary, None, real + 1j * imaginary)


def roles_in(problem: cp.Problem) -> dict[Any, Roles]:
    """The parameters that stand in arguments of atoms and in exponents, which CVXPY keeps beside the arguments."""
    own = problem.parameters()
    roles = {p: Roles(cp.Parameter(p.shape, name=p.name(), **p.attributes), p) for p in own}
    there = set(replaced(problem, {id(p): role.factor for p, role in roles.items()}).parameters())
    return {p: role for p, role in roles.items() if role.factor in there and p in there}
