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
from typing import NamedTuple

import numpy as np

from cvxift._types import Indices, override
from cvxift.argmax.chain import POSSIBLE
from cvxift.argmax.closed_form.affine import gathered, need
from cvxift.argmax.closed_form.chain_products import ChainProducts, parted
from cvxift.argmax.closed_form.form import Form, Pieces, Solved
from cvxift.argmax.closed_form.terms import Problem
from cvxift.program.structure import Floats


class ChainForm(Form[ChainProducts]):
    """θ ↦ the marginals of a chain, positions first and then pairs, in one group.

    Args:
        pieces: see `Form`.
        entry: see `Form`.
        size: (T, S).
    """

    def __init__(self, pieces: Pieces, entry: Indices, size: tuple[int, int]) -> None:
        super().__init__("linear chain", pieces, entry)
        self._size = size

    @override
    def at(self, x: Floats, values: Mapping[str, Floats]) -> ChainProducts | None:
        if x.min() < POSSIBLE:
            return None  # elsewhere such scores forbid
        return ChainProducts(*parted(x, *self._size))

    @override
    def margins(self, state: Solved[ChainProducts]) -> Floats:
        return np.full(state.inner.z.shape[:-2], np.inf)

    @override
    def shifts(self, state: Solved[ChainProducts]) -> Floats | None:
        return None


class _Step(NamedTuple):
    """An edge away from the root: the position that it leads to, (S,), and its pairs (S, S)."""

    kids: Indices
    pairs: Indices


def read_chain(problem: Problem) -> Form:
    """The closed form.

    Raises:
        Unknown: the problem has none.
    """
    return _Reader(problem).form()


class _Reader:
    """Reads a problem whose terms are entropies."""

    def __init__(self, problem: Problem) -> None:
        terms, n = problem.entropies, problem.n
        cells, rest = len(terms), n - len(terms)
        need(cells and not (len(problem.squares) or len(problem.powers) or len(problem.tops.size)), "other terms")
        # There are T S entries and (T−1) S² pairs for S + (T−1) S² entropies, or S² of them where the root is an edge.
        need(rest > 0 and problem.E.shape[0] > 2, "the numbers of entries and entropies are no chain's")
        root = terms.base_entry < 0
        roots = int(np.count_nonzero(root))
        self.from_edge = roots * (rest + 1) != cells
        self.S = S = math.isqrt(roots) if self.from_edge else roots
        need(S > 0 and rest % S == 0, "the root has another number of entries")
        self.T = T = rest // S + (not self.from_edge)
        size = (T - 1) * S**2 + (0 if self.from_edge else S)
        need(T > 1 and cells == size and (not self.from_edge or roots == S**2), "the root's entries")

        need(not (terms.shift.moving or terms.shift.c.any() or terms.base.moving), "an entropy of other expressions")
        need(not terms.base.c[~root].any() and np.unique(terms.entry).size == cells, "an entry has several entropies")
        delta = np.where(root, terms.base.c, terms.base_gain)
        need(np.all(terms.gain > 0) and np.all(delta > 0), "an entropy is degenerate")
        self.log_ratio = np.log(delta / terms.gain)
        self.problem, self.root = problem, terms.entry[root]
        self.pair = np.zeros(n, dtype=bool)
        self.pair[terms.entry if self.from_edge else terms.entry[~root]] = True
        parents = terms.base_entry[~root]
        need(np.count_nonzero(~self.pair) == T * S and not self.pair[parents].any(), "a parent is a pair")
        self.parent = np.full(n, -1)
        self.parent[terms.entry[~root]] = parents

    def form(self) -> Form:
        """The form.

        Raises:
            Unknown: where the problem departs from it.
        """
        problem, terms, n = self.problem, self.problem.entropies, self.problem.n
        sums = self._equalities()
        G, h = problem.G, problem.h
        need((np.diff(G.indptr) == 1).all() and not h.moving, "a bound that moves, or an inequality of several entries")
        need(np.all(np.where(G.data < 0, h.c >= 0.0, h.c >= G.data)), "a bound that may hold")
        nodes, pairs = self._ordered()
        position = np.concatenate([np.repeat(np.arange(self.T), self.S), self.T + np.arange(pairs.size) // self.S**2])
        entry = np.concatenate([nodes.ravel(), pairs.ravel()])
        of = np.empty(n, dtype=int)
        of[entry] = position
        for entries in sums:
            size = self.S if of[entries[0]] < self.T else self.S**2
            need(len(entries) == size and np.all(of[entries] == of[entries[0]]), "a sum of other entries")
        # w γ x log(γx/(δy)) is c x log(x/y) − c log(δ/γ) x with c = w γ
        c = terms.weight.times(terms.gain)
        need(c.alike(np.zeros(len(c.c) - 1, dtype=int), np.arange(1, len(c.c))), "the entropies' weights differ")
        need(c.moving or c.c[0] > 0, "the objective has no curvature")
        score = gathered(
            n, problem.N, [(np.arange(n), problem.linear.times(-1.0)), (terms.entry, c.times(self.log_ratio))]
        )
        pieces = {"score": (score[entry], (1, n)), "stiffness": (c[:1], (1, 1))}
        return ChainForm(pieces, entry, (self.T, self.S))

    def _equalities(self) -> list[Indices]:
        """Finds the consistency rows, 2 S (T − 1) with their entry and pairs; returns the sums to one."""
        S, T, E, b = self.S, self.T, self.problem.E, self.problem.b
        need(not b.moving, "a sum that moves")
        counts = np.diff(E.indptr)
        of_pairs = np.bincount(np.repeat(np.arange(len(counts)), counts), self.pair[E.indices], len(counts))
        link = (of_pairs == S) & (counts == S + 1)
        links = np.flatnonzero(link)
        need(len(links) == 2 * S * (T - 1), "other equalities than those of neighbours")
        entries, gains = (a[E.indptr[links][:, None] + np.arange(S + 1)] for a in (E.indices, E.data))
        order = np.argsort(self.pair[entries], axis=1, kind="stable")
        entries, gains = np.take_along_axis(entries, order, axis=1), np.take_along_axis(gains, order, axis=1)
        need(np.all(gains[:, 1:] == -gains[:, :1]) and not b.c[links].any(), "an entry is not the sum of its pairs")
        self.row_node, self.row_pairs = entries[:, 0], entries[:, 1:]
        sums = []
        for row in np.flatnonzero(~link):
            part = slice(E.indptr[row], E.indptr[row + 1])
            need(counts[row] > 0 and np.all(E.data[part] == b.c[row]), "a sum is weighted, or not one")
            sums.append(E.indices[part])
        need(sums, "no sum is one")
        return sums

    def _ordered(self) -> tuple[Indices, Indices]:
        """Entries of positions (T, S) and of pairs (T − 1, S, S) along the chain."""
        S, T, n = self.S, self.T, self.problem.n
        root = self._side() if self.from_edge else np.sort(self.root)
        upward = self.parent[self.row_pairs] == self.row_node[:, None]
        parents = np.flatnonzero(upward.all(axis=1))
        children = np.flatnonzero(~upward.any(axis=1))
        need(len(parents) == len(children) == S * (T - 1), "pairs do not belong to two neighbours")
        for side in (parents, children):
            need(np.all(np.bincount(self.row_pairs[side].ravel(), minlength=n)[self.pair] == 1), "a pair's sums")
        need(len(np.unique(self.row_node[children])) == len(children), "an entry is the child of two")
        self.child = np.full(n, -1)
        self.child[self.row_pairs[children]] = self.row_node[children][:, None]
        self.rows_of: dict[int, list[int]] = {}
        for row in parents:
            self.rows_of.setdefault(int(self.row_node[row]), []).append(int(row))

        onward, *others = [self._walk(rows) for rows in self._starts(root)]
        back = others[0][::-1] if others else []
        need(len(onward) + len(back) == T - 1, "not all positions are on the chain")
        nodes = np.stack([step.kids for step in back] + [root] + [step.kids for step in onward])
        need(len(np.unique(nodes)) == T * S, "the chain is closed")
        return nodes, np.stack([step.pairs.T for step in back] + [step.pairs for step in onward])

    def _side(self) -> Indices:
        """Entries of the first position of the edge that is the root, made its pairs' parents."""
        own = np.zeros(self.problem.n, dtype=bool)
        own[self.root] = True
        rows = np.flatnonzero(own[self.row_pairs].all(axis=1))
        need(len(rows) == 2 * self.S, "the root's pairs have other sums")
        # Sums over the same position have no pair in common.
        own[self.row_pairs[rows[0]]] = False
        side = np.append(rows[0], rows[own[self.row_pairs[rows]].all(axis=1)])
        need(len(side) == self.S, "the root's pairs are of no edge")
        self.parent[self.row_pairs[side]] = self.row_node[side][:, None]
        return np.sort(self.row_node[side])

    def _starts(self, root: Indices) -> list[Indices]:
        """Rows of the root's entries, one set for each of its one or two neighbours."""
        found = [self.rows_of.get(int(node), []) for node in root]
        count = len(found[0])
        need(count in (1, 2) and all(len(rows) == count for rows in found), "a position has more than two neighbours")
        lowest = [sorted(rows, key=lambda row: int(self.child[self.row_pairs[row]].min())) for rows in found]
        return list(np.array(lowest).T)

    def _walk(self, rows: Indices) -> list[_Step]:
        """The edges from the root on, on one side of it."""
        steps: list[_Step] = []
        while True:
            need(len(steps) < self.T, "the chain is closed")
            pairs = self.row_pairs[rows]
            order = np.argsort(self.child[pairs], axis=1)
            pairs = np.take_along_axis(pairs, order, axis=1)
            kids = self.child[pairs]
            need(np.all(kids == kids[0]), "a position's entries have different neighbours")
            steps.append(_Step(kids[0], pairs))
            onward = [self.rows_of.get(int(node), []) for node in kids[0]]
            if not any(onward):
                return steps
            need(all(len(found) == 1 for found in onward), "a position has more than two neighbours")
            rows = np.array([found[0] for found in onward])
