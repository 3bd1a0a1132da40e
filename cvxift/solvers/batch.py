"""Batches: every instance is solved and reported for itself, in threads where the solver runs outside Python's lock."""

from __future__ import annotations

import itertools
import os
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from cvxift._types import Floats
from cvxift.program.structure import Data
from cvxift.solvers.base import Raw, Session

# A solve shorter than this is mostly Python, which holds the lock: threads would only wait for each other.
_THREADS_FROM = 60e-6  # seconds per instance
_WORTH_A_THREAD = 500e-6  # seconds of work left

_BLAS_LIMITS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")  # read when the library is loaded

T = TypeVar("T")

_executor: ThreadPoolExecutor | None = None


def cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shared_executor() -> ThreadPoolExecutor:
    global _executor
    if _executor is None:
        _executor = ThreadPoolExecutor(max_workers=cores(), thread_name_prefix="cvxift")
    return _executor


def _forget_executor() -> None:
    """In a forked child the executor's threads do not exist: start new ones when needed."""
    global _executor
    _executor = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_executor)


def run(work: Callable[[int], T], count: int, workers: int | None = None) -> list[T]:
    """work(0), …, work(count − 1), in the calling thread and others that are kept for all such calls.

    Args:
        work: takes the number of an instance; an exception it raises is raised here, after all threads have ended.
        count: number of instances.
        workers: at most so many threads, the calling one included; default: the cores this process may use.

    Returns:
        The results in order.

    Example:
        >>> run(lambda i: i * i, 4)
        [0, 1, 4, 9]
    """
    results: list[T] = [None] * count  # type: ignore[list-item]  # each is filled below
    numbers = itertools.count()  # next() is atomic: threads draw the next instance from it

    def draw() -> None:
        for i in numbers:
            if i >= count:
                return
            results[i] = work(i)

    helpers = min(workers or cores(), count) - 1
    futures = [_shared_executor().submit(draw) for _ in range(helpers)]
    try:
        draw()
    finally:
        # A helper that has not begun has nothing left to do, and may never begin if this thread is itself a helper.
        waited = [future for future in futures if not future.cancel()]
        wait(waited)
    for future in waited:
        future.result()
    return results


def blas_threads() -> bool:
    """Whether the linear algebra library may start threads of its own; unknown counts as yes.

    Its threads and those of a batch multiply, and then wait for each other: instances whose time goes into dense linear
    algebra are better taken one by one.
    """
    limits = [os.environ.get(name) for name in _BLAS_LIMITS]
    known = [limit for limit in limits if limit]
    return cores() > 1 and not (known and all(limit == "1" for limit in known))


class Pool:
    """Sessions of one solver on one structure, opened as needed and kept; safe to use from several threads.

    Args:
        open_session: opens a session, such as ``lambda: get("daqp").session(structure)``; called once at the start.
        workers: at most so many threads for a batch; default: the cores this process may use.

    Example:
        >>> import numpy as np
        >>> from cvxift.program.cones import Cones
        >>> from cvxift.program.structure import Data, Structure
        >>> from cvxift.solvers import Pool, get
        >>> structure = Structure.from_patterns(1, Cones(nonneg=1), P=([0], [0]), A=([0], [0]))
        >>> pool = Pool(lambda: get("clarabel").session(structure))                   # minimize ½x² + qx, x ≤ 1
        >>> data = Data(np.ones((2, 1)), np.array([[-0.5], [-3.0]]), np.ones((2, 1)), np.ones((2, 1)), np.zeros(2))
        >>> [round(float(raw.x[0]), 6) for raw in pool.solve_batch(data)]
        [0.5, 1.0]
    """

    def __init__(self, open_session: Callable[[], Session], workers: int | None = None) -> None:
        self._open = open_session
        self.workers = workers or cores()
        self._free: queue.SimpleQueue[Session] = queue.SimpleQueue()
        first = open_session()
        self._parallel = first.releases_gil
        self._whole = first.solves_batches
        self._free.put(first)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session that nobody else uses meanwhile."""
        try:
            session = self._free.get_nowait()
        except queue.Empty:
            session = self._open()
        try:
            yield session
        finally:
            self._free.put(session)

    def solve(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None = None) -> Raw:
        """Solve one instance; P, q, A, b and warm are those of `Session.solve`."""
        with self.session() as session:
            return session.solve(P, q, A, b, warm)

    def solve_batch(self, data: Data, warm: Sequence[Raw | None] | None = None) -> list[Raw]:
        """Solve every instance of a batch.

        Args:
            data: values with leading batch dimensions, shapes (..., nnzP), (..., n), (..., nnzA), (..., m).
            warm: for each instance a point to start from, or None.

        Returns:
            One `Raw` for each instance, in C order of the batch dimensions.
        """
        size = 1
        for length in data.batch_shape:
            size *= length
        if size == 0:
            return []
        P, q, A, b = (part.reshape(size, part.shape[-1]) for part in (data.P, data.q, data.A, data.b))
        points: Sequence[Raw | None] = [None] * size if warm is None else warm
        if len(points) != size:
            raise ValueError(f"warm has {len(points)} points; expected one for each of the {size} instances.")
        if self._whole:
            with self.session() as session:
                return session.solve_batch(P, q, A, b, points)
        first = self.solve(P[0], q[0], A[0], b[0], points[0])

        helpers = self._helpers(size - 1, first.seconds)
        if not helpers:  # one session for all: taking it costs a tenth of a small solve
            with self.session() as session:
                return [first, *session.solve_batch(P[1:], q[1:], A[1:], b[1:], points[1:])]

        def one(i: int) -> Raw:
            with self.session() as session:
                return session.solve(P[i + 1], q[i + 1], A[i + 1], b[i + 1], points[i + 1])

        return [first, *run(one, size - 1, 1 + helpers)]

    def _helpers(self, instances: int, seconds: float) -> int:
        """How many threads to add to the calling one."""
        if not self._parallel or seconds < _THREADS_FROM:
            return 0
        return max(0, min(self.workers - 1, instances - 1, int(instances * seconds / _WORTH_A_THREAD)))
