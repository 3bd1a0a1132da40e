"""What a nonlinear problem must be: real, continuous, elementwise, and of the atoms that CVXPY's engine knows."""

from __future__ import annotations

import warnings
from typing import Any

import cvxpy as cp

from cvxift.errors import ProgramError
from cvxift.program import reach
from cvxift.program.checks import check_continuous
from cvxift.program.messages import short
from cvxift.program.recover import ELEMENTWISE

POWERS = ("Power", "PowerApprox", "power")  # CVXPY's classes of powers, by version
STRUCTURED = ("symmetric", "PSD", "NSD", "hermitian", "diag", "sparsity", "complex", "imag")


def check_nonlinear(problem: Any) -> tuple[cp.Parameter, ...]:
    """Refuse what cannot be smoothed and differentiated.

    Args:
        problem: what the user passed.

    Returns:
        The problem's parameters, with those that CVXPY does not list.

    Raises:
        ProgramError: naming the offending variable, constraint or subexpression, and what to do.
    """
    check_continuous(problem)
    if not hasattr(problem, "is_dnlp"):
        raise ProgramError("nlp=True needs CVXPY 1.9 or newer: pip install 'cvxpy>=1.9'.")
    for variable in problem.variables():
        structured = next((name for name in STRUCTURED if variable.attributes[name]), None)
        if structured is not None or variable.is_complex():
            remedy = {
                "diag": "use a vector x and cp.diag(x)",
                "symmetric": "use a vector of its free entries, or X + X.T",
                "PSD": "factor it, L @ L.T with L a variable",
                "NSD": "factor it, -L @ L.T with L a variable",
            }.get(structured or "", "use real variables of its free entries")
            raise ProgramError(
                f"Variable '{variable.name()}' is declared {structured or 'complex'}, which nonlinear programs do not "
                f"have: {remedy}."
            )
    for constraint in problem.constraints:
        if not isinstance(constraint, ELEMENTWISE):
            raise ProgramError(
                f"Constraint {short(constraint)} is a {type(constraint).__name__} cone; nonlinear programs take "
                "equalities and inequalities alone. State it by smooth inequalities, such as sum_squares(x) <= t**2 "
                "with t >= 0, or a semidefinite one by a factor, X == L @ L.T."
            )
    for node, _ in reach.nodes(problem):
        if type(node).__name__ in POWERS and node.p.parameters():
            raise ProgramError(
                f"Parameter '{node.p.parameters()[0].name()}' is the exponent of {short(node)}, with respect to which "
                "CVXPY's engine has no derivative. Write a power of a positive expression as cp.exp(p * cp.log(x))."
            )
    parameters = reach.Reach(problem).parameters
    for parameter in parameters:
        if parameter.is_complex():
            raise ProgramError(f"Parameter '{parameter.name()}' is complex. Use two real ones.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        follows = problem.is_dnlp()
    if not follows:
        raise ProgramError(
            "The problem does not follow the rules of disciplined nonlinear programs. The smallest part that does not: "
            f"{short(_culprit(problem))}. Nonsmooth convex atoms (abs, max, norms) may be bounded from above or "
            "minimized, concave ones the other way, and equalities must be smooth."
        )
    return parameters


def _culprit(problem: cp.Problem) -> Any:
    """The smallest part that breaks the rules though all its arguments keep them."""
    parts: tuple[Any, ...] = (problem.objective, *problem.constraints)
    part = next((part for part in parts if not part.is_dnlp()), problem)
    while True:
        smaller = next((arg for arg in getattr(part, "args", ()) if not _follows(arg)), None)
        if smaller is None:
            return part
        part = smaller


def _follows(expr: Any) -> bool:
    return bool(expr.is_linearizable_convex() or expr.is_linearizable_concave())
