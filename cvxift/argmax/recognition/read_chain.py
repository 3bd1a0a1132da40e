"""Whether a canonical program has the marginals of a linear chain for its solution, whatever expressions it came from.

    minimize  −Σ scores · marginals + c H,    over μ_t (S entries each, T positions), pairs p_t (S × S) and epigraphs
    exp cones     (t, γ x, β)         the entropies of the root's entries x, one position's or one edge's
                  (t, γ x, δ y)       relative entropies of all pairs x to one of their entries, y the parent
    zero rows     a Σ_j p_t(i, j) − a μ_t(i) = 0, a Σ_i p_t(i, j) − a μ_{t+1}(j) = 0
                  a Σ μ_t = a or a Σ p_t = a, at least once
    nonneg rows   bounds that hold anyway: x ≥ 0, x ≤ 1

The entropy of a chain is that of its root and, along every edge away from it, that of the child given the parent; the
root may be any position, or an edge's pair of positions. Which columns are positions, pairs, and neighbours is found by
their rows alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cvxift.argmax.recognition.form import Affine, Epigraphs, Indices
from cvxift.argmax.recognition.reading import Reader, need
from cvxift.program.program import Program
from cvxift.program.recover import Output
from cvxift.program.structure import Floats


@dataclass(frozen=True, eq=False)
class ChainForm:
    """A recognized program; marginals are counted through, positions first and then pairs.

    Attributes:
        nodes: columns of the marginals of each position, shape (T, S).
        pairs: columns of the pairs' marginals, shape (T − 1, S, S).
        outputs: which marginal each output is, shape (K,).
        rows: consistency rows with the edge's first position and with its second, shape (2, T − 1, S).
        gains: the coefficients of the pairs there.
        total: row of a sum to one, its coefficient, and the position or edge that it is of.
        total_of_pairs: whether it is of an edge.
        epigraphs: the cones.
        of_cone: which marginal x is of each cone.
        parent: which one y is; −1 for the root's cones.
        log_ratio: log δ/γ, or log β/γ, of each cone.
        pieces: score, of every marginal, and stiffness.
    """

    nodes: Indices
    pairs: Indices
    outputs: Indices
    rows: Indices
    gains: Floats
    total: tuple[int, float, int]
    total_of_pairs: bool
    epigraphs: Epigraphs
    of_cone: Indices
    parent: Indices
    log_ratio: Floats
    pieces: dict[str, Affine]

    name = "linear chain"


@dataclass(frozen=True, eq=False)
class _Step:
    """An edge away from the root: the position that it leads to, its pairs (S, S), and its consistency rows."""

    kids: Indices
    pairs: Indices
    rows: Indices
    kid_rows: Indices


class ChainReader(Reader):
    """Reads a linear program with exponential cones.

    Args:
        program: the program.
        outputs: any of its variables.

    Example:
        >>> from cvxift import argmax
        >>> program = Program(argmax.linear_chain(3, 2))
        >>> ChainReader(program, [program.output(argmax.variable(program.problem))]).form().nodes.shape
        (3, 2)
    """

    def __init__(self, program: Program, outputs: list[Output]) -> None:
        structure = program.structure
        cones, cells = structure.cones, structure.cones.exp
        need(outputs and cells and not (cones.soc or cones.psd or cones.pow), "cones of other kinds, or no outputs")
        # Beside as many epigraphs there are T S entries and (T−1) S² pairs for S + (T−1) S² cones, or S² fewer entries.
        rest = structure.n - 2 * cells
        need(rest > 0 and cones.zero > 2, "the numbers of columns and cones are no chain's")
        at_position, square = cells % (rest + 1) == 0, rest**2 - 4 * cells
        need(at_position or (square >= 0 and math.isqrt(square) ** 2 == square), "there are no chain's many columns")
        super().__init__(program, outputs)
        first = cones.zero + cones.nonneg
        roots = int(np.count_nonzero(self.row_count[first + 2 :: 3] == 0))
        self.from_edge = not (at_position and roots * (rest + 1) == cells)
        self.S = math.isqrt(roots) if self.from_edge else roots
        need(self.S > 0 and rest % self.S == 0, "the root has another number of entries")
        self.T = rest // self.S + (not self.from_edge)
        size = (self.T - 1) * self.S**2 + (0 if self.from_edge else self.S)
        need(self.T > 1 and cells == size and (not self.from_edge or roots == self.S**2), "the root's entries")
        need(not (self.P_varies.any() or self.P[1].any()), "there are quadratic terms")

    def form(self) -> ChainForm:
        """The form.

        Raises:
            Unknown: where the program departs from it.
        """
        self._cones()
        self._equalities()
        self._inequalities()
        nodes, pairs, rows = self._ordered()
        T, S, n = self.T, self.S, self.structure.n
        marginal = np.full(n, -1)
        marginal[np.concatenate([nodes.ravel(), pairs.ravel()])] = np.arange(T * S + (T - 1) * S * S)
        need(np.all(marginal[self.columns] >= 0), "an output is no marginal")
        total, of_pairs = self._total(nodes, pairs)

        of_cone, size = marginal[self.x], T * S + (T - 1) * S * S
        parent = np.where(self.y >= 0, marginal[self.y], -1)
        own = np.flatnonzero(marginal >= 0)
        self.add("score", marginal[own], self.offset_q + own, np.full(len(own), -1.0))
        # w γ x log(γx/(δy)), w = q/gain the weight of −t, is c x log(x/y) − c log(δ/γ) x with c = w γ
        weight = self.gamma / self.gain
        self.add("stiffness", np.arange(self.cones.exp), self.offset_q + self.epigraphs, weight)
        self.add("score", of_cone, self.offset_q + self.epigraphs, weight * self.log_ratio)
        pieces = self.inputs({"score": size, "stiffness": self.cones.exp})
        stiffness = pieces["stiffness"]
        others = np.arange(1, self.cones.exp)
        need(stiffness.equals(np.stack([np.zeros_like(others), others], axis=1)), "the entropies' weights differ")
        need(stiffness.varies or stiffness.constant[0] > 0, "the objective has no curvature")
        pieces["stiffness"] = stiffness.block(0, 1)
        cones = Epigraphs(self.first, self.epigraphs, self.gain)
        outputs, gains = marginal[self.columns], self.row_gain[rows]
        places = nodes, pairs, outputs, self.link_rows[rows], gains, total, of_pairs, cones
        return ChainForm(*places, of_cone, parent, self.log_ratio, pieces)

    def _cones(self) -> None:
        """x, y and the epigraphs of the cones; which columns are pairs, and their parents."""
        S, T, n = self.S, self.T, self.structure.n
        self.first = first = self.cones.zero + self.cones.nonneg + 3 * np.arange(self.cones.exp)
        counts = [self.row_count[first + k] for k in range(3)]
        need(np.all(counts[0] == 1) and np.all(counts[1] == 1) and np.all(counts[2] <= 1), "a cone mixes columns")
        at, x_at = self.by_row[self.row_start[first]], self.by_row[self.row_start[first + 1]]
        root = counts[2] == 0
        y_at = self.by_row[np.minimum(self.row_start[first + 2], len(self.by_row) - 1)]
        self.epigraphs, self.gain = self.cols[at], self.A[at]
        self.x, self.gamma = self.cols[x_at], -self.A[x_at]
        self.y = np.where(root, -1, self.cols[y_at])
        shift = self.b[1]
        delta = np.where(root, shift[first + 2], -self.A[y_at])
        conic = slice(self.cones.zero + self.cones.nonneg, None)
        need(not self.b_varies[conic].any(), "a parameter stands in a cone")
        need(not (shift[first].any() or shift[first + 1].any() or shift[first[~root] + 2].any()), "a cone is shifted")
        need(np.all(self.gamma > 0) and np.all(delta > 0), "a cone is degenerate")
        self.log_ratio = np.log(delta / self.gamma)
        need(np.all(self.col_count[self.epigraphs] == 1), "an epigraph is used twice")
        own = np.zeros(n, dtype=int)
        own[self.epigraphs] += 1
        need(np.count_nonzero(own) == self.cones.exp and not own[self.x].any(), "an epigraph is used twice")
        np.add.at(own, self.x, 1)
        need(own.max() == 1, "an entry has several entropies")
        self.pair = np.zeros(n, dtype=bool)
        self.pair[self.x if self.from_edge else self.x[~root]] = True
        self.node = ~self.pair
        self.node[self.epigraphs] = False
        need(np.count_nonzero(self.node) == T * S and np.all(self.node[self.y[~root]]), "a parent is a pair")
        self.parent = np.full(n, -1)
        self.parent[self.x[~root]] = self.y[~root]
        self.root = self.x[root]

    def _equalities(self) -> None:
        """Consistency rows, (2 S (T − 1)) with their entry and pairs, and the sums to one."""
        S, T = self.S, self.T
        rows = np.arange(self.cones.zero)
        of_pairs, of_nodes = (
            np.bincount(self.row_of[mask[self.cols]], minlength=self.structure.m)[rows]
            for mask in (self.pair, self.node)
        )
        need(np.all(of_pairs + of_nodes == self.row_count[rows]), "an epigraph in an equality")
        links = rows[(of_nodes == 1) & (of_pairs == S)]
        need(len(links) == 2 * S * (T - 1), "other equalities than those of neighbours")
        at = self.entries(links, S + 1)
        at = np.take_along_axis(at, np.argsort(self.pair[self.cols[at]], axis=1, kind="stable"), axis=1)
        self.link_rows, self.row_gain = links, self.A[at[:, 1]]
        need(np.all(self.A[at[:, 1:]] == self.row_gain[:, None]), "pairs are weighted")
        need(np.all(self.A[at[:, 0]] == -self.row_gain), "an entry is not the sum of its pairs")
        need(not (self.b_varies[links].any() or self.b[1][links].any()), "a sum of pairs is shifted")
        self.row_node, self.row_pairs = self.cols[at[:, 0]], self.cols[at[:, 1:]]

        self.sums: list[tuple[int, float, Indices]] = []
        for row in rows[~((of_nodes == 1) & (of_pairs == S))]:
            entries = self.entries(np.array([row]), int(self.row_count[row]))[0]
            need(len(entries) and np.all(self.A[entries] == self.A[entries[0]]), "a sum is weighted")
            gain = float(self.A[entries[0]])
            need(not self.b_varies[row] and self.b[1][row] == gain, "a sum is not one")
            self.sums.append((int(row), gain, self.cols[entries]))
        need(self.sums, "no sum is one")

    def _inequalities(self) -> None:
        """Bounds on marginals that hold anyway."""
        rows = np.arange(self.cones.zero, self.cones.zero + self.cones.nonneg)
        need(np.all(self.row_count[rows] == 1), "an inequality mixes entries")
        at = self.by_row[self.row_start[rows]]
        gain, bound = self.A[at], self.b[1][rows]
        need(not self.b_varies[rows].any() and np.all(self._marginal(self.cols[at])), "a bound that moves")
        need(np.all(np.where(gain < 0, bound >= 0.0, bound >= gain)), "a bound that may hold")

    def _marginal(self, columns: Indices) -> np.ndarray:
        """Which columns are marginals."""
        return self.pair[columns] | self.node[columns]

    def _ordered(self) -> tuple[Indices, Indices, Indices]:
        """Columns of positions and pairs along the chain, and the consistency rows (2, T − 1, S) by their number."""
        S, T, n = self.S, self.T, self.structure.n
        root = self._side() if self.from_edge else np.sort(self.root)
        upward = self.parent[self.row_pairs] == self.row_node[:, None]
        parents = np.flatnonzero(upward.all(axis=1))
        children = np.flatnonzero(~upward.any(axis=1))
        need(len(parents) == len(children) == S * (T - 1), "pairs do not belong to two neighbours")
        for side in (parents, children):
            need(np.all(np.bincount(self.row_pairs[side].ravel(), minlength=n)[self.pair] == 1), "a pair's sums")
        need(len(np.unique(self.row_node[children])) == len(children), "an entry is the child of two")
        self.child, self.child_row = np.full(n, -1), np.full(n, -1)
        self.child[self.row_pairs[children]] = self.row_node[children][:, None]
        self.child_row[self.row_node[children]] = children
        self.rows_of: dict[int, list[int]] = {}
        for row in parents:
            self.rows_of.setdefault(int(self.row_node[row]), []).append(int(row))

        onward, *others = [self._walk(rows) for rows in self._starts(root)]
        back = others[0][::-1] if others else []
        need(len(onward) + len(back) == T - 1, "not all positions are on the chain")
        positions = [step.kids for step in back] + [root] + [step.kids for step in onward]
        pairs = [step.pairs.T for step in back] + [step.pairs for step in onward]
        first = [step.kid_rows for step in back] + [step.rows for step in onward]
        second = [step.rows for step in back] + [step.kid_rows for step in onward]
        nodes = np.stack(positions)
        need(len(np.unique(nodes)) == T * S, "the chain is closed")
        return nodes, np.stack(pairs), np.array([first, second])

    def _side(self) -> Indices:
        """Entries of the first position of the edge that is the root, made its pairs' parents."""
        own = np.zeros(self.structure.n, dtype=bool)
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
            kids = self.child[pairs]
            order = np.argsort(kids, axis=1)
            pairs, kids = np.take_along_axis(pairs, order, axis=1), np.take_along_axis(kids, order, axis=1)
            need(np.all(kids == kids[0]), "a position's entries have different neighbours")
            steps.append(_Step(kids[0], pairs, rows, self.child_row[kids[0]]))
            onward = [self.rows_of.get(int(node), []) for node in kids[0]]
            if not any(onward):
                return steps
            need(all(len(found) == 1 for found in onward), "a position has more than two neighbours")
            rows = np.array([found[0] for found in onward])

    def _total(self, nodes: Indices, pairs: Indices) -> tuple[tuple[int, float, int], bool]:
        """The first sum to one; every one must be of a position or of an edge."""
        T, n = self.T, self.structure.n
        place = np.full(n, -1)
        place[nodes] = np.arange(T)[:, None]
        place[pairs] = T + np.arange(T - 1)[:, None, None]
        for _, _, columns in self.sums:
            at = place[columns]
            size = self.S if at[0] < T else self.S**2
            need(np.all(at == at[0]) and len(columns) == size, "a sum of other entries")
        row, gain, columns = self.sums[0]
        at = int(place[columns[0]])
        return (row, gain, at if at < T else at - T), at >= T
