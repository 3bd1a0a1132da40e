"""What is kept from call to call where matrices are constants: scaled matrices and reduced systems, to the last bit."""

from __future__ import annotations

import pickle

import cvxpy as cp
import numpy as np
import pytest

from cvxift.kkt.solution_map import SolutionMap
from cvxift.kkt.system.factor import DenseFactor
from cvxift.kkt.system.kept import KEPT_SYSTEMS
from cvxift.kkt.system.sparse_factor import SparseFactor


def quadratic(n: int, fixed: bool, unit: float = 1.0) -> tuple[SolutionMap, int]:
    """½‖x‖² + qᵀx over Ax ≤ 1 in a unit of x, A a parameter or not; and the number of A's entries in θ."""
    rng = np.random.default_rng(n)
    A = rng.standard_normal((n, n)) * (rng.random((n, n)) < 0.1 if n > 100 else 1.0) / unit
    x, q, matrix = cp.Variable(n), cp.Parameter(n), cp.Parameter((n, n))
    rows = (A if fixed else matrix) @ x <= 1.0
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x / unit) / 2 + q @ x / unit), [rows])
    return SolutionMap(problem, [q] if fixed else [q, matrix], [x]), 0 if fixed else A.size


@pytest.mark.parametrize("unit", [1.0, 1e6])
@pytest.mark.parametrize("n", [6, 240])
def test_an_active_set_met_before_takes_no_factorization_and_gives_the_same_bits(monkeypatch, n, unit) -> None:
    made = []
    for kind in (DenseFactor, SparseFactor):
        start = kind.__init__
        monkeypatch.setattr(
            kind, "__init__", lambda *of, start=start, **more: (made.append(None), start(*of, **more))[1]
        )
    rng = np.random.default_rng(1)
    mapping, other = (quadratic(n, True, unit)[0] for _ in range(2))
    theta, bar = rng.standard_normal(n), rng.standard_normal(n)
    near = theta * (1.0 + 1e-9 * rng.standard_normal(n))
    solved = mapping.solve(theta)
    first = solved.outputs, mapping.derivative(solved, (), bar)
    assert made
    made.clear()
    again = mapping.solve(near)
    mapping.derivative(again, (), bar)
    assert not made and not np.array_equal(first[0], again.outputs)
    fresh = other.solve(near)
    np.testing.assert_array_equal(again.outputs, fresh.outputs)
    np.testing.assert_array_equal(mapping.derivative(again, (), bar), other.derivative(fresh, (), bar))


def test_only_the_last_active_sets_are_kept() -> None:
    mapping, _ = quadratic(6, True)
    rng = np.random.default_rng(2)
    for _ in range(5 * KEPT_SYSTEMS):
        mapping.derivative(mapping.solve(3.0 * rng.standard_normal(6)), (), np.ones(6))
    assert len(mapping.engine.layout.systems) == KEPT_SYSTEMS
    assert not pickle.loads(pickle.dumps(mapping.engine)).layout.systems


def test_nothing_is_kept_of_matrices_that_depend_on_theta() -> None:
    mapping, entries = quadratic(6, False)
    rng = np.random.default_rng(3)
    solved = mapping.solve(rng.standard_normal(6 + entries))
    mapping.derivative(solved, (), np.ones(6))
    assert not mapping.engine.layout.systems and solved.solutions[0].instance.layout is None
