"""Cones that touch and share a force: derivatives are those of the set where all hold, whatever the split found.

The sets below are one constraint's near the point, because the others hold where it does; derivatives are compared with
those of the problem with it alone, and with closed forms.
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from kinks import heard

from cvxift import Verdict, diagnose, differentiate


def powers(*exponents: float):
    """x₀^α x₁^(1−α) ≥ |x₂| for each α: they share the ray x₁ > 0. Up to ½, that of the largest α lies in the others."""
    return lambda x: [cp.PowCone3D(x[0], x[1], x[2], alpha) for alpha in exponents]


def matrices(*factors: float):
    """x₀ x₁ ≥ (f x₂)² for each f."""

    def constraints(x):
        return [cp.bmat([[x[0], f * x[2]], [f * x[2], x[1]]]) >> 0 for f in factors]

    return constraints


def cone(x):
    """x₀ x₁ ≥ 4 x₂² as a second-order cone."""
    return [cp.SOC(x[0] + 0.25 * x[1], cp.hstack([2 * x[2], x[0] - 0.25 * x[1]]))]


def ball(x):
    return [cp.norm(x) <= 1]


def beside(*parts):
    return lambda x: [constraint for part in parts for constraint in part(x)]


E = np.array([1.0, 0.0, 0.0])
# name: constraints, the one that the others hold with, and where the cost pulls
CASES = {
    "powers": (powers(0.5, 0.3), powers(0.5), (-0.5, 2.0, 0.0)),
    "powers, least first": (powers(0.3, 0.5), powers(0.5), (-0.5, 1.5, 0.0)),
    "powers, three": (powers(0.3, 0.5, 0.4), powers(0.5), (-0.5, 2.0, 0.0)),
    "powers, twice": (powers(0.3, 0.5, 0.5, 0.4), powers(0.5), (-0.5, 2.0, 0.0)),
    "power and cone": (beside(powers(0.5, 0.3), cone), cone, (-0.5, 2.0, 0.0)),
    "matrices": (matrices(1.0, 2.0), matrices(2.0), (-0.5, 2.0, 0.0)),
    "matrix and cone": (beside(matrices(1.0), cone), cone, (-0.5, 2.0, 0.0)),
    "ball in a ball": (beside(ball, lambda x: [cp.norm(x + E) <= 2]), ball, (2.0, 0.0, 0.0)),
    "ball in two balls": (
        beside(lambda x: [cp.norm(x + 2 * E) <= 3, cp.norm(x + E) <= 2], ball),
        ball,
        (2.0, 0.0, 0.0),
    ),
    "ball and tangent": (beside(ball, lambda x: [np.array([0.6, 0.8, 0.0]) @ x <= 1]), ball, (1.2, 1.6, 0.0)),
    "ball in a box": (beside(ball, lambda x: [x <= 1, x >= -1]), ball, (2.0, 0.0, 0.0)),
    "squares and bound": (
        lambda x: [cp.sum_squares(x) <= 1, x[0] <= 1],
        lambda x: [cp.sum_squares(x) <= 1],
        (2.0, 0.0, 0.0),
    ),
    "exponentials": (
        lambda x: [cp.exp(x[0]) <= x[1], cp.exp(2 * x[0]) <= 2 * x[1] - 1, x[1] >= 1 + x[0]],
        lambda x: [cp.exp(2 * x[0]) <= 2 * x[1] - 1],
        (1.0, 0.0, 0.0),
    ),
    "logarithm and tangent": (
        lambda x: [cp.log(x[0]) >= x[1], x[1] <= x[0] - 1],
        lambda x: [cp.log(x[0]) >= x[1]],
        (0.0, 1.0, 0.0),
    ),
    "reciprocal and tangent": (
        lambda x: [cp.inv_pos(x[0]) <= x[1], x[0] + x[1] >= 2],
        lambda x: [cp.inv_pos(x[0]) <= x[1]],
        (0.5, 0.5, 0.0),
    ),
    "geometric mean and tangent": (
        lambda x: [cp.geo_mean(x[:2]) >= 1, x[0] + x[1] >= 2],
        lambda x: [cp.geo_mean(x[:2]) >= 1],
        (0.5, 0.5, 0.0),
    ),
}


def projection(constraints, center, units=1.0, scale=1.0):
    """The point of a set nearest to c, in units of its own."""
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c", value=np.array(center))
    X = cp.multiply(units, x)
    return cp.Problem(cp.Minimize(scale * cp.sum_squares(X - c)), constraints(X)), x, c


def jacobians(problem, x, c):
    """By rows and by columns."""
    rows = np.array([differentiate(problem).vjp({x: row})[c] for row in np.eye(3)])
    return rows, np.transpose([differentiate(problem).jvp({c: column})[x] for column in np.eye(3)])


@pytest.mark.parametrize(("units", "scale"), [((1.0, 1.0, 1.0), 1.0), ((1e3, 1e-2, 10.0), 1e3)])
@pytest.mark.parametrize("name", CASES)
def test_the_cone_that_bends_most_is_the_one_that_counts(name, units, scale):
    constraints, alone, center = CASES[name]
    (rows, columns), said = heard(lambda: jacobians(*projection(constraints, center, units, scale)))
    expected, _ = jacobians(*projection(alone, center))
    assert not said
    np.testing.assert_allclose(np.array(units)[:, None] * rows, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.array(units)[:, None] * columns, expected, rtol=0, atol=1e-9)


def test_closed_forms():
    """Onto the unit ball: (I − uuᵀ)/‖c‖. Onto the power cone of ½ at c = (−½, y, 0): dx₂/dc₂ = y/(y + 1)."""
    for name in ("ball in a box", "ball in a ball"):
        rows, _ = jacobians(*projection(CASES[name][0], (2.0, 0.0, 0.0)))
        np.testing.assert_allclose(rows, np.diag([0.0, 0.5, 0.5]), atol=1e-12)
    rows, _ = jacobians(*projection(powers(0.3, 0.5), (-0.5, 1.5, 0.0)))
    np.testing.assert_allclose(rows, np.diag([0.0, 1.0, 0.6]), atol=1e-12)


def test_it_does_not_matter_where_curvatures_are_one():
    """‖x‖ ≤ 1 and ‖Qx‖ ≤ 1 for an orthogonal Q are one ball, with one curvature for the sum of their multipliers."""
    rng = np.random.default_rng(5)
    Q = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    center = 2.0 * rng.standard_normal(3)
    problem, x, c = projection(lambda x: [cp.norm(x) <= 1.0, cp.norm(Q @ x) <= 1.0], center)
    (rows, columns), said = heard(lambda: jacobians(problem, x, c))
    size = np.linalg.norm(center)
    expected = (np.eye(3) - np.outer(center, center) / size**2) / size
    assert not said
    np.testing.assert_allclose(rows, expected, atol=1e-7)
    np.testing.assert_allclose(columns, expected, atol=1e-7)


@pytest.mark.parametrize("more", [1e-3, 1e-5])
def test_a_small_difference_of_curvature_counts(more):
    """A ball in a slightly larger one that touches it."""
    constraints = beside(lambda x: [cp.norm(x + more * E) <= 1 + more], ball)
    rows, columns = jacobians(*projection(constraints, (2.0, 0.0, 0.0)))
    np.testing.assert_allclose(rows, np.diag([0.0, 0.5, 0.5]), atol=1e-7)
    np.testing.assert_allclose(columns, rows, atol=1e-9)


KINKED = {
    # The larger of two squares: which one it is depends on where the point moves, and on its edge both hold.
    "two squares": lambda x: [cp.square(x[1]) <= x[0], cp.square(x[2]) <= x[0]],
    "two ellipses": lambda x: [x[1] ** 2 + 4 * x[2] ** 2 <= x[0], 4 * x[1] ** 2 + x[2] ** 2 <= x[0]],
}


@pytest.mark.parametrize("name", KINKED)
def test_no_one_cone_that_bends_most_is_told(name):
    problem, x, c = projection(KINKED[name], (-1.0, 0.0, 0.0))
    for ask in (lambda s: s.vjp({x: [0.3, 1.0, -0.5]}), lambda s: s.jvp({c: [0.0, 1.0, 0.5]})):
        _, said = heard(lambda ask=ask: ask(differentiate(problem)))
        assert said
    assert diagnose(problem).verdict is Verdict.ONE_SIDED


def test_diagnosis_where_one_cone_bends_most():
    problem, _, _ = projection(CASES["ball and tangent"][0], (1.2, 1.6, 0.0))
    assert diagnose(problem).verdict is Verdict.PRIMAL_ONLY


def test_many_columns():
    n = 150
    u = np.random.default_rng(0).standard_normal(n)
    u /= np.linalg.norm(u)
    x, c = cp.Variable(n), cp.Parameter(n, value=2.0 * u)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.norm(x) <= 1, u @ x <= 1])
    direction = np.random.default_rng(1).standard_normal(n)
    tangent, said = heard(lambda: differentiate(problem).jvp({c: direction})[x])
    assert not said
    np.testing.assert_allclose(tangent, (direction - (u @ direction) * u) / 2, atol=1e-10)


def layers():
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    for constraints in (CASES["ball and tangent"][0], ball):
        problem, x, c = projection(constraints, (1.2, 1.6, 0.0))
        yield CvxpyLayer(problem, [c], [x]), torch.tensor(c.value)


def test_layers_in_batches_and_second_derivatives():
    torch = pytest.importorskip("torch")
    (layer, c), (alone, _) = layers()
    weights = torch.tensor([0.3, -1.0, 0.7], dtype=torch.float64)
    batch = torch.stack([c, 1.1 * c, c + 0.3]).requires_grad_()

    def ask(layer):
        (gradient,) = torch.autograd.grad((layer(batch)[0] @ weights).sum(), batch)
        hessian = torch.autograd.functional.hessian(lambda c: layer(c)[0] @ weights, c)
        return gradient.numpy(), hessian.numpy()

    (gradient, hessian), said = heard(lambda: ask(layer))
    expected = ask(alone)
    assert not said
    np.testing.assert_allclose(gradient, expected[0], atol=1e-9)
    np.testing.assert_allclose(hessian, expected[1], atol=1e-8)


def test_dual_variables_beside_others_are_told():
    """The point's derivative does not depend on how the force is shared; the multipliers are its shares."""
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    problem, x, c = projection(CASES["powers"][0], CASES["powers"][2])
    layer = CvxpyLayer(problem, [c], [x, problem.constraints[0].dual_variables[0]])
    for outputs in ([0], [1], [0, 1]):
        given = torch.tensor(c.value, requires_grad=True)
        _, said = heard(lambda given=given, outputs=outputs: sum(layer(given)[k].sum() for k in outputs).backward())
        assert bool(said) == (1 in outputs)
        if 1 not in outputs:
            np.testing.assert_allclose(given.grad.numpy(), [0.0, 1.0, 2 / 3], atol=1e-9)


def test_jax():
    jax = pytest.importorskip("jax")
    from cvxift.jax import CvxpyLayer

    problem, x, c = projection(CASES["matrices"][0], (-0.5, 2.0, 0.0))
    layer = CvxpyLayer(problem, [c], [x])
    rows, said = heard(lambda: np.asarray(jax.jacrev(lambda c: layer(c)[0])(np.array(c.value))))
    assert not said
    np.testing.assert_allclose(rows, jacobians(*projection(matrices(2.0), (-0.5, 2.0, 0.0)))[0], atol=1e-6)


@pytest.mark.parametrize("limit", [5.0, 0.7, 3.3])
def test_rows_that_the_point_cannot_resolve_are_no_equations(limit):
    """A bound fixes the column in which a ball is tight; what the point's error leaves of its row is about 1e-13."""
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c", value=[2.0, 0.0, 0.0])
    inside, bound = cp.norm(x) <= 1, x[0] <= 1
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [inside, bound, x[2] <= limit])
    (rows, columns), said = heard(lambda: jacobians(problem, x, c))
    assert not said
    np.testing.assert_allclose(rows, np.diag([0.0, 0.5, 0.5]), atol=1e-9)
    np.testing.assert_allclose(columns, rows, atol=1e-12)
    for constraint in (inside, bound):  # their multipliers share what holds the point
        _, said = heard(lambda dual=constraint.dual_variables[0]: differentiate(problem).vjp({dual: 1.0}))
        assert said


@pytest.mark.parametrize("small", [1e-9, 1e-11])
def test_small_entries_of_linear_rows_are_equations(small):
    """Beside a bound that fixes a column, and a curved cone: what a row states is exact, eigenvectors are not."""
    x, z, c = cp.Variable(2, name="x"), cp.Variable(3, name="z"), cp.Parameter(name="c", value=0.3)
    cost = cp.sum_squares(z - np.array([1.0, 2.0, 3.0])) + cp.square(x[0] - 5) + cp.square(x[1] + 2)
    held = [cp.norm(z) <= 1, x[0] <= 1, x[0] + small * x[1] == 1 + small * c]
    rows, said = heard(lambda: differentiate(cp.Problem(cp.Minimize(cost), held)).jacobian(x, c))
    assert not said
    np.testing.assert_allclose(np.ravel(rows), [0.0, 1.0], atol=1e-9)


@pytest.mark.parametrize("off", [1e-9, 3e-9, 1e-8])
@pytest.mark.parametrize("linear", [False, True])
def test_beside_the_point_where_cones_touch(off, linear):
    """What tells the cones apart, the square of `off`, is below rounding, and K need not look singular."""
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c", value=[1.0, off, -off / 2])
    cost = -c @ x if linear else cp.sum_squares(x - 3 * c)
    (rows, _), said = heard(lambda: jacobians(cp.Problem(cp.Minimize(cost), [cp.norm(x) <= 1, x[0] <= 1]), x, c))
    assert said or np.allclose(rows, np.diag([0.0, 1.0, 1.0]), atol=1e-6)


def test_large_balls():
    """Their cones are lifted, so that a row that stands still moves by rounding."""
    size = 200
    x, c = cp.Variable(size, name="x"), cp.Parameter(size, name="c", value=np.r_[3.0, np.zeros(size - 1)])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.norm(x) <= 1, x[0] <= 1])
    rows, said = heard(lambda: differentiate(problem).jacobian(x, c))
    assert not said
    np.testing.assert_allclose(rows, np.diag(np.r_[0.0, np.full(size - 1, 1 / 3)]), atol=1e-9)
