"""How far the point of a closed form is from optimal, by the optimality conditions of the problem's own terms.

The terms are those that were read, not what the form made of them: with ∇ the gradient of the objective's terms,

    ∇ + Eᵀμ + (multipliers of bounds and of sums of largest entries) = 0,   E z = b,  G z ≤ h,  complementary slackness

A form says what Eᵀμ is, which entries at bounds do not; μ is its least-squares solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from cvxift.argmax.closed_form.affine import Rows, Sparse
from cvxift.argmax.closed_form.form import Form
from cvxift.argmax.closed_form.terms import Problem
from cvxift.program.structure import Floats

PROVEN = 1e-10  # violation up to which a form is the problem's: far above what rounding leaves of its own points
TRIALS = 6  # random parameters at which a form is tried when it is made
TINY = 1e-290  # entropies have no gradient at entries that are rounded to zero


def violation(problem: Problem, form: Form, state: Any, theta: Floats) -> float:
    """The largest residual of the optimality conditions, relative to the size of what balances there.

    Args:
        problem: the problem.
        form: its closed form.
        state: what the form's `solve` returned, of one instance.
        theta: what it was solved at, shape (N,).

    Returns:
        The residual; infinite where the point is no number.
    """
    x = np.empty(problem.n)
    x[form.entry] = np.ravel(state.inner.z)
    gradient, known, outside = _gradient(problem, theta, x)
    b, h = _at(problem.b, theta), _at(problem.h, theta)
    bound = np.isfinite(h)
    slack = np.where(bound, h - problem.G @ x, np.inf)
    size = 1.0 + np.abs(x).max(initial=0.0)
    errors = [np.abs(problem.E @ x - b).max(initial=0.0) / size, max(np.max(-slack, initial=0.0), outside) / size]
    if len(problem.tops.size):
        errors += _of_tops(problem, theta, x, gradient)
    else:
        shifts = form.shifts(state)
        balance = -gradient
        if shifts is not None:
            balance = np.empty(problem.n)
            balance[form.entry] = np.ravel(shifts * state.scores.stiffness)
        pressed = _fitted(problem.E, balance, known)
        rest = np.where(known, gradient + pressed, 0.0)
        scale = 1.0 + np.abs(gradient[known]).max(initial=0.0)
        errors.append(np.abs(balance - pressed)[known].max(initial=0.0) / scale)
        # What is left presses against a bound, or the bound has a slack in its place.
        for sign in (1.0, -1.0):
            room = np.full(problem.n, np.inf)
            mine = sign * problem.G.data < 0
            np.minimum.at(room, problem.G.indices[mine], slack[mine])
            both = np.minimum(np.maximum(sign * rest, 0.0) / scale, np.maximum(room, 0.0) / size)
            errors.append(both.max(initial=0.0))
    worst = float(np.max(errors))  # NaN if any is
    return worst if worst == worst else float("inf")


def _at(rows: Rows, theta: Floats) -> Floats:
    return rows.c + rows.M @ theta


def _gradient(problem: Problem, theta: Floats, x: Floats) -> tuple[Floats, np.ndarray, float]:
    """The gradient of the objective, where there is one, and how far entropies' arguments are below zero."""
    out, terms = _at(problem.linear, theta), problem.terms
    weight, sign = _at(terms.weight, theta), np.where(terms.far, -1.0, 1.0)
    y, entropy = np.where(terms.far, 1.0 - x[terms.entry], x[terms.entry]), terms.exponent == 1.0
    base, above = _at(terms.base, theta), np.flatnonzero(terms.base_entry >= 0)
    base[above] = base[above] + terms.base_gain[above] * x[terms.base_entry[above]]
    outside = -min(y[entropy].min(initial=0.0), base[entropy].min(initial=0.0))
    fine = ~entropy | ((y > TINY) & (base > TINY))
    y, base = np.where(fine, y, 1.0), np.where(fine & entropy, base, 1.0)
    power = terms.exponent * np.abs(y) ** (terms.exponent - 1.0) * np.sign(y)
    np.add.at(
        out, terms.entry, weight * sign * np.where(entropy, np.log(np.where(entropy, y, 1.0) / base) + 1.0, power)
    )
    np.subtract.at(out, terms.base_entry[above], (weight * y / base * terms.base_gain)[above])
    known = np.ones(problem.n, dtype=bool)
    known[terms.entry[~fine]] = False
    known[terms.base_entry[above[~fine[above]]]] = False
    return out, known, outside


def _fitted(E: Sparse, balance: Floats, known: np.ndarray) -> Floats:
    """Eᵀμ for the least-squares solution μ of Eᵀμ = balance over the entries that are known."""
    if not E.shape[0]:
        return np.zeros(E.shape[1])
    own = sp.csc_array(E)[:, np.flatnonzero(known)]
    normal = sp.csc_array(own @ own.T)
    scale = normal.diagonal().max(initial=0.0)
    if scale == 0.0:
        return np.zeros(E.shape[1])
    # Rows may depend on each other: a shift, whose effect repeated steps remove.
    factor = spla.splu(sp.csc_array(normal + 1e-10 * scale * sp.eye_array(E.shape[0])))
    mu = np.zeros(E.shape[0])
    for _ in range(4):
        mu += factor.solve(own @ (balance[known] - own.T @ mu))
    return E.T @ mu


def _of_tops(problem: Problem, theta: Floats, x: Floats, gradient: Floats) -> list[float]:
    """Errors of the conditions with bounds on sums of largest entries.

    λ_k on the k largest entries is the gradient's step from the k-th to the next one, all else being one multiplier.
    Bounds on single entries of which some hold count as those for k = 1 or n − 1.
    """
    n, tops = problem.n, problem.tops
    total = float(x.sum())
    room = np.full(n + 1, np.inf)  # of the sum of the k largest
    heads = np.concatenate([[0.0], np.cumsum(np.sort(x)[::-1])])
    np.minimum.at(room, tops.size, _at(tops.bound, theta) + np.where(tops.rest, total, 0.0) - heads[tops.size])
    slack = _at(problem.h, theta) - problem.G @ x
    for size, mine in ((1, problem.G.data > 0), (n - 1, problem.G.data < 0)):
        room[size] = min(room[size], np.min((slack / np.abs(problem.G.data))[mine], initial=np.inf))
    order = np.lexsort((gradient, -x))
    steps = np.diff(gradient[order])
    scale, size = 1.0 + np.abs(gradient).max(), 1.0 + np.abs(heads).max()
    return [
        float(np.max(-room, initial=0.0)) / size,
        float(np.max(-steps, initial=0.0)) / scale,
        float(np.minimum(np.abs(steps) / scale, np.abs(room[1:n]) / size).max(initial=0.0)),
    ]


def first_trial(form: Form, parameters: Sequence[cp.Parameter]) -> tuple[Floats, Any] | None:
    """The first of some random θ that the form serves, with what it solves there; None if it serves none of them."""
    rng = np.random.default_rng(0)
    for trial in range(TRIALS):
        theta = np.concatenate([_sample(p, rng, 4.0**-trial) for p in parameters] or [np.zeros(0)])
        state = form.solve(theta)
        if state is not None:
            return theta, state
    return None


def _sample(parameter: cp.Parameter, rng: np.random.Generator, spread: float) -> Floats:
    """Random values that the parameter's attributes allow; those of free parameters around 0.7, closer if asked.

    So bounds and sums, which are parameters at times, leave room for each other in one of the trials.
    """
    raw = 0.7 + spread * rng.standard_normal(parameter.shape)
    value = parameter.project(raw)
    if parameter.attributes["pos"]:
        value = np.abs(raw) + 0.1
    if parameter.attributes["neg"]:
        value = -np.abs(raw) - 0.1
    value = value.toarray() if sp.issparse(value) else value  # pyright: ignore[reportAttributeAccessIssue]
    return np.ravel(np.asarray(value, dtype=float))
