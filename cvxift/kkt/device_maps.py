"""The constant maps around the batched KKT solve, on arrays of any place: θ to programs, and to tangents of the data.

The formulas are those of `program.elimination` and `kkt.products`. What is constant in them is composed
on the host, once, into sparse matrices, so that θ becomes dense programs by one map, and θ̄ comes out of one map; only
entries of the data that depend on θ are ever formed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift.cones.array_cones import PlacedCones
from cvxift.kkt.backend import Array, Arrays
from cvxift.kkt.dense import DensePrograms, apply
from cvxift.kkt.derivatives import Derivatives
from cvxift.kkt.products import DataEntries
from cvxift.program.elimination import Condensation
from cvxift.program.structure import Data, Floats

Piece = tuple[sp.csr_array, Floats]


def pieces_of(mapping: Derivatives) -> dict[str, Piece]:
    """P, q, A, b as affine functions (M, c) of θ in the map's own order."""
    order = mapping._permutation
    pieces = mapping.program.affine()
    if order is None:
        return pieces
    size = mapping.theta_size
    to_program = sp.csr_array((np.ones(size), (np.arange(size), order)), shape=(size, size))
    return {name: (sp.csr_array(matrix @ to_program), constant) for name, (matrix, constant) in pieces.items()}


def _placing(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int], weight: Any = 1.0) -> sp.csr_array:
    """The matrix that puts entry columns[i], times a weight, at rows[i]."""
    return sp.csr_array((np.broadcast_to(weight, rows.shape), (rows, columns)), shape=shape)


class DataMap:
    """θ ↦ the condensed programs' dense matrices, and the way back to the original programs.

    Args:
        mapping: the solution map.
        place: where the arrays live.
    """

    def __init__(self, mapping: Derivatives, place: Arrays) -> None:
        condensation = mapping.engine.condensation
        small, self._place = condensation.structure, place
        self._n, self._m = small.n, small.m
        self._cones = PlacedCones(small.cones, place.xp, place.put, place.host)
        self._may_release = mapping.program.may_release
        self._maps = None if condensation.trivial else _EliminationMaps(condensation, place)
        pieces = _condensed(pieces_of(mapping), condensation)
        self._names = list(pieces)
        sizes = [len(constant) for _, constant in pieces.values()]
        self._ends = np.cumsum([0, *sizes]).tolist()
        matrix = sp.csr_array(sp.vstack([matrix for matrix, _ in pieces.values()], format="csr"))
        self._affine = place.affine(matrix, np.concatenate([constant for _, constant in pieces.values()]))

    def __call__(self, theta: Array) -> tuple[DensePrograms, ArrayElimination | None]:
        """The programs at θ, shape (B, N)."""
        xp, n, m = self._place.xp, self._n, self._m
        values = self._affine(theta)
        part = {name: values[:, i:j] for name, i, j in zip(self._names, self._ends[:-1], self._ends[1:], strict=True)}
        B = values.shape[0]
        P, A = xp.reshape(part["P"], (B, n, n)), xp.reshape(part["A"], (B, m, n))
        q, b = part["q"], part["b"]
        if self._may_release:  # aᵀx ≤ ∞ is kept as 0ᵀx ≤ 1, as `Program.evaluate` does
            free = xp.isinf(b) & (b > 0.0)
            A = xp.where(free[..., None], xp.zeros_like(A), A)
            b = xp.where(free, xp.ones_like(b), b)
        if self._maps is None:
            return DensePrograms(self._place, P, q, A, b, self._cones), None
        # P_c = P_xx + SᵀWS,  q_c = q_x + Sᵀ(q_y + Wt)
        S = xp.reshape(part["S"], (B, -1, n))
        t, W, q_y = part["t"], part["W"], part["q_y"]
        ST = xp.matrix_transpose(S)
        P = P + ST @ (W[..., None] * S)
        q = q + apply(ST, q_y + W * t)
        return DensePrograms(self._place, P, q, A, b, self._cones), ArrayElimination(self._maps, S, W, t, q_y)


def _condensed(pieces: dict[str, Piece], condensation: Condensation) -> dict[str, Piece]:
    """The condensed programs' parts, dense and flat, as affine functions of θ."""
    small, original, k = condensation.structure, condensation.original, condensation.selection
    n, m = small.n, small.m

    def taken(name: str, place: sp.csr_array) -> Piece:
        matrix, constant = pieces[name]
        return sp.csr_array(place @ matrix), place @ constant

    def picked(name: str, index: np.ndarray, weight: Any = 1.0) -> Piece:
        rows = np.arange(len(index))
        return taken(name, _placing(rows, index, (len(index), len(pieces[name][1])), weight))

    A_at, P_at = np.arange(original.nnzA), np.arange(original.nnzP)
    if k is None:
        P_flat = original.P_rows.astype(np.int64) * n + original.P_cols
        A_flat = original.A_rows.astype(np.int64) * n + original.A_cols
        return {
            "P": taken("P", _placing(P_flat, P_at, (n * n, original.nnzP))),
            "q": pieces["q"],
            "A": taken("A", _placing(A_flat, A_at, (m * n, original.nnzA))),
            "b": pieces["b"],
        }
    X, Y = (np.arange(original.n)[index] for index in (k.X, k.Y))
    E, R = (np.arange(original.m)[index] for index in (k.E, k.R))
    new_column = np.full(original.n, -1)
    new_column[X] = np.arange(n)
    xx = P_at[k.P_xx]
    P_flat = new_column[original.P_rows[xx]] * n + new_column[original.P_cols[xx]]
    A_flat = small.A_rows.astype(np.int64) * n + small.A_cols
    S_flat = k.B_row.astype(np.int64) * n + k.B_col
    ne = k.substituted
    return {
        "P": taken("P", _placing(P_flat, xx, (n * n, original.nnzP))),
        "q": picked("q", X),
        "A": taken("A", _placing(A_flat, A_at[k.A_c], (m * n, original.nnzA))),
        "b": picked("b", R),
        "S": taken("A", _placing(S_flat, A_at[k.B], (ne * n, original.nnzA), -1.0 / k.a[k.B_row])),
        "t": picked("b", E, 1.0 / k.a),
        "W": picked("P", P_at[k.W]),
        "q_y": picked("q", Y),
    }


class _EliminationMaps:
    """Where the parts of the original columns and rows stand; constants of `ArrayElimination`."""

    def __init__(self, condensation: Condensation, place: Arrays) -> None:
        original, k = condensation.original, condensation.selection
        assert k is not None
        X, Y = (np.arange(original.n)[index] for index in (k.X, k.Y))
        E, R = (np.arange(original.m)[index] for index in (k.E, k.R))
        self.xp, self.place = place.xp, place
        self.X, self.Y, self.E, self.R, self.a = map(place.put, (X, Y, E, R, np.ascontiguousarray(k.a)))
        self.columns = place.put(np.argsort(np.concatenate([X, Y])))
        self.rows = place.put(np.argsort(np.concatenate([R, E])))

    def joined(self, kept: Array, other: Array, order: Array) -> Array:
        """The original vector from its kept and its substituted part."""
        return self.xp.take(self.xp.concat([kept, other], axis=-1), order, axis=-1)


class ArrayElimination:
    """`cvxift.program.elimination.Substitution` of a batch on arrays of any place.

    Args:
        maps: the constants.
        S: shape (B, e, n).
        W: diagonal of P_yy, shape (B, e).
        t: shape (B, e).
        q_y: shape (B, e).
    """

    def __init__(self, maps: _EliminationMaps, S: Array, W: Array, t: Array, q_y: Array) -> None:
        self._maps, self.S, self.W, self.t, self.q_y = maps, S, W, t, q_y

    def expand(self, x: Array, s: Array, y: Array) -> tuple[Array, Array, Array]:
        """The original programs' points: y = t + Sx, multipliers −(Wy + q_y)/a."""
        maps = self._maps
        aux = self.t + apply(self.S, x)
        full_s = maps.joined(s, maps.xp.zeros_like(aux), maps.rows)
        return maps.joined(x, aux, maps.columns), full_s, maps.joined(y, -(self.W * aux + self.q_y) / maps.a, maps.rows)

    def solve(self, inner: Callable[[Array, Array], tuple[Array, Array]], g: Array, h: Array) -> tuple[Array, Array]:
        """The original KKT systems through the condensed ones; g (..., B, n), h (..., B, m)."""
        maps, xp = self._maps, self._maps.xp
        shift, g_y = xp.take(h, maps.E, axis=-1) / maps.a, xp.take(g, maps.Y, axis=-1)
        moved = apply(xp.matrix_transpose(self.S), g_y - self.W * shift)
        u_x, w_r = inner(xp.take(g, maps.X, axis=-1) + moved, xp.take(h, maps.R, axis=-1))
        u_y = apply(self.S, u_x) + shift
        w_e = (g_y - self.W * u_y) / maps.a
        return maps.joined(u_x, u_y, maps.columns), maps.joined(w_r, w_e, maps.rows)


class KeptParts:
    """Between the original programs' columns and rows and those that the condensed ones keep.

    Args:
        condensation: the elimination.
        place: where the arrays live.
    """

    def __init__(self, condensation: Condensation, place: Arrays) -> None:
        original, k = condensation.original, condensation.selection
        self._place, self._trivial = place, k is None
        if k is None:
            return
        X, R = np.arange(original.n)[k.X], np.arange(original.m)[k.R]
        columns, rows = np.full(original.n, len(X)), np.full(original.m, len(R))  # the last is a zero set behind
        columns[X], rows[R] = np.arange(len(X)), np.arange(len(R))
        self._X, self._R, self._columns, self._rows = map(place.put, (X, R, columns, rows))

    def restrict(self, x: Array, y: Array) -> tuple[Array, Array]:
        """The kept columns and rows."""
        if self._trivial:
            return x, y
        xp = self._place.xp
        return xp.take(x, self._X, axis=-1), xp.take(y, self._R, axis=-1)

    def lift(self, x: Array, y: Array) -> tuple[Array, Array]:
        """The original columns and rows, zero where they are substituted."""
        if self._trivial:
            return x, y
        return self._lifted(x, self._columns), self._lifted(y, self._rows)

    def _lifted(self, values: Array, where: Array) -> Array:
        xp = self._place.xp
        padded = xp.concat([values, self._place.zeros(*values.shape[:-1], 1)], axis=-1)
        return xp.take(padded, where, axis=-1)


class VaryingData:
    """Tangents and cotangents of the entries of P, q, A and b that depend on θ.

    Args:
        mapping: the solution map.
        place: where the arrays live.

    Attributes:
        entries: F_θ on these entries.
    """

    def __init__(self, mapping: Derivatives, place: Arrays) -> None:
        pieces = pieces_of(mapping)
        varying = {name: np.flatnonzero(np.diff(pieces[name][0].indptr)) for name in ("P", "q", "A", "b")}
        jacobian = sp.csr_array(sp.vstack([pieces[name][0][at] for name, at in varying.items()], format="csr"))
        self._place, self._ends = place, np.cumsum([0, *map(len, varying.values())]).tolist()
        self._forward, self._adjoint = place.affine(jacobian), place.affine(sp.csr_array(jacobian.T))
        self.entries = DataEntries(mapping.program.structure, place, tuple(varying.values()))

    def tangent(self, theta_dot: Array) -> Data:
        """The data's tangent, shapes (..., entries), for a tangent of θ, shape (..., N)."""
        values = self._forward(theta_dot)
        P, q, A, b = (values[..., i:j] for i, j in zip(self._ends[:-1], self._ends[1:], strict=True))
        return Data(P, q, A, b, np.zeros(()))

    def cotangent(self, bar: Data) -> Array:
        """The cotangent of θ, shape (..., N), for one of the data."""
        return self._adjoint(self._place.xp.concat([bar.P, bar.q, bar.A, bar.b], axis=-1))
