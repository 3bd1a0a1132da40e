"""What a user sees who prints a layer or a sensitivity, or asks for the version."""

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.cli import main


def projection():
    z, theta = cp.Variable(3, name="z"), cp.Parameter(3, name="theta", value=np.array([0.9, 0.6, -0.5]))
    return cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [z >= 0, cp.sum(z) == 1]), [theta], [z]


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_layer_names_parameters_variables_path_and_solver(framework):
    make = pytest.importorskip(f"cvxift.{framework}").CvxpyLayer
    shown = repr(make(*projection()))
    assert shown.startswith("CvxpyLayer(parameters: theta (3,); variables: z (3,)")
    assert "solver: auto, path: closed form (sparsemax)" in shown
    assert "solver: clarabel" in repr(make(*projection(), solver="CLARABEL"))
    assert "solver: scs" in repr(make(*projection(), solver_args={"eps": 1e-8}))


def test_a_sensitivity_names_the_same():
    problem, _, _ = projection()
    shown = repr(cvxift.differentiate(problem, solver="CLARABEL"))
    assert shown.startswith("Sensitivity(parameters: theta (3,); variables: z (3,); solver: clarabel, path: ")


def test_the_command_line_tells_its_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"cvxift {cvxift.__version__}"
