"""Rows that are bounds on one variable, dense layouts, and reordered rows, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from planted_programs import structure_of, svec

from cvxift.program.cones import Cones
from cvxift.solvers.layout import Bounds, Dense, Limits, RowOrder, lower_columnwise, singletons


def random_bounds(rng, n=6, zero=2, nonneg=15, void=False):
    """A with several single-entry rows a variable, of either sign, among general ones."""
    A = np.zeros((zero + nonneg, n))
    for row in range(zero + nonneg):
        if rng.random() < 0.7:
            A[row, rng.integers(n)] = rng.choice([-2.0, -1.0, 1.0, 3.0])
        else:
            A[row] = rng.standard_normal(n)
    structure, _, values = structure_of(np.eye(n), A, Cones(zero=zero, nonneg=nonneg))
    if void:
        single = [k for k in range(len(values)) if np.count_nonzero(structure.A_rows == structure.A_rows[k]) == 1]
        values[rng.choice(single, 2, replace=False)] = 0.0
    return structure, values


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_bounds_are_those_of_the_rows(seed, void):
    rng = np.random.default_rng(seed)
    structure, values = random_bounds(rng, void=void)
    n, zero = structure.n, structure.cones.zero
    b = rng.uniform(0.5, 3.0, structure.m)  # x = 0 is strictly inside
    bounds = Bounds(structure, worth=0.0)
    limits = bounds.evaluate(values, b, n)
    assert isinstance(limits, Limits)
    A = structure.A_matrix(values).toarray()
    # Every row is either a bound or general, none is both; the zero cone's are general.
    assert sorted([*bounds.rows, *bounds.general]) == list(range(structure.m))
    np.testing.assert_array_equal(bounds.general[:zero], np.arange(zero))
    lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
    for row in bounds.rows:
        j = structure.A_cols[structure.A_rows == row][0]
        if A[row, j] > 0:
            upper[j] = min(upper[j], b[row] / A[row, j])
        elif A[row, j] < 0:
            lower[j] = max(lower[j], b[row] / A[row, j])
    np.testing.assert_array_equal(limits.lower, lower)
    np.testing.assert_array_equal(limits.upper, upper)


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_multipliers_keep_stationarity(seed, void):
    rng = np.random.default_rng(seed)
    structure, values = random_bounds(rng, void=void)
    b = rng.uniform(0.5, 3.0, structure.m)
    bounds = Bounds(structure, worth=0.0)
    limits = bounds.evaluate(values, b, structure.n)
    assert isinstance(limits, Limits)
    at_lower = np.where(np.isfinite(limits.lower), rng.uniform(0.0, 2.0, structure.n), 0.0)
    at_upper = np.where(np.isfinite(limits.upper), rng.uniform(0.0, 2.0, structure.n), 0.0)
    y = np.zeros(structure.m)
    y[bounds.rows] = bounds.multipliers(limits, at_lower, at_upper)
    assert np.all(y >= 0.0)
    A = structure.A_matrix(values)
    np.testing.assert_allclose(A.T @ y, at_upper - at_lower, atol=1e-14)  # the same force on every variable
    x = np.where(at_upper > 0.0, limits.upper, np.where(at_lower > 0.0, limits.lower, 0.0))
    one_sided = (at_lower == 0.0) | (at_upper == 0.0)
    for row in bounds.rows[y[bounds.rows] > 0.0]:  # a multiplier only where the row is the one that binds
        j = structure.A_cols[structure.A_rows == row][0]
        if one_sided[j]:
            assert A.toarray()[row] @ np.where(np.isfinite(x), x, 0.0) == pytest.approx(b[row])


def test_bounds_that_contradict_each_other():
    structure, _, A = structure_of(np.eye(1), [[1.0], [-1.0]], Cones(nonneg=2))
    bounds = Bounds(structure, worth=0.0)
    assert "contradict" in str(bounds.evaluate(A, np.array([1.0, -2.0]), 1))  # x ≤ 1, x ≥ 2
    assert isinstance(bounds.evaluate(A, np.array([1.0, -1.0]), 1), Limits)
    assert "0 ≤ b" in str(bounds.evaluate(np.array([0.0, -1.0]), np.array([-1.0, 0.0]), 1))


def test_few_bounds_are_not_worth_it():
    rng = np.random.default_rng(0)
    structure, _ = random_bounds(rng)
    assert singletons(structure) > 0
    assert Bounds(structure).count == 0
    np.testing.assert_array_equal(Bounds(structure).general, np.arange(structure.m))


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (3, 3), (1, 5), (5, 1), (0, 3)])
def test_dense(shape, everywhere):
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal(shape) * (rng.random(shape) < (1.0 if everywhere else 0.5))
    structure, _, values = structure_of(
        np.zeros((shape[1],) * 2), matrix, Cones(nonneg=shape[0]), everywhere=everywhere
    )
    dense = Dense(structure.A_rows, structure.A_cols, shape)
    np.testing.assert_array_equal(dense(values), matrix)
    np.testing.assert_array_equal(dense(2.0 * values), 2.0 * matrix)
    assert dense(values).flags.c_contiguous
    transposed = Dense(structure.A_cols, structure.A_rows, shape[::-1])
    np.testing.assert_array_equal(transposed(values), matrix.T)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_lower_columnwise(order):
    rng = np.random.default_rng(order)
    S = rng.standard_normal((order, order))
    S = S + S.T
    lower = [S[row, col] * (1.0 if row == col else np.sqrt(2.0)) for col in range(order) for row in range(col, order)]
    np.testing.assert_array_equal(svec(S)[lower_columnwise(order)], lower)


def test_row_order():
    rng = np.random.default_rng(3)
    A = rng.standard_normal((6, 4)) * (rng.random((6, 4)) < 0.6)
    structure, _, values = structure_of(np.zeros((4, 4)), A, Cones(nonneg=6))
    rows = rng.permutation(6)
    order = RowOrder(structure, rows)
    moved = np.zeros((6, 4))
    moved[order.A_rows, structure.A_cols] = order.matrix(values)
    np.testing.assert_array_equal(moved, A[rows])
    vectors = rng.standard_normal((3, 6))
    np.testing.assert_array_equal(order.there(vectors), vectors[:, rows])
    np.testing.assert_array_equal(order.back(order.there(vectors)), vectors)
    assert RowOrder(structure, np.arange(6)).identity
