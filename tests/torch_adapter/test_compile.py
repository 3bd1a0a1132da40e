"""`torch.compile`, `torch.export` and fake tensors: layers and kernels of closed forms are operators in the graph."""

from __future__ import annotations

import copy
import gc
import shutil

import cvxpy as cp
import pytest

torch = pytest.importorskip("torch")

from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402
from torch.func import grad, hessian, jacrev, vmap  # noqa: E402
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
from cvxift import torch as ct  # noqa: E402
from cvxift.torch import CvxpyLayer, kernels, operators  # noqa: E402
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
        operators.compute(layer._key, "((('nonsense', 1),), False)", flat(tensors), (), None)


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


def test_the_operator_keeps_its_contract():
    layer = qp_layer(3, 2, 1)
    theta = packed(layer.core, qp_tensors((2,), 3, 2, 1)).requires_grad_()
    bar = torch.ones(2, layer.core.map.output_size, dtype=double, requires_grad=True)
    none, dots = theta.new_zeros(0), torch.ones_like(theta).detach()[None].requires_grad_()
    no_dots = dots[:0].detach()
    options = "((), False)"

    def adjoint(theta, bar):
        return operators.form(theta, no_dots, bar, True, layer._key, options)

    def solve(theta):
        return operators.form(theta, no_dots, none, False, layer._key, options)

    torch.library.opcheck(operators.form, (theta, no_dots, none, False, layer._key, options))
    torch.library.opcheck(operators.form, (theta, no_dots, bar, True, layer._key, options))
    torch.library.opcheck(operators.form, (theta, dots, none, False, layer._key, options))
    torch.library.opcheck(operators.form, (theta, dots, bar, True, layer._key, options))
    assert torch.autograd.gradgradcheck(solve, (theta,), fast_mode=True)
    assert torch.autograd.gradgradcheck(adjoint, (theta, bar), fast_mode=True)


def test_bad_input_keeps_its_words():
    layer, tensors = qp_layer(), qp_tensors()
    compiled = torch.compile(layer, backend="aot_eager")
    wrong = [*tensors[:2], tensors[2].T, *tensors[3:]]
    with pytest.raises(Exception, match=r"'G' has shape \(4, 3\); expected \(3, 4\)"):
        compiled(*wrong)
    with pytest.raises(Exception, match=r"'q' has dtype torch\.int64"):
        compiled(tensors[0], tensors[1].long(), *tensors[2:])
    for some in (tensors[:-1], [*tensors, tensors[-1]]):
        with pytest.raises(Exception, match=f"got {len(some)}, expected {len(tensors)}"):
            compiled(*some)
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
        operators.compute(key, "((), False)", flat(tensors), (), None)


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


PAIRWISE, LABELS, PLAN = torch.linspace(-1, 1, 9).reshape(3, 3).double(), torch.tensor([0, 2, 1, 1]), torch.eye(3) / 3


def chain_of(x: torch.Tensor) -> torch.Tensor:
    """State and transition marginals side by side."""
    states, pairs = ct.linear_chain(x, PAIRWISE.to(x))
    return torch.cat([states.flatten(-2), pairs.flatten(-3)], -1)


def of_lengths(x: torch.Tensor) -> torch.Tensor:
    return ct.linear_chain(x, PAIRWISE.to(x), lengths=2 + torch.arange(x.shape[0], device=x.device) % 3)[0]


MAPS = {  # closed forms, and the shape of one point
    "transport": (lambda x: ct.transport(x, temperature=0.5), (3, 4)),
    "quadratic transport": (lambda x: ct.transport(x, temperature=6.0, regularizer="quadratic"), (4, 3)),
    "transport loss": (lambda x: ct.transport_loss(x, PLAN.to(x).expand_as(x)), (3, 3)),
    "soft rank": (lambda x: ct.soft_rank(x, 0.5), (6,)),
    "soft sort": (lambda x: ct.soft_sort(x, 0.5, "entropic"), (6,)),
    "rank loss": (lambda x: ct.rank_loss(x, torch.arange(1.0, 7.0).to(x).expand_as(x)), (6,)),
    "chain": (chain_of, (4, 3)),
    "chain, log Z": (lambda x: ct.linear_chain(x, PAIRWISE.to(x), log_partition=True), (4, 3)),
    "chain, lengths": (of_lengths, (4, 3)),
    "chain loss": (lambda x: ct.linear_chain_loss(x, PAIRWISE.to(x), LABELS.to(x.device).expand(x.shape[:-1])), (4, 3)),
    "entmax": (lambda x: ct.entmax(x, 1.3), (6,)),
    "entmax loss": (lambda x: ct.fenchel_young_loss(x, torch.ones_like(x) / 6), (6,)),
    "budget": (lambda x: ct.budget(x, 2.0), (6,)),
}
STRUCTURED = ["transport", "soft rank", "chain"]  # one of each kernel whose second derivatives are operators too
SIZES = (*STRUCTURED, "entmax", "chain, lengths", "chain loss", "budget")  # whose graphs hold the batch's size


def points(shape: tuple[int, ...], batch: int, dtype: torch.dtype = double) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *shape, generator=generator, dtype=double).to(dtype).requires_grad_()


@needs_compiler
def test_inductor_with_the_operations_around_them():
    """The layer and each kind of kernel between loops that are compiled: each loop is a program for a C++ compiler."""
    c = Case("quadratic")

    def model(x, scores, *tensors):
        (z, dual), plan = (
            c.layer(tensors[0], 2.0 * tensors[1].tanh(), *tensors[2:]),
            ct.transport(x.tanh(), temperature=0.5),
        )
        states, pairs = ct.linear_chain(scores.sin(), PAIRWISE)
        ranks = ct.soft_rank(2.0 * scores)
        total = (
            z.square().sum() + dual.exp().sum() + plan.square().sum() + (ranks * states.exp()).sum() + pairs.exp().sum()
        )
        return total, z

    tensors = [points((4, 3), 2), points((5, 3), 2), *c.tensors]
    with torch._inductor.config.patch(compile_threads=1):  # no processes to compile in, each of which imports PyTorch
        compiled = torch.compile(model, fullgraph=True, backend="inductor")
        same(both(compiled, tensors), both(model, tensors))
        with torch.no_grad():
            same(compiled(*tensors), model(*tensors))


class TestClosedForms:
    """One graph, the same values and derivatives as without."""

    @pytest.mark.parametrize("name", MAPS)
    def test_values_and_gradients_at_any_batch_size(self, name):
        function, shape = MAPS[name]
        counter = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(function, fullgraph=True, backend=counter)
        for batch in (2, 3, 5) if name in SIZES else (2,):
            x = points(shape, batch)
            ours, theirs = compiled(x), function(x)
            slopes = [torch.autograd.grad(z.sin().sum(), x)[0] for z in (ours, theirs)]
            same([ours, slopes[0]], [theirs, slopes[1]])
            assert slopes[0].abs().max() > 1e-3
        assert counter.frame_count <= 2  # one for the first size, one for all others
        if name in (*STRUCTURED, "entmax"):
            low = points(shape, 4, torch.float32)
            z = compiled(low)
            assert z.dtype is torch.float32
            expected = function(low)
            # Eager soft ranks are one call of NumPy's, which adds in another order.
            tolerance = 4 * torch.finfo(torch.float32).eps if name == "soft rank" else 0
            found = [z, *torch.autograd.grad(z.sum(), low)]
            same(found, [expected, *torch.autograd.grad(expected.sum(), low)], tolerance)

    @pytest.mark.parametrize("name", STRUCTURED)
    def test_second_derivatives(self, name):
        """In the graph itself; and behind it, with the backend that leaves derivatives to eager mode."""
        function, shape = MAPS[name]
        x = points(shape, 2)

        def value(x):
            return function(x).sin().sum()

        expected = jacrev(jacrev(value))(x.detach())
        found = torch.compile(jacrev(jacrev(value)), fullgraph=True, backend="aot_eager")(x.detach())
        same([found], [expected])
        torch._dynamo.reset()
        out = torch.compile(value, fullgraph=True, backend="eager")(x)
        (slope,) = torch.autograd.grad(out, x, create_graph=True)
        (row,) = torch.autograd.grad(slope.sum(), x)
        same([row], [expected.sum(tuple(range(x.ndim)))])

    @pytest.mark.parametrize("name", ["transport loss", "soft rank", "chain loss", "entmax loss"])
    def test_vmap_and_forward_mode_inside(self, name):
        function, shape = MAPS[name]
        x = points(shape, 2).detach()
        same([torch.compile(vmap(function), fullgraph=True, backend="aot_eager")(x)], [function(x)])

        def value(x):
            return function(x).sin().sum()

        same([torch.compile(hessian(value), fullgraph=True, backend="aot_eager")(x)], [hessian(value)(x)])

    def test_a_long_chain_makes_no_longer_graph(self):
        nodes = []

        def counted(graph, inputs):
            nodes.append(len(graph.graph.nodes))
            return graph

        from torch._dynamo.backends.common import aot_autograd

        for length in (5, 500):
            torch._dynamo.reset()
            compiled = torch.compile(chain_of, fullgraph=True, backend=aot_autograd(fw_compiler=counted), dynamic=False)
            x = points((length, 3), 2)
            same(torch.autograd.grad(compiled(x).sin().sum(), x), torch.autograd.grad(chain_of(x).sin().sum(), x))
        assert nodes[0] == nodes[2] and nodes[1] == nodes[3]

    def test_masses_temperatures_and_paths(self):
        def model(x, a, b, t):
            return ct.transport(x, a / a.sum(-1, keepdim=True), b.softmax(-1), t, "quadratic")

        tensors = [points((3, 4), 2), torch.rand(2, 3, dtype=double).requires_grad_(), points((4,), 1), row(0.7)]
        tensors[-1].requires_grad_()

        def both(function):
            out = function(*tensors)
            return [out, *torch.autograd.grad(out.square().sum(), tensors)]

        same(both(torch.compile(model, fullgraph=True, backend="aot_eager")), both(model))
        x = points((6, 3), 4).detach()
        path, score = torch.compile(ct.viterbi, fullgraph=True, backend="aot_eager")(x, PAIRWISE)
        assert (path == ct.viterbi(x, PAIRWISE)[0]).all()
        same([score], [ct.viterbi(x, PAIRWISE)[1]])

    def test_an_order_that_changes(self):
        compiled = torch.compile(ct.entmax, fullgraph=True, backend="aot_eager")
        x = points((6,), 2)
        for alpha in (1.2, 1.7, 2.0, 3.0):
            same([compiled(x, alpha)], [ct.entmax(x, alpha)])

    def test_bad_values_are_refused_when_the_graph_runs(self):
        x = torch.zeros(2, 3, 3)
        x[1, 0, 2] = float("nan")
        for function, words in (
            (ct.transport, r"score nan at \(1, 0, 2\)"),
            (ct.soft_sort, "score nan"),
            (lambda x: ct.linear_chain(x, PAIRWISE.float()), r"score nan at \(1, 0, 2\)"),
        ):
            torch._dynamo.reset()
            with pytest.raises(ProgramError, match=words):
                torch.compile(function, fullgraph=True, backend="aot_eager")(x)
        torch._dynamo.reset()
        with pytest.raises(SolveError, match="after 2 iterations"):
            torch.compile(lambda x: ct.transport(30 * x, max_iterations=2), fullgraph=True, backend="aot_eager")(
                points((8, 8), 2).detach()
            )

    def test_export(self):
        class Model(torch.nn.Module):
            def forward(self, x):
                return ct.soft_rank(ct.transport(x).sum(-2) + ct.linear_chain(x, PAIRWISE)[0].amax(-2))

        x = points((4, 3), 2).detach()
        same([torch.export.export(Model(), (x,)).module()(x)], [Model()(x)])

    def test_meta(self):
        for function, shape in MAPS.values():
            x = points(shape, 3)
            z = function(x)
            fake = x.detach().to("meta").requires_grad_()
            out = function(fake)
            out.sum().backward()
            assert out.is_meta and out.shape == z.shape and out.dtype == z.dtype and fake.grad.shape == x.shape

    def test_the_operator_keeps_its_contract(self):
        x = points((4, 3), 2).detach()
        mass = [torch.full((2, n), 1 / n, dtype=double) for n in (4, 3)]
        torch.library.opcheck(kernels.operator, ("transport", [x, *mass], "('entropic', None, 50)"))
        e, real = PAIRWISE.expand(2, 3, 3, 3), torch.ones(2, 4, dtype=torch.bool)
        for kernel in ("log partition", "marginals", "viterbi"):
            torch.library.opcheck(kernels.operator, (kernel, [x, e, real], "()"))
        torch.library.opcheck(kernels.operator, ("chain derivative", [x, e, real, x, e], "()"))
        s, w = x.sort(descending=True)[0], torch.arange(3.0, 0.0, -1.0, dtype=double).expand(2, 4, 3)
        torch.library.opcheck(kernels.operator, ("blocks", [s, w], "('quadratic',)"))
        torch.library.opcheck(kernels.operator, ("entmax", [x], "(1.5,)"))
        torch.library.opcheck(kernels.operator, ("entmax", [x, x[..., :1].abs() + 1], "()"))
        for kernel in ("sides", "caps"):
            bounds = (torch.ones_like(x[..., :1]), torch.zeros_like(x), torch.ones_like(x))
            torch.library.opcheck(kernels.operator, (kernel, [x, *bounds], "()"))
