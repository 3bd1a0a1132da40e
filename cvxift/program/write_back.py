"""What a solved problem holds afterwards, as ``problem.solve`` leaves it: values, status, dual variables, solver.

Copies of it, by `pickle` and `copy`, hence of all that holds the problem, go without what cannot be copied: CVXPY keeps
in a problem the last solver's workspace (`_solver_cache`) and what it returned (`extra_stats`), which for Clarabel,
OSQP, PIQP and HiGHS are objects of compiled code. CVXPY makes a workspace again at the next solve.
"""

from __future__ import annotations

import copy
import copyreg
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.problems.problem import SolverStats
from cvxpy.reductions.solution import Solution
from cvxpy.settings import EXTRA_STATS

from cvxift.program.structure import Floats


def real_duals(problem: cp.Problem) -> list[cp.Variable]:
    """The dual variables of a problem's real constraints; those of complex ones are not multipliers of rows."""
    real = (constraint for constraint in problem.constraints if constraint.is_real())
    return [dual for constraint in real for dual in constraint.dual_variables]


def write_back(
    problem: cp.Problem, value: float, values: Mapping[Any, Floats], *, accurate: bool, solver: str | None
) -> None:
    """Set a problem's solution.

    Args:
        problem: the problem.
        value: its optimal value.
        values: of its variables and of its constraints' dual variables; those that are not named are None.
        accurate: False for ``"optimal_inaccurate"``.
        solver: who found it; None: who is named there already.
    """
    status = cp.OPTIMAL if accurate else cp.OPTIMAL_INACCURATE
    solution = Solution(status, value, {v.id: values[v] for v in problem.variables()}, {}, {})
    problem.unpack(solution)
    own: Any = problem.value
    if own is None or not np.isfinite(own):  # 0/0 is NaN to CVXPY where the solution is at the edge of a domain
        problem._value = value
    for constraint in problem.constraints:
        duals = [values.get(dual) for dual in constraint.dual_variables]
        for dual, multiplier in zip(constraint.dual_variables, duals, strict=True):
            dual.save_value(multiplier)
        solution.dual_vars[constraint.id] = duals[0] if len(duals) == 1 else duals
    if solver is not None:
        problem._solver_stats = SolverStats(solver)


def write_back_none(problem: cp.Problem, status: str) -> None:
    """Set that a problem has no solution.

    Args:
        problem: the problem.
        status: ``"infeasible"`` or ``"unbounded"``.
    """
    worst = np.inf if status == cp.INFEASIBLE else -np.inf
    problem.unpack(Solution(status, -worst if isinstance(problem.objective, cp.Maximize) else worst, {}, {}, {}))


def _reduced(problem: cp.Problem) -> tuple[Any, ...]:
    state = {**vars(problem), "_solver_cache": {}}
    if problem._solver_stats is not None:
        state["_solver_stats"] = replace(problem._solver_stats, extra_stats=None)
    if problem._solution is not None:
        state["_solution"] = solution = copy.copy(problem._solution)
        solution.attr = {name: value for name, value in solution.attr.items() if name != EXTRA_STATS}
    return copyreg.__newobj__, (type(problem),), state  # pyright: ignore[reportAttributeAccessIssue]


copyreg.pickle(cp.Problem, _reduced)  # the registry that `pickle`, `copy` and joblib's workers ask before the class
