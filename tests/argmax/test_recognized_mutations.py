"""What a reader takes is what the terms say: one number changed, it refuses, or its optimal point is still optimal.

Every number of recognized problems' terms is changed in turn: no CVXPY expression need exist that has the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

from cvxift import argmax
from cvxift.argmax.closed_form.affine import Rows
from cvxift.argmax.closed_form.optimality import PROVEN, violation
from cvxift.argmax.closed_form.recognize import form_of
from cvxift.argmax.closed_form.terms import Problem, read_terms


def hand_written() -> cp.Problem:
    z, theta = cp.Variable(3), cp.Parameter(3)
    constraints: list[Any] = [
        cp.sum(z) == 5,
        cp.sum_smallest(z, 1) >= 0.5,
        2 * cp.sum_largest(z, 1) <= 6,
        cp.max(z) <= 3.5,
        z <= 4,
    ]
    return cp.Problem(cp.Minimize(cp.sum_squares(2 * z - theta)), constraints)


def from_an_edge() -> cp.Problem:
    z, p, theta = cp.Variable((2, 2)), cp.Variable((2, 2)), cp.Parameter((2, 2))
    links: list[Any] = [cp.sum(p, axis=1) == z[0], cp.sum(p, axis=0) == z[1], cp.sum(z[1]) == 1]
    return cp.Problem(cp.Maximize(cp.sum(cp.multiply(theta, p)) + cp.sum(cp.entr(p))), links)


MASSES = np.array([0.4, 0.6])
PROBLEMS: dict[str, Callable[[], cp.Problem]] = {
    "permutahedron": lambda: argmax.permutahedron(3, np.array([3.0, 1.5, 0.5])),
    "permutahedron by hand": hand_written,
    "permutahedron, moving values": lambda: argmax.permutahedron(3, cp.Parameter(3)),
    "entropic permutahedron": lambda: argmax.permutahedron(3, np.array([3.0, 1.5, 0.5]), regularizer="entropic"),
    "linear chain": lambda: argmax.linear_chain(3, 2),
    "linear chain from an edge": from_an_edge,
    "softmax": lambda: argmax.softmax(3),
    "constrained softmax": lambda: argmax.constrained_softmax(3, np.array([0.5, 0.6, 0.7])),
    "1.5-entmax": lambda: argmax.entmax(3, 1.5),
    "sparsemax": lambda: argmax.sparsemax(3),
    "constrained sparsemax": lambda: argmax.constrained_sparsemax(3, np.array([0.5, 0.6, 0.7])),
    "budget": lambda: argmax.budget(4, 2),
    "sigmoid": lambda: argmax.box(3),
    "entropic transport": lambda: argmax.transport(MASSES, np.array([0.3, 0.3, 0.4])),
    "quadratic transport": lambda: argmax.transport(MASSES, np.array([0.3, 0.3, 0.4]), "quadratic"),
    "linear chain, one state": lambda: argmax.linear_chain(3, 1),
}


CHANGES: tuple[Callable[[float], float], ...] = (
    lambda v: 0.0,
    lambda v: 1.5 * v,
    lambda v: -v,
    lambda v: v + 0.25,
    lambda v: v - 0.25,
)


def changed(part: Any) -> Iterator[Any]:
    """A part of a problem's terms with one of its floating-point numbers changed, for every number and change."""
    if isinstance(part, Rows):
        yield from (Rows(part.M, c) for c in changed(part.c))
    elif isinstance(part, sp.csr_array):
        for data in changed(part.data):
            matrix = sp.csr_array((data, part.indices, part.indptr), shape=part.shape, copy=True)
            matrix.eliminate_zeros()
            yield matrix
    elif isinstance(part, np.ndarray):
        if part.dtype.kind == "f":
            for k, value in enumerate(part):
                for change in CHANGES:
                    if change(value) != value:
                        moved = part.copy()
                        moved[k] = change(value)
                        yield moved
    elif hasattr(part, "__dataclass_fields__"):
        for field in fields(part):
            yield from (replace(part, **{field.name: value}) for value in changed(getattr(part, field.name)))


def taken_or_refused(terms: Problem, thetas: np.ndarray) -> tuple[int, int]:
    """How many points of each changed problem are taken, and how many of those problems are refused.

    One is refused by what its terms look like, or by its first point, which is not optimal; other points must be.
    """
    refused = taken = 0
    for other in changed(terms):
        form = form_of(other)
        found = [] if form is None else [(theta, form.solve(theta)) for theta in thetas]
        errors = [violation(other, form, state, theta) for theta, state in found if form and state is not None]
        if form is None or (errors and errors[0] > PROVEN):
            refused += 1
            continue
        taken += len(errors)
        assert max(errors, default=0.0) <= 1e-11
    return taken, refused


@pytest.mark.parametrize("name", PROBLEMS)
def test_one_number_changed(name: str) -> None:
    problem = PROBLEMS[name]()
    parameters = problem.parameters()
    rng = np.random.default_rng(0)
    values = [rng.standard_normal((3, p.size)) for p in parameters]
    for p, value in zip(parameters, values, strict=True):
        if p.name() != "theta" and p.ndim == 1:
            value[:] = -np.sort(-value, axis=-1)  # values decrease
    taken, refused = taken_or_refused(read_terms(problem, parameters), np.concatenate(values, axis=-1))
    assert refused > 30 and taken > 5
