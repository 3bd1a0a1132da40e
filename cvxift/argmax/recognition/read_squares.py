"""The squares of a canonical program's entries: P's diagonal, on entries or on auxiliaries that shift and scale them.

A zero row may define such an auxiliary e, which is then eliminated:

    A z_i + gain e = b,  P_ee = W:      ½W e² + q_e e = ½W S² z² + S (q_e + W t) z + …,   S = −A/gain,  t = b/gain
"""

from __future__ import annotations

import numpy as np

from cvxift.argmax.recognition.form import Squares
from cvxift.argmax.recognition.read_entropies import EntropyReader
from cvxift.argmax.recognition.reading import need


class SquareReader(EntropyReader):
    """Reads the quadratic terms of a program whose other auxiliaries have none."""

    def squares(self) -> Squares:
        """The auxiliaries; adds all squares to the inputs ``stiffness`` and ``score``.

        Raises:
            Unknown: P is not diagonal, or a square is of something else.
        """
        P = self.diagonal()
        need(not self.curved or (P < 0).all(), "quadratic and entropic terms are mixed")
        own = P[self.columns]
        inside = np.flatnonzero(own >= 0)
        if len(inside):
            self.add("stiffness", inside, own[inside], np.ones(len(inside)))
        columns = np.flatnonzero((self.entry < 0) & (P >= 0))
        need(np.all(self.col_count[columns] == 1), "an auxiliary is used twice, or never")
        carried = np.zeros(self.structure.n, dtype=bool)
        carried[columns] = True
        at = np.flatnonzero(carried[self.cols])
        rows, gain = self.row_of[at], self.A[at]
        columns = self.cols[at]
        need(np.all(rows < self.cones.zero) and len(np.unique(rows)) == len(rows), "auxiliaries share a row")
        need(np.all(self.row_count[rows] == 2), "an auxiliary mixes entries")
        if not len(rows):
            return Squares(rows, columns, gain)
        pairs = self.entries(rows, 2)
        other = np.where(pairs[:, 0] == at, pairs[:, 1], pairs[:, 0])
        entry = self.entry[self.cols[other]]
        need(np.all(entry >= 0), "an auxiliary depends on another")
        S, W = -self.A[other] / gain, P[columns]
        self.add("stiffness", entry, W, S * S)
        self.add("score", entry, self.offset_q + columns, -S)
        shifted = np.flatnonzero(self.b_varies[rows] | (self.b[1][rows] != 0.0))
        if len(shifted):
            need(not self.P_varies[W[shifted]].any(), "a parameter scales a shifted square")
            weight = -S[shifted] * self.P[1][W[shifted]] / gain[shifted]
            self.add("score", entry[shifted], self.offset_b + rows[shifted], weight)
        return Squares(rows, columns, gain)
