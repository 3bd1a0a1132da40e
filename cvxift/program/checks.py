"""What a problem must be: real, continuous, convex, and DPP. Each refusal names the part that is not."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import cvxpy as cp
from cvxpy.atoms.affine.binary_operators import MulExpression, multiply
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.constraints.finite_set import FiniteSet
from cvxpy.expressions.leaf import Leaf
from cvxpy.utilities import scopes

from cvxift.errors import ProgramError
from cvxift.program.messages import short
from cvxift.program.reach import Reach

# Since CVXPY 1.9 a parameter may be the matrix of a quadratic form in the objective.
PARAMETRIC_QUADRATIC = hasattr(scopes, "quad_form_dpp_scope")


def check_problem(problem: Any, gp: bool) -> Reach:
    """Refuse what cannot be differentiated through a parametrized conic program.

    Args:
        problem: what the user passed.
        gp: whether it is to be read as a geometric program.

    Returns:
        What the problem reaches: its parameters, with those that CVXPY does not list.

    Raises:
        ProgramError: naming the offending variable, constraint or subexpression, and what to do.
    """
    check_continuous(problem)
    reach = Reach(problem)
    for leaf in (*problem.variables(), *reach.parameters):
        if leaf.is_complex():
            kind = "Variable" if isinstance(leaf, cp.Variable) else "Parameter"
            raise ProgramError(
                f"{kind} '{leaf.name()}' is complex, which is not taken here (in sweeps, with gp, nlp, integers). Use "
                "two real ones for its real and imaginary parts: x + 1j * y."
            )
    _check_curvature(problem, gp)
    _check_dpp(problem, gp)
    return reach


def check_listed(parameters: Any, variables: Any) -> None:
    """Refuse what is no list of parameters and list of variables, as a layer takes them.

    Raises:
        ProgramError: says what was passed.
    """
    for name, value, kind in (("parameters", parameters, cp.Parameter), ("variables", variables, cp.Variable)):
        listed = isinstance(value, (list, tuple))
        if not listed or not all(isinstance(item, kind) for item in value):
            kinds = [type(item).__name__ for item in value] if listed else type(value).__name__
            raise ProgramError(
                f"{name} must be provided as a list or tuple of cp.{kind.__name__}; got {kinds}. The order is "
                "CvxpyLayer(problem, parameters, variables)."
            )
    if not variables:
        raise ProgramError("variables is empty: name at least one variable or dual variable to return.")


def check_continuous(problem: Any) -> None:
    """Refuse what is no problem in continuous variables.

    Raises:
        ProgramError: naming the variable or constraint.
    """
    if not isinstance(problem, cp.Problem):
        raise ProgramError(
            f"Expected a cp.Problem, got {type(problem).__name__}. Build one: cp.Problem(objective, constraints)."
        )
    if not problem.variables():
        raise ProgramError("The problem has no variables, so there is nothing to solve for or to differentiate.")
    for variable in problem.variables():
        kind = next((name for name in ("boolean", "integer") if variable.attributes[name]), None)
        if kind is not None:
            raise ProgramError(
                f"Variable '{variable.name()}' is {kind}. Pass integers='fixed' to hold the integers at their optimum "
                "and differentiate the other variables; or relax it: a boolean variable becomes one with bounds=[0, 1]."
            )
    for constraint in problem.constraints:
        if isinstance(constraint, FiniteSet):
            raise ProgramError(
                f"Constraint {short(constraint)} restricts an expression to finitely many values, which makes it an "
                "integer program."
            )


def _check_curvature(problem: cp.Problem, gp: bool) -> None:
    follows = problem.is_dgp() if gp else problem.is_dcp()
    if follows:
        return
    rules = "DGP" if gp else "DCP"
    culprit = _smallest(problem, _rule(gp, dpp=False))
    hint = ""
    if not gp and problem.is_dgp():
        hint = " It does follow the rules of geometric programs: pass gp=True."
    elif not gp and _nonlinear(problem):
        hint = " It does follow the rules of nonlinear programs: pass nlp=True, for a local solution."
    elif gp and problem.is_dcp():
        hint = " It does follow the DCP rules: pass gp=False."
    raise ProgramError(
        f"The problem does not follow the {rules} rules of convexity. "
        f"The smallest part that does not: {short(culprit)}.{hint}"
    )


def _check_dpp(problem: cp.Problem, gp: bool) -> None:
    if problem.is_dpp("dgp" if gp else "dcp"):  # pyright: ignore[reportCallIssue]
        return
    # The wider rule is not a superset: it refuses parameters in the argument of a quadratic form.
    if PARAMETRIC_QUADRATIC and not gp and problem.is_dpp("dcp", quad_form_dpp="qp"):  # pyright: ignore[reportCallIssue]
        return
    culprit = _parameter_part(_smallest(problem, _rule(gp, dpp=True)), gp)
    raise ProgramError(
        "The problem is not DPP: its data are not affine in the parameters. "
        f"The smallest part that breaks the rule: {short(culprit)}. {_remedy(culprit, gp)}"
        + (" Or pass nlp=True, which takes parameters anywhere." if not gp and _nonlinear(problem) else "")
    )


def _nonlinear(problem: cp.Problem) -> bool:
    """Whether a problem follows CVXPY's rules of nonlinear programs; before version 1.9 it has none."""
    parts = [problem, *problem.constraints]  # matrix and exponential cones have no such rule
    if not all(hasattr(part, "is_dnlp") for part in parts):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(problem.is_dnlp())


def _rule(gp: bool, dpp: bool) -> Callable[[Any], bool]:
    if gp:
        return lambda part: part.is_dgp(dpp=dpp)
    return lambda part: part.is_dcp(dpp=dpp)


def _smallest(problem: cp.Problem, follows: Callable[[Any], bool]) -> Any:
    """The smallest subexpression that breaks a rule though all its arguments keep it."""
    with _objective_scope():
        if not follows(problem.objective):
            return _descend(problem.objective, follows)
    for constraint in problem.constraints:
        if not follows(constraint):
            return _descend(constraint, follows)
    for variable in problem.variables():
        for bound in variable.attributes["bounds"] or ():
            if isinstance(bound, cp.Expression) and not follows(variable):
                return _descend(bound, follows)
    return problem


def _descend(part: Any, follows: Callable[[Any], bool]) -> Any:
    for arg in part.args:
        if not isinstance(arg, Leaf) and not follows(arg):
            return _descend(arg, follows)
    return part


def _parameter_part(culprit: Any, gp: bool) -> Any:
    """The function of parameters alone that spoils a product, if there is one."""
    for arg in culprit.args:
        if isinstance(arg, cp.Expression) and not isinstance(arg, Leaf) and arg.parameters() and not arg.variables():
            with scopes.dpp_scope():
                affine = arg.is_log_log_affine() if gp else arg.is_affine()
            if not affine:
                return _parameter_part(arg, gp)
    return culprit


@contextlib.contextmanager
def _objective_scope() -> Iterator[None]:
    if PARAMETRIC_QUADRATIC:
        with scopes.quad_form_dpp_scope():
            yield
    else:
        yield


def _remedy(culprit: Any, gp: bool) -> str:
    if isinstance(culprit, QuadForm) and not culprit.args[1].parameters():
        return "Put its argument into a new variable: cp.quad_form(y, P) with the constraint y == argument."
    if isinstance(culprit, QuadForm):
        where = "" if PARAMETRIC_QUADRATIC else " (in the objective, CVXPY 1.9 or later accepts it)"
        return (
            "A quadratic form in a constraint needs a constant matrix: write cp.sum_squares(L.T @ x) with a parameter "
            f"L such that L @ L.T is the matrix{where}."
        )
    bounded = [v for v in getattr(culprit, "variables", list)() if v.parameters()]
    if bounded:
        return (
            f"CVXPY counts the parametric bounds of variable '{bounded[0].name()}' as parameters of every expression "
            "of it: state them as constraints instead."
        )
    if isinstance(culprit, MulExpression | multiply) and all(arg.parameters() for arg in culprit.args):
        return "Replace the product of parameters by one parameter that holds its value."
    if getattr(culprit, "variables", list)():
        return (
            "Parameters must enter affinely, in products (@, *, cp.multiply) of which one factor holds parameters and "
            "the other variables. Put the part that holds them into a parameter of its own, or into a new variable "
            "tied to it by an equality; write out atoms of a parameter and a variable, such as cp.kron, by products."
        )
    kind = "log-log affine" if gp else "affine"
    return f"It is not {kind} in the parameters: replace it by one parameter that holds its value."
