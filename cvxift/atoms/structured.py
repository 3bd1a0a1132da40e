"""Regularizers that tie entries together: fused (total variation) and OSCAR.

M. Blondel, V. Niculae, "A regularized framework for sparse and structured neural attention", NeurIPS 2017 (fusedmax,
oscarmax).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.expressions.expression import Expression

from cvxift._types import override
from cvxift.atoms.base import Definition, Regularizer, over_slices
from cvxift.atoms.registry import register
from cvxift.errors import ProgramError


class _Nonnegative(Regularizer):
    @override
    def sign_from_args(self) -> tuple[bool, bool]:
        return (True, False)

    def definition(self, args: list[Expression]) -> Definition:
        """The vector definition, slice by slice."""
        parts = self._slices(args[0])
        if parts is None:
            return cp.reshape(self._of_vector(cp.vec(args[0], order="F")), self.shape, order="F"), []
        return self._gather([self._of_vector(part) for part in parts]), []

    @abstractmethod
    def _of_vector(self, z: Expression) -> Any:
        """The atom of one vector, in CVXPY's atoms."""


@register("nonneg")
class fused(_Nonnegative):
    """Total variation Σ |z_{i+1} − z_i|: draws neighbours together.

    Args:
        z: a vector, or a matrix with an axis.
        axis: the axis along which neighbours lie.
        keepdims: keep the reduced axis with length one.

    Raises:
        ProgramError: z is a matrix and no axis is given.

    Source: Tibshirani et al. 2005; Blondel & Niculae 2017, section 3.2.

    Example:
        >>> import cvxpy as cp, numpy as np
        >>> from cvxift.atoms import fused
        >>> z = cp.Variable(3)
        >>> target = np.array([0.0, 1.0, 5.0])
        >>> _ = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z - target) + fused(z))).solve()
        >>> z.value.round(4)
        array([1., 1., 4.])
    """

    symbol = r"\mathrm{TV}(%s)"

    def __init__(self, z: Any, axis: int | None = None, keepdims: bool = False) -> None:
        super().__init__(z, axis, keepdims)
        if self.args[0].ndim > 1 and axis is None:
            raise ProgramError(
                f"fused got an array of shape {self.args[0].shape}; say along which axis neighbours lie."
            )

    def numeric(self, values: list[Any]) -> Any:
        """The value at values of the arguments."""
        return over_slices(lambda v: np.abs(np.diff(v)).sum(), values[0], self.axis, self.keepdims)

    def _of_vector(self, z: Expression) -> Any:
        return cp.norm1(z[1:] - z[:-1]) if z.size > 1 else 0 * cp.sum(z)

    def _column_grad(self, value: np.ndarray) -> np.ndarray | None:
        signs = np.sign(np.diff(value.ravel()))
        return (np.append(0.0, signs) - np.append(signs, 0.0)).reshape(value.shape)


@register("nonneg")
class oscar(_Nonnegative):
    """OSCAR's pairwise maxima Σ_{i<j} max(|z_i|, |z_j|): draws entries together, wherever they stand.

    Args:
        z: a vector, or a matrix with an axis.
        axis: the axis to reduce, or None for all entries.
        keepdims: keep the reduced axis with length one.

    Raises:
        ProgramError: z has no such axis.

    Source: Bondell & Reich 2008; Blondel & Niculae 2017, section 3.3.

    Example:
        >>> import cvxpy as cp, numpy as np
        >>> from cvxift.atoms import oscar
        >>> oscar(np.array([3.0, -1.0, 2.0])).value.item()
        8.0
    """

    symbol = r"\sum_{i<j} \max(|%s_i|, |%s_j|)"

    @override
    def latex(self) -> str:
        word = rf"\mathrm{{{self.args[0].name()}}}"
        return self.symbol % (word, word)

    def numeric(self, values: list[Any]) -> Any:
        """Value: the k-th smallest magnitude is the maximum of k − 1 pairs."""
        return over_slices(lambda v: np.sort(np.abs(v)) @ np.arange(v.size), values[0], self.axis, self.keepdims)

    def _of_vector(self, z: Expression) -> Any:
        return cp.dotsort(cp.abs(z), np.arange(z.size, dtype=float)) if z.size > 1 else 0 * cp.sum(z)

    def is_incr(self, idx: int) -> bool:
        """Where z ≥ 0."""
        return self.args[0].is_nonneg()

    def is_decr(self, idx: int) -> bool:
        """Where z ≤ 0."""
        return self.args[0].is_nonpos()

    def _column_grad(self, value: np.ndarray) -> np.ndarray | None:
        flat = value.ravel()
        rank = np.empty(flat.size)
        rank[np.argsort(np.abs(flat), kind="stable")] = np.arange(flat.size)
        return (rank * np.sign(flat)).reshape(value.shape)
