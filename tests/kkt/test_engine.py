"""The engine's search: which solver is asked, with which options, whose point is taken; whatever the units."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import numpy as np
import pytest
from plant import assemble, plant

from cvxift import solvers
from cvxift.cones import Cones
from cvxift.errors import ApplicabilityWarning, ProgramError, SolveError
from cvxift.kkt import search
from cvxift.kkt.engine import ACCEPTABLE, TOLERANCE, Engine
from cvxift.kkt.failures import unsolved
from cvxift.kkt.newton import polish
from cvxift.program.structure import Data
from cvxift.solvers import Raw, Session, Solver, Status, table


class Scripted(Solver):
    """Answers as it is told, and writes down what it was asked."""

    options = MappingProxyType({"depth": 1, "eps": 1e-3})

    def __init__(self, name, answer, tight=None):
        self.name, self.answer, self.calls = name, answer, []
        self.tight = MappingProxyType(tight or {})

    def missing(self):
        return None

    def unsupported(self, structure):
        return None

    def _session(self, structure, options):
        return ScriptedSession(self, structure, options)


class ScriptedSession(Session):
    def __init__(self, solver, structure, options):
        super().__init__(structure, options)
        self.solver = solver

    def _solve(self, P, q, A, b, warm):
        self.solver.calls.append((self.options, warm, threading.get_ident()))
        answer = self.solver.answer(self) if callable(self.solver.answer) else self.solver.answer
        return self.failure("as told", answer) if isinstance(answer, Status) else answer


@pytest.fixture
def script(monkeypatch):
    """Make these solvers the only ones, in this order."""
    monkeypatch.setattr(table, "_registered", {})
    monkeypatch.setattr(table, "_open", {})

    def write(*scripted: Scripted):
        for solver in scripted:
            solvers.register(solver.name, lambda solver=solver: solver)
        monkeypatch.setattr(solvers, "choose", lambda structure: [solver.name for solver in scripted])
        monkeypatch.setattr(solvers, "quick", lambda structure: None)
        return scripted

    return write


@pytest.fixture
def planted(rng):
    """A linear program in a box, with one solution, a corner."""
    n = 4
    A = np.concatenate([np.eye(n), -np.eye(n)])
    y = np.concatenate([1.0 + rng.random(n), np.zeros(n)])
    return assemble(Cones(nonneg=2 * n), np.zeros((n, n)), A, rng.standard_normal(n), np.where(y > 0, 0.0, 2.0), y)


def truth(planted, status=Status.SOLVED) -> Raw:
    return Raw(planted.x.copy(), planted.s.copy(), planted.y.copy(), status, "told")


def lie(planted) -> Raw:
    """A point inside, called solved: with every row slack Newton has nowhere to go."""
    A = planted.structure.A_matrix(planted.data.A)
    x = planted.x - 0.5
    return Raw(x, planted.data.b - A @ x, np.zeros(len(planted.s)), Status.SOLVED, "trust me")


def test_a_solver_that_lies_is_found_out_and_the_next_is_asked(planted, script):
    liar, honest, third = script(
        Scripted("liar", lie(planted)), Scripted("honest", truth(planted)), Scripted("third", truth(planted))
    )
    solution = Engine(planted.structure).solve(planted.data)
    assert solution.ok and solution.solver == "honest" and solution.status is Status.SOLVED
    np.testing.assert_allclose(solution.x, planted.x, atol=1e-12)
    np.testing.assert_allclose(solution.y, planted.y, atol=1e-12)
    assert solution.residuals.worst <= TOLERANCE
    assert [attempt[0] for attempt in solution.attempts] == ["liar", "honest"]
    assert solution.attempts[0][3] > ACCEPTABLE >= solution.attempts[1][3]
    assert [len(solver.calls) for solver in (liar, honest, third)] == [1, 1, 0]


def test_when_all_fail_the_error_says_who_said_what(planted, script):
    script(Scripted("liar", lie(planted)), Scripted("tired", Status.FAILED))
    solution = Engine(planted.structure).solve(planted.data)
    assert not solution.ok and np.isnan(solution.x).all() and solution.residuals.worst == np.inf
    outputs = np.full(2, np.nan)
    with pytest.raises(
        SolveError, match=r"liar: solved \(trust me\), residual .*; tired: failed \(as told\)"
    ) as caught:
        unsolved((solution,), (), outputs, "raise")
    assert caught.value.status == solution.status.value
    ((index, (status, residuals)),) = caught.value.failures.items()
    assert index == () and status == solution.status.value
    assert residuals["liar"] > ACCEPTABLE and np.isnan(residuals["tired"])
    with pytest.warns(ApplicabilityWarning, match="NaN and its gradients zero"):
        unsolved((solution,), (), outputs, "nan")


def test_the_best_point_is_taken_where_none_is_good(planted, script, monkeypatch):
    def near(size):
        raw = truth(planted)
        raw.x = raw.x + size
        return raw

    # Steps of Newton are what would make these exact; without them the better one must win, in either order.
    monkeypatch.setattr(search, "polished", lambda at, raw, quick: polish(at, raw.x, raw.s - raw.y, max_steps=0))
    for sizes in ((1e-7, 1e-8), (1e-8, 1e-7)):
        script(*(Scripted(f"off by {size:g}", near(size)) for size in sizes))
        solution = Engine(planted.structure).solve(planted.data)
        assert solution.ok and solution.solver == "off by 1e-08"
        assert TOLERANCE < solution.residuals.worst < ACCEPTABLE
    script(Scripted("too far", near(1e-4)))
    assert not Engine(planted.structure).solve(planted.data).ok


def test_options_reach_the_first_solver_and_no_other(planted, script):
    first, second = script(Scripted("first", lie(planted)), Scripted("second", truth(planted)))
    engine = Engine(planted.structure, solver_args={"depth": 7})
    engine.solve(planted.data, solver_args={"eps": 1e-5})
    engine.solve(planted.data)
    assert [call[0] for call in first.calls] == [{"depth": 7, "eps": 1e-5}, {"depth": 7}]
    assert [call[0] for call in second.calls] == [{}, {}]
    engine.solve(planted.data, solver="second", solver_args={"depth": 2})
    assert second.calls[-1][0] == {"depth": 2} and len(first.calls) == 2
    with pytest.raises(ProgramError, match=r"'first' has no option 'dept'.*'depth'"):
        Engine(planted.structure, solver_args={"dept": 7})
    with pytest.raises(ProgramError, match="'second' has no option 'x'"):
        engine.solve(planted.data, solver="second", solver_args={"x": 1})
    assert Engine(planted.structure, solver="SECOND").first == "second"


def test_a_starting_point_and_a_point_already_found_reach_the_search(planted, script):
    (only,) = script(Scripted("only", truth(planted)))
    engine, warm = Engine(planted.structure), lie(planted)
    engine.solve(planted.data, warm=warm)
    start = only.calls[0][1]
    assert start is not warm and all(np.array_equal(getattr(start, k), getattr(warm, k)) for k in "xsy")
    solution = engine.solve(planted.data, found=truth(planted))
    assert solution.ok and solution.solver == "only" and len(only.calls) == 1


def test_a_solver_is_asked_again_at_tight_tolerances_before_the_next(planted, script, monkeypatch):
    def answer(session):
        return truth(planted) if session.options.get("eps") == 1e-9 else lie(planted)

    first, second = script(Scripted("first", answer, tight={"eps": 1e-9}), Scripted("second", truth(planted)))
    solution = Engine(planted.structure).solve(planted.data)
    assert solution.ok and [attempt[0] for attempt in solution.attempts] == ["first", "first"]
    assert [call[0] for call in first.calls] == [{}, {"eps": 1e-9}] and not second.calls
    # The first point is looked at for long only where the tight one is no better.
    looks, look = [], search.polished
    monkeypatch.setattr(search, "polished", lambda at, raw, quick: looks.append(quick) or look(at, raw, quick))
    Engine(planted.structure).solve(planted.data)
    first.answer = lie(planted)
    assert looks == [True, False] and Engine(planted.structure).solve(planted.data).solver == "second"
    assert looks[2:] == [True, False, False, True]
    first.answer = answer
    first.calls.clear()
    # What the user asks for stays.
    solution = Engine(planted.structure, solver_args={"eps": 1e-2, "depth": 3}).solve(planted.data)
    assert [call[0] for call in first.calls] == [{"eps": 1e-2, "depth": 3}] and solution.solver == "second"


def test_two_solvers_must_agree_that_a_linear_program_has_no_solution(planted, script):
    for status in (Status.INFEASIBLE, Status.UNBOUNDED):
        wrong, right = script(Scripted("wrong", status), Scripted("right", truth(planted)))
        solution = Engine(planted.structure).solve(planted.data)
        assert solution.ok and solution.solver == "right" and len(wrong.calls) == len(right.calls) == 1
        *_, unasked = script(Scripted("one", status), Scripted("two", status), Scripted("unasked", truth(planted)))
        solution = Engine(planted.structure).solve(planted.data)
        assert not solution.ok and solution.status is status and not unasked.calls
        script(Scripted("alone", status))
        assert Engine(planted.structure).solve(planted.data).status is status
    # A failure between them, or a rejected point, does not count as agreement.
    script(Scripted("one", Status.INFEASIBLE), Scripted("fails", Status.FAILED), Scripted("right", truth(planted)))
    assert Engine(planted.structure).solve(planted.data).ok


def test_a_conic_program_without_a_point_gets_a_second_opinion_where_it_is_cheap(rng, script):
    planted = plant(Cones(soc=(3,), nonneg=2), 3, rng)
    _, asked = script(Scripted("wrong", Status.INFEASIBLE), Scripted("right", truth(planted)))
    solution = Engine(planted.structure).solve(planted.data)
    assert solution.ok and solution.solver == "right" and len(asked.calls) == 1
    # Where the opinion is none, or another that is no point at the goal, the first one's certificate stands.
    for opinion in (Status.ITERATION_LIMIT, Status.FAILED, Status.INFEASIBLE):
        *_, unasked = script(
            Scripted("one", Status.INFEASIBLE), Scripted("two", opinion), Scripted("three", truth(planted))
        )
        solution = Engine(planted.structure).solve(planted.data)
        assert solution.status is Status.INFEASIBLE and not solution.ok and not unasked.calls
    # One that finds a point, if none good enough, contests it: the next is asked. Where that has none, it stands.
    far = 1e9 * rng.standard_normal(5)
    astray = Raw(far[:3], far, -far, Status.SOLVED, "trust me")
    for third, ok in ((truth(planted), True), (Status.FAILED, False)):
        script(Scripted("one", Status.INFEASIBLE), Scripted("two", astray), Scripted("three", third))
        solution = Engine(planted.structure).solve(planted.data)
        assert solution.ok is ok and (ok or solution.status is Status.INFEASIBLE)
    # A solver that may take long gives it only where the program is small.
    for cones, calls in ((Cones(psd=(3,)), 1), (Cones(psd=(search.OPINION_ORDER + 1,)), 0)):
        large = plant(cones, 3, rng)
        _, second = script(Scripted("one", Status.INFEASIBLE), Scripted("two", truth(large)))
        second.brief = MappingProxyType({"depth": 3})
        solution = Engine(large.structure).solve(large.data)
        assert solution.ok is bool(calls) and [call[0] for call in second.calls] == [{"depth": 3}] * calls


@pytest.mark.parametrize("spread", [0.0, 5.0])
def test_the_active_set_is_read_in_the_units_of_each_row(rng, script, spread):
    # What an interior-point method leaves: s y = μ in every row, in units far apart.
    n, m = 12, 30
    for _ in range(20):
        y = np.where(rng.permutation(m) < n, 0.5 + rng.random(m), 0.0)
        s = np.where(y > 0, 0.0, 0.5 + rng.random(m))
        A, x = rng.standard_normal((m, n)), rng.standard_normal(n)
        row, cost = 10.0 ** rng.uniform(-spread, spread, m), 10.0 ** rng.uniform(-spread, spread)
        planted = assemble(Cones(nonneg=m), np.zeros((n, n)), row[:, None] * A, x, row * s, cost * y / row)
        mu = 1e-9
        raw = Raw(x + 1e-9, row * np.where(y > 0, mu / (y + (y == 0)), s), cost / row * np.where(
            y > 0, y, mu / (s + (s == 0))), Status.SOLVED, "central")  # fmt: skip
        script(Scripted("interior", raw))
        solution = Engine(planted.structure).solve(planted.data)
        assert solution.ok and solution.residuals.worst <= TOLERANCE
        np.testing.assert_array_equal(solution.s == 0.0, y > 0)
        np.testing.assert_allclose(solution.x, x, atol=1e-8)


@pytest.mark.parametrize("solver", ["daqp", "piqp", "osqp", "clarabel"])
@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("cost", [1e-9, 1.0, 1e6])
def test_units_of_rows_and_of_the_cost_decide_nothing(solver, unit, cost):
    # min cost·½‖x − (2, 3, 1)‖² with x₀ ≤ 1 and x₁ ≤ 1 in units far apart, x₂ free: the solution is (1, 1, 1).
    A = np.array([[1.0 / unit, 0.0, 0.0], [0.0, unit, 0.0]])
    target, x = np.array([2.0, 3.0, 1.0]), np.ones(3)
    y = cost * np.array([1.0 * unit, 2.0 / unit])
    planted = assemble(Cones(nonneg=2), cost * np.eye(3), A, x, np.zeros(2), y)
    np.testing.assert_allclose(planted.data.q, -cost * target, rtol=1e-12)
    solution = Engine(planted.structure, solver=solver).solve(planted.data)
    assert solution.ok
    np.testing.assert_allclose(solution.x, x, atol=1e-9)
    np.testing.assert_allclose(solution.y, y, rtol=1e-8)


@pytest.mark.parametrize("solver", ["daqp", "piqp", "osqp", "clarabel"])
def test_units_of_the_variables_decide_nothing(solver):
    weight = np.array([1e6, 1.0, 1e-6])
    A = np.concatenate([np.eye(3), -np.eye(3)])
    x, y = np.array([0.5, 0.5, 1.0]), np.concatenate([0.5 * weight[:2], np.zeros(4)])
    planted = assemble(Cones(nonneg=6), np.diag(weight), A, x, np.array([0, 0, 9.0, 1.0, 1.0, 1.0]), y)
    solution = Engine(planted.structure, solver=solver).solve(planted.data)
    assert solution.ok
    np.testing.assert_allclose(solution.x, x, rtol=1e-8)


def test_an_engine_is_pickled_without_its_sessions(planted):
    engine = Engine(planted.structure, solver="piqp", solver_args={"max_iter": 99})
    before = engine.solve(planted.data)
    copy = pickle.loads(pickle.dumps(engine))
    assert copy.first == "piqp" and copy.solver_args == {"max_iter": 99} and not vars(copy._threads)
    np.testing.assert_array_equal(copy.solve(planted.data).x, before.x)


def test_each_thread_has_sessions_of_its_own(rng, script):
    planted = plant(Cones(zero=1, nonneg=6), 5, rng)
    barrier = threading.Barrier(2, timeout=20)

    def answer(session):
        sessions[threading.get_ident()] = session
        barrier.wait()
        return truth(planted)

    sessions: dict[int, Session] = {}
    script(Scripted("slow", answer))
    engine = Engine(planted.structure)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(engine.solve, [planted.data] * 2))
    assert len(sessions) == 2 and len({id(session) for session in sessions.values()}) == 2
    assert all(solution.ok for solution in both)


def test_threads_do_not_disturb_each_other(rng):
    cases = [plant(Cones(zero=2, nonneg=9), 6, rng) for _ in range(16)]
    engine = Engine(cases[0].structure)
    with ThreadPoolExecutor(4) as pool:
        for planted, solution in zip(cases, pool.map(lambda p: engine.solve(p.data), cases), strict=True):
            np.testing.assert_allclose(solution.x, planted.x, atol=1e-9)


@pytest.mark.parametrize("solver", ["daqp", "piqp", "clarabel", "osqp"])
def test_infeasible_and_unbounded_programs(solver):
    one = np.zeros((1, 1))
    rows = np.array([[1.0], [-1.0]])
    structure = assemble(Cones(nonneg=2), one, rows, np.zeros(1), np.ones(2), np.zeros(2)).structure
    infeasible = Data(np.zeros(structure.nnzP), np.ones(1), rows.ravel(), np.array([-1.0, -1.0]), np.zeros(()))
    solution = Engine(structure, solver=solver).solve(infeasible)
    assert not solution.ok and solution.status is Status.INFEASIBLE
    only = assemble(Cones(nonneg=1), one, np.ones((1, 1)), np.zeros(1), np.ones(1), np.zeros(1)).structure
    solution = Engine(only, solver=solver).solve(Data(np.zeros(0), np.ones(1), np.ones(1), np.ones(1), np.zeros(())))
    assert not solution.ok and solution.status is Status.UNBOUNDED


def test_nan_in_the_data_is_an_error_not_a_point(planted):
    for name in ("q", "A", "b"):
        parts = {part: np.array(getattr(planted.data, part)) for part in ("P", "q", "A", "b", "d")}
        parts[name][0] = np.nan
        solution = Engine(planted.structure).solve(Data(**parts))
        assert not solution.ok and f"{name} is not finite" in solution.describe()


def test_a_brief_search_leaves_out_the_long_runs_of_every_solver(planted, script, monkeypatch):
    asked = {}
    session = Engine.session
    monkeypatch.setattr(
        Engine,
        "session",
        lambda self, name, options: asked.update({name: dict(options)}) or session(self, name, options),
    )
    engine = Engine(planted.structure)
    others = [name for name in ("osqp", "scs") if solvers.get(name).unsupported(planted.structure) is None]
    engine.candidates = engine._order = [engine.first, *others]
    monkeypatch.setattr(search, "ACCEPTABLE", -1.0)
    monkeypatch.setattr(search, "TOLERANCE", -1.0)  # no point is good enough: all are asked
    engine.solve(planted.data, brief=True)
    assert others
    for name in others:
        assert asked[name] == dict(solvers.get(name).brief) != {}
