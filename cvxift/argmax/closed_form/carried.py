"""The closed forms of problems that `cvxift.argmax` makes itself, which are then not read from their expressions.

CVXPY takes seconds for the rows of a large permutahedron or of a long chain, and most of the time that a small layer
needs to be built goes into coefficients. These problems say maximize ⟨θ, z⟩ − temperature · Ω(z), so that the scores
are θ and the curvature is the temperature: Ω is scaled that way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxift.argmax.closed_form.affine import Coefficients, Rows, gathered
from cvxift.argmax.closed_form.chain import ChainForm
from cvxift.argmax.closed_form.form import Form
from cvxift.argmax.closed_form.kinds import Kind
from cvxift.argmax.closed_form.permutahedron import PermutahedronForm
from cvxift.argmax.closed_form.plan import PlanForm
from cvxift.argmax.closed_form.separable import Layout, separable
from cvxift.program.attributes import fortran_order, read
from cvxift.program.parameters import side_by_side

ATTRIBUTE = "_cvxift_form"  # of a cp.Problem
Offsets = Mapping[cp.Parameter, slice]
Variables = tuple[cp.Variable, ...]


def carry(problem: cp.Problem, variables: Variables, form: Callable[[Offsets], Form]) -> cp.Problem:
    """Let a problem carry its closed form, and return it. A problem made from it by CVXPY carries none.

    Args:
        problem: the problem.
        variables: those whose entries, side by side, the form's are among.
        form: the form for places of the parameters in θ.
    """
    setattr(problem, ATTRIBUTE, (variables, form))
    return problem


def carries(problem: Any) -> bool:
    """Whether a problem carries its closed form; such a problem is convex and DPP."""
    return hasattr(problem, ATTRIBUTE)


def carried(problem: cp.Problem, parameters: Sequence[cp.Parameter]) -> tuple[Variables, Form]:
    """The variables and the form that a problem carries, for its parameters in the order of θ."""
    variables, form = getattr(problem, ATTRIBUTE)
    return variables, form(side_by_side(parameters))


def carry_separable(
    problem: cp.Problem,
    z: cp.Variable,
    theta: cp.Parameter,
    temperature: Any,
    kind: Kind,
    *,
    prior: Any = None,
    total: Any = None,
    lower: Any = None,
    upper: Any = None,
    slope: float = 0.0,
) -> cp.Problem:
    """Let a problem over one group of entries, or over single ones, carry its form, and return it.

    It does where the values are numbers or dense parameters, which are known to be affine; other expressions are read.

    Args:
        problem: the problem.
        z: the variable.
        theta: scores of its shape.
        temperature: a number or a parameter.
        kind: which φ.
        prior: numbers or a parameter of z's shape; None for none.
        total: the sum of all entries, a number or a parameter; None for none.
        lower: numbers or a parameter; one for all entries, or of z's shape; None for none.
        upper: likewise.
        slope: of the linear part of Ω.
    """
    known = all(v is None or np.shape(v) in ((), (1,), z.shape) for v in (lower, upper))
    if not (known and plain(prior, total, lower, upper, slope)):
        return problem
    return carry(problem, (z,), partial(_separable, z, theta, temperature, kind, prior, total, lower, upper, slope))


def _separable(
    z: cp.Variable,
    theta: cp.Parameter,
    temperature: Any,
    kind: Kind,
    prior: Any,
    total: Any,
    lower: Any,
    upper: Any,
    slope: float,
    offsets: Offsets,
) -> Form:
    n, one = z.size, total is not None
    layout = Layout.of(np.arange(n), np.array([n]) if one else np.ones(n, dtype=int))
    low, high = (None if v is None else _rows(v, offsets, n) for v in (lower, upper))
    inputs = _inputs(theta, temperature, prior, offsets)
    return separable(kind, inputs, _rows(total, offsets) if one else None, low, high, layout, slope)


def plan(
    entropic: bool, theta: cp.Parameter, temperature: Any, prior: Any, masses: tuple[Any, Any], offsets: Offsets
) -> Form:
    """A plan between masses; the last column's is what the others leave."""
    m, n = theta.shape
    a, b = (_rows(mass, offsets) for mass in masses)
    b, last = b[np.arange(n - 1)], np.full(m + n - 1, m + n - 1)
    parts = [(np.arange(m), a), (m + np.arange(n - 1), b), (last[:m], a), (last[m:], b.times(-1.0))]
    inputs = _inputs(theta, temperature, prior, offsets)
    return PlanForm(entropic, inputs, gathered(m + n, a.M.shape[1], parts), np.arange(m * n), (m, n), slope=-0.5)


def permutahedron(entropic: bool, theta: cp.Parameter, temperature: Any, values: Any, offsets: Offsets) -> Form:
    """The projection onto the permutahedron of decreasing values, affine in parameters."""
    return PermutahedronForm(entropic, _inputs(theta, temperature, None, offsets), _rows(values, offsets))


def linear_chain(size: tuple[int, int], scores: Sequence[cp.Parameter], temperature: Any, offsets: Offsets) -> Form:
    """The marginals of T positions of S states and those of neighbours, (S, S) each, with scores likewise."""
    place = np.concatenate([np.arange(offsets[p].start, offsets[p].stop) for p in scores])
    stiffness, every = _rows(temperature, offsets), np.arange(len(place))
    score = sp.csr_array((np.ones(len(place)), (every, place)), shape=(len(place), stiffness.M.shape[1]))
    return ChainForm({"score": Rows(score, np.zeros(len(place))), "stiffness": stiffness}, every, size)


def plain(*values: Any) -> bool:
    """Whether values are numbers or dense parameters."""
    given = [v for v in values if isinstance(v, cp.Expression)]
    return all(isinstance(v, cp.Parameter) and not v.attributes["sparsity"] for v in given)


def _inputs(theta: cp.Parameter, temperature: Any, prior: Any, offsets: Offsets) -> dict[str, Rows]:
    """Score, stiffness and perhaps prior of each entry."""
    score, stiffness = _rows(theta, offsets), _rows(temperature, offsets, theta.size)
    more = {} if prior is None else {"prior": _rows(prior, offsets)}
    if more and not more["prior"].moving:
        place, shift = np.arange(theta.size), stiffness.times(np.log(more.pop("prior").c))
        score = gathered(theta.size, score.M.shape[1], [(place, score), (place, shift)])
    return {"score": score, "stiffness": stiffness, **more}


def _rows(value: Any, offsets: Offsets, n: int | None = None) -> Rows:
    """Numbers, or an expression affine in parameters, in C order; one row stands for n, if that is given."""
    N = sum(p.size for p in offsets)
    if isinstance(value, cp.Parameter):
        inner, own, weight = read(value, is_reduced=False)
        places = fortran_order(value.shape)[inner], offsets[value].start + own
        rows = Rows(sp.csr_array((weight, places), shape=(value.size, N)), np.zeros(value.size))
    elif isinstance(value, cp.Expression):
        back = np.argsort(fortran_order(value.shape))
        rows = Coefficients([value], [], offsets).offset(slice(0, value.size))[back]
    else:
        rows = Rows.fixed(np.ravel(value), N)
    return rows if n is None or len(rows.c) == n else rows[np.zeros(n, dtype=int)]
