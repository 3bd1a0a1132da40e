"""Columns that rows of their own determine, put into the rest of a program, and the way back.

With Y the columns and E their rows, X and R the others, let  B x_X + a x_Y = b_E,  a diagonal and constant. Then

    x_Y = t + S x_X,      t = diag(a)⁻¹ b_E,   S = −diag(a)⁻¹ B,      C = A_RY
    P_c = P_XX + P_XY S + Sᵀ P_YX + Sᵀ P_YY S,      q_c = q_X + P_XY t + Sᵀ(q_Y + P_YY t)
    A_c = A_RX + C S,                               b_c = b_R − C t
    multipliers of the rows E:  y_E = −diag(a)⁻¹ (P_YX x_X + P_YY x_Y + q_Y + Cᵀ y_R)

`fixed` takes out columns with B = 0, `elimination` those with C = 0 and P_YX = 0. One formula is for one program, a
batch, and arrays of any namespace.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from cvxift._types import Array, Indices, override
from cvxift.program.products import apply, transposed
from cvxift.program.structure import Floats

Index: TypeAlias = Indices | slice
Pair: TypeAlias = tuple[Array, Array]


WRITTEN_OUT = 20_000  # entries of a sparse block up to which batches hold it as a dense array


def as_slice(index: Indices) -> Index:
    """A run of consecutive indices as a slice; other index arrays as they are."""
    # A view costs a tenth of a gather, which is what small programs spend time on.
    if len(index) and index[-1] - index[0] + 1 == len(index) and np.all(np.diff(index) == 1):
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def pick(values: Floats, index: Index) -> Floats:
    """values[..., index], contiguous for an index array and a view for a slice."""
    return values[..., index] if isinstance(index, slice) else values.take(index, axis=-1)


class Split:
    """The last axis in two: entries that are kept and others that are substituted.

    Args:
        kept: positions of the kept entries.
        other: positions of the others.

    Example:
        >>> split = Split(np.array([0, 2]), np.array([1]))
        >>> split.join(np.array([1.0, 3.0]), np.array([2.0]))
        array([1., 2., 3.])
    """

    def __init__(self, kept: Indices, other: Indices) -> None:
        self.indices = kept, other
        self._size = len(kept) + len(other)
        self._kept, self._other = as_slice(kept), as_slice(other)

    def kept(self, values: Array) -> Array:
        """The kept entries."""
        return pick(values, self._kept)

    def other(self, values: Array) -> Array:
        """The others."""
        return pick(values, self._other)

    def join(self, kept: Array, other: Array) -> Array:
        """The whole of its two parts."""
        out = np.empty((*kept.shape[:-1], self._size))
        out[..., self._kept], out[..., self._other] = kept, other
        return out

    def lift(self, kept: Array) -> Array:
        """The whole with zeros for the others."""
        out = np.zeros((*kept.shape[:-1], self._size))
        out[..., self._kept] = kept
        return out


class ArraySplit(Split):
    """`Split` for arrays of another place.

    Args:
        split: the one of NumPy's arrays.
        place: where the arrays live; see `cvxift.kkt.backend.Arrays`.
    """

    def __init__(self, split: Split, place: Any) -> None:
        kept, other = self.indices = split.indices
        self._place = place
        where = np.full(len(kept) + len(other), len(kept))  # the last is a zero set behind
        where[kept] = np.arange(len(kept))
        index = (kept, other, np.argsort(np.concatenate([kept, other])), where)
        self._kept, self._other, self._order, self._where = map(place.put, index)

    def kept(self, values: Array) -> Array:
        """The kept entries."""
        return self._place.xp.take(values, self._kept, axis=-1)

    def other(self, values: Array) -> Array:
        """The others."""
        return self._place.xp.take(values, self._other, axis=-1)

    def join(self, kept: Array, other: Array) -> Array:
        """The whole of its two parts."""
        xp = self._place.xp
        return xp.take(xp.concat([kept, other], axis=-1), self._order, axis=-1)

    def lift(self, kept: Array) -> Array:
        """The whole with zeros for the others."""
        xp = self._place.xp
        padded = xp.concat([kept, self._place.zeros(*kept.shape[:-1], 1)], axis=-1)
        return xp.take(padded, self._where, axis=-1)


@dataclass(frozen=True, eq=False)
class Parts:
    """What is kept and what is substituted, in one place.

    Attributes:
        columns: X and Y.
        rows: R and E.
        inverse_a: 1/a, shape (|Y|,).
    """

    columns: Split
    rows: Split
    inverse_a: Array

    def on(self, place: Any) -> Parts:
        """The same for arrays of another place."""
        return Parts(ArraySplit(self.columns, place), ArraySplit(self.rows, place), place.put(self.inverse_a))

    def restrict(self, x: Array, y: Array) -> Pair:
        """The kept columns and rows, (..., |X|) and (..., |R|), of (..., n) and (..., m)."""
        return self.columns.kept(x), self.rows.kept(y)

    def lift(self, x: Array, y: Array) -> Pair:
        """The original columns and rows, zero where they are substituted."""
        return self.columns.lift(x), self.rows.lift(y)


class Way(abc.ABC):
    """The way from a program's point to that of the one that it was made of, and on.

    Attributes:
        further: the way from there to what that one was made of; None if it ends there.
    """

    further: Way | None

    @abc.abstractmethod
    def point(self, x: Array, s: Array, y: Array) -> tuple[Array, Array, Array]:
        """The next program's point."""

    @abc.abstractmethod
    def step(self, inner: Callable[[Array, Any], Pair], g: Array, h: Array | None) -> Pair:
        """The next program's KKT system through this one's; see `solve`."""

    @abc.abstractmethod
    def __getitem__(self, index: int) -> Way:
        """One instance of a batch, on the host."""

    def expand(self, x: Array, s: Array, y: Array) -> tuple[Array, Array, Array]:
        """The original program's point from this one's.

        Args:
            x: columns, shape (..., |X|).
            s: slacks, shape (..., |R|).
            y: multipliers, shape (..., |R|).

        Returns:
            x (..., n), s (..., m), y (..., m) of the original program.
        """
        point = self.point(x, s, y)
        return point if self.further is None else self.further.expand(*point)

    def solve(self, inner: Callable[[Array, Any], Pair], g: Array, h: Array | None) -> Pair:
        """Solve the original KKT system through this program's.

        Args:
            inner: (g, h) -> (u, w) of this program.
            g: right-hand side on columns, shape (n,), (k, n) or, for a batch, (B, n) or (k, B, n).
            h: right-hand side on rows, same leading dimensions; None for zero.

        Returns:
            u and w, of the shapes of g and (..., m).
        """
        if self.further is None:
            return self.step(inner, g, h)
        return self.further.solve(lambda g, h: self.step(inner, g, h), g, h)


@dataclass(frozen=True, eq=False)
class Substitution(Way):
    """The substitution of one instance, or of a batch; a matrix that is zero may be None.

    Attributes:
        parts: what is kept and what is substituted.
        t: shape (..., |Y|).
        q_y: linear cost of the substituted columns, shape (..., |Y|).
        S: shape (|Y|, |X|), dense array or CSR; dense (B, |Y|, |X|) for a batch, as the others.
        C: A_RY, shape (|R|, |Y|).
        P_x: P_YX, shape (|Y|, |X|).
        P_y: P_YY, shape (|Y|, |Y|).
        W: the diagonal of P_YY where it has no other entries, shape (..., |Y|).
        further: see `Way`.
    """

    parts: Parts
    t: Array
    q_y: Array
    S: Any = None
    C: Any = None
    P_x: Any = None
    P_y: Any = None
    W: Array | None = None
    further: Way | None = None

    @override
    def point(self, x: Array, s: Array, y: Array) -> tuple[Array, Array, Array]:
        columns, rows = self.parts.columns, self.parts.rows
        x_y = self.t if self.S is None else self.t + apply(self.S, x)
        own = self._minus(self._less_curved(-self.q_y, x_y), x, y)
        return columns.join(x, x_y), rows.lift(s), rows.join(y, own * self.parts.inverse_a)

    @override
    def step(self, inner: Callable[[Array, Any], Pair], g: Array, h: Array | None) -> Pair:
        # With δ = h_E/a, u_Y = S u_X + δ; kept columns see g_X − P_XY δ + Sᵀ(g_Y − P_YY δ), kept rows h_R − C δ.
        columns, rows, inverse_a = self.parts.columns, self.parts.rows, self.parts.inverse_a
        g_x, g_y, shift, h_r = columns.kept(g), columns.other(g), None, None
        seen = g_y
        if h is not None:
            shift, h_r = rows.other(h) * inverse_a, rows.kept(h)
            g_x = g_x if self.P_x is None else g_x - apply(transposed(self.P_x), shift)
            h_r = h_r if self.C is None else h_r - apply(self.C, shift)
            seen = g_y if self.S is None else self._less_curved(g_y, shift)
        u_x, w_r = inner(g_x if self.S is None else g_x + apply(transposed(self.S), seen), h_r)
        if self.S is None:
            u_y = g_y * 0.0 if shift is None else shift
        else:
            u_y = apply(self.S, u_x) if shift is None else apply(self.S, u_x) + shift
        own = self._minus(self._less_curved(g_y, u_y), u_x, w_r)
        return columns.join(u_x, u_y), rows.join(w_r, own * inverse_a)

    def _less_curved(self, g: Array, x_y: Array) -> Array:
        """g − P_YY x_Y."""
        if self.W is not None:
            return g - self.W * x_y
        return g if self.P_y is None else g - apply(self.P_y, x_y)

    def _minus(self, g: Array, x: Array, y: Array) -> Array:
        """g − P_YX x − Cᵀy."""
        g = g if self.P_x is None else g - apply(self.P_x, x)
        return g if self.C is None else g - apply(transposed(self.C), y)

    @override
    def __getitem__(self, index: int) -> Substitution:
        S, C, P_x, P_y = (
            M[index] if M is not None and M.ndim == 3 else M for M in (self.S, self.C, self.P_x, self.P_y)
        )
        W, further = (part if part is None else part[index] for part in (self.W, self.further))
        return Substitution(self.parts, self.t[index], self.q_y[index], S, C, P_x, P_y, W, further)


def substituted(parts: Parts, q: Array, b: Array, further: Way | None = None, **terms: Any) -> tuple[Array, Array, Way]:
    """q_c, b_c and the way back.

    Args:
        parts: what is kept and what is substituted, in the arrays' place.
        q: linear cost, shape (..., n).
        b: right-hand side, shape (..., m).
        further: the way from this program.
        **terms: those of `Substitution` that are not zero.
    """
    columns, rows = parts.columns, parts.rows
    t, q_y, q_c, b_c = rows.other(b) * parts.inverse_a, columns.other(q), columns.kept(q), rows.kept(b)
    way = Substitution(parts, t, q_y, **terms, further=further)
    q_c = q_c if way.P_x is None else q_c + apply(transposed(way.P_x), t)
    if way.S is not None:
        q_c = q_c - apply(transposed(way.S), way._less_curved(-q_y, t))
    return q_c, b_c if way.C is None else b_c - apply(way.C, t), way
