"""What is left of a mixed-integer problem when its integers are held, and its integer variables.

At a minimum over integers y and continuous x, x(θ) is the solution map of the problem in x alone as long as the choice
of y stays the best one: min over y of a finite number of values, each continuous in θ, keeps its minimizer near a point
where that is the only one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.constraints.finite_set import FiniteSet
from cvxpy.utilities.canonical import Canonical

from cvxift.errors import ProgramError
from cvxift.program.messages import short


def integer_variables(problem: cp.Problem) -> list[cp.Variable]:
    """The boolean and integer variables of a problem.

    Returns:
        Its integer variables, in the problem's order.

    Raises:
        ProgramError: there are none, or nothing else; a variable is integer in some of its entries only; or an
            expression is restricted to a finite set.
    """
    if not isinstance(problem, cp.Problem):
        raise ProgramError(f"Expected a cp.Problem, got {type(problem).__name__}.")
    for constraint in problem.constraints:
        if isinstance(constraint, FiniteSet):
            raise ProgramError(
                f"Constraint {short(constraint)} restricts an expression to finitely many values; integers='fixed' "
                "takes boolean and integer variables. Write the choice with a boolean variable for each value."
            )
    found = []
    for variable in problem.variables():
        kinds = [variable.attributes[name] for name in ("boolean", "integer")]
        if any(kind is True for kind in kinds):
            found.append(variable)
        elif any(kinds):
            raise ProgramError(
                f"Variable '{variable.name()}' is integer in some of its entries only. With integers='fixed', give the "
                "integer entries a variable of their own."
            )
    if not found:
        raise ProgramError("integers='fixed' is for mixed-integer problems; this one has no integer variable.")
    if len(found) == len(problem.variables()):
        raise ProgramError(
            "All variables of the problem are integers: its solution is constant between jumps, so its derivative is "
            "zero wherever it exists. integers='fixed' differentiates the other variables of a mixed-integer problem."
        )
    return found


def with_integers(problem: cp.Problem, values: Mapping[cp.Variable, Any]) -> cp.Problem:
    """The problem in its continuous variables, which are the user's, as its parameters are.

    Args:
        problem: a mixed-integer problem.
        values: integer variable -> value; those that are not named become continuous and free.

    Returns:
        A problem whose constraints have the order and the ids of the user's.
    """
    leaves: dict[int, Any] = {}
    for variable in integer_variables(problem):
        value = values.get(variable)
        leaves[id(variable)] = cp.Variable(variable.shape) if value is None else cp.Constant(np.asarray(value, float))
    return replaced(problem, leaves)


def replaced(problem: cp.Problem, leaves: dict[int, Any]) -> cp.Problem:
    """A problem with other leaves.

    Args:
        problem: the user's problem.
        leaves: id() of a leaf -> what stands in its place.

    Returns:
        The problem; its constraints keep their order and ids.
    """
    objective: Any = type(problem.objective)(_copied(problem.objective.expr, leaves))
    return cp.Problem(objective, [_copied(constraint, leaves) for constraint in problem.constraints])


def _copied(node: Any, leaves: dict[int, Any]) -> Any:
    """`tree_copy` of an expression or constraint; CVXPY's own gives a `gmatmul` its arguments in the wrong order."""
    if type(node).tree_copy is not Canonical.tree_copy:  # leaves, and what has a way of its own
        return node.tree_copy(leaves)
    args = [_copied(arg, leaves) for arg in node.args]
    return cp.gmatmul(node.A, args[0]) if isinstance(node, cp.gmatmul) else node.copy(args, leaves)
