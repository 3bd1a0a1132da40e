"""Argmax maps beside the functions that others offer for them: forward, and forward with backward, on the CPU.

    python -m tests.benchmarks.peers [--cases PATTERN …] [--seconds 0.3] [--publish]

Contenders take turns in one process and one thread; each is measured by the processor time that it takes, and the best
of all turns counts: another process's load falls on neither side. Errors are of the values, the largest of an entry
(of plans the marginals', as a part of the mass; of losses relative), against references in float64 that share no code
with cvxift. Peers that cannot be imported are left out; those of JAX are in `tests.benchmarks.peers_jax`. ``--publish``
writes docs/argmax_peers.json and the section of docs/benchmark.md that is made of it.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import isotonic_regression

from cvxift import torch as ct

from . import argmax, report
from .machine import describe

ROOT = Path(__file__).resolve().parents[2]
SMALL = ((1, 10), (32, 10), (32, 64), (256, 10), (256, 1000))


class Case(NamedTuple):
    """A map, called by either side on the same argument, and what it should return."""

    name: str
    peer: str
    argument: torch.Tensor
    ours: Callable[[torch.Tensor], Any]
    theirs: Callable[[torch.Tensor], Any]
    error: Callable[[np.ndarray], float]
    backward: bool = True


def scores(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal scores."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def from_reference(reference: np.ndarray, relative: bool = False) -> Callable[[np.ndarray], float]:
    """The largest deviation of an entry."""
    scale = np.abs(reference).max() if relative else 1.0
    return lambda found: float(np.abs(found - reference).max() / scale)


def simplex() -> Iterator[Case]:
    """Sparsemax, 1.5-entmax, their losses and budgets, against entmax."""
    peer = importlib.import_module("entmax")
    for batch, n in SMALL:
        x, size = scores(batch, n), f"{batch}×{n}"
        wide = x.double().numpy()
        y = torch.zeros(batch, dtype=torch.long)
        one_hot = torch.nn.functional.one_hot(y, n).float()
        half, sparse = argmax.entmax(wide, 1.5), argmax.sparsemax(wide)
        losses = {
            1.5: np.sum((half - one_hot.numpy()) * wide + 4 / 3 * (half - half**1.5), axis=-1),
            2.0: np.sum((sparse - one_hot.numpy()) * wide + 0.5 * (sparse - sparse**2), axis=-1),
        }
        yield Case(
            f"sparsemax {size}", "entmax", x, ct.sparsemax, lambda v: peer.sparsemax(v, -1), from_reference(sparse)
        )
        yield Case(f"1.5-entmax {size}", "entmax", x, ct.entmax, lambda v: peer.entmax15(v, -1), from_reference(half))
        for alpha, theirs in ((1.5, peer.entmax15_loss), (2.0, peer.sparsemax_loss)):
            yield Case(
                f"loss, α = {alpha:g}, {size}", "entmax", x,
                lambda v, one_hot=one_hot, alpha=alpha: ct.fenchel_young_loss(v, one_hot, alpha),
                lambda v, y=y, theirs=theirs: theirs(v, y), from_reference(losses[alpha], relative=True),
            )  # fmt: skip
        if n > 3:
            yield Case(
                f"budget of 3, {size}", "entmax", x, lambda v: ct.budget(v, 3.0),
                lambda v: peer.budget_bisect(v, budget=3), from_reference(budget(wide, 3.0)),
            )  # fmt: skip


def budget(x: np.ndarray, total: float) -> np.ndarray:
    """Projection onto {0 ≤ z ≤ 1, Σ z = total} by bisection."""
    low, high = x.min(-1, keepdims=True) - 1, x.max(-1, keepdims=True)
    for _ in range(200):
        middle = (low + high) / 2
        more = np.clip(x - middle, 0, 1).sum(-1, keepdims=True) >= total
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return np.clip(x - low, 0, 1)


def sorting() -> Iterator[Case]:
    """Soft ranks and soft sorting against torchsort."""
    peer = importlib.import_module("torchsort")
    for batch, n in ((32, 10), (1, 100), (32, 100), (32, 1000), (1, 5000), (32, 5000)):
        x, size = scores(batch, n), f"{batch}×{n}"
        wide, down = x.double().numpy(), np.arange(n, 0.0, -1.0)
        for t in (0.1, 10.0):
            ranks = np.array([_soft(row / t, down) for row in wide])
            values = -np.array([_soft(down / t, np.sort(-row)[::-1]) for row in wide])
            strength = {"regularization_strength": t}
            yield Case(
                f"soft_rank {size}, t = {t:g}", "torchsort", x, lambda v, t=t: ct.soft_rank(v, t),
                lambda v, strength=strength: peer.soft_rank(v, **strength), from_reference(ranks, relative=True),
            )  # fmt: skip
            yield Case(
                f"soft_sort {size}, t = {t:g}", "torchsort", x, lambda v, t=t: ct.soft_sort(v, t),
                lambda v, strength=strength: peer.soft_sort(v, **strength), from_reference(values, relative=True),
            )  # fmt: skip


def _soft(s: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Projection of s onto the permutahedron of w, sorted decreasingly, by the definition in Blondel et al. 2020."""
    order = np.argsort(-s)
    z = np.empty_like(s)
    z[order] = s[order] - isotonic_regression(s[order] - w, increasing=False).x
    return z


def plans() -> Iterator[Case]:
    """Entropic plans against POT, both to marginals right to 64 roundings."""
    peer = importlib.import_module("ot")  # codespell:ignore ot
    for n in (32, 100, 200):
        near, far = np.random.default_rng(0).random((2, n, 2))
        cost = torch.cdist(torch.from_numpy(near), torch.from_numpy(far)) ** 2
        mass = torch.full((n,), 1 / n, dtype=torch.float64)
        for t in (0.1, 0.01):
            yield Case(
                f"transport {n}×{n}, t = {t:g}", "POT", cost, lambda v, t=t: ct.transport(-v, temperature=t),
                lambda v, t=t, mass=mass: peer.sinkhorn(
                    mass, mass, v, t, stopThr=1e-14, numItermax=20000, warn=False
                ),
                lambda z, n=n: float(max(np.abs(z.sum(axis) - 1 / n).sum() for axis in (0, 1))),
            )  # fmt: skip


def chains() -> Iterator[Case]:
    """Losses and best paths of linear chains against pytorch-crf."""
    peer = importlib.import_module("torchcrf")
    for batch, length, states in ((1, 50, 5), (1, 500, 5), (32, 50, 5), (32, 100, 20), (32, 100, 50)):
        crf = peer.CRF(states, batch_first=True)
        with torch.no_grad():
            crf.start_transitions.zero_()
            crf.end_transitions.zero_()
            crf.transitions.copy_(scores(states, states, seed=1))
        links = crf.transitions.detach().clone().requires_grad_()
        unary = scores(batch, length, states)
        path = torch.from_numpy(np.random.default_rng(2).integers(0, states, (batch, length)))
        size = f"{batch} of {length}×{states}"
        u, e = unary.double().numpy(), links.detach().double().numpy()
        total, best = u[:, 0], u[:, 0]
        for step in range(1, length):
            total = np.logaddexp.reduce(total[:, :, None] + e, axis=1) + u[:, step]
            best = np.max(best[:, :, None] + e, axis=1) + u[:, step]
        losses = np.logaddexp.reduce(total, axis=1) - _score(u, e, path.numpy())
        yield Case(
            f"chain loss, {size}", "pytorch-crf", unary,
            lambda v, links=links, path=path: ct.linear_chain_loss(v, links, path),
            lambda v, crf=crf, path=path: -crf(v, path, reduction="none"), from_reference(losses, relative=True),
        )  # fmt: skip
        yield Case(
            f"viterbi, {size}", "pytorch-crf", unary,
            lambda v, links=links: ct.viterbi(v, links.detach())[0], lambda v, crf=crf: torch.tensor(crf.decode(v)),
            lambda found, u=u, e=e, best=best: float(np.abs(_score(u, e, found) / best.max(axis=1) - 1).max()), False,
        )  # fmt: skip


def _score(u: np.ndarray, e: np.ndarray, path: np.ndarray) -> np.ndarray:
    own = np.take_along_axis(u, path.astype(int)[..., None], axis=-1)[..., 0].sum(-1)
    return own + e[path[:, :-1].astype(int), path[:, 1:].astype(int)].sum(-1)


def ragged() -> Iterator[Case]:
    """Sparsemax of groups of unequal length against the softmax that is written with scatter operations."""
    number, groups = 1_000_000, 100_000
    ids = torch.from_numpy(np.sort(np.random.default_rng(3).integers(0, groups, number)))

    def softmax(x: torch.Tensor) -> torch.Tensor:
        top = torch.full((groups,), -torch.inf).scatter_reduce(0, ids, x.detach(), "amax")
        z = torch.exp(x - top[ids])
        return z / torch.zeros(groups).scatter_add(0, ids, z)[ids]

    def error(z: np.ndarray) -> float:
        present = np.unique(ids.numpy())
        return float(np.abs(np.bincount(ids.numpy(), z, groups)[present] - 1).max())

    yield Case(
        "ragged sparsemax, 10⁶ entries, 10⁵ groups", "scatter softmax", scores(number),
        lambda v: ct.sparsemax(v, segments=ids, num_segments=groups), softmax, error,
    )  # fmt: skip


def race(ours: Callable[[], Any], theirs: Callable[[], Any], seconds: float) -> list[float]:
    """Best processor seconds of either, taking turns for so long."""
    best, until, turn = [np.inf, np.inf], time.perf_counter() + 2 * seconds, 0
    while turn < 5 or time.perf_counter() < until:
        for side, call in enumerate((ours, theirs)):
            start = time.process_time()
            call()
            if turn >= 2:
                best[side] = min(best[side], time.process_time() - start)
        turn += 1
    return best


def measured(case: Case, seconds: float) -> dict[str, Any]:
    """Times and errors of both sides."""
    sides = (case.ours, case.theirs)
    with torch.no_grad():
        errors = [case.error(side(case.argument).double().numpy()) for side in sides]
        forward = race(lambda: case.ours(case.argument), lambda: case.theirs(case.argument), seconds)
    row = {"name": case.name, "peer": case.peer, "forward": forward, "errors": errors}
    if case.backward:
        x = case.argument.clone().requires_grad_()
        bar = torch.randn_like(case.ours(x), generator=torch.Generator().manual_seed(0))

        def both(side: Callable[[torch.Tensor], torch.Tensor]) -> Any:
            return torch.autograd.grad(side(x), x, bar)

        row["both"] = race(lambda: both(case.ours), lambda: both(case.theirs), seconds)
    return row


def main() -> None:
    """Measure, print, publish."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=["*"], help="shell patterns of case names (default: all)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each side's turns, for each measurement")
    parser.add_argument("--publish", action="store_true", help="write into docs/")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    families: list[tuple[Any, Any]] = [(family, measured) for family in (simplex, sorting, plans, chains, ragged)]
    if importlib.util.find_spec("jax"):
        compiled = importlib.import_module(".peers_jax", __package__)
        families += [(family, compiled.measured) for family in compiled.FAMILIES]
    for family, measure in families:
        try:
            cases = list(family())
        except ImportError as missing:
            print(f"{family.__name__}: left out, {missing}")
            continue
        rows += [measure(c, chosen.seconds) for c in cases if any(fnmatch.fnmatch(c.name, p) for p in chosen.cases)]
    data = {"machine": describe(), "cases": rows}
    text = report.peers(data)
    print(text)
    if chosen.publish:
        (ROOT / "docs" / "argmax_peers.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        report.replace_section(ROOT / "docs" / "benchmark.md", text)


if __name__ == "__main__":
    main()
