"""`verbose=True` prints for every solver, each time it solves; `logging` tells how the search for a point goes."""

import logging

import cvxpy as cp
import numpy as np
import pytest

import cvxift.jax
import cvxift.torch

torch = pytest.importorskip("torch")

G = np.random.default_rng(0).normal(size=(5, 3))
SOLVERS = [None, "daqp", "piqp", "osqp", "clarabel", "scs", "moreau", "highs"]


def layer(solver=None, verbose=True, make=cvxift.torch.CvxpyLayer, **options):
    x, t = cp.Variable(3), cp.Parameter(3)
    return make(
        cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [G @ x <= 1]), [t], [x], solver, verbose=verbose, **options
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_prints(solver, capfd):
    if solver == "moreau":
        pytest.importorskip("moreau")
    loud, quiet = layer(solver), layer(solver, verbose=False)
    capfd.readouterr()
    for shape in ((3,), (2, 3)):
        loud(torch.ones(shape, dtype=torch.float64))
        assert capfd.readouterr().out.strip()
        quiet(torch.ones(shape, dtype=torch.float64))
        assert not capfd.readouterr().out


def test_making_a_layer_prints_nothing(capfd):
    layer("scs")
    assert not capfd.readouterr().out


@pytest.mark.parametrize("make", [cvxift.torch.CvxpyLayer, cvxift.jax.CvxpyLayer])
def test_a_call_with_options_prints_as_well(make, capfd):
    loud = layer(make=make)
    capfd.readouterr()
    for given in ({"solve_method": "SCS"}, {"iter_limit": 500}):
        loud(np.ones(3, dtype="f4"), solver_args=given, from_dlpack=True)
        assert capfd.readouterr().out.strip()


def test_daqp_says_how_it_ended(capfd):
    layer("daqp")(torch.ones(3, dtype=torch.float64))
    assert "DAQP: optimal; " in capfd.readouterr().out


@pytest.mark.parametrize("feasible", [True, False])
def test_the_search_for_a_point_is_logged(feasible, caplog):
    x, t = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= t, x <= 1, cp.sum(x) >= -9])
    layer = cvxift.torch.CvxpyLayer(problem, [t], [x], solver="daqp", on_failure="nan", check="off")
    with caplog.at_level(logging.DEBUG, logger="cvxift"):
        layer(torch.full((3,), 0.5 if feasible else 2.0, dtype=torch.float64))
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    called = [record.getMessage() for record in caplog.records]
    assert called and all(message.partition(": ")[0] in cvxift.solvers.names() for message in called)
    assert any("infeasible" in message for message in told) != feasible
