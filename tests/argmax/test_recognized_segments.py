"""Problems separable over groups of unequal length take the kernels of ragged rows; groups alone are the reference."""

from __future__ import annotations

import warnings
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

from cvxift.argmax.closed_form.closed_map import ClosedMap, ClosedSolved
from cvxift.argmax.closed_form.terms import read_terms
from cvxift.argmax.simplex import entmax
from cvxift.errors import ApplicabilityWarning
from tests.argmax.agreement import Builders, both, point
from tests.argmax.test_recognized_mutations import taken_or_refused

N = 7
GROUPS = (np.array([0, 3]), np.array([1]), np.array([2, 4, 5, 6]))
MEMBERS = np.zeros((3, N))
for row, entries in enumerate(GROUPS):
    MEMBERS[row, entries] = 1.0
EACH = MEMBERS.T  # spreads what groups have


def scores() -> cp.Parameter:
    return cp.Parameter(N, name="theta")


SPELLINGS = spelling = Builders[tuple[cp.Problem, str]]()


@spelling
def softmax() -> tuple[cp.Problem, str]:
    z = cp.Variable(N)
    return cp.Problem(cp.Maximize(scores() @ z + cp.sum(cp.entr(z))), [MEMBERS @ z == 1]), "closed form (softmax)"


@spelling
def softmax_with_temperatures_and_totals() -> tuple[cp.Problem, str]:
    z, warm = cp.Variable(N), cp.Parameter(3, nonneg=True, name="temperature")
    totals = cp.Parameter(3, name="totals")
    regularizer = cp.sum(cp.multiply(EACH @ warm, -cp.entr(z)))
    return cp.Problem(cp.Maximize(scores() @ z - regularizer), [2 * MEMBERS @ z == 2 * totals]), "closed form (softmax)"


@spelling
def softmax_relative_to_a_prior() -> tuple[cp.Problem, str]:
    z, prior = cp.Variable(N), cp.Parameter(N, nonneg=True, name="prior")
    return cp.Problem(
        cp.Maximize(scores() @ z - cp.sum(cp.rel_entr(z, prior))), [MEMBERS @ z == 1]
    ), "closed form (softmax)"


@spelling
def sparsemax() -> tuple[cp.Problem, str]:
    z = cp.Variable(N, nonneg=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(z - scores())), [MEMBERS @ z == 1]), "closed form (sparsemax)"


@spelling
def sparsemax_of_several_variables() -> tuple[cp.Problem, str]:
    sizes = (3, 2)
    z = [cp.Variable(n) for n in sizes]
    theta = [cp.Parameter(n) for n in sizes]
    objective = sum(t @ v - 0.5 * cp.sum_squares(v) for t, v in zip(theta, z, strict=True))
    constraints: list[Any] = [one for v in z for one in (cp.sum(v) == 1, v >= 0)]
    return cp.Problem(cp.Maximize(objective), constraints), "closed form (sparsemax)"


@spelling
def entmax_of_totals() -> tuple[cp.Problem, str]:
    z, totals = cp.Variable(N, nonneg=True), cp.Parameter(3, name="totals")
    return cp.Problem(
        cp.Maximize(scores() @ z - cp.sum(cp.power(z, 1.5))), [MEMBERS @ z == totals]
    ), "closed form (1.5-entmax)"


@spelling
def cubes() -> tuple[cp.Problem, str]:
    z, warm = cp.Variable(N, nonneg=True), cp.Parameter(nonneg=True, name="temperature")
    return cp.Problem(
        cp.Maximize(scores() @ z - warm * cp.sum(cp.power(z, 3))), [MEMBERS @ z == 1]
    ), "closed form (3-entmax)"


@spelling
def budgets() -> tuple[cp.Problem, str]:
    z, totals = cp.Variable(N), cp.Parameter(3, name="totals")
    upper = cp.Parameter(N, name="caps")
    constraints = [MEMBERS @ z == totals, z >= -0.5, z <= upper]
    return cp.Problem(cp.Minimize(cp.sum_squares(z - scores())), constraints), "closed form (budget)"


@spelling
def budgets_below_caps_alone() -> tuple[cp.Problem, str]:
    z = cp.Variable(N)
    constraints = [MEMBERS @ z == 1, z <= 1.4]
    return cp.Problem(cp.Minimize(cp.sum_squares(2 * z - scores())), constraints), "closed form (budget)"


@pytest.mark.parametrize("spread", [1.0, 1e3, 1e-6, 0.0])
@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 3.0])
def test_values_are_those_of_each_group_alone(alpha: float, spread: float, rng: np.random.Generator) -> None:
    z, theta = cp.Variable(N, nonneg=True), scores()
    # With Ω = Σ (z^α − z)/(α(α − 1)) the map is α-entmax itself.
    powers = -cp.sum(cp.entr(z)) if alpha == 1.0 else cp.sum(cp.power(z, alpha)) / (alpha * (alpha - 1.0))
    closed = ClosedMap(cp.Problem(cp.Maximize(theta @ z - powers), [MEMBERS @ z == 1]), None, [z])
    values = spread * rng.standard_normal((5, N))
    solved = closed.solve(values)
    assert isinstance(solved, ClosedSolved)
    for entries in GROUPS:
        expected = entmax(values[:, entries], alpha)
        np.testing.assert_allclose(solved.outputs[:, entries], expected, rtol=0, atol=1e-13 * max(1.0, spread))


def test_kinks_are_told_as_by_the_generic_path() -> None:
    problem, _ = SPELLINGS["sparsemax"]()
    closed, generic = both(problem, problem.variables())
    theta = np.array([1.0, 0.3, 2.0, 0.0, 1.0, -3.0, -3.0])  # of two groups an entry is about to enter
    for moved in (0.0, 1e-3):
        point = theta + moved * np.array([0, 0, 0, 1.0, 1.0, 0, 0])
        weak = []
        for mapping in (closed, generic):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                mapping.vjp(mapping.solve(point), np.ones(N) + np.arange(N))
            weak.append(any(issubclass(w.category, ApplicabilityWarning) for w in caught))
        assert weak == [moved == 0.0] * 2


def test_bounds_that_hold_a_whole_group(rng: np.random.Generator) -> None:
    problem, _ = SPELLINGS["budgets"]()
    closed, generic = both(problem, problem.variables())
    theta = point(problem.parameters(), rng)
    names = [p.name() for p in problem.parameters()]
    sizes = [p.size for p in problem.parameters()]
    ends = np.cumsum(sizes)
    place = {name: slice(int(end) - size, int(end)) for name, end, size in zip(names, ends, sizes, strict=True)}
    theta[place["theta"]] = [9.0, 0.0, 1.0, -9.0, 0.5, 0.2, 0.1]
    theta[place["caps"]] = 1.5
    theta[place["totals"]] = 1.0  # 1.5 − 0.5: both entries of the first group stand at bounds that move
    for mapping in (closed, generic):
        assert not isinstance(mapping.solve(theta), ClosedSolved)


@pytest.mark.parametrize("members", [MEMBERS, np.ones((1, N))])
@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_scores_beyond_what_can_be_scaled_are_left_to_the_solvers(alpha: float, members: np.ndarray) -> None:
    z, theta, totals = cp.Variable(N, nonneg=True), scores(), cp.Parameter(len(members))
    sums: list[Any] = [members @ z == totals]
    closed = ClosedMap(cp.Problem(cp.Maximize(theta @ z - cp.sum(cp.power(z, alpha))), sums), None, [z])
    assert closed.form is not None
    for size in (1e200, 1e307):
        state = closed.closed(np.concatenate([size * np.arange(N), np.full(len(members), 1e-9)]))
        assert state is None or np.isfinite(state.outputs).all()


def test_one_number_changed(rng: np.random.Generator) -> None:
    problem, _ = SPELLINGS["sparsemax"]()
    terms = read_terms(problem, problem.parameters())
    taken, refused = taken_or_refused(terms, rng.standard_normal((1, N)))
    assert refused > 30 and taken > 5


@pytest.mark.parametrize("entropic", [True, False])
def test_many_groups_in_linear_time(entropic: bool, rng: np.random.Generator) -> None:
    lengths = 1 + np.arange(3000) % 17
    n, label = int(lengths.sum()), np.repeat(np.arange(3000), lengths)
    order = rng.permutation(n)
    members = sp.csr_array((np.ones(n), (label, order)), shape=(3000, n))
    z, theta = cp.Variable(n, nonneg=True), cp.Parameter(n)
    regularizer = -cp.sum(cp.entr(z)) if entropic else 0.5 * cp.sum_squares(z)
    sums: list[Any] = [members @ z == 1]
    closed = ClosedMap(cp.Problem(cp.Maximize(theta @ z - regularizer), sums), None, [z])
    values, bar = rng.standard_normal((2, n))
    solved = closed.solve(values)
    assert isinstance(solved, ClosedSolved)
    gradient = closed.vjp(solved, bar)
    for group in (0, 16, 1500, 2999):
        entries = order[label == group]
        expected = entmax(values[entries], 1.0 if entropic else 2.0)
        np.testing.assert_allclose(solved.outputs[entries], expected, atol=1e-14)
        s = expected if entropic else (expected > 0).astype(float)
        np.testing.assert_allclose(gradient[entries], s * (bar[entries] - s @ bar[entries] / s.sum()), atol=1e-13)
