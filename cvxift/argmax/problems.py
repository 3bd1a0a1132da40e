"""Regularized argmax maps as CVXPY problems: argmax { θᵀz − temperature · Ω(z) : z ∈ C }.

Each builder returns a `cp.Problem` whose variable is named ``z`` and whose parameters are named ``theta`` (scores) and,
where asked for, ``temperature``; find them by `variable` and `parameter`. Further CVXPY constraints may be added, and
everything else in cvxift applies to the problem as to any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import cvxpy as cp
import numpy as np

from cvxift.atoms import fused, gini, neg_entropy, tsallis_neg_entropy
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
        ProgramError: shapes differ, Ω is not convex, the temperature is not positive.

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
    if not omega.is_convex():
        raise ProgramError("regularizer must return a convex CVXPY expression of z.")
    if isinstance(temperature, cp.Parameter):
        if not temperature.is_nonneg():
            raise ProgramError("temperature must be a nonnegative parameter: cp.Parameter(nonneg=True).")
    elif not 0 < temperature < float("inf"):
        raise ProgramError(f"temperature = {temperature}; it must be > 0.")
    return cp.Problem(cp.Maximize(cp.sum(cp.multiply(theta, z)) - temperature * omega), list(constraints))


def softmax(n: int, temperature: Temperature = 1.0) -> cp.Problem:
    """Softmax: the simplex with Shannon's entropy.

    Args:
        n: length.
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem.

    Source: Boltzmann 1868.

    Example:
        >>> from cvxift import argmax
        >>> problem = argmax.softmax(3)
        >>> argmax.parameter(problem, "theta").value = [0.0, 0.0, 0.0]
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3)
        array([0.333, 0.333, 0.333])
    """
    z, theta = _pair((_size(n),))
    return over([cp.sum(z) == 1], theta, neg_entropy, z, temperature)


def sparsemax(n: int, temperature: Temperature = 1.0) -> cp.Problem:
    """Sparsemax: the simplex with Gini's entropy, a QP (arguments as for `softmax`).

    Source: Martins & Astudillo 2016.
    """
    return budget(n, 1.0, temperature=temperature, upper=None)


def entmax(n: int, alpha: float = 1.5, temperature: Temperature = 1.0) -> cp.Problem:
    """α-entmax: the simplex with Tsallis' entropy of order α ≥ 1 (other arguments as for `softmax`).

    Source: Peters, Niculae, Martins 2019.
    """
    z, theta = _pair((_size(n),))
    constraints = [cp.sum(z) == 1, z >= 0] if alpha == 2 else [cp.sum(z) == 1]
    regularizer = gini if alpha == 2 else lambda v: tsallis_neg_entropy(v, alpha)
    return over(constraints, theta, regularizer, z, temperature)


def fusedmax(n: int, weight: float = 0.1, temperature: Temperature = 1.0) -> cp.Problem:
    """Fusedmax: sparsemax with ``weight`` ≥ 0 times the total variation (other arguments as for `softmax`).

    Source: Niculae & Blondel 2017, section 3.2.
    """
    if not 0 <= weight < float("inf"):
        raise ProgramError(f"weight = {weight}; it must be ≥ 0.")
    z, theta = _pair((_size(n),))
    return over([cp.sum(z) == 1, z >= 0], theta, lambda v: gini(v) + weight * fused(v), z, temperature)


def constrained_softmax(n: int, upper: Any, temperature: Temperature = 1.0) -> cp.Problem:
    """Softmax under upper bounds, numbers or a parameter of length n (other arguments as for `softmax`).

    Source: Martins & Kreutzer 2017.
    """
    z, theta = _pair((_size(n),))
    _feasible(n, 1.0, 0.0, upper)
    return over([cp.sum(z) == 1, z <= upper], theta, neg_entropy, z, temperature)


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
    z, theta = _pair((_size(n),))
    _feasible(n, total, lower, np.inf if upper is None else upper)
    bounds = [z >= lower] + ([] if upper is None else [z <= upper])
    return over([cp.sum(z) == total, *bounds], theta, gini, z, temperature)


def box(n: int, temperature: Temperature = 1.0) -> cp.Problem:
    """Sigmoids: the box [0, 1]ⁿ with the entropy of each coordinate, z = 1/(1 + exp(−θ)) (arguments as for `softmax`).

    Source: Blondel, Martins, Niculae 2020, section 6.
    """
    z, theta = _pair((_size(n),))
    return over([], theta, lambda v: neg_entropy(v) + neg_entropy(1 - v), z, temperature)


def transport(
    a: Any, b: Any, regularizer: Literal["entropic", "quadratic"] = "entropic", temperature: Temperature = 1.0
) -> cp.Problem:
    """Optimal transport plans: {Z ≥ 0, Z1 = a, Zᵀ1 = b}; θ are minus the costs.

    Args:
        a: row sums (m,), numbers or a parameter.
        b: column sums (n,), with the same total.
        regularizer: ``"entropic"`` (Sinkhorn) or ``"quadratic"`` (sparse plans).
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem, its variable of shape (m, n).

    Raises:
        ProgramError: the totals differ, an entry is negative, or the regularizer is unknown.

    Source: Cuturi 2013; Blondel, Seguy, Rolet 2018.

    Example:
        >>> import numpy as np
        >>> from cvxift import argmax
        >>> problem = argmax.transport(np.array([0.5, 0.5]), np.array([0.5, 0.5]), "quadratic")
        >>> argmax.parameter(problem, "theta").value = np.eye(2)
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3) + 0.0
        array([[0.5, 0. ],
               [0. , 0.5]])
    """
    rows, columns = (p if isinstance(p, cp.Expression) else np.asarray(p, dtype=float) for p in (a, b))
    _check_sums(rows, columns)
    if regularizer not in ("entropic", "quadratic"):
        raise ProgramError(f"regularizer = {regularizer!r}; expected 'entropic' or 'quadratic'.")
    z, theta = _pair((rows.shape[0], columns.shape[0]))
    column_sums: Any = cp.sum(z, axis=0)
    sums = [cp.sum(z, axis=1) == rows, column_sums[:-1] == columns[:-1]]  # the last column's follows
    if regularizer == "entropic":
        return over(sums, theta, neg_entropy, z, temperature)
    return over([*sums, z >= 0], theta, gini, z, temperature)


def birkhoff(n: int, regularizer: Literal["entropic", "quadratic"] = "entropic", temperature: Temperature = 1.0):
    """Soft permutations: doubly stochastic n × n matrices (arguments as for `transport`).

    Source: Mena et al. 2018.
    """
    return transport(np.ones(_size(n)), np.ones(n), regularizer, temperature)


def permutahedron(n: int, values: Any | None = None, temperature: Temperature = 1.0) -> cp.Problem:
    """Soft ranks: the projection of θ/temperature onto the convex hull of the permutations of ``values``.

    Args:
        n: length.
        values: decreasing or not, (n,); None for 1, …, n, which gives soft ranks (the largest score has rank n).
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem: for k < n the k largest entries of z sum to at most the k largest values.

    Raises:
        ProgramError: ``values`` has another shape.

    Source: Blondel, Teboul, Berthet, Djolonga 2020.

    Example:
        >>> import numpy as np
        >>> from cvxift import argmax
        >>> problem = argmax.permutahedron(3)
        >>> argmax.parameter(problem, "theta").value = np.array([10.0, -10.0, 0.0])
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3)
        array([3., 1., 2.])
    """
    z, theta = _pair((_size(n),))
    w = np.arange(1.0, n + 1) if values is None else np.asarray(values, dtype=float)
    if w.shape != (n,):
        raise ProgramError(f"values has shape {w.shape}; expected ({n},).")
    heads = np.cumsum(np.sort(w)[::-1])
    tops = [cp.sum_largest(z, k) <= heads[k - 1] for k in range(1, n)]
    return over([cp.sum(z) == heads[-1], *tops], theta, lambda v: 0.5 * cp.sum_squares(v), z, temperature)


def linear_chain(length: int, states: int) -> cp.Problem:
    """Marginals of a linear-chain CRF: maximize scores plus entropy over the local marginal polytope.

    The entropy of a chain is H(first state) + Σ H(next state | state), concave through relative entropies.

    Args:
        length: positions T ≥ 2.
        states: states S.

    Returns:
        The problem: variables ``z`` (T, S) and ``pair_t`` (S, S), parameters ``theta`` (T, S) and ``pairwise_t`` (S, S)
        for t = 0, …, T−2.

    Raises:
        ProgramError: a size is too small.

    Source: Wainwright & Jordan 2008, section 4.1.

    Example:
        >>> import numpy as np
        >>> from cvxift import argmax
        >>> problem = argmax.linear_chain(2, 2)
        >>> for p in problem.parameters():
        ...     p.value = np.zeros((2, 2))
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3)
        array([[0.5, 0.5],
               [0.5, 0.5]])
    """
    if length < 2:
        raise ProgramError(f"length = {length}; a chain has at least 2 positions.")
    z, theta = _pair((length, _size(states)))
    objective: Any = cp.sum(cp.multiply(theta, z)) + cp.sum(cp.entr(z[0]))
    constraints: list[Any] = [cp.sum(z[0]) == 1]
    ones = np.ones((1, states))
    for t in range(length - 1):
        pair = cp.Variable((states, states), name=f"pair_{t}")
        scores = cp.Parameter((states, states), name=f"pairwise_{t}")
        constraints += [cp.sum(pair, axis=1) == z[t], cp.sum(pair, axis=0) == z[t + 1]]
        origin = cp.reshape(z[t], (states, 1), order="F") @ ones
        objective += cp.sum(cp.multiply(scores, pair)) - cp.sum(cp.rel_entr(pair, origin))
    return cp.Problem(cp.Maximize(objective), constraints)


def flow(edges: Sequence[tuple[int, int]], source: int, sink: int, temperature: Temperature = 1.0) -> cp.Problem:
    """Soft shortest path: unit flows from source to sink with Gini's entropy; θ are minus the edges' lengths.

    Args:
        edges: directed edges (tail, head) between nodes 0, 1, ….
        source: the path's first node.
        sink: its last.
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem, z the flow on each edge.

    Raises:
        ProgramError: no path leads from source to sink.

    Source: Berthet et al. 2020 (the polytope).

    Example:
        >>> import numpy as np
        >>> from cvxift import argmax
        >>> problem = argmax.flow([(0, 1), (1, 2), (0, 2)], 0, 2)
        >>> argmax.parameter(problem, "theta").value = np.array([-1.0, -1.0, -3.0])
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3)
        array([0.833, 0.833, 0.167])
    """
    if not _reaches(edges, source, sink):
        raise ProgramError(f"No path leads from node {source} to node {sink}; the flow polytope is empty.")
    nodes = 1 + max(max(edge) for edge in edges)
    incidence = np.zeros((nodes, len(edges)))
    for e, (tail, head) in enumerate(edges):
        incidence[tail, e] += 1.0
        incidence[head, e] -= 1.0
    supply = np.zeros(nodes)
    supply[source], supply[sink] = 1.0, -1.0
    z, theta = _pair((len(edges),))
    keep = np.arange(nodes) != sink  # the sink's balance follows from the others
    return over([incidence[keep] @ z == supply[keep], z >= 0, z <= 1], theta, gini, z, temperature)


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


def _pair(shape: tuple[int, ...]) -> tuple[cp.Variable, cp.Parameter]:
    return cp.Variable(shape, name="z"), cp.Parameter(shape, name="theta")


def _size(n: int) -> int:
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


def _check_sums(rows: Any, columns: Any) -> None:
    if isinstance(rows, cp.Expression) or isinstance(columns, cp.Expression):
        return
    if min(rows.min(), columns.min()) < 0 or not np.isclose(rows.sum(), columns.sum(), rtol=1e-9):
        raise ProgramError(
            f"a and b must be ≥ 0 with equal totals; they sum to {rows.sum()} and {columns.sum()}: no plan exists."
        )


def _reaches(edges: Sequence[tuple[int, int]], source: int, sink: int) -> bool:
    reached, frontier = {source}, [source]
    while frontier:
        node = frontier.pop()
        for tail, head in edges:
            if tail == node and head not in reached:
                reached.add(head)
                frontier.append(head)
    return sink in reached and source != sink
