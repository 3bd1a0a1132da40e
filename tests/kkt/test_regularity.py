"""The judge of regular points: kinks that are felt are told in every mode, and others are not."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
from kinks import (
    WAYS,
    Case,
    detour,
    every_way,
    fresh,
    heard,
    numpy_jvp,
    numpy_vjp,
    soft_control,
    tied_maximum,
    two_balls,
    two_bounds,
)

from cvxift import ApplicabilityError, ApplicabilityWarning, differentiate

TORN = {
    "two bounds": two_bounds,
    "tied maximum": tied_maximum,
    "two balls": two_balls,
    "detours, dense": lambda: detour(2),
    "detours, sparse": lambda: detour(80),
}


class TestTornRows:
    """Dependent rows that θ pulls apart."""

    @every_way("name", TORN, ["two bounds", "detours, sparse"])
    def test_is_told_and_gives_one_piece(self, name, way):
        case = TORN[name]()
        value, said = heard(lambda: WAYS[way](case, check="warn"))
        assert said, "a kink that is felt was not told"
        assert min(abs(value - slope) for slope in case.slopes) < 1e-5
        assert any(case.rows in text for text in said)
        if "vjp" in way or "grad" in way or "backward" in way:
            assert any(case.parameter.name() in text.split("with respect to")[-1].split("depends")[0] for text in said)

    @every_way("name", TORN, ["two bounds"])
    def test_is_refused_or_silent_as_the_options_say(self, name, way):
        for option in ({"check": "raise"}, {"singular": "raise"}):
            with pytest.raises(ApplicabilityError, match=r"kink|singular"):
                WAYS[way](TORN[name](), **option)
        case = TORN[name]()
        value, said = heard(lambda: WAYS[way](case, check="off"))
        assert not said
        assert min(abs(value - slope) for slope in case.slopes) < 1e-5

    @every_way("solver", [None, "clarabel", "osqp"], [None])
    def test_pieces_that_agree_give_the_common_derivative(self, solver, way):
        case = soft_control()
        h = 1e-3
        side = []
        for step in (h, 0.0, -h):
            case.parameter.value = 0.7 + step
            case.problem.solve(cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
            side.append(float(case.output.value[2]))
        case.parameter.value = 0.7
        right, left = (side[0] - side[1]) / h, (side[1] - side[2]) / h
        assert abs(right - left) < 1e-5
        value, said = heard(lambda: WAYS[way](fresh(case), solver=solver))
        assert abs(value - right) < 1e-5
        assert way == "numpy_jvp" or not said  # which asks for v and e too, that do feel the kink

    @pytest.mark.parametrize("way", ["numpy_vjp", "torch_backward", "torch_batch", "jax_grad", "jax_jvp"])
    def test_outputs_that_do_not_feel_the_kink(self, way):
        case, z = two_bounds(), cp.Variable(name="z")
        problem = cp.Problem(
            cp.Minimize(case.problem.objective.expr + cp.square(z - 2 * case.parameter)), case.problem.constraints
        )
        value, said = heard(lambda: WAYS[way](case._replace(problem=problem, output=z)))
        assert not said
        assert abs(value - 2.0) < 1e-8

    def test_a_direction_that_moves_both_rows_alike(self):
        case = two_bounds()
        t1, t2 = case.problem.parameters()
        out, said = heard(lambda: differentiate(case.problem).jvp({t1: 1.0, t2: 1.0}))
        assert not said
        assert abs(out[case.output] - 1.0) < 1e-8


def transport() -> tuple[Case, np.ndarray]:
    """Quadratic transport, whose equalities have one redundant row, and dX/dC · direction without it."""
    rng = np.random.default_rng(3)
    C = cp.Parameter((3, 4), name="C", value=rng.uniform(0.0, 1.0, (3, 4)))
    X = cp.Variable((3, 4), name="X")
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(X) + cp.sum(cp.multiply(C, X))),
        [cp.sum(X, axis=1) == np.full(3, 4.0), cp.sum(X, axis=0) == np.full(4, 3.0), X >= 0],
    )
    direction, bar = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    # All of X is positive: X moves by the projection of −½ direction on matrices with zero sums.
    move = -0.5 * (direction - direction.mean(0) - direction.mean(1)[:, None] + direction.mean())
    slope = float(np.sum(bar * move))
    return Case(problem, X, bar, C, direction, (slope, slope)), move


def repeated_lmi(kind: str) -> Case:
    """The nearest positive semidefinite matrix to C, with its constraint written twice."""
    rng = np.random.default_rng(4)
    Q = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    values = np.array([2.0, 0.7, -1.0])
    C = cp.Parameter((3, 3), name="C", value=(Q * values) @ Q.T)
    X = cp.Variable((3, 3), symmetric=True, name="X")
    again = {"once": [], "twice": [2 * X >> 0], "turned": [Q @ X @ Q.T >> 0]}[kind]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0, *again])
    direction, bar = (M + M.T for M in rng.standard_normal((2, 3, 3)))
    # Löwner's divided differences of max(λ, 0).
    positive = np.maximum(values, 0.0)
    gap = values[:, None] - values
    omega = np.where(np.eye(3) > 0, values[:, None] > 0, (positive[:, None] - positive) / (gap + np.eye(3)))
    slope = float(np.sum(bar * (Q @ (omega * (Q.T @ direction @ Q)) @ Q.T)))
    return Case(problem, X, bar, C, direction, (slope, slope))


def same_rows() -> Case:
    """The projection on Σx = 1 written three times, one in another unit."""
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c", value=np.array([0.1, 0.2, 0.3]))
    rows = [cp.sum(x) == 1, 1e3 * cp.sum(x) <= 1e3, x[0] + 2 * x[1] + x[2] == 1 + x[1]]
    return Case(
        cp.Problem(cp.Minimize(cp.sum_squares(x - c)), rows), x, np.eye(3)[0], c, np.eye(3)[1], (-1 / 3, -1 / 3)
    )


REDUNDANT = {
    "transport": lambda: transport()[0],
    "LMI twice": lambda: repeated_lmi("twice"),
    "LMI turned": lambda: repeated_lmi("turned"),
    "same rows": same_rows,
}


@every_way("name", REDUNDANT, ["LMI twice"])
def test_redundant_rows_that_theta_does_not_pull_apart(name, way):
    case = REDUNDANT[name]()
    value, said = heard(lambda: WAYS[way](case, check="warn"))
    assert not said
    assert abs(value - case.slopes[0]) < 1e-6 * max(1.0, abs(case.slopes[0]))


def flat_quadratic(bar: tuple[float, float]) -> Case:
    """(x₀ + x₁ − t)²: the sum is t, the difference is free."""
    x, t = cp.Variable(2, name="x"), cp.Parameter(name="t", value=1.0)
    return Case(cp.Problem(cp.Minimize(cp.square(cp.sum(x) - t))), x, np.array(bar), t, np.array(1.0), (1.0, 1.0))


def flat_linear(bar: tuple[float, float]) -> Case:
    """min Σx with Σx = t, x ≥ 0: the sum is t, all else is free."""
    x, t = cp.Variable(2, name="x"), cp.Parameter(name="t", value=1.0)
    problem = cp.Problem(cp.Minimize(cp.sum(x)), [cp.sum(x) == t, x >= 0])
    return Case(problem, x, np.array(bar), t, np.array(1.0), (1.0, 1.0))


class TestFlatDirections:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("make", [flat_quadratic, flat_linear])
    def test_are_told(self, make, way):
        _, said = heard(lambda: WAYS[way](make((1.0, 0.0)), solver="clarabel"))
        assert any("not unique" in text or "flat" in text for text in said)
        with pytest.raises(ApplicabilityError):
            WAYS[way](make((1.0, 0.0)), solver="clarabel", check="raise")

    @pytest.mark.parametrize("make", [flat_quadratic, flat_linear])
    def test_a_product_that_does_not_move_along_them_is_exact(self, make):
        value, said = heard(lambda: numpy_vjp(make((1.0, 1.0)), solver="clarabel"))
        assert not said
        assert abs(value - 1.0) < 1e-8

    @pytest.mark.parametrize("way", ["numpy_vjp", "torch_backward", "torch_batch", "jax_grad", "jax_jvp"])
    def test_an_unrelated_variable_is_no_fault(self, way):
        x, z = cp.Variable(2, name="x"), cp.Variable(2, name="z")
        c = cp.Parameter(2, name="c", value=np.array([1.0, 2.0]))
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [z >= 0, z <= 1])
        value, said = heard(lambda: WAYS[way](Case(problem, x, np.eye(2)[0], c, np.eye(2)[0], (1.0, 1.0))))
        assert not said
        assert abs(value - 1.0) < 1e-8


@pytest.mark.parametrize("kind", ["unit", "infeasible"])
def test_two_sums_that_must_agree(kind):
    """Σx = t1 and Σx = t2: infeasible on both sides, but for directions that move both."""
    scale = {"unit": 1.0, "infeasible": 7.0}[kind]
    x, (t1, t2) = cp.Variable(3, name="x"), (cp.Parameter(name=name, value=1.0) for name in ("t1", "t2"))
    c = np.array([0.1, 0.5, -0.2])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.sum(x) == t1, scale * cp.sum(x) == scale * t2])
    case = Case(problem, x, np.ones(3), t1, np.array(1.0), (1.0, 0.0))
    for way in (numpy_vjp, numpy_jvp):
        _, said = heard(lambda way=way: way(case))
        assert any("no solution" in text for text in said)
        with pytest.raises(ApplicabilityError, match="no solution"):
            way(case, check="raise")
    out, said = heard(lambda: differentiate(problem).jvp({t1: 1.0, t2: 1.0}))
    assert not said
    assert np.allclose(out[x], 1 / 3, atol=1e-8)


V = np.array([1.0, 2.0])
WEIGHTED = {
    "norm1": (cp.norm1, np.ones(2)),
    "max": (cp.max, np.array([0.0, 1.0])),
    "norm2": (cp.norm2, V / np.linalg.norm(V)),
    "pos": (lambda x: cp.sum(cp.pos(x)), np.ones(2)),
    "norm_inf": (cp.norm_inf, np.array([0.0, 1.0])),
}


@every_way("name", WEIGHTED, ["norm2"])
def test_weight_at_zero_gives_the_side_that_exists(name, way):
    """Σ(x − v)² + a·penalty(x) with a ≥ 0 at a = 0: x = v − ½ a ∇penalty(v) for a > 0, and no problem for a < 0."""
    penalty, gradient = WEIGHTED[name]
    x, a = cp.Variable(2, name="x"), cp.Parameter(nonneg=True, name="a", value=0.0)
    bar = np.array([1.0, -3.0])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - V) + a * penalty(x)))
    value, said = heard(lambda: WAYS[way](Case(problem, x, bar, a, np.array(1.0), (0.0, 0.0))))
    assert said
    assert abs(value + 0.5 * float(bar @ gradient)) < 1e-5


def test_multipliers_in_forward_mode():
    """NaN where they are not unique, or depend on the side; the derivative where they have one."""
    x, y = cp.Variable(name="x"), cp.Variable(name="y")
    t1, t2, s = (cp.Parameter(name=name, value=1.0) for name in ("t1", "t2", "s"))
    first, second, third = x <= t1, x <= t2, y <= s
    problem = cp.Problem(cp.Minimize(cp.square(x - 5) + cp.square(y - 3)), [first, second, third, y >= -1])
    for direction in ({t1: 1.0}, {t2: 1.0}, {t1: 1.0, t2: 1.0}, {s: 1.0}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ApplicabilityWarning)
            out = differentiate(problem).jvp(direction)
        for row in (first, second):
            assert np.isnan(out[row.dual_variables[0]])
        assert abs(out[third.dual_variables[0]] - (-2.0 if s in direction else 0.0)) < 1e-8  # 2 (3 − s)
        assert abs(out[problem.constraints[3].dual_variables[0]]) < 1e-8


def test_multipliers_of_redundant_equalities_in_forward_mode():
    case, move = transport()
    rows, columns, bounds = (row.dual_variables[0] for row in case.problem.constraints)
    out = differentiate(case.problem).jvp({case.parameter: case.direction})
    assert np.isnan(out[rows]).all()
    assert np.isnan(out[columns]).all()
    assert np.allclose(out[bounds], 0.0, atol=1e-8)
    assert np.allclose(out[case.output], move, atol=1e-8)


@every_way("bound", [0, 1], [0])
def test_a_multiplier_that_is_not_unique_is_told(way, bound):
    """It jumps where its row comes or goes, whatever its slopes on both sides."""
    case = two_bounds()
    dual = case.problem.constraints[bound].dual_variables[0]
    value, said = heard(lambda: WAYS[way](case._replace(output=dual)))
    assert said or np.isnan(value)


@pytest.mark.parametrize("cost", [1e-8, 1.0, 1e8])
def test_which_multipliers_are_not_unique_does_not_depend_on_the_costs_unit(cost):
    x, y = cp.Variable(name="x"), cp.Variable(name="y")
    t1, t2, s = (cp.Parameter(name=name, value=1.0) for name in ("t1", "t2", "s"))
    rows = [x <= t1, x <= t2, y <= s]
    problem = cp.Problem(cp.Minimize(cost * (cp.square(x - 5) + cp.square(y - 3))), rows)
    for row, told in zip(rows, (True, True, False), strict=True):
        _, said = heard(lambda row=row: differentiate(problem).vjp({row.dual_variables[0]: 1.0}))
        assert bool(said) == told


@pytest.mark.parametrize("name", ["quartic", "square root"])
def test_infinite_speed_is_told(name: str) -> None:
    x, t = cp.Variable(), cp.Parameter(name="t", value=0.0)
    problem = {
        "quartic": lambda: cp.Problem(cp.Minimize(cp.power(x, 4) - t * x)),  # x = (t/4)^(1/3)
        "square root": lambda: cp.Problem(cp.Maximize(x), [cp.square(x) <= t]),  # x = √t
    }[name]()
    with pytest.warns(ApplicabilityWarning):
        differentiate(problem).jvp({t: 1.0})
    with pytest.raises(ApplicabilityError):
        differentiate(problem, check="raise").vjp({x: 1.0})


def test_an_odd_map_has_a_kink_that_its_two_sides_do_not_show() -> None:
    # The least norm that explains b is piecewise linear and odd.
    A = np.random.default_rng(1).normal(size=(3, 6))
    x, b = cp.Variable(6), cp.Parameter(3, value=np.zeros(3))
    problem = cp.Problem(cp.Minimize(cp.norm1(x)), [A @ x == b])
    with pytest.warns(ApplicabilityWarning):
        J = differentiate(problem).jacobian(x, b)
    np.testing.assert_allclose(A @ J, np.eye(3), atol=1e-9)
