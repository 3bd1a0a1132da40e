"""Copies of a CVXPY problem that was solved before, by `pickle` and `copy`, hence of all that holds the problem.

CVXPY keeps in a problem the last solver's workspace (`_solver_cache`) and what it returned (`extra_stats`): for
Clarabel, OSQP, PIQP and HiGHS these are objects of compiled code, which can be neither pickled nor copied. A copy goes
without them; CVXPY makes a workspace again at the next solve.
"""

from __future__ import annotations

import copy
import copyreg
from dataclasses import replace
from typing import Any

import cvxpy as cp
from cvxpy.settings import EXTRA_STATS


def _reduced(problem: cp.Problem) -> tuple[Any, ...]:
    state = {**vars(problem), "_solver_cache": {}}
    if problem._solver_stats is not None:
        state["_solver_stats"] = replace(problem._solver_stats, extra_stats=None)
    if problem._solution is not None:
        state["_solution"] = solution = copy.copy(problem._solution)
        solution.attr = {name: value for name, value in solution.attr.items() if name != EXTRA_STATS}
    return copyreg.__newobj__, (type(problem),), state  # pyright: ignore[reportAttributeAccessIssue]


copyreg.pickle(cp.Problem, _reduced)  # the registry that `pickle`, `copy` and joblib's workers ask before the class
