"""Values lie in the sets that variables declare: bounds, also those of parameters, exactly; matrices semidefinite."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.kkt.backend import Arrays
from cvxift.kkt.batch.device import DeviceMap
from cvxift.kkt.solution_map import SolutionMap

LOW, HIGH = np.array([-0.1, -0.7, 0.2]), np.array([0.3, -0.2, 0.9])
WAYS = ["parameters", "expressions", "one side", "scalar", "bounds and a sign"]

ROUNDING = 4 * np.finfo(float).eps  # of eigenvalues of matrices of size 2


def bounded(way: str) -> tuple[cp.Variable, list[cp.Parameter], np.ndarray, np.ndarray]:
    """A variable of three entries with parametric bounds, its parameters, and the bounds' values."""
    low, high = cp.Parameter(3, name="low", value=LOW), cp.Parameter(3, name="high", value=HIGH)
    if way == "parameters":
        return cp.Variable(3, bounds=[low, high]), [low, high], LOW, HIGH
    if way == "expressions":
        both = [2 * low - 0.1, high + low[::-1] + 1.0]
        return cp.Variable(3, bounds=both), [low, high], 2 * LOW - 0.1, HIGH + LOW[::-1] + 1.0
    if way == "one side":
        return cp.Variable(3, bounds=[low, 0.9]), [low], LOW, np.full(3, 0.9)
    if way == "scalar":
        t = cp.Parameter(name="t", value=1 / 3)
        return cp.Variable(3, bounds=[-t, t]), [t], np.full(3, -1 / 3), np.full(3, 1 / 3)
    return cp.Variable(3, nonneg=True, bounds=[low, 0.9]), [low], np.maximum(LOW, 0.0), np.full(3, 0.9)


@pytest.mark.parametrize("solver", [None, "osqp", "scs", "clarabel"])
@pytest.mark.parametrize("way", WAYS)
def test_parametric_bounds_hold_exactly(way, solver):
    x, parameters, low, high = bounded(way)
    c = cp.Parameter(3, name="c", value=np.array([-1.0, 1.0, 0.5]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c) + 0.1 * cp.square(cp.sum(x))))
    s = cvxift.differentiate(problem, solver=solver, check="off")
    for value in (s.value(x), x.value):
        assert (value >= low).all() and (value <= high).all()
    assert (np.minimum(s.value(x) - low, high - s.value(x)) < 1e-8).any()  # the bounds are what is tested
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    layer = CvxpyLayer(problem, [c, *parameters], [x], check="off", **({} if solver is None else {"solver": solver}))
    one = [torch.tensor(p.value, dtype=torch.float64) for p in (c, *parameters)]
    moved = [torch.stack([one[0], -one[0]]), *(torch.stack([t, t]) for t in one[1:])]
    for value in (layer(*one)[0].numpy()[None], layer(*moved)[0].numpy()):
        assert (value >= low).all() and (value <= high).all()


def test_bounds_of_each_instance_hold_on_arrays_of_a_device():
    low, c = cp.Parameter(3, name="low"), cp.Parameter(3, name="c")
    x = cp.Variable(3, bounds=[low, 2.0])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c) + cp.square(cp.sum(x))))
    mapping = SolutionMap(problem, [c, low], [x])  # not the order of the program's own θ
    there = DeviceMap(mapping, Arrays(np))
    rng = np.random.default_rng(0)
    theta = np.concatenate([rng.normal(size=(20, 3)), rng.uniform(-0.4, 0.4, (20, 3))], axis=1)
    for outputs in (there.solve(theta).outputs, mapping.solve(theta).outputs):
        assert (outputs >= theta[:, 3:]).all()
        assert np.count_nonzero(outputs - theta[:, 3:] < 1e-9) > 10


@pytest.mark.parametrize("attribute", ["PSD", "NSD"])
@pytest.mark.parametrize("eigenvalues", [[2.0, -1.0, -1.0], [1.0, 0.0, 0.0], [-1.0, -2.0, -0.5], [1.0, 2.0, 3.0]])
def test_semidefinite_variables_have_no_eigenvalue_of_the_wrong_sign(attribute, eigenvalues):
    Q = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    C = cp.Parameter((3, 3), symmetric=True, value=(Q * np.array(eigenvalues)) @ Q.T)
    X, sign = cp.Variable((3, 3), **{attribute: True}), 1.0 if attribute == "PSD" else -1.0
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)))
    nearest = (Q * (sign * np.maximum(sign * np.array(eigenvalues), 0.0))) @ Q.T
    value = cvxift.differentiate(problem, check="off").value(X)
    mapping = SolutionMap(problem, [C], [X], check="off")
    theta = np.stack([C.value.ravel(), 2.0 * C.value.ravel()])
    batch = mapping.solve(theta).outputs.reshape(2, 3, 3)
    device = DeviceMap(mapping, Arrays(np)).solve(theta).outputs.reshape(2, 3, 3)
    for found, times in ((value, 1.0), *zip(batch, (1.0, 2.0)), *zip(device, (1.0, 2.0))):
        np.testing.assert_array_equal(found, found.T)
        assert (
            np.linalg.eigvalsh(sign * found).min() >= -4 * np.finfo(float).eps
        )  # of the eigenvalues of a matrix of this size
        np.testing.assert_allclose(found, times * nearest, rtol=0, atol=1e-8)


def test_an_instance_that_failed_leaves_the_others_semidefinite():
    X, C = cp.Variable((2, 2), PSD=True), cp.Parameter((2, 2), symmetric=True)
    t = cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X[0, 0] >= t, cp.trace(X) <= 1])
    mapping = SolutionMap(problem, [C, t], [X], on_failure="nan", check="off")
    with pytest.warns(cvxift.ApplicabilityWarning, match="exclude each other"):
        out = mapping.solve(np.array([[1.0, 0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, -1.0, 2.0]])).outputs
    assert np.isnan(out[1]).all()
    assert (
        np.linalg.eigvalsh(out[0].reshape(2, 2)).min() >= -4 * np.finfo(float).eps
    )  # of the eigenvalues of a matrix of this size
