"""Layers and sensitivities of a solved problem are copied and pickled, whatever the solver left in it."""

import copy
import pickle

import cvxpy as cp
import numpy as np
import pytest

import cvxift.jax
import cvxift.torch

cloudpickle = pytest.importorskip("cloudpickle")
torch = pytest.importorskip("torch")
jnp = pytest.importorskip("jax.numpy")

COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "as joblib": lambda thing: pickle.loads(cloudpickle.dumps(thing)),  # for the workers of a sweep
}
SOLVERS = [("cone", "CLARABEL"), ("cone", "SCS"), *(("qp", name) for name in ("CLARABEL", "OSQP", "PIQP", "HIGHS"))]


def solved(kind, solver):
    x, t = cp.Variable(3, name="x"), cp.Parameter(3, name="t", value=np.array([3.0, 0.0, 4.0]))
    bound = [cp.norm(x) <= 1] if kind == "cone" else [cp.sum(x) == 1]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= -9, *bound])
    problem.solve(solver=solver)
    return problem, t, x


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize(("kind", "solver"), SOLVERS)
def test_what_a_solver_left_in_the_problem_is_no_hindrance(kind, solver, how):
    problem, t, x = solved(kind, solver)
    s = cvxift.differentiate(problem)
    twin = COPIES[how](s)
    (theirs,), (own) = twin.problem.variables(), twin.problem.parameters()[0]
    assert np.array_equal(twin.jacobian(theirs, own), s.jacobian(x, t))
    assert str(twin.report) == str(s.report)
    for made, array in ((cvxift.torch.CvxpyLayer, torch.tensor), (cvxift.jax.CvxpyLayer, jnp.array)):
        layer = made(problem, [t], [x])
        (found,) = COPIES[how](layer)(array(t.value))
        assert np.allclose(found, s.value(x), atol=1e-6 if made is cvxift.jax.CvxpyLayer else 1e-12)


@pytest.mark.parametrize("how", COPIES)
def test_the_problem_itself_keeps_its_solution(how):
    problem, _, x = solved("cone", "CLARABEL")
    workspace, told = problem._solver_cache, problem.solver_stats.extra_stats
    twin = COPIES[how](problem)
    assert twin.value == problem.value and twin.status == "optimal" and twin.solver_stats.num_iters > 0
    assert np.array_equal(twin.variables()[0].value, x.value)
    assert problem._solver_cache is workspace and problem.solver_stats.extra_stats is told


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("make", [cvxift.torch.CvxpyLayer, cvxift.jax.CvxpyLayer])
def test_a_layer_with_integers_solves_after_it_was_copied(make, how):
    opened, ship = cp.Variable(2, boolean=True), cp.Variable(2, nonneg=True)
    demand = cp.Parameter(value=3.0)
    cost = np.array([1.0, 2.0]) @ ship + np.array([4.0, 3.0]) @ opened
    problem = cp.Problem(cp.Minimize(cost), [cp.sum(ship) >= demand, ship <= 5 * opened])
    problem.solve(solver="HIGHS")
    layer = make(problem, [demand], [ship], integers="fixed")
    layer(2.0)
    assert np.allclose(COPIES[how](layer)(4.0)[0], [4.0, 0.0])


@pytest.mark.parametrize("how", COPIES)
def test_sensitivities_of_complex_and_of_nonlinear_problems_are_copied(how):
    z, c = cp.Variable(2, complex=True), cp.Parameter(2, complex=True, value=np.array([3 + 4j, 12j]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - c)), [cp.norm(z) <= 1])
    problem.solve(solver="CLARABEL")
    s = cvxift.differentiate(problem)
    twin = COPIES[how](s)
    assert np.array_equal(twin.jacobian(twin.problem.variables()[0], twin.problem.parameters()[0]), s.jacobian(z, c))
    x, t = cp.Variable(2, value=np.ones(2)), cp.Parameter(2, value=np.array([1.0, 2.0]))
    curved = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum(cp.exp(x) - cp.multiply(t, x)))), nlp=True)
    twin = COPIES[how](curved)
    assert np.allclose(twin.jacobian(twin.problem.variables()[0], twin.problem.parameters()[0]), np.diag([1.0, 0.5]))
