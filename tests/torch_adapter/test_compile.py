"""`torch.compile`, `torch.export` and fake tensors: the layer is one operator in the traced graph."""

from __future__ import annotations

import copy
import gc
import shutil

import cvxpy as cp
import pytest

torch = pytest.importorskip("torch")

from torch.func import grad, vmap  # noqa: E402
from torch_layers import (  # noqa: E402
    CASES,
    Case,
    close,
    double,
    failing_layer,
    flat,
    qp_layer,
    qp_tensors,
    requires_grad,
    row,
)

from cvxift import ProgramError, SolveError  # noqa: E402
from cvxift.torch import CvxpyLayer, operators  # noqa: E402
from cvxift.torch.function import packed  # noqa: E402

compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(compiler is None, reason="inductor needs a C++ compiler")


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()


def both(layer, tensors):
    """Outputs, and gradients of a function of all of them."""
    leaves = requires_grad(tensors)
    outputs = layer(*leaves)
    loss = sum((out.sin() * (1.0 + k)).sum() for k, out in enumerate(outputs))
    return [*outputs, *torch.autograd.grad(loss, leaves)]


def same(left, right, tolerance=1e-12):
    for a, b in zip(left, right, strict=True):
        close(a.detach(), b.detach(), tolerance)


@pytest.mark.parametrize("name", CASES)
def test_one_graph_forward_and_backward(name):
    c = Case(name)
    same(both(torch.compile(c.layer, fullgraph=True, backend="aot_eager"), c.tensors), both(c.layer, c.tensors))


@needs_compiler
def test_inductor_with_the_operations_around_it():
    c = Case("quadratic")

    def model(*tensors):
        x, dual = c.layer(tensors[0], 2.0 * tensors[1].tanh(), *tensors[2:])
        return x.square().sum() + dual.exp().sum(), x

    compiled = torch.compile(model, fullgraph=True, backend="inductor")
    same(both(compiled, c.tensors), both(model, c.tensors))
    with torch.no_grad():
        same(compiled(*c.tensors), model(*c.tensors))


def test_batch_shapes_that_change():
    layer = qp_layer()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in ((), (2,), (5,), (3, 2)):
        tensors = qp_tensors(batch)
        tensors[0] = qp_tensors()[0]  # shared by the batch
        same(both(compiled, tensors), both(layer, tensors), 1e-10)


def test_layers_of_one_shape_are_told_apart():
    x, target = cp.Variable(2), cp.Parameter(2)

    def layer(bound):
        return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - target)), [x <= bound]), [target], [x])

    @torch.compile(fullgraph=True, backend="aot_eager")
    def apply(layer, t):
        return layer(t)[0]

    t = row(0.5, 3.0)
    close(apply(layer(1.0), t), row(0.5, 1.0), 1e-9)
    close(apply(layer(2.0), t), row(0.5, 2.0), 1e-9)
    first = layer(1.0)
    close(apply(first, t), row(0.5, 1.0), 1e-9)
    close(apply(copy.deepcopy(first), 2 * t), row(1.0, 1.0), 1e-9)


def test_options_and_warm_start_of_a_call():
    layer = qp_layer(solver="SCS")

    @torch.compile(fullgraph=True, backend="aot_eager")
    def apply(*tensors):
        return layer(*tensors, solver_args={"eps_abs": 1e-6, "max_iters": 20000}, warm_start=True)

    tensors = qp_tensors()
    same(apply(*tensors), layer(*tensors), 1e-8)
    with pytest.raises(ProgramError, match="nonsense"):
        operators.solve(flat(tensors), layer._key, "((('nonsense', 1),), False)")


def test_transforms_inside_a_compiled_function():
    c = Case("ball")
    (point,) = c.tensors
    batch = torch.stack([point, 1.1 * point, 0.9 * point])
    mapped = torch.compile(vmap(lambda p: c.layer(p)[0]), fullgraph=True, backend="aot_eager")
    close(mapped(batch), c.layer(batch)[0], 1e-12)
    nested = torch.compile(lambda p: vmap(vmap(c.loss))(p[:, None]), fullgraph=True, backend="aot_eager")
    close(nested(batch)[:, 0], vmap(c.loss)(batch), 1e-12)
    # PyTorch's tracer has no rule for gradients of registered operators inside the graph, and says so.
    with pytest.raises(RuntimeError, match="functorch transforms"):
        torch.compile(grad(c.loss), backend="aot_eager")(point)


def test_autocast_and_inference():
    c = Case("quadratic")
    compiled = torch.compile(c.layer, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        same(compiled(*c.tensors), c.layer(*c.tensors))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = [t.bfloat16() for t in c.tensors]
        assert compiled(*half)[0].dtype == c.layer(*half)[0].dtype == torch.float32


def test_the_operators_keep_their_contract():
    layer = qp_layer(3, 2, 1)
    theta = packed(layer.core, qp_tensors((2,), 3, 2, 1)).requires_grad_()
    bar = torch.ones(2, layer.core.map.output_size, dtype=double, requires_grad=True)
    none, dots = theta.new_zeros(0), torch.ones_like(theta).detach()[None].requires_grad_()
    no_dots = dots[:0].detach()
    options = "((), False)"

    def adjoint(theta, bar):
        return operators.form(theta, no_dots, bar, True, layer._key, options)

    torch.library.opcheck(operators.solve, (theta, layer._key, options))
    torch.library.opcheck(operators.form, (theta, no_dots, bar, True, layer._key, options))
    torch.library.opcheck(operators.form, (theta, dots, none, False, layer._key, options))
    torch.library.opcheck(operators.form, (theta, dots, bar, True, layer._key, options))
    assert torch.autograd.gradgradcheck(lambda t: operators.solve(t, layer._key, options), (theta,), fast_mode=True)
    assert torch.autograd.gradgradcheck(adjoint, (theta, bar), fast_mode=True)


def test_bad_input_keeps_its_words():
    layer, tensors = qp_layer(), qp_tensors()
    compiled = torch.compile(layer, backend="aot_eager")
    wrong = [*tensors[:2], tensors[2].T, *tensors[3:]]
    with pytest.raises(Exception, match=r"'G' has shape \(4, 3\); expected \(3, 4\)"):
        compiled(*wrong)
    with pytest.raises(Exception, match=r"'q' has dtype torch\.int64"):
        compiled(tensors[0], tensors[1].long(), *tensors[2:])
    tensors[1][0] = float("nan")
    with pytest.raises(ProgramError, match="'q' has the value nan"):
        compiled(*tensors)
    torch._dynamo.reset()  # after an exception, PyTorch leaves the code that raised to eager mode
    with pytest.raises(SolveError, match=r"\(1,\).*infeasible"):
        torch.compile(failing_layer(), backend="aot_eager", fullgraph=True)(
            torch.zeros(3, 2, dtype=double), row(0.0, 2.0, 0.5)
        )


def test_a_layer_that_is_gone_is_named():
    layer, tensors = qp_layer(), qp_tensors()
    key = layer._key
    del layer
    gc.collect()
    with pytest.raises(ProgramError, match="does not exist in this process"):
        operators.solve(flat(tensors), key, "((), False)")


def test_export():
    c = Case("ball")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = c.layer
            self.scale = torch.nn.Parameter(row(1.0, 2.0, 3.0))

        def forward(self, point):
            return self.layer(self.scale * point)[0]

    model = Model()
    exported = torch.export.export(model, tuple(c.tensors)).module()
    close(exported(*c.tensors).detach(), model(*c.tensors).detach(), 1e-12)


class TestFakeTensors:
    """Shapes without values."""

    def test_meta(self):
        layer = qp_layer()
        leaves = [t.to("meta").requires_grad_() for t in qp_tensors((5,))]
        x, dual = layer(*leaves)
        assert x.shape == (5, 4) and dual.shape == (5, 3) and x.is_meta and x.dtype == double
        (x.sum() + dual.sum()).backward()
        assert leaves[0].grad.shape == (5, 4, 4) and leaves[0].grad.is_meta
        with pytest.raises(ProgramError, match="'q' has shape"):
            layer(leaves[0], leaves[1][:, 1:], *leaves[2:])

    def test_fake(self):
        from torch._subclasses.fake_tensor import FakeTensorMode

        layer = qp_layer()
        with FakeTensorMode() as mode:
            x, _ = layer(*(mode.from_tensor(t) for t in qp_tensors((2,))))
        assert x.shape == (2, 4) and x.device.type == "cpu"
