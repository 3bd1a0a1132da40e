"""Problems that are a regularized argmax take its closed form; those that only look like one do not.

The closed form and the path through a solver and the KKT system are compared in value and in derivatives of first and
second order, at random points, ties, huge scores, for batches and for sizes from 1 to 1000.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from numpy.typing import NDArray

import cvxift
from cvxift import argmax
from cvxift.argmax.closed_form import terms as terms_module
from cvxift.argmax.closed_form.carried import carries
from cvxift.argmax.closed_form.closed_map import GENERIC, ClosedMap, ClosedSolved
from cvxift.argmax.simplex import entmax
from cvxift.atoms import fused, gini, neg_entropy, relative_entropy, tsallis_neg_entropy
from cvxift.errors import ApplicabilityError, ApplicabilityWarning, ProgramError, SolveError
from cvxift.kkt import warm_point
from cvxift.kkt.solution import Solution
from cvxift.layers.core import LayerCore
from tests.argmax.agreement import Builders, agree, both, core_of, draw, flat

OLD = tuple(int(part) for part in cp.__version__.split(".")[:2]) < (1, 9)

Array = NDArray[np.float64]
N = 5
WEIGHTS = np.array([[0.7, -0.2], [0.1, 1.1], [-0.5, 0.4], [0.3, 0.9], [-1.2, 0.2]])
PRIOR = np.array([0.1, 0.3, 0.2, 0.25, 0.15])


def scores() -> cp.Parameter:
    return cp.Parameter(N, name="theta")


def temperature() -> cp.Parameter:
    return cp.Parameter(nonneg=True, name="temperature")


def upper() -> cp.Parameter:
    return cp.Parameter(N, name="upper")


def lower() -> cp.Parameter:
    return cp.Parameter(N, name="lower")


def total() -> cp.Parameter:
    return cp.Parameter(name="total")


def decreasing() -> cp.Parameter:
    return cp.Parameter(N, name="values")


def prior() -> cp.Parameter:
    return cp.Parameter(N, nonneg=True, name="prior")


Built = tuple[cp.Problem, str]


def maximize(regularizer: Any, z: cp.Variable, constraints: list[Any], theta: Any = None) -> cp.Problem:
    return cp.Problem(cp.Maximize((scores() if theta is None else theta) @ z - regularizer), constraints)


def named(problem: cp.Problem, kind: str) -> Built:
    """A problem and the path that it must take."""
    return problem, f"closed form ({kind})"


def spellings() -> dict[str, Callable[[], Built]]:
    """By name, a problem and what it must be recognized as."""
    found = spelling = Builders[Built]()

    @spelling
    def entr():
        z = cp.Variable(N)
        return cp.Problem(cp.Maximize(scores() @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1]), "softmax"

    @spelling
    def entr_minimized_with_redundant_bounds():
        z = cp.Variable(N)
        objective = cp.Minimize(-scores() @ z - cp.sum(cp.entr(z)))
        return cp.Problem(objective, [np.ones(N) @ z == 1, z >= 0, z <= 1]), "softmax"

    @spelling
    def entr_of_a_nonneg_variable_scaled():
        z = cp.Variable(N, nonneg=True)
        return maximize(-2 * cp.sum(cp.entr(z)), z, [2 * cp.sum(z) == 2]), "softmax"

    @spelling
    def entr_of_twice_z():
        z = cp.Variable(N)
        return maximize(-cp.sum(cp.entr(2 * z)), z, [cp.sum(z) == 1]), "softmax"

    @spelling
    def entr_with_scores_through_a_matrix():
        z, w = cp.Variable(N), cp.Parameter(2, name="w")
        return maximize(neg_entropy(z), z, [cp.sum(z) == 1], WEIGHTS @ w + 1.0), "softmax"

    @spelling
    def kl_to_a_prior():
        z = cp.Variable(N)
        return maximize(cp.sum(cp.kl_div(z, PRIOR)), z, [cp.sum(z) == 1]), "softmax"

    @spelling
    def relative_entropy_to_a_prior():
        z = cp.Variable(N)
        return maximize(relative_entropy(z, PRIOR), z, [cp.sum(z) == total()]), "softmax"

    @spelling
    def relative_entropy_to_a_prior_that_is_a_parameter():
        z = cp.Variable(N)
        return maximize(cp.sum(cp.rel_entr(z, prior())), z, [cp.sum(z) == 1]), "softmax"

    @spelling
    def kl_to_a_function_of_a_prior():
        z = cp.Variable(N)
        return maximize(2 * cp.sum(cp.kl_div(3 * z, 0.5 * prior() + 0.1)), z, [cp.sum(z) == 1]), "softmax"

    @spelling
    def an_epigraph_of_the_entropy():
        z, w = cp.Variable(N), cp.Variable()
        theta = scores()
        objective = cp.Maximize(theta @ z - temperature() * w)
        return cp.Problem(objective, [cp.sum(z) == 1, 2 * neg_entropy(z) <= 3 * w]), "softmax"

    @spelling
    def an_epigraph_of_powers():
        z, w = cp.Variable(N, nonneg=True), cp.Variable()
        objective = cp.Maximize(scores() @ z - temperature() * w)
        return cp.Problem(objective, [cp.sum(z) == 1, cp.sum(cp.power(z, 1.5, approx=False)) <= w]), "1.5-entmax"

    @spelling
    def rows_of_a_matrix():
        z, theta = cp.Variable((2, 3)), cp.Parameter((2, 3), name="theta")
        objective = cp.Maximize(cp.sum(cp.multiply(theta, z)) + cp.sum(cp.entr(z)))
        return cp.Problem(objective, [cp.sum(z, axis=1) == 1]), "softmax"

    @spelling
    def columns_of_a_matrix():
        z, theta = cp.Variable((2, 3)), cp.Parameter((2, 3), name="theta")
        objective = cp.Minimize(cp.sum_squares(z - theta))
        return cp.Problem(objective, [cp.sum(z, axis=0) == 1, z >= 0]), "sparsemax"

    @spelling
    def projection():
        z = cp.Variable(N)
        return cp.Problem(cp.Minimize(cp.sum_squares(z - scores())), [cp.sum(z) == 1, z >= 0]), "sparsemax"

    @spelling
    def projection_scaled():
        z = cp.Variable(N, nonneg=True)
        return cp.Problem(cp.Minimize(7 * cp.sum_squares(3 * z - scores())), [-3 * cp.sum(z) == -3]), "sparsemax"

    @spelling
    def half_a_sum_of_squares():
        z = cp.Variable(N)
        objective = cp.Minimize(-scores() @ z + 0.5 * cp.sum_squares(z))
        return cp.Problem(objective, [cp.sum(z) == 1, -z <= 0, z >= -3]), "sparsemax"

    @spelling
    def squares_with_temperature():
        z = cp.Variable(N, nonneg=True)
        return maximize(temperature() * cp.sum(cp.square(z)), z, [cp.sum(z) == 1]), "sparsemax"

    @spelling
    def quadratic_form():
        z = cp.Variable(N)
        return maximize(cp.quad_form(z, 3 * np.eye(N)), z, [np.ones(N) @ z == 1, z >= 0]), "sparsemax"

    @spelling
    def quad_over_lin():
        z = cp.Variable(N)
        return maximize(cp.quad_over_lin(z, 2.0), z, [cp.sum(z) == 1, 2 * z >= 0]), "sparsemax"

    @spelling
    def projection_under_caps():
        z = cp.Variable(N)
        constraints = [cp.sum(z) == 1, z >= 0, z <= upper()]
        return cp.Problem(cp.Minimize(cp.sum_squares(z - scores())), constraints), "constrained sparsemax"

    @spelling
    def projection_onto_a_budget():
        z = cp.Variable(N)
        constraints = [cp.sum(z) == total(), z >= lower(), 0.5 * z <= upper()]
        return cp.Problem(cp.Minimize(cp.sum_squares(z - scores())), constraints), "budget"

    @spelling
    def one_sided_budget():
        z = cp.Variable(N)
        constraints = [cp.sum(z) == total(), z <= upper()]
        return cp.Problem(cp.Minimize(cp.sum_squares(z - scores())), constraints), "budget"

    @spelling
    def budget_with_some_lower_bounds():
        z = cp.Variable(N)
        constraints = [cp.sum(z) == 1, z[:2] >= 0, z <= 0.6]
        return cp.Problem(cp.Minimize(cp.sum_squares(z - scores())), constraints), "budget"

    @spelling
    def a_box_by_attribute():
        if OLD:
            pytest.skip("parametric bounds need CVXPY 1.9")
        z = cp.Variable(N, bounds=[-0.5, upper()])
        return cp.Problem(cp.Minimize(cp.sum_squares(z - scores()))), "box"

    @spelling
    def a_box_with_temperature():
        z = cp.Variable(N)
        return maximize(temperature() * cp.sum_squares(z), z, [z >= lower(), z <= upper()]), "box"

    @spelling
    def rectified():
        z = cp.Variable((2, 3), nonneg=True)
        theta = cp.Parameter((2, 3), name="theta")
        return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z) - cp.sum(cp.multiply(theta, z)))), "box"

    @spelling
    def binary_entropies():
        z = cp.Variable(N)
        return maximize(-cp.sum(cp.entr(z) + cp.entr(1 - z)), z, [z >= 0, z <= 1]), "sigmoid"

    @spelling
    def capped_entropy():
        z = cp.Variable(N)
        return maximize(-cp.sum(cp.entr(z)), z, [cp.sum(z) == 1, 3 * z <= 3 * upper()]), "constrained softmax"

    @spelling
    def powers():
        z = cp.Variable(N, nonneg=True)
        return maximize(cp.sum(cp.power(z, 1.5, approx=False)), z, [cp.sum(z) == 1]), "1.5-entmax"

    @spelling
    def powers_by_second_order_cones():
        z = cp.Variable(N)
        return maximize(cp.sum(cp.power(2 * z, 1.5)), z, [cp.sum(z) == 1]), "1.5-entmax"

    @spelling
    def cubes():
        z = cp.Variable(N, nonneg=True)
        return maximize(temperature() * cp.sum(cp.power(z, 3)), z, [cp.sum(z) == total()]), "3-entmax"

    @spelling
    def fourth_powers():
        z = cp.Variable(N)
        return maximize(cp.sum(cp.power(z, 4)), z, [cp.sum(z) == 1, z >= 0]), "4-entmax"

    @spelling
    def powers_of_columns_below_an_epigraph():
        z, w, theta = cp.Variable((2, 3)), cp.Variable(), cp.Parameter((2, 3), name="theta")
        constraints = [cp.sum(z, axis=0) == 1, cp.sum(cp.power(z, 1.25)) <= 2 * w]
        return cp.Problem(cp.Maximize(cp.sum(cp.multiply(theta, z)) - temperature() * w), constraints), "1.25-entmax"

    @spelling
    def one_entry():
        z, theta = cp.Variable(1), cp.Parameter(1, name="theta")
        return cp.Problem(cp.Maximize(theta @ z + cp.sum(cp.entr(z))), [cp.sum(z) == total()]), "softmax"

    builders = {
        "softmax": (lambda: argmax.softmax(N, temperature()), "softmax"),
        "sparsemax": (lambda: argmax.sparsemax(N, temperature()), "sparsemax"),
        "entmax_1.5": (lambda: argmax.entmax(N, 1.5, temperature()), "1.5-entmax"),
        "entmax_1.2": (lambda: argmax.entmax(N, 1.2), "1.2-entmax"),
        "entmax_3": (lambda: argmax.entmax(N, 3.0), "3-entmax"),
        "entmax_2": (lambda: argmax.entmax(N, 2.0), "sparsemax"),
        "constrained_softmax": (lambda: argmax.constrained_softmax(N, upper(), temperature()), "constrained softmax"),
        "constrained_sparsemax": (lambda: argmax.constrained_sparsemax(N, upper()), "constrained sparsemax"),
        "budget": (lambda: argmax.budget(N, total(), upper=upper(), lower=lower()), "budget"),
        "budget_2": (lambda: argmax.budget(N, 2), "budget"),
        "box": (lambda: argmax.box(N, temperature()), "sigmoid"),
        "softmax_prior": (lambda: argmax.softmax(N, temperature(), prior()), "softmax"),
        "capped_prior": (lambda: argmax.constrained_softmax(N, upper(), temperature(), prior()), "constrained softmax"),
    }
    for name, (build, kind) in builders.items():
        found[f"builder {name}"] = lambda build=build, kind=kind: (build(), kind)
    return found


SPELLINGS = {name: lambda build=build: named(*build()) for name, build in spellings().items()}


@pytest.mark.parametrize("name", ["projection_onto_a_budget", "powers", "squares_with_temperature"])
def test_canonical_points_are_found_around_the_closed_forms(name: str) -> None:
    problem, _ = SPELLINGS[name]()
    closed = ClosedMap(problem, None, problem.variables()[:1])
    assert closed.canonical(flat(draw(problem.parameters(), np.random.default_rng(12)))).solver == closed.path


@pytest.mark.parametrize("name", ["entr", "kl_to_a_prior", "rows_of_a_matrix", "capped_entropy", "binary_entropies"])
def test_canonical_points_of_entropies_need_no_solver(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = SPELLINGS[name]()
    closed = ClosedMap(problem, None, problem.variables()[:1])

    def refuse(*_: Any) -> None:
        raise AssertionError("a solver was asked")

    closed.program  # noqa: B018
    monkeypatch.setattr(warm_point.solvers, "get", refuse)
    rng = np.random.default_rng(13)
    for _ in range(4):  # caps hold at some of these and not at others
        solution = closed.canonical(flat(draw(problem.parameters(), rng)))
        assert solution.ok and solution.solver == closed.path and solution.residuals.worst <= 1e-12


@pytest.mark.parametrize("alpha", [1.1, 1.2, 1.25, 1.5, 1.75, 2.5, 3.0, 4.0, 5.0])
@pytest.mark.parametrize("bounded", [True, False])
def test_powers_whose_entries_vanish(alpha: float, bounded: bool) -> None:
    # The cones' points are at their apexes there; without bounds the cones themselves hold the entries.
    z, theta = cp.Variable(N, nonneg=bounded), scores()
    closed = ClosedMap(maximize(cp.sum(cp.power(2 * z, alpha)), z, [cp.sum(z) == 1], theta), None, [z])
    if alpha == 4.0 and not bounded:
        assert closed.form is None
        return
    for values in (np.array([9.0, 8.5, -40.0, -90.0, 8.7]), np.array([500.0, -300.0, -10.0, -20.0, -1.0]), np.zeros(N)):
        assert closed.violation(values) <= 1e-12
        scale = 2.0**alpha * alpha * (alpha - 1.0)
        np.testing.assert_allclose(closed.solve(values).outputs, entmax(values / scale, alpha), atol=1e-15)


@pytest.mark.parametrize("name", ["builder softmax", "builder budget_2", "builder box", "rows_of_a_matrix"])
def test_a_wrong_point_is_seen(name: str) -> None:
    problem, _ = SPELLINGS[name]()
    closed = ClosedMap(problem, None, problem.variables()[:1])
    theta = flat(draw(problem.parameters(), np.random.default_rng(1)))
    assert closed.recognized is not None and closed.violation(theta) <= 1e-13
    beside = theta.copy()
    beside[-1] += 1e-6
    state = closed.recognized.form.solve(beside)
    assert state is not None and closed.recognized.violation(state, theta) > 1e-9


def test_a_prior_without_mass_somewhere_is_left_to_the_solvers() -> None:
    z = cp.Variable(N)
    problem = maximize(cp.sum(cp.rel_entr(z, prior())), z, [cp.sum(z) == 1])
    closed = ClosedMap(problem, None, [z])
    values = np.stack([np.zeros(N), PRIOR])
    theta = np.concatenate([values, np.tile(PRIOR, (2, 1))], axis=1)
    np.testing.assert_allclose(closed.solve(theta[1:]).outputs[0], PRIOR * np.exp(PRIOR) / (PRIOR @ np.exp(PRIOR)))
    theta[0, N] = 0.0
    assert closed.closed(theta) is None


def lookalikes() -> dict[str, Callable[[], cp.Problem]]:
    """By name, a problem that is none of the closed forms, though nearly."""
    Of = Callable[[Any], Any]
    Build = Callable[[], cp.Problem]

    def terms(regularizer: Of, constraints: Of = lambda z: [cp.sum(z) == 1]) -> Build:
        z = cp.Variable(N)
        return lambda: maximize(regularizer(z), z, constraints(z))

    def projection(constraints: Of) -> Build:
        return terms(lambda z: cp.sum_squares(z) / 2, constraints)

    def simplex(regularizer: Of) -> Build:
        return terms(regularizer, lambda z: [cp.sum(z) == 1, z >= 0])

    def entropies(constraints: Of, weight: Any = 1.0) -> Build:
        return terms(lambda z: -cp.sum(cp.multiply(weight, cp.entr(z))), constraints)

    def epigraph(objective: Callable[[Any, Any], Any], below: Of) -> Build:
        z, w = cp.Variable(N), cp.Variable()
        return lambda: cp.Problem(cp.Maximize(scores() @ z + objective(z, w)), [cp.sum(z) == 1, below(z) <= w])

    def powers(expression: Of) -> Build:
        return simplex(lambda z: cp.sum(cp.power(expression(z), 1.5)))

    def another_variable() -> cp.Problem:
        z, slack = cp.Variable(N), cp.Variable()
        objective = cp.Minimize(cp.sum_squares(z - scores()) + cp.square(slack))
        return cp.Problem(objective, [cp.sum(z) + slack == 1, z >= 0])

    def a_symmetric_variable() -> cp.Problem:
        z, theta = cp.Variable((2, 2), symmetric=True), cp.Parameter((2, 2), name="theta")
        return cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [cp.sum(z) == 1, z >= 0])

    def least_squares() -> cp.Problem:
        z, theta = cp.Variable(N), scores()
        return cp.Problem(cp.Minimize(cp.sum_squares(WEIGHTS.T @ z - theta[:2]) + cp.sum_squares(z)))

    one_to_n = np.arange(1.0, N + 1)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((N, N)))[0]
    weights = cp.Parameter(N, nonneg=True, name="temperature")
    halves: Of = lambda z: [cp.sum(z[:2]) == 1, cp.sum(z[2:]) == 1]  # noqa: E731
    return {
        "a further inequality": entropies(lambda z: [cp.sum(z) == 1, z[0] <= z[1]]),
        "a further equality": projection(lambda z: [cp.sum(z) == 1, z >= 0, z[0] == z[1]]),
        "a fixed entry": projection(lambda z: [cp.sum(z) == 1, z >= 0, z[0] == 0.2]),
        "weighted entropies": entropies(lambda z: [cp.sum(z) == 1], one_to_n),
        "weights that are a parameter": entropies(lambda z: [cp.sum(z) == 1], weights),
        "missing bounds": projection(lambda z: [cp.sum(z) == 1]),
        "bounds on some entries": projection(lambda z: [cp.sum(z) == 1, z[:3] >= 0]),
        "lower bounds under an entropy": entropies(lambda z: [cp.sum(z) == 1, z >= 0.05]),
        "a weighted sum": projection(lambda z: [one_to_n @ z == 1, z >= 0]),
        "a sum as an inequality": projection(lambda z: [cp.sum(z) <= 1, z >= 0]),
        "overlapping sums": projection(lambda z: [cp.sum(z) == 1, z >= 0, cp.sum(z[:3]) == 0.5]),
        "caps on entropies under sums of different lengths": entropies(lambda z: [*halves(z), z <= 0.7]),
        "sums of different lengths with an entry left": projection(
            lambda z: [cp.sum(z[:1]) == 1, cp.sum(z[2:]) == 1, z >= 0]
        ),
        "weights within sums of different lengths": entropies(halves, np.array([1.0, 1.0, 2.0, 2.0, 1.0])),
        "a weighted sum beside one of another length": entropies(
            lambda z: [cp.sum(z[:2]) == 1, z[2] + z[3] + 2 * z[4] == 1]
        ),
        "a sum of some entries": projection(lambda z: [cp.sum(z[:4]) == 1, z >= 0]),
        "a parameter in the sum": projection(lambda z: [weights @ z == 1, z >= 0]),
        "coupled squares": simplex(lambda z: cp.quad_form(z, np.eye(N) + 0.1)),
        "weighted squares": simplex(lambda z: cp.sum_squares(cp.multiply(one_to_n, z))),
        "rotated squares": simplex(lambda z: cp.sum_squares(turn @ z - one_to_n)),
        "linear": simplex(lambda z: 0),
        "squares and entropies": terms(lambda z: cp.sum_squares(z) + neg_entropy(z)),
        "squares and absolute values": simplex(lambda z: gini(z) + 0.1 * cp.norm1(z - PRIOR)),
        "total variation": simplex(lambda z: gini(z) + 0.1 * fused(z)),
        "another variable": another_variable,
        "entropies of shifted entries": terms(lambda z: -cp.sum(cp.entr(z + 0.1))),
        "entropies of some entries": simplex(lambda z: -cp.sum(cp.entr(z[1:]))),
        "two entropies of one entry": terms(lambda z: -cp.sum(cp.entr(z)) - cp.entr(z[0])),
        "binary entropies of different weight": terms(lambda z: -cp.sum(cp.entr(z) + 2 * cp.entr(1 - z)), lambda z: []),
        "binary entropies under a sum": terms(
            lambda z: -cp.sum(cp.entr(z) + cp.entr(1 - z)), lambda z: [cp.sum(z) == 2]
        ),
        "powers without bounds": terms(lambda z: cp.sum(cp.power(cp.abs(z), 3, approx=False))),
        "powers under caps": terms(lambda z: tsallis_neg_entropy(z, 1.5), lambda z: [cp.sum(z) == 1, z <= 0.4]),
        "different powers": terms(lambda z: tsallis_neg_entropy(z[:2], 1.5) + tsallis_neg_entropy(z[2:], 3.0)),
        "fourth powers of any sign": terms(lambda z: cp.sum(cp.power(z, 4))),
        "powers that differ": simplex(lambda z: cp.sum(cp.power(z[:3], 1.5)) + cp.sum(cp.power(z[3:], 3))),
        "weighted powers": terms(lambda z: cp.sum(cp.multiply(one_to_n, cp.power(z, 1.5)))),
        "powers of shifted entries": powers(lambda z: z + 0.1),
        "powers of some entries": powers(lambda z: z[:4]),
        "powers of sums": powers(lambda z: np.tri(N) @ z),
        "powers of absolute values": powers(cp.abs),
        "powers with lower bounds": terms(lambda z: cp.sum(cp.power(z, 1.5)), lambda z: [cp.sum(z) == 1, z >= 0.01]),
        "a norm": simplex(cp.norm),
        "a geometric mean": terms(lambda z: -cp.geo_mean(z)),
        "reciprocals": terms(lambda z: cp.sum(cp.power(z, -1))),
        "square roots": terms(lambda z: -cp.sum(cp.sqrt(z))),
        "a prior that is a parameter of sigmoids": terms(
            lambda z: cp.sum(cp.rel_entr(z, prior())) - cp.sum(cp.entr(1 - z)), lambda z: []
        ),
        "an epigraph with a constant": epigraph(lambda z, w: -w, lambda z: neg_entropy(z) + 1),
        "an epigraph of some entropies": epigraph(lambda z, w: cp.entr(z[0]) - w, lambda z: neg_entropy(z[1:])),
        "an epigraph that is squared": epigraph(lambda z, w: -cp.square(w), lambda z: 3 + neg_entropy(z)),
        "an epigraph with another entry": epigraph(lambda z, w: -w, lambda z: neg_entropy(z) + z[0]),
        "a symmetric variable": a_symmetric_variable,
        "a path": lambda: argmax.flow([(0, 1), (1, 2), (0, 2)], 0, 2),
        "least squares": least_squares,
    }


LOOKALIKES = lookalikes()


def test_geometric_programs_and_dual_variables_are_not_recognized() -> None:
    x, a = cp.Variable(2, pos=True), cp.Parameter(2, pos=True)
    program = cp.Problem(cp.Minimize(cp.sum(cp.multiply(a, x))), [cp.prod(x) >= 1])
    assert ClosedMap(program, None, [x], gp=True).form is None
    z = cp.Variable(N)
    constraint = cp.sum(z) == 1
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - scores())), [constraint, z >= 0])
    assert ClosedMap(problem, None, [z, constraint.dual_variables[0]]).form is None
    assert ClosedMap(problem, None, [constraint.dual_variables[0]]).form is None
    assert ClosedMap(problem, None, [z]).form is not None


@dataclass
class _Hard:
    name: str
    theta: Array


HARD = [
    _Hard("all equal", np.zeros(N)),
    _Hard("two equal on top", np.array([1.3, 1.3, 0.1, -0.4, 0.2])),
    _Hard("huge", 1e6 * np.array([0.3, 0.3000004, -1.0, 0.2, 0.1])),
    _Hard("tiny", 1e-9 * np.array([1.0, -2.0, 0.5, 3.0, 0.0])),
    _Hard("shifted far", 1e5 + np.array([0.3, 0.5, -0.2, 0.1, 0.4])),
]


@pytest.mark.parametrize("hard", HARD, ids=lambda hard: hard.name)
@pytest.mark.parametrize("name", ["softmax", "sparsemax", "budget", "constrained sparsemax", "constrained softmax"])
def test_hard_scores(name: str, hard: _Hard) -> None:
    entropic = "softmax" in name
    problem = {
        "softmax": lambda: argmax.softmax(N),
        "sparsemax": lambda: argmax.sparsemax(N),
        "budget": lambda: argmax.budget(N, 2.3),
        "constrained sparsemax": lambda: argmax.constrained_sparsemax(N, 0.47),
        "constrained softmax": lambda: argmax.constrained_softmax(N, 0.45),
    }[name]()
    closed = ClosedMap(problem, None, problem.variables())
    if entropic and hard.name in ("huge", "shifted far"):
        # Beyond what conic solvers resolve: compare with the same scores, shifted to their top.
        solved = closed.solve(hard.theta)
        again = closed.solve(hard.theta - hard.theta.max())
        np.testing.assert_allclose(solved.outputs, again.outputs, atol=1e-9)
        assert abs(solved.outputs.sum() - 1.0) <= 1e-12 and (solved.outputs >= 0).all()
        return
    generic = ClosedMap(problem, None, problem.variables(), closed_form="never")
    agree(closed, generic, hard.theta, np.random.default_rng(3))


@pytest.mark.parametrize("build", [argmax.softmax, argmax.sparsemax, lambda n: argmax.budget(n, 3)])
def test_a_thousand_entries(build: Callable[[int], cp.Problem]) -> None:
    problem = build(1000)
    closed, generic = both(problem, problem.variables()[:1])
    rng = np.random.default_rng(5)
    agree(closed, generic, rng.standard_normal(1000), rng, second=False)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_orders_of_differentiation(order: int) -> None:
    problem = argmax.sparsemax(N, temperature())
    closed, generic = both(problem, problem.variables()[:1])
    rng = np.random.default_rng(order)
    theta = flat(draw(problem.parameters(), rng, (2,)), (2,))
    a, b = closed.solve(theta), generic.solve(theta)
    tangents = [rng.standard_normal((3, *theta.shape)) for _ in range(order)]
    bar = rng.standard_normal((3, *a.outputs.shape))
    forward = generic.derivative(b, tangents)
    np.testing.assert_allclose(closed.derivative(a, tangents), forward, atol=1e-8)
    adjoint = generic.derivative(b, tangents[1:], bar)
    np.testing.assert_allclose(closed.derivative(a, tangents[1:], bar), adjoint, atol=1e-8)


def test_the_order_of_parameters_is_the_callers() -> None:
    problem, _ = SPELLINGS["projection_onto_a_budget"]()
    parameters = problem.parameters()
    rng = np.random.default_rng(4)
    values = dict(zip((p.id for p in parameters), draw(problem.parameters(), rng), strict=True))
    bar = rng.standard_normal(N)
    forward = LayerCore(problem, parameters, problem.variables())
    reverse = LayerCore(problem, parameters[::-1], problem.variables())
    results = []
    for core in (forward, reverse):
        call, (z,) = core.solve([values[p.id] for p in core.parameters], None, False)
        grads = core.vjp(call, [bar])
        results.append((z, {p.id: g for p, g in zip(core.parameters, grads, strict=True)}))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    for key, grad in results[0][1].items():
        np.testing.assert_allclose(grad, results[1][1][key], atol=1e-14)


def test_what_the_user_names_is_honoured() -> None:
    problem = argmax.sparsemax(N)
    assert core_of(problem).map.form is not None
    assert core_of(problem, closed_form="never").map.form is None
    assert core_of(problem, solver="clarabel").map.form is None
    assert core_of(problem, solver_args={"eps_abs": 1e-6}).map.form is None
    for policy in (cvxift.Policy("smooth"), cvxift.Policy("raise"), cvxift.Policy(linear_solver="iterative")):
        assert core_of(problem, policy=policy).map.form is None
    core = core_of(problem)
    core.solve([np.arange(float(N))], {"tol_gap_abs": 1e-10}, False)
    assert core.last_report.path == GENERIC
    with pytest.raises(ProgramError, match="closed_form='always' is not known; choose one of 'auto', 'never'"):
        core_of(problem, closed_form="always")
    z = cp.Variable(N)
    with pytest.raises(ProgramError, match="closed_form"):
        cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(z)), [z >= 1]), closed_form="yes")  # type: ignore[arg-type]


def test_no_solver_and_no_factorization_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = SPELLINGS["projection_onto_a_budget"]()
    core = core_of(problem, check="warn")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a solver was called")

    for name in ("solve", "accept_condensed"):
        monkeypatch.setattr(core.map.engine, name, refuse)
    monkeypatch.setattr(Solution, "linearization", refuse)
    rng = np.random.default_rng(1)
    for batch in ((), (3,), (2, 2)):
        call, (z,) = core.solve(draw(problem.parameters(), rng, batch), None, False, prepare=True)
        bars = [rng.standard_normal(z.shape)]
        theta_dot, solved = rng.standard_normal((*batch, core.map.theta_size)), call.solved
        assert z.shape == (*batch, N)
        derivatives = core.map.jvp(solved, theta_dot), core.map.derivative(solved, (theta_dot,), bars[0])
        assert all(np.isfinite(out).all() for out in (*core.vjp(call, bars), *derivatives))


def test_what_the_caller_overwrites_does_not_change_derivatives() -> None:
    problem = argmax.box(N)
    mapping = ClosedMap(problem, None, problem.variables())
    theta = np.linspace(-1.0, 1.0, N)
    solved = mapping.solve(theta)
    theta[:] = 50.0
    expected = mapping.vjp(mapping.solve(np.linspace(-1.0, 1.0, N)), np.ones(N))
    np.testing.assert_array_equal(mapping.vjp(solved, np.ones(N)), expected)


def test_reports_name_the_path() -> None:
    never = core_of(argmax.softmax(N), closed_form="never")
    never.solve([np.zeros(N)], None, False)
    assert f"path: {GENERIC}" in str(never.last_report)
    core = core_of(argmax.softmax(N))
    core.solve([np.zeros((3, N))], None, False)
    assert core.last_report.margins.tolist() == [np.inf] * 3


def test_the_canonical_program_is_made_where_something_asks_for_it() -> None:
    problem, _ = SPELLINGS["projection_onto_a_budget"]()
    core, rng = core_of(problem, check="warn"), np.random.default_rng(1)
    for batch in ((), (3,)):
        call, (z,) = core.solve(draw(problem.parameters(), rng, batch), None, False, prepare=True)
        core.map.derivative(call.solved, (rng.standard_normal((*batch, core.map.theta_size)),), np.ones(z.shape))
    assert core.last_report is not None and core.last_report.weak == 0 and core.last_report.residual <= 1e-12
    assert "program" not in vars(core.map) and "engine" not in vars(core.map)
    assert "program" not in vars(pickle.loads(pickle.dumps(core.map)))
    assert core.map.data(np.concatenate([value.ravel() for value in draw(problem.parameters(), rng)])).q.size >= N
    assert "program" in vars(core.map) and core.map.form is not None
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        core.map.nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize(
    "build",
    [
        lambda: argmax.permutahedron(5),
        lambda: argmax.permutahedron(5, 2.0 * decreasing() + 1.0, temperature()),
        lambda: argmax.permutahedron(5, PRIOR, 0.7, "entropic"),
        lambda: argmax.linear_chain(1, 3),
        lambda: argmax.linear_chain(2, 1, 0.5),
        lambda: argmax.linear_chain(4, 3, temperature()),
        lambda: argmax.softmax(4),
        lambda: argmax.softmax(4, temperature(), cp.Parameter(4, nonneg=True, name="prior")),
        lambda: argmax.softmax(4, 0.3, np.array([1.0, 2.0, 0.5, 1.0])),
        lambda: argmax.sparsemax(4, temperature()),
        *(lambda alpha=alpha: argmax.entmax(4, alpha, temperature()) for alpha in (1, 1.0, 1.3, 1.5, 2, 3.0)),
        lambda: argmax.constrained_softmax(4, cp.Parameter(4, name="upper"), 0.7, np.array([1.0, 2.0, 0.5, 1.0])),
        lambda: argmax.constrained_softmax(4, [0.4, np.inf, 0.5, 0.3]),
        lambda: argmax.constrained_sparsemax(4, 0.4, temperature()),
        lambda: argmax.budget(5, 2),
        lambda: argmax.budget(5, cp.Parameter(name="total"), lower=-0.1, upper=None),
        lambda: argmax.budget(4, 1.5, lower=[-0.1, 0.0, 0.1, 0.0], upper=cp.Parameter(name="upper")),
        lambda: argmax.box(4, temperature()),
        lambda: argmax.transport(np.array([0.2, 0.8]), np.array([0.5, 0.3, 0.2]), temperature=temperature()),
        lambda: argmax.transport(np.array([0.2, 0.8]), np.array([0.5, 0.3, 0.2]), prior=np.ones((2, 3)) + np.eye(2, 3)),
        lambda: argmax.transport(cp.Parameter(2, name="mass"), np.array([0.5, 0.3, 0.2]), "quadratic"),
        lambda: argmax.birkhoff(3, "quadratic", temperature()),
    ],
)
def test_forms_that_a_problem_carries_are_those_that_are_read(build: Callable[[], cp.Problem]) -> None:
    problem = build()
    again = cp.Problem(problem.objective, problem.constraints)
    parameters = problem.parameters()[::-1]
    outputs = [v for v in problem.variables() if v.name() != "omega"]
    assert carries(problem) and not carries(again)
    one, other = ClosedMap(problem, parameters, outputs), ClosedMap(again, parameters, outputs)
    assert one.path == other.path != GENERIC
    rng = np.random.default_rng(3)
    values = {"temperature": rng.uniform(0.5, 2.0, (2, 1)), "values": np.sort(rng.uniform(1, 2, (2, 5)))[:, ::-1]}
    values |= {"total": np.array([[1.0], [1.5]]), "mass": np.array([[0.4, 0.6], [0.1, 0.9]])}
    bounded = next((p.size for p in parameters if p.name() == "upper"), 1)
    values |= {"upper": rng.uniform(0.4, 0.6, (2, bounded)), "prior": rng.uniform(0.5, 2.0, (2, 4))}
    theta = [values.get(p.name(), rng.standard_normal((2, p.size))) for p in parameters]
    a, b = (mapping.solve(np.concatenate(theta, axis=-1)) for mapping in (one, other))
    assert isinstance(a, ClosedSolved) and isinstance(b, ClosedSolved)
    np.testing.assert_allclose(a.outputs, b.outputs, atol=1e-14)
    bar = rng.standard_normal(a.outputs.shape)
    np.testing.assert_allclose(one.vjp(a, bar), other.vjp(b, bar), atol=1e-13)


def test_other_problems_are_refused_without_reading_their_coefficients(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("coefficients were read")

    monkeypatch.setattr(terms_module, "Coefficients", read)
    n, rng = 30, np.random.default_rng(0)
    z, theta, dense = cp.Variable(n), cp.Parameter(n), rng.standard_normal((n, n))
    squares = cp.sum_squares(z - theta)
    for problem in (
        cp.Problem(cp.Minimize(squares), [dense @ z <= 1, cp.sum(z) == 1]),
        cp.Problem(cp.Minimize(cp.sum_squares(dense @ z - theta)), [z >= 0]),
        cp.Problem(cp.Minimize(cp.quad_form(z, dense.T @ dense) + theta @ z), [z >= 0]),
        cp.Problem(cp.Minimize(squares + cp.norm1(z))),
        cp.Problem(cp.Minimize(squares), [cp.norm(z) <= 1]),
    ):
        assert ClosedMap(problem, None, [z]).form is None


SETS = {
    "sparsemax on a kink": (lambda: argmax.sparsemax(3), [1.0, 0.0, -1.0]),
    "a capped entry on a kink": (lambda: argmax.constrained_sparsemax(3, 0.6), [0.6, 0.3, 0.1]),
}


@pytest.mark.parametrize("name", SETS)
def test_kinks_are_told_as_by_the_generic_path(name: str) -> None:
    build, theta = SETS[name]
    told = []
    for closed_form in ("auto", "never"):
        core = core_of(build(), check="warn", closed_form=closed_form)
        with pytest.warns(ApplicabilityWarning, match="weakly active") as caught:
            core.solve([np.array(theta)], None, False)
        told.append({str(w.message).split("(")[0] for w in caught})
        assert core.last_report.weak == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            core.solve([np.array(theta)], None, False)  # once for each cause
        strict = core_of(build(), check="raise", closed_form=closed_form)
        with pytest.raises(ApplicabilityError, match=r"Instance 1 of the batch: .*weakly active"):
            strict.solve([np.array([[3.0, 0.5, 0.4], theta])], None, False)
    assert told[0] == told[1]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_margins_are_the_same_however_rows_are_scaled(scale: float) -> None:
    z, theta = cp.Variable(3), cp.Parameter(3)
    constraints = [cp.sum(z) == 1, scale * z >= 0, scale * z <= 0.6 * scale]
    closed = ClosedMap(cp.Problem(cp.Minimize(2 * cp.sum_squares(z - theta)), constraints), None, [z])
    solved = closed.solve(np.array([0.6, 0.3, -0.3]))
    # z = (0.6, 0.4, 0), τ = −0.1: the least is 0.6 − 0.4, the most the multiplier of z ≥ 0, 4 · 0.2.
    np.testing.assert_allclose(closed.form.margins(solved.state), 0.2 / 1.8, rtol=1e-6)


def test_no_kink_where_all_entries_are_held() -> None:
    core = core_of(argmax.budget(4, 2), check="raise")
    call, (z,) = core.solve([np.array([9.0, 8.0, 1.0, 0.0])], None, False)
    np.testing.assert_array_equal(z, [1.0, 1.0, 0.0, 0.0])
    assert isinstance(call.solved, ClosedSolved) and core.last_report.margin > 0.1
    np.testing.assert_array_equal(core.vjp(call, [np.ones(4)])[0], np.zeros(4))
    generic = core_of(argmax.budget(4, 2), closed_form="never")
    np.testing.assert_allclose(generic.solve([np.array([9.0, 8.0, 1.0, 0.0])], None, False)[1][0], z, atol=1e-9)


def test_moving_bounds_that_hold_every_entry_are_left_to_the_generic_path() -> None:
    z, cap, theta = cp.Variable(2), cp.Parameter(2, name="upper"), cp.Parameter(2, name="theta")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [cp.sum(z) == 1, z >= 0, z <= cap])
    core = core_of(problem)
    order = [p.name() for p in core.parameters]
    at = {"theta": np.array([5.0, 1.0]), "upper": np.array([1.0, 1.0])}
    core.solve([at[name] for name in order], None, False)
    assert core.last_report.path == GENERIC
    at["upper"] = np.array([0.8, 1.0])
    core.solve([at[name] for name in order], None, False)
    assert core.last_report.path == "closed form (constrained sparsemax)"


@pytest.mark.parametrize("name", ["builder constrained_sparsemax", "builder constrained_softmax", "builder budget"])
def test_empty_sets_fail_as_on_the_generic_path(name: str) -> None:
    errors = []
    for closed_form in ("auto", "never"):
        problem, _ = SPELLINGS[name]()
        core = core_of(problem, closed_form=closed_form)
        rng = np.random.default_rng(9)
        values = draw(problem.parameters(), rng, (2,))
        for parameter, value in zip(core.parameters, values, strict=True):
            if parameter.name() == "upper":
                value[1] = 0.05
        with pytest.raises(SolveError) as caught:
            core.solve(values, None, False)
        errors.append((caught.value.status, set(caught.value.failures)))
        tolerant = core_of(problem, closed_form=closed_form, on_failure="nan")
        with pytest.warns(ApplicabilityWarning, match="was not solved"):
            call, (z,) = tolerant.solve(values, None, False)
        assert np.isfinite(z[0]).all() and np.isnan(z[1]).all()
        assert not any(grad[1].any() for grad in tolerant.vjp(call, [np.ones_like(z)]))
    assert errors[0] == errors[1] and errors[0][1] == {(1,)}


def test_bad_values_are_refused() -> None:
    core = core_of(argmax.sparsemax(3, temperature()))
    names = [p.name() for p in core.parameters]
    good = {"theta": np.array([1.0, 0.5, 0.0]), "temperature": np.array(1.0)}
    for name, value in (("theta", np.array([1.0, np.nan, 0.0])), ("temperature", np.array(-1.0))):
        with pytest.raises(ProgramError, match=name):
            core.solve([{**good, name: value}[n] for n in names], None, False)
    core.solve([good[n] for n in names], None, False)
    assert core.last_report.path == "closed form (sparsemax)"


def test_zero_temperature_is_left_to_the_generic_path() -> None:
    core = core_of(argmax.sparsemax(3, temperature()))
    values = [np.array(0.0) if p.name() == "temperature" else np.array([1.0, 0.5, 0.0]) for p in core.parameters]
    _, (z,) = core.solve(values, None, False)
    np.testing.assert_allclose(z, [1.0, 0.0, 0.0], atol=1e-8)
    assert core.last_report.path == GENERIC


def test_absent_bounds_at_infinity() -> None:
    z, cap, theta = cp.Variable(3), cp.Parameter(3, name="upper"), cp.Parameter(3, name="theta")
    for problem in (
        cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [cp.sum(z) == 1, z >= 0, z <= cap]),
        cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [z >= 0, z <= cap]),
        cp.Problem(cp.Maximize(theta @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1, z <= cap]),
    ):
        closed, never = core_of(problem), core_of(problem, closed_form="never")
        values = [
            np.array([np.inf, 0.2, np.inf] if p.name() == "upper" else [0.3, 0.9, 0.1]) for p in closed.parameters
        ]
        results = []
        for core in (closed, never):
            call, (value,) = core.solve(values, None, False)
            results.append((value, *core.vjp(call, [np.array([1.0, -2.0, 0.5])])))
        assert isinstance(closed._warm, ClosedSolved)
        for left, right in zip(*results, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-8)


def test_sensitivity_keeps_the_point_that_the_problem_holds() -> None:
    z, theta = cp.Variable(N), cp.Parameter(N, value=np.array([0.4, 1.1, -0.3, 0.2, 0.0]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [cp.sum(z) == 1, z >= 0])
    problem.solve()
    held = z.value.copy()
    s = cvxift.differentiate(problem)
    np.testing.assert_array_equal(z.value, held)
    assert s.path == "closed form (sparsemax)"
    theta.value = -theta.value
    s = cvxift.differentiate(problem)
    assert z.value.sum() == pytest.approx(1.0) and np.abs(z.value - held).max() > 0.1
    np.testing.assert_allclose(s.value(z), z.value)


def test_affine_pieces_of_a_program() -> None:
    from cvxift.program.program import Program

    z, w, t = cp.Variable(N), cp.Parameter(2), temperature()
    objective = cp.Minimize(t * cp.sum_squares(z) - (WEIGHTS @ w + 1.0) @ z)
    program = Program(cp.Problem(objective, [cp.sum(z) == 1, z >= w[0] + w[1] - 3.0]))
    theta = np.random.default_rng(0).uniform(size=program.theta_size)
    data, pieces = program.evaluate(theta), program.affine()
    for name in "PqAb":
        matrix, constant = pieces[name]
        np.testing.assert_allclose(matrix @ theta + constant, getattr(data, name), atol=1e-14)


def assembled(rng: np.random.Generator) -> tuple[cp.Problem, int]:
    """A problem put together at random from parts that closed forms know and some that they do not; and its length."""
    n = int(rng.integers(1, 6))
    z = cp.Variable(n, nonneg=bool(rng.integers(2)))
    theta, weight = cp.Parameter(n, name="theta"), float(rng.uniform(0.3, 3.0))
    shift = rng.standard_normal(n)
    regularizers: list[Callable[[], Any]] = [
        lambda: -cp.sum(cp.entr(float(rng.uniform(0.5, 2.0)) * z)),
        lambda: cp.sum_squares(z) + cp.sum_squares(2 * z - theta),
        lambda: cp.sum(cp.square(z - shift)),
        lambda: -cp.sum(cp.entr(z) + cp.entr(1 - z)),
        lambda: cp.sum(cp.kl_div(z, rng.uniform(0.2, 1.0, n))),
    ]
    constraints: list[Any] = []
    if rng.integers(5):
        scale, amount = float(rng.choice([1.0, 2.0, -1.5])), float(rng.uniform(0.8, 1.2))
        constraints.append(scale * cp.sum(z) == scale * amount)
    candidates = [
        (0.5, lambda: float(rng.uniform(0.5, 2.0)) * z >= 0),
        (0.3, lambda: z <= float(rng.uniform(1.25, 1.5))),
        (0.1, lambda: z[0] <= 1.21),
        (0.1, lambda: z[0] <= z[n - 1] + 0.5),
        (0.1, lambda: z >= -0.2),
    ]
    constraints += [build() for chance, build in candidates if rng.random() < chance]
    regularizer = weight * regularizers[int(rng.integers(len(regularizers)))]()
    return cp.Problem(cp.Maximize((theta + shift) @ z - regularizer), constraints), n


def test_assembled_problems_agree_wherever_they_are_recognized() -> None:
    rng = np.random.default_rng(2024)
    seen = set()
    for _ in range(40):
        problem, n = assembled(rng)
        closed = ClosedMap(problem, None, problem.variables())
        if closed.form is None:
            continue
        generic = ClosedMap(problem, None, problem.variables(), closed_form="never", program=closed.program)
        theta = rng.standard_normal((2, n))
        solved = closed.solve(theta)
        if isinstance(solved, ClosedSolved):
            seen.add(closed.path)
            agree(closed, generic, theta, rng, second=False)
    assert len(seen) >= 4, seen


@pytest.mark.parametrize("build", [argmax.softmax, argmax.sparsemax])
def test_a_hundred_thousand_entries(build) -> None:
    # Canonicalization must not take memory of the length squared, nor the closed form time beyond the length.
    n = 100_000
    problem = build(n)
    theta = np.random.default_rng(0).standard_normal(n)
    core = LayerCore(problem, [argmax.parameter(problem, "theta")], [argmax.variable(problem)])
    call, (z,) = core.solve([theta], None, False)
    if build is argmax.softmax:
        expected = np.exp(theta - theta.max()) / np.exp(theta - theta.max()).sum()
        weights = expected
    else:
        ordered = np.sort(theta)[::-1]
        sums = (np.cumsum(ordered) - 1.0) / np.arange(1, n + 1)
        tau = sums[np.flatnonzero(ordered > sums)[-1]]
        expected = np.maximum(theta - tau, 0.0)
        weights = (expected > 0).astype(float)
    np.testing.assert_allclose(z, expected, atol=1e-12)
    bar = np.random.default_rng(1).standard_normal(n)
    (grad,) = core.vjp(call, [bar])
    np.testing.assert_allclose(grad, weights * (bar - weights @ bar / weights.sum()), atol=1e-12)
