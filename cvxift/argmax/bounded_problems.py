"""Regularized argmax maps with bounds on each entry as CVXPY problems; see `problems`."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.argmax.closed_form.carried import carry_separable
from cvxift.argmax.closed_form.kinds import Budget, Sigmoid, Tsallis
from cvxift.argmax.problems import Temperature, entropy, over, pair, size
from cvxift.atoms import gini, neg_entropy
from cvxift.errors import ProgramError


def constrained_softmax(n: int, upper: Any, temperature: Temperature = 1.0, prior: Any | None = None) -> cp.Problem:
    """Softmax under upper bounds: {z ≤ u, Σ z = 1} with Shannon's entropy.

    Args:
        n: length.
        upper: u, a number, n numbers, or a parameter of length n.
        temperature: > 0, or a nonnegative parameter.
        prior: as for `softmax`.

    Returns:
        The problem.

    Raises:
        ProgramError: no z within the bounds sums to 1, or the temperature or the prior cannot be used.

    Source: Martins & Kreutzer 2017.

    Example:
        >>> from cvxift import argmax
        >>> problem = argmax.constrained_softmax(3, upper=0.5)
        >>> argmax.parameter(problem).value = [1.0, 0.5, -1.0]
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3) + 0.0
        array([0.5  , 0.409, 0.091])
    """
    z, theta = pair((size(n),))
    _feasible(n, 1.0, 0.0, upper)
    problem = over([cp.sum(z) == 1, z <= upper], theta, entropy(z, prior), z, temperature)
    return carry_separable(problem, z, theta, temperature, Tsallis(), prior=prior, total=1.0, upper=upper)


def constrained_sparsemax(n: int, upper: Any, temperature: Temperature = 1.0) -> cp.Problem:
    """Sparsemax under upper bounds: {0 ≤ z ≤ u, Σ z = 1} with Gini's entropy.

    Args:
        n: length.
        upper: u, a number, n numbers, or a parameter of length n.
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem.

    Raises:
        ProgramError: no z within the bounds sums to 1, or the temperature is not positive.

    Source: Malaviya, Ferreira, Martins 2018.

    Example:
        >>> from cvxift import argmax
        >>> problem = argmax.constrained_sparsemax(3, upper=0.6)
        >>> argmax.parameter(problem).value = [1.0, 0.5, -1.0]
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3) + 0.0
        array([0.6, 0.4, 0. ])
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
    """Sigmoids: the box [0, 1]ⁿ with the entropy of each coordinate, z = 1 / (1 + exp(−θ / temperature)).

    Args:
        n: length.
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem.

    Raises:
        ProgramError: n < 1, or the temperature is not positive.

    Source: Blondel, Martins, Niculae 2020, section 6.

    Example:
        >>> from cvxift import argmax
        >>> problem = argmax.box(3)
        >>> argmax.parameter(problem).value = [1.0, 0.5, -1.0]
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3) + 0.0
        array([0.731, 0.622, 0.269])
    """
    z, theta = pair((size(n),))
    problem = over([], theta, lambda v: neg_entropy(v) + neg_entropy(1 - v), z, temperature)
    return carry_separable(problem, z, theta, temperature, Sigmoid())


def _feasible(n: int, total: Any, lower: Any, upper: Any) -> None:
    if any(isinstance(value, cp.Expression) for value in (total, lower, upper)):
        return
    low, high = (np.broadcast_to(np.asarray(bound, dtype=float), (n,)) for bound in (lower, upper))
    if (low > high).any():
        raise ProgramError("A lower bound exceeds its upper bound; the set is empty.")
    if not low.sum() <= total <= high.sum():
        raise ProgramError(f"No z within the bounds sums to {total}: the sums run from {low.sum()} to {high.sum()}.")
