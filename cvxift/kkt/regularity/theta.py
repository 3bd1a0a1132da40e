"""F_θ at a point as sparse matrices, and the steps of θ that change every row and column by the same part of its size.

F_θ θ̇ = ( Ṗx + q̇ + Ȧᵀy ,  Ȧx − ḃ ) = ( G θ̇ , H θ̇ )
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift.program.program import Program
from cvxift.program.structure import Floats


@dataclass(frozen=True, eq=False)
class ThetaJacobian:
    """F_θ = (G, H): G of shape (n, N) on the columns, H of shape (m, N) on the rows."""

    G: Any
    H: Any

    @classmethod
    def at(cls, program: Program, x: Floats, y: Floats) -> ThetaJacobian:
        """F_θ at (x, y), shapes (n,) and (m,)."""
        structure, maps = program.structure, {name: matrix for name, (matrix, _) in program.affine().items()}
        P_rows, P_cols, A_rows, A_cols = structure.places
        n, m = structure.n, structure.m

        def spread(values: Floats, rows: np.ndarray, size: int) -> Any:
            return sp.csr_array((values, (rows, np.arange(len(rows)))), shape=(size, len(rows)))

        G = spread(x[P_cols], P_rows, n) @ maps["P"] + maps["q"] + spread(y[A_rows], A_cols, n) @ maps["A"]
        H = spread(x[A_cols], A_rows, m) @ maps["A"] - maps["b"]
        return cls(sp.csr_array(G), sp.csr_array(H))

    def sizes(self, columns: Floats, rows: Floats) -> Floats:
        """For each entry of θ the largest part of a row's or column's size that a unit of it moves, shape (N,).

        Args:
            columns: what each column balances, shape (n,).
            rows: what each row balances, shape (m,).
        """
        moved: Any = sp.vstack([sp.diags_array(1.0 / columns) @ abs(self.G), sp.diags_array(1.0 / rows) @ abs(self.H)])
        return np.asarray(moved.max(axis=0).todense()).ravel() if moved.shape[1] else np.zeros(0)

    def pulled(self, u: Floats, w: Floats, noise: tuple[Floats, Floats]) -> Floats:
        """How strongly each entry of θ pulls along u and along w, relative to what it could, shape (N,).

        Args:
            u: a direction of columns, shape (n,).
            w: a direction of rows, shape (m,).
            noise: sizes of u and w under which an entry is rounding, shapes (n,) and (m,).
        """
        out = np.zeros(self.G.shape[1])
        for part, vector, floor in ((self.G, u, noise[0]), (self.H, w, noise[1])):
            whole = abs(part).T @ np.maximum(np.abs(vector), floor)
            pull = np.abs(part.T @ vector)
            out = np.maximum(out, np.divide(pull, whole, out=np.zeros_like(pull), where=whole > 0.0))
        return out
