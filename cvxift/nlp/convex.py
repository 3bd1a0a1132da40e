"""A convex problem that is not DPP, solved as CVXPY solves it: by a cone solver, at the parameters' values.

Where a problem is convex, a convex solver finds the global solution and needs no start. Its point is taken for the
smooth program's, multipliers fitted, and judged as any other.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.atoms.elementwise.power import Power
from cvxpy.error import DCPError, ParameterError, SolverError

from cvxift.program import reach
from cvxift.program.smooth import SmoothProgram
from cvxift.program.structure import Floats
from cvxift.solvers.base import Status

STATUS = {cp.INFEASIBLE: Status.INFEASIBLE, cp.UNBOUNDED: Status.UNBOUNDED}


class ConvexSolver:
    """CVXPY's own solve of a problem of convex rules, on a copy whose parameters may be set.

    Args:
        program: the smooth program of a problem for which `applies` is true.
    """

    name = "cvxpy"

    def __init__(self, program: SmoothProgram) -> None:
        self._program = program
        problem = program.problem
        self._copy = copy.deepcopy(cp.Problem(problem.objective, problem.constraints))
        self._parameters = {p.id: q for p, q in zip(problem.parameters(), self._copy.parameters(), strict=True)}

    @staticmethod
    def applies(program: SmoothProgram) -> bool:
        """Whether a problem is convex by CVXPY's rules and means the same to both of its paths.

        To a cone solver an odd power has the domain x ≥ 0, to a nonlinear one all of ℝ.
        """
        problem = program.problem
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not problem.is_dcp() or len(problem.parameters()) < len(program.parameters):
                return False
        return not any(isinstance(node, Power) and _odd(node) for node, _ in reach.nodes(problem))

    def solve(self, theta: Floats, verbose: bool = False) -> tuple[dict[int, Any] | None, Status, str]:
        """Solve at θ, shape (N,).

        Returns:
            The variables' values by the ids of the user's, or None; the status; and CVXPY's words.
        """
        program, problem = self._program, self._copy
        for parameter in program.parameters:
            own = self._parameters[parameter.id]
            own.save_value(theta[program.offsets[parameter]].reshape(parameter.shape))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                problem.solve(verbose=verbose, warm_start=False)
        except (SolverError, DCPError, ParameterError, ValueError) as error:
            return None, Status.FAILED, f"{type(error).__name__}: {error}"
        words = str(problem.status)
        pairs = list(zip(program.problem.variables(), problem.variables(), strict=True))
        if any(own.value is None for _, own in pairs):
            return None, STATUS.get(words.removesuffix("_inaccurate"), Status.FAILED), words
        return {v.id: np.asarray(own.value, dtype=float) for v, own in pairs}, Status.SOLVED, words


def _odd(node: Power) -> bool:
    """Whether a power is odd, of something that may be negative."""
    p = float(np.ravel(np.asarray(node.p.value))[0])
    return p > 1.0 and p % 2.0 == 1.0 and not node.args[0].is_nonneg()
