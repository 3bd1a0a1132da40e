"""Powers t ≥ κ z^α written with second-order cones, as CVXPY does by default: trees of  out² ≤ y w.

Each node is a cone (c_y y + c_w w, c_y y − c_w w, 2 g out) with y and w columns or positive numbers. Where all nodes
are tight every auxiliary column is a monomial κ z^e: the exponents and log κ solve 2 e_out = e_y + e_w, node by node.
The multipliers are monomials too: μ = λ · 2 c_y y c_w w balances at every column, Σ_{factor} μ − 2 Σ_{out} μ = q t at t
and 0 elsewhere, so μ = m q t with constants m.

Source: Alizadeh & Goldfarb 2003, section 2 (powers by second-order cones).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from cvxift.argmax.recognition.form import SAME, Indices
from cvxift.argmax.recognition.reading import Reader, need
from cvxift.program.structure import Floats

DENOMINATOR = 10_000  # of the exponents


@dataclass(frozen=True, eq=False)
class PowerTrees:
    """The trees of all entries.

    Attributes:
        own: the columns of the entries.
        rows: each node's first row.
        factors: columns of y and w, −1 for numbers, (nodes, 2).
        weights: c_y and c_w, or the numbers, (nodes, 2).
        out: column of each node's out, shape (nodes,).
        gain: 2 g with its sign, shape (nodes,).
        columns: the auxiliary columns.
        owner: the entry that each belongs to; likewise of the nodes, by their outs or factors.
        exponent: e of each auxiliary column.
        scale: κ of each.
        top: position among them of each t.
        share: m of each node.
        node_owner: the entry of each node.
    """

    own: Indices
    rows: Indices
    factors: Indices
    weights: Floats
    out: Indices
    gain: Floats
    columns: Indices
    owner: Indices
    exponent: Floats
    scale: Floats
    top: Indices
    share: Floats
    node_owner: Indices

    def fill(self, x: Floats, y: Floats, weight: Floats) -> None:
        """Auxiliary columns and the cones' multipliers.

        Args:
            x: columns; those of the variable are there, the auxiliaries are set.
            y: multipliers; the cones' are set.
            weight: what multiplies each t in the objective.
        """
        z = x[self.own]
        x[self.columns] = self.scale * z[self.owner] ** self.exponent
        width = len(x) + 1  # the last place stands for numbers
        e, log = np.zeros(width), np.zeros(width)
        e[self.own] = 1.0
        e[self.columns], log[self.columns] = self.exponent, np.log(self.scale)
        q = np.zeros(len(z))
        q[self.owner[self.top]] = weight
        alpha, kappa = self.exponent[self.top[0]], np.zeros(len(z))
        kappa[self.owner[self.top]] = self.scale[self.top]
        at = z[self.node_owner]
        front = self.share * q[self.node_owner] * kappa[self.node_owner]

        def over(column: Indices, coefficient: Floats) -> Floats:
            """μ over coefficient · column; a power 0 is 1 at z = 0 as well."""
            power = alpha - e[column]
            power[np.abs(power) <= SAME] = 0.0
            return front / (coefficient * np.exp(log[column])) * at**power

        by_w, by_y = (0.5 * over(self.factors[:, side], self.weights[:, side]) for side in (1, 0))
        y[self.rows], y[self.rows + 1] = by_w + by_y, by_y - by_w
        y[self.rows + 2] = -over(self.out, 0.5 * self.gain)

    def press(self, y: Floats, columns: Indices, gradient: Floats) -> None:
        """Let the trees hold entries at z = 0 against their gradients > 0, as their nodes imply z ≥ 0.

        Args:
            y: multipliers; those of nodes are raised.
            columns: columns of the entries that are held.
            gradient: at them.
        """
        for side, sign in ((0, 1.0), (1, -1.0)):
            where = np.flatnonzero(np.isin(self.factors[:, side], columns))
            _, first = np.unique(self.factors[where, side], return_index=True)
            nodes = where[first]
            order = np.argsort(columns)
            place = order[np.searchsorted(columns, self.factors[nodes, side], sorter=order)]
            more = gradient[place] / (2.0 * self.weights[nodes, side])
            y[self.rows[nodes]] += more
            y[self.rows[nodes] + 1] += sign * more
            rest = np.ones(len(columns), dtype=bool)
            rest[place] = False
            columns, gradient = columns[rest], gradient[rest]


def read_trees(reader: Reader, first: Indices) -> PowerTrees:
    """The trees of a program.

    Args:
        reader: the program.
        first: first rows of its second-order cones, all of three rows.

    Raises:
        Unknown: the cones are no such trees, one for each entry.
    """
    factors, weights, out, gain = _nodes(reader, first)
    used = np.unique(np.concatenate([factors.ravel(), out]))
    columns = used[(used >= 0) & (reader.entry[used] < 0)]
    need(len(columns) == len(first), "as many nodes as auxiliaries")
    place = np.full(reader.structure.n + 1, -1)
    place[columns] = np.arange(len(columns))

    # 2 e_out − e_y − e_w = 0 in the auxiliaries' exponents, the entries' being 1; the same for log κ with entries' 0.
    node = np.arange(len(first))
    terms = [(out, 2.0), (factors[:, 0], -1.0), (factors[:, 1], -1.0)]
    row, column, value, known = [], [], [], np.zeros(len(first))
    for which, factor in terms:
        inside = place[which] >= 0
        row.append(node[inside])
        column.append(place[which[inside]])
        value.append(np.full(np.count_nonzero(inside), factor))
        known[(which >= 0) & ~inside] -= factor
    shape = (len(first), len(first))
    triplets = (np.concatenate(value), (np.concatenate(row), np.concatenate(column)))
    system = sp.csc_array(triplets, shape=shape)
    owner, node_owner = _owners(reader, system, columns, factors, out)
    logs = np.log(weights).sum(axis=1) - 2.0 * np.log(0.5 * np.abs(gain))
    top = _tops(reader, columns, factors, out)
    ends = np.zeros(len(columns))
    ends[top] = -1.0
    try:
        factorized = spla.splu(system)
    except RuntimeError:  # exactly singular
        need(False, "the nodes do not determine the auxiliaries")
        raise
    exponent, log = factorized.solve(known), factorized.solve(logs)
    share = factorized.solve(ends, trans="T")
    exponent = np.array([_rational(e) for e in exponent])
    need(np.all(share > SAME) and np.isfinite(log).all(), "a node is not tight")
    need(np.all(np.abs(exponent[top] - exponent[top[0]]) <= SAME) and exponent[top[0]] > 1.0, "powers differ")
    need(np.all(exponent >= 0.0) and np.all(exponent <= exponent[top[0]] + SAME), "a node beyond the power")
    scale = np.exp(log)
    return PowerTrees(
        reader.columns, first, factors, weights, out, gain, columns, owner, exponent, scale, top, share, node_owner
    )


def _nodes(reader: Reader, first: Indices) -> tuple[Indices, Floats, Indices, Floats]:
    """Columns and weights of the factors (nodes, 2), columns and coefficients of the outs."""
    counts = np.stack([reader.row_count[first + k] for k in range(3)])
    need(np.all(counts[0] == counts[1]) and np.all(counts[2] == 1), "a node of other form")
    need(counts[0].min() >= 1 and counts[0].max() <= 2, "a node of other form")
    b = np.stack([reader.b[1][first + k] for k in range(3)])
    need(not b[2].any() and not any(reader.b_varies[first + k].any() for k in range(3)), "a parameter in a node")
    columns, values = np.full((2, len(first), 2), -1), np.zeros((2, len(first), 2))
    for k in (0, 1):
        for slot in (0, 1):
            has = np.flatnonzero(counts[k] > slot)
            at = reader.by_row[reader.row_start[first[has] + k] + slot]
            columns[k, has, slot], values[k, has, slot] = reader.cols[at], reader.A[at]
    need(np.array_equal(columns[0], columns[1]), "a node mixes columns")
    coefficient = np.stack([-0.5 * (values[0] + values[1]), -0.5 * (values[0] - values[1])])  # side, node, slot
    need(np.all(np.count_nonzero(coefficient, axis=0) == (columns[0] >= 0)), "a column in both factors")
    need(np.all(np.count_nonzero(coefficient, axis=2) <= 1), "two columns in a factor")
    number = np.stack([0.5 * (b[0] + b[1]), 0.5 * (b[0] - b[1])])
    slot = np.argmax(coefficient != 0.0, axis=2)
    weights = np.take_along_axis(coefficient, slot[..., None], axis=2)[..., 0]
    factors = np.where(weights != 0.0, np.take_along_axis(columns[0][None], slot[..., None], axis=2)[..., 0], -1)
    need(np.all((weights != 0.0) != (number != 0.0)), "a factor is a sum")
    weights = np.where(weights != 0.0, weights, number)
    need(np.all(weights > 0), "a negative factor")
    at = reader.by_row[reader.row_start[first + 2]]
    return factors.T, weights.T, reader.cols[at], -reader.A[at]


def _owners(
    reader: Reader, system: sp.csc_array, columns: Indices, factors: Indices, out: Indices
) -> tuple[Indices, Indices]:
    """The one entry in the tree of each auxiliary, and of each node."""
    square = sp.block_array([[None, system], [system.T, None]], format="csr")
    trees, label = sp.csgraph.connected_components(square != 0, directed=False)
    nodes = label[: len(out)]
    need(trees == reader.K, "not one tree for each entry")
    entry = np.full(trees, -1)
    for which in (out, factors[:, 0], factors[:, 1]):
        own = (which >= 0) & (reader.entry[which] >= 0)
        mine = reader.entry[which[own]]
        need(np.all((entry[nodes[own]] < 0) | (entry[nodes[own]] == mine)), "a tree of two entries")
        entry[nodes[own]] = mine
    need(entry.min() >= 0 and len(np.unique(entry)) == reader.K, "a tree without an entry")
    return entry[label[len(out) :]], entry[nodes]


def _tops(reader: Reader, columns: Indices, factors: Indices, out: Indices) -> Indices:
    """Positions of the columns that the objective, or a row other than the nodes', has as well."""
    inside = 2 * np.bincount(factors[factors >= 0], minlength=reader.structure.n)
    inside += np.bincount(out, minlength=reader.structure.n)
    beyond = reader.col_count[columns] - inside[columns]
    weighed = (reader.q[1][columns] != 0.0) | (np.diff(reader.q[0].indptr)[columns] > 0)
    top = np.flatnonzero((beyond > 0) | weighed)
    need(len(top) == reader.K, "not one power for each entry")
    return top


def _rational(e: float) -> float:
    """The fraction that e is up to rounding."""
    near = float(Fraction(float(e)).limit_denominator(DENOMINATOR))
    return near if abs(near - e) <= SAME * max(1.0, abs(e)) else float(e)
