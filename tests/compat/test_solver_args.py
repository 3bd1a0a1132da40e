"""cvxpylayers' options of solvers: accepted as it accepts them, by both frameworks' layers."""

import warnings

import cvxpy as cp
import numpy as np
import pytest

import cvxift.torch
from cvxift import compat
from cvxift.errors import ProgramError

torch = pytest.importorskip("torch")
peer = pytest.importorskip("cvxpylayers.torch")
pytest.importorskip("jax")
import cvxift.jax  # noqa: E402

GIVEN = [
    {"eps": 1e-8},
    {"solve_method": "SCS"},
    {"max_iters": 10000},
    {"acceleration_lookback": 0},
    {"eps": 1e-8, "max_iters": 10000},
    {"solve_method": "SCS", "eps_abs": 1e-9, "eps_rel": 1e-9, "max_iters": 5000},
    {"solve_method": "CLARABEL", "n_jobs_forward": 1},
    {"solve_method": "Clarabel", "max_iter": 100, "tol_gap_abs": 1e-10},
    {"n_jobs_forward": 2, "n_jobs_backward": 2, "eps": 1e-8},
    {"mode": "lsqr", "eps": 1e-8},
]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(compat, "_told", set())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def problems():
    x, b = cp.Variable(3), cp.Parameter(3)
    cost = cp.Minimize(cp.sum_squares(x - b) + cp.sum_squares(x))
    return {"no constraints": (cost, []), "bounds": (cost, [x >= 0]), "cone": (cost, [cp.norm(x) <= 0.5])}, b, x


def values(kind):
    b = np.array([1.0, -1.0, 0.3]) / 2
    if kind == "bounds":
        return np.maximum(b, 0.0), np.diag((b > 0) / 2.0)
    norm = np.linalg.norm(b)
    if kind == "no constraints" or norm <= 0.5:
        return b, np.eye(3) / 2
    z = b / norm / 2
    return z, (np.eye(3) - np.outer(b, b) / norm**2) / (2 * norm) / 2


@pytest.mark.parametrize("given", GIVEN, ids=str)
@pytest.mark.parametrize("kind", ["no constraints", "bounds", "cone"])
@pytest.mark.parametrize("place", ["constructor", "call"])
def test_options_of_cvxpylayers_are_accepted(given, kind, place):
    made, b, x = problems()
    problem = cp.Problem(*made[kind])
    built, called = (given, {}) if place == "constructor" else ({}, given)
    t = torch.tensor([1.0, -1.0, 0.3], dtype=torch.float64)
    layer = cvxift.torch.CvxpyLayer(problem, [b], [x], solver_args=dict(built))
    jacobian = torch.autograd.functional.jacobian(lambda t: layer(t, solver_args=dict(called))[0], t)
    expected = values(kind)
    assert np.allclose(layer(t, solver_args=dict(called))[0], expected[0], atol=1e-8)
    assert np.allclose(jacobian, expected[1], atol=1e-7)
    other = cvxift.jax.CvxpyLayer(problem, [b], [x], solver_args=dict(built))
    assert np.allclose(other(t.numpy().astype(np.float32), solver_args=dict(called))[0], expected[0], atol=1e-6)
    (theirs,) = peer.CvxpyLayer(problem, [b], [x], solver_args=dict(built))(
        t.requires_grad_(),
        solver_args=dict(called),  # some of its options it takes only where it differentiates
    )
    assert np.allclose(theirs.detach(), expected[0], atol=1e-3)


def layer_of(kind="bounds", **options):
    made, b, x = problems()
    return cvxift.torch.CvxpyLayer(cp.Problem(*made[kind]), [b], [x], **options)


def test_options_reach_the_solver_that_they_name():
    t = torch.tensor([1.0, -1.0, 0.3], dtype=torch.float64)
    for given, solver in [
        ({"max_iters": 7000}, "scs"),
        ({"solve_method": "CLARABEL"}, "clarabel"),
        ({"solve_method": "ECOS", "abstol": 1e-9, "max_iters": 77}, "clarabel"),
        ({"eps": 1e-9}, "scs"),
    ]:
        layer = layer_of("cone")
        layer(t, solver_args=given)
        assert layer.core._warm.solutions[0].solver == solver, given
    engine = layer_of(solver_args={"eps": 1e-9, "max_iters": 77, "mode": "lsqr"}).core.map.engine
    assert engine.first == "scs" and engine.solver_args == {"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iters": 77}


def test_a_call_adds_to_the_constructors_options_and_may_name_another_solver():
    layer = layer_of("cone", solver_args={"solve_method": "SCS", "eps": 1e-5})
    assert layer.core._solver_and_options({"max_iters": 50})[1] == {"eps_abs": 1e-5, "eps_rel": 1e-5, "max_iters": 50}
    with pytest.raises(ProgramError, match="no option 'eps'"):  # SCS' name of a tolerance, told to Clarabel
        layer(torch.zeros(3), solver_args={"solve_method": "CLARABEL"})


def test_what_is_ignored_is_said_once():
    layer, t = layer_of(), torch.zeros(3, dtype=torch.float64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            layer(t, solver_args={"n_jobs_forward": 1, "mode": "lsqr"})
    told = [str(w.message) for w in caught if "is ignored" in str(w.message)]
    assert len(told) == 2 and "'n_jobs_forward'" in told[0] and "'mode'" in told[1]


@pytest.mark.parametrize("kind", ["no constraints", "bounds", "cone"])
@pytest.mark.parametrize("given", [{"no_such_option": 1}, {"solve_method": "no such"}, {"eps": 1e-8, "nonsense": 2}])
def test_an_unknown_option_is_refused_by_name(kind, given):
    with pytest.raises(ProgramError, match=r"no_such_option|no such|nonsense"):
        layer_of(kind, solver_args=given)


def test_a_slip_in_an_option_and_a_solver_that_is_missing_are_told_in_a_few_words():
    with pytest.raises(ProgramError, match=r"Did you mean 'max_iter' \(piqp\)") as told:
        layer_of(solver_args={"max_itr": 100})
    assert "Options of daqp: " in str(told.value) and len(str(told.value)) < 700
    missing = next(name for name in ("MOSEK", "GUROBI", "CPLEX") if name not in cp.installed_solvers())
    with pytest.raises(ProgramError, match="Install its package"):
        layer_of(solver=missing)


def test_moreau_takes_its_nested_settings_and_one_tolerance():
    pytest.importorskip("moreau")
    given = {"max_iter": 150, "ipm_settings": {"tol_gap_abs": 1e-10}}
    engine = layer_of(solver="MOREAU", solver_args=given).core.map.engine
    assert engine.first == "moreau" and engine.solver_args == {"max_iter": 150, "tol_gap_abs": 1e-10}
    engine = layer_of(solver="MOREAU", solver_args={"tol": 1e-10, "max_iters": 150, "tol_feas": 1e-8}).core.map.engine
    assert engine.solver_args == {"max_iter": 150, "tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-8}
