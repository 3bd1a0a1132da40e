"""A warning names the line of the user's code that called, whatever lies between."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.errors import warn_user

AT_A_KINK = np.array([0.0, 1.0])


def projection() -> tuple[cp.Problem, cp.Variable, cp.Parameter]:
    x, t = cp.Variable(2), cp.Parameter(2, value=AT_A_KINK)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0]), x, t


def test_numpy() -> None:
    problem, x, t = projection()
    s = cvxift.differentiate(problem)
    with pytest.warns(cvxift.ApplicabilityWarning, match="kink") as told:
        s.vjp({x: np.ones(2)})
    with pytest.warns(cvxift.ApplicabilityWarning, match="kink") as also:
        s.jvp({t: np.ones(2)})
    assert {warning.filename for warning in (*told, *also)} == {__file__}


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    problem, x, t = projection()
    layer = CvxpyLayer(problem, [t], [x], closed_form="never")
    theta = torch.tensor(AT_A_KINK, requires_grad=True)
    with pytest.warns(cvxift.ApplicabilityWarning, match="kink") as told:
        layer(theta)[0].sum().backward()
    assert {warning.filename for warning in told} == {__file__}


def test_jax() -> None:
    jax = pytest.importorskip("jax")
    from cvxift.jax import CvxpyLayer

    problem, x, t = projection()
    layer = CvxpyLayer(problem, [t], [x], closed_form="never")
    with pytest.warns(cvxift.ApplicabilityWarning, match="kink") as told:
        jax.grad(lambda theta: layer(theta)[0].sum())(jax.numpy.asarray(AT_A_KINK))
    assert {warning.filename for warning in told} == {__file__}


def test_called_by_the_user_at_once() -> None:
    with pytest.warns(UserWarning, match="said") as told:
        warn_user("said", UserWarning)
    assert told[0].filename == __file__
