"""The constant maps around the batched KKT solve, on arrays of any place: θ to programs, and to tangents of the data.

The formulas are those of `program.elimination` and `kkt.products`. What is constant in them is composed
on the host, once, into sparse matrices, so that θ becomes dense programs by one map, and θ̄ comes out of one map; only
entries of the data that depend on θ are ever formed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift.cones.array_cones import PlacedCones
from cvxift.kkt.backend import Array, Arrays
from cvxift.kkt.batch.programs import DensePrograms
from cvxift.kkt.derivatives import Derivatives
from cvxift.kkt.products import DataEntries
from cvxift.program.elimination import Condensation
from cvxift.program.products import apply
from cvxift.program.structure import Data, Floats
from cvxift.program.substitution import Parts, Substitution

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
        parts: what is substituted, in that place; None if nothing is.
    """

    def __init__(self, mapping: Derivatives, place: Arrays, parts: Parts | None) -> None:
        condensation = mapping.engine.condensation
        small, self._place = condensation.structure, place
        self._n, self._m = small.n, small.m
        self._cones = PlacedCones(small.cones, place.xp, place.put, place.host)
        self._may_release = mapping.program.may_release
        self._parts = parts
        pieces = _condensed(pieces_of(mapping), condensation)
        self._names = list(pieces)
        sizes = [len(constant) for _, constant in pieces.values()]
        self._ends = np.cumsum([0, *sizes]).tolist()
        matrix = sp.csr_array(sp.vstack([matrix for matrix, _ in pieces.values()], format="csr"))
        self._affine = place.affine(matrix, np.concatenate([constant for _, constant in pieces.values()]))

    def __call__(self, theta: Array) -> tuple[DensePrograms, Substitution | None]:
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
        if self._parts is None:
            return DensePrograms(self._place, P, q, A, b, self._cones), None
        # P_c = P_xx + SᵀWS,  q_c = q_x + Sᵀ(q_y + Wt)
        S = xp.reshape(part["S"], (B, -1, n))
        t, W, q_y = part["t"], part["W"], part["q_y"]
        ST = xp.matrix_transpose(S)
        P = P + ST @ (W[..., None] * S)
        q = q + apply(ST, q_y + W * t)
        return DensePrograms(self._place, P, q, A, b, self._cones), Substitution(self._parts, S, W, t, q_y)


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

    if k is None:
        A_at, P_at = np.arange(original.nnzA), np.arange(original.nnzP)
        P_flat = original.P_rows.astype(np.int64) * n + original.P_cols
        A_flat = original.A_rows.astype(np.int64) * n + original.A_cols
        return {
            "P": taken("P", _placing(P_flat, P_at, (n * n, original.nnzP))),
            "q": pieces["q"],
            "A": taken("A", _placing(A_flat, A_at, (m * n, original.nnzA))),
            "b": pieces["b"],
        }
    new_column = np.full(original.n, -1)
    new_column[k.X] = np.arange(n)
    P_flat = new_column[original.P_rows[k.P_xx]] * n + new_column[original.P_cols[k.P_xx]]
    A_flat = small.A_rows.astype(np.int64) * n + small.A_cols
    S_flat = k.B_row.astype(np.int64) * n + k.B_col
    ne = k.substituted
    return {
        "P": taken("P", _placing(P_flat, k.P_xx, (n * n, original.nnzP))),
        "q": picked("q", k.X),
        "A": taken("A", _placing(A_flat, k.A_c, (m * n, original.nnzA))),
        "b": picked("b", k.R),
        "S": taken("A", _placing(S_flat, k.B, (ne * n, original.nnzA), -1.0 / k.a[k.B_row])),
        "t": picked("b", k.E, 1.0 / k.a),
        "W": picked("P", k.W),
        "q_y": picked("q", k.Y),
    }


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
