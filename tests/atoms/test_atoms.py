"""Every atom against the CVXPY problem that defines it: value, curvature, gradient, domain, canonical form."""

from __future__ import annotations

import copy
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
from scipy.special import softmax

from cvxift.atoms import (
    fenchel_young_loss,
    fused,
    gini,
    neg_entropy,
    norm_neg_entropy,
    oscar,
    regularized_max,
    relative_entropy,
    tsallis_neg_entropy,
)
from cvxift.atoms.conjugate import entmax

Q = np.array([[0.2, 0.5, 0.1, 0.3], [0.4, 0.1, 0.9, 0.2]])


def fusedmax(z):
    return gini(z) + 0.3 * fused(z)


def oscarmax(z):
    return gini(z) + 0.1 * oscar(z)


REGULARIZERS: dict[str, Callable] = {
    "neg_entropy": neg_entropy,
    "tsallis 1": lambda z, **k: tsallis_neg_entropy(z, 1, **k),
    "tsallis 1.2": lambda z, **k: tsallis_neg_entropy(z, 1.2, **k),
    "tsallis 1.5": lambda z, **k: tsallis_neg_entropy(z, 1.5, **k),
    "tsallis 2": lambda z, **k: tsallis_neg_entropy(z, 2, **k),
    "tsallis 4": lambda z, **k: tsallis_neg_entropy(z, 4, **k),
    "gini": gini,
    "norm 2": norm_neg_entropy,
    "norm 1.7": lambda z, **k: norm_neg_entropy(z, 1.7, **k),
    "fused": fused,
    "oscar": oscar,
    "relative": lambda z, **k: relative_entropy(z, Q if z.ndim == 2 else Q[0], **k),
    "regularized_max 1": lambda z, **k: regularized_max(z, 1, **k),
    "regularized_max 1.5": lambda z, **k: regularized_max(z, 1.5, **k),
    "regularized_max 2": lambda z, **k: regularized_max(z, 2, **k),
    "regularized_max gini": lambda z, **k: regularized_max(z, gini, **k),
    "regularized_max norm": lambda z, **k: regularized_max(z, norm_neg_entropy, **k),
    "regularized_max fused": lambda z, **k: regularized_max(z, fusedmax, **k),
    "regularized_max oscar": lambda z, **k: regularized_max(z, oscarmax, **k),
    "loss 1": lambda z, **k: fenchel_young_loss(z, np.eye(4)[:2] if z.ndim == 2 else np.eye(4)[0], 1, **k),
    "loss 1.5": lambda z, **k: fenchel_young_loss(z, np.full(z.shape, 0.25), 1.5, **k),
    "loss 2": lambda z, **k: fenchel_young_loss(z, np.eye(4)[1:3] if z.ndim == 2 else np.eye(4)[1], 2, **k),
}
TOLERANCE = {cp.CLARABEL: 1e-6, cp.SCS: 1e-4}
OPTIONS = {cp.CLARABEL: {}, cp.SCS: {"eps_abs": 1e-8, "eps_rel": 1e-8, "max_iters": 20000}}


@pytest.fixture(params=REGULARIZERS, ids=lambda name: name.replace(" ", "_"))
def atom(request: pytest.FixtureRequest) -> Callable:
    return REGULARIZERS[request.param]


@pytest.mark.parametrize("solver", [cp.CLARABEL, cp.SCS])
def test_the_canonical_form_has_the_numeric_value(atom, solver: str, rng: np.random.Generator) -> None:
    point = rng.uniform(0.1, 1, 4)
    z = cp.Variable(4)
    # Minimizing over a fixed point evaluates the epigraph that solvers see; an inequality puts it in a constraint too.
    t = cp.Variable()
    for objective, constraints in [(atom(z), [z == point]), (t, [z == point, atom(z) <= t])]:
        value = cp.Problem(cp.Minimize(objective), constraints).solve(solver=solver, **OPTIONS[solver])
        assert value == pytest.approx(atom(cp.Constant(point)).value, abs=TOLERANCE[solver])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_axes(atom, axis: int, keepdims: bool, rng: np.random.Generator) -> None:
    if axis == 0 and atom in (REGULARIZERS["loss 1"], REGULARIZERS["loss 2"]):
        return  # the targets are distributions along axis 1
    point = rng.uniform(0.1, 1, (2, 4))
    z = cp.Variable((2, 4))
    expression = atom(z, axis=axis, keepdims=keepdims)
    z.value = point
    value = expression.value
    assert expression.shape == value.shape == point.sum(axis=axis, keepdims=keepdims).shape
    weights = np.arange(1.0, value.size + 1)
    problem = cp.Problem(cp.Minimize(weights @ cp.vec(expression, order="F")), [z == point])
    assert problem.solve(solver=cp.CLARABEL) == pytest.approx(weights @ value.ravel(order="F"), abs=1e-5)
    if axis == 1 and "relative" not in str(expression.name()) and "loss" not in str(expression.name()):
        rows = [np.asarray(atom(cp.Constant(row)).value).item() for row in point]
        np.testing.assert_allclose(value.ravel(), rows, atol=1e-6)


def test_curvature_by_midpoints(atom, rng: np.random.Generator) -> None:
    expression = atom(cp.Variable(4))
    assert expression.is_convex() and not expression.is_concave() and expression.is_dcp()
    for _ in range(20):
        a, b = rng.uniform(0, 2, (2, 4)) * rng.integers(0, 2, (2, 4))
        left, middle, right = (np.asarray(atom(cp.Constant(v)).value).item() for v in (a, 0.5 * (a + b), b))
        assert middle <= 0.5 * (left + right) + 1e-7


def test_claimed_sign_and_monotonicity(atom, rng: np.random.Generator) -> None:
    expression = atom(cp.Variable(4))
    for _ in range(10):
        a = rng.uniform(0, 2, 4)
        b = a + rng.uniform(0, 1, 4)
        low, high = (np.asarray(atom(cp.Constant(v)).value).item() for v in (a, b))
        if expression.is_incr(0):
            assert low <= high + 1e-7
        if expression.is_decr(0):
            assert low >= high - 1e-7
        if expression.is_nonneg():
            assert low >= -1e-7


def test_gradient_against_differences(atom, rng: np.random.Generator) -> None:
    z = cp.Variable(4)
    expression = atom(z)
    point = rng.uniform(0.1, 1, 4)
    z.value = point
    gradient = expression.grad[z]
    gradient = gradient.toarray().ravel() if hasattr(gradient, "toarray") else np.ravel(gradient)
    solved = "fusedmax" in expression.name() or "oscarmax" in expression.name() or "norm" in expression.name()
    step = 1e-3 if solved else 1e-6
    for i in range(4):
        values = []
        for sign in (1, -1):
            z.value = point + sign * step * np.eye(4)[i]
            values.append(np.asarray(expression.value).item())
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(gradient[i], abs=2e-3 if solved else 1e-6)


def test_copies_and_data(atom) -> None:
    z = cp.Variable(4, value=np.array([0.1, 0.2, 0.3, 0.4]))
    expression = atom(z)
    again = expression.copy()
    assert type(again) is type(expression) and again.value == pytest.approx(expression.value)
    assert again.name() == expression.name() and z.name() in expression.name()
    assert expression._repr_latex_().startswith("$")
    assert copy.deepcopy(expression).shape == expression.shape


@pytest.mark.parametrize(
    ("build", "name", "latex"),
    [
        (lambda z: neg_entropy(z), "neg_entropy(z)", r"\sum_i \mathrm{z}_i \log \mathrm{z}_i"),
        (lambda z: gini(z, axis=1), "gini(z, axis=1)", r"\tfrac12 \sum_i \mathrm{z}_i (\mathrm{z}_i - 1)"),
        (lambda z: tsallis_neg_entropy(z, 1.5), "tsallis_neg_entropy(z, 1.5)", r"\tfrac{1}{0.75}"),
        (lambda z: tsallis_neg_entropy(z, 2, axis=0), "tsallis_neg_entropy(z, 2, axis=0)", r"\tfrac12"),
        (lambda z: norm_neg_entropy(z, 3, keepdims=True), "norm_neg_entropy(z, 3, keepdims=True)", r"\|_{3} - 1"),
        (lambda z: relative_entropy(z, cp.Parameter((2, 3), name="q")), "relative_entropy(z, q)", r"\mathrm{q}"),
        (lambda z: fused(z, axis=1), "fused(z, axis=1)", r"\mathrm{TV}(\mathrm{z})"),
        (lambda z: oscar(z), "oscar(z)", r"\max(|\mathrm{z}_i|, |\mathrm{z}_j|)"),
        (lambda z: regularized_max(z, gini, axis=1), "regularized_max(z, gini, axis=1)", r"\Omega^*(\mathrm{z})"),
        (
            lambda z: fenchel_young_loss(z, cp.Parameter((2, 3), name="y"), 2, axis=1),
            "fenchel_young_loss(z, y, 2, axis=1)",
            r"L_\Omega(\mathrm{z};\, \mathrm{y})",
        ),
    ],
)
def test_names_are_the_calls_and_latex_their_symbols(build, name: str, latex: str) -> None:
    expression = build(cp.Variable((2, 3), name="z"))
    assert expression.name() == name
    assert latex in expression.latex()


@pytest.mark.parametrize("solver", [cp.CLARABEL, cp.SCS])
def test_an_atom_beside_others_in_objective_and_constraint(atom, solver: str, rng: np.random.Generator) -> None:
    # The minimum of a convex function over a segment between points: no point of it is lower.
    a, b = rng.uniform(0.1, 1, (2, 4))
    z, step = cp.Variable(4), cp.Variable()
    level = np.asarray(atom(cp.Constant(a)).value).item()
    constraints = [z == a + step * (b - a), step >= 0, step <= 1, atom(z) <= level + 1e-3]
    value = cp.Problem(cp.Minimize(2 * atom(z) + 0.1 * step), constraints).solve(solver=solver, **OPTIONS[solver])
    at = [2 * np.asarray(atom(cp.Constant(a + s * (b - a))).value).item() + 0.1 * s for s in np.linspace(0, 1, 21)]
    assert value <= min(at) + 3 * TOLERANCE[solver]
    assert value == pytest.approx(2 * np.asarray(atom(cp.Constant(z.value)).value).item() + 0.1 * step.value, abs=1e-3)


def test_equal_atoms_of_different_order_stay_apart() -> None:
    # CVXPY merges subexpressions whose data are equal.
    z = cp.Variable(3)
    point = np.array([0.2, 0.3, 0.5])
    expression = tsallis_neg_entropy(z, 1.3) + 2 * tsallis_neg_entropy(z, 1.7) + 3 * tsallis_neg_entropy(z, 1.3)
    value = cp.Problem(cp.Minimize(expression), [z == point]).solve(solver=cp.CLARABEL)
    z.value = point
    assert value == pytest.approx(expression.value, abs=1e-6)


def test_gini_keeps_a_problem_quadratic() -> None:
    z = cp.Variable(4)
    problem = cp.Problem(cp.Minimize(gini(z) - np.arange(4) @ z), [cp.sum(z) == 1, z >= 0])
    assert problem.is_qp() and problem.solve(solver=cp.OSQP) == pytest.approx(-3, abs=1e-4)


@pytest.mark.parametrize("alpha", [1, 1.25, 1.5, 2, 3])
def test_regularized_max_against_its_definition(alpha: float, rng: np.random.Generator) -> None:
    for scale in (1e-3, 1.0, 3.0):
        theta = scale * rng.standard_normal(5)
        z = cp.Variable(5)
        defining = cp.Problem(cp.Maximize(theta @ z - tsallis_neg_entropy(z, alpha)), [cp.sum(z) == 1])
        value = defining.solve(solver=cp.CLARABEL)
        assert regularized_max(theta, alpha).value == pytest.approx(value, abs=1e-6 * max(1, scale))
        expected = softmax(theta) if alpha == 1 else entmax(theta, alpha)
        np.testing.assert_allclose(z.value, expected, atol=1e-4)


@pytest.mark.parametrize("alpha", [1, 1.5, 2])
def test_the_loss_is_zero_exactly_at_the_prediction(alpha: float, rng: np.random.Generator) -> None:
    theta = rng.standard_normal(5)
    prediction = softmax(theta) if alpha == 1 else entmax(theta, alpha)
    other = np.roll(prediction, 1)
    assert fenchel_young_loss(theta, prediction, alpha).value == pytest.approx(0, abs=1e-12)
    assert fenchel_young_loss(theta, other, alpha).value > 1e-3


@pytest.mark.parametrize("alpha", [1, 1.5, 2])
def test_regression_with_the_loss_is_dpp(alpha: float, rng: np.random.Generator) -> None:
    X = rng.standard_normal((12, 3))
    Y = np.eye(4)[rng.integers(0, 4, 12)]
    W, target = cp.Variable((3, 4)), cp.Parameter((12, 4))
    loss = cp.sum(fenchel_young_loss(X @ W, target, alpha, axis=1))
    problem = cp.Problem(cp.Minimize(loss + 0.5 * cp.sum_squares(W)))
    assert problem.is_dpp()
    target.value = Y
    problem.solve(solver=cp.CLARABEL)
    scores = X @ W.value
    predicted = np.array([softmax(row) if alpha == 1 else entmax(row, alpha) for row in scores])
    np.testing.assert_allclose(X.T @ (predicted - Y) + W.value, 0, atol=1e-4)  # gradient: prediction − target


def test_a_parameter_as_prior_is_dpp() -> None:
    z, prior = cp.Variable(3), cp.Parameter(3, nonneg=True)
    problem = cp.Problem(cp.Maximize(np.array([0.1, 0.2, 0.3]) @ z - relative_entropy(z, prior)), [cp.sum(z) == 1])
    assert problem.is_dpp()
    prior.value = np.array([0.2, 0.5, 0.3])
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    expected = prior.value * np.exp([0.1, 0.2, 0.3])
    np.testing.assert_allclose(z.value, expected / expected.sum(), atol=1e-6)


def test_domains() -> None:
    z = cp.Variable(2)
    assert neg_entropy(z).domain and tsallis_neg_entropy(z, 1.5).domain and not gini(z).domain
    for alpha in (1, 1.5, 2, 4):
        assert np.isposinf(tsallis_neg_entropy(np.array([-1.0, 1.0]), alpha).value)
        objective = cp.Minimize(tsallis_neg_entropy(z, alpha) + cp.sum(z) * 5)
        assert cp.Problem(objective).solve(solver=cp.CLARABEL) is not None and z.value.min() > -1e-6


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda z: tsallis_neg_entropy(z, 0.5), "alpha = 0.5"),
        (lambda z: tsallis_neg_entropy(z, np.nan), "alpha = nan"),
        (lambda z: norm_neg_entropy(z, 1), "q = 1"),
        (lambda z: regularized_max(z, 0.5), "regularizer = 0.5"),
        (lambda z: regularized_max(z, "gini"), "is a str"),
        (lambda z: regularized_max(z, lambda v: -gini(v)), "convex scalar"),
        (lambda z: regularized_max(z, lambda v: cp.Parameter(nonneg=True) * gini(v)), "contains parameters"),
        (lambda z: regularized_max(cp.Variable((2, 2)), 2), r"shape \(2, 2\)"),
        (lambda z: fenchel_young_loss(z, np.ones(2), 2), r"y has shape \(2,\)"),
        (lambda z: relative_entropy(z, np.ones(2)), r"prior has shape \(2,\)"),
        (lambda z: fused(cp.Variable((2, 2))), "axis"),
        (lambda z: fused(z, axis=1), r"fused got axis = 1, but its argument has shape \(3,\)"),
        (lambda z: oscar(cp.Variable((2, 2)), axis=2), "oscar got axis = 2"),
        (lambda z: neg_entropy(z, axis=-2), "neg_entropy got axis = -2"),
        (lambda z: tsallis_neg_entropy(z, 1.5, axis=5), "tsallis_neg_entropy got axis = 5"),
        (lambda z: regularized_max(z, 2, axis=3), "regularized_max got axis = 3"),
    ],
)
def test_bad_input_says_what_is_wrong(build, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(cp.Variable(3))
