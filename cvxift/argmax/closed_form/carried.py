"""The terms of problems that `cvxift.argmax` makes itself, which are then not read from their expressions.

CVXPY takes seconds for the rows of a large permutahedron or of a long chain, and most of the time that a small layer
needs to be built goes into coefficients; the terms are a few arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxift._types import Indices
from cvxift.argmax.closed_form.affine import Coefficients, Rows, Sparse, gathered
from cvxift.argmax.closed_form.terms import Problem, Terms, Tops
from cvxift.program.attributes import fortran_order
from cvxift.program.parameters import side_by_side

ATTRIBUTE = "_cvxift_terms"  # of a cp.Problem
Offsets = Mapping[cp.Parameter, slice]
Carried = Callable[[Offsets], Problem]


def carry(problem: cp.Problem, terms: Carried) -> cp.Problem:
    """Let a problem carry its terms, and return it. A problem made from it by CVXPY carries none."""
    setattr(problem, ATTRIBUTE, terms)
    return problem


def carries(problem: Any) -> bool:
    """Whether a problem carries its terms; such a problem is convex and DPP."""
    return hasattr(problem, ATTRIBUTE)


def carried(problem: cp.Problem, parameters: Sequence[cp.Parameter]) -> Problem | None:
    """The terms that a problem carries, if it does, for its parameters in the order of θ."""
    terms: Carried | None = getattr(problem, ATTRIBUTE, None)
    return None if terms is None else terms(side_by_side(parameters))


@dataclass(frozen=True)
class Omega:
    """A regularizer Ω(z) = Σ weight f(z_i) + slope Σ z_i of all entries.

    Attributes:
        kind: f: ``"square"`` z², ``"power"`` z^exponent, ``"entropy"`` z log(z/prior), or ``"binary"``, that with a
            prior of 1 and the same of 1 − z.
        weight: as above.
        slope: likewise.
        exponent: of powers.
        prior: numbers or a parameter of z's shape.
    """

    kind: str
    weight: float = 1.0
    slope: float = 0.0
    exponent: float = 0.0
    prior: Any = 1.0


SHANNON, GINI, HALF_SQUARES, BINARY = (
    Omega("entropy"),
    Omega("square", 0.5, -0.5),
    Omega("square", 0.5),
    Omega("binary"),
)


def tsallis(alpha: float) -> Omega:
    """Ω of α-entmax."""
    known = {1.0: SHANNON, 2.0: GINI}
    scale = alpha * (alpha - 1.0)
    return known[alpha] if alpha in known else Omega("power", 1.0 / scale, -1.0 / scale, alpha)


def relative(prior: Any) -> Omega:
    """Shannon's entropy, relative to a prior if there is one."""
    return SHANNON if prior is None else Omega("entropy", prior=prior)


def carry_separable(
    problem: cp.Problem,
    z: cp.Variable,
    theta: cp.Parameter,
    temperature: Any,
    omega: Omega,
    sums: tuple[Sparse, Sequence[Any]] | None = None,
    lower: Any = None,
    upper: Any = None,
) -> cp.Problem:
    """Let a problem carry the terms of maximize ⟨θ, z⟩ − temperature · Ω(z) with sums and bounds, and return it.

    It does where the values are numbers or dense parameters, which are known to be affine; other expressions are read.

    Args:
        problem: the problem.
        z: the variable.
        theta: scores of its shape.
        temperature: a number or a parameter.
        omega: Ω.
        sums: E, and the values of E z one after the other; those beyond E's rows follow from the others.
        lower: numbers or a parameter; one for all entries, or of z's shape; None for none.
        upper: likewise.
    """
    sums = (sp.csr_array((0, z.size)), ()) if sums is None else sums
    given = (*sums[1], lower, upper, omega.prior)
    numbers = all(isinstance(v, cp.Parameter) or not isinstance(v, cp.Expression) for v in given)
    numbers = numbers and not any(isinstance(v, cp.Parameter) and v.attributes["sparsity"] for v in given)
    shapes = all(v is None or np.shape(v) in ((), (1,), z.shape) for v in (lower, upper))
    if not (numbers and shapes):
        return problem
    return carry(problem, partial(_separable, z, theta, temperature, omega, sums, lower, upper))


def _separable(
    z: cp.Variable,
    theta: cp.Parameter,
    temperature: Any,
    omega: Omega,
    sums: tuple[Sparse, Sequence[Any]],
    lower: Any,
    upper: Any,
    offsets: Offsets,
) -> Problem:
    n = z.size
    every, c = np.arange(n), _rows(temperature, offsets)[np.zeros(n, dtype=int)]
    N = c.M.shape[1]
    linear = _rows(theta, offsets).times(-1.0)
    if omega.slope:
        linear = gathered(n, N, [(every, linear), (every, c.times(omega.slope))])
    count = 2 if omega.kind == "binary" else 1
    base = _spread(_rows(omega.prior, offsets), n * count)
    far = np.repeat([False, True], n)[: n * count]  # of z, then of 1 − z
    terms = Terms(
        c.times(omega.weight)[np.tile(every, count)],
        np.tile(every, count),
        np.where(far, -1.0, 1.0),
        Rows.fixed(far.astype(float), N),
        np.full(n * count, omega.exponent),
        base,
        np.full(n * count, -1),
        np.zeros(n * count),
    )
    E, b = sums
    sides = [(-1.0, lower), (1.0, upper)]
    bounds = [(side, _spread(_rows(bound, offsets), n).times(side)) for side, bound in sides if bound is not None]
    h = _stacked([rows for _, rows in bounds], N)
    binds = np.flatnonzero(~np.isposinf(h.c) | h.varies)
    row, gain = np.arange(len(h.c)), np.repeat([side for side, _ in bounds], n)
    G: Sparse = sp.csr_array((gain, (row, row % n)), shape=(len(row), n))
    equal = E, _stacked([_rows(value, offsets) for value in b], N)[: E.shape[0]]
    return _problem((z,), N, linear, omega.kind, terms, equal, (G[binds], h[binds]))


def permutahedron(
    z: cp.Variable, theta: cp.Parameter, temperature: Any, omega: Omega, values: Any, offsets: Offsets
) -> Problem:
    """Terms of the projection of θ over the temperature onto the permutahedron of decreasing values."""
    n = z.size
    problem = _separable(z, theta, temperature, omega, (ones(z), ()), None, None, offsets)
    k, i = np.tril_indices(n)
    heads = gathered(n, problem.N, [(k, _rows(values, offsets)[i])])
    tops = Tops(np.arange(1, n), heads[: n - 1], np.zeros(n - 1, dtype=bool))
    return replace(problem, b=heads[n - 1 :], tops=tops)


def linear_chain(
    z: cp.Variable, pairs: Sequence[cp.Variable], scores: Sequence[cp.Parameter], temperature: Any, offsets: Offsets
) -> Problem:
    """Terms of the marginals z (T, S) of a linear chain and those of neighbours, (S, S) each, with scores likewise."""
    T, S = z.shape
    nodes, joint = np.arange(T * S).reshape(T, S), T * S + np.arange((T - 1) * S * S).reshape(T - 1, S, S)
    n, c = nodes.size + joint.size, _rows(temperature, offsets)
    N, count = c.M.shape[1], S + joint.size
    place = np.concatenate([np.arange(offsets[p].start, offsets[p].stop) for p in scores])
    linear = Rows(sp.csr_array((np.full(n, -1.0), (np.arange(n), place)), shape=(n, N)), np.zeros(n))
    none, above = np.zeros(count), np.broadcast_to(nodes[:-1, :, None], joint.shape).ravel()
    terms = Terms(
        c[np.zeros(count, dtype=int)],
        np.concatenate([nodes[0], joint.ravel()]),
        none + 1.0,
        Rows.fixed(none, N),
        none,
        Rows.fixed(np.concatenate([np.ones(S), np.zeros(joint.size)]), N),
        np.concatenate([np.full(S, -1), above]),
        np.concatenate([np.zeros(S), np.ones(joint.size)]),
    )
    # One row for the sum of the first position, then the pairs' sums by row and by column less their positions.
    row = 1 + np.arange(2 * (T - 1) * S).reshape(2, T - 1, S)
    ends = np.concatenate([nodes[:-1].ravel(), nodes[1:].ravel()])
    rows = [np.zeros(S, dtype=int), row.ravel()]
    rows += [np.broadcast_to(row[0][:, :, None], joint.shape).ravel()]
    rows += [np.broadcast_to(row[1][:, None, :], joint.shape).ravel()]
    columns = np.concatenate([nodes[0], ends, joint.ravel(), joint.ravel()])
    gains = np.concatenate([np.ones(S), -np.ones(len(ends)), np.ones(2 * joint.size)])
    E = sp.csr_array((gains, (np.concatenate(rows), columns)), shape=(row.size + 1, n))
    b = Rows.fixed(np.append(1.0, np.zeros(row.size)), N)
    return _problem((z, *pairs), N, linear, "entropy", terms, (E, b))


def _problem(
    variables: tuple[cp.Variable, ...],
    N: int,
    linear: Rows,
    kind: str,
    terms: Terms,
    equal: tuple[Sparse, Rows],
    below: tuple[Sparse, Rows] | None = None,
) -> Problem:
    """A problem with terms of one kind."""
    n, none = len(linear.c), terms[np.zeros(0, dtype=int)]
    below = (sp.csr_array((0, n)), Rows.fixed(np.zeros(0), N)) if below is None else below
    kinds = [terms if kind in names else none for names in (("square",), ("power",), ("entropy", "binary"))]
    tops = Tops(np.zeros(0, dtype=int), Rows.fixed(np.zeros(0), N), np.zeros(0, dtype=bool))
    return Problem(n, N, variables, linear, kinds[0], kinds[1], kinds[2], *equal, *below, tops)


def _rows(value: Any, offsets: Offsets) -> Rows:
    """Numbers, or an expression affine in parameters, entry by entry in C order."""
    N = sum(p.size for p in offsets)
    if not isinstance(value, cp.Expression):
        return Rows.fixed(np.ravel(value), N)
    back = np.argsort(fortran_order(value.shape))
    return Coefficients([value], [], offsets).offset(slice(0, value.size))[back]


def _spread(rows: Rows, n: int) -> Rows:
    """One row for all entries n times; others as they are."""
    return rows[np.zeros(n, dtype=int)] if len(rows.c) == 1 else rows


def _stacked(parts: Sequence[Rows], N: int) -> Rows:
    """Rows below each other."""
    places: list[tuple[Indices, Rows]] = []
    start = 0
    for rows in parts:
        places.append((np.arange(start, start + len(rows.c)), rows))
        start += len(rows.c)
    return gathered(start, N, places)


def ones(z: cp.Variable) -> Sparse:
    """E of the sum of all entries."""
    return sp.csr_array(np.ones((1, z.size)))


def plan_sums(z: cp.Variable) -> Sparse:
    """E of a plan's row sums, and of its column sums but the last, which follows."""
    m, n = z.shape
    entries = np.arange(m * n).reshape(m, n)
    columns = np.concatenate([entries.ravel(), entries.T.ravel()])
    row = np.concatenate([np.repeat(np.arange(m), n), m + np.repeat(np.arange(n), m)])
    return sp.csr_array((np.ones(len(row)), (row, columns)), shape=(m + n, m * n))[: m + n - 1]
