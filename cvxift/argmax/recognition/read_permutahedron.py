"""Whether a canonical program is the projection onto a permutahedron, whatever CVXPY expressions it came from.

    minimize  ½c‖z‖² − aᵀz   or   c Σ z log z − aᵀz        over z of length n and auxiliaries
    zero rows     g Σ z = T                                 and squares' auxiliaries, as in `read_separable`
    nonneg rows   for every k < n at least one top, a bound on the sum of the k largest entries:
        α z_i ≤ β t_i + γ q,  t_i ≥ 0,  η Σ t + κ q ≤ b     sum_largest(αz, k) ≤ bβ/η,   k = κβ/(γη) an integer
        α z_i ≤ γ q,  κ q ≤ b                               max(αz) ≤ bγ/κ, that is k = 1
        α z_i ≤ b_i                                         bounds: k = 1 if they are all the same

Where α < 0 it is the sum of the k smallest entries that is bounded below, hence the n − k largest's above. Further tops
and bounds may stand beside (z ≥ 0); the closed form is taken where they never hold, their gap being ≥ 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxift.argmax.recognition.form import SAME, Affine, Epigraphs, Indices, Squares
from cvxift.argmax.recognition.kinds import Softmax
from cvxift.argmax.recognition.read_squares import SquareReader
from cvxift.argmax.recognition.reading import need
from cvxift.argmax.recognition.tops import Bounds, MaxTop, SumTop, Top
from cvxift.program.program import Program
from cvxift.program.recover import Output

ROUNDING = 64 * np.finfo(float).eps  # relative to sums of values, differences up to which they are the same


@dataclass(frozen=True, eq=False)
class PermutahedronForm:
    """A recognized program.

    Attributes:
        entropic: whether the regularizer is Shannon's entropy, or the half square.
        columns: column of each entry of z in the output's order, shape (n,).
        sum_row: the zero row of the sum.
        sum_gain: its coefficient.
        tops: for k = 1, …, n−1 the bound on the k largest.
        idle: bounds that are implied.
        idle_size: their k.
        squares: auxiliaries of the squares.
        epigraphs: the entropies' cones.
        pieces: score, stiffness, prior (if there is one), values w with Σ_{i≤k} w_i the bound on the k largest, and
            gap, by how much each idle bound exceeds the one that implies it.
    """

    entropic: bool
    columns: Indices
    sum_row: int
    sum_gain: float
    tops: tuple[Top, ...]
    idle: tuple[Top, ...]
    idle_size: Indices
    squares: Squares
    epigraphs: Epigraphs
    pieces: dict[str, Affine]

    @property
    def name(self) -> str:
        """What users know the map as."""
        return "entropic permutahedron" if self.entropic else "permutahedron"


class PermutahedronReader(SquareReader):
    """Reads a program of one variable with linear constraints, and exponential cones at most.

    Args:
        program: the program.
        outputs: its one variable.

    Example:
        >>> import cvxpy as cp
        >>> z, theta = cp.Variable(2), cp.Parameter(2)
        >>> constraints = [cp.sum(z) == 3, cp.sum_largest(z, 1) <= 2]
        >>> program = Program(cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), constraints))
        >>> PermutahedronReader(program, [program.output(z)]).form().name
        'permutahedron'
    """

    def __init__(self, program: Program, outputs: list[Output]) -> None:
        structure = program.structure
        need(len(outputs) == 1 and outputs[0].kind == "primal", "several variables, or a dual one")
        cones, n = structure.cones, math.prod(outputs[0].shape)
        need(not (cones.soc or cones.psd or cones.pow) and cones.exp in (0, n), "cones of other kinds")
        # All tops but the first and the last, which bounds can give, have n + 1 columns and 2n + 1 rows of their own.
        inner = max(n - 3, 0)
        need(structure.n >= n + inner * (n + 1) and cones.nonneg >= inner * (2 * n + 1), "too few rows for all tops")
        super().__init__(program, outputs)
        self.add("score", np.arange(n), self.offset_q + self.columns, np.full(n, -1.0))
        self.inequality = np.zeros(structure.m, dtype=bool)
        self.inequality[cones.zero : cones.zero + cones.nonneg] = True

    def form(self) -> PermutahedronForm:
        """The form.

        Raises:
            Unknown: where the program departs from it.
        """
        n = self.K
        squares = self.squares()
        sum_row, sum_gain = self._sum(squares.rows)
        kind, epigraphs = self.entropies(True)
        need(not self.curved or isinstance(kind, Softmax), "an entropy of another kind")
        if epigraphs.omega is not None:
            self.inequality[epigraphs.omega.row] = False
        found = self._sums_largest() + self._bounds()
        own = np.concatenate([np.zeros(0, dtype=np.intp), *(top.columns for top in found)])
        need(n + len(squares.columns) + epigraphs.count + len(own) == self.structure.n, "a column has no part")
        need(not self.q[1][own].any() and not np.diff(self.q[0].indptr)[own].any(), "a top stands in the objective")
        need(sum(top.rows for top in found) == np.count_nonzero(self.inequality), "an inequality has no part")
        need(self.has("stiffness"), "the objective is linear")

        tops, idle = self._chosen(found, sum_row, sum_gain)
        self._values(tops, sum_row, sum_gain)
        self._gaps(idle, tops, sum_row, sum_gain)
        pieces = self.inputs({"values": n, "gap": len(idle)})
        stiffness = pieces["stiffness"]
        need(stiffness.equals(np.stack([np.zeros(n - 1, dtype=int), np.arange(1, n)], axis=1)), "curvatures differ")
        need(stiffness.varies or stiffness.constant[0] > 0, "the objective has no curvature")
        pieces["stiffness"] = stiffness.block(0, 1)
        self._check(pieces)
        sizes = np.array([top.size for top in idle], dtype=np.intp)
        places = self.columns, sum_row, sum_gain, tuple(tops), tuple(idle), sizes, squares, epigraphs
        return PermutahedronForm(self.curved, *places, pieces)

    def _sum(self, taken: Indices) -> tuple[int, float]:
        """The one other zero row."""
        own = np.ones(self.cones.zero, dtype=bool)
        own[taken] = False
        rows = np.flatnonzero(own)
        need(len(rows) == 1 and self.row_count[rows[0]] == self.K, "no sum of all entries, or several equalities")
        at = self.entries(rows, self.K)[0]
        need(np.all(self.entry[self.cols[at]] >= 0) and np.all(self.A[at] == self.A[at[0]]), "the sum is weighted")
        return int(rows[0]), float(self.A[at[0]])

    def _sums_largest(self) -> list[Top]:
        """The tops with auxiliaries, from the rows that compare an entry with them."""
        n, of_z = self.K, self.entry[self.cols] >= 0
        entries_of = np.bincount(self.row_of[of_z], minlength=self.structure.m)
        compares = self.inequality & (entries_of == 1) & (self.row_count > 1)
        rows = np.flatnonzero(compares)
        if not len(rows):
            return []
        need(not self.b_varies[rows].any() and not self.b[1][rows].any(), "a comparison with an entry is shifted")
        uses = np.bincount(self.cols[compares[self.row_of]], minlength=self.structure.n)
        # An entry's column is none of both; t is compared with one entry, q with all of them (n = 1 has no tops).
        role = np.where(self.entry >= 0, 0, np.where(uses == 1, 1, np.where(uses == n, 2, 3)))
        need(n > 1, "a bound on no entries")
        out: list[Top] = []
        for size in (3, 2):
            chosen = rows[self.row_count[rows] == size]
            if not len(chosen):
                continue
            at = self.entries(chosen, size)
            at = np.take_along_axis(at, np.argsort(role[self.cols[at]], axis=1, kind="stable"), axis=1)
            roles = [0, 1, 2] if size == 3 else [0, 2]
            need(np.all(role[self.cols[at]] == roles), "a comparison of other columns")
            at = at[np.lexsort((self.entry[self.cols[at[:, 0]]], self.cols[at[:, -1]]))]
            need(len(at) % n == 0, "some entries are not compared")
            for part in at.reshape(-1, n, size):
                need(np.all(self.entry[self.cols[part[:, 0]]] == np.arange(n)), "an entry is compared twice")
                need(np.all(self.cols[part[:, -1]] == self.cols[part[0, -1]]), "some entries are not compared")
                out.append(self._sum_top(part) if size == 3 else self._max_top(part))
        return out

    def _same(self, at: Indices) -> float:
        """The coefficient that all these places have."""
        need(np.all(self.A[at] == self.A[at[0]]), "coefficients differ")
        return float(self.A[at[0]])

    def _places(self, column: int) -> Indices:
        """Positions of A's entries in a column."""
        start = np.searchsorted(self.cols, column)
        return np.arange(start, start + self.col_count[column])

    def _sum_top(self, part: Indices) -> Top:
        """A sum of the largest entries from its comparisons, places (n, 3) in A of z, t and q."""
        n, (alpha, beta, gamma) = self.K, (self._same(part[:, k]) for k in range(3))
        t, q = self.cols[part[:, 1]], int(self.cols[part[0, 2]])
        need(np.all(self.col_count[t] == 3) and self.col_count[q] == n + 1, "an auxiliary has another use")
        compared = self.row_of[part[:, 0]]
        places = np.searchsorted(self.cols, t)[:, None] + np.arange(3)
        rows = self.row_of[places]
        role = np.where(rows == compared[:, None], 0, np.where(self.row_count[rows] == 1, 1, 2))
        order = np.argsort(role, axis=1, kind="stable")
        need(np.all(np.take_along_axis(role, order, axis=1) == [0, 1, 2]), "an auxiliary has no bound, or no sum")
        places = np.take_along_axis(places, order, axis=1)
        sign_rows, head = self.row_of[places[:, 1]], int(self.row_of[places[0, 2]])
        need(np.all(self.row_of[places[:, 2]] == head) and self.row_count[head] == n + 1, "no sum of all auxiliaries")
        delta, eta = self._same(places[:, 1]), self._same(places[:, 2])
        mine = self._places(q)
        (at,) = mine[self.row_of[mine] == head] if np.any(self.row_of[mine] == head) else (-1,)
        need(at >= 0 and self.inequality[head] and self.inequality[sign_rows].all(), "no inequality")
        need(not self.b_varies[sign_rows].any() and not self.b[1][sign_rows].any(), "a bound on t is no sign")
        kappa, beta, gamma, delta = float(self.A[at]), -beta, -gamma, -delta
        need(beta > 0 and delta > 0 and eta > 0 and kappa * gamma > 0, "an auxiliary has the wrong sign")
        whole = kappa * beta / (gamma * eta)
        k = round(whole)
        need(abs(whole - k) <= SAME * whole and 1 <= k < n, "no sum of a whole number of entries")
        place = k if alpha > 0 else n - k, alpha, head, beta / eta, compared
        return SumTop(*place, q, t, sign_rows, beta, gamma, delta, eta, kappa)

    def _max_top(self, part: Indices) -> Top:
        """A maximum from its comparisons, places (n, 2) in A of z and q."""
        alpha, gamma = self._same(part[:, 0]), -self._same(part[:, 1])
        q, compared = int(self.cols[part[0, 1]]), self.row_of[part[:, 0]]
        mine = self._places(q)
        rest = mine[~np.isin(self.row_of[mine], compared)]
        need(len(rest) == 1 and self.row_count[self.row_of[rest[0]]] == 1, "a maximum has another use")
        head, kappa = int(self.row_of[rest[0]]), float(self.A[rest[0]])
        need(self.inequality[head] and gamma * kappa > 0, "a maximum is bounded below")
        return MaxTop(1 if alpha > 0 else self.K - 1, alpha, head, gamma / kappa, compared, q, gamma, kappa)

    def _bounds(self) -> list[Top]:
        """Bounds on single entries: one top of all of them if they are the same, or each for itself."""
        of_z = self.entry[self.cols] >= 0
        at = np.flatnonzero(of_z & self.inequality[self.row_of] & (self.row_count[self.row_of] == 1))
        need(not np.any(self.A[at] == 0.0), "no bound")
        out: list[Top] = []
        for size, chosen in ((1, at[self.A[at] > 0]), (self.K - 1, at[self.A[at] < 0])):
            alike: dict[Any, dict[int, int]] = {}
            for place in chosen:
                # Rows with one bound, one for each entry; what is there twice stands for itself.
                key, entry = self._function(place), int(self.entry[self.cols[place]])
                key = key if entry not in alike.get(key, {}) else (key, len(alike))
                alike.setdefault(key, {})[entry] = place
            for members in alike.values():
                places = np.array([members[entry] for entry in sorted(members)])
                for part in [places] if len(places) == self.K else places[:, None]:
                    rows, entry = self.row_of[part], self.entry[self.cols[part]]
                    out.append(Bounds(size, float(self.A[part[0]]), int(rows[0]), 1.0, rows, entry))
        return out

    def _function(self, place: int) -> tuple[Any, ...]:
        """A row's coefficient at a place of A, and its b as a function of θ."""
        (matrix, constant), row = self.b, self.row_of[place]
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        return float(self.A[place]), float(constant[row]), *matrix.indices[part], *matrix.data[part]

    def _chosen(self, found: list[Top], sum_row: int, sum_gain: float) -> tuple[list[Top], list[Top]]:
        """For each k one top, those with auxiliaries first, then those that move, then the tightest; and the others."""
        n = self.K
        best: dict[int, Top] = {}
        idle: list[Top] = []

        def rank(top: Top) -> tuple[bool, bool, float]:
            terms = self._bound_terms(top, sum_row, sum_gain)
            bound = sum(float(self.b[1][row]) * weight for row, weight in terms)
            return isinstance(top, Bounds), not self.b_varies[top.head], bound

        for top in sorted(found, key=rank):
            if len(top.compared) == n and 1 <= top.size < n and top.size not in best:
                best[top.size] = top
            else:
                idle.append(top)
        need(len(best) == n - 1, "the k largest entries are not bounded for every k")
        return [best[k] for k in range(1, n)], idle

    def _values(self, tops: list[Top], sum_row: int, sum_gain: float) -> None:
        """w_k = W_k − W_{k−1}, W_k the bound on the k largest entries."""
        n = self.K
        for k in range(1, n + 1):
            terms = self._bound_terms(tops[k - 1], sum_row, sum_gain) if k < n else [(sum_row, 1.0 / sum_gain)]
            self._add_terms("values", k - 1, terms)
            if k < n:
                self._add_terms("values", k, [(row, -weight) for row, weight in terms])

    def _check(self, pieces: dict[str, Affine]) -> None:
        """Refuse what is out of the form's range whatever the parameters are."""
        values, gap = pieces["values"], pieces.get("gap", Affine.fixed(np.zeros(0)))
        steps = values.constant[:-1] - values.constant[1:]
        size = np.abs(np.cumsum(values.constant)).max()
        need(values.varies or bool((steps >= -ROUNDING * size).all()), "sums of the largest that are not concave")
        need(values.varies or not self.curved or bool((values.constant > 0).all()), "entropies at values of zero")
        need(bool((gap.constant[gap.counts == 0] >= -ROUNDING * size).all()), "a further bound that holds")

    def _gaps(self, idle: list[Top], tops: list[Top], sum_row: int, sum_gain: float) -> None:
        """By how much idle bounds exceed W at their size; W_0 = 0."""
        for j, top in enumerate(idle):
            terms = self._bound_terms(top, sum_row, sum_gain)
            if top.size == self.K:
                terms.append((sum_row, -1.0 / sum_gain))
            elif top.size > 0:
                main = self._bound_terms(tops[top.size - 1], sum_row, sum_gain)
                terms += [(row, -weight) for row, weight in main]
            self._add_terms("gap", j, terms)

    def _bound_terms(self, top: Top, sum_row: int, sum_gain: float) -> list[tuple[int, float]]:
        """The bound on the k largest as a combination of rows of b."""
        terms = [(top.head, top.scale / abs(top.alpha))]
        return terms if top.alpha > 0 else [*terms, (sum_row, 1.0 / sum_gain)]

    def _add_terms(self, name: str, place: int, terms: list[tuple[int, float]]) -> None:
        rows, weights = (np.array(part) for part in zip(*terms, strict=True))
        self.add(name, np.full(len(rows), place), self.offset_b + rows, weights)
