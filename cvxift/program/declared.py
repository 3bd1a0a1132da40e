"""The sets that variables' attributes declare, and the nearest values in them.

A point satisfies declared bounds, and a matrix variable is semidefinite, to the residual that the point was accepted
with. What is returned lies in the declared set itself: bounds hold exactly, those that parameters state too, and no
eigenvalue of a semidefinite matrix is negative beyond the rounding of the matrix's entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.utilities.scopes import dpp_scope

from cvxift._types import EPS
from cvxift.program.affine import AffineMap
from cvxift.program.products import dense
from cvxift.program.structure import Floats

EIGENVALUE_ROUNDING = 4.0 * EPS  # part of the largest eigenvalue that the smallest may be off by, an order


@dataclass(frozen=True)
class Side:
    """The bounds on one side as affine functions of θ: constant + matrix θ; infinite where there are none.

    Args:
        matrix: shape (size, N).
        constant: shape (size,).
    """

    matrix: sp.csr_array
    constant: Floats

    @property
    def columns(self) -> int:
        """N."""
        shape: Any = self.matrix.shape
        return int(shape[1])


@dataclass(frozen=True)
class DeclaredSet:
    """What one variable's attributes declare.

    Args:
        low: lower bounds in C order, one entry for each kind of bound.
        high: upper bounds likewise.
        order: of the matrices that are semidefinite; 0 without.
        sign: 1 for positive, −1 for negative semidefinite.
    """

    low: tuple[Side, ...] = ()
    high: tuple[Side, ...] = ()
    order: int = 0
    sign: float = 1.0

    @classmethod
    def of(cls, leaf: cp.Variable, offsets: Mapping[cp.Parameter, slice], size: int) -> DeclaredSet | None:
        """The set that a variable's attributes declare.

        Args:
            leaf: the variable.
            offsets: where each parameter stands in θ.
            size: N, the length of θ.

        Returns:
            The set; None if it is all values of the variable's shape and pattern.
        """
        attributes, none = leaf.attributes, sp.csr_array((leaf.size, size))
        low = [Side(none, np.zeros(leaf.size))] if attributes["nonneg"] or attributes["pos"] else []
        high = [Side(none, np.zeros(leaf.size))] if attributes["nonpos"] or attributes["neg"] else []
        for bound, sides in zip(attributes["bounds"] or (), (low, high), strict=False):
            if _affine(bound):  # others are constraints of nonlinear programs, and hold as such
                sides.append(_side(bound, leaf, offsets, size))
        low = [side for side in low if side.matrix.nnz or np.isfinite(side.constant).any()]
        high = [side for side in high if side.matrix.nnz or np.isfinite(side.constant).any()]
        semidefinite = attributes["PSD"] or attributes["NSD"]
        if not low and not high and not semidefinite:
            return None
        order = leaf.shape[-1] if semidefinite else 0
        return cls(tuple(low), tuple(high), order, -1.0 if attributes["NSD"] else 1.0)


class Declared:
    """The declared sets of several outputs that stand one after the other.

    Args:
        sets: of each output; None for one that declares nothing.
        sizes: of each output.
        affine: makes the function v ↦ c + Mv of arrays of the place where values live.
    """

    def __init__(
        self,
        sets: Sequence[DeclaredSet | None],
        sizes: Sequence[int],
        affine: Callable[[sp.csr_array, Floats], Callable[[Any], Any]] = AffineMap,
    ) -> None:
        columns = max((side.columns for own in sets if own for side in (*own.low, *own.high)), default=0)
        self._limits = [
            [affine(side.matrix, side.constant) for side in _joined(sets, sizes, columns, name, free)]
            for name, free in (("low", -np.inf), ("high", np.inf))
        ]
        ends = np.cumsum(sizes, dtype=int)
        self._matrices = [
            (slice(int(end) - size, int(end)), own.order, own.sign)
            for own, size, end in zip(sets, sizes, ends, strict=True)
            if own is not None and own.order
        ]

    def nearest(self, xp: Any, values: Any, theta: Any) -> Any:
        """The values, moved into the declared sets where they are outside.

        Args:
            xp: the namespace of the arrays.
            values: shape (..., K).
            theta: θ, shape (..., N).
        """
        for limit, bounded in zip(self._limits, (xp.maximum, xp.minimum), strict=True):
            for side in limit:
                values = bounded(values, side(theta))
        for part, order, sign in self._matrices:
            inside = _semidefinite(xp, values[..., part], order, sign)
            values = xp.concat([values[..., : part.start], inside, values[..., part.stop :]], axis=-1)
        return values


def _semidefinite(xp: Any, flat: Any, order: int, sign: float) -> Any:
    """Symmetric matrices, flat, without eigenvalues of the wrong sign; those that have none stay as they are."""
    matrix = sign * xp.reshape(flat, (*flat.shape[:-1], flat.shape[-1] // order**2 if order else 0, order, order))
    finite = xp.isfinite(matrix)
    values, vectors = xp.linalg.eigh(xp.where(finite, matrix, xp.zeros_like(matrix)))  # failed instances are NaN
    # Without a margin of rounding, the product of the factors has negative eigenvalues again.
    least = EIGENVALUE_ROUNDING * order * xp.max(xp.abs(values), axis=-1, keepdims=True)
    lifted = xp.where(values > least, values, least)
    inside = xp.matmul(vectors * lifted[..., None, :], xp.matrix_transpose(vectors))
    inside = 0.5 * (inside + xp.matrix_transpose(inside))
    outside = (values[..., :1, None] < 0.0) & finite
    return sign * xp.reshape(xp.where(outside, inside, matrix), flat.shape)


def _joined(
    sets: Sequence[DeclaredSet | None], sizes: Sequence[int], columns: int, name: str, free: float
) -> Iterator[Side]:
    """The bounds of all outputs side by side, as many times as one of them has several."""
    own = [() if each is None else getattr(each, name) for each in sets]
    for number in range(max((len(sides) for sides in own), default=0)):
        parts = [
            sides[number] if number < len(sides) else Side(sp.csr_array((size, columns)), np.full(size, free))
            for sides, size in zip(own, sizes, strict=True)
        ]
        matrix = sp.csr_array(sp.vstack([part.matrix for part in parts], format="csr"))
        yield Side(matrix, np.concatenate([part.constant for part in parts]))


def _affine(bound: Any) -> bool:
    """Whether a bound is affine in the parameters, as those of convex problems are."""
    with dpp_scope():  # in which parameters are no constants
        return not isinstance(bound, cp.Expression) or bool(bound.is_affine())


def _side(bound: Any, leaf: cp.Variable, offsets: Mapping[cp.Parameter, slice], size: int) -> Side:
    """A bound as an affine function of θ, which it is."""
    if not isinstance(bound, cp.Expression) or not bound.parameters():
        value = bound.value if isinstance(bound, cp.Expression) else bound
        constant = np.asarray(dense(value), dtype=float)
        return Side(sp.csr_array((leaf.size, size)), np.broadcast_to(constant, leaf.shape).ravel())
    entry = np.broadcast_to(np.arange(bound.size).reshape(bound.shape), leaf.shape).ravel()
    if isinstance(bound, cp.Parameter):
        start = offsets[bound].start
        matrix = sp.csr_array((np.ones(leaf.size), (np.arange(leaf.size), start + entry)), shape=(leaf.size, size))
        return Side(matrix, np.zeros(leaf.size))
    with _zeros(bound.parameters()) as value_at:
        constant = value_at(bound)
        columns, slopes = [], []
        for parameter in bound.parameters():
            for number in range(parameter.size):
                columns.append(offsets[parameter].start + number)
                slopes.append(value_at(bound, parameter, number) - constant)
    matrix = sp.lil_array((leaf.size, size))
    matrix[:, columns] = np.stack(slopes, axis=1)[entry]
    return Side(sp.csr_array(matrix), constant[entry])


@contextmanager
def _zeros(parameters: list[cp.Parameter]) -> Iterator[Callable[..., Floats]]:
    """Within, an affine expression is evaluated where parameters are zero, or one entry of one of them is 1."""
    before = {parameter: parameter._value for parameter in parameters}

    def value_at(expression: Any, moved: cp.Parameter | None = None, entry: int = 0) -> Floats:
        for parameter in parameters:
            value = np.zeros(parameter.size)
            if parameter is moved:
                value[entry] = 1.0
            cast(Any, parameter)._value = value.reshape(parameter.shape)
        return np.asarray(dense(expression.value), dtype=float).ravel()

    try:
        yield value_at
    finally:
        for parameter, value in before.items():
            parameter._value = value
