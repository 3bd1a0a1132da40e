"""A layer's solutions and derivatives on its parameters' own device: what `solve_cache.Host` gives, on arrays there."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from cvxift.errors import ProgramError
from cvxift.kkt.batch.device import reason
from cvxift.layers.core import LayerCore
from cvxift.layers.solve_cache import KEPT_LEAST, Host, Options
from tests.kkt.places import place_of

OPTIONS = Options.of(None, False)


def layer(check: str = "off") -> LayerCore:
    """½‖Bx − t‖² over Gx ≤ h, with t and h parameters."""
    rng = np.random.default_rng(0)
    B, G = rng.standard_normal((5, 4)), rng.standard_normal((6, 4))
    x, t, h = cp.Variable(4), cp.Parameter(5), cp.Parameter(6)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(B @ x - t)), [G @ x <= h])
    return LayerCore(problem, [t, h], [x], check=check)


def theta_of(*lead: int, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([rng.standard_normal((*lead, 5)), rng.random((*lead, 6))], axis=-1)


LEADS = [
    ((), ()),
    ((3,), (3,)),
    ((2, 3), (2, 3)),
    ((1,), (4,)),
    ((1, 3), (4, 1)),
    ((3, 1), (1, 4)),
    ((2, 1, 3), (1, 4, 1)),
]


@pytest.mark.parametrize(("own", "other"), LEADS)
@pytest.mark.parametrize("place", ["numpy", "torch"])
def test_every_order_equals_the_hosts(place: str, own, other, rng: np.random.Generator) -> None:
    core = layer()
    host = Host(core)
    theta = theta_of(*own, rng=rng)
    dots = [rng.standard_normal((*other, 11)) for _ in range(3)]
    bar = rng.standard_normal((*other, 4))
    forms = [([dots[0]], None), ([], bar), (dots[:2], None), (dots[:1], bar), (dots, None), (dots[:2], bar)]
    with place_of(place) as where:
        there = Host(core, where)
        put = where.put(theta)
        z = where.host(there.solution(put, OPTIONS))
        np.testing.assert_allclose(z, host.solution(theta, OPTIONS), rtol=1e-10, atol=1e-10)
        for tangents, cotangent in forms:
            got = there.derivative(
                put, [where.put(v) for v in tangents], None if cotangent is None else where.put(cotangent), OPTIONS
            )
            expected = host.derivative(theta, tangents, cotangent, OPTIONS)
            assert tuple(got.shape) == expected.shape
            np.testing.assert_allclose(where.host(got), expected, rtol=1e-9, atol=1e-9)


def test_derivatives_find_the_solved_call_and_old_ones_go(rng: np.random.Generator) -> None:
    import torch

    core, solves = layer(), []
    with place_of("torch") as where:
        there = Host(core, where)
        inner = there.map.solve
        there.map.solve = lambda *args, **options: solves.append(1) or inner(*args, **options)  # type: ignore[method-assign]
        thetas = [torch.from_numpy(theta_of(3, rng=rng)) for _ in range(KEPT_LEAST)]
        for theta in thetas:
            there.solution(theta, OPTIONS)
            there.derivative(theta, [], torch.ones(3, 4, dtype=torch.float64), OPTIONS)
        assert len(solves) == KEPT_LEAST
        there.derivative(thetas[0], [torch.ones_like(thetas[0])], None, OPTIONS)
        assert len(solves) == KEPT_LEAST
        before = there.solution(thetas[0], OPTIONS)
        thetas[0][0, 0] += 1.0  # changed in place: another θ
        assert not torch.equal(there.solution(thetas[0], OPTIONS), before)
        assert len(solves) == KEPT_LEAST + 1


def test_float32_is_computed_in_double(rng: np.random.Generator) -> None:
    import torch

    core = layer()
    theta = torch.from_numpy(theta_of(3, rng=rng)).float()
    with place_of("torch") as where:
        z = Host(core, where).solution(theta, OPTIONS)
        expected = Host(core).solution(theta.double().numpy(), OPTIONS)
        assert z.dtype == torch.float64
        np.testing.assert_allclose(z.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_checks_reports_and_values_by_name(rng: np.random.Generator) -> None:
    core = layer(check="raise")
    theta = theta_of(2, rng=rng)
    with place_of("torch") as where:
        there = Host(core, where)
        there.solution(where.put(theta), OPTIONS)
        report = core.last_report
        assert report is not None and report.instances == 2 and report.failed == 0 and report.residual < 1e-10
        theta = theta.copy()
        theta[1, 2] = np.nan
        with pytest.raises(ProgramError, match="nan"):
            there.solution(where.put(theta), OPTIONS)


def test_empty_leading_dimensions() -> None:
    with place_of("torch") as where:
        there = Host(layer(), where)
        theta = where.zeros(0, 11)
        assert tuple(there.solution(theta, OPTIONS).shape) == (0, 4)
        assert tuple(there.derivative(theta, [where.zeros(2, 0, 11)], None, OPTIONS).shape) == (2, 0, 4)


def test_problems_without_a_dense_path_say_so() -> None:
    x, t = cp.Variable(3), cp.Parameter(3)
    cone = LayerCore(cp.Problem(cp.Minimize(cp.norm(x - t)), [x >= 0]), [t], [x])
    assert reason(layer().map) is None and reason(cone.map) is None
    big, c = cp.Variable(600), cp.Parameter(600)
    large = LayerCore(cp.Problem(cp.Minimize(cp.sum(big)), [cp.norm(big - c) <= 1]), [c], [big])
    assert "more than 512" in (reason(large.map) or "")


def test_moreau_on_tensors(rng: np.random.Generator) -> None:
    """The path of its CUDA build, on the CPU: x and v never leave the tensors' place."""
    import torch

    from cvxift.kkt.batch.device import DeviceMap
    from cvxift.torch.device import TorchArrays, moreau_on

    if not moreau_on("cpu"):
        pytest.skip("moreau is not installed")

    class There(TorchArrays):
        def solver(self, engine, solver, solver_args):
            return self.moreau(engine.condensation.structure)

    core = layer()
    there = DeviceMap(core.map, There(torch.device("cpu")))
    for batch in (4, 1, 4):
        theta = theta_of(batch, rng=rng)
        expected = core.map.solve(theta)
        solved = there.solve(torch.from_numpy(theta))
        assert solved.solutions.name == "moreau" and not solved.solutions.singles
        np.testing.assert_allclose(solved.outputs.numpy(), expected.outputs, rtol=1e-9, atol=1e-9)
        bar = rng.standard_normal((batch, 4))
        got = there.vjp(solved, torch.from_numpy(bar)).numpy()
        np.testing.assert_allclose(got, core.map.vjp(expected, bar), rtol=1e-8, atol=1e-8)


def test_no_solver_of_the_device_where_another_was_named() -> None:
    import torch

    from cvxift.torch.device import TorchArrays

    engine = layer().map.engine
    place = TorchArrays(torch.device("cpu"))
    assert place.solver(engine, None, None) is None  # not on the CPU
    assert place.solver(engine, "daqp", None) is None
