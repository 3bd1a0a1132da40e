"""The constant maps around the batched KKT solve, on arrays of any place: θ to programs, and to tangents of the data.

The formulas are those of `program.condensation` and `kkt.products`. What is constant in them is composed
on the host, once, into sparse matrices, so that θ becomes dense programs by one map, and θ̄ comes out of one map; only
entries of the data that depend on θ are ever formed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift.cones.product import PlacedCones
from cvxift.kkt.backend import Array, Arrays
from cvxift.kkt.batch.programs import DensePrograms
from cvxift.kkt.derivatives import Derivatives
from cvxift.kkt.products import DataEntries
from cvxift.program.condensation import Condensation
from cvxift.program.structure import Data, Floats, numbered
from cvxift.program.substitution import Way, substituted

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
        self._release: Any = None
        if mapping.program.release is not None:
            kept = slice(None) if condensation.parts is None else condensation.parts.rows.indices[0]
            self._release = tuple(place.put(values[kept]) for values in mapping.program.release)
        fixed, auxiliary = condensation.fixed, condensation.auxiliary
        self._fixed = None if fixed is None else fixed.parts.on(place)
        self._auxiliary = None if auxiliary.parts is None else auxiliary.parts.on(place)
        pieces = _condensed(pieces_of(mapping), condensation)
        self._shapes = {} if fixed is None else {name: block.shape for name, block in fixed.blocks.items()}
        self._names = list(pieces)
        sizes = [len(constant) for _, constant in pieces.values()]
        self._ends = np.cumsum([0, *sizes]).tolist()
        matrix = sp.csr_array(sp.vstack([matrix for matrix, _ in pieces.values()], format="csr"))
        self._affine = place.affine(matrix, np.concatenate([constant for _, constant in pieces.values()]))

    def __call__(self, theta: Array) -> tuple[DensePrograms, Way | None]:
        """The programs at θ, shape (B, N)."""
        xp, n, m = self._place.xp, self._n, self._m
        values = self._affine(theta)
        part = {name: values[:, i:j] for name, i, j in zip(self._names, self._ends[:-1], self._ends[1:], strict=True)}
        B = values.shape[0]
        P, A = xp.reshape(part["P"], (B, n, n)), xp.reshape(part["A"], (B, m, n))
        q, b = part["q"], part["b"]
        way: Way | None = None
        if self._fixed is not None:
            blocks = {k: xp.reshape(part[k], (B, *shape)) for k, shape in self._shapes.items() if k in part}
            q, b, way = substituted(self._fixed, q, b, **blocks)
        if self._auxiliary is not None:
            S, W = xp.reshape(part["S"], (B, -1, n)), part["W"]
            P = P + xp.matrix_transpose(S) @ (W[..., None] * S)
            q, b, way = substituted(self._auxiliary, q, b, way, S=S, W=W)
        if self._release is not None:  # as `Program.evaluate` does
            limits, inside = self._release
            free = self._cones.largest(xp.astype(b == limits, xp.float64)) > 0.0
            A = xp.where(free[..., None], xp.zeros_like(A), A)
            b = xp.where(free, inside, b)
        return DensePrograms(self._place, P, q, A, b, self._cones), way


def _condensed(pieces: dict[str, Piece], condensation: Condensation) -> dict[str, Piece]:
    """Affine functions of θ: P and A condensed, q and b as they are, and what substitution needs; dense and flat."""
    structure, fixed, k = condensation.auxiliary.original, condensation.fixed, condensation.auxiliary.selection
    small = condensation.structure
    n, m = small.n, small.m

    def placed(name: str, at: np.ndarray, flat: np.ndarray, size: int, weight: Any = 1.0) -> Piece:
        """The entries at these positions, times a weight, as entries of a flat array."""
        at = at if fixed is None else (fixed.P_at if name == "P" else fixed.A_at)[at]
        return _taken(pieces[name], at, flat, size, weight)

    out = {"q": pieces["q"], "b": pieces["b"]}
    if fixed is not None:
        for name, block in fixed.blocks.items():
            if len(block.at):
                whole = pieces["A" if name == "C" else "P"]
                out[name] = _taken(whole, block.at, block.flat, block.shape[0] * block.shape[1])
    if k is None:
        P_flat = structure.P_rows.astype(np.int64) * n + structure.P_cols
        A_flat = structure.A_rows.astype(np.int64) * n + structure.A_cols
        out["P"] = placed("P", np.arange(structure.nnzP), P_flat, n * n)
        out["A"] = placed("A", np.arange(structure.nnzA), A_flat, m * n)
        return out
    column = numbered(structure.n, k.X)
    P_flat = column[structure.P_rows[k.P_xx]] * n + column[structure.P_cols[k.P_xx]]
    S_flat = k.B_row.astype(np.int64) * n + k.B_col
    out["P"] = placed("P", k.P_xx, P_flat, n * n)
    out["A"] = placed("A", k.A_c, small.A_rows.astype(np.int64) * n + small.A_cols, m * n)
    out["S"] = placed("A", k.B, S_flat, len(k.Y) * n, -1.0 / k.a[k.B_row])
    out["W"] = placed("P", k.W, np.arange(len(k.Y)), len(k.Y))
    return out


def _taken(piece: Piece, at: np.ndarray, flat: np.ndarray, size: int, weight: Any = 1.0) -> Piece:
    """Entries of a piece, times a weight, as entries of an array of some size."""
    matrix, constant = piece
    place = sp.csr_array((np.broadcast_to(weight, at.shape), (flat, at)), shape=(size, len(constant)))
    return sp.csr_array(place @ matrix), place @ constant


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
