"""Solves a program's data by Clarabel's own interface, which takes them as they are."""

from __future__ import annotations

import clarabel
import numpy as np
import scipy.sparse as sp

from cvxift.program import Data, Program

TIGHT = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}


def solve(program: Program, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """x and y of one instance by Clarabel's own interface."""
    structure, cones = program.structure, program.cones
    kinds = [
        *([clarabel.ZeroConeT(cones.zero)] if cones.zero else []),
        *([clarabel.NonnegativeConeT(cones.nonneg)] if cones.nonneg else []),
        *(clarabel.SecondOrderConeT(dim) for dim in cones.soc),
        *(clarabel.PSDTriangleConeT(order) for order in cones.psd),
        *(clarabel.ExponentialConeT() for _ in range(cones.exp)),
        *(clarabel.PowerConeT(alpha) for alpha in cones.pow),
    ]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    for option, value in TIGHT.items():
        setattr(settings, option, value)
    P = sp.triu(structure.P_matrix(data.P), format="csc")
    A = structure.A_matrix(data.A)
    solution = clarabel.DefaultSolver(P, data.q, A, data.b, kinds, settings).solve()
    return np.array(solution.x), np.array(solution.z)
