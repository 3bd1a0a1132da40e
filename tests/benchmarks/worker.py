"""One contender on one case in a process of its own; takes orders from ``measure`` through a pipe.

Orders: ``prepare``, ``start``, ``round`` (seconds), ``results`` (path), ``reference`` (path), ``stop``. Every
order is answered by zero or more ``("begin", phase)`` and ``("phase", name, seconds)``, and one
``("done", payload)`` or ``("failed", kind, message)``.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from .contenders import Contender, Unsupported
from .model import Case, Reference


def memory() -> tuple[int, int]:
    """Resident bytes of this process now and at most.

    On Linux both come from /proc: ``ru_maxrss`` survives exec and would start at the size of the parent.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return peak, peak
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024


class Session:
    """The contender between orders."""

    def __init__(self, case: Case, make: Callable[[Case], Contender], tell: Callable[..., None]):
        """Prepare data and imports; nothing here is timed."""
        self.case, self.tell = case, tell
        self.contender = make(case)
        self.call = 0
        self.kept: dict[int, dict[str, np.ndarray]] = {}  # x and gradients of the draws that were called
        gc.collect()
        self.before = memory()[0]

    def _timed(self, phase: str, function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
        self.tell("begin", phase)
        start = time.perf_counter()
        value = function(*args)
        seconds = time.perf_counter() - start
        self.tell("phase", phase, seconds)
        return value, seconds

    def start(self) -> dict[str, float]:
        """Build, call once each way, and report the three times."""
        times = {"build": self._timed("build", self.contender.build)[1]}
        x, times["first"] = self._timed("forward", self.contender.forward, 0)
        gradients = None
        try:
            gradients, times["first_backward"] = self._timed("backward", self.contender.backward, 0)
            self.both = True
        except Unsupported:
            self.both = False
        self._keep(0, x, gradients)
        self.length = sum(times.values()) - times["build"]
        return times

    def _keep(self, draw: int, x: np.ndarray | None, gradients: Sequence[np.ndarray] | None) -> None:
        if draw in self.kept or draw >= self.case.reference_draws:
            return
        arrays = {} if x is None else {f"x_{draw}": np.array(x)}
        self.kept[draw] = arrays | {f"g{i}_{draw}": np.array(g) for i, g in enumerate(gradients or ())}

    def round(self, seconds: float) -> dict[str, list[float]]:
        """Call for about ``seconds``, at least once, cycling through the draws."""
        forward: list[float] = []
        backward: list[float] = []
        self.tell("begin", "a later call")
        gc.collect()
        end = time.perf_counter() + seconds
        while not forward or time.perf_counter() + self.length < end:
            self.call += 1
            draw = self.call % self.case.draws
            gradients = None
            start = time.perf_counter()
            x = self.contender.forward(draw)
            middle = time.perf_counter()
            if self.both:
                gradients = self.contender.backward(draw)
                backward.append(time.perf_counter() - middle)
            forward.append(middle - start)
            self.length = min(self.length, time.perf_counter() - start)
            self._keep(draw, x, gradients)
        return {"forward": forward, "backward": backward}

    def results(self, path: str) -> dict[str, int]:
        """Write x and gradients of the draws that were called, and report the memory used so far."""
        peak = memory()[1]
        arrays = {name: array for kept in self.kept.values() for name, array in kept.items()}
        np.savez(path, allow_pickle=False, **arrays)
        return {"peak": peak, "before": self.before}


def save_reference(case: Case, path: str) -> None:
    """Compute and write the references of every draw that has one."""
    arrays: dict[str, Any] = {}
    for draw in range(case.reference_draws):
        reference = case.reference(draw)
        arrays |= {f"x_{draw}": reference.x, f"regular_{draw}": reference.regular, f"note_{draw}": reference.note}
        arrays |= {f"g{i}_{draw}": g for i, g in enumerate(reference.gradients)}
        arrays |= {f"extra_{draw}_{key}": value for key, value in (reference.extra or {}).items()}
    np.savez(path, **arrays)


def load_reference(case: Case, path: Path) -> list[Reference]:
    """Read what ``save_reference`` wrote."""
    references = []
    with np.load(path) as data:
        for draw in range(case.reference_draws):
            gradients = []
            while f"g{len(gradients)}_{draw}" in data:
                gradients.append(data[f"g{len(gradients)}_{draw}"])
            prefix = f"extra_{draw}_"
            extra = {key.removeprefix(prefix): data[key] for key in data.files if key.startswith(prefix)}
            regular, note = bool(data[f"regular_{draw}"]), str(data[f"note_{draw}"])
            references.append(Reference(data[f"x_{draw}"], tuple(gradients), regular, note, extra))
    return references


def describe(error: BaseException) -> str:
    """First sentence of an error, with its type."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def main(pipe: Connection, case: Case, make: Callable[[Case], Contender] | None, verbose: bool) -> None:
    """Serve orders until told to stop."""
    if not verbose:
        # Solvers print from C; silence the descriptors and not only Python's streams.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        warnings.simplefilter("ignore")
    session: Session | None = None
    while True:
        order, *args = pipe.recv()
        if order == "stop":
            return
        try:
            if order == "reference":
                payload: Any = save_reference(case, *args)
            elif order == "prepare":
                assert make is not None
                session = Session(case, make, lambda *event: pipe.send(event))
                payload = None
            else:
                payload = getattr(session, order)(*args)
        except Unsupported as reason:
            pipe.send(("failed", "unsupported", str(reason)))
            return
        except Exception as error:  # noqa: BLE001  (whatever a contender raises is its result, and is reported)
            pipe.send(("failed", "error", describe(error)))
            return
        pipe.send(("done", payload))
