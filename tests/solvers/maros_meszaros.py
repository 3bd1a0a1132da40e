"""The Maros–Mészáros test set as canonical programs: real quadratic programs, badly scaled and often degenerate."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse as sp

from cvxift.program.cones import Cones
from cvxift.program.structure import Data, Structure

FOLDER = Path(os.environ.get("CVXIFT_MAROS_MESZAROS", Path(__file__).parents[3] / "shared/data/maros_meszaros"))
NO_BOUND = 9e19  # the files hold 1e20 rounded both ways


def names() -> list[str]:
    """The problems at hand, smallest file first; none where the set is not there."""
    return [path.stem for path in sorted(FOLDER.glob("*.mat"), key=lambda path: path.stat().st_size)]


def load(name: str) -> tuple[Structure, Data]:
    """One problem, minimize ½xᵀPx + qᵀx + r subject to l ≤ Ax ≤ u: equalities first, then each finite side."""
    raw = scipy.io.loadmat(FOLDER / f"{name}.mat")
    P, A = sp.csc_array(raw["P"], dtype=float), sp.csr_array(raw["A"], dtype=float)
    q, lower, upper = (np.asarray(raw[key], dtype=float).ravel() for key in ("q", "l", "u"))
    equal = lower == upper
    above, below = (upper < NO_BOUND) & ~equal, (lower > -NO_BOUND) & ~equal
    stacked = sp.vstack([A[equal], A[above], -A[below]]).tocsc()
    b = np.concatenate([upper[equal], upper[above], -lower[below]])
    P = sp.csc_array((P + P.T) / 2)
    for matrix in (P, stacked):
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        matrix.sort_indices()
    cones = Cones(zero=int(equal.sum()), nonneg=int(above.sum() + below.sum()))
    P_coo, A_coo = P.tocoo(), stacked.tocoo()
    structure = Structure.from_patterns(len(q), cones, (P_coo.row, P_coo.col), (A_coo.row, A_coo.col))
    return structure, Data(P.data, q, stacked.data, b, np.float64(np.asarray(raw["r"]).item()))
