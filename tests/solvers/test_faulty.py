"""Nothing that a solver does is believed: every fault is found, reported, and followed by the next solver."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from faulty import FAULTS, Faulty, register

from cvxift import solvers
from cvxift.errors import ProgramError
from cvxift.kkt.solution_map import SolutionMap
from cvxift.program.cones import Cones
from cvxift.program.structure import Structure
from cvxift.solvers import Status
from cvxift.solvers.base import BatchSession


def quadratic():
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c")
    return cp.Problem(cp.Minimize(cp.sum_squares(x) + c @ x), [cp.sum(x) <= 0.1, x >= -0.4, x[0] - x[1] == 0.2]), c, x


def second_order():
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c")
    return cp.Problem(cp.Minimize(cp.sum_squares(x) + c @ x), [cp.norm(x) <= 0.3, x[0] <= 0.1]), c, x


def exponential():
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c")
    return cp.Problem(cp.Minimize(c @ x - cp.sum(cp.entr(x))), [cp.sum(x) == 1, x[0] <= 0.2]), c, x


def semidefinite():
    X, c = cp.Variable((2, 2), symmetric=True, name="X"), cp.Parameter(3, name="c")
    C = cp.bmat([[c[0], c[1]], [c[1], c[2]]])
    return cp.Problem(cp.Minimize(cp.sum_squares(X + C)), [X >> 0, cp.trace(X) <= 1.0]), c, X


PROBLEMS = (quadratic, second_order, exponential, semidefinite)
THETA = np.array([[1.0, -0.5, -0.8], [-0.4, -0.7, 0.3], [0.2, 0.6, -1.1]])


@pytest.fixture(autouse=True)
def own_table(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(solvers.table, "_registered", {})
    monkeypatch.setattr(solvers.table, "_open", {})


@pytest.mark.parametrize("build", PROBLEMS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_solver_changes_nothing(fault, build):
    problem, c, x = build()
    right = SolutionMap(problem, [c], [x])
    wrong = SolutionMap(problem, [c], [x], solver=register(fault))
    expected = right.solve(THETA).outputs
    # One by one, from a point, and as a batch: the faulty solver is asked, and another's point returned.
    for k, theta in enumerate(THETA):
        warm = right.solve(theta).warm()
        start = warm[0].copy()
        solved = wrong.solve(theta, warm=warm)
        np.testing.assert_allclose(solved.outputs, expected[k], atol=1e-8)
        np.testing.assert_allclose(
            wrong.vjp(solved, np.ones(x.size)), right.vjp(right.solve(theta), np.ones(x.size)), atol=1e-6
        )
        solution = solved.solutions[0]
        assert solution.attempts[0][0] == f"faulty: {fault}" and solution.residuals.worst <= 1e-9
        assert all(np.array_equal(getattr(warm[0], key), getattr(start, key)) for key in "xsy")
    solved = wrong.solve(THETA)
    np.testing.assert_allclose(solved.outputs, expected, atol=1e-8)
    assert all(solution.attempts[0][0] == f"faulty: {fault}" for solution in solved.solutions)


@pytest.mark.parametrize("fault", ["raises KeyError", "returns None", "x is too long", "x is NaN"])
def test_a_fault_is_reported_in_words(fault):
    problem, c, x = quadratic()
    solution = SolutionMap(problem, [c], [x], solver=register(fault)).solve(THETA[0]).solutions[0]
    words = {
        "raises KeyError": "KeyError: 'somewhere inside'",
        "returns None": "the solver returned NoneType, not a Raw",
        "x is too long": "x, s, y of shapes (",
        "x is NaN": "the point is not finite",
    }
    assert words[fault] in solution.attempts[0][2] and words[fault] in solution.describe()


class AllAtOnce(BatchSession):
    """A batch's solver that returns what it is told."""

    def _solve(self, P, q, A, b, warm):
        return self.options["answer"](self, P, q, A, b)[0]

    def _solve_batch(self, P, q, A, b, warm):
        return self.options["answer"](self, P, q, A, b)


def _raise(*_):
    raise KeyError("batch")


ANSWERS = {
    "raises": _raise,
    "none": lambda *_: None,
    "too few": lambda session, P, q, A, b: [session.failure("no", Status.FAILED)][: len(q) - 1],
    "generator": lambda session, P, q, A, b: (None for _ in q),
    "junk": lambda session, P, q, A, b: ["junk"] * len(q),
    "overwrites": lambda session, P, q, A, b: [q.fill(np.nan), b.fill(0.0)] * len(q),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_faulty_solver_of_whole_batches_changes_nothing(answer):
    class Whole(Faulty):
        def _session(self, structure, options):
            return AllAtOnce(structure, {"answer": ANSWERS[answer]})

    solvers.register("whole", lambda: Whole("returns None", "whole"))
    problem, c, x = quadratic()
    expected = SolutionMap(problem, [c], [x]).solve(THETA).outputs
    solved = SolutionMap(problem, [c], [x], solver="whole").solve(THETA)
    np.testing.assert_allclose(solved.outputs, expected, atol=1e-8)


def test_a_session_that_cannot_be_opened_is_refused_by_name():
    class Closed(Faulty):
        def _session(self, structure, options):
            raise OSError("no license")

    solvers.register("closed", lambda: Closed("returns None", "closed"))
    problem, c, x = quadratic()
    with pytest.raises(ProgramError, match=r"cannot be set up: OSError: no license"):
        SolutionMap(problem, [c], [x], solver="closed")


@pytest.mark.parametrize("name", ["daqp", "piqp", "osqp", "clarabel", "scs"])
def test_the_packages_own_solvers_leave_the_data_as_it_is(name, rng):
    # They get no copies.
    n, m = 6, 9
    everywhere = lambda rows, cols: (np.tile(np.arange(rows), cols), np.repeat(np.arange(cols), rows))  # noqa: E731
    structure = Structure.from_patterns(n, Cones(zero=2, nonneg=m - 2), everywhere(n, n), everywhere(m, n))
    session = solvers.get(name).session(structure)
    for _ in range(3):
        B, A, x = rng.standard_normal((n, n)), rng.standard_normal((m, n)), rng.standard_normal(n)
        data = (
            (B @ B.T).ravel(),
            rng.standard_normal(n),
            A.T.ravel().copy(),
            A @ x + np.r_[0.0, 0.0, rng.random(m - 2)],
        )
        before = [part.copy() for part in data]
        raw = session.solve(*data)
        assert raw.status is Status.SOLVED
        start = raw.copy()
        session.solve(*data, warm=raw)
        assert all(np.array_equal(part, kept) for part, kept in zip(data, before, strict=True))
        assert all(np.array_equal(getattr(raw, key), getattr(start, key)) for key in "xsy")
