"""Every argmax problem: what it solves to with each solver, and its gradients against differences and closed forms."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, softmax

import cvxift
from cvxift import argmax
from cvxift.argmax.sinkhorn import sinkhorn
from cvxift.atoms import gini, relative_entropy

EDGES = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (0, 3)]


PROBLEMS: dict[str, Callable[[cp.Parameter], cp.Problem]] = {
    "softmax": lambda t: argmax.softmax(4, t),
    "softmax with prior": lambda t: argmax.softmax(4, t, prior=np.array([0.1, 0.2, 0.3, 0.4])),
    "sparsemax": lambda t: argmax.sparsemax(4, t),
    "entmax": lambda t: argmax.entmax(4, 1.5, t),
    "fusedmax": lambda t: argmax.fusedmax(4, 0.2, t),
    "oscarmax": lambda t: argmax.oscarmax(4, 0.1, t),
    "constrained softmax": lambda t: argmax.constrained_softmax(4, 0.45, t),
    "constrained sparsemax": lambda t: argmax.constrained_sparsemax(4, 0.45, t),
    "budget": lambda t: argmax.budget(4, 2.0, temperature=t),
    "box": lambda t: argmax.box(4, t),
    "entropic transport": lambda t: argmax.transport([0.5, 0.5], [0.2, 0.3, 0.5], "entropic", t),
    "quadratic transport": lambda t: argmax.transport([0.5, 0.5], [0.2, 0.3, 0.5], "quadratic", t),
    "birkhoff": lambda t: argmax.birkhoff(3, "entropic", t),
    "permutahedron": lambda t: argmax.permutahedron(4, temperature=t),
    "entropic permutahedron": lambda t: argmax.permutahedron(4, temperature=t, regularizer="entropic"),
    "flow": lambda t: argmax.flow(EDGES, 0, 3, t),
    "linear chain": lambda t: argmax.linear_chain(3, 2, t),
}
OPTIONS = {
    "CLARABEL": {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10},
    "SCS": {"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iters": 200_000},
}


def filled(name: str, rng: np.random.Generator) -> cp.Problem:
    problem = PROBLEMS[name](cp.Parameter(nonneg=True, name="temperature", value=0.8))
    for parameter in problem.parameters():
        if parameter.name() != "temperature":
            parameter.value = rng.standard_normal(parameter.shape)
    return problem


@pytest.mark.parametrize("name", PROBLEMS)
def test_solvers_agree_and_the_solution_is_the_maximum(name: str, rng: np.random.Generator) -> None:
    problem = filled(name, rng)
    assert problem.is_dpp()
    z = argmax.variable(problem)
    found = {}
    for solver, options in OPTIONS.items():
        problem.solve(solver=solver, **options)
        found[solver] = np.array(z.value)
    np.testing.assert_allclose(found["SCS"], found["CLARABEL"], atol=2e-4)
    np.testing.assert_allclose(cvxift.differentiate(problem).value(z), found["CLARABEL"], atol=1e-5)


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_against_differences(name: str, rng: np.random.Generator) -> None:
    problem = filled(name, rng)
    z = argmax.variable(problem)
    weights = rng.standard_normal(z.shape)
    gradients = cvxift.differentiate(problem).vjp({z: weights})
    for parameter in problem.parameters():
        start, step = np.array(parameter.value, dtype=float), 1e-5
        direction = rng.standard_normal(parameter.shape)
        ends = []
        for sign in (1, -1):
            parameter.value = start + sign * step * direction
            ends.append(np.sum(weights * cvxift.differentiate(problem).value(z)))
        parameter.value = start
        expected = (ends[0] - ends[1]) / (2 * step)
        assert np.sum(gradients[parameter] * direction) == pytest.approx(expected, rel=1e-5, abs=1e-7), parameter.name()


def solved(problem: cp.Problem, theta: np.ndarray) -> np.ndarray:
    argmax.parameter(problem).value = theta
    return cvxift.differentiate(problem).value(argmax.variable(problem))


def test_values_have_their_closed_forms(rng: np.random.Generator) -> None:
    theta, prior, t = rng.standard_normal(4), rng.dirichlet(np.ones(4)), 0.7
    np.testing.assert_allclose(
        solved(argmax.softmax(4, t, prior), theta), softmax(theta / t + np.log(prior)), atol=1e-9
    )
    np.testing.assert_allclose(solved(argmax.box(4, t), theta), expit(theta / t), atol=1e-9)

    def clipped(tau: float) -> np.ndarray:
        return np.clip(theta / t - tau, 0, 1)

    tau = brentq(lambda tau: clipped(tau).sum() - 2, -10, 10, xtol=1e-14)
    np.testing.assert_allclose(solved(argmax.budget(4, 2, temperature=t), theta), clipped(tau), atol=1e-9)
    a, b = np.array([0.3, 0.7]), np.array([0.2, 0.3, 0.5])
    scores, plan = rng.standard_normal((2, 3)), rng.uniform(0.1, 1, (2, 3))
    expected = sinkhorn(scores / t + np.log(plan), a, b).z
    np.testing.assert_allclose(solved(argmax.transport(a, b, "entropic", t, plan), scores), expected, atol=1e-9)


@pytest.mark.parametrize("name", ["fusedmax", "oscarmax", "quadratic transport", "permutahedron", "flow"])
def test_quadratic_maxima_satisfy_their_variational_inequality(name: str, rng: np.random.Generator) -> None:
    # z maximizes over the polytope C iff the gradient of the objective at z is maximized over C at z: a linear program.
    problem = filled(name, rng)
    z, theta = argmax.variable(problem), argmax.parameter(problem)
    best = cvxift.differentiate(problem).value(z)
    slope = theta.value - 0.8 * (best - (0.5 if name == "flow" else 0.0))  # Gini's ½z(z − 1); elsewhere Σ z is fixed
    scale, extra = 0.0, 0.0
    if name in ("fusedmax", "oscarmax"):  # the piecewise linear part stays in the linear program
        scale, extra = (0.8 * 0.2, cp.tv(z)) if name == "fusedmax" else (0.8 * 0.1, oscar_of(z))
    linear = cp.Problem(cp.Maximize(cp.sum(cp.multiply(slope, z)) - scale * extra), problem.constraints)
    highest = linear.solve(solver=cp.CLARABEL)
    z.value = best
    own = np.sum(slope * best) - scale * (extra.value if scale else 0.0)
    assert own == pytest.approx(highest, abs=1e-6)


def oscar_of(z: cp.Variable) -> cp.Expression:
    return sum(cp.maximum(z[i], z[j]) for i, j in itertools.combinations(range(z.size), 2))


def test_temperature_prior_and_scores_are_parameters_at_once(rng: np.random.Generator) -> None:
    t = cp.Parameter(nonneg=True, name="temperature", value=0.6)
    prior = cp.Parameter(3, nonneg=True, name="prior", value=rng.dirichlet(np.ones(3)))
    problem = argmax.softmax(3, t, prior)
    assert problem.is_dpp()
    theta, z = argmax.parameter(problem), argmax.variable(problem)
    theta.value = rng.standard_normal(3)
    s = cvxift.differentiate(problem)
    p = softmax(theta.value / 0.6 + np.log(prior.value))
    np.testing.assert_allclose(s.value(z), p, atol=1e-9)
    J = np.diag(p) - np.outer(p, p)
    np.testing.assert_allclose(s.jacobian(z, theta), J / 0.6, atol=1e-8)
    np.testing.assert_allclose(s.jacobian(z, prior), J / prior.value, atol=1e-8)
    np.testing.assert_allclose(s.jacobian(z, t), -J @ theta.value / 0.36, atol=1e-8)


def test_values_of_a_permutahedron_can_be_a_parameter(rng: np.random.Generator) -> None:
    values = cp.Parameter(4, name="values", value=-np.sort(-rng.standard_normal(4)))
    problem = argmax.permutahedron(4, values)
    argmax.parameter(problem).value = np.array([4.0, 3.0, 2.0, 1.0])
    s = cvxift.differentiate(problem)
    jacobian = s.jacobian(argmax.variable(problem), values)
    np.testing.assert_allclose(jacobian.sum(axis=1), 1, atol=1e-8)  # shifting all values shifts the projection


def test_a_chain_of_one_is_softmax(rng: np.random.Generator) -> None:
    theta = rng.standard_normal((1, 3))
    np.testing.assert_allclose(solved(argmax.linear_chain(1, 3, 0.5), theta), softmax(theta / 0.5, axis=1), atol=1e-9)


def test_further_constraints_apply(rng: np.random.Generator) -> None:
    problem = argmax.sparsemax(4)
    z = argmax.variable(problem)
    argmax.parameter(problem).value = np.array([2.0, 1.0, 0.0, 0.0])
    with_more = cp.Problem(problem.objective, [*problem.constraints, z[0] <= z[3]])
    # z_0 = z_3 = v and z_1 = 1 − 2v: maximize 2v + 1 − 2v − ½(2v² + (1 − 2v)²), whose slope is 2 − 6v.
    np.testing.assert_allclose(cvxift.differentiate(with_more).value(z), [1 / 3, 1 / 3, 0, 1 / 3], atol=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: argmax.softmax(0), "n = 0"),
        (lambda: argmax.softmax(3, temperature=0.0), "temperature = 0.0"),
        (lambda: argmax.softmax(3, temperature=np.nan), "temperature = nan"),
        (lambda: argmax.softmax(3, temperature=cp.Parameter()), "nonneg=True"),
        (lambda: argmax.softmax(3, prior=np.ones(2)), r"prior has shape \(2,\)"),
        (lambda: argmax.softmax(3, prior=np.zeros(3)), "prior must be finite and > 0"),
        (lambda: argmax.softmax(3, prior=cp.Parameter(3)), "prior must be nonnegative"),
        (lambda: argmax.entmax(3, 0.9), "alpha = 0.9"),
        (lambda: argmax.entmax(3, np.nan), "alpha = nan"),
        (lambda: argmax.fusedmax(3, -1.0), "weight = -1.0"),
        (lambda: argmax.oscarmax(3, np.nan), "weight = nan"),
        (lambda: argmax.budget(3, 4.0), "sums to 4.0"),
        (lambda: argmax.budget(3, 1.0, lower=0.7, upper=0.2), "lower bound exceeds"),
        (lambda: argmax.constrained_softmax(3, 0.2), "sums to 1.0"),
        (lambda: argmax.constrained_softmax(3, np.nan), "sums to 1.0"),
        (lambda: argmax.transport([1.0], [0.4, 0.4]), "equal totals"),
        (lambda: argmax.transport([1.0], [np.nan]), "equal totals"),
        (lambda: argmax.transport([1.0], [2.0, -1.0]), "≥ 0"),
        (lambda: argmax.transport([1.0], [1.0], "gini"), "regularizer = 'gini'"),
        (lambda: argmax.transport([1.0], [1.0], "quadratic", prior=[[1.0]]), "prior belongs to"),
        (lambda: argmax.permutahedron(3, np.ones(2)), r"values has shape \(2,\)"),
        (lambda: argmax.permutahedron(2, [1.0, np.nan]), "finite"),
        (lambda: argmax.permutahedron(2, [1.0, 0.0], regularizer="entropic"), "> 0"),
        (lambda: argmax.linear_chain(0, 2), "length = 0"),
        (lambda: argmax.linear_chain(2, 2, -1.0), "temperature = -1.0"),
        (lambda: argmax.flow([(0, 1), (2, 1)], 0, 2), "No path"),
        (lambda: argmax.flow([], 0, 2), "edges"),
        (lambda: argmax.over([], cp.Parameter(2), gini, cp.Variable(3)), "theta has shape"),
        (lambda: argmax.over([], cp.Parameter(3), lambda v: -gini(v), cp.Variable(3)), "convex"),
        (lambda: argmax.over([], cp.Parameter(3), lambda v: 3.0, cp.Variable(3)), "convex"),
        (lambda: argmax.parameter(argmax.softmax(2), "prior"), "named 'prior'"),
        (lambda: relative_entropy(cp.Variable(3), cp.Parameter(2)), "prior has shape"),
    ],
)
def test_bad_input_says_what_is_wrong(call: Callable[[], object], words: str) -> None:
    with pytest.raises(cvxift.errors.ProgramError, match=words):
        call()


def test_an_infeasible_budget_in_parameters_is_a_solve_error() -> None:
    total = cp.Parameter(name="total", value=4.0)
    problem = argmax.budget(3, total)
    argmax.parameter(problem).value = np.zeros(3)
    with pytest.raises(cvxift.errors.SolveError):
        cvxift.differentiate(problem)
