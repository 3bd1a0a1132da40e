"""The gradient of a ridge regression found by K steps of gradient descent: unrolled, checkpointed, truncated, implicit.

Reverse-mode differentiation of the steps keeps K iterates (checkpointing √K), the implicit function theorem the last
one. All are compared with the exact gradient. The report says that the theorem applies and how far the last iterate is
from a solution: the implicit gradient is as wrong as that.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from figures import panels, save
from scipy.linalg import solveh_banded
from torch.utils.checkpoint import checkpoint

from cvxift.torch import implicit_argmin

TRUNCATED = 30  # last steps that the truncated gradient differentiates
STEP = 0.25  # of gradient descent, below 2/‖H‖
WAYS = ("unrolled", "checkpointed", "truncated", "implicit")


class Live:
    """Counts the bytes that autograd holds for the backward pass, and their largest number."""

    def __init__(self) -> None:
        self.count: dict[int, int] = {}
        self.bytes = self.peak = 0

    def pack(self, tensor: torch.Tensor) -> Held:
        """Called with every tensor that is kept."""
        return Held(self, tensor)


class Held:
    """A tensor that is kept; storages are counted once."""

    def __init__(self, live: Live, tensor: torch.Tensor) -> None:
        self.live, self.tensor = live, tensor
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        live.count[self.key] = live.count.get(self.key, 0) + 1
        if live.count[self.key] == 1:
            live.bytes += self.size
            live.peak = max(live.peak, live.bytes)

    def __del__(self) -> None:
        self.live.count[self.key] -= 1
        if not self.live.count[self.key]:
            self.live.bytes -= self.size


def blurred(x: torch.Tensor) -> torch.Tensor:
    """A x, where A averages neighbours: x_i + ½ x_{i+1}."""
    return x + 0.5 * torch.cat([x[1:], x[:1] * 0.0])


def blurred_back(r: torch.Tensor) -> torch.Tensor:
    """Aᵀ r."""
    return r + 0.5 * torch.cat([r[:1] * 0.0, r[:-1]])


def energy(x: torch.Tensor, penalty: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """½‖Ax − b‖² + ½ e^penalty ‖x‖²."""
    return 0.5 * (blurred(x) - b).square().sum() + 0.5 * torch.exp(penalty) * x.square().sum()


def descend(x: torch.Tensor, penalty: torch.Tensor, b: torch.Tensor, steps: int) -> torch.Tensor:
    """Gradient descent."""
    for _ in range(steps):
        x = x - STEP * (blurred_back(blurred(x) - b) + torch.exp(penalty) * x)
    return x


def exact_gradient(penalty: float, b: np.ndarray) -> float:
    """Of ½‖x‖² in the penalty, by a banded factorization."""
    n = len(b)
    bands = np.zeros((2, n))
    bands[1] = 1.25 + np.exp(penalty)
    bands[1, 0] -= 0.25
    bands[0, 1:] = 0.5
    right = b + 0.5 * np.concatenate([[0.0], b[:-1]])
    x = solveh_banded(bands, right)
    return float(-np.exp(penalty) * x @ solveh_banded(bands, x))


@dataclass(frozen=True)
class Measured:
    """Relative error of the gradient, megabytes held for the backward pass at most, seconds, the process's growth."""

    error: float
    memory: float
    seconds: float
    process: float


def resident(reset: bool) -> float:
    """Megabytes of memory that the process has, after a reset, or has had at most since; NaN where Linux is not."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    if reset:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, so that growth is growth
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
    line = next(row for row in status.read_text().splitlines() if row.startswith("VmRSS" if reset else "VmHWM"))
    return float(line.split()[1]) / 1e3


def ways(b: torch.Tensor, steps: int) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The four functions of the penalty."""
    zero = torch.zeros_like(b)
    segment = max(1, round(steps**0.5))

    def checkpointed(p: torch.Tensor) -> torch.Tensor:
        x = zero
        for start in range(0, steps, segment):
            x = checkpoint(descend, x, p, b, min(segment, steps - start), use_reentrant=True)
        return x

    def truncated(p: torch.Tensor) -> torch.Tensor:
        last = min(TRUNCATED, steps)
        return descend(descend(zero, p.detach(), b, steps - last), p, b, last)

    solve = implicit_argmin(
        lambda x, p: energy(x, p, b), lambda p: descend(zero, p, b, steps), check="off", linear_solver="cg"
    )
    return {"unrolled": lambda p: descend(zero, p, b, steps), "checkpointed": checkpointed, "truncated": truncated,
            "implicit": solve}  # fmt: skip


def measured(run: Callable[[torch.Tensor], torch.Tensor], penalty: float, exact: float) -> Measured:
    """The gradient of ½‖x‖² by one of them."""
    p = torch.tensor(penalty, dtype=torch.float64, requires_grad=True)
    live = Live()
    before = resident(True)
    start = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(live.pack, lambda held: held.tensor):
        value = 0.5 * run(p).square().sum()
        value.backward()
    seconds = time.perf_counter() - start
    return Measured(abs(float(p.grad) / exact - 1.0), live.peak / 1e6, seconds, resident(False) - before)


def crossing(at: list[int], ours: list[float], theirs: list[float]) -> float | None:
    """Where our curve falls below theirs for good, between two points by straight lines on logarithmic axes."""
    gap = np.log(np.array(ours) / np.array(theirs))
    above = np.flatnonzero(gap > 0.0)
    if not len(above) or above[-1] == len(gap) - 1:
        return None
    i = int(above[-1])
    share = gap[i] / (gap[i] - gap[i + 1])
    return float(np.exp((1 - share) * np.log(at[i]) + share * np.log(at[i + 1])))


def draw(by_steps: dict[str, list[Measured]], counts: list[int], by_size: dict[str, list[Measured]],
         sizes: list[int], n: int, steps: int) -> None:  # fmt: skip
    """Memory, time and error over the steps; memory and time over the variables; where implicit wins, marked."""
    figure, grid = panels(3, 2, width=4.0)
    axes = grid.ravel()
    places = [(counts, by_steps, field) for field in ("memory", "process", "seconds", "error")]
    places += [(sizes, by_size, field) for field in ("memory", "seconds")]
    labels = {"memory": "MB held by autograd at most", "process": "MB that the process grew by", "seconds": "seconds",
              "error": "relative error"}  # fmt: skip
    floors = {"memory": 1e-4, "process": 0.1, "seconds": 1e-4, "error": 1e-16}  # below, nothing can be told
    for axis, (at, rows, field) in zip(axes, places):
        curves = {name: [max(getattr(row, field), floors[field]) for row in rows[name]] for name in WAYS}
        for (name, values), marker in zip(curves.items(), "osv^"):
            axis.loglog(at, values, marker=marker, ms=4, label=name)
        variable = "K" if rows is by_steps else "n"
        fixed = f"n = {n}" if rows is by_steps else f"K = {steps}"
        axis.set(
            title=f"{labels[field]}, {fixed}", xlabel="steps K of the solver" if variable == "K" else "variables n"
        )
        place = crossing(at, curves["implicit"], curves["unrolled"]) if field != "error" else None
        if place is not None:
            axis.axvline(place, color="#6b7280", linestyle=":", lw=1)
            axis.text(place, axis.get_ylim()[0], f" {variable} ≈ {place:.0f}", fontsize=8, va="bottom", color="#6b7280")
    axes[0].legend(fontsize=8)
    save(figure, "unrolled_or_implicit")


def main() -> None:
    """Sweep the steps and the variables, print, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10000, help="largest number of steps")
    parser.add_argument("--n", type=int, default=1000, help="number of variables while the steps change")
    parser.add_argument("--largest", type=int, default=10000, help="largest number of variables")
    arguments = parser.parse_args()
    penalty = -2.0
    counts = [count for count in (10, 30, 100, 300, 1000, 3000, 10000) if count <= arguments.steps]
    sizes = [size for size in (10, 100, 1000, 10000) if size <= arguments.largest]
    middle = min(300, arguments.steps)
    tables: list[dict[str, list[Measured]]] = []
    for cases in ([(arguments.n, count) for count in counts], [(size, middle) for size in sizes]):
        rows: dict[str, list[Measured]] = {name: [] for name in WAYS}
        for n, steps in cases:
            b = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            exact = exact_gradient(penalty, b.numpy())
            for name, run in ways(b, steps).items():
                row = measured(run, penalty, exact)
                rows[name].append(row)
                print(f"{name} {steps} steps {n} variables: error {row.error:.1e}, "
                      f"held {row.memory:.4f} MB, process {row.process:.2f} MB, "
                      f"{row.seconds:.3f} s")  # fmt: skip
        tables.append(rows)
    b = torch.randn(arguments.n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solve = ways(b, counts[-1])["implicit"]
    report = solve.diagnose(torch.tensor(penalty, dtype=torch.float64))  # type: ignore[attr-defined]
    print(f"report: {report.verdict.value}, error bound {report.error_bound:.1e}")
    draw(tables[0], counts, tables[1], sizes, arguments.n, middle)


if __name__ == "__main__":
    main()
