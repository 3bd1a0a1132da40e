"""Runs contenders on a case side by side: starts the workers, gives them turns, enforces limits, collects numbers."""

from __future__ import annotations

import hashlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import worker
from .contenders import Contender
from .model import Array, Case, Reference, errors

MEMORY_LIMIT = 8 * 2**30  # bytes resident; a contender beyond is stopped, so that it does not take the machine along


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: turns that every contender gets at most.
        turn: seconds that one turn aims at.
        limit: seconds that one contender may spend on one case.
        reference_limit: seconds for the reference of one case.
    """

    rounds: int = 9
    turn: float = 0.35
    limit: float = 60.0
    reference_limit: float = 600.0


def _context() -> multiprocessing.context.BaseContext:
    """Processes forked from a clean server that has done the imports common to all, or spawned where there is none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cvxpy", "scipy.sparse.linalg", "torch"])
    return context


class Stopped(Exception):
    """A worker was stopped or stopped itself; kind is timeout, memory, error, unsupported or crash."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


@dataclass
class Worker:
    """The parent's end of one worker process."""

    case: Case
    make: Callable[[Case], Contender] | None
    limit: float
    verbose: bool = False
    spent: float = 0.0
    phase: str = "start"
    phases: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start the process, fresh, so that it holds nothing of its parent."""
        context = _context()
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=worker.main, args=(other, self.case, self.make, self.verbose), daemon=True
        )
        self._process.start()
        other.close()

    def order(self, *order: Any, free: bool = False) -> Any:
        """Give an order and wait for its answer within what is left of the limit (``free``: outside of it)."""
        self._pipe.send(order)
        start = time.monotonic()
        left = max(self.limit, 60.0) if free else self.limit - self.spent
        try:
            while True:
                if self._pipe.poll(0.05):
                    event, *args = self._pipe.recv()
                    if event == "begin":
                        self.phase = args[0]
                    elif event == "phase":
                        self.phases[args[0]] = args[1]
                    elif event == "done":
                        return args[0]
                    else:
                        raise Stopped(*args)
                elif time.monotonic() - start > left:
                    raise Stopped("timeout", f"in {self.phase}, after {self.limit:g} s")
                elif self._resident() > MEMORY_LIMIT:
                    raise Stopped("memory", f"in {self.phase}, beyond {MEMORY_LIMIT / 2**30:g} GiB")
        except EOFError:
            self._process.join(5)
            raise Stopped("crash", f"in {self.phase}, exit code {self._process.exitcode}") from None
        finally:
            if not free:
                self.spent += time.monotonic() - start

    def _resident(self) -> int:
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        except OSError:
            return 0
        return int(pages) * 4096

    def close(self) -> None:
        """End the process, gently if it listens."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _compute_reference(case: Case, path: Path, limit: float, verbose: bool) -> Stopped | None:
    process = Worker(case, None, limit, verbose)
    partial = path.with_suffix(".partial.npz")
    try:
        process.order("reference", str(partial))
    except Stopped as stopped:
        return stopped
    finally:
        process.close()
    partial.replace(path)
    return None


def reference_of(case: Case, cache: Path, limit: float, verbose: bool = False) -> list[Reference] | str:
    """References of a case's draws, cached as long as their code is the same; or why there are none."""
    sources = sorted(p for p in Path(__file__).parent.rglob("*.py") if p.parent.name in ("references", "cases"))
    key = hashlib.sha256(repr(case).encode() + b"".join(p.read_bytes() for p in sources)).hexdigest()[:20]
    path = cache / f"{case.name}-{key}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        failure = _compute_reference(case, path, limit, verbose)
        if failure is not None and failure.kind == "crash":  # compiled factorizations have been seen to crash at random
            failure = _compute_reference(case, path, limit, verbose)
        if failure is not None:
            return f"{failure.kind}: {failure}"
    return worker.load_reference(case, path)


def compare(case: Case, references: list[Reference], found: Mapping[str, Array]) -> dict[str, float]:
    """Worst error over the draws of x and of the gradient with respect to every parameter."""
    worst: dict[str, float] = {}
    for draw, reference in enumerate(references):
        if f"x_{draw}" not in found:
            continue
        gradients = []
        while f"g{len(gradients)}_{draw}" in found:
            gradients.append(found[f"g{len(gradients)}_{draw}"])
        for key, error in errors(case, reference, found[f"x_{draw}"], gradients or None).items():
            worst[key] = float(np.maximum(worst.get(key, 0.0), error))
    return worst


def summarize(times: list[float]) -> dict[str, float]:
    """Median, quartiles and count."""
    ordered = sorted(times)
    middle = statistics.median(ordered)
    quarter = len(ordered) // 4
    return {"median": middle, "low": ordered[quarter], "high": ordered[-1 - quarter], "calls": len(ordered)}


def measure(
    case: Case,
    contenders: Mapping[str, Callable[[Case], Contender]],
    effort: Effort,
    cache: Path,
    verbose: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run contenders on one case, taking turns.

    Args:
        case: the case.
        contenders: factories by name; picklable.
        effort: how long.
        cache: folder for references.
        verbose: let workers print.
        say: told what is going on.

    Returns:
        JSON-ready record of the case: its reference and, for each contender, status, times, errors and memory.
    """
    say(f"{case.name}: reference")
    references = reference_of(case, cache, effort.reference_limit, verbose)
    record: dict[str, Any] = {"name": case.name, "group": case.group, "batch": case.batch, "contenders": {}}
    if isinstance(references, str):
        record["reference"] = {"regular": None, "note": references}
        references = []
    else:
        record["reference"] = {"regular": all(r.regular for r in references), "note": references[0].note}
    rows: dict[str, dict[str, Any]] = {name: {} for name in contenders}
    workers: dict[str, Worker] = {}
    times: dict[str, dict[str, list[float]]] = {}
    for name, make in contenders.items():
        workers[name] = Worker(case, make, effort.limit, verbose)
    for name, process in list(workers.items()):
        say(f"{case.name}: {name}")
        try:
            process.order("prepare", free=True)
            rows[name] |= process.order("start")
            times[name] = {"forward": [], "backward": []}
        except Stopped as stopped:
            _drop(workers, rows, name, stopped)
    for turn in range(effort.rounds):
        for name in list(workers):
            process = workers[name]
            # What takes long is measured fewer times: beyond three turns' length thrice, beyond 10 s just once.
            each = rows[name]["first"] + rows[name].get("first_backward", 0.0)
            if (turn >= 3 and each > 3 * effort.turn) or (turn >= 1 and each > 10.0):
                continue
            if process.limit - process.spent < 1.5 * each:
                continue
            say(f"{case.name}: {name}, round {turn + 1}")
            try:
                for key, values in process.order("round", effort.turn).items():
                    times[name][key] += values
            except Stopped as stopped:
                _drop(workers, rows, name, stopped)
    with tempfile.TemporaryDirectory() as folder:
        for name in list(workers):
            process, path = workers[name], Path(folder) / "results.npz"
            try:
                memory = process.order("results", str(path), free=True)
                rows[name] |= {"status": "ok", "memory": memory["peak"] - memory["before"], "peak": memory["peak"]}
                with np.load(path) as data:
                    found = dict(data)
                rows[name]["errors"] = compare(case, references, found)
                rows[name] |= case.judge(references[0], found) if references else {}
            except Stopped as stopped:
                _drop(workers, rows, name, stopped)
                continue
            process.close()
    for name, both in times.items():
        for key, values in both.items():
            if values:
                rows[name][key] = summarize(values)
    # Too slow for a second call: the first stands for the median.
    for row in rows.values():
        for key, first in (("forward", "first"), ("backward", "first_backward")):
            if key not in row and first in row:
                row[key] = {"median": row[first], "low": row[first], "high": row[first], "calls": 1}
    record["contenders"] = rows
    return record


def _drop(workers: dict[str, Worker], rows: dict[str, dict[str, Any]], name: str, stopped: Stopped) -> None:
    process = workers.pop(name)
    process.close()
    rows[name] |= {"status": stopped.kind, "message": str(stopped)}
    renamed = {"build": "build", "forward": "first", "backward": "first_backward"}
    rows[name] |= {renamed[key]: value for key, value in process.phases.items()}
