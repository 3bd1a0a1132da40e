"""Euclidean norms: no smooth form of ‖w‖ ≤ t has multipliers where w = 0, so that conditions are those of a cone.

A norm becomes a column t. Solvers get the row ‖w‖² ≤ t², which is smooth; what a point is judged and differentiated by
are the rows (t, w) ∈ SOC in its place, whose multipliers are bounded everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.atoms.pnorm import Pnorm, PnormApprox
from cvxpy.constraints.nonpos import Inequality

from cvxift.program.structure import Floats

NORMS = (Pnorm, PnormApprox)


@dataclass(frozen=True, eq=False)
class Norm:
    """Euclidean norms t of the parts of w.

    Attributes:
        t: the column of k norms.
        w: the variable that they are norms of.
        parts: for each norm the entries of w, column by column, shape (k, d).
        constraint: ‖w‖² ≤ t², as a solver gets it.
    """

    t: cp.Variable
    w: cp.Variable
    parts: np.ndarray
    constraint: Inequality

    @classmethod
    def of(cls, atom: Any, inner: Any) -> tuple[Norm, list[Any]]:
        """The norms of an atom with its canonicalized argument, and the constraints that stand for it."""
        t = cp.Variable(atom.shape, nonneg=True)
        w = inner if isinstance(inner, cp.Variable) else cp.Variable(inner.shape)
        axes = list(range(w.ndim)) if atom.axis is None else [int(axis) for axis in np.atleast_1d(atom.axis)]
        places = np.moveaxis(np.arange(w.size).reshape(w.shape, order="F"), axes, range(-len(axes), 0))
        squares: Any = cp.sum(cp.power(w, 2), axis=atom.axis)  # of kept dimensions the engine has another order
        squares = squares if squares.shape == t.shape else cp.reshape(squares, t.shape, order="F")
        norm = cls(t, w, places.reshape(t.size, -1, order="F"), squares <= cp.power(t, 2))
        return norm, [*([] if w is inner else [w == inner]), norm.constraint]


@dataclass(frozen=True, eq=False)
class NormRows:
    """The rows of g that are −(t, w), norm after norm.

    Attributes:
        dims: rows of each cone.
        row: the rows, shape (r,).
        column: their columns of x.
        top: whether a row is a cone's first.
        which: the norm that it belongs to, in the order of the solver's rows.
        t: the norms' columns.
    """

    dims: tuple[int, ...]
    row: np.ndarray
    column: np.ndarray
    top: np.ndarray
    which: np.ndarray
    t: np.ndarray

    @classmethod
    def of(cls, norms: Sequence[Norm], starts: Mapping[int, int], first: int) -> NormRows:
        """The rows from `first` on.

        Args:
            norms: in the order of the solver's rows.
            starts: the first column of each variable, by its id.
            first: row.
        """
        cones = [
            np.concatenate([[starts[norm.t.id] + k], starts[norm.w.id] + part])
            for norm in norms
            for k, part in enumerate(norm.parts)
        ]
        column = np.concatenate([*cones, np.zeros(0)]).astype(int)
        dims = [len(cone) for cone in cones]
        top = np.zeros(len(column), dtype=bool)
        top[np.cumsum([0, *dims[:-1]])[: len(dims)]] = True
        which = np.repeat(np.arange(len(dims)), dims)
        return cls(tuple(dims), first + np.arange(len(column)), column, top, which, column[top])

    def multipliers(self, x: Floats, rows: Floats) -> Floats:
        """The cones' multipliers, shape (r,), of those that the solver's rows have, shape (k,), at x.

        λ (‖w‖² − t²) has the gradient 2λ (−t, w) in (t, w), and yᵀ(−(t, w)) has −y.
        """
        force = 2.0 * np.abs(rows)[self.which] * x[self.column]
        return np.where(self.top, force, -force)

    def settled(self, x: Floats) -> Floats:
        """x with every norm's column at the norm."""
        sizes = np.zeros(len(self.dims))
        np.add.at(sizes, self.which[~self.top], x[self.column[~self.top]] ** 2)
        out = x.copy()
        out[self.t] = np.sqrt(sizes)
        return out
