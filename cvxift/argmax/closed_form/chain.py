"""Whether a problem has the marginals of a linear chain for its solution, and that closed form.

    minimize  −Σ scores · marginals + c H,    over μ_t (S entries each, T positions) and pairs p_t (S × S), where H are
        the entropies of the root's entries, one position's or one edge's, and the relative entropies of all other pairs
        to one of their entries, the parent
    subject to  Σ_j p_t(i, j) = μ_t(i),  Σ_i p_t(i, j) = μ_{t+1}(j),  Σ μ_t = 1 or Σ p_t = 1 at least once,
        and bounds that hold anyway: x ≥ 0, x ≤ 1

The entropy of a chain is that of its root and, along every edge away from it, that of the child given the parent; the
root may be any position, or an edge's pair of positions. Which entries are positions, pairs, and neighbours is found by
the equalities alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from cvxift._types import Indices, override
from cvxift.argmax.chain import POSSIBLE
from cvxift.argmax.closed_form.affine import Rows, Sparse, gathered
from cvxift.argmax.closed_form.chain_products import ChainProducts, parted
from cvxift.argmax.closed_form.form import Form
from cvxift.argmax.closed_form.separable import pieces_of_one
from cvxift.argmax.closed_form.terms import Problem
from cvxift.argmax.closed_form.tree import need
from cvxift.program.structure import Floats


class ChainForm(Form[ChainProducts]):
    """θ ↦ the marginals of a chain, positions first and then pairs, in one group.

    Args:
        inputs: score of each of the problem's entries, and the stiffness.
        entry: see `Form`.
        size: (T, S).
    """

    def __init__(self, inputs: Mapping[str, Rows], entry: Indices, size: tuple[int, int]) -> None:
        super().__init__("linear chain", pieces_of_one(inputs, entry), entry)
        self._size = size

    @override
    def at(self, x: Floats, values: Mapping[str, Floats]) -> ChainProducts | None:
        if x.min() < POSSIBLE:
            return None  # elsewhere such scores forbid
        return ChainProducts(*parted(x, *self._size))


def read_chain(problem: Problem) -> Form:
    """The closed form, if the problem has one: what a chain's equalities and bounds look like, the objective's weight.

    The proof of its point says whether the terms are those of a chain. It is taken at random parameters, which the form
    always serves, and there is no bound that holds elsewhere: points are analytic in the parameters.

    Raises:
        Unknown: the problem has none.
    """
    terms, n = problem.terms, problem.n
    only = (terms.exponent == 1.0).all() and not (terms.far.any() or len(problem.tops.size))
    need(only and len(terms) and problem.E.shape[0] > 2, "other terms")
    root = terms.base_entry < 0
    delta = np.where(root, terms.base.c, terms.base_gain)
    need(not terms.base.moving and (delta > 0).all(), "an entropy is degenerate")
    # Of T S entries and (T−1) S² pairs all pairs have entropies, and a position's entries if it is the root.
    cells, rest, roots = len(terms), n - len(terms), int(np.count_nonzero(root))
    from_position = roots * (rest + 1) == cells
    S = roots if from_position else math.isqrt(roots)
    need(rest > 0 and S > 0 and rest % S == 0, "the numbers of entries and entropies are no chain's")
    T = rest // S + from_position
    pair = np.zeros(n, dtype=bool)
    pair[terms.entry] = True
    pair[terms.entry[root & from_position]] = False
    need(T > 1 and np.count_nonzero(pair) == (T - 1) * S**2 == n - T * S, "the numbers of pairs are no chain's")
    G, h = problem.G, problem.h
    need((np.diff(G.indptr) == 1).all() and not h.moving, "a bound that moves, or an inequality of several entries")
    need(np.all(np.where(G.data < 0, h.c >= 0.0, h.c >= G.data)), "a bound that may hold")
    nodes, pairs = _ordered(problem.E, pair, T, S)
    # c x log(x/(δy)) is c x log(x/y) − c log(δ) x
    c = terms.weight
    need(c.moving or c.c[0] > 0, "the objective has no curvature")
    parts = [(np.arange(n), problem.linear.times(-1.0)), (terms.entry, c.times(np.log(delta)))]
    inputs = {"score": gathered(n, problem.N, parts), "stiffness": c[:1]}
    return ChainForm(inputs, np.concatenate([nodes.ravel(), pairs.ravel()]), (T, S))


def _ordered(E: Sparse, pair: np.ndarray, T: int, S: int) -> tuple[Indices, Indices]:
    """Entries of positions (T, S) and of pairs (T − 1, S, S) along the chain."""
    counts = np.diff(E.indptr)
    of_pairs = np.bincount(np.repeat(np.arange(len(counts)), counts), pair[E.indices], len(counts))
    links = np.flatnonzero((of_pairs == S) & (counts == S + 1))  # a position's entry, and its pairs with a neighbour's
    need(len(links) == 2 * S * (T - 1), "other equalities than those of neighbours")
    entries = E.indices[E.indptr[links][:, None] + np.arange(S + 1)]
    entries = np.take_along_axis(entries, np.argsort(pair[entries], axis=1, kind="stable"), axis=1)
    node, pairs = entries[:, 0], entries[:, 1:]
    need((np.bincount(pairs.ravel(), minlength=len(pair)) == 2 * pair).all(), "a pair's sums are not two")
    # Of each pair the other row's node; those of one row are the neighbour's entries.
    both = np.argsort(pairs.ravel(), kind="stable").reshape(-1, 2) // S
    other = np.empty((len(pair), 2), dtype=int)
    other[np.sort(pairs.ravel())[::2]] = both
    across = node[other[pairs].sum(axis=-1) - np.arange(len(links))[:, None]]
    order = np.argsort(across, axis=1)
    across, pairs = (np.take_along_axis(a, order, axis=1) for a in (across, pairs))
    position = np.full(len(pair), -1)  # each by its first entry
    position[across] = across[:, :1]
    ends = np.stack([position[node], across[:, 0]], axis=1)
    neighbours = np.unique(ends, axis=0)
    degree = np.bincount(neighbours[:, 0], minlength=len(pair))
    need((degree[position[node]] <= 2).all() and (degree == 1).any(), "a position has more than two neighbours")
    here, before, steps = int(np.flatnonzero(degree == 1)[0]), -1, []
    nodes = [np.flatnonzero(position == here)]
    for _ in range(T - 1):
        near = neighbours[np.searchsorted(neighbours[:, 0], here) :][: degree[here], 1]
        onward = next((int(b) for b in near if b != before), -1)
        rows = np.flatnonzero((ends == (here, onward)).all(axis=1))
        rows = rows[np.argsort(node[rows])]
        need(np.array_equal(node[rows], nodes[-1]) and len(rows) == S, "not all positions are on the chain")
        steps.append(pairs[rows])
        nodes.append(across[rows[0]])
        need((across[rows] == nodes[-1]).all(), "a position's entries have different neighbours")
        here, before = onward, here
    need(len(np.unique(nodes)) == T * S, "the chain is closed")
    return np.stack(nodes), np.stack(steps)
