"""Projections onto permutahedra take isotonic regression, in many spellings; lookalikes do not.

Both paths are compared in value and in derivatives of first and second order, at random points, ties, huge and tiny
scores; the generic one also where a solver's own answers are differenced.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from numpy.typing import NDArray

import cvxift
from cvxift import argmax
from cvxift.argmax.closed_form.closed_map import GENERIC, ClosedMap, ClosedSolved
from cvxift.errors import ApplicabilityWarning
from cvxift.layers.core import LayerCore
from tests.argmax.agreement import Builders, agree, both, core_of, point

Array = NDArray[np.float64]
N = 4
W = np.array([4.0, 2.5, 1.0, -0.5])
POSITIVE = np.array([4.0, 2.5, 1.0, 0.3])
WEIGHTS = np.array([[0.7, -0.2], [0.1, 1.1], [-0.5, 0.4], [0.3, 0.9]])
QUADRATIC, ENTROPIC = "closed form (permutahedron)", "closed form (entropic permutahedron)"


def scores(n: int = N) -> cp.Parameter:
    return cp.Parameter(n, name="theta")


def temperature() -> cp.Parameter:
    return cp.Parameter(nonneg=True, name="temperature")


def decreasing(n: int = N) -> cp.Parameter:
    return cp.Parameter(n, name="values")


def tops(z: Any, w: Any = W) -> list[Any]:
    n = z.shape[0]
    return [cp.sum(z) == cp.sum(w), *(cp.sum_largest(z, k) <= cp.sum(w[:k]) for k in range(1, n))]


def projection(constraints: Callable[[cp.Variable], list[Any]], z: cp.Variable | None = None) -> cp.Problem:
    z = cp.Variable(N) if z is None else z
    return cp.Problem(cp.Minimize(cp.sum_squares(z - scores())), constraints(z))


def maximize(regularizer: Any, z: cp.Variable, constraints: list[Any], theta: Any = None) -> cp.Problem:
    return cp.Problem(cp.Maximize((scores() if theta is None else theta) @ z - regularizer), constraints)


Built = tuple[cp.Problem, str]


def spellings() -> dict[str, Callable[[], Built]]:
    """By name, a problem and the path that it must take."""
    found = spelling = Builders[Built]()

    @spelling
    def by_hand():
        return projection(tops), QUADRATIC

    @spelling
    def half_squares_with_a_temperature():
        z = cp.Variable(N)
        return maximize(temperature() * (0.5 * cp.sum_squares(z)), z, tops(z)[::-1]), QUADRATIC

    @spelling
    def a_quadratic_form_and_scores_through_a_matrix():
        z, u = cp.Variable(N), cp.Parameter(2, name="u")
        return maximize(cp.quad_form(z, 2 * np.eye(N)), z, tops(z), WEIGHTS @ u + 1.0), QUADRATIC

    @spelling
    def scaled_squares_of_a_multiple():
        z = cp.Variable(N)
        return cp.Problem(cp.Minimize(3 * cp.sum_squares(2 * z - scores()) + 1.0), tops(z)), QUADRATIC

    @spelling
    def scaled_constraints():
        def constraints(z: Any) -> list[Any]:
            inner = [3 * cp.sum_largest(z, 1) <= 12, cp.sum_largest(2 * z, 2) <= 13, cp.sum_largest(z, 3) <= 7.5]
            return [-2 * cp.sum(z) == -14, *inner]

        return projection(constraints), QUADRATIC

    @spelling
    def sums_of_the_smallest():
        def constraints(z: Any) -> list[Any]:
            inner = [cp.sum_smallest(z, 3) >= 3.0, 2 * cp.sum_smallest(z, 2) >= 1.0, cp.sum_largest(-z, 1) <= 0.5]
            return [cp.sum(z) == 7, *inner]

        return projection(constraints), QUADRATIC

    @spelling
    def a_maximum_and_a_minimum():
        def constraints(z: Any) -> list[Any]:
            return [cp.sum(z) == 7, cp.max(z) <= 4, cp.sum_largest(z, 2) <= 6.5, 2 * cp.min(z) >= -1]

        return projection(constraints), QUADRATIC

    @spelling
    def bounds_for_the_first_and_the_last():
        def constraints(z: Any) -> list[Any]:
            return [cp.sum(z) == 7, z <= 4, cp.sum_largest(z, 2) <= 6.5, -2 * z <= 1]

        return projection(constraints), QUADRATIC

    @spelling
    def bounds_by_attribute():
        z = cp.Variable(N, bounds=[-0.5, 4.0])
        return projection(lambda z: [cp.sum(z) == 7, cp.sum_largest(z, 2) <= 6.5], z), QUADRATIC

    @spelling
    def further_bounds_that_never_hold():
        z = cp.Variable(N)
        extra = [z >= -0.5, z <= 5.0, z[0] >= -3.0, cp.max(z) <= 4.5, cp.sum_smallest(z, 2) >= -1.0]
        return projection(lambda z: [*extra, *tops(z)], z), QUADRATIC

    @spelling
    def a_nonneg_variable():
        z = cp.Variable(N, nonneg=True)
        return projection(lambda z: tops(z, POSITIVE), z), QUADRATIC

    @spelling
    def values_that_move():
        z, w = cp.Variable(N), decreasing()
        return maximize(temperature() * cp.sum_squares(z), z, tops(z, w)), QUADRATIC

    @spelling
    def values_that_move_and_bounds():
        z, w = cp.Variable(N), decreasing()
        constraints = [cp.sum(z) == cp.sum(w), cp.sum_largest(z, 2) <= w[0] + w[1], z <= w[0], z >= w[3], z >= -5]
        return maximize(cp.sum_squares(z), z, constraints), QUADRATIC

    @spelling
    def sums_that_are_parameters():
        z, w = cp.Variable(3), cp.Parameter(2, name="values")
        constraints = [cp.sum(z) == 1.0 + 0.5 * w[1], cp.sum_largest(z, 2) <= 1.5 + w[1], cp.sum_largest(z, 1) <= 2.0]
        objective = cp.Minimize(cp.sum_squares(z - scores(3)))
        return cp.Problem(objective, [*constraints, z <= 50.0 + w[0]]), QUADRATIC

    @spelling
    def ties_among_the_values():
        return projection(lambda z: tops(z, np.array([0.3, 0.1, 0.1, 0.1]))), QUADRATIC

    @spelling
    def entropies():
        z = cp.Variable(N)
        return maximize(-cp.sum(cp.entr(z)), z, tops(z, POSITIVE)), ENTROPIC

    @spelling
    def entropies_with_bounds_and_a_temperature():
        z = cp.Variable(N, nonneg=True)
        return maximize(-temperature() * cp.sum(cp.entr(2 * z)), z, [*tops(z, POSITIVE), z <= 9]), ENTROPIC

    @spelling
    def divergences_from_a_prior():
        z = cp.Variable(N)
        prior = np.array([0.1, 0.3, 0.2, 0.4])
        return maximize(cp.sum(cp.kl_div(z, prior)), z, tops(z, POSITIVE)), ENTROPIC

    @spelling
    def divergences_from_a_prior_that_moves():
        z, prior = cp.Variable(N), cp.Parameter(N, pos=True, name="prior")
        return maximize(cp.sum(cp.rel_entr(z, prior)), z, tops(z, POSITIVE)), ENTROPIC

    @spelling
    def entropies_and_values_that_move():
        z, w = cp.Variable(N), decreasing()
        return maximize(-temperature() * cp.sum(cp.entr(z)), z, tops(z, w)), ENTROPIC

    @spelling
    def entropies_below_one_epigraph():
        z, omega, prior = (
            cp.Variable(N, name="z"),
            cp.Variable(name="omega"),
            cp.Parameter(N, nonneg=True, name="prior"),
        )
        below = cp.sum(cp.rel_entr(z, prior)) <= omega
        return cp.Problem(cp.Maximize(scores() @ z - temperature() * omega), [below, *tops(z, POSITIVE)]), ENTROPIC

    @spelling
    def a_matrix():
        z, theta = cp.Variable((2, 2)), cp.Parameter((2, 2), name="theta")
        constraints = [cp.sum(z) == 7, *(cp.sum_largest(z, k) <= W[:k].sum() for k in (1, 2, 3))]
        return cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), constraints), QUADRATIC

    for regularizer, path in (("quadratic", QUADRATIC), ("entropic", ENTROPIC)):
        builders: dict[str, Callable[..., cp.Problem]] = {
            "ranks": lambda r=regularizer: argmax.permutahedron(N, regularizer=r),
            "temperature": lambda r=regularizer: argmax.permutahedron(N, None, temperature(), r),
            "numbers": lambda r=regularizer: argmax.permutahedron(N, POSITIVE, 0.3, r),
            "parameter": lambda r=regularizer: argmax.permutahedron(N, decreasing(), temperature(), r),
            "two": lambda r=regularizer: argmax.permutahedron(2, regularizer=r),
        }
        for name, build in builders.items():
            found[f"builder {regularizer} {name}"] = lambda build=build, path=path: (build(), path)
    found["builder quadratic one"] = lambda: (argmax.permutahedron(1, temperature=temperature()), QUADRATIC)
    return found


SPELLINGS = spellings()


def test_third_derivatives_come_from_the_closed_forms_point() -> None:
    closed, generic = both_of(argmax.permutahedron(N, decreasing(), temperature()))
    rng = np.random.default_rng(6)
    theta = point(closed.parameters, rng)
    dots = [rng.standard_normal((1, closed.theta_size)) for _ in range(3)]
    results = [
        (m.derivative(m.solve(theta), dots), m.derivative(m.solve(theta), dots[:2], np.ones((1, N))))
        for m in (closed, generic)
    ]
    for left, right in zip(*results, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-8 * (1 + np.abs(right).max()))


def both_of(problem: cp.Problem) -> tuple[ClosedMap, ClosedMap]:
    return both(problem, problem.variables())


def lookalikes() -> dict[str, Callable[[], cp.Problem]]:
    """By name, a problem that is no such projection, though nearly."""
    Constraints = Callable[[Any], list[Any]]

    def of(constraints: Constraints) -> Callable[[], cp.Problem]:
        return lambda: projection(constraints)

    def beside(more: Callable[[Any], Any]) -> Callable[[], cp.Problem]:
        return of(lambda z: [*tops(z), more(z)])

    def instead(k: int, other: Callable[[Any], Any]) -> Callable[[], cp.Problem]:
        return of(lambda z: [other(z) if i == k else one for i, one in enumerate(tops(z))])

    def with_terms(regularizer: Callable[[Any], Any], w: Any = W) -> Callable[[], cp.Problem]:
        z = cp.Variable(N)
        return lambda: maximize(regularizer(z), z, tops(z, w))

    def a_second_variable() -> cp.Problem:
        z, v = cp.Variable(N), cp.Variable()
        return cp.Problem(cp.Minimize(cp.sum_squares(z - scores()) + cp.square(v)), [*tops(z), v >= z[0]])

    nearly = np.array([1.0, 1.0, 1.0, 1.1])
    return {
        "one top missing": of(lambda z: [*tops(z)[:2], *tops(z)[3:]]),
        "one top twice": instead(2, lambda z: cp.sum_largest(z, 1) <= 6.5),
        "no sum": of(lambda z: tops(z)[1:]),
        "a sum that is at most": instead(0, lambda z: cp.sum(z) <= 7),
        "a weighted sum": instead(0, lambda z: nearly @ z == 7),
        "a weighted top": instead(2, lambda z: cp.sum_largest(cp.multiply(nearly, z), 2) <= 6.5),
        "a top of some entries": instead(2, lambda z: cp.sum_largest(z[:3], 2) <= 6.5),
        "a top of shifted entries": instead(2, lambda z: cp.sum_largest(z + np.arange(4.0), 2) <= 9),
        "a top with an entry beside": instead(2, lambda z: cp.sum_largest(z, 2) + 0.1 * z[0] <= 6.5),
        "two tops below one bound": instead(2, lambda z: cp.sum_largest(z, 2) + cp.sum_largest(z, 3) <= 14),
        "a fractional top": instead(2, lambda z: cp.sum_largest(z, 2) + 0.5 * cp.max(z) <= 9),
        "a top in the objective too": with_terms(lambda z: cp.sum_squares(z) + 0.1 * cp.sum_largest(z, 2)),
        "a lower bound that holds": beside(lambda z: z >= 0),
        "an upper bound on one entry": beside(lambda z: z[1] <= 3.9),
        "a tighter top on some": beside(lambda z: cp.sum_largest(z[:2], 1) <= 3),
        "an order": beside(lambda z: z[0] <= z[1]),
        "another equality": beside(lambda z: z[0] == z[1]),
        "an l1 bound": beside(lambda z: cp.norm1(z) <= 8),
        "a second variable": a_second_variable,
        "bounds that differ": instead(1, lambda z: z <= np.array([4.0, 4.0, 4.0, 3.9])),
        "weighted squares": with_terms(lambda z: cp.sum_squares(cp.multiply(np.arange(1.0, 5.0), z))),
        "coupled squares": with_terms(lambda z: cp.quad_form(z, np.eye(N) + 0.1)),
        "squares of some": with_terms(lambda z: cp.sum_squares(z[:3])),
        "linear": with_terms(lambda z: 0),
        "squares and entropies": with_terms(lambda z: cp.sum_squares(z) - cp.sum(cp.entr(z)), POSITIVE),
        "weighted entropies": with_terms(lambda z: -cp.sum(cp.multiply(np.arange(1.0, 5.0), cp.entr(z))), POSITIVE),
        "entropies of some": with_terms(lambda z: -cp.sum(cp.entr(z[:3])), POSITIVE),
        "huber": with_terms(lambda z: cp.sum(cp.huber(z - 1.0))),
        "a moving coefficient": of(lambda z: [*tops(z)[:-1], cp.sum_largest(temperature() * z, 3) <= 7.5]),
    }


LOOKALIKES = lookalikes()


def test_values_out_of_order_are_left_to_the_solvers() -> None:
    problem = argmax.permutahedron(N, decreasing())
    closed, generic = both_of(problem)
    names = [p.name() for p in closed.parameters]
    values = {"theta": np.array([0.3, -1.0, 2.0, 0.1]), "values": np.array([2.0, 2.5, 1.0, 0.0])}
    theta = np.concatenate([values[name] for name in names])
    solved = closed.solve(theta)
    assert not isinstance(solved, ClosedSolved) and closed.path_of(solved) == GENERIC
    np.testing.assert_allclose(solved.outputs, generic.solve(theta).outputs, atol=1e-8)
    fixed = projection(lambda z: tops(z, np.array([2.0, 2.5, 1.0, 0.0])))
    assert ClosedMap(fixed, None, fixed.variables()).path == GENERIC


def test_values_that_could_not_move_and_entropies_of_no_mass_are_left_to_the_solvers() -> None:
    problem = argmax.permutahedron(3, decreasing(3), regularizer="entropic")
    closed = ClosedMap(problem, None, problem.variables())
    names = [p.name() for p in closed.parameters]
    for w, theta, served in (
        ([3.0, 2.0, 1.0], [0.1, 0.5, -0.2], True),
        ([2.0, 2.0, 1.0], [0.1, 0.5, -0.2], True),  # one block, in which ties are nothing
        ([2.0, 2.0, 1.0], [7.0, 5.0, -2.0], False),  # two entries at the bound, one above the other
        ([3.0, 2.0, 0.0], [0.1, 0.5, -0.2], False),
    ):
        values = {"theta": np.array(theta), "values": np.array(w)}
        state = closed.closed(np.concatenate([values[name] for name in names]))
        assert (state is not None) == served


def test_a_bound_at_infinity_is_left_to_the_solvers() -> None:
    # Its rows are released: what is left bounds the sums of the largest for some k alone.
    z, bounds = cp.Variable(3), cp.Parameter(2, name="bounds")
    constraints: list[Any] = [cp.sum(z) == 6, *(cp.sum_largest(z, k) <= bounds[k - 1] for k in (1, 2))]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - scores(3))), constraints)
    closed, generic = both_of(problem)
    values = {"theta": np.array([4.0, 2.0, 0.5]), "bounds": np.array([3.0, np.inf])}
    theta = np.concatenate([values[p.name()] for p in closed.parameters])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solved = closed.solve(theta)
    assert not isinstance(solved, ClosedSolved)
    np.testing.assert_allclose(solved.outputs, generic.solve(theta).outputs, atol=1e-9)
    finite = np.where(np.isinf(theta), 5.0, theta)
    assert isinstance(closed.solve(finite), ClosedSolved)


def test_the_unit_of_the_values_makes_no_difference() -> None:
    theta = np.array([0.3, -1.0, 2.0, 0.1])
    for unit in (1e-18, 1.0, 1e12):
        problem = argmax.permutahedron(4, unit * np.array([4.0, 2.5, 2.5, 1.0]))
        closed = ClosedMap(problem, None, problem.variables())
        solved = closed.solve(unit * theta)
        np.testing.assert_allclose(solved.outputs / unit, closed_at_one(theta), rtol=1e-12)


def closed_at_one(theta: Array) -> Array:
    problem = argmax.permutahedron(4, np.array([4.0, 2.5, 2.5, 1.0]))
    return ClosedMap(problem, None, problem.variables(), closed_form="never").solve(theta).outputs


def assembled(rng: np.random.Generator) -> cp.Problem:
    """A problem put together at random from parts of a permutahedron's and from some that are not."""
    n = int(rng.integers(2, 5))
    z, theta = cp.Variable(n, nonneg=bool(rng.random() < 0.2)), cp.Parameter(n, name="theta")
    w = np.sort(rng.uniform(0.2, 3.0, n))[::-1]
    heads = np.cumsum(w)
    turn = float(rng.choice([1.0, -2.0]))
    constraints: list[Any] = [turn * cp.sum(z) == turn * heads[-1]]
    for k in range(1, n):
        if rng.random() < 0.05:
            continue
        scale, bound = float(rng.uniform(0.5, 2.0)), float(heads[k - 1] + (rng.random() < 0.1) * 0.2)
        choices: list[Callable[[], Any]] = [
            lambda k=k, scale=scale, bound=bound: cp.sum_largest(scale * z, k) <= scale * bound,
            lambda k=k, scale=scale, bound=bound: scale * cp.sum_largest(z, k) <= scale * bound,
            lambda k=k, bound=bound: cp.sum_smallest(z, n - k) >= heads[-1] - bound,
        ]
        if k == 1:
            choices += [lambda bound=bound: cp.max(z) <= bound, lambda bound=bound: z <= bound]
        if k == n - 1:
            choices += [lambda bound=bound: z >= heads[-1] - bound]
        constraints.append(choices[int(rng.integers(len(choices)))]())
    extras = [lambda: z <= heads[0], lambda: z[0] <= heads[0] - 0.3, lambda: z[0] >= z[n - 1], lambda: z >= -0.1]
    constraints += [build() for build in extras if rng.random() < 0.15]
    regularizers: list[Callable[[], Any]] = [
        lambda: -cp.sum(cp.entr(float(rng.uniform(0.5, 2.0)) * z)),
        lambda: cp.sum_squares(z) + cp.sum_squares(2 * z - theta),
        lambda: cp.sum(cp.kl_div(z, rng.uniform(0.2, 1.0, n))),
        lambda: 0.5 * cp.sum_squares(cp.multiply(1.0 + (rng.random(n) < 0.1), z)),
    ]
    regularizer = regularizers[int(rng.integers(len(regularizers)))]()
    order = rng.permutation(len(constraints))
    return cp.Problem(cp.Maximize(theta @ z - regularizer), [constraints[i] for i in order])


def test_assembled_problems_agree_wherever_they_are_recognized() -> None:
    rng = np.random.default_rng(2025)
    recognized, refused = 0, 0
    for _ in range(40):
        closed, generic = both_of(assembled(rng))
        if closed.form is None:
            refused += 1
            continue
        recognized += 1
        theta = rng.standard_normal((2, closed.theta_size))
        if isinstance(closed.solve(theta), ClosedSolved):
            agree(closed, generic, theta, rng, second=False)
    assert recognized >= 15 and refused >= 8


@pytest.mark.parametrize("scale", [1e-300, 1e8, 1e300])
def test_scores_beyond_the_solvers_range(scale: float) -> None:
    problem = argmax.permutahedron(5)
    closed = ClosedMap(problem, None, problem.variables())
    solved = closed.solve(scale * np.array([0.3, -1.0, 2.0, 0.1, 0.7]))
    expected = [3.0] * 5 if scale < 1 else [3.0, 1.0, 5.0, 2.0, 4.0]
    np.testing.assert_allclose(solved.outputs, expected, atol=1e-12)
    assert np.isfinite(closed.vjp(solved, np.ones(5))).all()


def test_ties_among_values_have_no_rounding() -> None:
    # Sums of 0.1 are rounded, their differences would pass for steps; entries at equal values stay put.
    problem = projection(lambda z: tops(z, np.array([0.3, 0.1, 0.1, 0.1])))
    closed = ClosedMap(problem, None, problem.variables())
    solved = closed.solve(np.array([5.0, 1.0, 1.0, 1.0]))
    np.testing.assert_allclose(solved.outputs, [0.3, 0.1, 0.1, 0.1], atol=1e-15)
    np.testing.assert_array_equal(closed.jvp(solved, np.array([0.0, 1.0, -1.0, 0.5])), np.zeros(4))
    assert isinstance(solved, ClosedSolved) and solved.solutions[0].ok
    assert closed.form.margins(solved.state) > 0.5


def warned(core: LayerCore, theta: Array) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        core.solve([theta], None, False)
    return [str(w.message) for w in caught if issubclass(w.category, ApplicabilityWarning)]


@pytest.mark.parametrize(
    ("values", "theta", "kinks"),
    [
        ([3.0, 2.0, 1.0], [2.0, 1.0, 0.0], 2),  # blocks about to merge, both
        ([3.0, 2.0, 1.0], [9.0, 1.0, 0.0], 1),
        ([1.0, 1.0, 0.0], [2.0, 1.0, 0.0], 1),
        ([3.0, 2.0, 1.0], [1.0, 1.0, 1.0], 0),  # ties of scores alone are none
        ([3.0, 2.0, 1.0], [9.0, 5.0, 0.0], 0),
        ([1.0, 1.0, 0.0], [2.0, 2.0, 0.0], 0),
    ],
)
def test_kinks_are_told(values: list[float], theta: list[float], kinks: int) -> None:
    problem = argmax.permutahedron(3, np.array(values))
    closed, generic = core_of(problem, check="warn"), core_of(problem, check="warn", closed_form="never")
    told = warned(closed, np.array(theta))
    report = closed.last_report
    assert report is not None and bool(told) == (report.weak == 1) == bool(kinks)
    verdicts = [cvxift.diagnose(core, np.array(theta)).ok for core in (closed, generic)]
    assert verdicts == [not kinks, not kinks]
    if kinks:
        assert "weakly active" in " ".join(told) and warned(generic, np.array(theta))


def test_margins_shrink_with_the_distance_to_a_kink() -> None:
    problem = argmax.permutahedron(3)
    closed = ClosedMap(problem, None, problem.variables())
    # λ_1 of scores (1 + h, 0, −9) is h, and inside of the block of (1 − h, 0) the slack is h/2.
    for h in (1e-1, 1e-4, 1e-9):
        for theta, distance in (([1 + h, 0.0, -9.0], h), ([1 - h, 0.0, -9.0], h / 2)):
            solved = closed.solve(np.array(theta))
            assert isinstance(solved, ClosedSolved)
            np.testing.assert_allclose(closed.form.margins(solved.state), distance / 8.0, rtol=0.2)


def test_soft_ranks_become_ranks() -> None:
    n = 60
    problem = argmax.permutahedron(n, temperature=temperature())
    closed = ClosedMap(problem, None, problem.variables())
    rng = np.random.default_rng(9)
    theta = rng.standard_normal((7, n))
    order = [p.name() for p in closed.parameters]

    def flat(t: float) -> Array:
        values = {"theta": theta, "temperature": np.full((7, 1), t)}
        return np.concatenate([values[name] for name in order], axis=-1)

    ranks = np.argsort(np.argsort(theta, axis=-1), axis=-1) + 1.0
    np.testing.assert_allclose(closed.solve(flat(1e-6)).outputs, ranks, atol=1e-9)
    solved = closed.solve(flat(0.05))
    assert isinstance(solved, ClosedSolved)
    np.testing.assert_allclose(solved.outputs.sum(-1), n * (n + 1) / 2, rtol=1e-14)
    assert solved.solutions[6].ok and solved.solutions[6].solver == QUADRATIC
