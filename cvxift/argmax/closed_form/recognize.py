"""Which closed form a problem has, whatever CVXPY atoms it was written with: each known one reads it in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cvxpy as cp
import numpy as np

from cvxift.argmax.closed_form.affine import Unknown
from cvxift.argmax.closed_form.carried import carried
from cvxift.argmax.closed_form.chain import read_chain
from cvxift.argmax.closed_form.form import Form, Solved
from cvxift.argmax.closed_form.permutahedron import read_permutahedron
from cvxift.argmax.closed_form.plan import read_plan
from cvxift.argmax.closed_form.separable import read_separable
from cvxift.argmax.closed_form.terms import Problem, read_terms
from cvxift.program.parameters import side_by_side
from cvxift.program.structure import Floats

READERS = (read_separable, read_plan, read_permutahedron, read_chain)


class Recognized(NamedTuple):
    """A problem by its terms, and the closed form of its solution."""

    problem: Problem
    form: Form

    def values(self, state: Solved) -> dict[cp.Variable, Floats]:
        """The variables' values of one instance that the form solved, each in C order."""
        x = np.empty(self.problem.n)
        x[self.form.entry] = np.ravel(state.inner.z)
        return {variable: x[entries] for variable, entries in side_by_side(self.problem.variables).items()}


def recognize(problem: cp.Problem, parameters: Sequence[cp.Parameter]) -> Recognized | None:
    """The closed form of a problem, if it has one that is known.

    Args:
        problem: a DPP problem, not a geometric program.
        parameters: its parameters in the order of θ.

    Returns:
        The form; None if there is none.

    Example:
        >>> z, theta = cp.Variable(3), cp.Parameter(3)
        >>> found = recognize(cp.Problem(cp.Maximize(theta @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1]), [theta])
        >>> found.form.name
        'softmax'
    """
    if any(
        leaf.is_complex() for leaf in (*problem.variables(), *problem.constants())
    ):  # CVXPY's affine rows would be read without their imaginary parts
        return None
    terms = carried(problem, parameters)
    try:
        terms = read_terms(problem, parameters) if terms is None else terms
    except Unknown:
        return None
    form = form_of(terms)
    return None if form is None else Recognized(terms, form)


def form_of(terms: Problem) -> Form | None:
    """The closed form of a problem that is given by its terms, or None."""
    for read in READERS:
        try:
            return read(terms)
        except Unknown:
            continue
    return None
