"""A point is judged by the outputs asked for, and by nothing else."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.layers.core import LayerCore

x, z = cp.Variable(2, name="x"), cp.Variable(2, name="z")
c, d = cp.Parameter(2, name="c", value=np.array([1.0, 2.0])), cp.Parameter(2, name="d", value=np.ones(2))
FAULTS_OF_Z = {
    "free in a box": [z >= 0, z <= 1],
    "on a kink": [cp.sum_squares(z - d) <= 1, z[0] >= 0, z[0] <= 0],
    "torn apart": [cp.sum(z) == d[0], cp.sum(z) == d[1]],
    "tied to x, but free": [cp.norm(z - x) <= 9],
    "bounded by x": [z >= x - 5],
}


def problem(constraints) -> cp.Problem:
    x.value = z.value = None
    return cp.Problem(cp.Minimize(cp.sum_squares(x - c)), constraints)


@pytest.mark.parametrize("name", FAULTS_OF_Z)
def test_what_another_variable_does_is_no_fault_of_the_one_asked_for(name) -> None:
    constraints = FAULTS_OF_Z[name]
    report = cvxift.diagnose(problem(constraints), outputs=[x])
    assert report.verdict is cvxift.Verdict.APPLIES and report.ok, str(report)
    asked = cvxift.diagnose(problem(constraints), outputs=[z])
    assert not asked.ok
    assert not cvxift.diagnose(problem(constraints)).ok  # all variables are judged where none is named


@pytest.mark.parametrize("name", FAULTS_OF_Z)
def test_a_layer_is_judged_by_its_variables(name) -> None:
    layer = LayerCore(problem([*FAULTS_OF_Z[name], cp.sum(d) <= 9]), [c, d], [x], check="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer.solve([c.value, d.value], None, False)
    assert cvxift.diagnose(layer, c.value, d.value).ok


def test_the_radius_is_that_of_the_outputs() -> None:
    constraints = [z >= d, z <= 2, x <= 1.5 * np.array([1.0, 2.0])]
    cost = cp.Minimize(cp.sum_squares(x - c) + cp.sum_squares(z - 1.1))
    report = cvxift.diagnose(cp.Problem(cost, constraints), outputs=[x])
    assert report.radii["d"].distance == np.inf and 0.4 < report.radii["c"].distance < 0.6
    assert cvxift.diagnose(cp.Problem(cost, constraints), outputs=[z]).radii["d"].distance < 0.2
    assert report.audit().agrees
