"""Problems without a solution say which constraints exclude each other, or which variables run away."""

from __future__ import annotations

import re
import warnings

import cvxpy as cp
import numpy as np
import pytest

import cvxift

P = np.array([1.0, 2.0, 3.0])


def three() -> tuple[cp.Variable, cp.Parameter]:
    return cp.Variable(3, name="x"), cp.Parameter(3, name="p", value=P)


def raised(objective, constraints) -> cvxift.SolveError:
    with pytest.raises(cvxift.SolveError) as error:
        cvxift.differentiate(cp.Problem(objective, constraints))
    return error.value


@pytest.mark.parametrize("unit", [1.0, 1e6, 1e-6])
@pytest.mark.parametrize("kind", ["linear", "equalities", "ball", "exp", "matrix"])
@pytest.mark.parametrize("gap", [1.0, 1e-5])
def test_constraints_that_exclude_each_other_are_named(kind, unit, gap):
    x, p = three()
    innocent = [x[2] <= 100.0, x[1] >= -100.0]
    pairs = {
        "linear": [x[0] + x[1] <= 1, x[:2] >= 0.5 * (1 + gap)],
        "equalities": [x[0] - x[1] == 1, 2 * x[0] - 2 * x[1] == 2 + gap],
        "ball": [cp.norm(x) <= 1, x[0] >= 1 + gap],
        "exp": [cp.exp(x[0]) <= 1, x[0] >= gap],
        "matrix": [cp.bmat([[x[0:1], x[1:2]], [x[1:2], np.ones(1)]]) >> 0, x[0] <= -gap],
    }
    pair = pairs[kind]
    if kind != "matrix" and unit != 1.0:
        pair = [pair[0], type(pair[1])(unit * pair[1].args[0], unit * pair[1].args[1])]
    error = raised(cp.Minimize(cp.sum_squares(x - p)), [*innocent, *pair])
    assert error.status == "infeasible"
    if gap == 1e-5 and unit == 1e-6:
        return  # a millionth of 1e-5: too little to be told from rounding, and only the refusal counts
    for number in (2, 3):
        assert re.search(rf"constraint {number} \(.*exclude each other", str(error)), str(error)
    assert "constraint 0" not in str(error) and "constraint 1" not in str(error)


def test_bounds_that_exclude_are_named_as_declared():
    t = cp.Parameter(name="t", value=1.0)
    w = cp.Variable(3, name="w", bounds=[0, t])
    error = raised(cp.Minimize(cp.sum_squares(w)), [cp.sum(w) == 10])
    assert "constraint 0 (sum(w) == 10)" in str(error) and "w[0] <= t (bounds)" in str(error)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("curved", [False, True])
def test_variables_that_run_away_are_named(maximize, curved):
    x, p = three()
    cost = p[:2] @ x[:2] + cp.square(x[2]) + (cp.norm(x[2:]) if curved else 0.0)
    error = raised(cp.Maximize(-cost) if maximize else cp.Minimize(cost), [x[0] >= -1])
    assert error.status == "unbounded"
    way = "rises" if maximize else "falls"
    assert f"The objective {way} without end where x[1] falls" in str(error)
    assert "x[0] falls" not in str(error) and "x[2]" not in str(error)


def unattained(kind: str) -> tuple[cp.Problem, cp.Variable, cp.Parameter]:
    """Problems whose infimum no point attains, although a solver stops at one."""
    x, p = three()
    if kind == "exp":
        return cp.Problem(cp.Minimize(cp.sum(cp.exp(x - p)))), x, p
    if kind == "separable logistic loss":
        rows = np.random.default_rng(0).normal(size=(8, 3))
        labels = np.sign(rows @ P)
        return cp.Problem(cp.Minimize(cp.sum(cp.logistic(-cp.multiply(labels, rows @ (x - p)))))), x, p
    X = cp.Variable((2, 2), PSD=True, name="X")
    t = cp.Parameter(name="t", value=1.0)
    return cp.Problem(cp.Minimize(X[0, 0]), [X[0, 1] == t]), X, t


@pytest.mark.parametrize("cone", ["hyperbola", "ball"])
def test_a_minimum_whose_columns_no_multiplier_holds_is_attained(cone):
    """Nothing pushes x[0]: the cost's slope there is zero, and its curvature alone holds it; in any unit."""
    x, p = cp.Variable(2, name="x"), cp.Parameter(2, name="p")
    if cone == "hyperbola":
        p.value, expected, constraints = [0.5, 2.0], 1.0, [cp.geo_mean(x, (1 / 3, 2 / 3)) >= 1.0]
    else:  # x = p/‖p‖
        p.value, expected, constraints = [0.0, -2.0], 0.5, [cp.norm(x) <= 1.0, x[0] <= 0.5]
    for unit in (1.0, 1e4):
        problem = cp.Problem(cp.Minimize(cp.sum_squares(unit * (x - p))), constraints)
        with warnings.catch_warnings():
            warnings.simplefilter("error", cvxift.ApplicabilityWarning)
            found = cvxift.differentiate(problem).vjp({x: [1.0, 0.0]})[p]
        np.testing.assert_allclose(found, [expected, 0.0], atol=1e-6)


@pytest.mark.parametrize("kind", ["exp", "separable logistic loss", "matrix"])
def test_a_minimum_that_is_not_attained_is_told(kind):
    problem, x, p = unattained(kind)
    for ask in (lambda s: s.jvp({p: np.ones(p.shape)}), lambda s: s.vjp({x: np.ones(x.shape)})):
        with pytest.warns(cvxift.ApplicabilityWarning, match=r"not attained.*x\[0\]|not attained.*X\[1, 1\]"):
            ask(cvxift.differentiate(problem))
    with pytest.raises(cvxift.ApplicabilityError, match="not attained"):
        cvxift.differentiate(problem, check="raise").vjp({x: np.ones(x.shape)})
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    theta = torch.tensor(np.stack([p.value, p.value]), requires_grad=True)
    with pytest.warns(cvxift.ApplicabilityWarning, match="not attained"):
        CvxpyLayer(problem, [p], [x])(theta)[0].sum().backward()


@pytest.mark.parametrize("atom", [lambda z: -cp.sum(cp.log(z)), lambda z: cp.sum(cp.inv_pos(z))])
def test_a_point_far_away_is_no_fault_of_the_canonicalization(atom):
    x, p = three()
    error = raised(cp.Minimize(atom(x - p)), [])
    assert error.status == "unbounded" and "x[0] rises" in str(error)


@pytest.mark.parametrize("kind", ["softmax", "exp with a cost", "ridge", "overlapping logistic loss", "unused"])
def test_minima_that_are_attained_are_not_told(kind):
    x, p = three()
    if kind == "softmax":
        p.value = np.array([-25.0, 0.0, 1.0])
        problem = cp.Problem(cp.Maximize(p @ x + cp.sum(cp.entr(x))), [cp.sum(x) == 1])
    elif kind == "exp with a cost":
        p.value = np.array([1e-6, 1.0, 1e3])
        problem = cp.Problem(cp.Minimize(cp.sum(cp.exp(x)) - p @ x))
    elif kind == "ridge":
        problem = cp.Problem(cp.Minimize(cp.sum(cp.exp(x - p)) + 1e-3 * cp.sum_squares(x)))
    elif kind == "unused":
        y = cp.Variable(name="y")
        problem = cp.Problem(cp.Minimize(cp.sum(cp.exp(x)) - p @ x), [cp.exp(y) <= 1])
    else:
        rows = np.random.default_rng(0).normal(size=(20, 3))
        labels = np.sign(np.random.default_rng(1).normal(size=20))
        problem = cp.Problem(cp.Minimize(cp.sum(cp.logistic(-cp.multiply(labels, rows @ (x - p))))))
    from cvxift.kkt.solution_map import SolutionMap

    mapping = SolutionMap(problem, [p], [x], check="raise")
    solved = mapping.solve(p.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error", cvxift.ApplicabilityWarning)
        mapping.vjp(solved, np.ones(3))
        mapping.jvp(solved, np.ones(3))


@pytest.mark.parametrize("solver", [None, "piqp", "clarabel"])
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_point_far_out_on_a_ray_is_no_solution(seed, bounded, solver):
    # AᵀA is singular and c is not in its range: a solver that stops at 1e12 has small residuals beside the terms of Px.
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(3, 6)) if seed % 2 else rng.integers(-2, 3, size=(3, 6)).astype(float)
    x, c = cp.Variable(6, name="x"), cp.Parameter(6, value=rng.normal(size=6))
    rows = [x[0] >= -1, x[1] <= 2] if bounded else []
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - 1) + c @ x), rows)
    with pytest.raises(cvxift.SolveError) as error:
        cvxift.differentiate(problem, solver=solver)
    assert error.value.status == "unbounded"


@pytest.mark.parametrize("solver", [None, "piqp", "clarabel"])
@pytest.mark.parametrize("kind", ["ridge", "shift", "rows"])
def test_a_solution_far_out_is_one(kind, solver):
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, value=np.array([1.0, -1.0]))
    far, objective, rows, right = {
        "ridge": (1e8, cp.square(cp.sum(x)) + 0.5e-8 * cp.sum_squares(x) + c @ x, [], [-1e8, 1e8]),
        "shift": (1e8, cp.sum_squares(x - 1e8 * c), [], [1e8, -1e8]),
        "rows": (1e7, -c[0] * x[0], [x[0] <= (1 - 1e-7) * x[1], x[1] - x[0] <= 1], [1e7 - 1, 1e7]),
    }[kind]
    solution = cvxift.differentiate(cp.Problem(cp.Minimize(objective), rows), solver=solver)
    np.testing.assert_allclose(solution.value(x), right, atol=1e-6 * far)
