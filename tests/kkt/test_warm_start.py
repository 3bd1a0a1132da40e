"""Newton's steps from the previous point take a solver's place where θ moved little, and only there."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from cvxift.errors import SolveError
from cvxift.kkt.solution_map import SolutionMap
from cvxift.solvers.base import Session

N = 60


def _dense(solver: str = "piqp") -> SolutionMap:
    """A dense program of a size that is solved as a batch."""
    x, t = cp.Variable(8), cp.Parameter(8)
    A = np.random.default_rng(7).standard_normal((10, 8))
    return SolutionMap(cp.Problem(cp.Minimize(cp.sum_squares(A @ x) + t @ x), [A @ x <= 1]), [t], [x], solver=solver)


def _box(solver: str | None = "clarabel", unit: float = 1.0) -> tuple[SolutionMap, cp.Parameter]:
    """The projection onto a box in other units, whose solution is known."""
    x, t = cp.Variable(N), cp.Parameter(N)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x / unit - t)), [x <= unit, x >= -unit])
    return SolutionMap(problem, [t], [x], solver=solver), t


def _softmax(count: int) -> SolutionMap:
    z, t = cp.Variable(count), cp.Parameter(count)
    return SolutionMap(cp.Problem(cp.Maximize(t @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1]), [t], [z])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many instances solvers are asked for, call by call."""
    counts: list[int] = []
    one, many = Session.solve, Session.solve_batch
    within = [False]

    def solve(self, P, q, A, b, warm=None):
        if not within[0]:
            counts.append(1)
        return one(self, P, q, A, b, warm)

    def solve_batch(self, P, q, A, b, warm=None):
        counts.append(len(q))
        within[0] = True
        try:
            return many(self, P, q, A, b, warm)
        finally:
            within[0] = False

    monkeypatch.setattr(Session, "solve", solve)
    monkeypatch.setattr(Session, "solve_batch", solve_batch)
    return counts


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
@pytest.mark.parametrize("unit", [1.0, 1e4])
def test_a_small_move_asks_no_solver(asked: list[int], batch: tuple[int, ...], unit: float) -> None:
    mapping, _ = _box(unit=unit)
    theta = np.random.default_rng(0).uniform(-2, 2, (*batch, N))
    first = mapping.solve(theta)
    before = sum(asked)
    near = theta + 1e-3 * np.random.default_rng(1).standard_normal(theta.shape)
    second = mapping.solve(near, warm=first.warm())
    assert sum(asked) == before == np.prod(batch, dtype=int)
    np.testing.assert_allclose(second.outputs, unit * np.clip(near, -1, 1), rtol=0, atol=1e-9 * unit)
    back = mapping.solve(theta, warm=second.warm())
    np.testing.assert_allclose(back.outputs, first.outputs, rtol=0, atol=1e-9 * unit)
    bar = np.ones((*batch, N))
    np.testing.assert_allclose(mapping.vjp(second, bar), unit * (np.abs(near) < 1), atol=1e-9 * unit)


def test_only_the_instances_that_moved_far_are_solved(asked: list[int]) -> None:
    mapping, _ = _box()
    theta = np.random.default_rng(0).uniform(-2, 2, (6, N))
    first = mapping.solve(theta)
    asked.clear()
    moved = theta + 1e-4
    moved[[1, 4]] *= -3
    second = mapping.solve(moved, warm=first.warm())
    assert sum(asked) == 2
    np.testing.assert_allclose(second.outputs, np.clip(moved, -1, 1), rtol=0, atol=1e-9)


def test_so_are_they_in_a_dense_batch(asked: list[int]) -> None:
    mapping = _dense()
    theta = np.random.default_rng(0).uniform(-40, 40, (6, 8))
    first = mapping.solve(theta)
    asked.clear()
    moved = theta + 1e-3
    moved[[1, 4]] *= -3
    second = mapping.solve(moved, warm=first.warm())
    assert asked == [2]
    np.testing.assert_allclose(second.outputs, mapping.solve(moved).outputs, rtol=0, atol=1e-9)


def test_rows_that_become_tight_on_the_way_ask_no_solver(asked: list[int]) -> None:
    mapping, _ = _box()
    theta = np.linspace(-1.02, 1.02, N)
    first = mapping.solve(theta)
    asked.clear()
    second = mapping.solve(1.03 * theta, warm=first.warm())
    assert not asked and np.count_nonzero(second.outputs == 1.0) > np.count_nonzero(first.outputs == 1.0)
    np.testing.assert_allclose(second.outputs, np.clip(1.03 * theta, -1, 1), rtol=0, atol=1e-9)


def test_an_active_set_solver_starts_from_the_active_set_itself(asked: list[int]) -> None:
    mapping, _ = _box("daqp")
    theta = np.random.default_rng(0).uniform(-2, 2, N)
    first = mapping.solve(theta)
    second = mapping.solve(theta + 1e-4, warm=first.warm())
    assert sum(asked) == 2
    np.testing.assert_allclose(second.outputs, np.clip(theta + 1e-4, -1, 1), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("count", "batch", "times"), [(5, (), 2), (5, (4,), 8), (5, (64,), 64), (400, (), 1)])
def test_curved_cones_are_followed_where_that_is_less_work(
    asked: list[int], count: int, batch: tuple[int, ...], times: int
) -> None:
    mapping = _softmax(count)
    theta = np.random.default_rng(0).standard_normal((*batch, count))
    first = mapping.solve(theta)
    near = theta + 1e-3
    near[..., 0] += 1e-3
    second = mapping.solve(near, warm=first.warm())
    assert sum(asked) == times
    expected = np.exp(near) / np.exp(near).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(second.outputs, expected, rtol=1e-7, atol=0)


def test_an_instance_without_a_point_starts_from_nothing() -> None:
    x, t = cp.Variable(3), cp.Parameter(3)
    constraints: list[cp.Constraint] = [cp.Zero(x - t), x >= 0]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), constraints)
    mapping = SolutionMap(problem, [t], [x], solver="clarabel", on_failure="nan")
    theta = np.array([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
    with pytest.warns(UserWarning, match="infeasible"):
        first = mapping.solve(theta)
    assert np.isnan(first.outputs[1]).all() and first.warm()[1] is None
    second = mapping.solve(np.abs(theta), warm=first.warm())
    np.testing.assert_allclose(second.outputs, np.ones((2, 3)), atol=1e-9)


def test_what_became_infeasible_is_found_out() -> None:
    x, t = cp.Variable(2), cp.Parameter()
    mapping = SolutionMap(cp.Problem(cp.Minimize(cp.sum_squares(x)), [cp.sum(x) >= t, x <= 1]), [t], [x], solver="piqp")
    first = mapping.solve(np.array([1.9999]))
    with pytest.raises(SolveError):
        mapping.solve(np.array([2.001]), warm=first.warm())


@pytest.mark.parametrize(("order", "asks"), [(6, 2), (12, 1)], ids=["small", "SCS"])
def test_matrix_programs_are_followed_where_a_first_order_method_is_asked_first(
    asked: list[int], order: int, asks: int
) -> None:
    """SCS takes longer than a Newton step, the few iterations of Clarabel for a small matrix do not."""
    X, C = cp.Variable((order, order), PSD=True), cp.Parameter((order, order))
    mapping = SolutionMap(cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [cp.diag(X) == 1]), [C], [X])
    M = np.random.default_rng(0).uniform(-1, 1, (order, order))
    theta = (M + M.T).ravel() / 2
    near = theta * (1 + 1e-3)
    second = mapping.solve(near, warm=mapping.solve(theta).warm())
    assert sum(asked) == asks
    np.testing.assert_allclose(second.outputs, mapping.solve(near).outputs, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("count", "started"), [(8, False), (110, True)])
def test_an_active_set_is_handed_over_where_finding_it_takes_longer(
    monkeypatch: pytest.MonkeyPatch, count: int, started: bool
) -> None:
    rng = np.random.default_rng(0)
    x, t = cp.Variable(count), cp.Parameter(count)
    A = rng.standard_normal((count, count))
    mapping = SolutionMap(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [A @ x <= 1]), [t], [x], solver="daqp")
    warm: list[bool] = []
    real = Session.solve
    monkeypatch.setattr(Session, "solve", lambda self, *d: warm.append(d[4] is not None) or real(self, *d))
    theta = rng.standard_normal(count)
    second = mapping.solve(1.001 * theta, warm=mapping.solve(theta).warm())
    assert warm == [False, started]
    np.testing.assert_allclose(second.outputs, mapping.solve(1.001 * theta).outputs, rtol=0, atol=1e-11)
