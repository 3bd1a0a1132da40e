"""Whether a canonical program is a separable allocation (see `separable`), whatever CVXPY expressions it came from.

The program's rows and columns are read, each of them: one that fits no part of the form below makes the answer no.

    minimize  ½ Σ c_i z_i² + qᵀz  +  Σ w t + quadratic auxiliaries      over the one variable z and auxiliaries
    zero rows       a Σ_{i∈group} z_i = k                    disjoint groups of one size that cover z, or none
                    e_j = S_j z_i + t_j(θ), P_ee diagonal    eliminated: c_i += S² W,  q_i += S (q_e + W t)
    nonneg rows     g z_i ≤ b                                bounds
    exp, pow, SOC   entropies, see `read_entropies`

Every input of the allocation (scores, curvature c, sums k, bounds, a prior) is then a constant combination of the
program's own data P, q, b, hence affine in θ; the coefficients of A must be constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvxift.argmax.recognition.form import SAME, Affine, Form, Indices, Layout, Omega
from cvxift.argmax.recognition.kinds import Box, Budget, Entmax, Sigmoid, Softmax
from cvxift.argmax.recognition.read_squares import SquareReader
from cvxift.argmax.recognition.reading import need
from cvxift.argmax.recognition.separable import Kind
from cvxift.program.program import Program
from cvxift.program.recover import Output
from cvxift.program.structure import Floats


@dataclass
class Bound:
    """One side: the row and coefficient size of each entry, and the bounds; None where there are none."""

    rows: Indices
    gain: Floats
    value: Affine | None = None

    def drop(self) -> None:
        """Forget bounds that never matter."""
        self.rows[:] = -1
        self.value = None


class SeparableReader(SquareReader):
    """Reads a program of one variable.

    Args:
        program: the program.
        outputs: its one variable.

    Example:
        >>> import cvxpy as cp
        >>> z, theta = cp.Variable(3), cp.Parameter(3)
        >>> program = Program(cp.Problem(cp.Maximize(theta @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1]))
        >>> SeparableReader(program, [program.output(z)]).form().name
        'softmax'
    """

    def __init__(self, program: Program, outputs: list[Output]) -> None:
        need(len(outputs) == 1, "several variables")
        super().__init__(program, outputs)
        self.add("score", np.arange(self.K), self.offset_q + self.columns, np.full(self.K, -1.0))

    def form(self) -> Form:
        """The form.

        Raises:
            Unknown: where the program departs from it.
        """
        squares = self.squares()
        groups, sum_rows, sum_gain = self._sums(squares.rows)
        kind, epigraphs = self.entropies(sum_rows is not None)
        need(self.K + len(squares.columns) + epigraphs.count == self.structure.n, "a column has no part")
        need(self.has("stiffness"), "the objective is linear")
        low, high = self.bounds(epigraphs.omega)
        inputs = self.inputs({"total": len(groups)})

        stiffness = inputs["stiffness"]
        self.check_stiffness(stiffness, groups)
        if "second" in inputs:
            need(_alike(stiffness, inputs["second"]), "the two entropies differ")
        for bound, name in ((low, "lower"), (high, "upper")):
            bound.value = inputs.get(name, bound.value)
        total = inputs.get("total")
        self._settle(kind, total, low, high, groups)
        rows = low.rows, high.rows
        layout = Layout(self.columns, groups, sum_rows, sum_gain, *rows, squares, epigraphs)
        lower = None if isinstance(kind, Entmax) else low.value
        name = _name(kind, total, lower, high.value)
        gains = low.gain, high.gain
        prior = inputs.get("prior")
        return Form(kind, name, inputs["score"], stiffness, total, lower, high.value, *gains, layout, prior)

    @staticmethod
    def check_stiffness(stiffness: Affine, groups: Indices) -> None:
        """Refuse unless every group has one curvature, which is positive where it is a number."""
        firsts = np.repeat(groups[:, 0], groups.shape[1] - 1)
        need(stiffness.equals(np.stack([firsts, groups[:, 1:].ravel()], axis=1)), "the entries' curvatures differ")
        need(stiffness.varies or bool((stiffness.constant > 0).all()), "the objective has no curvature")

    def _sums(self, aux_rows: Indices) -> tuple[Indices, Indices | None, Floats]:
        """Groups of entries with a sum each, (G, n), their rows and coefficients."""
        own = np.ones(self.cones.zero, dtype=bool)
        own[aux_rows] = False
        rows = np.flatnonzero(own)
        if not len(rows):
            return np.arange(self.K)[:, None], None, np.zeros(0)
        size = int(self.row_count[rows[0]])
        need(size > 0 and np.all(self.row_count[rows] == size), "the sums have different lengths")
        at = self.entries(rows, size)
        groups, gain = np.sort(self.entry[self.cols[at]], axis=1), self.A[at]
        need(groups.min() >= 0 and groups.size == self.K, "the sums do not cover the variable once")
        seen = np.zeros(self.K, dtype=bool)
        seen[groups.ravel()] = True
        need(seen.all(), "the sums overlap")
        need(np.all(gain == gain[:, :1]), "a sum is weighted")
        self.add("total", np.arange(len(rows)), self.offset_b + rows, 1.0 / gain[:, 0])
        return groups, rows, gain[:, 0]

    def bounds(self, omega: Omega | None) -> tuple[Bound, Bound]:
        """Lower and upper bounds from the nonneg rows, but for that of ω."""
        rows = np.arange(self.cones.zero, self.cones.zero + self.cones.nonneg)
        rows = rows if omega is None else rows[rows != omega.row]
        need(np.all(self.row_count[rows] == 1), "an inequality mixes entries")
        at = self.by_row[self.row_start[rows]]
        entry, gain = self.entry[self.cols[at]], self.A[at]
        need(np.all(entry >= 0), "an inequality is not of the variable")
        down, up = gain < 0, gain > 0
        return (
            self._bound("lower", rows[down], entry[down], gain[down], 1.0),
            self._bound("upper", rows[up], entry[up], gain[up], -1.0),
        )

    def _bound(self, name: str, rows: Indices, entry: Indices, gain: Floats, sign: float) -> Bound:
        """One side; `sign` times a bound is larger where it is tighter."""
        out = Bound(np.full(self.K, -1), np.ones(self.K))
        if not len(rows):
            return out
        if self.b_varies[rows].any():
            need(len(rows) == self.K == len(np.unique(entry)), "parameters bound some entries only, or twice")
            self.add(name, entry, self.offset_b + rows, 1.0 / gain)
        else:
            value = self.b[1][rows] / gain
            order = np.lexsort((sign * value, entry))  # the tightest of an entry's bounds comes last, and stays
            rows, entry, gain = rows[order], entry[order], gain[order]
            values = np.full(self.K, -sign * np.inf)
            values[entry] = value[order]
            out.value = Affine.fixed(values)
        out.rows[entry], out.gain[entry] = rows, np.abs(gain)
        return out

    def _settle(self, kind: Kind, total: Affine | None, low: Bound, high: Bound, groups: Indices) -> None:
        """Drop bounds that never matter; refuse those that the kind cannot have."""
        k = np.full(self.K, np.nan)
        if total is not None:
            k[groups] = np.where(total.counts > 0, np.nan, total.constant)[:, None]
        fixed_low = None if low.value is None or low.value.varies else low.value.constant
        if isinstance(kind, Softmax | Sigmoid) and low.value is not None:
            need(fixed_low is not None and bool((fixed_low <= 0).all()), "an entropy with lower bounds")
            low.drop()
        if isinstance(kind, Entmax):
            need(self.positive or (fixed_low is not None and not fixed_low.any()), "powers without z ≥ 0")
            need(fixed_low is None or not (fixed_low > 0).any(), "powers with lower bounds")
            need(low.value is None or fixed_low is not None, "powers with lower bounds that are parameters")
        if high.value is not None and not high.value.varies:
            implied = np.ones(self.K) if isinstance(kind, Sigmoid) else k
            if isinstance(kind, Budget):
                implied = np.full(self.K, np.nan)  # compares false
                if fixed_low is not None and np.isfinite(fixed_low).all():
                    members = fixed_low[groups]
                    implied[groups] = k[groups] - members.sum(axis=1, keepdims=True) + members
            if bool((high.value.constant >= implied).all()):
                high.drop()
        if isinstance(kind, Sigmoid | Entmax):
            need(high.value is None, "upper bounds beside an entropy")
        elif isinstance(kind, Box):
            need(low.value is not None or high.value is not None, "nothing to recognize")
        elif isinstance(kind, Budget):
            sides = [bound.value is not None and bool(np.isfinite(bound.value.constant).all()) for bound in (low, high)]
            need(any(sides), "unbounded entries under a sum")


def _alike(left: Affine, right: Affine) -> bool:
    """Whether two blocks of rows are the same function of θ."""
    return (
        np.array_equal(left.indptr, right.indptr)
        and np.array_equal(left.indices, right.indices)
        and np.allclose(left.data, right.data, rtol=SAME, atol=0.0)
        and np.allclose(left.constant, right.constant, rtol=SAME, atol=0.0)
    )


def _name(kind: Kind, total: Affine | None, lower: Affine | None, upper: Affine | None) -> str:
    if isinstance(kind, Softmax):
        return "softmax" if upper is None else "constrained softmax"
    if isinstance(kind, Budget) and not isinstance(kind, Box):
        unit = total is not None and not total.varies and bool((total.constant == 1.0).all())
        if unit and lower is not None and not lower.varies and not lower.constant.any():
            return "sparsemax" if upper is None else "constrained sparsemax"
    return kind.name
