"""Regularized argmax maps as CVXPY problems: argmax { θᵀz − temperature · Ω(z) : z ∈ C }, C any convex set.

Each builder returns a `cp.Problem` whose variable is named ``z`` and whose parameters are named ``theta`` (scores) and,
where asked for, ``temperature``; find them by `variable` and `parameter`. Further CVXPY constraints may be added, and
everything else in cvxift applies to the problem as to any other. `simplex_problems` has those over the simplex,
`bounded_problems` those with bounds, `structured` those over other polytopes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.atoms import neg_entropy, relative_entropy
from cvxift.errors import ProgramError

Regularizer = Callable[[Any], Any]
Temperature = float | cp.Parameter


def over(
    constraints: Sequence[Any], theta: Any, regularizer: Regularizer, z: cp.Variable, temperature: Temperature = 1.0
) -> cp.Problem:
    """Any regularized argmax: maximize ⟨θ, z⟩ − temperature · Ω(z) subject to constraints on z.

    Args:
        constraints: CVXPY constraints; any may be added.
        theta: scores of z's shape, usually a parameter.
        regularizer: Ω, a function of z that returns a convex expression.
        z: the variable.
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem.

    Raises:
        ProgramError: shapes differ, Ω is not a convex scalar, the temperature is not positive.

    A parameter times an expression with parameters is not DPP: where the temperature is one and Ω has others (a prior),
    Ω enters through a variable w ≥ Ω(z), which is tight for temperatures > 0.

    Source: Niculae & Blondel 2017; Blondel, Martins, Niculae 2020, section 3.

    Example:
        >>> import cvxpy as cp, numpy as np
        >>> from cvxift import argmax
        >>> from cvxift.atoms import gini
        >>> z, theta = cp.Variable(3, name="z"), cp.Parameter(3, name="theta", value=np.array([2.0, 1.0, 0.0]))
        >>> problem = argmax.over([cp.sum(z) == 1, z >= 0, z[0] <= z[1]], theta, gini, z)
        >>> _ = problem.solve(); z.value.round(4) + 0.0
        array([0.5, 0.5, 0. ])
    """
    if tuple(np.shape(theta) if not hasattr(theta, "shape") else theta.shape) != z.shape:
        raise ProgramError(f"theta has shape {np.shape(theta)}; expected that of z, {z.shape}.")
    omega = regularizer(z)
    if not isinstance(omega, cp.Expression) or omega.size != 1 or not omega.is_convex():
        raise ProgramError("regularizer must return a convex scalar CVXPY expression of z.")
    temperature = positive(temperature)
    constraints = list(constraints)
    if isinstance(temperature, cp.Parameter) and omega.parameters():
        bound = cp.Variable(name="omega")
        constraints.append(omega <= bound)
        omega = bound
    # ⟨θ, z⟩ as a product of vectors: CVXPY takes memory of their length squared for an entrywise product's parameters.
    score = cp.vec(theta, order="F") @ cp.vec(z, order="F") if z.ndim > 1 else theta @ z if z.ndim else theta * z
    return cp.Problem(cp.Maximize(score - temperature * omega), constraints)


def entropy(z: cp.Variable, prior: Any | None) -> Regularizer:
    """Shannon's negative entropy, or the relative entropy to a prior of z's shape.

    Args:
        z: the variable.
        prior: positive numbers, a nonnegative parameter, or None.

    Returns:
        A function of z.

    Raises:
        ProgramError: the prior has another shape or is not positive.
    """
    if prior is None:
        return neg_entropy
    if not isinstance(prior, cp.Expression):
        prior = np.asarray(prior, dtype=float)
        if not (np.isfinite(prior).all() and (prior > 0).all()):
            raise ProgramError("prior must be finite and > 0; where it is 0, fix z = 0 by a constraint.")
    elif not prior.is_nonneg():
        raise ProgramError("prior must be nonnegative: cp.Parameter(..., nonneg=True).")
    if tuple(prior.shape) != z.shape:
        raise ProgramError(f"prior has shape {tuple(prior.shape)}; expected that of z, {z.shape}.")
    return lambda v: relative_entropy(v, prior)


def positive(temperature: Temperature) -> Temperature:
    """The temperature, a positive number or a nonnegative parameter.

    Raises:
        ProgramError: it is neither.
    """
    if isinstance(temperature, cp.Parameter):
        if not temperature.is_nonneg():
            raise ProgramError("temperature must be a nonnegative parameter: cp.Parameter(nonneg=True).")
    elif not 0 < temperature < float("inf"):
        raise ProgramError(f"temperature = {temperature}; it must be > 0.")
    return temperature


def variable(problem: cp.Problem, name: str = "z") -> cp.Variable:
    """The variable of that name in a problem.

    Args:
        problem: any problem, such as those of this module.
        name: of the variable.

    Returns:
        The variable.

    Raises:
        ProgramError: there is none of that name; lists those that there are.

    Example:
        >>> from cvxift import argmax
        >>> argmax.variable(argmax.softmax(3)).shape
        (3,)
    """
    return _named(problem.variables(), name)


def parameter(problem: cp.Problem, name: str = "theta") -> cp.Parameter:
    """The parameter of that name in a problem.

    Args:
        problem: any problem, such as those of this module.
        name: of the parameter.

    Returns:
        The parameter.

    Raises:
        ProgramError: there is none of that name; lists those that there are.

    Example:
        >>> from cvxift import argmax
        >>> argmax.parameter(argmax.softmax(3)).shape
        (3,)
    """
    return _named(problem.parameters(), name)


def _named(leaves: Sequence[Any], name: str) -> Any:
    for leaf in leaves:
        if leaf.name() == name:
            return leaf
    raise ProgramError(f"The problem has none named '{name}'; it has: {', '.join(leaf.name() for leaf in leaves)}.")


def pair(shape: tuple[int, ...]) -> tuple[cp.Variable, cp.Parameter]:
    """The variable z and the parameter θ of that shape."""
    return cp.Variable(shape, name="z"), cp.Parameter(shape, name="theta")


def size(n: int) -> int:
    """n, at least 1.

    Raises:
        ProgramError: it is less.
    """
    if n < 1:
        raise ProgramError(f"n = {n}; the argmax needs at least one entry.")
    return n
