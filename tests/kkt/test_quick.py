"""The quick solver that comes before the robust ones: what it leaves undone they do, and its verdicts are confirmed."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from cvxift.cones import Cones
from cvxift.kkt.engine import TOLERANCE, Engine
from cvxift.kkt.policy import Policy
from cvxift.program.program import Program
from cvxift.program.structure import Structure
from cvxift.solvers import quick
from cvxift.solvers.base import Status


def solve(problem, **options):
    program = Program(problem)
    return program, Engine(program.structure, **options).solve(program.evaluate(np.zeros(program.theta_size)))


def random_sdp(rng, order=20, rows=30):
    """A program with a planted primal and dual solution that SCS does not solve in its few hundred iterations."""
    X = cp.Variable((order, order), symmetric=True)
    root, other = rng.standard_normal((order, order // 2)), rng.standard_normal((order, order // 2))
    A = rng.standard_normal((rows, order, order))
    A = A + A.transpose(0, 2, 1)
    cost = other @ other.T + np.tensordot(rng.standard_normal(rows), A, 1)
    return cp.Problem(
        cp.Minimize(cp.trace(cost @ X)), [X >> 0] + [cp.trace(a @ X) == np.sum(a * (root @ root.T)) for a in A]
    )


def correlation(rng, order=12):
    X = cp.Variable((order, order), PSD=True)
    C = rng.uniform(-1, 1, (order, order))
    return cp.Problem(cp.Minimize(cp.sum_squares(X - (C + C.T) / 2)), [cp.diag(X) == 1])


def test_scs_and_newton_solve_a_matrix_program_to_rounding(rng):
    problem = correlation(rng)
    _, solution = solve(problem)
    assert [attempt[0] for attempt in solution.attempts] == ["scs"]
    assert solution.residuals.worst <= 1e-12
    _, robust = solve(problem, solver="clarabel")
    np.testing.assert_allclose(solution.x, robust.x, atol=1e-7)
    w = rng.standard_normal(len(solution.x))
    gradients = [point.linearization(Policy()).vjp(w).q for point in (solution, robust)]
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-6 * np.abs(gradients[1]).max())


def test_what_scs_leaves_undone_clarabel_does(rng):
    _, solution = solve(random_sdp(rng))
    assert solution.ok and solution.residuals.worst <= TOLERANCE
    assert [attempt[0] for attempt in solution.attempts] in (["scs"], ["scs", "clarabel"])


def test_a_solver_that_was_named_is_not_cut_short(rng):
    program = Program(correlation(rng))
    engine = Engine(program.structure, solver="scs")
    assert engine.open(None, None)[1] == {}
    chosen = Engine(program.structure)
    assert chosen.open(None, None)[1]["max_iters"] == 500
    assert chosen.open(None, {"max_iters": 7})[1]["max_iters"] == 7
    assert chosen.open("scs", None)[1] == {}
    assert chosen.candidates == ["scs", "clarabel", "scs"]


@pytest.mark.parametrize(
    ("constraints", "sense", "status"),
    [
        (lambda X: [cp.trace(X) == -1.0], 1.0, Status.INFEASIBLE),
        (lambda X: [X[0, 1] == 1.0], -1.0, Status.UNBOUNDED),
    ],
    ids=["infeasible", "unbounded"],
)
def test_verdicts_are_confirmed(constraints, sense, status):
    X = cp.Variable((10, 10), PSD=True)
    _, solution = solve(cp.Problem(cp.Minimize(sense * cp.trace(X)), constraints(X)))
    assert not solution.ok and solution.status is status
    assert [attempt[0] for attempt in solution.attempts][:2] == ["scs", "clarabel"]


def test_where_a_quick_solver_is_tried():
    def structure(**kinds):
        cones = Cones(**kinds)
        return Structure.from_patterns(cones.m, cones, P=([], []), A=(range(cones.m), range(cones.m)))

    assert quick(structure(zero=3, psd=(10,)))[0] == "scs"
    for kinds in (
        {"psd": (9,)},
        {"nonneg": 60},
        {"soc": (60,)},
        {"psd": (12,), "exp": 1},
        {"psd": (12,), "pow": (0.5,)},
    ):
        assert quick(structure(**kinds)) is None
