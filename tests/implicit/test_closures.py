"""What F closes over gets the same derivative as an argument; solvers of all kinds run, once, untracked."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from cvxift.errors import ApplicabilityWarning, ProgramError

torch = pytest.importorskip("torch")
from cvxift.torch import implicit  # noqa: E402  # after the skip


class Cell(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = torch.nn.Linear(4, 4).double(), torch.nn.Linear(3, 4).double()
        self.a.weight.data *= 0.3

    def forward(self, z: Any, x: Any) -> Any:
        return torch.tanh(self.a(z) + self.b(x))


def iterate(cell: Any, x: Any) -> Any:
    z = torch.zeros(x.shape[0], 4, dtype=x.dtype)
    for _ in range(80):
        z = cell(z, x)
    return z


@pytest.fixture
def x() -> Any:
    return torch.linspace(-1.0, 1.0, 15, dtype=torch.float64).reshape(5, 3)


def test_module_parameters_get_gradients(x: Any) -> None:
    cell = Cell()
    parameters = list(cell.parameters())
    closed = implicit.implicit_fixed_point(cell, lambda x: iterate(cell, x))
    grads = torch.autograd.grad(closed(x).square().sum(), parameters)
    explicit = implicit.implicit_fixed_point(
        lambda z, x, p: torch.func.functional_call(cell, p, (z, x)), lambda x, p: iterate(cell, x)
    )
    named = dict(cell.named_parameters())
    others = torch.autograd.grad(explicit(x, named).square().sum(), list(named.values()))
    unrolled = torch.autograd.grad(iterate(cell, x).square().sum(), parameters)
    for grad, other, true in zip(grads, others, unrolled):
        assert torch.equal(grad, other) and torch.allclose(grad, true, rtol=1e-11, atol=1e-12)


def test_second_order_in_module_parameters(x: Any) -> None:
    cell = Cell()
    parameters = list(cell.parameters())
    found = []
    for run in (implicit.implicit_fixed_point(cell, lambda x: iterate(cell, x)), lambda x: iterate(cell, x)):
        first = torch.autograd.grad(run(x).square().sum(), parameters, create_graph=True)
        found.append(torch.autograd.grad(sum(grad.square().sum() for grad in first), parameters))
    assert all(torch.allclose(one, other, rtol=1e-9) for one, other in zip(*found))


def test_closures_under_functorch(x: Any) -> None:
    cell = Cell()
    values = {name: p.detach() for name, p in cell.named_parameters()}

    def loss(bias: Any, implicitly: bool) -> Any:
        own = {**values, "a.bias": bias}

        def step(z: Any, x: Any) -> Any:
            return torch.func.functional_call(cell, own, (z, x))

        run = (
            implicit.implicit_fixed_point(step, lambda x: iterate(step, x))
            if implicitly
            else (lambda x: iterate(step, x))
        )
        return run(x).square().sum()

    bias = values["a.bias"]
    for transform in (torch.func.grad, torch.func.hessian, torch.func.jacfwd):
        assert torch.allclose(transform(loss)(bias, True), transform(loss)(bias, False), atol=1e-10)
    batch = torch.stack([bias, 2.0 * bias])
    mapped = torch.func.vmap(torch.func.grad(lambda b: inner(b, cell, values, x)))
    assert torch.allclose(mapped(batch)[0], torch.func.grad(loss)(bias, True), atol=1e-10)


def inner(bias: Any, cell: Any, values: Any, x: Any) -> Any:
    """F closes over a mapped tensor; the solver gets it as an argument."""

    def step(z: Any, x: Any) -> Any:
        return torch.func.functional_call(cell, {**values, "a.bias": bias}, (z, x))

    def solver(x: Any, b: Any) -> Any:
        return iterate(lambda z, x: torch.func.functional_call(cell, {**values, "a.bias": b}, (z, x)), x)

    return implicit.implicit_fixed_point(lambda z, x, b: step(z, x), solver)(x, bias).square().sum()


def test_a_tensor_that_is_no_leaf() -> None:
    p = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    w = torch.exp(p)
    solve = implicit.implicit_root(lambda x, t: w * x - t, lambda t: t / w)
    t = torch.tensor(2.0, dtype=torch.float64)
    (grad,) = torch.autograd.grad(solve(t), p)
    assert abs(float(grad) + 2.0 * np.exp(-0.5)) < 1e-12


class Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, w: Any) -> Any:
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, *bars: Any) -> Any:
        x, w = ctx.saved_tensors
        return bars[0] * w, bars[0] * x


def test_what_cannot_be_followed_is_refused() -> None:
    w = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    solve = implicit.implicit_root(lambda x, t: Hidden.apply(x, w) - t, lambda t: t / w)
    with pytest.raises(ProgramError, match=r"shape \(2,\).*Pass it as an argument"):
        solve(torch.ones(2, dtype=torch.float64))


def test_a_function_that_draws_random_numbers_is_told() -> None:
    drop = torch.nn.Dropout(0.5)
    solve = implicit.implicit_root(lambda x, t: x - 0.3 * torch.tanh(drop(x)) - t, lambda t: t / 0.85)
    t = torch.ones(4, 3, dtype=torch.float64)
    with pytest.warns(ApplicabilityWarning, match=r"draws random numbers.*eval\(\)"):
        solve(t[0])
    with pytest.raises(ProgramError, match="draws random numbers"):
        torch.func.vmap(solve)(t)


def test_a_solver_that_differentiates_inside() -> None:
    def solver(t: Any) -> Any:
        x = torch.zeros(2, dtype=t.dtype, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [x], max_iter=100, tolerance_grad=1e-13, tolerance_change=0.0, line_search_fn="strong_wolfe"
        )

        def closure() -> Any:
            optimizer.zero_grad()
            loss = (torch.cosh(x - t) + x**4).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return x

    solve = implicit.implicit_argmin(lambda x, t: (torch.cosh(x - t) + x**4).sum(), solver)
    t = torch.tensor([0.3, 1.0], dtype=torch.float64, requires_grad=True)
    x = solve(t)
    curvature = torch.cosh(x - t).detach()
    J = torch.autograd.functional.jacobian(solve, t)
    assert torch.allclose(J, torch.diag(curvature / (curvature + 12.0 * x.detach() ** 2)))


def test_forward_mode_duals_and_mapped_cotangents() -> None:
    solve = implicit.implicit_fixed_point(lambda x, t: torch.cos(x * t), lambda t: cosine(t))
    t = torch.tensor([0.3, 0.5], dtype=torch.float64, requires_grad=True)
    J = torch.autograd.functional.jacobian(solve, t)
    assert torch.allclose(torch.autograd.functional.jacobian(solve, t, vectorize=True), J)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(t.detach(), torch.ones_like(t))
        assert torch.allclose(torch.autograd.forward_ad.unpack_dual(solve(dual)).tangent, J.sum(1))
    hessian = torch.autograd.functional.hessian(lambda t: solve(t).sum(), t, vectorize=True)
    assert torch.allclose(hessian, torch.func.hessian(lambda t: solve(t).sum())(t.detach()))
    assert torch.autograd.gradcheck(solve, t, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(solve, t)


def cosine(t: Any) -> Any:
    x = torch.ones_like(t)
    for _ in range(200):
        x = torch.cos(x * t)
    return x


def test_the_graph_is_freed_without_the_collector(x: Any) -> None:
    cell = Cell()
    solve = implicit.implicit_fixed_point(cell, lambda x: iterate(cell, x))
    out = solve(x)
    out.sum().backward(retain_graph=True)
    kept = weakref.ref(out)
    system = weakref.ref(_system_of(out))
    gc.disable()
    try:
        del out
        assert kept() is None and system() is None
    finally:
        gc.enable()


def _system_of(out: Any) -> Any:
    nodes = [out.grad_fn]
    while nodes:
        node = nodes.pop()
        if hasattr(node, "system"):
            return node.system
        nodes += [following for following, _ in node.next_functions if following is not None]
    raise AssertionError("no implicit function in the graph")


def test_checkpointing_and_hooks_on_saved_tensors() -> None:
    solve = implicit.implicit_argmin(
        lambda x, t: (x * x * x * x).sum() / 4.0 - (x * t).sum(), lambda t: t ** (1.0 / 3.0)
    )
    t = torch.tensor([1.0, 8.0], dtype=torch.float64, requires_grad=True)
    plain, checkpointed = (
        torch.autograd.grad(out.square().sum(), t)[0]
        for out in (solve(2.0 * t), torch.utils.checkpoint.checkpoint(lambda t: solve(2.0 * t), t, use_reentrant=False))
    )
    assert torch.equal(plain, checkpointed)


def test_a_tracked_answer_is_detached() -> None:
    w = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    solve = implicit.implicit_root(lambda x, t: x - t, lambda t: t * w / w)
    t = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    dt, dw = torch.autograd.grad(solve(t), (t, w), allow_unused=True)
    assert float(dt) == 1.0 and dw is None
