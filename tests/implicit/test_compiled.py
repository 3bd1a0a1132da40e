"""`torch.compile` sees an implicit function as one operator, with the gradients of the function as it stands."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from cvxift.errors import ApplicabilityError, ApplicabilityWarning, SolveError

torch = pytest.importorskip("torch")
from cvxift.torch import implicit  # noqa: E402  # after the skip

T = torch.tensor([0.3, 0.5], dtype=torch.float64)


def whole(function: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(function, backend="aot_eager", fullgraph=True)


def circle(solver: Any = lambda t: torch.sqrt(1.0 - t**2), **options: Any) -> Any:
    return implicit.implicit_root(lambda x, t: t**2 + x**2 - 1.0, solver, **options)


def agree(function: Any, *arguments: Any, parameters: Any = ()) -> None:
    """Compiled and not, on two values and two shapes."""
    compiled = whole(function)
    for scale in (1.0, 0.7):
        own = [(scale * a).requires_grad_() for a in arguments]
        with warnings.catch_warnings():
            warnings.simplefilter("error", ApplicabilityWarning)
            values = [f(*own) for f in (compiled, function)]
        one, other = (torch.autograd.grad(value, [*own, *parameters]) for value in values)
        assert torch.equal(*values) and all(map(torch.equal, one, other))


def test_between_other_operators() -> None:
    solve = circle()
    agree(lambda t: (2.0 * solve(1.5 * t)).square().sum(), T)


def test_the_solver_runs_once_a_call_and_shapes_may_change() -> None:
    calls = []
    solve = circle(lambda t: calls.append(t.shape) or torch.sqrt(1.0 - t**2))
    compiled = whole(lambda t: solve(t).sum())
    for n in (2, 2, 3, 5, 7, 2):
        t = torch.linspace(0.1, 0.6, n, dtype=torch.float64, requires_grad=True)
        before = len(calls)
        value = compiled(t)
        assert calls[-1] == (n,) and len(calls) - before <= 2  # twice while tracing
        (grad,) = torch.autograd.grad(value, t)
        assert torch.allclose(grad, -t / torch.sqrt(1.0 - t**2), rtol=1e-13)
    assert len(calls) == before + 1


class Equilibrium(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = torch.nn.Linear(4, 4).double(), torch.nn.Linear(3, 4).double()
        self.a.weight.data *= 0.3
        self.solve = implicit.implicit_fixed_point(self.step, self.iterate)

    def step(self, z: Any, x: Any) -> Any:
        return torch.tanh(self.a(z) + self.b(x))

    def iterate(self, x: Any) -> Any:
        z = torch.zeros(x.shape[0], 4, dtype=x.dtype)
        for _ in range(80):
            z = self.step(z, x)
        return z

    def forward(self, x: Any) -> Any:
        return self.solve(x).square().sum()


def test_parameters_that_F_closes_over_are_trained() -> None:
    model, x = Equilibrium(), torch.linspace(-1.0, 1.0, 15, dtype=torch.float64).reshape(5, 3)
    agree(model, x, parameters=list(model.parameters()))
    compiled = whole(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):  # what is compiled sees the parameters of now
        one, other = (torch.autograd.grad(f(x), list(model.parameters())) for f in (compiled, model))
        assert all(map(torch.equal, one, other))
        for p, grad in zip(model.parameters(), one):
            p.grad = grad
        optimizer.step()


def test_frozen_parameters_get_no_gradient() -> None:
    model, x = Equilibrium(), torch.ones(2, 3, dtype=torch.float64)
    model.a.requires_grad_(False)
    agree(model, x, parameters=list(model.b.parameters()))


def test_constraints_structures_by_products_and_warm_starts() -> None:
    solve = implicit.implicit_argmin(
        lambda z, theta: (z["a"] * torch.log(z["a"])).sum() - z["a"] @ theta["t"],
        lambda theta, init=None: ({"a": torch.softmax(theta["t"], 0), "n": None}, {"steps": torch.tensor(3)}),
        equality=lambda z, theta: z["a"].sum() - 1.0,
        inequality=lambda z, theta: -z["a"],
        has_aux=True,
    )

    def loss(t: Any) -> Any:
        x, aux = solve({"t": t, "name": 3}, init=t)
        assert x["n"] is None
        return x["a"].square().sum() * aux["steps"]

    agree(loss, torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64))


def test_integers_among_parameters() -> None:
    table = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    solve = implicit.implicit_root(lambda x, t, i: x - table[i] * t, lambda t, i: table[i] * t)
    agree(lambda t: solve(t, torch.tensor([1, 0])).square().sum(), T, parameters=[table])


def test_the_backward_pass_may_outlive_the_function() -> None:
    t = T.clone().requires_grad_()
    value = whole(implicit.implicit_root(lambda x, t: x - t**2, lambda t: t.numpy() ** 2))(t).sum()
    assert torch.equal(torch.autograd.grad(value, t)[0], 2.0 * t)


def test_checks_speak_from_compiled_code() -> None:
    wrong = lambda t: torch.full_like(t, 0.3)  # noqa: E731  # a solver
    compiled = whole(circle(wrong))
    for _ in range(2):
        with pytest.warns(ApplicabilityWarning, match="no solution") as heard:
            compiled(T)
        assert heard[0].filename == __file__
    with pytest.raises(ApplicabilityError, match="no solution"):
        whole(circle(wrong, check="raise"))(T)
    with pytest.raises(SolveError, match="NaN"):
        whole(circle(lambda t: t * float("nan")))(T)


def test_what_cannot_be_one_operator_breaks_the_graph() -> None:
    """A transform inside, a number beside x, a function made inside: refused with fullgraph, else run eagerly."""
    p = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    solve = circle()
    counted = implicit.implicit_root(lambda x, t: x - t, lambda t: (t * 1.0, 3), has_aux=True)

    def made_inside(t: Any) -> Any:
        w = torch.exp(p)
        return implicit.implicit_root(lambda x, t: w * x - t, lambda t: t / w)(t).sum()

    functions = (
        torch.func.vmap(solve),
        torch.func.grad(lambda t: solve(t).sum()),
        lambda t: counted(t)[0],
        made_inside,
    )
    for function in functions:
        with pytest.raises(Exception, match="disable"):  # of a private class of PyTorch's
            whole(function)(T)
        torch._dynamo.reset()
        compiled = torch.compile(function, backend="aot_eager")
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            assert torch.allclose(compiled(T), function(T))
        assert not [w for w in heard if "lru_cache" in str(w.message)]  # of code that is none of the user's
    assert torch.allclose(*(torch.autograd.grad(f(T), p)[0] for f in (made_inside, compiled)))
