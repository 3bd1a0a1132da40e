"""`sweep`: a problem solved, differentiated and reported at many parameter values, over processes or machines."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import cvxpy as cp
import numpy as np

from cvxift.argmax.closed_form.closed_map import ClosedForm
from cvxift.errors import ProgramError, warn_user
from cvxift.kkt.policy import Iterative, LinearSolver, Policy, Singular
from cvxift.layers.sweeps.block import Columns, joined
from cvxift.layers.sweeps.execution import Died, outcomes
from cvxift.layers.sweeps.plan import Pairs, Plan, Values, Whole, counted, plan, theta_blocks
from cvxift.layers.sweeps.results import Sweep
from cvxift.layers.sweeps.shards import BrokenShard, Folder, digest
from cvxift.program.structure import Floats


@dataclass(frozen=True, eq=False)
class Task:
    """A shard, or a part of one, for a worker.

    Attributes:
        number: of the shard.
        theta: shape (b, N).
        bars: cotangents, shape (b, K) or (K,); None without.
        solver: the pickled `BlockSolver`.
        folder: where the worker writes the shard; None to hand its columns back.
        first: its first instance in the shard.
    """

    number: int
    theta: Floats
    bars: Floats | None
    solver: bytes
    folder: Folder | None
    first: int = 0

    @property
    def digest(self) -> str:
        """Of the values that the shard is computed from."""
        return digest(self.theta, self.bars)

    def halves(self) -> list[Task]:
        """Its halves, whose columns are handed back."""
        middle, out = len(self.theta) // 2, []
        for rows in (slice(0, middle), slice(middle, None)):
            bars = self.bars if self.bars is None or self.bars.ndim == 1 else self.bars[rows]
            first = self.first + (rows.start or 0)
            out.append(replace(self, theta=self.theta[rows], bars=bars, folder=None, first=first))
        return out


def compute(task: Task) -> Columns | None:
    """Solve a task; its columns, or None where it wrote them itself."""
    bars = task.bars
    if bars is not None and bars.ndim == 1:
        bars = np.broadcast_to(bars, (len(task.theta), len(bars)))
    columns = pickle.loads(task.solver)(task.theta, bars)
    if task.folder is None:
        return columns
    task.folder.write(task.number, columns, task.digest)
    return None


def sweep(
    problem: cp.Problem,
    values: Values,
    *,
    outputs: Sequence[Any] | None = None,
    jacobian: Pairs = (),
    vjp: Mapping[Any, Any] | None = None,
    report: bool = False,
    folder: str | os.PathLike[str] | None = None,
    shard_size: int = 1000,
    n_jobs: int = -1,
    progress: bool = False,
    gp: bool = False,
    solver: str | None = None,
    solver_args: Mapping[str, Any] | None = None,
    singular: Singular = "least_squares",
    mu: float = 1e-3,
    linear_solver: LinearSolver | Iterative = "auto",
    closed_form: ClosedForm = "auto",
) -> Sweep:
    """Solve a problem at many parameter values, and differentiate it there.

    The instances are taken in shards, each by one worker of joblib's active backend: processes of this machine, or what
    ``joblib.parallel_config(backend="dask")`` and the like name. With a folder, each finished shard is a file, memory
    does not grow with the number of instances, and a sweep that was interrupted goes on where it stopped when it is
    called again with the same arguments. A shard has the same bits whenever and wherever it is computed, on machines of
    one kind. An instance that fails is recorded with its reason, and costs the others nothing; so does one that ends
    its worker's process.

    Args:
        problem: a DPP problem.
        values: parameter -> array of shape ``(n, *parameter.shape)``, or of the parameter's shape if all instances
            share it; memory maps are read a shard at a time. Or an iterable of such mappings, of any lengths, which is
            read as it is needed.
        outputs: variables and dual variables whose values are recorded; None for all variables.
        jacobian: pairs (variable, parameter) whose Jacobians are recorded.
        vjp: variable -> cotangent of its shape, shared by all instances, or of shape ``(n, *variable.shape)``; the
            vector-Jacobian product with respect to every parameter is recorded.
        report: record the verdict on every instance, as `cvxift.diagnose` gives it; takes several times as long.
        folder: where shards are written, as Parquet; None keeps everything in memory.
        shard_size: instances a shard.
        n_jobs: number of workers, −1 for all cores; 1 computes in this process. A cluster uses all its workers.
        progress: show a progress bar; needs tqdm.
        gp: whether the problem is a geometric program.
        solver: name of the solver to try first; None chooses.
        solver_args: options for the solver.
        singular: as for `cvxift.differentiate`.
        mu: likewise.
        linear_solver: likewise.
        closed_form: likewise.

    Returns:
        The results.

    Raises:
        ProgramError: an argument cannot be used, a value has a wrong shape, or the folder cannot be written or holds
            another sweep. Finished shards stay.

    Example:
        >>> import cvxpy as cp, numpy as np, cvxift
        >>> x, t = cp.Variable(2, name="x"), cp.Parameter(2, name="t")
        >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0, cp.sum(x) == 1])
        >>> found = cvxift.sweep(problem, {t: np.array([[0.3, 0.9], [2.0, 0.0]])}, jacobian=[(x, t)], n_jobs=1)
        >>> found.value(x).round(6) + 0.0
        array([[0.2, 0.8],
               [1. , 0. ]])
        >>> found.jacobian(x, t)[0].round(6)
        array([[ 0.5, -0.5],
               [-0.5,  0.5]])
    """
    _positive("shard_size", shard_size)
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs == 0:
        raise ProgramError(f"n_jobs={n_jobs!r} is not known; give a number of workers, or −1 for all cores.")
    planned = plan(
        problem,
        outputs=outputs,
        jacobian=jacobian,
        vjp=vjp,
        report=report,
        gp=gp,
        solver=solver,
        solver_args=solver_args,
        policy=Policy(singular, mu, linear_solver),
        closed_form=closed_form,
    )
    parameters, cotangents = planned.solver.map.parameters, planned.cotangents
    count = counted(parameters, cast(Whole, values)) if isinstance(values, Mapping) else None
    if cotangents is not None and cotangents.ndim == 2 and len(cotangents) != count:
        have = "a stream, whose number is not known" if count is None else f"values of {count} instances"
        raise ProgramError(f"vjp has cotangents of {len(cotangents)} instances, but there are {have}.")
    place = None if folder is None else Folder(folder)
    if place is not None:
        place.open(planned.description(shard_size))
    kept: dict[int, Columns] = {}
    sizes: list[int] = []
    with _bar(progress, count) as bar:
        tasks = _tasks(planned, theta_blocks(parameters, values, shard_size), place, sizes, bar)
        dead: list[Task] = []
        for task, outcome in outcomes(compute, tasks, n_jobs):
            if isinstance(outcome, Died):
                dead.append(task)
                continue
            if outcome is not None:
                kept[task.number] = outcome
            bar.update(len(task.theta))
        for task in dead:
            columns = _alone(task, planned)
            if columns is not None:
                kept[task.number] = columns
            bar.update(len(task.theta))
    return Sweep(planned.columns, planned.shapes, tuple(sizes), place, kept)


def _tasks(
    planned: Plan, blocks: Iterator[Floats], folder: Folder | None, sizes: list[int], bar: Any
) -> Iterator[Task]:
    """The shards that are still to be computed; their sizes are noted as they are read."""
    solver, start = _pickled(planned.solver), 0
    for number, theta in enumerate(blocks):
        bars = planned.cotangents
        if bars is not None and bars.ndim == 2:
            bars = bars[start : start + len(theta)]
        task = Task(number, theta, bars, solver, folder)
        start += len(theta)
        sizes.append(len(theta))
        try:
            done = folder is not None and folder.finished(number, len(theta), task.digest)
        except BrokenShard as error:
            warn_user(f"{error} It is computed again.", UserWarning)
            done = False
        if done:
            bar.update(len(theta))
        else:
            yield task


def _alone(task: Task, planned: Plan) -> Columns | None:
    """A task whose worker died, with nothing beside it: whole, then its halves, down to what ends its worker.

    An instance is given up when it has ended two workers that had it alone.
    """
    waiting, tried, parts = [task], set(), {}

    def drawn() -> Iterator[Task]:
        while waiting:
            yield waiting.pop()

    for part, outcome in outcomes(compute, drawn(), 1, alone=True):
        if not isinstance(outcome, Died):
            if part is task:
                return outcome
            parts[part.first] = outcome
        elif len(part.theta) > 1:
            waiting += part.halves()
        elif part.first not in tried:
            tried.add(part.first)
            waiting.append(replace(part, folder=None))
        else:
            parts[part.first] = planned.solver.failed(
                "the worker's process ended, twice, while it had this instance alone"
            )
    columns = joined([parts[first] for first in sorted(parts)])
    if task.folder is None:
        return columns
    task.folder.write(task.number, columns, task.digest)
    return None


def _pickled(solver: Any) -> bytes:
    """For other processes; what a script itself defines, such as its own atoms, is taken along."""
    try:
        from cloudpickle import dumps  # which joblib brings
    except ImportError:
        dumps = pickle.dumps
    return dumps(solver)


class _Silent:
    """In place of a progress bar."""

    def update(self, count: int) -> None:
        """Nothing is shown."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def _bar(wanted: bool, count: int | None) -> Any:
    if not wanted:
        return _Silent()
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ProgramError("progress=True needs tqdm: pip install 'cvxift[sweep]'.") from error
    return tqdm(total=count, unit=" instances", file=sys.stderr)


def _positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ProgramError(f"{name}={value!r} is not a positive integer.")
