"""The labelled systems are the textbook's; solving with them gives the Jacobian."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

import cvxift


def test_softmax_is_the_textbook_matrix() -> None:
    z, theta = cp.Variable(3, name="z"), cp.Parameter(3, name="theta", value=np.array([0.2, 0.5, 0.1]))
    problem = cp.Problem(cp.Maximize(theta @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1])
    report = cvxift.diagnose(problem)
    p = np.exp(theta.value) / np.exp(theta.value).sum()
    expected = np.block([[np.diag(1 / p), np.ones((3, 1))], [np.ones((1, 3)), np.zeros((1, 1))]])
    for kind in ("reduced", "full"):
        system = report.system(kind)
        np.testing.assert_allclose(system.matrix, expected, atol=1e-7)
        assert system.columns[:3] == ("z[0]", "z[1]", "z[2]")
        assert system.columns[3].startswith("multiplier of constraint 0")
    jacobian = np.linalg.solve(system.matrix, np.eye(4)[:, :3])[:3]
    np.testing.assert_allclose(jacobian, np.diag(p) - np.outer(p, p), atol=1e-8)
    assert "z[1]" in str(system)


def test_full_system_of_a_quadratic_program() -> None:
    x, q = cp.Variable(2, name="x"), cp.Parameter(2, name="q", value=np.array([-3.0, 1.0]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + q @ x), [x[0] <= 1, x[1] <= 5, x[0] - x[1] <= 7])
    report = cvxift.diagnose(problem)
    x_star, y = np.array([1.0, -0.5]), 1.0
    G = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    slack = np.array([1.0, 5.0, 7.0]) - G @ x_star
    expected = np.block([[2 * np.eye(2), G.T], [np.diag([y, 0, 0]) @ G, -np.diag(slack)]])
    np.testing.assert_allclose(report.system("full").matrix, expected, atol=1e-9)
    reduced = np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(report.system("reduced").matrix, reduced, atol=1e-9)


def test_curvature_of_a_ball_enters_the_hessian() -> None:
    # minimize cᵀx on the unit ball: ∇²L = λ (I − x xᵀ)/‖x‖ with λ = ‖c‖, the multiplier of ‖x‖ ≤ 1.
    c = np.array([3.0, 4.0])
    x, cost = cp.Variable(2, name="x"), cp.Parameter(2, name="c", value=c)
    system = cvxift.diagnose(cp.Problem(cp.Minimize(cost @ x), [cp.norm(x) <= 1])).system("reduced")
    u = -c / 5.0
    assert system.matrix.shape == (3, 3)
    np.testing.assert_allclose(system.matrix[:2, :2], 5.0 * (np.eye(2) - np.outer(u, u)), atol=1e-6)
    np.testing.assert_allclose(np.abs(system.matrix[2, :2]), np.abs(u), atol=1e-7)
