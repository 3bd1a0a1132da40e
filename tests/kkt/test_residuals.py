"""Residuals do not depend on the units of rows, variables and cost, and rounding is not taken for an error."""

from __future__ import annotations

import numpy as np
import pytest
from plant import plant

from cvxift.cones import Cones
from cvxift.kkt.engine import ACCEPTABLE
from cvxift.kkt.instance import Layout
from cvxift.kkt.residuals import FLOOR, GOAL, Residuals
from cvxift.kkt.units import Units
from cvxift.program.structure import Data, Structure

CONES = Cones(zero=3, nonneg=9)
N = 7
ALIKE = 100 * FLOOR  # relative: units are found up to a factor, and what they are the size of is a share φ


def scaled(structure: Structure, data: Data, row, cost: float) -> Data:
    A = data.A * row[structure.A_rows]
    return Data(cost * data.P, cost * data.q, A, row * data.b, data.d)


@pytest.fixture
def planted(rng):
    return plant(CONES, N, rng)


def residuals(structure, data, x, s, y, dense=True) -> Residuals:
    return Layout(structure, dense).instance(data).errors(x, s, y)[2]


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
def test_units_of_rows_and_cost_change_nothing(planted, rng, dense):
    structure, data = planted.structure, planted.data
    row, cost = 10.0 ** rng.uniform(-6, 6, structure.m), 1e-7
    moved = scaled(structure, data, row, cost)
    x = planted.x + 1e-4 * rng.standard_normal(N)
    s, y = planted.s * (1.0 + 1e-3 * rng.standard_normal(structure.m)), planted.y * 1.01
    here = residuals(structure, data, x, s, y, dense)
    there = residuals(structure, moved, x, row * s, cost * y / row, dense)
    assert 1e-6 < here.primal < 1e-2 and 1e-6 < here.dual < 1e-1
    np.testing.assert_allclose(there, here, rtol=ALIKE)


def test_every_row_counts_however_small(planted, rng):
    # One violated row in a unit 1e9 times smaller than the others'.
    structure, data = planted.structure, planted.data
    for i in range(structure.m):
        row = np.ones(structure.m)
        row[i] = 1e-9
        s = row * planted.s
        s[i] += 1e-9 * 1e-3
        found = residuals(structure, scaled(structure, data, row, 1.0), planted.x, s, planted.y / row)
        assert found.primal > 1e-5 and found.dual < GOAL


def test_every_column_counts_however_cheap():
    # min Σ w_j (x_j − 1)²/2 with w over twelve orders, and a bound that is far away.
    w = np.geomspace(1e6, 1e-6, 5)
    diagonal, bounds = np.arange(5), np.zeros(5, dtype=int)
    structure = Structure.from_patterns(5, Cones(nonneg=1), (diagonal, diagonal), (bounds, diagonal))
    data = Data(w, -w, np.ones(5), np.array([100.0]), np.float64(0.0))
    s, y = np.array([95.0]), np.zeros(1)
    assert residuals(structure, data, np.ones(5), s, y).worst <= GOAL
    for j in range(5):
        x = np.ones(5)
        x[j] += 1e-3
        assert residuals(structure, data, x, s - 1e-3, y).dual > 10 * ACCEPTABLE


def test_rounding_of_multipliers_that_vanish_is_no_error():
    # x₁ has no cost, and is held by a multiplier that vanishes to rounding.
    zero = np.zeros(1, dtype=int)
    structure = Structure.from_patterns(2, Cones(zero=1), (zero, zero), (np.zeros(2, dtype=int), np.arange(2)))
    data = Data(np.ones(1), np.array([-1.0, 0.0]), np.ones(2), np.array([3.0]), np.float64(0.0))
    assert residuals(structure, data, np.array([1.0, 2.0]), np.zeros(1), np.array([1e-17])).worst < 1e-11
    free = Data(np.zeros(1), np.zeros(2), np.ones(2), np.array([3.0]), np.float64(0.0))  # no cost at all
    assert residuals(structure, free, np.array([1.0, 2.0]), np.zeros(1), np.array([1e-17])).worst < 1e-11
    assert residuals(structure, data, np.array([1.0, 2.0]), np.zeros(1), np.array([1e-3])).worst > 1e-4


def test_rows_and_columns_of_zeros(rng):
    none = np.zeros(0, dtype=int)
    structure = Structure.from_patterns(2, Cones(nonneg=2), (none, none), (none, none))
    data = Data(np.zeros(0), np.zeros(2), np.zeros(0), np.array([0.0, 1.0]), np.float64(0.0))
    for dense in (True, False):
        assert residuals(structure, data, np.ones(2), data.b, np.zeros(2), dense).worst == 0.0
        wrong = residuals(structure, data, np.ones(2), np.array([1e-3, 1.0]), np.zeros(2), dense)
        assert 1e-4 < wrong.worst < np.inf
    empty = Structure.from_patterns(0, Cones(), (none, none), (none, none))
    nothing = Data(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0), np.float64(0.0))
    assert residuals(empty, nothing, np.zeros(0), np.zeros(0), np.zeros(0)).worst == 0.0


def test_bounds_are_given_for_exact_points_only(planted):
    structure, data = planted.structure, planted.data
    A = structure.A_matrix(data.A).toarray()
    exact = residuals(structure, data, planted.x, planted.s, planted.y)
    assert exact.worst <= GOAL
    s = planted.s + 1e-9
    size = np.abs(A) @ np.abs(planted.x) + np.abs(data.b) + FLOOR * max(1.0, np.abs(planted.x).max())
    expected = np.max(1e-9 / size)
    found = residuals(structure, data, planted.x, s, planted.y)
    assert found.primal == pytest.approx(expected, rel=1e-5) and found.dual <= GOAL


@pytest.mark.parametrize("where", ["x", "s", "y"])
def test_nan_is_infinite(planted, where):
    point = {"x": planted.x.copy(), "s": planted.s.copy(), "y": planted.y.copy()}
    point[where][0] = np.nan
    assert residuals(planted.structure, planted.data, **point).worst == np.inf


@pytest.mark.parametrize("cones", [Cones(nonneg=2, soc=(4, 3)), Cones(psd=(3,)), Cones(exp=2, zero=1)], ids=str)
def test_units_of_cost_and_of_cones_change_nothing_where_cones_are_curved(rng, cones):
    planted = plant(cones, 9, rng)
    structure, data = planted.structure, planted.data
    unit = 10.0 ** rng.uniform(-6, 6, cones.units)
    row = np.repeat(unit, np.diff(np.append(cones.unit_starts, cones.m)))
    s = planted.s * (1.0 + 1e-3 * rng.standard_normal(structure.m))
    x = planted.x + 1e-4
    here = residuals(structure, data, x, s, planted.y)
    there = residuals(structure, scaled(structure, data, row, 1.0), x, row * s, planted.y / row)
    assert here.primal > 1e-6
    assert there.primal == pytest.approx(here.primal, rel=ALIKE)
    cheap = residuals(structure, scaled(structure, data, np.ones(structure.m), 1e-4), x, s, 1e-4 * planted.y)
    assert cheap.dual == pytest.approx(here.dual, rel=ALIKE)


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@pytest.mark.parametrize("cones", [CONES, Cones(nonneg=3, soc=(4,)), Cones(zero=2, psd=(3,)), Cones(exp=2)], ids=str)
def test_sizes_do_not_depend_on_any_unit(rng, cones, dense):
    planted = plant(cones, N, rng)
    structure, data, x, y = planted.structure, planted.data, planted.x, planted.y
    unit = np.repeat(10.0 ** rng.uniform(-6, 6, cones.units), np.diff(np.append(cones.unit_starts, cones.m)))
    units = Units(unit, 10.0 ** rng.uniform(-6, 6, N), np.float64(10.0 ** rng.uniform(-6, 6)))
    moved = units.data(structure, data)
    there_x, _, there_y = units.point(x, planted.s, y)
    for share in (1.0, 0.0):  # at the solution, and where nothing balances but the data
        layout = Layout(structure, dense)
        rows, columns = layout.instance(data).scales.sizes(share * x, share * y)
        there_rows, there_columns = layout.instance(moved).scales.sizes(share * there_x, share * there_y)
        assert (rows > 0.0).all() and (columns > 0.0).all()
        np.testing.assert_allclose(there_rows / units.rows, rows, rtol=ALIKE)
        np.testing.assert_allclose(there_columns / (units.cost * units.columns), columns, rtol=ALIKE)


def test_what_balances_nothing_is_measured_in_its_own_unit():
    # x₂ = 0, held by a bound, in a unit of 1e-6; x₁ = 1. Rounding in x₂ is no error, 1e-9 of its unit is one.
    two = np.arange(2)
    structure = Structure.from_patterns(2, Cones(nonneg=3), (two, two), (np.array([0, 1, 2]), np.array([0, 1, 1])))
    for unit in (1.0, 1e-6, 1e6):
        P, A = np.array([1.0, unit**-2]), np.array([1.0, -1.0 / unit, 1.0 / unit])
        data = Data(P, np.array([-2.0, 1.0 / unit]), A, np.array([1.0, 0.0, 1.0]), np.float64(0.0))
        x, s, y = np.array([1.0, 0.0]), np.array([0.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.0])
        assert residuals(structure, data, x, s, y).worst <= GOAL
        for error, least, most in ((1e-17, 0.0, GOAL), (1e-9, ACCEPTABLE, 1.0)):
            found = residuals(structure, data, x - [0.0, error * unit], s, y).primal
            assert least <= found <= most


def test_what_balances_nothing_has_a_share_of_the_points_size():
    # The last row and the last column have no entry and no right-hand side.
    first, one = (np.zeros(1, dtype=int),) * 2, np.ones(1)
    structure = Structure.from_patterns(2, Cones(nonneg=2), first, first)
    data = Data(one, np.array([-2.0, 0.0]), one, np.array([1.0, 0.0]), np.float64(0.0))
    for size in (10.0, 1e3):
        rows, columns = Layout(structure).instance(data).scales.sizes(np.full(2, size), np.full(2, 3.0 * size))
        assert (rows[1], columns[1]) == pytest.approx((FLOOR * size, 3.0 * FLOOR * size), rel=1e-12)
