"""Layers of cvxpylayers taken over, and tensors as that package and PyTorch's users have them."""

import warnings

import cvxpy as cp
import numpy as np
import pytest

import cvxift.torch
from cvxift.errors import ProgramError

torch = pytest.importorskip("torch")


def both(problem, parameters, variables, *values, **options):
    """Values and gradients of cvxpylayers' layer and of the one made from it."""
    peer = pytest.importorskip("cvxpylayers.torch")
    theirs = peer.CvxpyLayer(problem, parameters, variables, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = cvxift.torch.from_cvxpylayers(theirs)
    found = []
    for layer in (theirs, ours):
        tensors = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]
        outputs = layer(*tensors)
        sum(output.square().sum() for output in outputs).backward()
        found.append(([output.detach() for output in outputs], [tensor.grad for tensor in tensors]))
    return found, ours


def close(found, tolerance=1e-4):
    for one, two in zip(*found, strict=True):
        for theirs, ours in zip(one, two, strict=True):
            assert torch.allclose(theirs, ours, atol=tolerance)


def test_a_layer_is_taken_over_with_its_parameters_in_order_duals_and_options():
    x, t, w = cp.Variable(3), cp.Parameter(3), cp.Parameter(nonneg=True)
    total = cp.sum(x) == 1
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t) + w * cp.norm1(x)), [total, x >= 0])
    outputs = [x, total.dual_variables[0]]
    found, ours = both(problem, [w, t], outputs, 0.3, [0.5, 0.4, -1.0], solver_args={"eps": 1e-9})
    close(found)
    assert ours.core.map.engine.first == "scs" and ours.core.map.engine.solver_args["eps_abs"] == 1e-9


def test_a_geometric_program_is_taken_over():
    x, y, a = cp.Variable(pos=True), cp.Variable(pos=True), cp.Parameter(pos=True)
    found, _ = both(cp.Problem(cp.Minimize(x + a * y), [x * y >= 8]), [a], [x, y], 2.0, gp=True)
    close(found)


def test_a_named_solver_is_taken_over():
    peer = pytest.importorskip("cvxpylayers.torch")
    pytest.importorskip("moreau")
    x, t = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.norm(x - t)), [cp.norm(x) <= 1])
    ours = cvxift.torch.from_cvxpylayers(peer.CvxpyLayer(problem, [t], [x], solver="MOREAU"))
    (found,) = ours(torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64))
    assert ours.core.map.engine.first == "moreau"
    assert torch.allclose(found, torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64) / 3, atol=1e-8)


def test_options_of_this_package_are_added():
    peer = pytest.importorskip("cvxpylayers.torch")
    x, t = cp.Variable(2), cp.Parameter(2)
    layer = peer.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0]), [t], [x])
    with pytest.raises(cvxift.ApplicabilityError):
        cvxift.torch.from_cvxpylayers(layer, check="raise")(torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("given", [None, "layer", torch.nn.Linear(1, 1)])
def test_what_is_no_layer_of_cvxpylayers_is_refused(given):
    with pytest.raises(ProgramError, match="Expected a layer of cvxpylayers"):
        cvxift.torch.from_cvxpylayers(given)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.parametrize("declared", [True, False])
def test_sparse_tensors_are_taken_and_their_gradients_have_their_pattern(layout, declared):
    where = ([0, 1, 1], [0, 0, 2])
    x = cp.Variable(3)
    A = cp.Parameter((2, 3), sparsity=where) if declared else cp.Parameter((2, 3))
    b = cp.Parameter(2)
    layer = cvxift.torch.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x)), [A @ x == b]), [A, b], [x])
    dense = torch.zeros(2, 3, dtype=torch.float64)
    dense[where] = torch.tensor([1.0, 2.0, -1.5], dtype=torch.float64)
    right = torch.tensor([1.0, 0.5], dtype=torch.float64)
    plain = dense.clone().requires_grad_()
    sparse = dense.to_sparse(layout=layout).requires_grad_()
    (expected,), (found,) = layer(plain, right), layer(sparse, right)
    assert torch.equal(expected, found)
    expected[0].backward()
    found[0].backward()
    assert sparse.grad.layout == layout or sparse.grad.layout == torch.strided
    mask = dense != 0
    assert torch.allclose(sparse.grad.to_dense()[mask], plain.grad[mask])
    assert float(np.abs(plain.grad[mask]).max()) > 1e-3


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_an_objective_of_one_entry_is_a_scalar(shape):
    # As in cvxpylayers' notebooks: a weight declared as cp.Parameter(1) makes the objective a vector of one entry.
    x, t, w = cp.Variable(2), cp.Parameter(2), cp.Parameter(shape, nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t) + w * cp.sum_squares(x)), [x >= -5])
    layer = cvxift.torch.CvxpyLayer(problem, [t, w], [x])
    point = torch.tensor([1.0, -2.0], dtype=torch.float64)
    (found,) = layer(point, torch.ones(shape, dtype=torch.float64))
    assert torch.allclose(found, point / 2, atol=1e-9)
    t.value, w.value = point.numpy(), np.ones(shape)
    s = cvxift.differentiate(problem)
    assert np.allclose(s.jacobian(x, t), np.eye(2) / 2, atol=1e-9)
    assert np.isclose(s.value(problem.objective), 2.5)
