"""What diagnosing costs beside what it diagnoses: ratios of the shortest of several runs, in one process.

python -m tests.benchmarks.diagnosis
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

import cvxift
from cvxift.diagnostics.call_check import Watch
from cvxift.diagnostics.diagnosis import report_at


def best(work: Callable[[], object], count: int) -> float:
    """Shortest time of a call, in seconds."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def check_of_a_call(cone: str, batch: tuple[int, ...]) -> float:
    """Time of a torch layer's check over that of its forward and backward pass."""
    import torch

    from cvxift.torch import CvxpyLayer

    x, t = cp.Variable(10, name="x"), cp.Parameter(10, name="t")
    constraints = [cp.sum(x) == 1, x >= 0] if cone == "polyhedral" else [cp.norm(x) <= 1]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), constraints), [t], [x], check="off")
    theta = torch.tensor(np.random.default_rng(0).standard_normal((*batch, 10)), requires_grad=True)
    whole = best(lambda: layer(theta)[0].sum().backward(), 200)
    call, _ = layer.core.solve([theta.detach().numpy()], None, False)
    watch = Watch(layer.core.map, "warn")
    return best(lambda: watch.look(call.solved, theta.detach().numpy()), 200) / whole


def report_of_a_large_program() -> float:
    """Time of the full report of a sparse quadratic program with 1000 variables over that of solving it."""
    rng = np.random.default_rng(0)
    n, m = 1000, 500
    G = sp.random(m, n, density=0.005, random_state=0, format="csr")
    x = cp.Variable(n)
    q, h = cp.Parameter(n, value=rng.standard_normal(n)), cp.Parameter(m, value=rng.uniform(0.05, 0.5, m))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + q @ x), [G @ x <= h, x >= -1, x <= 1])
    s = cvxift.differentiate(problem, solver="clarabel")
    solve = best(lambda: s.solution.engine.solve(s.solution.data), 5)
    theta = s.program.pack({p: p.value for p in s.program.parameters})
    return best(lambda: report_at(problem, s.program, s.solution, theta), 5) / solve


def main() -> None:
    """Print the ratios with their bounds."""
    for cone in ("polyhedral", "second-order"):
        for batch in ((), (32,)):
            print(f"check / (forward + backward), {cone}, batch {batch}: {check_of_a_call(cone, batch):.3f}  (≤ 0.1)")
    print(f"full report / solve, sparse QP with 1000 variables: {report_of_a_large_program():.1f}  (< 10)")


if __name__ == "__main__":
    main()
