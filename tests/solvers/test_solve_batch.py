"""Batches: each instance for itself, whatever happens to the others, in any number of threads."""

from __future__ import annotations

import multiprocessing
import sys
import threading

import numpy as np
import pytest
from planted_programs import plant, structure_of

from cvxift.program.cones import Cones
from cvxift.program.structure import Data
from cvxift.solvers import Pool, Session, Status, get
from cvxift.solvers.base import Raw
from cvxift.solvers.batch import blas_threads, run

CONES = Cones(zero=3, nonneg=8)
NAMES = ("daqp", "piqp", "osqp", "clarabel", "scs", "moreau")


def batch(size, n=14, cones=CONES):
    """Planted programs on one structure."""
    planted = [plant(cones, n, seed, everywhere=True) for seed in range(size)]
    P, q, A, b = (np.stack(parts) for parts in zip(*(p.numbers for p in planted)))
    return planted, Data(P, q, A, b, np.zeros(size))


def opener(name, structure, **options):
    solver = get(name)
    if solver.missing():
        pytest.skip(solver.missing())
    return lambda: solver.session(structure, **options)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_batch_solves_every_instance(name, workers):
    planted, data = batch(7)
    raws = Pool(opener(name, planted[0].structure), workers).solve_batch(data)
    assert len(raws) == 7
    for instance, raw in zip(planted, raws):
        assert raw.status is Status.SOLVED
        np.testing.assert_allclose(raw.x, instance.x, atol=1e-6)
        assert raw.seconds > 0.0


@pytest.mark.parametrize("name", NAMES)
def test_one_bad_instance_costs_no_other(name):
    planted, data = batch(6)
    data.q[1, 3] = np.nan
    data.A[4, 0] = np.inf
    pool = Pool(opener(name, planted[0].structure), workers=2)
    raws = pool.solve_batch(data)
    assert [raw.status is Status.SOLVED for raw in raws] == [True, False, True, True, False, True]
    assert "q[3] = nan" in raws[1].message
    assert "A[0, 0] = inf" in raws[4].message
    for i in (0, 2, 3, 5):
        np.testing.assert_allclose(raws[i].x, planted[i].x, atol=1e-6)


@pytest.mark.parametrize("name", ["daqp", "clarabel", "osqp"])
def test_infeasible_instance_costs_no_other(name):
    structure, P, A = structure_of(np.eye(2), [[1.0, 1.0], [-1.0, -1.0]], Cones(nonneg=2))
    bounds = np.array([[1.0, 0.0], [1.0, -2.0], [1.0, 0.0]])  # the second: x₁ + x₂ ≤ 1 and ≥ 2
    data = Data(np.tile(P, (3, 1)), np.zeros((3, 2)), np.tile(A, (3, 1)), bounds, np.zeros(3))
    raws = Pool(opener(name, structure)).solve_batch(data)
    assert [raw.status for raw in raws] == [Status.SOLVED, Status.INFEASIBLE, Status.SOLVED]


@pytest.mark.parametrize("name", ["daqp", "moreau"])
def test_batch_dimensions(name):
    planted, data = batch(6)
    parts = (part.reshape(2, 3, -1) for part in (data.P, data.q, data.A, data.b))
    raws = Pool(opener(name, planted[0].structure)).solve_batch(Data(*parts, data.d.reshape(2, 3)))
    for instance, raw in zip(planted, raws):
        np.testing.assert_allclose(raw.x, instance.x, atol=1e-6)
    assert Pool(opener(name, planted[0].structure)).solve_batch(data[:0]) == []


@pytest.mark.parametrize("name", NAMES)
def test_matrices_shared_by_the_batch(name):
    planted, data = batch(4)
    P, A = (np.broadcast_to(part[0], part.shape) for part in (data.P, data.A))  # read-only, no copy in memory
    raws = Pool(opener(name, planted[0].structure)).solve_batch(Data(P, data.q, A, data.b, data.d))
    session = get(name).session(planted[0].structure)
    for i, raw in enumerate(raws):
        alone = session.solve(data.P[0], data.q[i], data.A[0], data.b[i])
        assert raw.status is alone.status
        np.testing.assert_allclose(raw.x, alone.x, atol=1e-6)


@pytest.mark.parametrize("name", ["daqp", "moreau"])
def test_warm_starts(name):
    planted, data = batch(4)
    pool = Pool(opener(name, planted[0].structure))
    cold = pool.solve_batch(data)
    for points in (cold, [cold[0], None, cold[2], None]):
        for instance, raw in zip(planted, pool.solve_batch(data, points)):
            np.testing.assert_allclose(raw.x, instance.x, atol=1e-6)
    with pytest.raises(ValueError, match="3 points; expected one for each of the 4"):
        pool.solve_batch(data, cold[:3])


class Slow(Session):
    """Claims to release the lock and to take its time, and counts who works at once."""

    releases_gil = True
    working = 0
    most = 0
    lock = threading.Lock()
    together = threading.Barrier(2)

    def _solve(self, P, q, A, b, warm):
        cls = type(self)
        with cls.lock:
            cls.working += 1
            cls.most = max(cls.most, cls.working)
        if q[0] >= 2.0:  # two instances meet here: only threads can
            cls.together.wait(timeout=30.0)
        else:
            threading.Event().wait(0.01)
        with cls.lock:
            cls.working -= 1
        if q[0] == 1.0:
            return self.failure("this one fails")
        return Raw(q.copy(), b.copy(), b.copy(), Status.SOLVED, "done")


def test_threads_work_at_the_same_time():
    structure, P, A = structure_of(np.eye(1), [[1.0]], Cones(nonneg=1))
    q = np.array([[0.0], [1.0], [2.0], [3.0]])
    data = Data(np.tile(P, (4, 1)), q, np.tile(A, (4, 1)), np.zeros((4, 1)), np.zeros(4))
    raws = Pool(lambda: Slow(structure, {}), workers=2).solve_batch(data)
    assert Slow.most == 2
    assert [raw.status for raw in raws] == [Status.SOLVED, Status.FAILED, Status.SOLVED, Status.SOLVED]
    assert [raw.x[0] for raw in raws if raw.status is Status.SOLVED] == [0.0, 2.0, 3.0]


class Broken(Session):
    """Raises what a library may raise, and what a mistake in an adapter may."""

    def _solve(self, P, q, A, b, warm):
        if q[0] == 1.0:
            raise KeyError("library's trouble")
        if q[0] == 2.0:
            raise AssertionError("a mistake in the adapter")
        return Raw(q.copy(), b.copy(), b.copy(), Status.SOLVED, "done")


def test_exceptions_are_statuses_that_quote_them():
    structure, P, A = structure_of(np.eye(1), [[1.0]], Cones(nonneg=1))

    def data(*costs):
        size = len(costs)
        q = np.array(costs)[:, None]
        return Data(np.tile(P, (size, 1)), q, np.tile(A, (size, 1)), np.zeros((size, 1)), np.zeros(size))

    raws = Pool(lambda: Broken(structure, {})).solve_batch(data(0.0, 1.0, 2.0, 0.0))
    assert [raw.status for raw in raws] == [Status.SOLVED, Status.FAILED, Status.FAILED, Status.SOLVED]
    assert raws[1].message == 'KeyError: "library\'s trouble"'
    assert raws[2].message == "AssertionError: a mistake in the adapter"


def test_pool_is_shared_by_threads():
    planted, data = batch(12)
    pool = Pool(opener("clarabel", planted[0].structure))
    results = [None] * 4

    def work(k):
        results[k] = pool.solve_batch(data)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for raws in results:
        for instance, raw in zip(planted, raws):
            np.testing.assert_allclose(raw.x, instance.x, atol=1e-6)


def _in_child(connection, structure, data):
    raws = Pool(lambda: get("clarabel").session(structure), workers=2).solve_batch(data)
    connection.send([raw.x for raw in raws])


@pytest.mark.skipif(sys.platform != "linux", reason="fork is Linux' way")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_batch_in_a_forked_process():
    cones = Cones(zero=10, nonneg=60)
    planted, data = batch(8, n=60, cones=cones)  # large enough for threads
    Pool(opener("clarabel", planted[0].structure), workers=2).solve_batch(data)  # the parent has threads already
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_in_child, args=(there, planted[0].structure, data))
    child.start()
    assert here.poll(60.0), "the child hangs"
    for x, instance in zip(here.recv(), planted):
        np.testing.assert_allclose(x, instance.x, atol=1e-6)
    child.join(10.0)


def test_run_keeps_the_order_and_takes_no_more_threads_than_told():
    seen = set()

    def work(i):
        seen.add(threading.get_ident())
        return 2 * i

    assert run(work, 50, workers=2) == list(range(0, 100, 2))
    assert len(seen) <= 2
    assert run(work, 0) == []


def test_run_raises_what_the_work_raises_and_ends_first():
    done = []

    def work(i):
        if i == 3:
            raise ValueError("three")
        done.append(i)

    with pytest.raises(ValueError, match="three"):
        run(work, 40, workers=2)
    count = len(done)
    assert run(lambda i: i, 3) == [0, 1, 2]
    assert len(done) == count


def test_run_inside_run_does_not_wait_for_itself():
    assert run(lambda i: sum(run(lambda j: i * j, 4, workers=3)), 8, workers=3) == [6 * i for i in range(8)]


@pytest.mark.parametrize(
    ("limits", "threaded"), [({}, True), ({"OMP_NUM_THREADS": "1"}, False), ({"OPENBLAS_NUM_THREADS": "2"}, True)]
)
def test_whether_linear_algebra_has_threads(monkeypatch, limits, threaded):
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in limits.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("cvxift.solvers.batch.cores", lambda: 4)
    assert blas_threads() is threaded


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name != "osqp"]
)  # which keeps its scaling and its step size
@pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])
def test_a_session_keeps_nothing_of_other_instances(name, together):
    """The scaling that suits another instance would change the next one's point in its last digits."""
    planted, data = batch(6)
    structure = planted[0].structure
    open_ = opener(name, structure, **(get(name).together if together else {}))
    used = open_()
    used.solve(1e6 * data.P[5], 1e3 * data.q[5], 1e3 * data.A[5], 1e3 * data.b[5])
    for i in range(5):
        first = open_().solve(data.P[i], data.q[i], data.A[i], data.b[i])
        later = used.solve(data.P[i], data.q[i], data.A[i], data.b[i])
        for key in "xsy":
            np.testing.assert_array_equal(getattr(first, key), getattr(later, key))


@pytest.mark.parametrize("workers", [1, 3])
def test_an_active_set_method_gives_each_instance_what_it_gives_it_alone(workers):
    """Also where instances need more than a plain call: a bad number, a row in other units."""
    planted, data = batch(9)
    structure = planted[0].structure
    data.q[1, 3] = np.nan
    data.b[2, 4] = np.inf
    spread = np.where(np.arange(structure.n) < 4, 1e-6, 1.0)
    data.P[3] *= spread[structure.P_rows] * spread[structure.P_cols]
    data.A[4, structure.A_rows == 6] *= 1e-9
    data.b[4, 6] *= 1e-9
    raws = Pool(opener("daqp", structure), workers).solve_batch(data)
    alone = opener("daqp", structure)()
    for i, raw in enumerate(raws):
        one = alone.solve(data.P[i], data.q[i], data.A[i], data.b[i])
        assert (raw.status, raw.message, raw.iterations) == (one.status, one.message, one.iterations)
        for key in "xsy":
            np.testing.assert_array_equal(getattr(raw, key), getattr(one, key))
