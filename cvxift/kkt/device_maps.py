"""The constant maps around the batched KKT solve, on arrays of any place: θ to programs, outputs, products' two sides.

The formulas are those of `program.elimination` and `kkt.linearization`. What is constant in them is composed
on the host, once, into sparse matrices, so that θ becomes dense programs by one map, and θ̄ comes out of one map; only
entries of the data that depend on θ are ever formed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from cvxift.cones.array_cones import PlacedCones
from cvxift.kkt.backend import Array, Arrays
from cvxift.kkt.dense import DensePrograms, apply
from cvxift.program.elimination import Condensation
from cvxift.program.structure import Floats

if TYPE_CHECKING:
    from cvxift.kkt.derivatives import Derivatives

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


class _KeptParts:
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


class ProductMaps:
    """What stands before and after the KKT solve in the products with the derivatives.

    Args:
        mapping: the solution map.
        place: where the arrays live.
    """

    def __init__(self, mapping: Derivatives, place: Arrays) -> None:
        self._place = place
        structure, recover = mapping.program.structure, mapping._recover
        pieces = pieces_of(mapping)
        varying = {name: np.flatnonzero(np.diff(pieces[name][0].indptr)) for name in ("P", "q", "A", "b")}
        P, q, A, b = varying.values()
        jacobian = sp.csr_array(sp.vstack([pieces[name][0][at] for name, at in varying.items()], format="csr"))
        self._ends = np.cumsum([0, len(P), len(q), len(A), len(b)]).tolist()
        self._forward, self._adjoint = place.affine(jacobian), place.affine(sp.csr_array(jacobian.T))
        P_rows, P_cols, A_rows, A_cols = structure.places
        index = (P_rows[P], P_cols[P], A_rows[A], A_cols[A], q, b)
        self._P_rows, self._P_cols, self._A_rows, self._A_cols, self._q, self._b = map(place.put, index)
        count = np.arange(len(P) + len(A))
        self._to_columns = place.affine(
            _placing(np.concatenate([P_rows[P], A_cols[A]]), count, (structure.n, len(count)))
        )
        self._to_rows = place.affine(_placing(A_rows[A], np.arange(len(A)), (structure.m, len(A))))
        self._q_columns = place.affine(_placing(q, np.arange(len(q)), (structure.n, len(q))))
        self._b_rows = place.affine(_placing(b, np.arange(len(b)), (structure.m, len(b))))
        self._X, self._XT = place.affine(recover.X), place.affine(recover.XT)
        self._Y, self._YT = (place.affine(recover.Y), place.affine(recover.YT)) if recover.has_dual else (None, None)
        self._m = structure.m
        self._kept = _KeptParts(mapping.engine.condensation, place)
        self._offset = place.put(recover.offset) if recover.offset.any() else None
        self._bounds = None if recover.bounds is None else tuple(map(place.put, recover.bounds))
        self.positive = None if recover.positive is None else place.put(recover.positive)

    def outputs(self, x: Array, y: Array) -> Array:
        """The flat outputs at original points."""
        out = self.linear(x, y)
        out = out if self._offset is None else out + self._offset
        xp = self._place.xp
        if self.positive is not None:
            out = xp.where(self.positive & (out <= 0.0), xp.zeros_like(out), out)
        return out if self._bounds is None else xp.minimum(xp.maximum(out, self._bounds[0]), self._bounds[1])

    def restrict(self, x: Array, y: Array) -> tuple[Array, Array]:
        """The condensed programs' columns and rows of original ones."""
        return self._kept.restrict(x, y)

    def lift(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Original columns and rows with these condensed ones, zero elsewhere."""
        return self._kept.lift(x, y)

    def linear(self, x: Array, y: Array) -> Array:
        """The flat outputs' tangents for tangents of the points."""
        out = self._X(x)
        return out if self._Y is None else out + self._Y(y)

    def adjoint_side(self, bar: Array) -> tuple[Array, Array]:
        """(−x̄, −ȳ) for a cotangent of the outputs."""
        x_bar = self._XT(bar)
        return -x_bar, self._place.zeros(*bar.shape[:-1], self._m) if self._YT is None else -self._YT(bar)

    def data(self, dot: Array) -> tuple[Array, Array, Array, Array]:
        """Tangents of the entries of P, q, A and b that depend on θ."""
        values = self._forward(dot)
        P, q, A, b = (values[..., i:j] for i, j in zip(self._ends[:-1], self._ends[1:], strict=True))
        return P, q, A, b

    def act(self, data: tuple[Array, Array, Array, Array], x: Array, y: Array) -> tuple[Array, Array]:
        """(Ṗx + Ȧᵀy, Ȧx)."""
        xp = self._place.xp
        P, _, A, _ = data
        Ax = A * xp.take(x, self._A_cols, axis=-1)
        columns = [P * xp.take(x, self._P_cols, axis=-1), A * xp.take(y, self._A_rows, axis=-1)]
        return self._to_columns(xp.concat(columns, axis=-1)), self._to_rows(Ax)

    def tangent_side(self, x: Array, y: Array, dot: Array) -> tuple[Array, Array]:
        """(−(Ṗx + q̇ + Ȧᵀy), ḃ − Ȧx)."""
        data = self.data(dot)
        columns, rows = self.act(data, x, y)
        return -(columns + self._q_columns(data[1])), self._b_rows(data[3]) - rows

    def pull_back(self, x: Array, y: Array, u: Array, w: Array, direct: bool = False) -> Array:
        """Cotangent of θ from  P̄ = u xᵀ,  q̄ = u,  Ā_ij = y_i u_j + w_i x_j,  b̄ = −w.

        Args:
            x: columns, shape (B, n).
            y: multipliers, shape (B, m).
            u: adjoint columns, shape (..., B, n).
            w: adjoint rows, shape (..., B, m).
            direct: leave q̄ and b̄ out, which do not multiply the point.
        """
        xp = self._place.xp

        def at(values: Array, index: Array) -> Array:
            return xp.take(values, index, axis=-1)

        q, b = at(u, self._q), -at(w, self._b)
        if direct:
            q, b = xp.zeros_like(q), xp.zeros_like(b)
        P = at(u, self._P_rows) * at(x, self._P_cols)
        A = at(y, self._A_rows) * at(u, self._A_cols) + at(w, self._A_rows) * at(x, self._A_cols)
        return self._adjoint(xp.concat([P, q, A, b], axis=-1))
