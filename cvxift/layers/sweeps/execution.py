"""Tasks handed to joblib's active backend, a few at a time; a worker that dies costs its tasks an attempt, not the run.

loky and Dask hand over `concurrent.futures.Executor`s, whose futures tell of a dead worker. Other backends registered
with joblib (Ray's, for one) are asked through `joblib.Parallel`, so many tasks a call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from cvxift.errors import ProgramError

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

AHEAD = 2  # tasks a worker that are handed over at once
_DEATHS = {"BrokenExecutor", "KilledWorker", "WorkerCrashedError", "CancelledError"}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Died:
    """In place of an outcome: the worker died while it had the task."""


def outcomes(
    work: Callable[[Task], Outcome], tasks: Iterable[Task], n_jobs: int, alone: bool = False
) -> Iterator[tuple[Task, Outcome | Died]]:
    """work(task) for every task, in the order in which they end.

    Args:
        work: takes a task; must be pickled, and handle its own errors.
        tasks: read as they are needed, in the calling thread; what reading raises is raised here after those that
            were handed over have ended.
        n_jobs: number of workers; −1 for the cores, or for a cluster's workers. 1 works in this process.
        alone: one task at a time, in another process, so that a worker that dies tells which task it had.

    Yields:
        The task and its outcome.
    """
    if n_jobs == 1 and not alone:
        yield from ((task, work(task)) for task in tasks)
        return
    backend = _joblib().parallel.get_active_backend()[0]
    client, name = getattr(backend, "client", None), type(backend).__name__
    if client is None and name != "LokyBackend":
        yield from _waves(work, tasks, n_jobs, alone)
        return
    rest = iter(tasks)
    while True:
        with _executor(client, n_jobs) as (executor, workers):
            broken = yield from _through(executor, 1 if alone else AHEAD * workers, work, rest)
        if not broken:
            return


def _through(executor: Executor, most: int, work: Any, rest: Iterator[Any]) -> Iterator[Any]:
    """Hand tasks to an executor until there are no more, or it is broken; returns whether it is."""
    running: dict[Any, Any] = {}
    error, more, broken = None, True, False
    while more or running:
        while more and len(running) < most:
            try:
                task = next(rest)
            except StopIteration:
                more = False
                break
            except Exception as found:  # noqa: BLE001  # raised below, after what runs has ended
                more, error = False, found
                break
            try:
                running[executor.submit(work, task)] = task
            except Exception as found:
                if not _is_death(found):
                    raise
                more, broken = False, True
                yield task, Died()
        for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
            task = running.pop(future)
            found = future.exception()
            if found is None:
                yield task, future.result()
            elif _is_death(found):
                broken, more = True, more and hasattr(executor, "_client")
                yield task, Died()
            else:
                raise found
    if error is not None:
        raise error
    return broken and not hasattr(executor, "_client")


@contextmanager
def _executor(client: Any, n_jobs: int) -> Iterator[tuple[Executor, int]]:
    """An executor of the backend, and how many tasks it runs at once."""
    if client is not None:
        yield client.get_executor(pure=False), max(1, sum(client.ncores().values()))
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = n_jobs if n_jobs > 0 else max(1, cores + 1 + n_jobs)
    threads = {name: os.environ.get(name, str(max(1, cores // workers))) for name in _THREADS}
    executor = _joblib().externals.loky.ProcessPoolExecutor(max_workers=workers, env=threads)
    try:
        yield executor, workers
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def _waves(work: Any, tasks: Iterable[Any], n_jobs: int, alone: bool) -> Iterator[Any]:
    """Through `joblib.Parallel`, for backends that have no futures."""
    joblib = _joblib()
    size = 1 if alone else AHEAD * 2 * max(1, joblib.effective_n_jobs(n_jobs))
    rest = iter(tasks)
    with joblib.Parallel(n_jobs=n_jobs, batch_size=1, max_nbytes=None) as parallel:
        while wave := [task for _, task in zip(range(size), rest)]:
            try:
                found = parallel(joblib.delayed(work)(task) for task in wave)
            except Exception as error:
                if not _is_death(error):
                    raise
                found = [Died()] * len(wave)
            yield from zip(wave, found, strict=True)


def _is_death(error: BaseException) -> bool:
    """Whether an exception says that a worker died; by name, because the backends' packages may be missing."""
    return any(kind.__name__ in _DEATHS for kind in type(error).__mro__)


def _joblib() -> Any:
    try:
        import joblib
        import joblib.externals.loky
    except ImportError as error:
        raise ProgramError("A sweep over several workers needs joblib: pip install 'cvxift[sweep]'.") from error
    return joblib
