"""DAQP on programs whose rows, bounds and cost are in units far apart: no row may be passed over."""

from __future__ import annotations

import numpy as np
import pytest
from planted_programs import residuals

from cvxift.program.cones import Cones
from cvxift.program.structure import Structure
from cvxift.solvers import Status, get


def program(bounds: bool):
    """min ½‖x − (2, 3)‖² with two rows (or a row and a bound) that hold at (1, 1) with multipliers."""
    rows = np.array([[1.0, 0.0], [0.2, 1.0]] if bounds else [[1.0, 0.5], [0.2, 1.0]])
    place = np.nonzero(rows.T)
    structure = Structure.from_patterns(2, Cones(nonneg=2), (np.arange(2), np.arange(2)), place[::-1])
    return structure, rows, structure.A_rows, structure.A_cols


@pytest.mark.parametrize("bounds", [False, True], ids=["rows", "bounds"])
@pytest.mark.parametrize("cost", [1e-12, 1e-6, 1.0, 1e6, 1e12])
def test_units_of_rows_and_cost(bounds, cost):
    structure, rows, A_rows, A_cols = program(bounds)
    session = get("daqp").session(structure)
    for unit in (1e-8, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e9):
        A = rows * np.array([[1.0], [unit]])
        raw = session.solve(cost * np.ones(2), -cost * np.array([2.0, 3.0]), A[A_rows, A_cols], A @ np.ones(2))
        assert raw.status is Status.SOLVED
        np.testing.assert_allclose(raw.x, 1.0, rtol=1e-8)
        np.testing.assert_array_equal(raw.s, 0.0)
        y = np.linalg.solve(A.T, cost * np.array([1.0, 2.0]))
        np.testing.assert_allclose(raw.y, y, rtol=1e-7)


def test_equalities_in_units_far_apart(rng):
    n, zero, m = 8, 3, 12
    grid = np.divmod(np.arange(n * m), m)
    square = np.divmod(np.arange(n * n), n)
    structure = Structure.from_patterns(n, Cones(zero=zero, nonneg=m - zero), square[::-1], grid[::-1])
    session = get("daqp").session(structure)
    for _ in range(20):
        A = rng.standard_normal((m, n))
        x = rng.standard_normal(n)
        tight = np.concatenate([np.ones(zero), rng.permutation(m - zero) < n - zero - 1])
        y = np.where(tight, 0.5 + rng.random(m), 0.0) * np.where(np.arange(m) < zero, -1.0, 1.0)
        s = np.where(tight, 0.0, 0.5 + rng.random(m))
        q, b = -x - A.T @ y, A @ x + s
        unit = 10.0 ** rng.uniform(-8, 8, m)
        scaled = unit[:, None] * A
        raw = session.solve(np.eye(n).ravel(), q, scaled.ravel(order="F"), unit * b)
        np.testing.assert_allclose(raw.x, x, atol=1e-7)
        np.testing.assert_allclose(raw.y * unit, y, atol=1e-6)
        assert max(residuals(structure, np.eye(n).ravel(), q, A.ravel(order="F"), b, raw_of(raw, unit))) < 1e-8


def raw_of(raw, unit):
    """The point in the rows' own units."""
    raw.s, raw.y = raw.s / unit, raw.y * unit
    return raw


def test_a_row_of_zeros_is_no_trouble():
    none = np.zeros(1, dtype=int)
    structure = Structure.from_patterns(1, Cones(nonneg=2), (none, none), (none, none))
    raw = get("daqp").session(structure).solve(np.ones(1), -2.0 * np.ones(1), np.ones(1), np.array([1.0, 3.0]))
    assert raw.status is Status.SOLVED
    np.testing.assert_allclose([raw.x[0], *raw.s, *raw.y], [1.0, 0.0, 3.0, 1.0, 0.0])


@pytest.mark.parametrize("fault", ["indefinite cost", "dependent equalities"])
def test_what_ends_before_the_first_iteration_has_no_point(fault):
    zero = 2 if fault == "dependent equalities" else 0
    structure, _, A_rows, A_cols = program(False)
    structure = Structure.from_patterns(2, Cones(zero=zero, nonneg=2 - zero), (np.arange(2),) * 2, (A_rows, A_cols))
    A = np.ones((2, 2)) if zero else np.array([[1.0, 0.5], [0.2, 1.0]])
    P = np.ones(2) if zero else np.array([1.0, -1.0])
    raw = get("daqp").session(structure).solve(P, np.ones(2), A[A_rows, A_cols], np.array([1.0, 2.0]))
    assert not raw.status.has_point
    assert np.isnan(raw.x).all()
