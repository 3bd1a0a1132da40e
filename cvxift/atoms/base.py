"""What the convex regularizers share: axis, name, LaTeX, gradients over slices.

Conventions: z is a vector, or the slices of an array along ``axis`` (all entries for ``axis=None``); an atom
reduces each slice to a number and is +∞ outside its domain.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.atoms.axis_atom import AxisAtom
from cvxpy.expressions.expression import Expression

from cvxift._types import override
from cvxift.errors import ProgramError

Definition = tuple[Any, list[Any]]
"""An expression in CVXPY's atoms, and constraints of the domain that it does not imply."""


class Regularizer(AxisAtom):
    """A convex function of each slice of an array, defined by CVXPY's own atoms."""

    symbol = ""  # LaTeX, with one %s for the argument
    function = ""  # the function that builds the atom, where it is not the class itself

    def __init__(self, z: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> None:
        super().__init__(z, axis=axis, keepdims=keepdims)

    def validate_arguments(self) -> None:
        """Refuse an axis that the argument does not have."""
        shape, axis = self.args[0].shape, getattr(self, "axis", None)
        axes = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
        if any(not isinstance(a, int) or not -len(shape) <= a < len(shape) for a in axes):
            name = self.function or type(self).__name__
            raise ProgramError(f"{name} got axis = {axis}, but its argument has shape {shape}.")
        super().validate_arguments()

    @abstractmethod
    def definition(self, args: list[Expression]) -> Definition:
        """The atom as an expression in CVXPY's atoms, and the constraints of its domain that this does not imply."""

    def settings(self) -> list[Any]:
        """The parameters that stand between the argument and the axis in the constructor."""
        return []

    def get_data(self) -> list[Any]:
        """Everything but the argument that distinguishes this atom."""
        return [*self.settings(), self.axis, self.keepdims]

    def name(self) -> str:
        """The call that builds the atom, without defaults."""
        return self._call([arg.name() for arg in self.args])

    def format_labeled(self) -> str:
        """The same with the labels of its arguments."""
        return self._label if self._label is not None else self._call([arg.format_labeled() for arg in self.args])

    def latex(self) -> str:
        """LaTeX of the atom, its arguments by their names."""
        return self.symbol % tuple(rf"\mathrm{{{arg.name()}}}" for arg in self.args)

    def _repr_latex_(self) -> str:
        return f"${self.latex()}$"

    def _call(self, args: list[str]) -> str:
        words = [*args, *(f"{value:g}" if isinstance(value, float) else str(value) for value in self.settings())]
        words += [] if self.axis is None else [f"axis={self.axis}"]
        words += ["keepdims=True"] if self.keepdims else []
        return f"{self.function or type(self).__name__}({', '.join(words)})"

    @override
    def sign_from_args(self) -> tuple[bool, bool]:
        return (False, False)

    @override
    def is_atom_convex(self) -> bool:
        return True

    @override
    def is_atom_concave(self) -> bool:
        return False

    @override
    def is_incr(self, idx: int) -> bool:
        return False

    @override
    def is_decr(self, idx: int) -> bool:
        return False

    def _grad(self, values: list[Any]) -> Any:
        return self._axis_grad(values)

    def _slices(self, z: Expression) -> list[Expression] | None:
        """The 1-D slices along an integer axis; None where the whole array is one slice."""
        if self.axis is None or z.ndim < 2:
            return None
        if z.ndim > 2 or not isinstance(self.axis, int):
            raise ValueError(
                f"{type(self).__name__} takes axis=None, or axis=0 or 1 of a matrix; got axis={self.axis}."
            )
        count = z.shape[1 - self.axis]
        return [z[:, i] if self.axis == 0 else z[i, :] for i in range(count)]

    def _gather(self, parts: list[Expression]) -> Expression:
        return cp.reshape(cp.hstack(parts), self.shape, order="F")


def over_slices(function: Any, array: Any, axis: int | tuple[int, ...] | None, keepdims: bool) -> np.ndarray:
    """Apply a function of a vector to every slice; the shapes follow NumPy's reductions."""
    array = np.asarray(array, dtype=float)
    axes = tuple(range(array.ndim)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    axes = tuple(a % max(array.ndim, 1) for a in axes)
    kept = [a for a in range(array.ndim) if a not in axes]
    flat = np.transpose(array, (*kept, *axes)).reshape([array.shape[a] for a in kept] + [-1])
    result = np.asarray(np.apply_along_axis(function, -1, flat))
    return np.expand_dims(result, axes) if keepdims else result
