"""What a user sees who prints a layer or a sensitivity, or asks for the version."""

from xml.etree import ElementTree

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


def rows(shown):
    """name -> value of an HTML table."""
    cells = [cell.itertext() for cell in ElementTree.fromstring(shown).iter() if cell.tag in ("th", "td")]
    texts = ["".join(cell) for cell in cells]
    return dict(zip(texts[::2], texts[1::2], strict=True))


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_notebook_shows_a_layer_and_its_last_call(framework):
    adapter = pytest.importorskip(f"cvxift.{framework}")
    problem, (theta,), variables = projection()
    theta.name = lambda: "θ < 1"  # what HTML must not take for a tag
    layer = adapter.CvxpyLayer(problem, [theta], variables)
    shown = rows(layer._repr_html_())
    assert shown["parameters"] == "θ < 1 (3,)" and shown["path"] == "closed form (sparsemax)"
    assert "last call" not in shown
    value = np.array([0.9, 0.6, -0.5])
    layer(value, from_dlpack=True)
    assert rows(layer._repr_html_())["last call"].startswith("1 instance(s), 0 failed")
    last = rows(layer.last_report._repr_html_())
    assert last["instances"] == "1" and last["failed"] == "0" and float(last["smallest margin"]) > 0


def test_a_notebook_shows_a_sensitivity():
    problem, (theta,), (z,) = projection()
    s = cvxift.differentiate(problem, solver="CLARABEL")
    shown = rows(s._repr_html_())
    assert shown["solver"] == "clarabel" and float(shown["relative residual"]) < 1e-9
    s.jacobian(z, theta)
    assert "residual" in rows(s._repr_html_())["last linear solve"]
