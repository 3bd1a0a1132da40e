"""The separable maps on NumPy arrays: exactness against references in more digits, and the hardest rows."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from cvxift.argmax import bounded, capped, double_single, tsallis
from cvxift.argmax.compaction import peaks, shorten
from cvxift.argmax.simplex import entmax

ORDERS = [1.0, 1.0001, 1.05, 1.3, 1.5, 1.7, 1.95, 2.0, 2.5, 3.0]


def sorted_sparsemax(x: np.ndarray) -> np.ndarray:
    """Held, Wolfe, Crowder 1974, in extended precision."""
    long = x.astype(np.longdouble)
    long = long - long.max()
    ordered = np.sort(long)[::-1]
    thresholds = (np.cumsum(ordered) - 1) / np.arange(1, x.size + 1)
    return np.maximum(long - thresholds[np.flatnonzero(ordered > thresholds)[-1]], 0).astype(float)


def precise(x: np.ndarray, alpha: float) -> np.ndarray:
    """Bisection with 40 digits on one row."""
    with mpmath.workdps(40):
        eps = mpmath.mpf(alpha) - 1
        row = [mpmath.mpf(float(v)) for v in x]
        top = max(row)
        if eps == 0:
            weights = [mpmath.exp(v - top) for v in row]
            return np.array([float(w / sum(weights)) for w in weights])

        def values(c: mpmath.mpf) -> list[mpmath.mpf]:
            u = [1 + eps * (v - top - c) for v in row]
            return [t ** (1 / eps) if t > 0 else mpmath.mpf(0) for t in u]

        low, high = mpmath.mpf(0), (1 - mpmath.mpf(len(row)) ** -eps) / eps
        for _ in range(110):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(values(middle)) >= 1 else (low, middle)
        return np.array([float(z) for z in values(low)])


@pytest.mark.parametrize("alpha", ORDERS)
def test_single_precision_is_exact_to_its_rounding(alpha: float, rng: np.random.Generator) -> None:
    for scale in (0.01, 1.0, 5.0):
        x = (scale * rng.standard_normal((1, 24))).astype(np.float32)
        reference = np.stack([precise(row, alpha) for row in x])
        z = entmax(x, alpha)
        assert z.dtype == np.float32
        np.testing.assert_allclose(z, reference, atol=6e-8)  # half a unit in the last place of 1
        np.testing.assert_allclose(entmax(x.astype(float), alpha), reference, atol=1e-12 if alpha <= 2 else 2e-8)


@pytest.mark.parametrize("alpha", [1.1, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0])
def test_single_precision_without_double_is_exact_too(alpha: float, rng: np.random.Generator) -> None:
    for n in (1, 2, 3, 24, 65, 1000):
        for x in (0.01 * rng.standard_normal((9, n)), rng.standard_normal((9, n)), 5 * rng.standard_normal((9, n)),
                  1e4 * rng.standard_normal((9, n)), np.round(4 * rng.standard_normal((9, n))) / 8,
                  1000 + rng.standard_normal((9, n))):  # fmt: skip
            x = x.astype(np.float32)
            z = entmax(x, alpha, wide=False)
            assert z.dtype == np.float32
            np.testing.assert_allclose(z, entmax(x.astype(float), alpha), atol=1.5e-7)
            orders = np.full((9, 1), alpha, np.float32)
            found, reference = entmax(x, orders, wide=False), entmax(x.astype(float), orders.astype(float))
            np.testing.assert_allclose(found, reference, atol=2e-7)
    x = np.array([0.0, -0.3], np.float32)  # entries near the edge, one rounding of float32 apart
    edge = np.float32(0.0 - (entmax(x.astype(float), alpha)[0] ** (alpha - 1)) / (alpha - 1))
    x = np.array([0.0, -0.3, edge, np.nextafter(edge, np.float32(1)), np.nextafter(edge, np.float32(-1))], np.float32)
    np.testing.assert_allclose(entmax(x, alpha, wide=False), precise(x, alpha), atol=2e-7)


def test_sums_and_reciprocals_of_two_floats(rng: np.random.Generator) -> None:
    a, b = (10.0 ** rng.uniform(-6, 6, (2, 1000)) * rng.choice([-1, 1], (2, 1000))).astype(np.float32)
    s, lack = double_single.two_sum(a, b)
    np.testing.assert_array_equal(s.astype(float) + lack, a.astype(float) + b)
    eps = rng.uniform(1e-4, 4, 1000).astype(np.float32)
    high, low = double_single.reciprocal(np, eps)
    np.testing.assert_allclose(high.astype(float) + low, 1 / eps.astype(float), rtol=1e-14)
    assert sum(double_single.reciprocal(np, 0.1)) == pytest.approx(10.0, abs=1e-14)
    for n in (1, 2, 16, 17, 1000, 100_000):
        x = rng.exponential(size=(2, n)).astype(np.float32)
        high, low = double_single.careful_sum(np, x)
        np.testing.assert_allclose(high.astype(float) + low, x.astype(float).sum(-1, keepdims=True), rtol=3e-7)


@pytest.mark.parametrize("alpha", ORDERS)
def test_optimality_on_long_and_short_rows(alpha: float, rng: np.random.Generator) -> None:
    """Σ z = 1, one threshold for the whole support, and nothing outside it that should be inside."""
    for n, scale in ((1, 1.0), (2, 1.0), (63, 1.0), (64, 3.0), (65, 0.001), (1000, 1.0), (1000, 0.01), (4097, 20.0)):
        x = scale * rng.standard_normal((3, n))
        z = entmax(x, alpha)
        np.testing.assert_allclose(z.sum(-1), 1, atol=1e-12 if alpha <= 2 else 1e-6)
        eps = alpha - 1
        for row, value in zip(x, z, strict=True):
            inside = value > (1e-4 if alpha > 2 else 1e-250)
            with np.errstate(divide="ignore"):
                log = np.log(value[inside])
            threshold = row[inside] - (np.expm1(eps * log) / eps if eps else log)
            assert np.ptp(threshold) < 1e-9 * (1 + np.abs(row).max())
            if eps and not inside.all():
                assert (row[value == 0] <= threshold.mean() - 1 / eps + 1e-9).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
def test_sparsemax_of_a_hundred_thousand(scale: float, rng: np.random.Generator) -> None:
    x = scale * rng.standard_normal(100_000)
    np.testing.assert_allclose(entmax(x, 2.0), sorted_sparsemax(x), atol=1e-14)
    total, free = np.ones(1), bounded.sides(x, np.ones(1), np.zeros_like(x), np.full_like(x, np.inf))
    projected = bounded.value(x, total, np.zeros_like(x), np.full_like(x, np.inf), free)
    np.testing.assert_allclose(projected, sorted_sparsemax(x), atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("alpha", ORDERS)
def test_hard_rows(alpha: float, dtype: type) -> None:
    inf = np.inf
    rows = {
        (1e30, 1e30, -1e30, 3e29): (0.5, 0.5, 0, 0),
        (1e30, 0.0, 0.0, 0.0): (1, 0, 0, 0),
        (1e-30, 2e-30, -1e-30, 0.0): (0.25,) * 4,
        (-inf, -inf, -inf, -inf): (0,) * 4,
        (-inf, 2.0, -inf, 2.0): (0, 0.5, 0, 0.5),
        (-1e30, -inf, -inf, -inf): (1, 0, 0, 0),
        (5.0, 5.0, 5.0, 5.0): (0.25,) * 4,
    }
    x, expected = np.array(list(rows), dtype), np.array(list(rows.values()))
    for wide in (True, False):
        found = entmax(x, alpha, wide=wide)
        np.testing.assert_allclose(found, expected, atol=1e-7 if dtype is np.float32 else 1e-14)
    padded = np.pad(x, ((0, 0), (0, 196)), constant_values=-inf)  # long enough to be shortened
    np.testing.assert_allclose(entmax(padded, alpha)[:, :4], expected, atol=1e-7 if dtype is np.float32 else 1e-14)
    assert entmax(np.zeros((3, 0)), alpha).shape == (3, 0)
    assert entmax(np.zeros((0, 3)), alpha).shape == (0, 3)
    assert (entmax(np.array([dtype(7.0)]), alpha) == 1).all()


def test_an_array_of_orders_is_each_order_alone(rng: np.random.Generator) -> None:
    orders = np.array(ORDERS)[:, None]
    x = rng.standard_normal((len(ORDERS), 300))
    z = entmax(x, orders)
    for row, value, alpha in zip(x, z, ORDERS, strict=True):
        np.testing.assert_allclose(value, entmax(row, alpha), atol=1e-13)


def test_orders_above_two_amplify_rounding_at_the_edge_as_the_map_itself_does() -> None:
    """Two entries near the edge, one ulp apart: 1e-16 in the scores is 1e-8 in z at α = 3, whoever computes."""
    z = entmax(np.array([0.0, -0.3]), 3.0)
    edge = 0.0 - z[0] ** 2 / 2 + 1e-8
    apart = np.array([0.0, -0.3, edge, np.nextafter(edge, 1)])
    together = np.array([0.0, -0.3, edge, edge])
    amplified = np.abs(precise(apart, 3.0) - precise(together, 3.0)).max()
    assert 5e-10 < amplified < 2e-8
    np.testing.assert_allclose(entmax(apart, 3.0), precise(apart, 3.0), atol=2e-8)


@pytest.mark.parametrize("alpha", [1.0, 1.01, 1.3, 1.5, 2.0, 3.0])
def test_tsallis_entropy_and_its_order_derivative(alpha: float, rng: np.random.Generator) -> None:
    z = rng.dirichlet(np.ones(5), size=3)
    z[0] = [1, 0, 0, 0, 0]
    with mpmath.workdps(40):

        def omega(row: np.ndarray, order: mpmath.mpf) -> mpmath.mpf:
            row = [mpmath.mpf(float(v)) for v in row if v > 0]
            if order == 1:
                return sum(v * mpmath.log(v) for v in row)
            return sum(v**order - v for v in row) / (order * (order - 1))

        order = mpmath.mpf(alpha)
        values = [float(omega(row, order)) for row in z]
        step = mpmath.mpf(10) ** -12
        slopes = [float((omega(row, order + step) - omega(row, order)) / step) for row in z]
    np.testing.assert_allclose(tsallis.entropy(z, alpha)[:, 0], values, atol=1e-14)
    np.testing.assert_allclose(tsallis.entropy_order_derivative(z, alpha)[:, 0], slopes, atol=1e-10)


def test_budget_meets_its_conditions_on_random_bounds(rng: np.random.Generator) -> None:
    for trial in range(200):
        n = int(rng.integers(1, 9))
        x = rng.standard_normal((3, n)) * rng.choice([1e-6, 1.0, 100.0])
        x = np.round(x) if trial % 3 == 0 else x
        lower = rng.uniform(-1, 0.2, (3, n))
        upper = lower + rng.uniform(0, 1, (3, n)) * rng.integers(0, 2, (3, n))
        share = rng.choice([0.0, rng.uniform(), 1.0])
        total = (lower + share * (upper - lower)).sum(-1, keepdims=True)
        if trial % 7 == 0:
            upper = np.full_like(lower, np.inf)
            total = lower.sum(-1, keepdims=True) + 1
        z = bounded.value(x, total, lower, upper, bounded.sides(x, total, lower, upper))
        np.testing.assert_allclose(z.sum(-1, keepdims=True), total, atol=1e-12)
        assert (z >= lower - 1e-12).all() and (z <= upper + 1e-12).all()
        above = np.where(z < upper - 1e-11, x - z, -np.inf).max(-1)
        below = np.where(z > lower + 1e-11, x - z, np.inf).min(-1)
        assert (above <= below + 1e-9 * max(1.0, np.abs(x).max())).all()


@pytest.mark.parametrize("n", [7, 22, 32, 33, 300])
@pytest.mark.parametrize("scale", [0.1, 10.0, 1000.0])
def test_a_rest_that_one_entry_takes_leaves_the_others_nothing(n: int, scale: float, rng: np.random.Generator) -> None:
    """Rounding of the sum of many lower bounds is then as large as what others could have."""
    x = rng.standard_normal((2000, n)) * scale
    lower = -rng.uniform(0.1, 1, (2000, 1))
    upper = lower + rng.uniform(0.5, 1, (2000, 1))
    total = n * lower + rng.uniform(0, 0.5, (2000, 1)) * rng.integers(0, 2, (2000, 1))
    tight = 1e-12 * n
    for bounds in ((lower, upper), (lower + np.zeros_like(x), upper + np.zeros_like(x))):
        z = bounded.value(x, total, *bounds, bounded.sides(x, total, *bounds))
        np.testing.assert_allclose(z.sum(-1, keepdims=True), total, atol=tight)
        assert (z >= lower - tight).all() and (z <= upper + tight).all()
        above = np.where(z < upper - tight, x - z, -np.inf).max(-1)
        assert (above <= np.where(z > lower + tight, x - z, np.inf).min(-1) + 1e-12 * max(1.0, scale)).all()


def test_huge_scores_under_bounds() -> None:
    x = np.array([[1e30, 1e30, 1e30, 1e30], [3e30, 2e30, 1e30, -1e30], [-np.inf, 0.0, 1.0, 2.0], [-np.inf] * 4])
    zero, one = np.zeros_like(x), np.ones_like(x)
    two = np.full((4, 1), 2.0)
    z = bounded.value(x, two, zero, one, bounded.sides(x, two, zero, one))
    np.testing.assert_array_equal(z, [[0.5] * 4, [1, 1, 0, 0], [0, 0, 1, 1], [0] * 4])
    z = capped.value(x, 0.4 * one, capped.caps(x, 0.4 * one))
    np.testing.assert_allclose(z, [[0.25] * 4, [0.4, 0.4, 0.2, 0], [0, 0.2, 0.4, 0.4], [0] * 4], atol=1e-15)


def test_constrained_softmax_meets_its_conditions_on_random_caps(rng: np.random.Generator) -> None:
    for trial in range(200):
        n = int(rng.integers(1, 9))
        x = rng.standard_normal((3, n)) * rng.choice([1e-6, 1.0, 100.0])
        upper = rng.uniform(0, 1, (3, n)) * rng.integers(0, 2, (3, n))
        upper[:, 0] = np.inf if trial % 7 == 0 else 1.0
        if trial % 5 == 1:
            upper = upper / np.where(np.isinf(upper), 1, upper).sum(-1, keepdims=True)
        z = capped.value(x, upper, capped.caps(x, upper))
        np.testing.assert_allclose(z.sum(-1), 1, atol=1e-12)
        assert (z >= 0).all() and (z <= upper + 1e-15).all()
        for row, value, bound in zip(x, z, upper, strict=True):
            free, held = (value > 0) & (value < bound - 1e-13), (bound > 0) & (value >= bound - 1e-13)
            if free.any():
                c = row[free] - np.log(value[free])
                assert np.ptp(c) < 1e-9 * max(1.0, np.abs(row).max())
                assert (row[held] - np.log(bound[held]) >= c.max() - 1e-9 * max(1.0, np.abs(row).max())).all()


def test_rows_are_shortened_and_put_back(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 130))
    some = peaks(np, x)
    assert some.shape == (2, 3, 33)
    np.testing.assert_array_equal(some.max(-1), x.max(-1))
    assert all(np.isin(part, row).all() for part, row in zip(some.reshape(6, -1), x.reshape(6, -1), strict=True))
    keep = x > 1.0
    short, restore = shorten(np, x, keep)
    assert short.shape[-1] == keep.sum(-1).max()
    np.testing.assert_array_equal(restore(np.where(short == -np.inf, 0, short)), np.where(keep, x, 0))
