"""The entropies of a separable allocation, read from a program's exponential, power or second-order cones.

    exp cones (t, z, β):          t ≤ z log(β/z)         relative entropies; β may depend on θ: a prior
    exp cones (t, h − g z, β):    besides the former     the second half of a sigmoid's entropy
    pow cones (t, β, z):          t^ρ β^{1−ρ} ≥ |z|      Tsallis' entropy of order α = 1/ρ, with z ≥ 0
    trees of second-order cones:  t ≥ κ z^α              the same, see `power_trees`

Each t has a place of its own in the objective, or all are summed up below one ω that has it (an objective in which a
parameter multiplies an entropy with parameters must be written so).
"""

from __future__ import annotations

import numpy as np

from cvxift.argmax.recognition.form import SAME, Epigraphs, Indices, Omega
from cvxift.argmax.recognition.kinds import Box, Budget, Entmax, Sigmoid, Softmax
from cvxift.argmax.recognition.power_trees import read_trees
from cvxift.argmax.recognition.reading import Reader, need
from cvxift.argmax.recognition.separable import Kind
from cvxift.program.program import Program
from cvxift.program.recover import Output
from cvxift.program.structure import Floats


class EntropyReader(Reader):
    """Reads the cones of a program that has one kind of curved ones at most.

    Args:
        program: the program.
        outputs: its variables.

    Attributes:
        curved: whether there are exponential, power or second-order cones.
        positive: whether the cones imply z ≥ 0.
    """

    def __init__(self, program: Program, outputs: list[Output]) -> None:
        super().__init__(program, outputs)
        kinds = sum(map(bool, (self.cones.exp, self.cones.pow, self.cones.soc)))
        self.curved = kinds > 0
        self.positive = self.cones.exp > 0
        need(not self.cones.psd and kinds <= 1, "cones of other kinds")
        need(all(rows == 3 for rows in self.cones.soc), "larger second-order cones")

    def entropies(self, summed: bool) -> tuple[Kind, Epigraphs]:
        """Which allocation the cones make, and their columns.

        Args:
            summed: whether the entries have sums.

        Raises:
            Unknown: it is none.
        """
        if not self.curved:
            return (Budget() if summed else Box()), Epigraphs.none()
        count = self.cones.exp or len(self.cones.pow) or len(self.cones.soc)
        first = self.cones.zero + self.cones.nonneg + 3 * np.arange(count)
        if self.cones.soc:
            need(summed, "the entries have no sum")
            return self._trees(first)
        z_row, one_row = (first + 1, first + 2) if self.cones.exp else (first + 2, first + 1)
        counts = [self.row_count[rows] for rows in (first, z_row, one_row)]
        need(np.all(counts[0] == 1) and np.all(counts[1] == 1) and not counts[2].any(), "a cone mixes entries")
        at, z_at = self.by_row[self.row_start[first]], self.by_row[self.row_start[z_row]]
        columns, gain = self.cols[at], self.A[at]
        entry, g = self.entry[self.cols[z_at]], self.A[z_at]
        need(np.all(self.entry[columns] < 0) and np.all(entry >= 0), "a cone is not of the variable")
        need(len(np.unique(columns)) == len(columns), "an epigraph is used twice")
        omega = self._omega(columns)
        need(np.all(self.col_count[columns] == (1 if omega is None else 2)), "an epigraph is used twice")
        need(not self.b_varies[z_row].any(), "a parameter stands in a cone")
        epigraphs = Epigraphs(first, columns, gain, omega)
        weigher, factor = self._weights(columns, omega)
        factor = factor / gain
        shift, beta = self.b[1][z_row], self.b[1][one_row]
        if self.cones.pow:
            need(not self.b_varies[one_row].any() and np.all(beta > 0), "a cone is degenerate")
            need(summed and not shift.any() and len(np.unique(entry)) == len(entry) == self.K, "no power of z")
            return self._powers(weigher, -factor, entry, g, beta), epigraphs
        return self._logs(weigher, factor, entry, g, shift, one_row, summed), epigraphs

    def _weights(self, columns: Indices, omega: Omega | None) -> tuple[Indices, Floats]:
        """The entry of q that weighs each t, its own or that of ω, and the factor from it to t's weight."""
        if omega is None:
            return self.offset_q + columns, np.ones(len(columns))
        return np.full(len(columns), self.offset_q + omega.column), -omega.weight / omega.gain

    def _omega(self, columns: Indices) -> Omega | None:
        """The column above the sum of all the t, if they stand in linear rows."""
        own = np.full(self.structure.n, -1)
        own[columns] = np.arange(len(columns))
        others = np.flatnonzero((own[self.cols] >= 0) & (self.row_of < self.cones.zero + self.cones.nonneg))
        if not len(others):
            return None
        q, varies = self.q[1], np.diff(self.q[0].indptr) > 0
        need(not q[columns].any() and not varies[columns].any(), "an epigraph has two weights")
        row = int(self.row_of[others[0]])
        need(np.all(self.row_of[others] == row) and self.row_count[row] == len(columns) + 1, "no sum of all epigraphs")
        need(self.cones.zero <= row < self.cones.zero + self.cones.nonneg, "their sum is no bound")
        need(self.b[1][row] == 0.0 and not self.b_varies[row], "their sum is shifted")
        members = self.entries(np.array([row]), len(columns) + 1)[0]
        (omega,) = members[own[self.cols[members]] < 0]
        column, gain = int(self.cols[omega]), float(self.A[omega])
        need(self.entry[column] < 0 and self.col_count[column] == 1 and gain < 0, "their sum has no place of its own")
        weight = np.empty(len(columns))
        weight[own[self.cols[others]]] = self.A[others]
        return Omega(row, column, gain, weight)

    def _trees(self, first: Indices) -> tuple[Kind, Epigraphs]:
        """Tsallis' entropy through second-order cones."""
        trees = read_trees(self, first)
        self.positive = bool(np.isin(self.columns, trees.factors).all())  # even powers have z as an out alone
        tops = trees.columns[trees.top]
        omega = self._omega(tops)
        weigher, factor = self._weights(tops, omega)
        alpha = float(trees.exponent[trees.top[0]])
        scale = trees.scale[trees.top] * factor * alpha * (alpha - 1.0)
        self.add("stiffness", trees.owner[trees.top], weigher, scale)
        return Entmax(alpha, f"{alpha:.6g}-entmax"), Epigraphs(first, trees.columns, np.zeros(0), omega, trees)

    def _logs(
        self, weigher: Indices, factor: Floats, entry: Indices, g: Floats, shift: Floats, one_row: Indices, summed: bool
    ) -> Kind:
        """Shannon's: t ≤ y log(β/y), y = h − g z, and weight · y log(y/β) in the objective."""
        beta, moving = self.b[1][one_row], bool(self.b_varies[one_row].any())
        need(moving or np.all(beta > 0), "a cone is degenerate")
        main = np.flatnonzero((shift == 0.0) & (g < 0.0))
        rest = np.flatnonzero(~((shift == 0.0) & (g < 0.0)))
        need(len(np.unique(entry[main])) == len(main) == self.K, "an entry has no entropy, or several")
        # w y log(y/β), y = γ z, is c z log z − c log(β/γ) z with c = w γ
        gamma = -g[main]
        self.add("stiffness", entry[main], weigher[main], gamma * factor[main])
        if moving:
            need(not len(rest), "a parameter stands in an entropy of another expression")
            self.add("prior", entry[main], self.offset_b + one_row[main], 1.0 / gamma)
        else:
            self.add("score", entry[main], weigher[main], gamma * factor[main] * np.log(beta[main] / gamma))
        if not len(rest):
            need(summed, "the entries have no sum")
            return Softmax()
        need(not summed and len(np.unique(entry[rest])) == len(rest) == self.K, "entropies of other expressions")
        g = g[rest]
        need(np.all(g > 0) and np.all(shift[rest] == g), "not the entropy of 1 − z")
        # y = g (1 − z): as above in 1 − z, so + c log(β/g) z
        self.add("second", entry[rest], weigher[rest], g * factor[rest])
        self.add("score", entry[rest], weigher[rest], -g * factor[rest] * np.log(beta[rest] / g))
        return Sigmoid()

    def _powers(self, weigher: Indices, factor: Floats, entry: Indices, g: Floats, beta: Floats) -> Kind:
        """Tsallis': t ≥ (|g| z)^α β^{1−α}, and weight · t in the objective."""
        rho = self.cones.pow[0]
        need(all(abs(other - rho) <= SAME for other in self.cones.pow) and 0.0 < rho < 1.0, "powers differ")
        alpha = 1.0 / rho
        alpha = float(round(alpha)) if abs(alpha - round(alpha)) <= SAME * alpha else alpha
        need(alpha != 2.0 and np.all(factor > 0), "not a power to be minimized")
        # Stationarity: q_t (…) α z^{α−1} + q + τ = 0, and φ(d) = [(α−1)d]^{1/(α−1)} has z^{α−1} = (α−1) d.
        scale = np.abs(g) ** alpha * beta ** (1.0 - alpha) * factor
        self.add("stiffness", entry, weigher, scale * alpha * (alpha - 1.0))
        return Entmax(alpha, f"{alpha:.6g}-entmax")
