"""Regularized argmax maps as CVXPY problems: argmax { θᵀz − temperature · Ω(z) : z ∈ C }, C a simplex, box or budget.

Each builder returns a `cp.Problem` whose variable is named ``z`` and whose parameters are named ``theta`` (scores) and,
where asked for, ``temperature``; find them by `variable` and `parameter`. Further CVXPY constraints may be added, and
everything else in cvxift applies to the problem as to any other. `structured` has those over other polytopes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.argmax.closed_form.carried import carry_separable
from cvxift.argmax.closed_form.kinds import Budget, Sigmoid, Tsallis
from cvxift.atoms import fused, gini, neg_entropy, oscar, relative_entropy, tsallis_neg_entropy
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


def softmax(n: int, temperature: Temperature = 1.0, prior: Any | None = None) -> cp.Problem:
    """Softmax: the simplex with Shannon's entropy, or with the relative entropy to a prior.

    Args:
        n: length.
        temperature: > 0, or a nonnegative parameter.
        prior: q > 0 of length n, numbers or a nonnegative parameter, for z ∝ q exp(θ / temperature); None for none.

    Returns:
        The problem.

    Raises:
        ProgramError: n < 1, or the temperature or the prior cannot be used.

    Source: Boltzmann 1868.

    Example:
        >>> from cvxift import argmax
        >>> problem = argmax.softmax(3)
        >>> argmax.parameter(problem, "theta").value = [0.0, 0.0, 0.0]
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3)
        array([0.333, 0.333, 0.333])
    """
    z, theta = pair((size(n),))
    problem = over([cp.sum(z) == 1], theta, entropy(z, prior), z, temperature)
    return carry_separable(problem, z, theta, temperature, Tsallis(), prior=prior, total=1.0)


def sparsemax(n: int, temperature: Temperature = 1.0) -> cp.Problem:
    """Sparsemax: the simplex with Gini's entropy, a QP (arguments as for `softmax`).

    Source: Martins & Astudillo 2016.
    """
    return budget(n, 1.0, temperature=temperature, upper=None)


def entmax(n: int, alpha: float = 1.5, temperature: Temperature = 1.0) -> cp.Problem:
    """α-entmax: the simplex with Tsallis' entropy of order α ≥ 1 (other arguments as for `softmax`).

    Source: Peters, Niculae, Martins 2019.
    """
    z, theta = pair((size(n),))
    constraints = [cp.sum(z) == 1, z >= 0] if alpha == 2 else [cp.sum(z) == 1]
    regularizer = gini if alpha == 2 else lambda v: tsallis_neg_entropy(v, alpha)
    problem = over(constraints, theta, regularizer, z, temperature)
    if alpha == 1:
        return carry_separable(problem, z, theta, temperature, Tsallis(), total=1.0)
    kind, slope = Budget() if alpha == 2 else Tsallis(float(alpha)), -1.0 / (alpha * (alpha - 1.0))
    return carry_separable(problem, z, theta, temperature, kind, total=1.0, lower=0.0, slope=slope)


def fusedmax(n: int, weight: float = 0.1, temperature: Temperature = 1.0) -> cp.Problem:
    """Fusedmax: sparsemax with ``weight`` ≥ 0 times the total variation (other arguments as for `softmax`).

    Source: Niculae & Blondel 2017, section 3.2.
    """
    if not 0 <= weight < float("inf"):
        raise ProgramError(f"weight = {weight}; it must be ≥ 0.")
    z, theta = pair((size(n),))
    return over([cp.sum(z) == 1, z >= 0], theta, lambda v: gini(v) + weight * fused(v), z, temperature)


def oscarmax(n: int, weight: float = 0.1, temperature: Temperature = 1.0) -> cp.Problem:
    """Oscarmax: sparsemax with ``weight`` ≥ 0 times OSCAR's Σ_{i<j} max(z_i, z_j) (other arguments as for `softmax`).

    Source: Niculae & Blondel 2017, section 3.3.
    """
    if not 0 <= weight < float("inf"):
        raise ProgramError(f"weight = {weight}; it must be ≥ 0.")
    z, theta = pair((size(n),))
    return over([cp.sum(z) == 1, z >= 0], theta, lambda v: gini(v) + weight * oscar(v), z, temperature)


def constrained_softmax(n: int, upper: Any, temperature: Temperature = 1.0, prior: Any | None = None) -> cp.Problem:
    """Softmax under upper bounds, numbers or a parameter of length n (other arguments as for `softmax`).

    Source: Martins & Kreutzer 2017.
    """
    z, theta = pair((size(n),))
    _feasible(n, 1.0, 0.0, upper)
    problem = over([cp.sum(z) == 1, z <= upper], theta, entropy(z, prior), z, temperature)
    return carry_separable(problem, z, theta, temperature, Tsallis(), prior=prior, total=1.0, upper=upper)


def constrained_sparsemax(n: int, upper: Any, temperature: Temperature = 1.0) -> cp.Problem:
    """Sparsemax under upper bounds, numbers or a parameter of length n (other arguments as for `softmax`).

    Source: Malaviya, Ferreira, Martins 2018.
    """
    return budget(n, 1.0, upper=upper, temperature=temperature)


def budget(n: int, total: Any, *, upper: Any = 1.0, lower: Any = 0.0, temperature: Temperature = 1.0) -> cp.Problem:
    """Soft choice of ``total`` out of n: {l ≤ z ≤ u, Σ z = total} with Gini's entropy.

    Args:
        n: length.
        total: a number or a scalar parameter.
        upper: upper bounds (None: none), numbers or a parameter.
        lower: lower bounds, numbers or a parameter.
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem.

    Raises:
        ProgramError: the set is empty, or n < 1.

    Source: Amos, Koltun, Kolter 2019 (its entropic kin).

    Example:
        >>> import numpy as np
        >>> from cvxift import argmax
        >>> problem = argmax.budget(4, 2)
        >>> argmax.parameter(problem, "theta").value = np.array([3.0, 0.5, 0.4, -2.0])
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3) + 0.0
        array([1.  , 0.55, 0.45, 0.  ])
    """
    z, theta = pair((size(n),))
    _feasible(n, total, lower, np.inf if upper is None else upper)
    bounds = [z >= lower] + ([] if upper is None else [z <= upper])
    problem = over([cp.sum(z) == total, *bounds], theta, gini, z, temperature)
    return carry_separable(problem, z, theta, temperature, Budget(), total=total, lower=lower, upper=upper, slope=-0.5)


def box(n: int, temperature: Temperature = 1.0) -> cp.Problem:
    """Sigmoids: the box [0, 1]ⁿ with the entropy of each coordinate, z = 1/(1 + exp(−θ)) (arguments as for `softmax`).

    Source: Blondel, Martins, Niculae 2020, section 6.
    """
    z, theta = pair((size(n),))
    problem = over([], theta, lambda v: neg_entropy(v) + neg_entropy(1 - v), z, temperature)
    return carry_separable(problem, z, theta, temperature, Sigmoid())


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
    """The variable of that name in a problem."""
    return _named(problem.variables(), name)


def parameter(problem: cp.Problem, name: str = "theta") -> cp.Parameter:
    """The parameter of that name in a problem."""
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


def _feasible(n: int, total: Any, lower: Any, upper: Any) -> None:
    if any(isinstance(value, cp.Expression) for value in (total, lower, upper)):
        return
    low, high = (np.broadcast_to(np.asarray(bound, dtype=float), (n,)) for bound in (lower, upper))
    if (low > high).any():
        raise ProgramError("A lower bound exceeds its upper bound; the set is empty.")
    if not low.sum() <= total <= high.sum():
        raise ProgramError(f"No z within the bounds sums to {total}: the sums run from {low.sum()} to {high.sum()}.")
