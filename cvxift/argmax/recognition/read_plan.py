"""Whether a canonical program is a transport plan (see `plans`): the parts of a separable allocation, but other sums.

    zero rows       α_i Σ_j z_ij = a_i  and  β_j Σ_i z_ij = b_j    of all rows and columns; one of them may be missing,
                                                                   as it follows from the others

All rows and columns together determine each other: with masses that depend on θ one must be missing.
"""

from __future__ import annotations

import numpy as np

from cvxift.argmax.recognition.form import Affine, Form, Indices, Layout
from cvxift.argmax.recognition.kinds import Box, Budget, Softmax
from cvxift.argmax.recognition.plans import EntropicPlan, PlanKind, QuadraticPlan
from cvxift.argmax.recognition.read_separable import Bound, SeparableReader
from cvxift.argmax.recognition.reading import need
from cvxift.program.program import Program
from cvxift.program.recover import Output
from cvxift.program.structure import Floats


class PlanReader(SeparableReader):
    """Reads a program of one variable without second-order and semidefinite cones (arguments as `SeparableReader`)."""

    def __init__(self, program: Program, outputs: list[Output]) -> None:
        need(program.structure.cones.zero >= 3, "too few sums")
        super().__init__(program, outputs)

    def form(self) -> Form:
        """The form.

        Raises:
            Unknown: where the program departs from it.
        """
        squares = self.squares()
        order, size, rows, gain = self._grid(squares.rows)
        found, epigraphs = self.entropies(True)
        need(isinstance(found, Softmax | Budget) and not isinstance(found, Box), "a plan with another entropy")
        need(self.K + len(squares.columns) + epigraphs.count == self.structure.n, "a column has no part")
        need(self.has("stiffness"), "the objective is linear")
        low, high = self.bounds(epigraphs.omega)
        inputs = self.inputs({"total": sum(size)})
        stiffness, total = inputs["stiffness"], inputs["total"]
        self.check_stiffness(stiffness, order)
        need(rows.min() < 0 or not total.varies, "redundant sums with masses that are parameters")
        kind = EntropicPlan(size) if isinstance(found, Softmax) else QuadraticPlan(size)
        need("lower" not in inputs and "upper" not in inputs, "bounds that are parameters")
        self._settle_plan(kind, total, low, high, order)
        layout = Layout(self.columns, order, rows, gain, low.rows, high.rows, squares, epigraphs)
        gains = low.gain, high.gain
        prior = inputs.get("prior")
        return Form(kind, kind.name, inputs["score"], stiffness, total, low.value, None, *gains, layout, prior)

    def _grid(self, aux_rows: Indices) -> tuple[Indices, tuple[int, int], Indices, Floats]:
        """The plan's entries row by row, (1, mn), its shape, and its sums' zero rows (−1: missing) and coefficients."""
        own = np.ones(self.cones.zero, dtype=bool)
        own[aux_rows] = False
        rows = np.flatnonzero(own)
        need(len(rows) >= 3, "too few sums")
        sizes = self.row_count[rows]
        need(sizes.min() >= 2 and sizes.sum() <= 2 * self.K, "the sums do not cover the entries twice")
        starts = np.cumsum(sizes) - sizes
        at = self.by_row[np.repeat(self.row_start[rows], sizes) + np.arange(sizes.sum()) - np.repeat(starts, sizes)]
        owner, entry, gain = np.repeat(np.arange(len(rows)), sizes), self.entry[self.cols[at]], self.A[at]
        need(entry.min() >= 0, "a sum has other columns")
        need(np.all(gain == gain[starts][owner]), "a sum is weighted")

        # Lines that cross the first one are of the other direction; those with an entry of the first entry's, too.
        first = np.zeros(self.K, dtype=bool)
        first[entry[: sizes[0]]] = True
        crossing = np.zeros(len(rows), dtype=bool)
        crossing[owner[first[entry]]] = True
        crossing[0] = False
        places = np.full((2, self.K), -1)
        places[crossing[owner].astype(int), entry] = owner
        counts = [int(np.count_nonzero(places[side] >= 0)) for side in (0, 1)]
        need(counts[0] + counts[1] == len(entry), "two sums of one direction overlap")
        need(max(counts) == self.K, "no direction covers all entries")
        complete = 0 if counts[0] == self.K else 1
        full, part = places[complete], places[1 - complete]
        if counts[1 - complete] == self.K and self._across(full):
            full, part = part, full  # the plan then lies as its entries do
        used, i = np.unique(full, return_inverse=True)
        others, j = np.unique(part, return_inverse=True)  # a missing line comes first, as −1
        m, n = len(used), len(others)
        need(m >= 2 and n >= 2 and m * n == self.K, "the sums are not those of a matrix")
        order = np.full(self.K, -1)
        order[i * n + j] = np.arange(self.K)
        need(order.min() >= 0, "two entries have the same sums")
        # Lines in the order of their first entries, so that the plan lies as its entries do wherever it can.
        order = order.reshape(m, n)
        down = np.argsort(order.min(axis=1))
        across = np.argsort(order[down[0]])
        order, used, others = order[down][:, across], used[down], others[across]
        missing = others < 0
        line = np.concatenate([rows[used], np.where(missing, -1, rows[others])])
        weight = np.concatenate([gain[starts][used], np.where(missing, 1.0, gain[starts][others])])
        self._totals(line, weight, m)
        return order.reshape(1, -1), (m, n), line, weight

    @staticmethod
    def _across(lines: Indices) -> bool:
        """Whether the second entry is not in the first one's line."""
        return len(lines) > 1 and lines[0] != lines[1]

    def _totals(self, line: Indices, weight: Floats, m: int) -> None:
        """The masses; a missing one is what the others leave."""
        there = np.flatnonzero(line >= 0)
        self.add("total", there, self.offset_b + line[there], 1.0 / weight[there])
        for gap in np.flatnonzero(line < 0):
            sign = np.where(there < m, 1.0, -1.0)
            self.add("total", np.full(len(there), gap), self.offset_b + line[there], sign / weight[there])

    def _settle_plan(self, kind: PlanKind, total: Affine, low: Bound, high: Bound, order: Indices) -> None:
        """Drop bounds that never matter; refuse others than z ≥ 0."""
        lower = None if low.value is None else low.value.constant
        if isinstance(kind, EntropicPlan):
            need(lower is None or bool((lower <= 0).all()), "an entropy with lower bounds")
            low.drop()
        else:
            need(lower is not None and not lower.any(), "squares without z ≥ 0")
        if high.value is not None:
            m = kind.size[0]
            masses = np.where(total.counts > 0, np.inf, total.constant)
            implied = np.empty(self.K)
            implied[order[0]] = np.minimum(masses[:m, None], masses[m:]).ravel()
            need(bool((high.value.constant >= implied).all()), "upper bounds in a plan")
            high.drop()
