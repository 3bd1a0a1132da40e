"""What saves time agrees with what it stands in for: sorted rows, shortened budgets, shared transitions."""

from __future__ import annotations

import numpy as np
import pytest

from cvxift.argmax import bounded, chain, shared_chain, short_rows, simplex, tsallis


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("n", [1, 2, 10, 64, 256])
def test_sorted_rows(alpha: float, n: int, rng: np.random.Generator) -> None:
    for scale in (1e-3, 1.0, 30.0, 1e8):
        x = scale * rng.standard_normal((50, n))
        x[::3, : n // 2] = x[::3, :1]  # ties
        x[1::3, 1:] = np.where(rng.random((17, n - 1)) < 0.5, -np.inf, x[1::3, 1:])
        z, expected = short_rows.entmax(x, alpha), simplex.entmax(x, alpha)
        assert z is not None
        np.testing.assert_allclose(z, expected, atol=4e-15, rtol=0)
        bar = rng.standard_normal(x.shape)
        slope = tsallis.derivative(expected, bar, alpha)
        np.testing.assert_allclose(short_rows.derivative(expected, bar, alpha), slope, atol=1e-14, rtol=0)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_sorted_rows_leave_what_they_cannot_do(alpha: float) -> None:
    x = np.zeros((2, 3))
    for bad in (np.nan, np.inf):
        assert short_rows.entmax(np.where(np.eye(3)[:2] > 0, bad, x), alpha) is None
    assert short_rows.entmax(np.array([[0.0, 1.0], [-np.inf, -np.inf]]), alpha) is None
    z = np.array([[0.4, 0.6, 0.0], [0.0, 0.0, 0.0]])
    for given in (np.inf, -np.inf, np.nan):
        bar = np.array([[1.0, 2.0, given], [1.0, 2.0, 3.0]])
        slope = short_rows.derivative(z, bar, alpha)
        np.testing.assert_allclose(slope, tsallis.derivative(z, bar, alpha), atol=1e-15)
        assert np.isfinite(slope).all()
        moved = short_rows.derivative(z, bar[:, ::-1], alpha)
        assert np.isnan(moved[0, :2]).all() and moved[0, 2] == 0 and (moved[1] == 0).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e30])
def test_shortened_budgets(scale: float, rng: np.random.Generator) -> None:
    """At scores up to 1e30, too: the bounds are met to their own rounding."""
    n = 4 * bounded.LONG
    x = scale * rng.standard_normal((20, n))
    x[::4, n // 3 :] = -np.inf
    x[1::4, : n // 2] = x[1::4, :1]
    total = rng.uniform(0.5, 30.0, (20, 1))
    for lower, upper in ((0.0, 1.0), (-0.01, 0.4), (0.0, np.inf), (0.02, 3.0)):
        low, high = np.full((20, 1), lower), np.full((20, 1), upper)
        need = total + n * lower
        found, z = bounded.rows(x, need, low, high)
        full = np.broadcast_to(low, x.shape), np.broadcast_to(high, x.shape)
        expected = bounded.value(x, need, full[0], full[1], bounded.sides(x, need, low, high))
        np.testing.assert_allclose(z, expected, atol=1e-12, rtol=0)
        np.testing.assert_allclose(z.sum(-1, keepdims=True), need, rtol=1e-12)
        assert (z >= lower).all() and (z <= upper).all()
        assert not (found.at_lower & found.at_upper).any()


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_shared_transitions(lengths: bool, spread: float, rng: np.random.Generator) -> None:
    u, e = 3 * rng.standard_normal((4, 9, 5)), rng.standard_normal((5, 5))
    e *= spread / (e.max() - e.min())
    u[0, 3, 1:3] = -np.inf
    real = np.arange(9) < (np.array([[9], [4], [1], [6]]) if lengths else 9 * np.ones((4, 1)))
    full = np.broadcast_to(e, (4, 8, 5, 5))
    kept, links = np.where(real[..., None], u, 0.0), np.where(real[:, 1:, None, None], full, 0.0)
    found = shared_chain.messages(kept, e, real)
    assert found is not None
    np.testing.assert_allclose(found.value, chain.log_partition(kept, links, real), rtol=1e-13)
    states, pairs = chain.marginals(kept, links, real)
    for ours, theirs in zip(shared_chain.marginals(found), (states, pairs), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    weight = rng.standard_normal(4)
    ours = shared_chain.weighted(found, weight)
    np.testing.assert_allclose(ours[0], weight[:, None, None] * states, atol=1e-12)
    np.testing.assert_allclose(ours[1], np.einsum("b,btij->ij", weight, pairs), atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_shared_transitions_leave_what_needs_logarithms() -> None:
    u, real = np.zeros((1, 3, 2)), np.ones((1, 3), dtype=bool)
    alike = [np.full((2, 2), score) for score in (np.nan, np.inf, -np.inf)]
    for e in (np.array([[0.0, -np.inf], [0.0, 0.0]]), np.array([[0.0, 301.0], [0.0, 0.0]]), *alike):
        assert shared_chain.messages(u, e, real) is None
    for bad in (np.nan, np.inf, -np.inf):
        assert shared_chain.messages(u + np.array([[0.0], [bad], [0.0]]), np.zeros((2, 2)), real) is None
    assert shared_chain.messages(u, np.array([[0.0, 299.0], [0.0, 0.0]]), real) is not None


@pytest.mark.filterwarnings("error")
def test_long_rows_of_which_nothing_rises_from_its_lower_bound(rng: np.random.Generator) -> None:
    """Totals of all lower bounds, and masked rows, alone and beside others."""
    n = bounded.LONG + 1
    x = rng.standard_normal((3, n))
    x[1] = -np.inf
    for lower, high in ((0.0, 1.0), (0.0, np.inf), (-0.5, 0.25)):
        low, top = np.full((3, 1), lower), np.full((3, 1), high)
        total = n * low + np.array([[0.0], [2.0], [2.0]])
        for part in (slice(0, 1), slice(1, 2), slice(None)):
            found, z = bounded.rows(x[part], total[part], low[part], top[part])
            np.testing.assert_array_equal(z[found.at_lower], lower)
            assert found.at_lower[: 2 if part.stop is None else 1].all()
        np.testing.assert_allclose(z[2].sum(), total[2], rtol=1e-12)


def test_a_budget_of_which_one_score_takes_all() -> None:
    """Between it and the next score any τ has the right sum; its own bound is not met."""
    for far in (1.0, 10.0, 1e8, 1e30):
        x, total = np.array([far, 0.0, -0.2 * far]), np.array([0.85])
        z = bounded.value(x, total, np.zeros(3), np.ones(3), bounded.sides(x, total, np.zeros(3), np.ones(3)))
        np.testing.assert_allclose(z, [0.85, 0.0, 0.0], atol=1e-15)
