"""The substitution y = t + Sx of auxiliary columns, for one program, a batch, and arrays of any namespace.

X, Y are the kept and substituted columns, R, E the kept and substituted rows; see `cvxift.program.elimination`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cvxift.program.products import apply, transposed
from cvxift.program.structure import Floats

Indices: TypeAlias = NDArray[np.integer[Any]]
Index: TypeAlias = Indices | slice
Array: TypeAlias = Any  # an array of any namespace
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


@dataclass(frozen=True, eq=False)
class Substitution:
    """The substitution of one instance, or of a batch.

    Attributes:
        parts: what is kept and what is substituted.
        S: shape (|Y|, |X|), dense array or CSR; dense (B, |Y|, |X|) for a batch.
        W: diagonal of P_yy, shape (..., |Y|).
        t: shape (..., |Y|).
        q_y: linear cost of the substituted columns, shape (..., |Y|).
    """

    parts: Parts
    S: Any
    W: Array
    t: Array
    q_y: Array

    def expand(self, x: Array, s: Array, y: Array) -> tuple[Array, Array, Array]:
        """The original program's point from the condensed one's.

        Args:
            x: condensed columns, shape (..., |X|).
            s: condensed slacks, shape (..., |R|).
            y: condensed multipliers, shape (..., |R|).

        Returns:
            x (..., n), s (..., m), y (..., m) of the original program.
        """
        columns, rows, inverse_a = self.parts.columns, self.parts.rows, self.parts.inverse_a
        aux = self.t + apply(self.S, x)
        return columns.join(x, aux), rows.lift(s), rows.join(y, -(self.W * aux + self.q_y) * inverse_a)

    def solve(self, inner: Callable[[Array, Array | None], Pair], g: Array, h: Array | None) -> Pair:
        """Solve the original KKT system through the condensed one.

        With u, w the solution on columns and rows, the substituted blocks read  W u_Y + a w_E = g_Y  and  B u_X + a u_Y
        = h_E, so u_Y = S u_X + h_E/a,  w_E = (g_Y − W u_Y)/a,  and the kept columns see  g_X + Sᵀ(g_Y − W h_E/a).

        Args:
            inner: (g, h) -> (u, w) of the condensed program.
            g: right-hand side on columns, shape (n,), (k, n) or, for a batch, (B, n) or (k, B, n).
            h: right-hand side on rows, same leading dimensions; None for zero.

        Returns:
            u and w, of the shapes of g and (..., m).
        """
        columns, rows, inverse_a = self.parts.columns, self.parts.rows, self.parts.inverse_a
        shift = None if h is None else rows.other(h) * inverse_a
        g_y = columns.other(g)
        moved = columns.kept(g) + apply(transposed(self.S), g_y if shift is None else g_y - self.W * shift)
        u_x, w_r = inner(moved, None if h is None else rows.kept(h))
        u_y = apply(self.S, u_x)
        u_y = u_y if shift is None else u_y + shift
        return columns.join(u_x, u_y), rows.join(w_r, (g_y - self.W * u_y) * inverse_a)

    def __getitem__(self, index: int) -> Substitution:
        """One instance of a batch."""
        return Substitution(self.parts, self.S[index], self.W[index], self.t[index], self.q_y[index])


def substituted(parts: Parts, q: Array, b: Array, S: Any, W: Array) -> tuple[Array, Array, Substitution]:
    """q_c = q_x + Sᵀ(q_y + Wt), b_c and the way back; arguments as those of `Substitution`, in any place."""
    t, q_y = parts.rows.other(b) * parts.inverse_a, parts.columns.other(q)
    q_c = parts.columns.kept(q) + apply(transposed(S), q_y + W * t)
    return q_c, parts.rows.kept(b), Substitution(parts, S, W, t, q_y)
