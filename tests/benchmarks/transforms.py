"""Which transforms of PyTorch and JAX take a layer, cvxift beside cvxpylayers.

Run as ``python -m tests.benchmarks.transforms``.

The problem is a least-squares fit with one equality and one active inequality,

    minimize ‖A x − b‖²   subject to   1ᵀx = 1,  x₁ ≥ 1/2,

whose solution near the data is that of one linear system, which each framework differentiates by itself: that is what
every cell is compared with. Each contender runs in a process of its own, which a crash or a hang costs one cell.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import multiprocessing as mp
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX"}
CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "cvxift": ("cvxift", {}),
    "cvxpylayers": ("cvxpylayers", {}),
    "cvxpylayers + Moreau": ("cvxpylayers", {"solver": "MOREAU"}),
}
PACKAGES = ("cvxpylayers", "diffcp", "moreau", "cvxpy", "torch", "jax", "numpy")
LIMIT = 120.0  # seconds for one cell, imports included
TOLERANCE = 1e-3  # relative: the peers' own tolerances leave 1e-5 or so
WIDTH = 110  # characters of an error that the table shows
WORKS = "works"

Cell = Callable[[Any], None]


class Wrong(Exception):
    """A transform that returns something else than the derivative."""


def problem() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """The problem, its parameters and its variable."""
    x, A, b = cp.Variable(3), cp.Parameter((5, 3)), cp.Parameter(5)
    half = np.array([1.0, 0.0, 0.0])
    constraints: list[Any] = [cp.sum(x) == 1, half @ x >= 0.5]
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), constraints), [A, b], [x]


def values(batch: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A (5, 3) and b (5,) for which x₁ ≥ 1/2 is active, or a batch of them nearby."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((5, 3))
    b = A @ np.array([-0.5, 0.8, 0.7]) + 0.1 * rng.standard_normal(5)
    if batch is None:
        return A, b
    return A + 0.05 * rng.standard_normal((batch, 5, 3)), b + 0.05 * rng.standard_normal((batch, 5))


def close(actual: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Compare arrays, or equal structures of arrays.

    Raises:
        Wrong: shapes or values differ.
    """
    if isinstance(expected, (list, tuple)):
        if len(actual) != len(expected):
            raise Wrong(f"{len(actual)} results for {len(expected)}")
        for one, other in zip(actual, expected, strict=True):
            close(one, other, tolerance)
        return
    one, other = (np.asarray(getattr(v, "detach", lambda v=v: v)(), dtype=float) for v in (actual, expected))
    if one.shape != other.shape:
        raise Wrong(f"shape {one.shape} for {other.shape}")
    error = float(np.abs(one - other).max(initial=0.0)) / (1e-12 + float(np.abs(other).max(initial=0.0)))
    if not error <= tolerance:
        raise Wrong(f"relative error {error:.1g}")


def first_line(error: BaseException) -> str:
    """Type and first line of an error, fit for a table."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = text if len(text) <= WIDTH else text[:WIDTH].rsplit(" ", 1)[0] + " …"
    return f"`{type(error).__name__}`: {text}".replace("|", "\\|") if text else f"`{type(error).__name__}`"


def run(cell: Cell, make: Callable[[], Any]) -> str:
    """What one cell of the table says."""
    try:
        cell(make())
    except Wrong as wrong:
        return f"wrong: {wrong}"
    except Exception as error:  # noqa: BLE001  # what a contender raises, whatever it is, is the cell
        return first_line(error)
    return WORKS


def serve(pipe: Connection, framework: str, contender: str, names: list[str]) -> None:
    """The process of one contender: answers every name with its cell."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(sink.fileno(), 2)
        cells = importlib.import_module(f"tests.benchmarks.transforms_{framework}").CELLS
        package, options = CONTENDERS[contender]

        def make() -> Any:
            layers = importlib.import_module(f"{package}.{framework}")
            stated, parameters, variables = problem()
            return layers.CvxpyLayer(stated, parameters=parameters, variables=variables, **options)

        for name in names:
            pipe.send(run(cells[name], make))


def column(framework: str, contender: str, names: list[str]) -> Iterator[tuple[str, str]]:
    """All cells of one contender; a crash or a hang is a cell, and the next ones get a new process."""
    context = mp.get_context("spawn")
    rest = list(names)
    while rest:
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, framework, contender, rest))
        process.start()
        theirs.close()
        while rest:
            if not ours.poll(LIMIT):
                process.kill()
                outcome = f"hangs (over {LIMIT:.0f} s)"
            else:
                try:
                    outcome = ours.recv()
                except EOFError:
                    process.join()
                    outcome = f"crashes (exit code {process.exitcode})"
            yield rest.pop(0), outcome
            if outcome.startswith(("hangs", "crashes")):
                break
        process.join()


def names_of(framework: str) -> list[str]:
    """The rows of a framework's table."""
    return list(importlib.import_module(f"tests.benchmarks.transforms_{framework}").CELLS)


def table(framework: str, cells: dict[str, dict[str, str]]) -> str:
    """One framework's table in Markdown."""
    contenders = list(cells)
    lines = [f"| {FRAMEWORKS[framework]} | " + " | ".join(contenders) + " |", "|---" * (1 + len(contenders)) + "|"]
    lines += [f"| {name} | " + " | ".join(cells[c][name] for c in contenders) + " |" for name in names_of(framework)]
    counts = [f"{c}: {sum(v == WORKS for v in cells[c].values())} of {len(cells[c])}" for c in contenders]
    return "\n".join(lines) + "\n\nWorks: " + "; ".join(counts) + ".\n"


def page(results: dict[str, dict[str, dict[str, str]]]) -> str:
    """The page of the documentation."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    text = f"""# Transforms

What each framework's transforms do with a layer, compared with [cvxpylayers](https://github.com/cvxpy/cvxpylayers)
with its default solver and with Moreau. `python -m tests.benchmarks.transforms --out docs/transforms.md` writes this
page. It runs every cell and compares the returned values and derivatives with the closed form of the problem's solution
differentiated by the framework itself, to a relative error of {TOLERANCE:g}. *works* means that; otherwise the cell
holds the error. How the layers are called: [PyTorch](torch.md), [JAX](jax.md).

"""
    for framework, cells in results.items():
        text += f"## {FRAMEWORKS[framework]}\n\n{table(framework, cells)}\n"
    return text + f"Versions: {versions}; Python {sys.version.split()[0]}.\n"


def main() -> None:
    """Run the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.transforms", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "transforms.md", help="the page to write")
    parser.add_argument("--frameworks", nargs="*", default=list(FRAMEWORKS), choices=list(FRAMEWORKS))
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"  # for the row of a sharded batch
    results: dict[str, dict[str, dict[str, str]]] = {}
    for framework in args.frameworks:
        results[framework] = {}
        for contender in CONTENDERS:
            names = names_of(framework)
            cells = results[framework][contender] = {}
            for name, outcome in tqdm(column(framework, contender, names), f"{framework} {contender}", len(names)):
                cells[name] = outcome
    args.out.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    # The processes of the contenders import this module by its name; so must this one, or there are two `Wrong`.
    importlib.import_module("tests.benchmarks.transforms").main()
