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
from dataclasses import dataclass

import numpy as np

from cvxift._types import Indices, override
from cvxift.argmax.chain import POSSIBLE
from cvxift.argmax.closed_form.affine import Rows, Sparse, gathered
from cvxift.argmax.closed_form.derivative import Moved, Products
from cvxift.argmax.closed_form.form import Form
from cvxift.argmax.closed_form.separable import pieces_of_one
from cvxift.argmax.closed_form.terms import Problem
from cvxift.argmax.closed_form.tree import need
from cvxift.program.structure import Floats


@dataclass(frozen=True, eq=False)
class Direction:
    """A first derivative: R, the centered α̇ at the end, Ḃ, μ̇ and ṗ."""

    R: Floats
    end: Floats
    back: Floats
    nodes: Floats
    pairs: Floats


class ChainProducts(Products):
    """The marginals of a batch of chains, and products of their first and second derivatives.

    The recursions of `cvxift.argmax.chain`, with as little as can be inside of the loops over time: sums of
    exponentials once, and then products of S numbers with B_t(i|j). With the marginals μ_t and p_t = B_t μ_{t+1}

        α̇_{t+1}(j) = u̇_{t+1}(j) + Σ_i B_t(i|j) (α̇_t(i) + ė_t(i, j)),
        R_t = α̇_t + ė_t − Σ_i B_t (α̇_t + ė_t),   Ḃ_t = B_t R_t,
        μ̇_{T−1} = μ_{T−1} (α̇_{T−1} − Σ μ α̇),   ṗ_t = Ḃ_t μ_{t+1} + B_t μ̇_{t+1},   μ̇_t = Σ_j ṗ_t,

    and once more along ȧ′: α̈ obeys the recursion of α̇ with R_t R′_t for ė, R̈ = α̈ + R R′ less its mean under B,
    B̈ = B R̈, p̈ = B̈ μ + Ḃ μ̇′ + Ḃ′ μ̇ + B μ̈.

    Args:
        u: finite scores of states, shape (*batch, T, S), T ≥ 2.
        e: finite scores of transitions, shape (*batch, T − 1, S, S).

    Attributes:
        z: the marginals, positions first, shape (*batch, 1, T S + (T − 1) S²).

    All marginals are the gradient of log Z: products with the Jacobian and with its transpose are the same, and so are
    the two of second order.

    Example:
        >>> ChainProducts(np.log([[1.0, 1.0], [1.0, 3.0]]), np.zeros((1, 2, 2))).z[0, :4].round(6).tolist()
        [0.5, 0.5, 0.25, 0.75]
    """

    def __init__(self, u: Floats, e: Floats) -> None:
        self.T, self.S = u.shape[-2:]
        past, reached = np.empty(u.shape), np.empty((*u.shape[:-2], self.T - 1, self.S))
        now = past[..., 0, :] = u[..., 0, :]
        for t in range(1, self.T):
            new = np.logaddexp.reduce(now[..., :, None] + e[..., t - 1, :, :], axis=-2)
            reached[..., t - 1, :] = new
            new = new + u[..., t, :]
            # Near zero: otherwise rounding, relative to a sum over the whole past, would get into B.
            now = past[..., t, :] = new - new.max(axis=-1, keepdims=True)
        B = np.exp(past[..., :-1, :, None] + e - reached[..., None, :])
        self._B = B / B.sum(axis=-2, keepdims=True)
        weights = np.exp(now - now.max(axis=-1, keepdims=True))
        last = weights / weights.sum(axis=-1, keepdims=True)
        self._mu, pairs = self._backward(last, np.zeros_like(e))
        self._below = self._mu[..., 1:, None, :]
        self.z = self._joined(self._mu, pairs)

    @override
    def push(self, x: Floats, moved: Moved) -> Floats:
        first = self._first(x)
        return self._joined(first.nodes, first.pairs)

    @override
    def pull(self, bar: Floats) -> tuple[Floats, dict[str, Floats]]:
        return self.push(bar, {}), {}

    @override
    def pull_tangent(self, bar: Floats, x: Floats, moved: Moved) -> tuple[Floats, dict[str, Floats]]:
        return self.second(bar, {}, x, moved), {}

    @override
    def second(self, x: Floats, moved: Moved, y: Floats, along: Moved) -> Floats:
        a, b = self._first(x), self._first(y)
        bend = a.R * b.R
        gains = (self._B * bend).sum(axis=-2)
        alpha = self._forward(np.concatenate([np.zeros_like(gains[..., :1, :]), gains], axis=-2))
        R, end = self._centered(bend, alpha, a.end * b.end)
        known = self._B * R * self._below
        known = known + a.back * b.nodes[..., 1:, None, :] + b.back * a.nodes[..., 1:, None, :]
        return self._joined(*self._backward(self._mu[..., -1, :] * end, known))

    def _first(self, direction: Floats) -> Direction:
        u, e = self._parted(direction)
        alpha = self._forward(np.concatenate([u[..., :1, :], u[..., 1:, :] + (self._B * e).sum(axis=-2)], axis=-2))
        R, end = self._centered(e, alpha, 0.0)
        back = self._B * R
        nodes, pairs = self._backward(self._mu[..., -1, :] * end, back * self._below)
        return Direction(R, end, back, nodes, pairs)

    def _forward(self, gains: Floats) -> Floats:
        """α̇ from what each step adds, (…, T, S), without its last position's centering."""
        out = np.empty(gains.shape)
        now = out[..., 0, :] = gains[..., 0, :]
        for t in range(1, self.T):
            now = (now[..., None, :] @ self._B[..., t - 1, :, :])[..., 0, :] + gains[..., t, :]
            now = now - now[..., :1]  # a common shift has no effect, and would grow with time
            out[..., t, :] = now
        return out

    def _centered(self, e: Floats, alpha: Floats, end: Floats | float) -> tuple[Floats, Floats]:
        """R, and the end's α̇ with what is added to it less its mean."""
        raised = alpha[..., :-1, :, None] + e
        last = alpha[..., -1, :] + end
        mean = (self._mu[..., -1, :] * last).sum(axis=-1, keepdims=True)
        return raised - (self._B * raised).sum(axis=-2, keepdims=True), last - mean

    def _backward(self, last: Floats, known: Floats) -> tuple[Floats, Floats]:
        """μ̇ and ṗ from the last position's μ̇ and from the parts of ṗ that do not come from a later μ̇."""
        gains = known.sum(axis=-1)
        out = np.empty((*gains.shape[:-2], self.T, self.S))
        now = out[..., -1, :] = last
        for t in range(self.T - 2, -1, -1):
            now = (self._B[..., t, :, :] @ now[..., :, None])[..., 0] + gains[..., t, :]
            out[..., t, :] = now
        return out, known + self._B * out[..., 1:, None, :]

    def _parted(self, flat: Floats) -> tuple[Floats, Floats]:
        flat = np.broadcast_to(flat, np.broadcast_shapes(flat.shape, self.z.shape))
        return parted(flat, self.T, self.S)

    def _joined(self, nodes: Floats, pairs: Floats) -> Floats:
        lead = nodes.shape[:-2]
        return np.concatenate([nodes.reshape(*lead, -1), pairs.reshape(*lead, -1)], axis=-1)[..., None, :]


def parted(flat: Floats, T: int, S: int) -> tuple[Floats, Floats]:
    """What belongs to states, (…, T, S), and to transitions, (…, T − 1, S, S), of (…, 1, T S + (T − 1) S²)."""
    lead = flat.shape[:-2]
    return flat[..., 0, : T * S].reshape(*lead, T, S), flat[..., 0, T * S :].reshape(*lead, T - 1, S, S)


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
