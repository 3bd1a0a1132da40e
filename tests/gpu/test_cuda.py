"""A torch layer on CUDA tensors: in and out on the card, the CPU's gradients, no more waiting than is documented."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

from cvxift.kkt.batch.device import DeviceMap
from cvxift.kkt.solution_map import SolutionMap
from cvxift.torch import CvxpyLayer
from cvxift.torch.device import TorchArrays, moreau_on
from tests.kkt.curved import CASES, ON_DEVICE, curved, values
from tests.kkt.places import counting, mapping, thetas

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CUDA = torch.device("cuda", 0)


def layer(**options) -> CvxpyLayer:
    """½‖Qx‖² + qᵀx under Ax = b, Gx ≤ h, everything a parameter."""
    n, m, p = 10, 10, 5
    Q, q, A, b, G, h = (cp.Parameter(shape) for shape in ((n, n), n, (p, n), p, (m, n), m))
    x = cp.Variable(n)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(Q @ x) + q @ x), [A @ x == b, G @ x <= h])
    return CvxpyLayer(problem, [h, G, b, A, q, Q], [x], check="off", **options)


def tensors(rng: np.random.Generator, batch: int, device, dtype=torch.float64) -> list[torch.Tensor]:
    n, m, p = 10, 10, 5
    flat = torch.from_numpy(thetas("random", batch, n, m, p, rng)).to(device=device, dtype=dtype)
    shapes = ((m,), (m, n), (p,), (p, n), (n,), (n, n))
    parts = flat.split([int(np.prod(shape)) for shape in shapes], dim=-1)
    return [part.reshape(batch, *shape).clone().requires_grad_() for part, shape in zip(parts, shapes, strict=True)]


def grads(solve: CvxpyLayer, given: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    (x,) = solve(*given)
    return torch.autograd.grad((x * torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype, device=x.device)).sum(), given)


@pytest.mark.parametrize("on_device", ["auto", "never"])
def test_in_and_out_on_the_card_with_the_cpus_gradients(on_device: str, rng: np.random.Generator) -> None:
    solve = layer(on_device=on_device)
    there = tensors(rng, 32, CUDA)
    here = [t.detach().cpu().requires_grad_() for t in there]
    (x,), (reference,) = solve(*there), solve(*here)
    assert x.device == CUDA and x.dtype == torch.float64
    torch.testing.assert_close(x.cpu(), reference, rtol=1e-10, atol=1e-10)
    for got, expected in zip(grads(solve, there), grads(solve, here), strict=True):
        assert got.device == CUDA
        scale = 1.0 + float(expected.abs().max())
        assert float((got.cpu() - expected).abs().max()) <= 1e-10 * scale


def test_forward_mode_and_second_order_on_the_card(rng: np.random.Generator) -> None:
    solve = layer()
    there = tensors(rng, 4, CUDA)
    here = [t.detach().cpu() for t in there]
    dots = [torch.randn(t.shape, dtype=t.dtype, generator=torch.Generator().manual_seed(0)) for t in here]
    _, got = torch.func.jvp(lambda *p: solve(*p)[0], tuple(t.detach() for t in there), tuple(d.to(CUDA) for d in dots))
    _, expected = torch.func.jvp(lambda *p: solve(*p)[0], tuple(here), tuple(dots))
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-9, atol=1e-9)

    def bent(given: list[torch.Tensor]) -> torch.Tensor:
        (x,) = solve(*given)
        first = torch.autograd.grad((x**2).sum(), given, create_graph=True)
        return torch.autograd.grad(sum((g**2).sum() for g in first), given[4])[0]

    torch.testing.assert_close(
        bent(there).cpu(), bent([t.detach().clone().requires_grad_() for t in here]), rtol=1e-8, atol=1e-8
    )


def test_float32_in_is_float32_out(rng: np.random.Generator) -> None:
    solve = layer()
    single = tensors(rng, 8, CUDA, torch.float32)
    double = [t.detach().double().requires_grad_() for t in single]
    (x,) = solve(*single)
    assert x.dtype == torch.float32 and x.device == CUDA
    torch.testing.assert_close(x.double(), solve(*double)[0], rtol=1e-6, atol=1e-6)
    for got, expected in zip(grads(solve, single), grads(solve, double), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_shared_parameter_and_an_unbatched_call(rng: np.random.Generator) -> None:
    solve = layer()
    given = tensors(rng, 6, CUDA)
    given[5] = given[5][0].detach().clone().requires_grad_()
    (x,) = solve(*given)
    x.sum().backward()
    assert x.shape == (6, 10) and given[5].grad is not None and given[5].grad.shape == (10, 10)
    (one,) = solve(*(t[0] if t.dim() > s else t for t, s in zip(given, (1, 2, 1, 2, 1, 2), strict=True)))
    torch.testing.assert_close(one, x[0], rtol=1e-9, atol=1e-9)


def waits(m: SolutionMap, theta: torch.Tensor) -> tuple[list[tuple[int, ...]], Any]:
    """What a second solve and its product fetch while CUDA refuses every other wait, and the solved call."""
    place, moved = counting(CUDA, solves=False)  # Moreau may wait as it likes
    bar = torch.ones(len(theta), m.output_size, dtype=torch.float64, device=CUDA)
    there = DeviceMap(m, place)
    there.vjp(there.solve(theta), bar)  # handles of the libraries, constants, kernels
    moved.clear()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        solved = there.solve(theta)
        there.vjp(solved, bar)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [shape for step, shape in moved if step == "fetch"], solved


def test_only_the_documented_steps_wait_for_the_card(rng: np.random.Generator) -> None:
    """Every wait is a wait for the event of a counted copy: nothing else synchronizes, which CUDA is told to refuse."""
    m = mapping(10, 10, 5)
    theta = torch.from_numpy(thetas("random", 16, 10, 10, 5, rng)).to(CUDA)
    fetched, _ = waits(m, theta)
    assert fetched == [tuple(theta.shape), (16, 3), (16,)]


@pytest.mark.parametrize("name", CASES)
def test_curved_cones_on_the_card_with_the_cpus_numbers(name: str, rng: np.random.Generator) -> None:
    m, theta = curved(name), values(name, 16, rng)
    bar, dot = rng.standard_normal((16, m.output_size)), rng.standard_normal(theta.shape)
    here = m.solve(theta)
    expected = [here.outputs, m.vjp(here, bar), m.jvp(here, dot), m.derivative(here, (dot,), bar)]
    there = DeviceMap(m, TorchArrays(CUDA))
    theta, bar, dot = (torch.from_numpy(v).to(CUDA) for v in (theta, bar, dot))
    solved = there.solve(theta)
    got = [solved.outputs, there.vjp(solved, bar), there.jvp(solved, dot), there.derivative(solved, (dot,), bar)]
    for found, wanted in zip(got, expected, strict=True):
        assert found.device == CUDA
        scale = 1.0 + np.abs(wanted).max()
        assert np.abs(found.cpu().numpy() - wanted).max() <= 1e-9 * scale


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("matrix", "inequality", "everything")])
def test_only_the_documented_steps_wait_for_the_card_with_curved_cones(name: str, rng: np.random.Generator) -> None:
    """Semidefinite cones are left out: PyTorch's `eigh` waits by itself."""
    m, B = curved(name), 16
    theta = torch.from_numpy(values(name, B, rng)).to(CUDA)
    fetched, solved = waits(m, theta)
    cones = m.engine.condensation.structure.cones
    rooted = (B, 3 * (cones.exp + len(cones.pow)))
    assert set(fetched) <= {tuple(theta.shape), (B, 3), (B, 4), (B,), rooted} and not solved.solutions.singles
    assert (rooted in fetched) == (name not in ON_DEVICE)


@pytest.mark.skipif(not moreau_on("cuda"), reason="no CUDA build of Moreau")
@pytest.mark.parametrize("name", CASES)
def test_moreau_solves_curved_cones_on_the_card(name: str, rng: np.random.Generator) -> None:
    m, theta = curved(name), values(name, 16, rng)
    solved = DeviceMap(m, TorchArrays(CUDA)).solve(torch.from_numpy(theta).to(CUDA))
    assert solved.solutions.name == "moreau"  # type: ignore[attr-defined]
    np.testing.assert_allclose(solved.outputs.cpu().numpy(), m.solve(theta).outputs, rtol=1e-9, atol=1e-9)


def test_failed_instances_follow_on_failure(rng: np.random.Generator) -> None:
    solve = layer(on_failure="nan")
    given = tensors(rng, 3, CUDA)
    with torch.no_grad():
        given[1][1, 1] = -given[1][1, 0]
        given[0][1, :2] = -1.0
    with pytest.warns(UserWarning, match="was not solved"):
        (x,) = solve(*given)
    assert torch.isnan(x[1]).all() and torch.isfinite(x[[0, 2]]).all()
    x[[0, 2]].sum().backward()
    assert given[4].grad is not None and not given[4].grad[1].any() and given[4].grad[0].any()


def test_dlpack_on_the_card(rng: np.random.Generator) -> None:
    cupy = pytest.importorskip("cupy")
    solve = layer()
    given = [t.detach() for t in tensors(rng, 4, CUDA)]
    (x,) = solve(*(cupy.from_dlpack(t) for t in given), from_dlpack=True)
    assert x.device == CUDA
    torch.testing.assert_close(x, solve(*given)[0])


@pytest.mark.skipif(not moreau_on("cuda"), reason="no CUDA build of Moreau")
def test_moreau_solves_on_the_card(rng: np.random.Generator) -> None:
    solve = layer()
    given = tensors(rng, 64, CUDA)
    (x,) = solve(*given)
    report = solve.last_report
    assert report is not None and report.solved.solutions.name == "moreau"  # type: ignore[attr-defined]
    (reference,) = solve(*(t.detach().cpu() for t in given))
    torch.testing.assert_close(x.cpu(), reference, rtol=1e-9, atol=1e-9)
