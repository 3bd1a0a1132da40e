"""Regularized argmax maps over structured polytopes, as CVXPY problems: plans, permutations, chains, paths.

As in `problems`, each has a variable named ``z`` and parameters ``theta`` and, where asked for, ``temperature``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import cvxpy as cp
import numpy as np

from cvxift.argmax.closed_form import carried
from cvxift.argmax.closed_form.carried import carry, carry_separable, plain
from cvxift.argmax.closed_form.kinds import Tsallis
from cvxift.argmax.problems import Temperature, entropy, over, pair, positive, size
from cvxift.atoms import gini, neg_entropy
from cvxift.errors import ProgramError


def transport(
    a: Any,
    b: Any,
    regularizer: Literal["entropic", "quadratic"] = "entropic",
    temperature: Temperature = 1.0,
    prior: Any | None = None,
) -> cp.Problem:
    """Optimal transport plans: {Z ≥ 0, Z1 = a, Zᵀ1 = b}; θ are minus the costs.

    Args:
        a: row sums (m,), numbers or a parameter.
        b: column sums (n,), with the same total.
        regularizer: ``"entropic"`` (Sinkhorn) or ``"quadratic"`` (sparse plans).
        temperature: > 0, or a nonnegative parameter.
        prior: a plan q > 0, (m, n), numbers or a nonnegative parameter, which the entropy is relative to; or None.

    Returns:
        The problem, its variable of shape (m, n).

    Raises:
        ProgramError: the totals differ, an entry is negative, the regularizer is unknown, or the prior cannot be used.

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
    z, theta = pair((rows.shape[0], columns.shape[0]))
    column_sums: Any = cp.sum(z, axis=0)
    sums = [cp.sum(z, axis=1) == rows, column_sums[:-1] == columns[:-1]]  # the last column's follows
    entropic = regularizer == "entropic"
    if not entropic and prior is not None:
        raise ProgramError("prior belongs to the entropic regularizer; for the quadratic one, add prior to theta.")
    bounds, omega = ([], entropy(z, prior)) if entropic else ([z >= 0], gini)
    problem = over([*sums, *bounds], theta, omega, z, temperature)
    if min(z.shape) < 2 or not plain(rows, columns, prior):
        return problem
    return carry(problem, (z,), partial(carried.plan, entropic, theta, temperature, prior, (rows, columns)))


def birkhoff(
    n: int, regularizer: Literal["entropic", "quadratic"] = "entropic", temperature: Temperature = 1.0
) -> cp.Problem:
    """Soft permutations: doubly stochastic n × n matrices, plans between n ones and n ones.

    Args:
        n: order of the matrices.
        regularizer: ``"entropic"`` (Sinkhorn) or ``"quadratic"`` (sparse matrices).
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem, its variable of shape (n, n).

    Raises:
        ProgramError: n < 1, the regularizer is unknown, or the temperature is not positive.

    Source: Mena et al. 2018.

    Example:
        >>> import numpy as np
        >>> from cvxift import argmax
        >>> problem = argmax.birkhoff(2, "quadratic")
        >>> argmax.parameter(problem).value = np.array([[2.0, 0.0], [0.0, 0.0]])
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3) + 0.0
        array([[1., 0.],
               [0., 1.]])
    """
    return transport(np.ones(size(n)), np.ones(n), regularizer, temperature)


def permutahedron(
    n: int,
    values: Any | None = None,
    temperature: Temperature = 1.0,
    regularizer: Literal["quadratic", "entropic"] = "quadratic",
) -> cp.Problem:
    """Soft ranks and soft sorting: the permutahedron, the convex hull of the permutations of ``values``.

    Args:
        n: length.
        values: numbers (n,) in any order, or a parameter whose entries decrease; None for 1, …, n, which gives soft
            ranks (the largest score has rank n). With scores n, …, 1, the values come out softly sorted.
        temperature: > 0, or a nonnegative parameter.
        regularizer: ``"quadratic"``, ½‖z‖², for the projection of θ / temperature; or ``"entropic"``, for values > 0.

    Returns:
        The problem: for k < n the k largest entries of z sum to at most the k largest values.

    Raises:
        ProgramError: ``values`` has another shape, or numbers that cannot be used; the regularizer is unknown.

    Source: Blondel, Teboul, Berthet, Djolonga 2020.

    Example:
        >>> import numpy as np
        >>> from cvxift import argmax
        >>> problem = argmax.permutahedron(3)
        >>> argmax.parameter(problem, "theta").value = np.array([10.0, -10.0, 0.0])
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3)
        array([3., 1., 2.])
    """
    z, theta = pair((size(n),))
    w: Any = values
    if not isinstance(values, cp.Expression):
        w = np.arange(1.0, n + 1) if values is None else np.asarray(values, dtype=float)
        if w.shape == (n,) and not np.isfinite(w).all():
            raise ProgramError("values must be finite numbers.")
        w = np.sort(w)[::-1] if w.shape == (n,) else w
        if regularizer == "entropic" and not (w > 0).all():
            raise ProgramError("values must be > 0 for the entropic regularizer.")
    if tuple(w.shape) != (n,):
        raise ProgramError(f"values has shape {tuple(w.shape)}; expected ({n},).")
    if regularizer not in ("entropic", "quadratic"):
        raise ProgramError(f"regularizer = {regularizer!r}; expected 'quadratic' or 'entropic'.")
    heads = [cp.sum(w[:k]) for k in range(1, n + 1)]
    tops = [cp.sum_largest(z, k) <= heads[k - 1] for k in range(1, n)]
    entropic = regularizer == "entropic"
    atom = neg_entropy if entropic else lambda v: 0.5 * cp.sum_squares(v)
    problem = over([cp.sum(z) == heads[-1], *tops], theta, atom, z, temperature)
    return carry(problem, (z,), partial(carried.permutahedron, entropic, theta, temperature, w))


def linear_chain(length: int, states: int, temperature: Temperature = 1.0) -> cp.Problem:
    """Marginals of a linear-chain CRF: maximize scores plus entropy over the local marginal polytope.

    The entropy of a chain is H(first state) + Σ H(next state | state), concave through relative entropies.

    Args:
        length: positions T ≥ 1.
        states: states S ≥ 1.
        temperature: > 0, or a nonnegative parameter.

    Returns:
        The problem: variables ``z`` (T, S) and ``pair_t`` (S, S), parameters ``theta`` (T, S) and ``pairwise_t`` (S, S)
        for t = 0, …, T−2.

    Raises:
        ProgramError: a size is too small, or the temperature not positive.

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
    if length < 1:
        raise ProgramError(f"length = {length}; a chain has at least one position.")
    z, theta = pair((length, size(states)))
    temperature = positive(temperature)
    objective: Any = cp.sum(cp.multiply(theta, z)) + temperature * cp.sum(cp.entr(z[0]))
    constraints: list[Any] = [cp.sum(z[0]) == 1]
    ones, pairs, pairwise = np.ones((1, states)), [], []
    for t in range(length - 1):
        joint = cp.Variable((states, states), name=f"pair_{t}")
        scores = cp.Parameter((states, states), name=f"pairwise_{t}")
        pairs.append(joint)
        pairwise.append(scores)
        constraints += [cp.sum(joint, axis=1) == z[t], cp.sum(joint, axis=0) == z[t + 1]]
        origin = cp.reshape(z[t], (states, 1), order="F") @ ones
        objective += cp.sum(cp.multiply(scores, joint)) - temperature * cp.sum(cp.rel_entr(joint, origin))
    problem = cp.Problem(cp.Maximize(objective), constraints)
    if length == 1:
        return carry_separable(problem, z, theta, temperature, Tsallis(), total=1.0)
    chain = partial(carried.linear_chain, (length, states), (theta, *pairwise), temperature)
    return carry(problem, (z, *pairs), chain)


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
        ProgramError: no path leads from source to sink, or there are no edges between nodes.

    Source: Berthet et al. 2020 (the polytope).

    Example:
        >>> import numpy as np
        >>> from cvxift import argmax
        >>> problem = argmax.flow([(0, 1), (1, 2), (0, 2)], 0, 2)
        >>> argmax.parameter(problem, "theta").value = np.array([-1.0, -1.0, -3.0])
        >>> _ = problem.solve(); argmax.variable(problem).value.round(3)
        array([0.833, 0.833, 0.167])
    """
    if not edges or min(min(edge) for edge in edges) < 0:
        raise ProgramError(f"edges = {list(edges)!r}; expected pairs (tail, head) of nodes 0, 1, ….")
    if not _reaches(edges, source, sink):
        raise ProgramError(f"No path leads from node {source} to node {sink}; the flow polytope is empty.")
    nodes = 1 + max(max(edge) for edge in edges)
    incidence = np.zeros((nodes, len(edges)))
    for e, (tail, head) in enumerate(edges):
        incidence[tail, e] += 1.0
        incidence[head, e] -= 1.0
    supply = np.zeros(nodes)
    supply[source], supply[sink] = 1.0, -1.0
    z, theta = pair((len(edges),))
    keep = np.arange(nodes) != sink  # the sink's balance follows from the others
    return over([incidence[keep] @ z == supply[keep], z >= 0, z <= 1], theta, gini, z, temperature)


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
