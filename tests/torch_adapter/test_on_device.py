"""A torch layer computed where its tensors live, here on the CPU, and other libraries' arrays in its calls."""

from __future__ import annotations

import copy
import pickle

import cvxpy as cp
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from cvxift.errors import ApplicabilityWarning, ProgramError, SolveError
from cvxift.kkt.batch.device import DeviceMap, DeviceSolved
from cvxift.torch import CvxpyLayer
from cvxift.torch.device import TorchArrays, moreau_on
from tests.kkt.curved import CASES, curved, values


def layer(on_device: str = "always", **options) -> CvxpyLayer:
    """½‖Bx − t‖² over Gx ≤ h and Σx = total."""
    rng = np.random.default_rng(0)
    B, G = rng.standard_normal((5, 4)), rng.standard_normal((6, 4))
    x, t, h, total = cp.Variable(4), cp.Parameter(5, name="t"), cp.Parameter(6, name="h"), cp.Parameter(name="total")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(B @ x - t)), [G @ x <= h, cp.sum(x) == total])
    return CvxpyLayer(problem, [t, h, total], [x], on_device=on_device, **options)  # type: ignore[arg-type]


def inputs(*lead: int, rng: np.random.Generator, dtype=torch.float64) -> list[torch.Tensor]:
    values = rng.standard_normal((*lead, 5)), 0.5 + rng.random((*lead, 6)), 0.1 * rng.standard_normal(lead)
    return [torch.tensor(value, dtype=dtype, requires_grad=True) for value in values]


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_values_and_gradients_are_the_hosts(lead: tuple[int, ...], rng: np.random.Generator) -> None:
    there, here, given = layer(), layer("never"), inputs(*lead, rng=rng)
    (x,), (reference,) = there(*given), here(*given)
    assert x.shape == (*lead, 4)
    torch.testing.assert_close(x, reference, rtol=1e-10, atol=1e-10)
    bar = torch.from_numpy(rng.standard_normal(x.shape))
    for got, expected in zip(
        torch.autograd.grad(x, given, bar), torch.autograd.grad(reference, given, bar), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_gradcheck_and_gradgradcheck_with_a_shared_parameter(rng: np.random.Generator) -> None:
    solve = layer()
    t, h, total = inputs(2, rng=rng)
    shared = h[0].detach().clone().requires_grad_()
    function = lambda *p: solve(*p)[0]  # noqa: E731
    assert torch.autograd.gradcheck(function, (t, shared, total), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, (t, shared, total))


def test_transforms(rng: np.random.Generator) -> None:
    there, here = layer(), layer("never")
    t, h, total = (p.detach() for p in inputs(3, rng=rng))
    for transform in (torch.func.jacrev, torch.func.jacfwd, torch.func.hessian):
        got = transform(lambda t: there(t, h[0], total[0])[0].square().sum())(t[0])
        expected = transform(lambda t: here(t, h[0], total[0])[0].square().sum())(t[0])
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    got = torch.func.vmap(lambda t: there(t, h[0], total[0])[0])(t)
    torch.testing.assert_close(got, there(t, h[0], total[0])[0], rtol=1e-10, atol=1e-10)


def test_one_solve_serves_the_backward_pass(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    from cvxift.kkt.batch.device import DeviceMap

    count, inner = [], DeviceMap.solve
    monkeypatch.setattr(DeviceMap, "solve", lambda *args, **options: count.append(1) or inner(*args, **options))
    given = inputs(3, rng=rng)
    (x,) = layer()(*given)
    x.sum().backward()
    assert len(count) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_dtypes_come_back_as_they_went(dtype: torch.dtype, rng: np.random.Generator) -> None:
    given = inputs(3, rng=rng, dtype=dtype)
    (x,) = layer()(*given)
    assert x.dtype == dtype
    x.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in given)


def test_copies_work_by_themselves(rng: np.random.Generator) -> None:
    solve, given = layer(), inputs(2, rng=rng)
    (expected,) = solve(*given)
    for other in (copy.deepcopy(solve), pickle.loads(pickle.dumps(solve))):
        torch.testing.assert_close(other(*given)[0], expected)
        assert other._residence.at(torch.device("cpu")) is not None


def test_failures_follow_on_failure(rng: np.random.Generator) -> None:
    t, h, total = inputs(3, rng=rng)
    h = torch.where(torch.tensor([[False], [True], [False]]), torch.nan, h.detach())
    with pytest.raises(ProgramError, match="Parameter 'h'"):
        layer()(t, h, total)
    x, b = cp.Variable(2), cp.Parameter(2, name="b")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x[0] + x[1] <= b[0], x[0] + x[1] >= b[1]])
    values = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    with pytest.raises(SolveError, match=r"Instance \(1,\) of the batch"):
        CvxpyLayer(problem, [b], [x], on_device="always")(values)
    with pytest.warns(ApplicabilityWarning, match="was not solved"):
        (z,) = CvxpyLayer(problem, [b], [x], on_device="always", on_failure="nan")(values)
    assert torch.isnan(z[1]).all()
    z[0].sum().backward()
    assert values.grad is not None and not values.grad[1].any() and values.grad[0].any()


def cone_layers(name: str, on_device: str, **options) -> CvxpyLayer:
    """A layer of `tests.kkt.curved`."""
    problem, parameters, outputs = CASES[name]()
    return CvxpyLayer(problem, parameters, outputs, on_device=on_device, closed_form="never", **options)  # type: ignore[arg-type]


def cone_inputs(name: str, rng: np.random.Generator, batch: int = 3) -> list[torch.Tensor]:
    shapes = [p.shape for p in CASES[name]()[1]]
    flat = torch.from_numpy(values(name, batch, rng))
    parts = flat.split([int(np.prod(shape, dtype=int)) for shape in shapes], dim=-1)
    return [part.reshape(batch, *shape).clone().requires_grad_() for part, shape in zip(parts, shapes, strict=True)]


@pytest.mark.parametrize("name", CASES)
def test_curved_cones_stay_on_the_device_with_the_hosts_numbers(name: str, rng: np.random.Generator) -> None:
    there, here = cone_layers(name, "always"), cone_layers(name, "never")
    given = cone_inputs(name, rng)
    outputs, references = there(*given), here(*given)
    assert isinstance(there.last_report.solved, DeviceSolved) and not isinstance(here.last_report.solved, DeviceSolved)
    bars = [torch.from_numpy(rng.standard_normal(tuple(out.shape))) for out in outputs]
    for got, expected in zip(outputs, references, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    for got, expected in zip(
        torch.autograd.grad(outputs, given, bars), torch.autograd.grad(references, given, bars), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["ball", "matrix", "everything"])
def test_gradchecks_through_curved_cones(name: str, rng: np.random.Generator) -> None:
    solve = cone_layers(name, "always")
    given = cone_inputs(name, rng, batch=2)
    function = lambda *p: solve(*p)[0]  # noqa: E731
    assert torch.autograd.gradcheck(function, given, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, given, fast_mode=True)


def test_a_third_derivative_through_curved_cones_is_refused_by_name(rng: np.random.Generator) -> None:
    solve = cone_layers("ball", "always")
    b, r = (p.detach() for p in cone_inputs("ball", rng))
    function = lambda b: solve(b, r[0])[0].square().sum()  # noqa: E731
    with pytest.raises(ProgramError, match="order 3 was asked for of a problem with curved cones"):
        torch.func.jacfwd(torch.func.hessian(function))(b[0])


@pytest.mark.skipif(not moreau_on("cpu"), reason="moreau is not installed")
@pytest.mark.parametrize("name", CASES)
def test_moreau_takes_curved_cones_on_tensors(name: str, rng: np.random.Generator) -> None:
    """The path of its CUDA build, on the CPU: its points, less accurate, become the host's."""

    class There(TorchArrays):
        def solver(self, engine, solver, solver_args):
            return self.moreau(engine.condensation.structure)

    m, theta = curved(name), values(name, 4, rng)
    solved = DeviceMap(m, There(torch.device("cpu"))).solve(torch.from_numpy(theta))
    assert solved.solutions.name == "moreau" and not solved.solutions.singles
    np.testing.assert_allclose(solved.outputs.numpy(), m.solve(theta).outputs, rtol=1e-9, atol=1e-9)


def test_failures_of_curved_cones_follow_on_failure() -> None:
    x, b = cp.Variable(2), cp.Parameter(2, name="b")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 1.0)), [cp.SOC(b[0], x), x[0] >= b[1]])
    values = torch.tensor([[1.0, 0.5], [1.0, 2.0], [3.0, 0.0]], dtype=torch.float64, requires_grad=True)
    with pytest.raises(SolveError, match=r"Instance \(1,\) of the batch"):
        CvxpyLayer(problem, [b], [x], on_device="always")(values)
    with pytest.warns(ApplicabilityWarning, match="was not solved"):
        (z,) = CvxpyLayer(problem, [b], [x], on_device="always", on_failure="nan")(values)
    assert torch.isnan(z[1]).all() and torch.isfinite(z[[0, 2]]).all()
    z[[0, 2]].sum().backward()
    assert values.grad is not None and not values.grad[1].any() and values.grad[0].any()


def test_what_cannot_stay_on_the_device_says_why() -> None:
    big, c = cp.Variable(600), cp.Parameter(600)
    large = cp.Problem(cp.Minimize(cp.sum(big)), [cp.norm(big - c) <= 1.0])
    with pytest.raises(ProgramError, match=r"on_device=.always. cannot be had .* KKT systems have .* more than 512"):
        CvxpyLayer(large, [c], [big], on_device="always", closed_form="never")
    with pytest.raises(ProgramError, match="default policy"):
        layer(singular="regularize")
    with pytest.raises(ProgramError, match="on_device='gpu' is not known"):
        layer("gpu")
    assert CvxpyLayer(large, [c], [big], closed_form="never")._residence.at(torch.device("cuda")) is None


def test_other_libraries_arrays_when_asked(rng: np.random.Generator) -> None:
    solve = layer("never")
    t, h, total = (p.detach() for p in inputs(3, rng=rng))
    (expected,) = solve(t, h, total)
    (got,) = solve(t.numpy(), h.numpy(), total.numpy(), from_dlpack=True)
    assert isinstance(got, torch.Tensor)
    torch.testing.assert_close(got, expected)
    single = [p.float() for p in (t, h, total)]
    (mixed,) = solve(jnp.asarray(single[0].numpy()), single[1].numpy(), single[2], from_dlpack=True)
    torch.testing.assert_close(mixed, solve(*single)[0])
    with pytest.raises(ProgramError, match=r"Parameter 't' is a numpy\.ndarray; .* Pass from_dlpack=True to the call"):
        solve(t.numpy(), h, total)
    with pytest.raises(ProgramError, match="Parameter 'h' is a list"):
        solve(t, h.tolist(), total, from_dlpack=True)
