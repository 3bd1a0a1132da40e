"""Fill-in predicted from the pattern, beside dense factorizations, and the solver that is chosen by it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cvxift.kkt.engine import Engine
from cvxift.kkt.search import WORDS
from cvxift.program.cones import Cones
from cvxift.program.structure import Data, Structure
from cvxift.solvers import Raw, Status, fill, quick, table


def symmetric(size: int, entries: float, seed: int) -> sp.csc_array:
    """A random symmetric pattern with a full diagonal and about this many entries a row."""
    rng = np.random.default_rng(seed)
    half = sp.random_array((size, size), density=min(1.0, entries / size), rng=rng)
    pattern = sp.csc_array(abs(half) + abs(half.T) + sp.eye_array(size))
    pattern.data[:] = 1.0
    return pattern


def counted(K: sp.csc_array) -> np.ndarray:
    """Entries in each column of a Cholesky factor, computed: no random values cancel."""
    values = np.tril(np.where(K.toarray() != 0, np.random.default_rng(1).random(K.shape), 0.0), -1)
    factor = np.linalg.cholesky(values + values.T + 10.0 * K.shape[0] * np.eye(K.shape[0]))
    return (factor != 0).sum(0)


@pytest.mark.parametrize(("size", "entries"), [(1, 0.0), (7, 1.0), (40, 0.5), (120, 1.0), (120, 3.0), (50, 50.0)])
@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_the_factor(size: int, entries: float, seed: int):
    K = symmetric(size, entries, seed)
    order = fill._minimum_degree(K)
    assert sorted(order) == list(range(size))
    exact = counted(K[order][:, order]).astype(float)
    assert fill.predict(K) == (exact.sum(), exact @ exact)
    natural = counted(K).astype(float)
    bound, best = fill.most(K), fill.predict(K)
    assert bound.entries <= size * (size + 1) / 2
    # An order of least degree fills in no more than twice what the natural one does, and here mostly much less.
    assert best.entries <= max(natural.sum() * 1.05, 2.0)


def test_a_tree_does_not_fill_in_whatever_the_order_of_its_nodes():
    rng = np.random.default_rng(0)
    size = 500
    parents = np.array([rng.integers(0, k) for k in range(1, size)])
    names = rng.permutation(size)
    edges = names[np.arange(1, size)], names[parents]
    K = sp.csc_array((np.ones(size - 1), edges), shape=(size, size))
    K = sp.csc_array(K + K.T + sp.eye_array(size))
    assert fill.predict(K).entries == 2 * size - 1


def test_the_quick_bound_is_one():
    for seed in range(4):
        K = symmetric(150, 1.5, seed)
        dense_rows = K.toarray()
        dense_rows[0] = dense_rows[:, 0] = 1.0  # one row that Cuthill and McKee's order is no use for
        for pattern in (K, sp.csc_array(dense_rows)):
            assert fill.most(pattern).work >= fill.predict(pattern).work * 0.999
    assert fill.most(sp.csc_array(dense_rows)).entries < 150 * 151 / 2


def flow(nodes: int, chords: int, seed: int, quadratic: bool = True) -> tuple[Structure, Data]:
    """Minimum-cost flow: a ring of nodes, and random arcs across it, which are what fills in."""
    rng = np.random.default_rng(seed)
    ring = np.arange(nodes)
    tail, head = np.concatenate([[ring, (ring + 1) % nodes], rng.integers(0, nodes, (2, chords))], axis=1)
    tail, head = tail[tail != head], head[tail != head]
    n = len(tail)
    M = sp.csr_array((np.r_[-np.ones(n), np.ones(n)], (np.r_[tail, head], np.r_[:n, :n])), (nodes, n))[:-1]
    A = sp.csc_array(sp.vstack([M, sp.eye_array(n), -sp.eye_array(n)]))
    A.sort_indices()
    P = (np.arange(n), np.arange(n)) if quadratic else (np.zeros(0, int), np.zeros(0, int))
    at = A.tocoo()
    structure = Structure.from_patterns(n, Cones(zero=nodes - 1, nonneg=2 * n), P, (at.row, at.col))
    capacity = 0.5 + rng.random(n)
    b = np.concatenate([M @ (0.5 * capacity * rng.random(n)), capacity, np.zeros(n)])
    return structure, Data(np.full(len(P[0]), 0.1), rng.random(n), A.data, b, np.float64(0.0))


def test_osqp_comes_first_where_factorizations_fill_in_and_nowhere_else():
    heavy, _ = flow(3000, 13_000, 0)
    light, _ = flow(15_000, 100, 0)
    assert fill.predict(fill.pattern(heavy)).width > table._HEAVY > fill.most(fill.pattern(light)).width
    chosen = quick(heavy)
    assert chosen is not None and chosen[0] == "osqp"
    assert quick(light) is None
    assert quick(flow(3000, 13_000, 0, quadratic=False)[0]) is None


def test_it_may_give_up_and_the_point_is_the_same(monkeypatch: pytest.MonkeyPatch):
    structure, data = flow(600, 1400, 1)
    usual = Engine(structure).solve(data)
    assert usual.ok and usual.solver != "osqp"
    monkeypatch.setattr(table, "_HEAVY", 20.0)
    monkeypatch.setattr(table, "_LEVEL", 100)
    generous = Engine(structure)
    monkeypatch.setattr(table, "_LEVEL", 0.1)
    stingy = Engine(structure)
    assert generous.first == stingy.first == "osqp"
    assert stingy.quick_options["max_iter"] < generous.quick_options["max_iter"]
    for engine in (generous, stingy):
        solution = engine.solve(data)
        assert solution.ok
        np.testing.assert_allclose(solution.x, usual.x, rtol=0, atol=1e-8)
    assert solution.attempts[0][0] == "osqp" and solution.solver != "osqp"
    # From a point nearby Newton's steps, one factorization each, take OSQP's place.
    point = generous.solve(data)
    warm = Raw(point.x, point.s, point.y, Status.SOLVED, "")
    moved = Data(data.P, data.q + 1e-5, data.A, data.b, data.d)
    followed = generous.solve(moved, warm=warm, follow=True)
    assert followed.attempts[0][2] == WORDS and len(followed.attempts) == 1
    np.testing.assert_allclose(followed.x, Engine(structure).solve(moved).x, rtol=0, atol=1e-8)
