"""Which closed form a problem has, whatever CVXPY atoms it was written with: each known one reads it in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cvxpy as cp
import numpy as np

from cvxift.argmax.closed_form.carried import carried, carries
from cvxift.argmax.closed_form.chain import read_chain
from cvxift.argmax.closed_form.form import Form, Solved
from cvxift.argmax.closed_form.optimality import violation
from cvxift.argmax.closed_form.permutahedron import read_permutahedron
from cvxift.argmax.closed_form.plan import read_plan
from cvxift.argmax.closed_form.separable import read_separable
from cvxift.argmax.closed_form.terms import Problem, read_terms
from cvxift.argmax.closed_form.tree import Unknown
from cvxift.program.parameters import side_by_side
from cvxift.program.structure import Floats

READERS = (read_separable, read_plan, read_permutahedron, read_chain)


@dataclass(eq=False)
class Recognized:
    """A problem whose solution has a closed form.

    Attributes:
        form: the form.
        variables: those whose entries, side by side, the form's are among.
        problem: the problem.
        parameters: its parameters in the order of θ.
        proven: whether the form's points are known to be optimal.
    """

    form: Form
    variables: tuple[cp.Variable, ...]
    problem: cp.Problem
    parameters: Sequence[cp.Parameter]
    proven: bool

    @cached_property
    def terms(self) -> Problem:
        """The problem by its terms."""
        return read_terms(self.problem, self.parameters)

    def violation(self, state: Solved, theta: Floats) -> float:
        """How far the point that the form solved at θ is from optimal; see `optimality.violation`."""
        return violation(self.terms, self.form, state, theta)

    def values(self, state: Solved) -> dict[cp.Variable, Floats]:
        """The variables' values of one instance that the form solved, each in C order."""
        x = np.empty(len(self.form.entry))
        x[self.form.entry] = np.ravel(state.inner.z)
        return {variable: x[entries] for variable, entries in side_by_side(self.variables).items()}


def recognize(problem: cp.Problem, parameters: Sequence[cp.Parameter]) -> Recognized | None:
    """The closed form of a problem, if it has one that is known: that which it carries, or what its terms are read as.

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
    try:
        if carries(problem):
            variables, form = carried(problem, parameters)
            return Recognized(form, variables, problem, parameters, True)
        terms = read_terms(problem, parameters)
    except Unknown:
        return None
    form = form_of(terms)
    if form is None:
        return None
    found = Recognized(form, terms.variables, problem, parameters, False)
    found.terms = terms
    return found


def form_of(terms: Problem) -> Form | None:
    """The closed form of a problem that is given by its terms, or None."""
    for read in READERS:
        try:
            return read(terms)
        except Unknown:
            continue
    return None
