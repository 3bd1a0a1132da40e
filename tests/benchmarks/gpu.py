"""A layer on CUDA tensors: computed on the card, computed on the host, and the same on CPU tensors.

    python -m tests.benchmarks.gpu --output figures.json        # on a machine with a card
    python -m tests.benchmarks.gpu --device cpu                 # the script itself, without one

Each figure is the least of several repeats, in milliseconds, with the device waited for; the card's name, its driver's
CUDA version and the machine stand beside them. Gradients are compared with the CPU's before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import torch

from cvxift.torch import CvxpyLayer
from cvxift.torch.device import moreau_on
from tests.benchmarks import machine

SIZES = ((10, 10, 5), (50, 50, 10), (100, 100, 20))
BATCHES = (16, 128, 1024)
AGREEMENT = 1e-8  # relative difference between the card's gradients and the CPU's above which nothing is timed


def layer(n: int, m: int, p: int, on_device: str) -> CvxpyLayer:
    """½‖Qx‖² + qᵀx under Ax = b, Gx ≤ h, everything a parameter."""
    Q, q, A, b, G, h = (cp.Parameter(shape) for shape in ((n, n), n, (p, n), p, (m, n), m))
    x = cp.Variable(n)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(Q @ x) + q @ x), [A @ x == b, G @ x <= h])
    return CvxpyLayer(problem, [Q, q, A, b, G, h], [x], check="off", on_device=on_device)  # type: ignore[arg-type]


def parameters(batch: int, n: int, m: int, p: int, device: str) -> list[torch.Tensor]:
    """Strictly feasible random programs, half of whose inequalities pass near the minimizer."""
    rng = np.random.default_rng(0)
    Q = rng.standard_normal((batch, n, n)) / np.sqrt(n) + np.eye(n)
    A, G = rng.standard_normal((batch, p, n)), rng.standard_normal((batch, m, n))
    x = rng.standard_normal((batch, n, 1))
    h = (G @ x)[..., 0] + np.where(rng.random((batch, m)) < 0.5, 0.05, 1.0)
    values = (Q, rng.standard_normal((batch, n)), A, (A @ x)[..., 0], G, h)
    return [torch.tensor(value, device=device, requires_grad=True) for value in values]


def least(work: Callable[[], Any], wait: Callable[[], Any], repeats: int) -> float:
    """Least time of several repeats, in milliseconds; one more before them is not counted."""
    found = []
    for repeat in range(repeats + 1):
        wait()
        start = time.perf_counter()
        work()
        wait()
        if repeat:
            found.append(1e3 * (time.perf_counter() - start))
    return min(found)


def gradients(solve: CvxpyLayer, given: list[torch.Tensor]) -> list[torch.Tensor]:
    """The gradients of a fixed linear loss."""
    (x,) = solve(*given)
    weight = torch.cos(torch.arange(x.shape[-1], dtype=x.dtype, device=x.device))
    return list(torch.autograd.grad((x * weight).sum(), given))


def measure(device: str, repeats: int, largest: int) -> list[dict[str, Any]]:
    """Rows of size, batch, way, and the milliseconds of a solve and of a solve with its gradient."""
    rows = []
    for size in SIZES:
        ways = {"card": (device, "always"), "host": (device, "never"), "CPU tensors": ("cpu", "never")}
        layers = {way: layer(*size, on_device) for way, (_, on_device) in ways.items()}
        for batch in (b for b in BATCHES if b <= largest):
            reference = None
            for way, (where, _) in reversed(ways.items()):
                given, solve = parameters(batch, *size, where), layers[way]
                found = [grad.cpu() for grad in gradients(solve, given)]
                reference = found if reference is None else reference
                apart = max(float((a - b).abs().max() / (1 + b.abs().max())) for a, b in zip(found, reference))
                if apart > AGREEMENT:
                    raise SystemExit(f"{way}, {size}, batch {batch}: gradients differ from the CPU's by {apart:.1e}.")

                def wait(where: str = where) -> None:
                    if where != "cpu":
                        torch.cuda.synchronize(where)

                with torch.no_grad():
                    forward = least(lambda solve=solve, given=given: solve(*given), wait, repeats)
                both = least(lambda solve=solve, given=given: gradients(solve, given), wait, repeats)
                rows.append({"size": size, "batch": batch, "way": way, "forward": forward, "both": both})
                print(f"{size!s:>15} batch {batch:5d} {way:>12}: solve {forward:8.2f} ms, with gradient {both:8.2f} ms")
    return rows


def card(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    if device == "cpu":
        return {"card": None}
    properties = torch.cuda.get_device_properties(device)
    return {
        "card": properties.name,
        "memory": properties.total_memory,
        "CUDA": torch.version.cuda,
        "Moreau on CUDA": moreau_on("cuda"),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--largest", type=int, default=max(BATCHES), help="largest batch")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit("No CUDA device here. Run it on a machine with one, or with --device cpu.")
    record = {**card(arguments.device), "machine": machine.describe()}
    print(record["card"] or "no card: CPU tensors throughout")
    record["rows"] = measure(arguments.device, arguments.repeats, arguments.largest)
    if arguments.output:
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
