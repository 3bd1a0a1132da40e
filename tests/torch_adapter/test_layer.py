"""The PyTorch layer: cvxpylayers' conventions, gradients against finite differences, behaviour as a module."""

from __future__ import annotations

import copy
import pickle
import warnings

import cvxpy as cp
import pytest

torch = pytest.importorskip("torch")

from torch_layers import double, geometric_layer, qp_layer, qp_tensors, requires_grad  # noqa: E402

from cvxift import ApplicabilityWarning  # noqa: E402
from cvxift.torch import CvxpyLayer  # noqa: E402


def test_gradcheck_and_gradgradcheck_of_a_batch_with_shared_parameters():
    layer = qp_layer()
    tensors = qp_tensors((2, 3))
    tensors[0] = tensors[0][0, 0]
    tensors[2] = tensors[2][:, :1]
    tensors[3] = tensors[3] + 5.0  # the shared G makes other rows tight; keep the active sets apart from their kinks
    tensors = requires_grad(tensors)
    x, dual = layer(*tensors)
    assert x.shape == (2, 3, 4) and dual.shape == (2, 3, 3)
    assert torch.autograd.gradcheck(layer, tensors)
    assert torch.autograd.gradgradcheck(layer, tensors)


def test_a_batch_is_its_instances():
    layer, batch = qp_layer(), qp_tensors((5,))
    together = requires_grad(batch)
    x, dual = layer(*together)
    (x.square().sum() + dual.sum()).backward()
    for i in range(5):
        alone = requires_grad([t[i] for t in batch])
        xi, di = layer(*alone)
        (xi.square().sum() + di.sum()).backward()
        torch.testing.assert_close(x[i], xi, atol=1e-12, rtol=0)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a.grad[i], b.grad, atol=1e-9, rtol=1e-9)


def test_agrees_with_cvxpylayers():
    peer = pytest.importorskip("cvxpylayers.torch").CvxpyLayer
    x, A, b = cp.Variable(3), cp.Parameter((6, 3)), cp.Parameter(6)
    constraint = x >= 0.05
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + cp.norm1(x)), [constraint])
    g = torch.Generator().manual_seed(0)
    values = [torch.randn(6, 3, generator=g, dtype=double), torch.randn(6, generator=g, dtype=double)]
    outputs = [x, constraint.dual_variables[0]]
    results = []
    # The peer states ‖r‖² as a cone, so its x is only as good as the square root of the solver's tolerance.
    tight = {"solve_method": "Clarabel", "tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13}
    for make in (CvxpyLayer, lambda *a: peer(*a, solver_args=tight)):
        tensors = requires_grad(values)
        primal, dual = make(problem, [A, b], outputs)(*tensors)
        (primal.sum() + 0.1 * dual.sum()).backward()
        results.append([primal.detach(), dual.detach(), *(t.grad for t in tensors)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("arguments", [
    {"solver_args": {"solve_method": "SCS", "eps": 1e-7, "max_iters": 20000}},
    {"solver_args": {"solve_method": "Clarabel"}},
    {"solver": "DIFFCP", "solver_args": {"eps": 1e-8, "max_iters": 10000, "acceleration_lookback": 0}},
    {"solver": "CLARABEL"}, {"solver": "SCS"}, {"solver": "OSQP"},
    {"solver": "PIQP"}, {"solver": "DAQP"}, {"solver": "HIGHS"},
])  # fmt: skip
def test_every_solver_gives_the_same_result_and_gradient(arguments):
    tensors, reference = requires_grad(qp_tensors()), requires_grad(qp_tensors())
    for layer, inputs in ((qp_layer(**arguments), tensors), (qp_layer(), reference)):
        x, dual = layer(*inputs)
        (x.sum() + dual.square().sum()).backward()
    for a, b in zip(tensors, reference, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-8, rtol=1e-8)


def test_geometric_program():
    layer, values = geometric_layer(), [torch.tensor(v, dtype=double) for v in (2.0, 1.0, 0.5)]
    torch.testing.assert_close(
        torch.stack(layer(*values)), torch.tensor([0.561, 0.315, 0.368], dtype=double), atol=1e-3, rtol=0
    )
    batch = [v.expand(3) * torch.tensor([1.0, 1.1, 0.9], dtype=double) for v in values]
    assert torch.autograd.gradcheck(layer, requires_grad(batch))


def test_float32_in_float32_out_solved_in_float64():
    single = [t.float().requires_grad_() for t in qp_tensors()]
    wide = requires_grad([t.detach().double() for t in single])
    x, dual = qp_layer()(*single)
    x64, _ = qp_layer()(*wide)
    assert x.dtype == dual.dtype == torch.float32
    torch.testing.assert_close(x, x64.float(), atol=0, rtol=0)
    x.sum().backward()
    x64.sum().backward()
    torch.testing.assert_close(single[0].grad, wide[0].grad.float(), atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    tensors = [t.to(dtype).requires_grad_() for t in qp_tensors()]
    x, _ = qp_layer()(*tensors)
    x.sum().backward()
    assert x.dtype == tensors[0].grad.dtype == dtype


def test_module_behaviour():
    layer, tensors = qp_layer(), qp_tensors()
    expected = layer(*tensors)[0]
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer.to(torch.float32)):
        torch.testing.assert_close(twin(*tensors)[0], expected, atol=1e-12, rtol=0)
    assert layer.state_dict() == {} and not list(layer.parameters())
    layer.load_state_dict({})
    nested = torch.nn.ModuleList([layer]).eval()
    with torch.no_grad():
        assert not nested[0](*requires_grad(tensors))[0].requires_grad
    model = copy.deepcopy(nested)
    torch.testing.assert_close(model[0](*tensors)[0], expected, atol=1e-12, rtol=0)


def test_no_parameters():
    x = cp.Variable(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - 1))), [], [x])
    (value,) = layer()
    torch.testing.assert_close(value, torch.ones(2), atol=1e-6, rtol=0)


def test_symmetric_parameter_and_variable():
    n = 3
    S, X = cp.Parameter((n, n), symmetric=True), cp.Variable((n, n), symmetric=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - S)), [X >> 0]), [S], [X])
    root = torch.randn(n, n, generator=torch.Generator().manual_seed(1), dtype=double, requires_grad=True)

    def symmetrized(r):
        return layer(r + r.T)[0]

    assert torch.autograd.gradcheck(symmetrized, (root,))
    values, vectors = torch.linalg.eigh((root + root.T).detach())
    closed = vectors @ torch.diag(values.clamp(min=0)) @ vectors.T
    torch.testing.assert_close(symmetrized(root).detach(), closed, atol=1e-9, rtol=0)


def test_warm_start_gives_the_same_solution():
    layer = qp_layer()
    first = qp_tensors()
    layer(*first)
    moved = [t + 0.01 for t in first]
    torch.testing.assert_close(layer(*moved, warm_start=True)[0], layer(*moved)[0], atol=1e-11, rtol=0)
    batch = qp_tensors((3,))
    torch.testing.assert_close(layer(*batch, warm_start=True)[0], layer(*batch, warm_start=True)[0], atol=1e-11, rtol=0)


class TestPolicies:
    """Where the solution map has no derivative, the policy decides, and says so."""

    def linear_program(self, **options):
        x, c = cp.Variable(3), cp.Parameter(3)
        return CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == 1, x >= 0]), [c], [x], **options)

    def flat(self, **options):
        x, c = cp.Variable(2), cp.Parameter(2)
        return CvxpyLayer(
            cp.Problem(cp.Minimize(cp.square(x[0] - c[0]) + 0 * c[1]), [x[1] <= 1, x[1] >= -1]), [c], [x], **options
        )

    def test_unique_vertex_has_zero_derivative_without_a_warning(self):
        c = torch.tensor([1.0, 0.2, 0.9], dtype=double, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (x,) = self.linear_program()(c)
            x[1].backward()
        torch.testing.assert_close(c.grad, torch.zeros(3, dtype=double))

    def test_flat_direction_warns_or_raises(self):
        from cvxift import ApplicabilityError

        c = torch.tensor([0.3, 0.0], dtype=double, requires_grad=True)
        with pytest.warns(ApplicabilityWarning, match="move along a flat direction"):
            self.flat()(c)[0][1].backward()
        with pytest.raises(ApplicabilityError, match="singular"):
            self.flat(singular="raise")(c)[0][1].backward()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            c.grad = None
            self.flat()(c)[0][0].backward()  # the other entry is perfectly defined
        torch.testing.assert_close(c.grad, torch.tensor([1.0, 0.0], dtype=double), atol=1e-8, rtol=0)

    def test_regularize_is_close_where_the_derivative_exists(self):
        exact, close = requires_grad(qp_tensors()), requires_grad(qp_tensors())
        qp_layer()(*exact)[0].sum().backward()
        qp_layer(singular="regularize")(*close)[0].sum().backward()
        torch.testing.assert_close(exact[1].grad, close[1].grad, atol=1e-4, rtol=1e-4)

    def test_iterative_agrees_with_direct_and_reports_its_stop(self):
        from cvxift import Iterative

        exact, close = requires_grad(qp_tensors()), requires_grad(qp_tensors())
        qp_layer()(*exact)[0].sum().backward()
        layer = qp_layer(linear_solver="iterative")
        layer(*close)[0].sum().backward()
        for a, b in zip(exact, close, strict=True):
            torch.testing.assert_close(a.grad, b.grad, atol=1e-8, rtol=1e-8)
        short = qp_layer(linear_solver=Iterative(max_iterations=2))
        x, _ = short(*requires_grad(qp_tensors()))
        with pytest.warns(ApplicabilityWarning, match="LSMR"):
            x.sum().backward()
