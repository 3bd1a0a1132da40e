"""Columns that tight rows with a single entry determine: they leave the reduced KKT system together with their rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from cvxift.kkt.instance import Instance
from cvxift.kkt.system.cone_basis import Rotation
from cvxift.kkt.system.factor import CONSISTENT
from cvxift.program.structure import Floats


class FixedColumns(NamedTuple):
    """The columns and their rows, and the others.

    Attributes:
        F: the columns, shape (f,).
        U: the other columns, shape (n − f,).
        f: positions of their rows among the reduced rows, shape (f,).
        u: positions of the other reduced rows.
        a: the rows' entries, shape (f,).
    """

    F: np.ndarray
    U: np.ndarray
    f: np.ndarray
    u: np.ndarray
    a: Floats

    @classmethod
    def of(cls, instance: Instance, turn: Rotation) -> FixedColumns | None:
        """Those of an instance with these rows kept; None if there are none."""
        single, values = instance.matrices.single, instance.matrices.single_values
        if single is None or values is None:
            return None
        rows = turn.rows[: turn.size - (0 if turn.h is None else len(turn.h))]  # those without curvature
        column = single[rows]
        f = np.flatnonzero(column >= 0)
        if not len(f):
            return None
        value = values[rows[f]]
        f, value = f[value != 0.0], value[value != 0.0]
        # A column is fixed by one row; further ones stay, as rows of zeros.
        F, first = np.unique(column[f], return_index=True)
        f, value = f[first], value[first]
        free = np.ones(instance.structure.n, dtype=bool)
        free[F] = False
        others = np.ones(turn.size, dtype=bool)
        others[f] = False
        return cls(F, np.flatnonzero(free), f, np.flatnonzero(others), value)

    def others(self, A_r: Any, turn: Rotation) -> Any:
        """The other rows of A_r on the other columns: zero for an eigenvector's row that the fixed ones made up.

        Eigenvectors are as accurate as the point: what that leaves of such a row is no equation for the others.

        Args:
            A_r: the kept rows, dense array or CSR.
            turn: the kept directions.
        """
        rows = A_r[self.u]
        rest = rows[:, self.U]
        if turn.spectrum is None or not len(self.U) or not len(self.u):
            return rest
        exact = self.u < len(turn.rows)  # as the program states them, however small their entries
        if isinstance(rows, np.ndarray):
            kept = exact | (np.abs(rest).max(axis=1) > CONSISTENT * np.abs(rows[:, self.F]).max(axis=1))
            return rest if kept.all() else rest * kept[:, None]
        fixed, others = (abs(part).max(axis=1).toarray().ravel() for part in (rows[:, self.F], rest))
        kept = exact | (others > CONSISTENT * fixed)
        return rest if kept.all() else sp.csr_array(sp.diags_array(kept * 1.0) @ rest)
