"""Transport problems take Sinkhorn's and Newton's closed forms, whatever sums are written; lookalikes do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from numpy.typing import NDArray

from cvxift import argmax
from cvxift.argmax.closed_form.closed_map import ClosedMap, ClosedSolved
from cvxift.atoms import neg_entropy, tsallis_neg_entropy
from cvxift.errors import SolveError
from tests.argmax.agreement import Builders, point

Array = NDArray[np.float64]
M, N = 3, 4
A = np.array([0.2, 0.3, 0.5])
B = np.array([0.1, 0.4, 0.3, 0.2])
ENTROPIC, QUADRATIC = "closed form (entropic transport)", "closed form (quadratic transport)"


def variable() -> tuple[cp.Variable, cp.Parameter]:
    return cp.Variable((M, N), name="z"), cp.Parameter((M, N), name="theta")


def inner(theta: Any, z: Any) -> Any:
    return cp.sum(cp.multiply(theta, z))


def lines(z: cp.Variable, a: Any = A, b: Any = B) -> list[Any]:
    return [cp.sum(z, axis=1) == a, cp.sum(z, axis=0) == b]


def spellings() -> dict[str, Callable[[], tuple[cp.Problem, str]]]:
    """By name, a problem and the path that it must take."""
    found = spelling = Builders[tuple[cp.Problem, str]]()

    temperature = cp.Parameter(nonneg=True, name="temperature")
    a, b = cp.Parameter(M, pos=True, name="a"), cp.Parameter(N, pos=True, name="b")
    b_head = cp.Parameter(N - 1, pos=True, name="b_head")
    prior = cp.Parameter((M, N), nonneg=True, name="prior")

    @spelling
    def all_lines():
        z, theta = variable()
        return cp.Problem(cp.Maximize(inner(theta, z) + cp.sum(cp.entr(z))), lines(z)), ENTROPIC

    @spelling
    def all_lines_squared():
        z, theta = variable()
        return cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [*lines(z), z >= 0, z <= 1]), QUADRATIC

    @spelling
    def without_the_first_row():
        z, theta = variable()
        rows, columns = cp.sum(z, axis=1)[1:] == a[1:], cp.sum(z, axis=0) == b
        return cp.Problem(cp.Maximize(inner(theta, z) + cp.sum(cp.entr(z))), [rows, columns]), ENTROPIC

    @spelling
    def without_a_column_in_the_middle():
        z, theta = variable()
        columns = [2 * cp.sum(z[:, j]) == 2 * b[j] for j in (0, 1, 3)]
        objective = cp.Minimize(0.5 * cp.sum_squares(z) - inner(theta, z))
        return cp.Problem(objective, [*columns, z >= 0, np.ones(N) @ z.T == a]), QUADRATIC

    @spelling
    def rows_after_columns_with_a_temperature():
        z, theta = cp.Variable((M, N), nonneg=True), cp.Parameter((M, N), name="theta")
        constraints = [cp.sum(z, axis=0)[:-1] == b_head, cp.sum(z, axis=1) == a]
        return cp.Problem(cp.Maximize(inner(theta, z) - temperature * neg_entropy(z)), constraints), ENTROPIC

    @spelling
    def relative_to_a_prior():
        z, theta = variable()
        return cp.Problem(cp.Maximize(inner(theta, z) - cp.sum(cp.rel_entr(z, prior))), lines(z)), ENTROPIC

    @spelling
    def squares_with_a_temperature():
        z, theta = cp.Variable((M, N), nonneg=True), cp.Parameter((M, N), name="theta")
        return cp.Problem(cp.Maximize(inner(theta, z) - temperature * cp.sum_squares(z)), lines(z)), QUADRATIC

    @spelling
    def costs_of_distances():
        # The scores are affine in few parameters.
        z, place = cp.Variable((M, N), name="z"), cp.Parameter(M, name="place")
        cost = cp.reshape(place, (M, 1), order="C") @ np.ones((1, N)) + np.arange(12.0).reshape(M, N) ** 0.5
        return cp.Problem(cp.Minimize(inner(cost, z) + 0.3 * neg_entropy(z)), lines(z)), ENTROPIC

    @spelling
    def one_matrix_of_all_sums():
        z, theta = cp.Variable(M * N), cp.Parameter(M * N, name="theta")
        sums = np.vstack([np.kron(np.eye(M), np.ones(N)), np.kron(np.ones(M), np.eye(N))])
        objective = cp.Maximize(theta @ z + cp.sum(cp.entr(z)))
        return cp.Problem(objective, [sums @ z == np.concatenate([A, B])]), ENTROPIC

    @spelling
    def builder():
        return argmax.transport(a, b, "entropic", temperature), ENTROPIC

    @spelling
    def builder_quadratic():
        return argmax.transport(a, b, "quadratic", temperature), QUADRATIC

    @spelling
    def builder_prior():
        return argmax.transport(A, B, "entropic", temperature, prior), ENTROPIC

    @spelling
    def two_by_two():
        return argmax.birkhoff(2), ENTROPIC

    @spelling
    def birkhoff():
        return argmax.birkhoff(4, "quadratic"), QUADRATIC

    return found


SPELLINGS = spellings()


def lookalikes() -> dict[str, cp.Problem]:
    """By name, a problem that is no plain plan, though nearly."""
    z, theta = variable()
    entropic = inner(theta, z) + cp.sum(cp.entr(z))
    squared = inner(theta, z) - cp.sum_squares(z)
    weights = np.ones((M, N))
    weights[1, 2] = 1.1
    diagonal = sum(z[i, i] for i in range(M))
    a, b = cp.Parameter(M, pos=True, name="a"), cp.Parameter(N, pos=True, name="b")
    half = [cp.sum(z, axis=1)[1:] == A[1:], diagonal == 0.3]
    mixed = [cp.sum(z, axis=1) == A, z[0, 0] + z[1, 1] + z[2, 2] == 0.3, z[0, 1] + z[1, 0] + z[2, 3] == 0.3]
    return {
        "a weighted sum": cp.Problem(
            cp.Maximize(entropic), [cp.sum(cp.multiply(weights, z), axis=1) == A, lines(z)[1]]
        ),
        "two lines too few": cp.Problem(cp.Maximize(entropic), [lines(z)[0], cp.sum(z, axis=0)[2:] == B[2:]]),
        "one direction and a half": cp.Problem(cp.Maximize(entropic), half),
        "a sum across": cp.Problem(cp.Maximize(entropic), [*lines(z), diagonal == 0.3]),
        "other groups than columns": cp.Problem(cp.Maximize(entropic), mixed),
        "a forbidden entry": cp.Problem(cp.Maximize(squared), [*lines(z), z >= 0, z[0, 1] == 0]),
        "an upper bound that matters": cp.Problem(cp.Maximize(squared), [*lines(z), z >= 0, z <= 0.3]),
        "a lower bound": cp.Problem(cp.Maximize(entropic), [*lines(z), z >= 0.01]),
        "no lower bounds": cp.Problem(cp.Maximize(squared), lines(z)),
        "some lower bounds": cp.Problem(cp.Maximize(squared), [*lines(z), z[:2] >= 0]),
        "an inequality between entries": cp.Problem(cp.Maximize(entropic), [*lines(z), z[0, 0] <= z[1, 1]]),
        "weighted entropies": cp.Problem(
            cp.Maximize(inner(theta, z) + cp.sum(cp.multiply(weights, cp.entr(z)))), lines(z)
        ),
        "another entropy": cp.Problem(cp.Maximize(inner(theta, z) - tsallis_neg_entropy(z, 1.5)), lines(z)),
        "inequalities": cp.Problem(cp.Maximize(squared), [cp.sum(z, axis=1) <= A, lines(z)[1], z >= 0]),
        "masses that may disagree": cp.Problem(cp.Maximize(entropic), lines(z, a, b)),
    }


LOOKALIKES = {name: lambda problem=problem: problem for name, problem in lookalikes().items()}


def test_no_plan_and_no_mass_are_left_to_the_solvers() -> None:
    problem, _ = SPELLINGS["builder"]()
    closed = ClosedMap(problem, None, problem.variables()[:1])
    theta = point(closed.parameters, np.random.default_rng(7))
    ends = np.cumsum([0, *(p.size for p in closed.parameters)])
    (b,) = (i for i, p in enumerate(closed.parameters) if p.name() == "b")
    heavy = theta.copy()
    heavy[ends[b] : ends[b + 1]] = 5.0  # the last column's mass, which the others leave, is negative
    assert closed.closed(heavy) is None
    with pytest.raises(SolveError):
        closed.solve(heavy).require()
    redundant = argmax.transport(A, B)
    assert isinstance(ClosedMap(redundant, None, redundant.variables()).solve(np.zeros(M * N)), ClosedSolved)
    empty = argmax.transport(np.array([0.0, 0.5, 0.5]), B)
    mapping = ClosedMap(empty, None, empty.variables())
    assert not isinstance(mapping.solve(np.zeros(M * N)), ClosedSolved)


def test_masses_that_cannot_move_are_left_to_the_kkt_system() -> None:
    # z is diagonal: its rows and columns fall into parts whose masses must agree, and the program has a kink in them.
    a, b = cp.Parameter(2, pos=True), cp.Parameter(2, pos=True)
    problem = argmax.transport(a, b, "quadratic")
    closed = ClosedMap(problem, None, problem.variables())
    by_id = {closed.parameters[i].id: i for i in range(3)}
    parts: list[Array] = [np.zeros(0)] * 3
    for parameter in closed.parameters:
        value = np.array([0.5, 0.5]) if parameter.size == 2 else 9.0 * np.eye(2).ravel()
        parts[by_id[parameter.id]] = value
    assert closed.closed(np.concatenate(parts)) is None


def test_a_large_plan() -> None:
    n = 60
    problem = argmax.birkhoff(n)
    closed = ClosedMap(problem, None, problem.variables())
    assert closed.path == ENTROPIC
    theta = np.random.default_rng(8).standard_normal(n * n)
    solved = closed.solve(theta)
    z = solved.outputs.reshape(n, n)
    np.testing.assert_allclose(z.sum(0), 1.0, atol=1e-12)
    np.testing.assert_allclose(z.sum(1), 1.0, atol=1e-12)
    assert closed.violation(theta) <= 1e-12


def widest(x: Array, z: Array) -> float:
    """How far below zero multipliers (u, v) of a plan can keep x − u ⊕ v on all its zeros, by a linear program."""
    n, m = z.shape
    u, v, gap = cp.Variable((n, 1)), cp.Variable((1, m)), cp.Variable()
    level = x - (u @ np.ones((1, m)) + np.ones((n, 1)) @ v)
    held, free = z > 0, z <= 0
    constraints = [cp.multiply(held, level - z) == 0, cp.multiply(free, level) <= -gap * free, gap <= 1]
    value = cp.Problem(cp.Maximize(gap), constraints).solve(solver=cp.HIGHS)
    return float(value)


def test_plans_in_several_parts_are_no_kinks_by_a_choice_of_multipliers() -> None:
    """Newton's method ends with multipliers at which an entry is about to come in; others keep away from it."""
    n, rng = 4, np.random.default_rng(9)
    problem = argmax.birkhoff(n, "quadratic")
    closed = ClosedMap(problem, None, problem.variables())
    generic = ClosedMap(problem, None, problem.variables(), closed_form="never")
    assert closed.path == QUADRATIC
    theta = 3.0 * rng.standard_normal((40, n * n))
    solved = closed.solve(theta)
    assert isinstance(solved, ClosedSolved)
    margins = solved.solutions.margins
    parts = 0
    for x, z, margin in zip(theta.reshape(-1, n, n), solved.outputs.reshape(-1, n, n), margins, strict=True):
        parts += np.count_nonzero(z) < 2 * n - 1  # too few edges for one part
        possible = min(z[z > 0].min(), widest(x, z))
        assert possible > 1e-6 and margin >= 0.5 * possible / n / (1.0 + 4.0 * np.abs(x).max())
    assert parts > 20
    np.testing.assert_allclose(solved.outputs, generic.solve(theta).outputs, atol=1e-12)
    direction = rng.standard_normal(theta.shape)
    step = 1e-6
    ahead, behind = (closed.solve(theta + sign * step * direction).outputs for sign in (1, -1))
    np.testing.assert_allclose(closed.jvp(solved, direction), (ahead - behind) / (2 * step), atol=1e-8)


def test_a_kink_between_parts_is_found() -> None:
    problem = argmax.transport(np.array([0.5, 0.5]), np.array([0.5, 0.5]), "quadratic")
    closed = ClosedMap(problem, None, problem.variables())
    for scores, there in ((0.5, True), (0.5 + 1e-3, False), (0.5 - 1e-3, False)):
        x = np.diag([scores, scores])  # off the diagonal, levels sum to 1 − 2 · scores
        solved = closed.solve(x.ravel())
        assert isinstance(solved, ClosedSolved)
        assert (float(solved.solutions.margins[0]) <= 1e-12) is there
        if there:
            assert abs(widest(x, solved.outputs.reshape(2, 2))) <= 1e-9
