"""Closed forms against the functions that others offer for them: forward passes, in one process, on the CPU.

    python -m tests.benchmarks.argmax [--batch 256] [--n 1000] [--threads 1] [--repeats 30]

Contenders take turns, each is measured by the processor time that it takes, of all its threads, and the best of all
repeats counts: another process's load falls on neither side. Errors are the largest of an entry, in float32, against a
float64 reference made by sorting or by 100 bisections. Needs `entmax`; JAXopt's projections are measured where it can
be imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cvxift import torch as ct

ORDERS = (1.1, 1.3, 1.7, 2.5, 3.0)


def sparsemax(x: np.ndarray) -> np.ndarray:
    """Sparsemax by sorting (Held, Wolfe, Crowder 1974)."""
    x = x - x.max(-1, keepdims=True)
    ordered = -np.sort(-x, axis=-1)
    thresholds = (np.cumsum(ordered, axis=-1) - 1) / np.arange(1, x.shape[-1] + 1)
    last = np.sum(ordered > thresholds, axis=-1, keepdims=True) - 1
    return np.maximum(x - np.take_along_axis(thresholds, last, axis=-1), 0)


def entmax(x: np.ndarray, alpha: float) -> np.ndarray:
    """α-entmax by bisection."""
    s = (alpha - 1) * (x - x.max(-1, keepdims=True))
    low, high = np.full_like(s[..., :1], -1), np.zeros_like(s[..., :1])
    for _ in range(100):
        middle = (low + high) / 2
        more = np.sum(np.maximum(s - middle, 0) ** (1 / (alpha - 1)), axis=-1, keepdims=True) >= 1
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return np.maximum(s - low, 0) ** (1 / (alpha - 1))


def softmax(x: np.ndarray) -> np.ndarray:
    """Softmax."""
    z = np.exp(x - x.max(-1, keepdims=True))
    return z / z.sum(-1, keepdims=True)


def race(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Best processor seconds of either, taking turns."""
    best = [np.inf, np.inf]
    for repeat in range(repeats + 2):
        for side, call in enumerate((ours, theirs)):
            start = time.process_time()
            call()
            if repeat >= 2:
                best[side] = min(best[side], time.process_time() - start)
    return best[0], best[1]


def rows(batch: int, n: int, scale: float, repeats: int) -> list[tuple[str, str, float, float, float, float]]:
    """(map, against, our seconds, theirs, our error, theirs) for every contender that there is."""
    x = (scale * np.random.default_rng(0).standard_normal((batch, n))).astype(np.float32)
    wide, tensor = x.astype(float), torch.from_numpy(x)
    cases: list[tuple[str, str, Callable[[], Any], Callable[[], Any], np.ndarray]] = [
        ("softmax", "torch.softmax", lambda: ct.softmax(tensor), lambda: torch.softmax(tensor, -1), softmax(wide))
    ]
    if importlib.util.find_spec("entmax"):
        import entmax as peer

        half, exact = entmax(wide, 1.5), sparsemax(wide)
        cases += [
            ("sparsemax", "entmax.sparsemax", lambda: ct.sparsemax(tensor), lambda: peer.sparsemax(tensor, -1), exact),
            ("1.5-entmax", "entmax.entmax15", lambda: ct.entmax(tensor), lambda: peer.entmax15(tensor, -1), half),
        ]
        for alpha in ORDERS:
            cases.append(
                (
                    f"{alpha}-entmax",
                    "entmax.entmax_bisect",
                    lambda alpha=alpha: ct.entmax(tensor, alpha),
                    lambda alpha=alpha: peer.entmax_bisect(tensor, alpha, -1),
                    entmax(wide, alpha),
                )
            )
    if importlib.util.find_spec("jaxopt"):
        import jax
        from jaxopt.projection import projection_simplex

        from cvxift import jax as cj

        array = jax.numpy.asarray(x)
        theirs = jax.jit(jax.vmap(projection_simplex))
        mine = jax.jit(cj.sparsemax)
        cases.append(
            (
                "sparsemax (JAX)",
                "jaxopt.projection_simplex",
                lambda: mine(array).block_until_ready(),
                lambda: theirs(array).block_until_ready(),
                sparsemax(wide),
            )
        )
    table = []
    for name, against, ours, others, reference in cases:
        seconds = race(ours, others, repeats)
        errors = [float(np.abs(np.asarray(call(), dtype=float) - reference).max()) for call in (ours, others)]
        table.append((name, against, *seconds, *errors))
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--scale", type=float, default=1.0, help="standard deviation of the scores")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print("| map | ours, ms | against | theirs, ms | ratio | our error | theirs |")
    print("|---|---|---|---|---|---|---|")
    for name, against, ours, theirs, error, their_error in rows(chosen.batch, chosen.n, chosen.scale, chosen.repeats):
        print(
            f"| {name} | {1e3 * ours:.2f} | {against} | {1e3 * theirs:.2f} | {theirs / ours:.1f} | {error:.0e} |"
            f" {their_error:.0e} |"
        )


if __name__ == "__main__":
    main()
