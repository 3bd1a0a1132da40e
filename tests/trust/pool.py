"""Judges cases in worker processes: a case that hangs or ends its process costs that case alone."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

FAULTS = ("silent", "untold", "crash", "hang", "broken")
"""Kinds of answers that must not happen at all."""
LIMIT = 60.0  # seconds for one case, after which it counts as one that hangs
RENEWED = 300  # cases after which a worker is replaced, so that memory does not pile up


@dataclass(frozen=True)
class Judged:
    """A case and how it was answered; plain data, for a line of JSON.

    Attributes:
        case: family:seed.
        truth: what the reference says of the point.
        degenerate: whether it is degenerate by construction.
        other_units: whether it is stated in other units.
        findings: mode, kind and detail of each answer.
        seconds: what it took.
    """

    case: str
    truth: str
    degenerate: bool
    other_units: bool
    findings: list[dict[str, str]]
    seconds: float


def judged(name: str) -> Judged:
    """Judge one case in this process."""
    from .judge import judge
    from .kit import Case

    case, start = Case.of(name), time.perf_counter()
    truth, findings = judge(case)
    found = [asdict(finding) for finding in findings]
    return Judged(name, truth, case.degenerate, case.other_units, found, time.perf_counter() - start)


def _work(pipe: Connection) -> None:
    import os
    import sys

    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # solvers print; it stays open as long as the process
    while (name := pipe.recv()) is not None:
        try:
            pipe.send(judged(name))
        except Exception as error:  # noqa: BLE001  # a fault of the adversary itself must not end the run
            finding = {"mode": "adversary", "kind": "broken", "detail": f"{type(error).__name__}: {error}"[:300]}
            pipe.send(_empty(name, finding))


def _empty(name: str, finding: dict[str, str]) -> Judged:
    from .kit import Case

    case = Case.of(name)
    return Judged(name, "unclear", case.degenerate, case.other_units, [finding], 0.0)


class _Worker:
    def __init__(self, context: Any) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.name: str | None = None
        self.since, self.done = time.monotonic(), 0

    def give(self, name: str) -> None:
        self.name, self.since = name, time.monotonic()
        self.pipe.send(name)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run(names: Iterable[str], jobs: int, limit: float = LIMIT) -> Iterator[Judged]:
    """Judge cases in so many processes, in the order in which they end.

    Args:
        names: the cases.
        jobs: worker processes; with 0 the cases are judged in this one, without limit.
        limit: seconds a case.

    Yields:
        The judged cases.
    """
    if not jobs:
        yield from map(judged, names)
        return
    context, waiting = multiprocessing.get_context("spawn"), iter(names)
    workers = [_Worker(context) for _ in range(jobs)]
    try:
        while True:
            for index, worker in enumerate(workers):
                if worker.name is None:
                    if worker.done >= RENEWED:
                        worker.stop()
                        workers[index] = worker = _Worker(context)
                    name = next(waiting, None)
                    if name is not None:
                        worker.give(name)
            busy = [worker for worker in workers if worker.name is not None]
            if not busy:
                return
            ready = set(wait([worker.pipe for worker in busy], timeout=1.0))
            for worker in busy:
                result = _result(worker, worker.pipe in ready, limit)
                if result is not None:
                    if worker.process.is_alive():
                        worker.name, worker.done = None, worker.done + 1
                    else:
                        workers[workers.index(worker)] = _Worker(context)
                    yield result
    finally:
        for worker in workers:
            worker.stop()


def _result(worker: _Worker, ready: bool, limit: float) -> Judged | None:
    name = worker.name
    assert name is not None
    if ready:
        try:
            return worker.pipe.recv()
        except EOFError:
            worker.stop()
            return _empty(name, {"mode": "process", "kind": "crash", "detail": "the process ended"})
    first = 120.0 if worker.done == 0 else 0.0  # importing
    if time.monotonic() - worker.since > limit + first:
        worker.stop()
        return _empty(name, {"mode": "process", "kind": "hang", "detail": f"no answer within {limit:.0f} s"})
    return None
