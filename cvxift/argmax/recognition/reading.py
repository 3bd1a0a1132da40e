"""Reading a canonical program part by part: its variables' columns, A by rows and columns, what depends on θ.

A reader claims columns and rows for the parts of a form, and refuses the program (`Unknown`) where one fits no part.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from cvxift.argmax.recognition.form import Affine, Indices, combine
from cvxift.program.program import Program
from cvxift.program.recover import Output
from cvxift.program.structure import Floats


class Unknown(Exception):
    """The program is not of the form; says where it departs."""


def need(fact: Any, what: str) -> None:
    """Go on if it is so.

    Raises:
        Unknown: it is not.
    """
    if not fact:
        raise Unknown(what)


class Reader:
    """A program whose A is constant, and whose variables are plain selections of columns.

    Args:
        program: the program.
        outputs: its variables; their entries are counted through, one variable after the other.

    Attributes:
        K: number of entries.
        columns: the column of each entry.
        entry: the entry of each column; −1 for auxiliary columns.
        cols: column of each entry of A that is not zero.
        row_of: its row.
        A: its value.
        row_count: how many of them each row has.
        col_count: how many each column has.
        P: the data P as (M, c), affine in θ.
        q: likewise.
        b: likewise.
    """

    def __init__(self, program: Program, outputs: list[Output]) -> None:
        structure = program.structure
        self.structure, self.cones = structure, structure.cones
        need(not program.A_varies.any(), "a coefficient of A depends on a parameter")
        parts = []
        for output in outputs:
            matrix = output.matrix
            size = len(matrix.indptr) - 1
            need(output.kind == "primal" and not output.exp, "a dual variable, or one after a transform")
            need(output.offset is None and matrix.nnz == size > 0, "a variable is no selection of columns")
            need(np.all(np.diff(matrix.indptr) == 1) and np.all(matrix.data == 1.0), "nor a plain one")
            parts.append(matrix.indices.astype(np.intp))
        self.columns = np.concatenate(parts)
        self.K = len(self.columns)
        self.entry = np.full(structure.n, -1)
        self.entry[self.columns] = np.arange(self.K)
        need(np.count_nonzero(self.entry >= 0) == self.K, "an entry is repeated")

        pieces = program.affine()
        A = pieces["A"][1]
        kept = np.flatnonzero(A)
        _, _, rows, cols = structure.places
        self.cols, self.A, self.row_of = cols[kept], A[kept], rows[kept]
        self.row_count = np.bincount(self.row_of, minlength=structure.m)
        self.col_count = np.bincount(self.cols, minlength=structure.n)

        self.P, self.q, self.b = (pieces[name] for name in ("P", "q", "b"))
        self.P_varies, self.b_varies = (np.diff(piece[0].indptr) > 0 for piece in (self.P, self.b))
        # Inputs are Σ weight · entry of (P, q, b): (place, entry, weight) by name of the input.
        self.offset_q, self.offset_b = structure.nnzP, structure.nnzP + structure.n
        self._parts: dict[str, list[tuple[Indices, Indices, Floats]]] = {}

    @cached_property
    def by_row(self) -> Indices:
        """Positions of A's entries that are not zero, row by row."""
        return np.argsort(self.row_of, kind="stable")

    @cached_property
    def row_start(self) -> Indices:
        """Where each row starts there."""
        return np.cumsum(self.row_count) - self.row_count

    def add(self, name: str, place: Indices, entry: Indices, weight: Floats) -> None:
        """Add multiples of entries of (P, q, b) to an input at some places."""
        self._parts.setdefault(name, []).append((place, entry, weight))

    def has(self, name: str) -> bool:
        """Whether anything was added to an input."""
        return name in self._parts

    def entries(self, rows: Indices, size: int) -> Indices:
        """Positions of A's entries in rows that have `size` each, shape (rows, size)."""
        return self.by_row[self.row_start[rows][:, None] + np.arange(size)]

    def diagonal(self) -> Indices:
        """Position in P of each column's diagonal entry, −1 where there is none.

        Raises:
            Unknown: P has others.
        """
        P_rows, P_cols = self.structure.places[:2]
        live = np.flatnonzero(self.P_varies | (self.P[1] != 0.0))
        need(np.all(P_rows[live] == P_cols[live]), "P is not diagonal")
        out = np.full(self.structure.n, -1)
        out[P_cols[live]] = live
        return out

    def inputs(self, sizes: dict[str, int]) -> dict[str, Affine]:
        """Every input that was added to, as rows affine in θ, in one product; K rows unless `sizes` says otherwise."""
        start, ends, summands = 0, {}, []
        for name, parts in self._parts.items():
            ends[name] = start, start + sizes.get(name, self.K)
            summands += [(place + start, entry, weight) for place, entry, weight in parts]
            start = ends[name][1]
        place, entry, weight = (np.concatenate(piece) for piece in zip(*summands, strict=True))
        rows = combine((self.P, self.q, self.b), place, entry, weight, start)
        return {name: rows.block(*where) for name, where in ends.items()}
