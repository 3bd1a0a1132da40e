"""A convex problem that is not DPP, solved as CVXPY solves it: by a cone solver, at the parameters' values.

Where a problem is convex, a convex solver finds the global solution and needs no start. Its point is taken for the
smooth program's, multipliers fitted, and judged as any other.
"""

from __future__ import annotations

import warnings
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.error import DCPError, ParameterError, SolverError

from cvxift.program import reach
from cvxift.program.smooth import SmoothProgram
from cvxift.program.smooth.checks import POWERS
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
        # Deep copies of CVXPY's objects keep answers that hold the originals' ids; these are copies of the trees alone.
        self._parameters = [_copied(parameter) for parameter in program.parameters]
        self._variables = [_copied(variable) for variable in problem.variables()]
        leaves = dict(zip(map(id, program.parameters), self._parameters, strict=True))
        leaves.update(zip(map(id, problem.variables()), self._variables, strict=True))
        bounds = [
            own >= bound.tree_copy(dict(leaves)) if lower else own <= bound.tree_copy(dict(leaves))
            for variable, own in zip(problem.variables(), self._variables, strict=True)
            for bound, lower in zip(variable.attributes["bounds"] or (), (True, False), strict=False)
            if _is_parametric(bound)
        ]
        self._copy = cp.Problem(
            problem.objective.tree_copy(dict(leaves)),
            [constraint.tree_copy(dict(leaves)) for constraint in problem.constraints] + bounds,
        )

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
        return not any(type(node).__name__ in POWERS and _odd(node) for node, _ in reach.nodes(problem))

    def solve(self, theta: Floats, verbose: bool = False) -> tuple[list[Any] | None, Status, str]:
        """Solve at θ, shape (N,).

        Returns:
            The variables' values in order, or None; the status; and CVXPY's words.
        """
        program, problem = self._program, self._copy
        for parameter, own in zip(program.parameters, self._parameters, strict=True):
            own.save_value(theta[program.offsets[parameter]].reshape(parameter.shape))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                problem.solve(verbose=verbose, warm_start=False)
        except (SolverError, DCPError, ParameterError, ValueError) as error:
            return None, Status.FAILED, f"{type(error).__name__}: {error}"
        words = str(problem.status)
        if any(own.value is None for own in self._variables):
            return None, STATUS.get(words.removesuffix("_inaccurate"), Status.FAILED), words
        return [np.asarray(own.value, dtype=float) for own in self._variables], Status.SOLVED, words


def _copied(leaf: Any) -> Any:
    """A leaf with the same name, shape and attributes, but for bounds that parameters state."""
    kind = cp.Variable if isinstance(leaf, cp.Variable) else cp.Parameter
    attributes = {name: value for name, value in leaf.attributes.items() if value is not None and value is not False}
    if "bounds" in attributes:
        ends = zip(attributes["bounds"], (-np.inf, np.inf), strict=True)
        attributes["bounds"] = [none if _is_parametric(end) else end for end, none in ends]
    return kind(leaf.shape, name=leaf.name(), **attributes)


def _is_parametric(bound: Any) -> bool:
    return isinstance(bound, cp.Expression) and bool(bound.parameters())


def _odd(node: Any) -> bool:
    """Whether a power is odd, of something that may be negative."""
    p = float(np.ravel(np.asarray(node.p.value))[0])
    return p > 1.0 and p % 2.0 == 1.0 and not node.args[0].is_nonneg()
