"""Minima without curvature: where the solution is unique and smooth, its derivative is right and nothing is said."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from kinks import WAYS, Case, every_way, heard

from cvxift import ApplicabilityError, differentiate

# Sides below are derived by hand: each cost is least where its powers vanish, whatever the exponent.


def alone(p: float, unit: float = 1.0) -> Case:
    """x = t in each entry, with x in a unit of its own."""
    t = cp.Parameter(2, name="t", value=np.array([0.4, -0.3]))
    x = cp.Variable(2, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum(cp.power(cp.abs(unit * x - t), p))))
    bar, direction = np.array([1.0, 2.0]), np.array([0.3, -0.5])
    slope = float(bar @ direction) / unit
    return Case(problem, x, bar, t, direction, (slope, slope))


def leader() -> Case:
    """y follows x = t through a curved term: y = (2x + c)/3 with c = 1."""
    t = cp.Parameter(name="t", value=0.7)
    x, y = cp.Variable(name="x"), cp.Variable(name="y")
    problem = cp.Problem(cp.Minimize(cp.power(x - t, 4) + 2 * cp.square(y - t) + cp.square(y - 1)))
    return Case(problem, y, np.array(1.0), t, np.array(1.0), (2 / 3, 2 / 3))


def on_a_line() -> Case:
    """x₁ + x₂ = t with x₁ = x₂ pinned by a fourth power."""
    t = cp.Parameter(name="t", value=1.0)
    x = cp.Variable(2, name="x")
    problem = cp.Problem(cp.Minimize(cp.power(x[0] - x[1], 4)), [cp.sum(x) == t])
    return Case(problem, x, np.array([1.0, 3.0]), t, np.array(1.0), (2.0, 2.0))


def spectral() -> Case:
    """The largest singular value of a matrix with singular values ‖x‖ twice: x = (1 − 1/‖c‖) c.

    K is singular there, and derivatives at two neighbours differ by their change over the step: by more than a part of
    1e-4 in ∂/∂c₁, whose terms cancel.
    """
    M, c = cp.Parameter((2, 2), name="M", value=np.zeros((2, 2))), cp.Parameter(2, name="c", value=np.array([0.5, 1.0]))
    x = cp.Variable(2, name="x")
    matrix = M + x[0] * np.diag([1.0, -1.0]) + x[1] * np.array([[0.0, 1.0], [1.0, 0.0]])
    problem = cp.Problem(cp.Minimize(cp.sigma_max(matrix) + 0.5 * cp.sum_squares(x - c)))
    r, bar, direction = np.linalg.norm(c.value), np.array([1.0, -0.8]), np.array([1.0, 1.0])
    slope = (1 - 1 / r) * bar @ direction + (bar @ c.value) * (direction @ c.value) / r**3
    return Case(problem, x, bar, c, direction, (slope, slope))


def rooted(kink: float, unit: float = 1.0) -> Case:
    """x₁ = 0 under |x₁|^2.5, whose curvature grows like a root; solutions within STEP are found to 1e-7 only.

    x + 2.5 |x|^1.5 sign(x) = c:  dx/dc = 1 at 0 and 1/3.25 at x = 0.36; a kink of the cost, weight · pos(x)²/2, more.
    """
    c, x = cp.Parameter(2, name="c", value=np.array([0.0, 0.9])), cp.Variable(2, name="x")
    X = unit * x
    cost = cp.sum(cp.power(cp.abs(X), 2.5)) + 0.5 * cp.sum_squares(X - c) + kink / 2 * cp.sum_squares(cp.pos(X[0]))
    slopes = tuple((side + 0.5 / 3.25) / unit for side in (1 / (1 + kink), 1.0))
    return Case(cp.Problem(cp.Minimize(cost)), x, np.array([1.0, 0.5]), c, np.ones(2), slopes)


SMOOTH = {
    "quartic": lambda: alone(4.0),
    "power 3": lambda: alone(3.0),
    "power 6": lambda: alone(6.0),
    "quartic, large unit": lambda: alone(4.0, 1e3),
    "quartic, small unit": lambda: alone(4.0, 1e-2),
    "double singular value": spectral,
    "power 2.5": lambda: alone(2.5, 1e-2),
    "root": lambda: rooted(0.0),
    "root, large unit": lambda: rooted(0.0, 1e2),
    "leader": leader,
    "on a line": on_a_line,
}


@every_way("name", SMOOTH, ["quartic", "double singular value"])
def test_the_derivative_is_right_and_nothing_is_said(name, way):
    case = SMOOTH[name]()
    value, said = heard(lambda: WAYS[way](case))
    assert value == pytest.approx(case.slopes[0], rel=1e-6)
    assert not said


@pytest.mark.parametrize("way", ["numpy_vjp", "numpy_jvp"])
def test_a_kink_beside_a_root_is_told(way):
    _, said = heard(lambda: WAYS[way](rooted(0.1)))
    assert said


@pytest.mark.parametrize("way", WAYS)
def test_a_large_derivative_that_nearby_points_share_is_right(way):
    case = steep()
    value, said = heard(lambda: WAYS[way](case))
    assert value == pytest.approx(case.slopes[0], rel=1e-6)
    assert not said


@pytest.mark.parametrize("options", [{"linear_solver": "iterative"}, {"linear_solver": "direct"}, {"check": "raise"}])
def test_with_options(options):
    case = alone(4.0)
    value, said = heard(lambda: WAYS["numpy_vjp"](case, **options))
    assert value == pytest.approx(case.slopes[0], rel=1e-6)
    assert not said


def unpinned() -> Case:
    """Only x₁ + x₂ is pinned by the power."""
    t = cp.Parameter(name="t", value=1.0)
    x = cp.Variable(2, name="x")
    problem = cp.Problem(cp.Minimize(cp.power(cp.sum(x) - t, 4)))
    return Case(problem, x, np.array([1.0, 3.0]), t, np.array(1.0), (np.nan, np.nan))


def fast() -> Case:
    """x = (t/4)^(1/3) at t = 0."""
    t = cp.Parameter(name="t", value=0.0)
    x = cp.Variable(name="x")
    return Case(cp.Problem(cp.Minimize(cp.power(x, 4) - t * x)), x, np.array(1.0), t, np.array(1.0), (np.nan, np.nan))


def fast_in_units() -> Case:
    """The same in units in which a step of the longest length leads out of the point's surroundings."""
    t = cp.Parameter(name="t", value=0.0)
    x = cp.Variable(name="x")
    X, T = 4e-3 * x, 3e-4 * t
    problem = cp.Problem(cp.Minimize(3e3 * (cp.power(X, 4) - T * X)))
    return Case(problem, x, np.array(1.0), t, np.array(1.0), (np.nan, np.nan))


def root() -> Case:
    """x = −√t at t = 0, in units in which the multiplier leaves K regular at the point that is found."""
    t = cp.Parameter(name="t", value=0.0)
    x = cp.Variable(name="x")
    X, T = 57.003824997429064 * x, 5906.788085931299 * t
    row = 0.15960801909517985
    problem = cp.Problem(cp.Minimize(1.9351328852819714 * X), [row * cp.square(X) <= row * T])
    return Case(problem, x, np.array(1.0), t, np.array(1.0), (np.nan, np.nan))


def steep() -> Case:
    """x = H⁻¹t with columns of H that are nearly parallel, beside a ball whose multiplier is small."""
    H = np.array([[1.0, 1.0], [1.0, 1.0 + 1e-7]])
    t = cp.Parameter(2, name="t", value=np.array([0.3, 0.3]))
    x, z = cp.Variable(2, name="x"), cp.Variable(2, name="z")
    cost = cp.sum_squares(z - np.array([1.0 + 1e-5, 0.0]))
    problem = cp.Problem(cp.Minimize(cost), [H @ x == t, cp.norm(z) <= 1])
    bar, direction = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    slope = float(bar @ np.linalg.solve(H, direction))
    return Case(problem, x, bar, t, direction, (slope, slope))


def clipped() -> Case:
    """x = min(t, 1) at t = 1, under a fourth power: a kink that vanishing curvature does not hide."""
    t = cp.Parameter(name="t", value=1.0)
    x = cp.Variable(name="x")
    problem = cp.Problem(cp.Minimize(cp.power(x - t, 4)), [x <= 1])
    return Case(problem, x, np.array(1.0), t, np.array(1.0), (0.0, 1.0))


@every_way("case", [unpinned, fast, fast_in_units, root, clipped], [unpinned])
def test_what_has_no_derivative_is_told(case, way):
    _, said = heard(lambda: WAYS[way](case()))
    assert said
    with pytest.raises(ApplicabilityError):
        WAYS[way](case(), check="raise")


def test_second_derivatives_are_told():
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    case = alone(4.0)
    layer = CvxpyLayer(case.problem, [case.parameter], [case.output])
    t = torch.tensor(case.parameter.value, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(t)[0].sum(), t, create_graph=True)
    _, said = heard(lambda: torch.autograd.grad(gradient.sum(), t))
    assert said


def both_modes(problem, p, x):
    """The Jacobian by rows and by columns, and what was said."""

    def ask():
        rows = [differentiate(problem).vjp({x: row})[p] for row in np.eye(x.size)]
        return rows, np.transpose([differentiate(problem).jvp({p: column})[x] for column in np.eye(p.size)])

    return heard(ask)


def test_coinciding_support_vectors_beside_a_weight_of_zero_are_told():
    """Which of three equal examples carries the force depends on how they are moved apart, at w₀ = 0 too."""
    examples = np.array([[-2.0, 2.0], [1.0, -1.0], [-2.0, 2.0], [-2.0, -1.0], [-2.0, 2.0]])
    w, b, X = cp.Variable(2), cp.Variable(), cp.Parameter((5, 2), value=examples)
    margins = cp.multiply([-1.0, 1.0, -1.0, 1.0, -1.0], X @ w + b)
    cost = 0.5 * cp.sum_squares(w) + 0.05 * cp.square(b) + 0.5 * cp.sum(cp.pos(1 - margins))
    problem = cp.Problem(cp.Minimize(cost))
    moved = np.zeros((5, 2))
    moved[0, 1] = 1.0
    _, said = heard(lambda: differentiate(problem).vjp({w: [0.0, 1.0]}))
    assert said
    _, said = heard(lambda: differentiate(problem).jvp({X: moved}))
    assert said


def test_a_slack_constraint_near_its_limit_is_no_kink_though_its_auxiliary_columns_are_free():
    """Steps that look for the point's curvature pass the kink beside it; shorter ones do not."""
    center = np.array([-0.03992466, -1.25773672, 2.57402319, 0.48179798])
    x, t, r = cp.Variable(4), cp.Parameter(4, value=center), cp.Parameter()
    limit = cp.inv_prod(x + 5)
    x.value = center / 2
    r.value = float(limit.value)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [limit <= r])
    (rows, columns), said = both_modes(problem, t, x)
    assert not said
    np.testing.assert_allclose(rows, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(columns, np.eye(4), atol=1e-9)


def projected(t: np.ndarray, r: float, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Jacobians in t and r, and the Hessian in t of Σx, of the point whose entries `inside` have √r for their norm."""
    size, u = np.linalg.norm(t[inside]), np.where(inside, t, 0.0) / np.linalg.norm(t[inside])
    on = np.diag(inside * 1.0)
    J = np.diag(~inside * 1.0) + np.sqrt(r) / size * (on - np.outer(u, u))
    total = u.sum()
    one = inside * 1.0
    H = 3 * total * np.outer(u, u) - np.outer(one, u) - np.outer(u, one) - total * on
    return J, u / (2 * np.sqrt(r)), np.sqrt(r) / size**2 * H


@pytest.mark.parametrize("seed", range(5))
def test_bounds_of_auxiliary_columns_without_a_multiplier_cost_no_accuracy(seed):
    """Where xᵢ < 0, the column that is pos(xᵢ) lies on its bound 0 without a force."""
    t0 = np.random.default_rng(seed).normal(size=5)
    t0[:2] = [0.3, -0.8]
    x, t, r = cp.Variable(5), cp.Parameter(5, value=t0), cp.Parameter(value=float((np.maximum(t0, 0) ** 2).sum()) / 4)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(cp.square(cp.pos(x))) <= r])
    s, said = heard(lambda: differentiate(problem))
    J, Jr, _ = projected(t0, r.value, t0 > 0)
    (rows, columns), told = both_modes(problem, t, x)
    assert not said and not told
    np.testing.assert_allclose(rows, J, atol=1e-12)
    np.testing.assert_allclose(columns, J, atol=1e-12)
    np.testing.assert_allclose(s.jacobian(x, r), Jr, rtol=1e-11, atol=1e-12)


def test_second_derivatives_where_auxiliary_columns_lie_on_bounds():
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    t0 = np.array([0.3, -0.8, 1.1, -0.2])
    x, t = cp.Variable(4), cp.Parameter(4)
    r = float((np.maximum(t0, 0) ** 2).sum()) / 4
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(cp.square(cp.pos(x))) <= r])
    layer = CvxpyLayer(problem, parameters=[t], variables=[x])
    H, said = heard(lambda: torch.autograd.functional.hessian(lambda t: layer(t)[0].sum(), torch.tensor(t0)).numpy())
    assert not said
    np.testing.assert_allclose(H, projected(t0, r, t0 > 0)[2], atol=1e-11)


@pytest.mark.parametrize("seed", range(5))
def test_an_apex_without_a_force_that_leaves_the_map_smooth(seed):
    """‖x₃..₄‖² is smooth at 0, where its norm is not: the derivative is known from both sides of the point alone."""
    t0 = np.random.default_rng(seed).normal(size=4)
    t0[2:] = 0.0
    x, t, r = cp.Variable(4), cp.Parameter(4, value=t0), cp.Parameter(value=float(t0 @ t0) / 4)
    limit = cp.square(cp.norm(x[:2])) + cp.square(cp.norm(x[2:])) <= r
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [limit])
    J, Jr, _ = projected(t0, r.value, np.ones(4, dtype=bool))
    (rows, columns), said = both_modes(problem, t, x)
    assert not said
    size = np.abs(J).max()
    np.testing.assert_allclose(rows, J, atol=1e-8 * size)
    np.testing.assert_allclose(columns, J, atol=1e-8 * size)
    np.testing.assert_allclose(differentiate(problem).jacobian(x, r), Jr, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("small", [1e-3, 3e-3, 1e-2])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_fourth_power_near_its_minimum_has_its_own_curvature(small, seed):
    """No point is accurate enough to tell whether curvature vanishes: nearby solutions tell which piece is right."""
    rng = np.random.default_rng(seed)
    A, x0 = rng.normal(size=(5, 3)).round(2), rng.normal(size=3)
    A[0] -= x0 * (A[0] @ x0 - small) / (x0 @ x0)
    u = np.maximum(A @ x0, 0.0)
    x, t = cp.Variable(3), cp.Parameter(3, value=x0 + 1.4 * A.T @ u**3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t) + 0.7 * cp.sum(cp.power(cp.pos(A @ x), 4))))
    expected = 2.0 * np.linalg.inv(2.0 * np.eye(3) + 8.4 * A.T @ np.diag(u**2) @ A)
    (rows, columns), said = both_modes(problem, t, x)
    assert not said
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    np.testing.assert_allclose(columns, expected, atol=1e-6)


def limited(name: str, q: float) -> tuple[cp.Problem, cp.Variable, cp.Parameter]:
    """x = min(q, 2): the limit's own column is held by the limit's force alone, which vanishes at q = 2."""
    x, z, c = cp.Variable(), cp.Variable(), cp.Parameter(value=q)
    limit = {
        "huber": lambda: cp.huber(x, 1) <= 3,
        "root": lambda: x <= 2 * cp.sqrt(z) - z + 1,
        "norm": lambda: x <= 0.6 * z - cp.norm(cp.hstack([z, 1])) + 2.8,
    }[name]()
    return cp.Problem(cp.Minimize(cp.square(x - c)), [limit]), x, c


@pytest.mark.parametrize("name", ["huber", "root", "norm"])
def test_a_kink_at_which_columns_are_known_to_the_root_of_the_accuracy_is_told(name):
    problem, x, c = limited(name, 2.0)
    ask = {"vjp": lambda s: s.vjp({x: 1.0}), "jvp": lambda s: s.jvp({c: 1.0})}
    for product in ask.values():
        _, said = heard(lambda product=product: product(differentiate(problem)))
        assert said


@pytest.mark.parametrize("name", ["huber", "root", "norm"])
@pytest.mark.parametrize("beside", [1e-3, 1e-5, 1e-7, 1e-8, 1e-9, -1e-9, -1e-7, -1e-5, -1e-3])
def test_beside_such_a_kink_the_derivative_is_right_or_told(name, beside):
    problem, x, c = limited(name, 2.0 + beside)
    value, said = heard(lambda: float(differentiate(problem).vjp({x: 1.0})[c]))
    assert said or value == pytest.approx(float(beside < 0), abs=1e-5)
    assert not said or abs(beside) <= 1e-5
