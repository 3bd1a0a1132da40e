"""Derivatives of local solutions against finite differences of tightly solved problems, and against closed forms."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift

pytest.importorskip("unopy")
pytest.importorskip("cvxpy", minversion="1.9")

from differences import assert_close, differences  # beside this file
from problems import CASES


@pytest.mark.parametrize("name", CASES)
def test_solutions_and_derivatives_of_the_collection(name: str) -> None:
    case = CASES[name]()
    s = cvxift.differentiate(case.problem, nlp=True, check="raise")
    assert s.value(case.problem.objective) == pytest.approx(case.value, rel=1e-6, abs=1e-9)
    assert s.residuals.worst <= 1e-10
    assert_close(s.jacobian(case.x, case.c), differences(s, case.x, case.c))
    # The optimal value's gradient by the envelope theorem, and by the chain rule through the solution.
    gradient = s.jacobian(case.problem.objective, case.c)
    theta_dot = np.linspace(-1.0, 1.0, case.c.size) + 0.1
    jvp = s.jvp({case.c: theta_dot})
    assert jvp[case.problem.objective] == pytest.approx(float(gradient @ theta_dot), rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(jvp[case.x], s.jacobian(case.x, case.c) @ theta_dot, rtol=1e-9, atol=1e-9)
    bar = np.linspace(1.0, 2.0, case.x.size)
    np.testing.assert_allclose(s.vjp({case.x: bar})[case.c], bar @ s.jacobian(case.x, case.c), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["HS7", "HS12", "HS14", "HS22", "HS29", "HS40", "HS43", "HS71"])
def test_dual_variables_and_their_derivatives(name: str) -> None:
    case = CASES[name]()
    s = cvxift.differentiate(case.problem, nlp=True)
    for constraint in case.problem.constraints:
        dual = constraint.dual_variables[0]
        assert_close(s.jacobian(dual, case.c), differences(s, dual, case.c))


def test_eigenvector_of_a_parametric_matrix() -> None:
    rng = np.random.default_rng(0)
    M = rng.standard_normal((5, 5))
    A = cp.Parameter((5, 5), symmetric=True, value=M + M.T)
    x = cp.Variable(5)
    values, vectors = np.linalg.eigh(A.value)
    x.value = vectors[:, 0] + 0.1 * rng.standard_normal(5)
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, A, assume_PSD=True)), [cp.sum_squares(x) == 1])
    s = cvxift.differentiate(problem, nlp=True)
    v = s.value(x)
    assert s.value(problem.objective) == pytest.approx(values[0], rel=1e-10)
    E = rng.standard_normal((5, 5))
    E = E + E.T
    # dv = (λI − A)⁺ E v,  dλ = vᵀEv
    expected = np.linalg.pinv(values[0] * np.eye(5) - A.value) @ E @ v
    moved = s.jvp({A: E})
    np.testing.assert_allclose(moved[x], expected, rtol=1e-8, atol=1e-9)
    assert moved[problem.objective] == pytest.approx(float(v @ E @ v), rel=1e-9)


def test_projection_onto_a_sphere() -> None:
    t, r = cp.Parameter(3, value=np.array([0.5, -1.0, 2.0])), cp.Parameter(pos=True, value=1.5)
    x = cp.Variable(3)
    x.value = t.value
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum_squares(x) == cp.square(r)])
    s = cvxift.differentiate(problem, nlp=True)
    u, norm = t.value / np.linalg.norm(t.value), np.linalg.norm(t.value)
    np.testing.assert_allclose(s.value(x), r.value * u, rtol=1e-10)
    np.testing.assert_allclose(s.jacobian(x, t), r.value / norm * (np.eye(3) - np.outer(u, u)), atol=1e-9)
    np.testing.assert_allclose(s.jacobian(x, r), u, atol=1e-9)


def test_projection_onto_an_ellipse() -> None:
    a, t = cp.Parameter(2, pos=True, value=np.array([2.0, 1.0])), cp.Parameter(2, value=np.array([2.0, 1.5]))
    x = cp.Variable(2)
    x.value = t.value
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(cp.square(cp.multiply(x, 1 / a))) == 1])
    s = cvxift.differentiate(problem, nlp=True)

    def closed(theta: np.ndarray) -> np.ndarray:
        # x = t a²/(a² + λ) with Σ a² t²/(a² + λ)² = 1 (Newton on the secular equation)
        a2, t_ = theta[:2] ** 2, theta[2:]
        low = 0.0
        for _ in range(100):
            f = float(np.sum(a2 * t_**2 / (a2 + low) ** 2)) - 1.0
            low += f / float(np.sum(2.0 * a2 * t_**2 / (a2 + low) ** 3))
        return t_ * a2 / (a2 + low)

    theta = np.concatenate([a.value, t.value])
    np.testing.assert_allclose(s.value(x), closed(theta), rtol=1e-10)
    J = np.stack([(closed(theta + 1e-6 * e) - closed(theta - 1e-6 * e)) / 2e-6 for e in np.eye(4)], axis=-1)
    np.testing.assert_allclose(np.hstack([s.jacobian(x, a), s.jacobian(x, t)]), J, rtol=1e-6, atol=1e-7)


def test_the_example_of_the_first_trial() -> None:
    x, t, r = cp.Variable(2, name="x"), cp.Parameter(2, value=[0.3, 0.9]), cp.Parameter(value=2.0)
    x.value = np.array([1.0, 0.5])
    objective = cp.Minimize(cp.sum_squares(x - t) + t[1] * x[0] * x[1])
    problem = cp.Problem(objective, [cp.sum_squares(x) == r])
    s = cvxift.differentiate(problem, nlp=True)
    for parameter in (t, r):
        assert_close(s.jacobian(x, parameter), differences(s, x, parameter), 1e-7)
    assert problem.status == "optimal"
    np.testing.assert_allclose(problem.constraints[0].dual_value, -s.jacobian(problem.objective, r), rtol=1e-10)
