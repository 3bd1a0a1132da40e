"""Regularized argmax maps over the simplex as CVXPY problems; see `problems`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp

from cvxift.argmax.bounded_problems import budget
from cvxift.argmax.closed_form.carried import carry_separable
from cvxift.argmax.closed_form.kinds import Budget, Tsallis
from cvxift.argmax.problems import Temperature, entropy, over, pair, size
from cvxift.atoms import fused, gini, oscar, tsallis_neg_entropy
from cvxift.errors import ProgramError


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
    """Sparsemax: the simplex with Gini's entropy, a QP; the nearest point of the simplex to θ / temperature.

    Args:
        n: length.
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem.

    Raises:
        ProgramError: n < 1, or the temperature is not positive.

    Source: Martins & Astudillo 2016.

    Example:
        >>> from cvxift import argmax
        >>> problem = argmax.sparsemax(3)
        >>> argmax.parameter(problem).value = [1.0, 0.5, -1.0]
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3) + 0.0
        array([0.75, 0.25, 0.  ])
    """
    return budget(n, 1.0, temperature=temperature, upper=None)


def entmax(n: int, alpha: float = 1.5, temperature: Temperature = 1.0) -> cp.Problem:
    """α-entmax: the simplex with Tsallis' entropy of order α; softmax at α = 1, sparsemax at α = 2.

    Args:
        n: length.
        alpha: α ≥ 1.
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem.

    Raises:
        ProgramError: n < 1, α < 1, or the temperature is not positive.

    Source: Peters, Niculae, Martins 2019.

    Example:
        >>> from cvxift import argmax
        >>> problem = argmax.entmax(3, alpha=1.5)
        >>> argmax.parameter(problem).value = [1.0, 0.5, -1.0]
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3) + 0.0
        array([0.674, 0.326, 0.   ])
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
    """Fusedmax: sparsemax plus weight times the total variation Σ |z_{i+1} − z_i|; neighbours get equal weights.

    Args:
        n: length.
        weight: ≥ 0.
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem.

    Raises:
        ProgramError: n < 1, or the weight or the temperature cannot be used.

    Source: Niculae & Blondel 2017, section 3.2.

    Example:
        >>> from cvxift import argmax
        >>> problem = argmax.fusedmax(3, weight=0.2)
        >>> argmax.parameter(problem).value = [1.0, 0.5, -1.0]
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3) + 0.0
        array([0.65, 0.35, 0.  ])
    """
    return _penalized(n, weight, fused, temperature)


def oscarmax(n: int, weight: float = 0.1, temperature: Temperature = 1.0) -> cp.Problem:
    """Oscarmax: sparsemax plus weight times Σ_{i<j} max(z_i, z_j); entries with similar scores get equal weights.

    Args:
        n: length.
        weight: ≥ 0.
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem.

    Raises:
        ProgramError: n < 1, or the weight or the temperature cannot be used.

    Source: Niculae & Blondel 2017, section 3.3.

    Example:
        >>> from cvxift import argmax
        >>> problem = argmax.oscarmax(3, weight=0.2)
        >>> argmax.parameter(problem).value = [1.0, 0.5, -1.0]
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3) + 0.0
        array([0.65, 0.35, 0.  ])
    """
    return _penalized(n, weight, oscar, temperature)


def _penalized(n: int, weight: float, penalty: Callable[[Any], Any], temperature: Temperature) -> cp.Problem:
    """Sparsemax plus weight times a penalty on z."""
    if not 0 <= weight < float("inf"):
        raise ProgramError(f"weight = {weight}; it must be ≥ 0.")
    z, theta = pair((size(n),))
    return over([cp.sum(z) == 1, z >= 0], theta, lambda v: gini(v) + weight * penalty(v), z, temperature)
