"""Sweeps over several processes: workers and whole runs that are killed, Dask, other backends of joblib."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.layers.sweeps import execution
from cvxift.layers.sweeps.shards import Folder
from tests.children import light

joblib = pytest.importorskip("joblib")
pytest.importorskip("pyarrow")
ROOT = Path(__file__).resolve().parents[2]
POISON = 666.0


def projection():
    x, t = cp.Variable(3, name="x"), cp.Parameter(3, name="t")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0, x <= 0.8]), x, t


class Fragile(Executor):
    """Works in this process, and breaks where a worker would die: with an instance whose first parameter is POISON."""

    def __init__(self, used):
        self.broken = False
        used.append(self)

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        (task,) = args
        self.broken = self.broken or bool((task.theta[:, 0] == POISON).any())
        if self.broken:
            future.set_exception(BrokenProcessPool("a worker ended"))
        else:
            future.set_result(fn(task))
        return future


@pytest.mark.parametrize("folder", [True, False])
def test_an_instance_that_ends_its_worker_is_recorded_and_the_others_are_solved(monkeypatch, tmp_path, folder):
    used = []

    @contextmanager
    def fragile(client, n_jobs):
        yield Fragile(used), n_jobs

    monkeypatch.setattr(execution, "_executor", fragile)
    problem, x, t = projection()
    theta = np.random.default_rng(0).normal(size=(50, 3))
    theta[17, 0] = POISON
    found = cvxift.sweep(
        problem, {t: theta}, jacobian=[(x, t)], shard_size=8, n_jobs=2, folder=tmp_path if folder else None
    )
    assert found.sizes == (8, 8, 8, 8, 8, 8, 2)
    assert [remark.index for remark in found.failed] == [17]
    assert "worker's process ended" in found.failed[0].reason
    good = np.arange(50) != 17
    assert np.allclose(found.value(x)[good], np.clip(theta[good], 0, 0.8), atol=1e-9)
    assert np.isnan(found.value(x)[17]).all() and np.isnan(found.jacobian(x, t)[17]).all()
    assert (
        len(used) <= 12
    )  # the pool twice; 4 shards it had, of which one goes by 4, 2, 1 and 1 instances, and the rest


def fatal(number):
    """Light work, that loads none of cvxift in the worker."""
    import os
    import signal
    import time

    time.sleep(0.2)
    if number == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return number, os.getpid()


fatal_by_value = types.FunctionType(fatal.__code__, {"POISON": POISON, "__builtins__": __builtins__}, "fatal")


@pytest.mark.parametrize("alone", [False, True])
def test_workers_of_loky_that_are_killed_cost_an_attempt(alone):
    numbers, done, died = [0, 1, 2, POISON, 4, 5, 6, 7], [], []
    for number, outcome in execution.outcomes(fatal_by_value, numbers, 2, alone=alone):
        if isinstance(outcome, execution.Died):
            died.append(number)
            continue
        if not done and not alone:
            os.kill(outcome[1], signal.SIGKILL)  # from outside
        done.append(number)
    assert sorted(done + died) == sorted(numbers) and POISON in died
    assert not alone or died == [POISON]


RUN = """
    import sys
    import cvxpy as cp, numpy as np, cvxift
    x, t = cp.Variable(10, name="x"), cp.Parameter(10, name="t")
    A = np.random.default_rng(0).normal(size=(5, 10))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t) + cp.norm1(x)), [A @ x <= 1, x >= -1])
    values = np.random.default_rng(1).normal(size=(1200, 10))
    cvxift.sweep(problem, {t: values}, jacobian=[(x, t)], folder=sys.argv[1], shard_size=100, n_jobs=1)
"""


def test_a_run_that_is_killed_goes_on_and_ends_with_the_bits_of_an_undisturbed_one(tmp_path, monkeypatch):
    def finished(name):
        return len(list((tmp_path / name).glob("shard-*")))

    command = [sys.executable, "-c", textwrap.dedent(RUN), str(tmp_path / "killed")]
    run = subprocess.Popen(command, cwd=ROOT, env=light())
    while finished("killed") < 2 and run.poll() is None:
        time.sleep(0.01)
    run.kill()
    run.wait()
    assert 2 <= finished("killed") < 12
    for name in ("killed", "undisturbed"):
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path / name)])
        exec(textwrap.dedent(RUN), {})
    for number in range(12):
        one, two = (Folder(tmp_path / name).file(number).read_bytes() for name in ("undisturbed", "killed"))
        assert one == two


@pytest.mark.filterwarnings("ignore")
def test_dask_gives_the_same_bits_and_a_worker_that_dies_costs_an_attempt(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", light()["PYTHONPATH"])
    distributed = pytest.importorskip("distributed")
    problem, x, t = projection()
    theta = np.random.default_rng(0).normal(size=(40, 3))
    asked = {"jacobian": [(x, t)], "shard_size": 20}
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=50
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        found = cvxift.sweep(problem, {t: theta}, folder=tmp_path / "dask", **asked)
        cluster.scheduler.allowed_failures = 0
        ended = dict(execution.outcomes(fatal_by_value, [1, POISON, 3], -1, alone=True))
    cvxift.sweep(problem, {t: theta}, folder=tmp_path / "here", n_jobs=1, **asked)
    assert np.allclose(found.value(x), np.clip(theta, 0, 0.8), atol=1e-9)
    for number in range(2):
        one, two = (Folder(tmp_path / name).file(number).read_bytes() for name in ("dask", "here"))
        assert one == two
    assert {number: isinstance(outcome, execution.Died) for number, outcome in ended.items()} == {
        1: False,
        POISON: True,
        3: False,
    }


def test_a_backend_without_futures_is_asked_through_joblib():
    problem, x, t = projection()
    theta = np.random.default_rng(0).normal(size=(50, 3))
    with joblib.parallel_config(backend="threading"):
        found = cvxift.sweep(problem, {t: theta}, jacobian=[(x, t)], shard_size=3, n_jobs=2)
    assert np.allclose(found.value(x), np.clip(theta, 0, 0.8), atol=1e-9) and not found.failed
