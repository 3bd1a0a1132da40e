"""The canonical program against CVXPY's own expressions, at a point that was found.

A canonicalization that loses a parameter, takes a sum for another, or adds a constraint of its own yields a program
whose solution passes every check of optimality, and is the solution of another problem. So the user's objective and
constraints are evaluated as CVXPY writes them, at the user's variables of the point, and compared with what the
canonical program says of the same point. Variables and parameters hold again afterwards what they held.

The tolerance. Let ε be the relative residual that the point was accepted with. In the canonical program the objective
is off by at most a moderate multiple of ε in the units of its terms, and a row by ε in the units of the largest row,
for an atom's rows feed into the user's; `FACTOR` ε covers both, and `AGREE` stands for points of residual zero. An atom
that CVXPY approximates says by how much.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.constraints.constraint import Constraint
from cvxpy.constraints.exponential import ExpCone
from cvxpy.constraints.nonpos import Inequality, NonNeg, NonPos
from cvxpy.constraints.power import PowCone3D
from cvxpy.constraints.psd import PSD
from cvxpy.constraints.second_order import SOC
from cvxpy.constraints.zero import Equality, Zero

from cvxift.errors import ProgramError
from cvxift.program.messages import short
from cvxift.program.structure import Data, Floats

if TYPE_CHECKING:
    from cvxift.program.program import Program

AGREE = 1e-6  # relative to the terms compared
FACTOR = 1e3  # times the residual of the point
NUDGE = 1e-7  # relative; an expression that is infinite or undefined at the edge of its domain is tried beside it


def check_agreement(program: Program, data: Data, theta: Floats, x: Floats, residual: float) -> None:
    """Refuse a point at which the canonical program and the user's expressions disagree.

    Args:
        program: the problem's program.
        data: its data at θ, unbatched.
        theta: in the user's units, shape (N,).
        x: the canonical point, shape (n,).
        residual: worst relative residual that the point was accepted with.

    Raises:
        ProgramError: names the objective or the constraint, and both values.
    """
    problem = program.problem
    ours = float(program.primal_value(data, x))
    held: dict[Any, Any] = {**program.values(x, theta)}
    held |= {p: theta[program.offsets[p]].reshape(p.shape) for p in program.parameters}
    approximation = program.approximation
    if approximation is None:
        return
    tolerance = AGREE + FACTOR * residual + 10.0 * approximation
    structure = program.structure
    with _holding(held), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        theirs = _value(problem.objective.expr, held)
        theirs = (
            None if theirs is None else np.asarray(theirs).item()
        )  # CVXPY admits objectives of shape (1,) and (1, 1)
        terms = np.abs(data.P * x[structure.P_rows] * x[structure.P_cols]).sum() / 2 + np.abs(data.q) @ np.abs(x)
        # With gp=True the canonical objective is the logarithm of the user's.
        scale = 1.0 + abs(ours) if not program.objective_exp else abs(ours) * (1.0 + abs(np.log(ours)))
        scale += 0.0 if program.objective_exp else float(terms) + abs(float(data.d))
        if theirs is not None and not abs(theirs - ours) <= tolerance * scale:
            raise ProgramError(_words(f"the objective {short(problem.objective)}", theirs, ours))
        rows = np.abs(data.b) + np.bincount(
            structure.A_rows, np.abs(data.A) * np.abs(x[structure.A_cols]), minlength=structure.m
        )
        largest = 1.0 + rows[np.isfinite(rows)].max(initial=0.0)
        for number, constraint in enumerate(problem.constraints):
            violation, size = _violation(constraint, held)
            if violation > tolerance * (1.0 + size) + FACTOR * residual * largest:
                what = f"the violation of constraint {number} ({short(constraint)})"
                raise ProgramError(_words(what, violation, 0.0))


def _words(what: str, theirs: float, ours: float) -> str:
    return (
        f"CVXPY's canonical form says something else than the problem: at the solution found, {what} is {theirs:.9g} "
        f"by CVXPY's own expressions and {ours:.9g} in the canonical program. The solution is not the problem's. This "
        'is a fault of the canonicalization: try another one with canon_backend="SCIPY" or "CPP", or write the '
        "expression in another way."
    )


@contextlib.contextmanager
def _holding(values: Mapping[Any, Any]) -> Iterator[None]:
    """Within, leaves hold these values; afterwards what they held."""
    before = {leaf: leaf._value for leaf in values}
    try:
        _hold(values)
        yield
    finally:
        for leaf, value in before.items():
            leaf._value = value


def _hold(values: Mapping[Any, Any]) -> None:
    for leaf, value in values.items():
        if leaf.sparse_idx is not None:
            leaf._value = np.asarray(value)[leaf.sparse_idx]
        else:
            leaf.save_value(value)


def _value(expr: Any, held: Mapping[Any, Any]) -> Floats | None:
    """An expression's value as a dense array; None where it cannot be told, at the edge of a domain."""
    value = _evaluated(expr)
    if value is not None and np.isfinite(value).all():
        return value
    for sign in (1.0, -1.0):
        moved = {
            leaf: at + sign * NUDGE * (1.0 + np.abs(at)) if isinstance(leaf, cp.Variable) else at
            for leaf, at in held.items()
        }
        _hold(moved)
        beside = _evaluated(expr)
        _hold(held)
        if beside is None or np.isfinite(beside).all():
            return None
    return value


def _evaluated(expr: Any) -> Floats | None:
    try:
        value = expr.value
    except Exception:  # noqa: BLE001  # atoms raise whatever NumPy, or a solver inside them, raises off their domain
        return None
    if value is None:
        return None
    return np.asarray(value.toarray() if sp.issparse(value) else value, dtype=float)


def _violation(constraint: Constraint, held: Mapping[Any, Any]) -> tuple[float, float]:
    """By how much a constraint's own expressions break it, and the size of what they compare; zero where unknown."""
    found = [_value(arg, held) for arg in constraint.args]
    if any(value is None for value in found):
        return 0.0, 0.0
    args = [np.asarray(value) for value in found]
    size = max((float(np.abs(arg[np.isfinite(arg)]).max(initial=0.0)) for arg in args), default=0.0)
    return float(np.max(_excess(constraint, args), initial=0.0)), size


def _excess(constraint: Any, args: list[Floats]) -> Floats:
    """What is positive where a constraint is broken, at the values of its arguments."""
    if isinstance(constraint, Equality | Zero):
        return np.abs(args[0] - args[1]) if len(args) == 2 else np.abs(args[0])
    if isinstance(constraint, Inequality):
        return args[0] - args[1]
    if isinstance(constraint, NonPos | NonNeg):
        return args[0] if isinstance(constraint, NonPos) else -args[0]
    if isinstance(constraint, PSD):
        return -np.asarray(np.linalg.eigvalsh((args[0] + np.swapaxes(args[0], -1, -2)) / 2), dtype=float)
    if isinstance(constraint, SOC):
        matrix = args[1] if args[1].ndim > 1 else args[1].reshape(-1, 1) if constraint.axis == 0 else args[1][None]
        return np.linalg.norm(matrix, axis=constraint.axis).ravel() - args[0].ravel()
    if isinstance(constraint, ExpCone):
        x, y, z = args
        inside = y > 0
        return np.where(inside, y * np.exp(np.minimum(x / np.where(inside, y, 1.0), 500.0)) - z, np.maximum(-y, -z))
    if isinstance(constraint, PowCone3D):
        x, y, z = (np.asarray(arg).ravel() for arg in args[:3])
        alpha = np.ravel(np.asarray(constraint.alpha.value, dtype=float))
        return np.abs(z) - np.maximum(x, 0.0) ** alpha * np.maximum(y, 0.0) ** (1.0 - alpha)
    return np.zeros(1)
