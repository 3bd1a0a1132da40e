"""Columns that hold parameters, or what depends on parameters alone: their values p(θ) and derivatives dp/dθ.

Values of an expression are CVXPY's own; so are its derivatives (`Expression.grad`), in which a kink of a nonsmooth atom
counts as one of its sides: `bent` finds where p(θ) has one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxift._types import EPS
from cvxift.errors import ProgramError
from cvxift.program.attributes import expand, read
from cvxift.program.messages import short
from cvxift.program.structure import Floats

STEPS = (1e-5, 1e-7)  # of a parameter's size, between which the change of slope of a smooth p(θ) falls a hundredfold
MARGIN = 16.0  # roundings of p(θ) that a difference of its values may hold
BEND = 1e-4  # change of slope at the smaller one, beside the slope's size, that is a kink's


@dataclass(frozen=True, eq=False)
class DataColumn:
    """One variable of the rewritten problem whose value parameters give.

    Attributes:
        column: the variable.
        expression: its value, in earlier columns; `column` itself for a parameter.
        source: the user's parameter or expression.
        reciprocal: whether the value is one divided by the expression.
    """

    column: cp.Variable
    expression: Any
    source: Any
    reciprocal: bool = False

    @classmethod
    def of_parameter(cls, column: cp.Variable, parameter: cp.Parameter) -> DataColumn:
        """The column of a parameter itself."""
        return cls(column, column, parameter)

    @property
    def direct(self) -> bool:
        """Whether it is a parameter itself."""
        return self.column is self.expression and not self.reciprocal

    @property
    def constant(self) -> bool:
        """Whether dp/dθ is the same for every θ."""
        return self.direct or (not self.reciprocal and bool(self.expression.is_affine()))

    @property
    def smooth(self) -> bool:
        """Whether the expression's atom has no kinks."""
        return self.constant or self.reciprocal or bool(self.expression.is_atom_smooth())

    def reading(self) -> sp.csr_array:
        """For a parameter: its column, Fortran order, from its entries of θ, C order; shape (size, size)."""
        parameter = self.source
        inner, own, weight = read(parameter, is_reduced=True)
        size = parameter.size
        free = sp.csr_array((weight, (inner, own)), shape=(int(np.max(inner, initial=-1)) + 1, size))
        order = np.arange(size).reshape(parameter.shape).ravel(order="F")
        return sp.csr_array((expand(parameter) @ free)[order])

    def value(self) -> Floats:
        """The value, at the values that earlier columns hold, Fortran order.

        Raises:
            ProgramError: the expression has no value there.
        """
        try:
            with np.errstate(all="ignore"):
                value = np.asarray(_dense(self.expression.value), dtype=float).ravel(order="F")
                value = 1.0 / value if self.reciprocal else value
        except ValueError as error:
            raise ProgramError(f"{short(self.source)} has no value at these parameters: {error}") from error
        if not np.isfinite(value).all():
            what = f"1 / ({short(self.source)})" if self.reciprocal else short(self.source)
            raise ProgramError(
                f"The expression {what} has no finite value at these parameters: they are outside of its domain."
            )
        return value

    def derivative(self) -> dict[cp.Variable, sp.csr_array]:
        """The derivative with respect to each earlier column, shape (size, its size), Fortran order.

        Raises:
            ProgramError: the expression has no derivative there, or CVXPY knows none.
        """
        try:
            with np.errstate(all="ignore"):
                gradients = self.expression.grad
        except (NotImplementedError, ArithmeticError, LookupError, TypeError, ValueError):  # of CVXPY's own code
            gradients = {None: None}
        out = {}
        for column, gradient in gradients.items():
            shape = getattr(gradient, "shape", None) or (1, 1)
            if gradient is None or (column is not None and shape != (column.size, self.expression.size)):
                raise ProgramError(
                    f"CVXPY gives no derivative of {short(self.source)} at these parameters. Replace it by one "
                    "parameter that holds its value."
                )
            matrix = sp.csr_array(sp.csr_array(gradient if sp.issparse(gradient) else np.atleast_2d(gradient)).T)
            if self.reciprocal:
                matrix = sp.csr_array(sp.diags_array(-(self.value() ** 2)) @ matrix)
            out[column] = matrix
        return out


def bent(values: Callable[[Floats], Floats], theta: Floats, sizes: Floats) -> np.ndarray:
    """Which entries of p(θ) have a kink at θ, or closer than the smallest step: shape (n_p,).

    Along a direction d, p(θ + h d) − 2 p(θ) + p(θ − h d) falls like h² where p is smooth and like h across a kink.

    Args:
        values: θ ↦ p(θ).
        theta: shape (N,).
        sizes: of its entries, all positive.
    """
    d = sizes * np.random.default_rng(0).uniform(0.5, 1.5, len(theta)) * np.where(np.arange(len(theta)) % 2, -1.0, 1.0)
    here = values(theta)
    turns, slopes = [], []
    for h in STEPS:
        try:
            plus, minus = values(theta + h * d) - here, here - values(theta - h * d)
        except ProgramError:  # the edge of a domain
            return np.zeros(len(here), dtype=bool)
        turns.append(np.abs(plus - minus) / h)
        slopes.append((np.abs(plus) + np.abs(minus)) / h)
    near, rounding = turns[1], MARGIN * EPS * np.abs(here) / STEPS[1]
    # Across a kink both turns are of one size; rounding's grows as the step shrinks.
    return (near > BEND * slopes[1] + rounding) & (near > 0.1 * turns[0]) & (near < 10.0 * turns[0])


def _dense(value: Any) -> Any:
    return value.toarray() if sp.issparse(value) else value
