"""Second derivatives of local solutions: against closed forms, their own symmetry, differences; where none exist."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.nlp import NonlinearMap
from cvxift.nlp.solution_map import PROMISED, difference
from tests.nlp.problems import CASES

pytest.importorskip("unopy")
pytest.importorskip("cvxpy", minversion="1.9")


def second(problem: cp.Problem, parameter: cp.Parameter, x: cp.Variable, theta: np.ndarray, **options) -> np.ndarray:
    """D²x, shape (K, N, N); the last axis is that of the direction along which differences are taken."""
    own = NonlinearMap(problem, [parameter], [x], **options)
    solved = own.solve(np.asarray(theta, dtype=float))
    K, N = own.output_size, own.theta_size
    bars, ways = np.repeat(np.eye(K), N, axis=0), np.tile(np.eye(N), (K, 1))
    return np.swapaxes(own.derivative(solved, (ways,), bars).reshape(K, N, N), 1, 2)


@pytest.mark.parametrize("name", ["HS2", "HS7", "HS10", "HS15", "HS18", "HS29", "HS34", "HS37", "HS40", "HS71"])
def test_second_derivatives_are_symmetric_and_differences_of_first_ones(name: str) -> None:
    case = CASES[name]()
    theta = case.c.value
    H = second(case.problem, case.c, case.x, theta)
    # Nothing makes it symmetric but that every column is right.
    np.testing.assert_allclose(H, np.swapaxes(H, 1, 2), atol=1e-9 * np.abs(H).max())
    own = NonlinearMap(case.problem, [case.c], [case.x])
    solved = own.solve(theta)
    way = theta * np.random.default_rng(0).standard_normal(len(theta))
    h = 3e-4

    def jacobian(h: float) -> np.ndarray:
        near = own.solve(theta + h * way, warm=solved.warm())
        return own.jacobian(near.solutions[0], slice(None))

    expected = (8 * (jacobian(h) - jacobian(-h)) - (jacobian(2 * h) - jacobian(-2 * h))) / (12 * h)
    np.testing.assert_allclose(H @ way, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("t", [(0.3, 0.9), (0.0, 0.9)])
def test_the_parameters_unit_does_not_matter(unit: float, t: tuple[float, float]) -> None:
    x, p = cp.Variable(2), cp.Parameter(2)
    x.value = np.full(2, unit)
    problem = cp.Problem(cp.Minimize(cp.sum_squares((x - p) / unit)), [cp.sum_squares(x / unit) == 1])
    size, u = np.linalg.norm(t), np.array(t) / np.linalg.norm(t)
    eye = np.eye(2)
    bent = [np.outer(eye[i], u) + np.outer(u, eye[i]) + u[i] * eye - 3 * u[i] * np.outer(u, u) for i in range(2)]
    np.testing.assert_allclose(unit * second(problem, p, x, unit * np.array(t)), -np.array(bent) / size**2, atol=1e-9)


@pytest.mark.parametrize("beyond", [0.5, 1e-3, 1e-5])
def test_beside_a_kink_the_derivative_is_that_of_its_own_side(beyond: float) -> None:
    x, p = cp.Variable(), cp.Parameter(1)
    x.value = 2.0
    problem = cp.Problem(cp.Minimize(cp.square(cp.square(x)) / 4 - p[0] * x), [x >= 1])  # max(1, p^{1/3})
    for theta, expected in ((1 + beyond, -2 / 9 * (1 + beyond) ** (-5 / 3)), (1 - beyond / 2, 0.0)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = second(problem, p, x, np.array([theta]))
        np.testing.assert_allclose(found.item(), expected, atol=1e-9)


def test_at_a_kink_it_is_told_and_one_sides() -> None:
    x, p = cp.Variable(), cp.Parameter(1)
    x.value = 2.0
    problem = cp.Problem(cp.Minimize(cp.square(cp.square(x)) / 4 - p[0] * x), [x >= 1])
    with pytest.warns(cvxift.ApplicabilityWarning, match="kink"):
        found = second(problem, p, x, np.ones(1)).item()
    assert min(abs(found), abs(found + 2 / 9)) < 1e-6


@pytest.mark.parametrize(("power", "exists"), [(1.5, False), (3.0, True)])
def test_the_bound_on_the_error_tells_whether_there_is_a_limit(power: float, exists: bool) -> None:
    # Of sign(h)|h|^p the quotients at 0 tend to zero like h^(p - 1), which is too slowly for the first.
    value, error = difference(lambda h: np.array([1.0 + np.sign(h) * abs(h) ** power]), np.ones(1))
    assert (error <= 1.0) == exists
    assert abs(value.item()) <= PROMISED or not exists


def test_a_derivative_less_accurate_than_promised_is_told(monkeypatch) -> None:
    x, p = cp.Variable(), cp.Parameter(1)
    problem = cp.Problem(cp.Minimize(cp.exp(x) - p[0] * x))  # log p
    assert second(problem, p, x, np.ones(1), check="raise").item() == pytest.approx(-1.0, abs=1e-9)
    monkeypatch.setattr("cvxift.nlp.solution_map.STEPS", 2)
    with pytest.raises(cvxift.ApplicabilityError, match="accurate to a relative error"):
        second(problem, p, x, np.ones(1), check="raise")
