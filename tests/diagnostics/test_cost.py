"""What diagnosing costs beside what it diagnoses: the best of several runs of each, on one machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

import cvxift
from cvxift.diagnostics.diagnose import report_at
from cvxift.diagnostics.watch import Watch


def best(work: Callable[[], object], count: int = 7) -> float:
    """Shortest time of a call, in seconds."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("batch", [(), (32,)])
@pytest.mark.parametrize("cone", ["polyhedral", "second-order"])
def test_the_check_of_a_call_is_cheap(batch: tuple[int, ...], cone: str) -> None:
    torch = pytest.importorskip("torch")
    layers = pytest.importorskip("cvxift.torch")
    x, t = cp.Variable(10, name="x"), cp.Parameter(10, name="t")
    constraints = [cp.sum(x) == 1, x >= 0] if cone == "polyhedral" else [cp.norm(x) <= 1]
    layer = layers.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), constraints), [t], [x], check="off")
    theta = torch.tensor(np.random.default_rng(0).standard_normal((*batch, 10)), requires_grad=True)
    whole = best(lambda: layer(theta)[0].sum().backward(), 20)
    solved = layer.core._warm
    watch = Watch(layer.core.map, "warn")
    assert best(lambda: watch.look(solved, theta.detach().numpy()), 20) <= 0.1 * whole


def test_the_full_report_of_a_large_quadratic_program() -> None:
    rng = np.random.default_rng(0)
    n, m = 1000, 500
    G = sp.random(m, n, density=0.005, random_state=0, format="csr")
    x, q, h = (
        cp.Variable(n),
        cp.Parameter(n, value=rng.standard_normal(n)),
        cp.Parameter(m, value=rng.uniform(0.05, 0.5, m)),
    )
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + q @ x), [G @ x <= h, x >= -1, x <= 1])
    s = cvxift.differentiate(problem, solver="clarabel")
    solve = best(lambda: s.solution.engine.solve(s.solution.data), 3)
    report = best(lambda: report_at(problem, s.program, s.solution, s._theta), 3)
    assert s.report.ok and not s.report.analysis.kernel.exact
    assert report < 10.0 * solve
