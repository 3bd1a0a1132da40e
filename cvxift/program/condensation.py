"""The program that is solved: without the columns that are fixed, nor those that only express a quadratic.

`fixed` takes out the first, `elimination` the second. The program that is differentiated stays the original one; what
was taken out comes back in the solution and inside the KKT solve.
"""

from __future__ import annotations

import numpy as np

from cvxift.program.elimination import AuxiliaryColumns
from cvxift.program.fixed import FixedColumns
from cvxift.program.structure import Data, Floats, Structure
from cvxift.program.substitution import Parts, Split, Way


class Condensation:
    """A program without the columns that can be substituted, and the way there and back.

    Args:
        structure: the original program's structure.
        constant: for each stored entry of A, whether its value is the same for every θ, shape (nnzA,).
        A: values of A's stored entries; only the constant ones are read, shape (nnzA,).

    Attributes:
        structure: the condensed program's structure (the original one if nothing can be substituted).
        fixed: the fixed columns; None if there are none.
        auxiliary: the auxiliary columns of the program without those.
        parts: what is kept and what is substituted; None if nothing is.
        felt: the same, but for the fixed columns that kept rows have entries in, which count as kept, last.
        batches: whether `condense` takes batches.
    """

    def __init__(self, structure: Structure, constant: np.ndarray, A: Floats) -> None:
        constant = np.asarray(constant, dtype=bool)
        fixed = self.fixed = FixedColumns.of(structure, constant, A)
        if fixed is None:
            self.auxiliary = AuxiliaryColumns(structure, constant, A)
            self.parts = self.auxiliary.parts
        else:
            self.auxiliary = AuxiliaryColumns(fixed.structure, constant[fixed.A_at], np.asarray(A)[fixed.A_at])
            self.parts = _both(fixed.parts, self.auxiliary.parts)
        self.felt = self.parts
        if self.parts is not None and fixed is not None and len(fixed.blocks["C"].at):
            kept, other = self.parts.columns.indices
            held = fixed.parts.columns.indices[1]
            columns = Split(np.concatenate([kept, held]), np.setdiff1d(other, held))
            self.felt = Parts(columns, self.parts.rows, self.parts.inverse_a)
        self.structure = self.auxiliary.structure
        self.batches = self.auxiliary.batches and (fixed is None or fixed.batches)

    def condense(self, data: Data) -> tuple[Data, Way | None]:
        """The condensed program's data and the way back.

        Args:
            data: the original program's data; leading batch dimensions only if `batches`.

        Returns:
            Data on `self.structure`, but for the constant that substitution adds to `d`; and the way back, None if
            nothing is substituted.
        """
        return self.auxiliary.condense(*((data, None) if self.fixed is None else self.fixed.condense(data)))

    def restrict(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """The condensed part of an original point: x (|X|,), y (|R|,)."""
        return (x, y) if self.parts is None else self.parts.restrict(x, y)

    def lift(self, rows: Floats) -> Floats:
        """Values on the kept rows as values on the original rows, zero on the substituted ones."""
        return rows if self.parts is None else self.parts.rows.lift(rows)


def _both(outer: Parts, inner: Parts | None) -> Parts:
    """What two substitutions, one after the other, keep; only to restrict and to lift."""
    if inner is None:
        return outer

    def joined(first: Split, second: Split) -> Split:
        kept, other = first.indices
        return Split(kept[second.indices[0]], np.concatenate([other, kept[second.indices[1]]]))

    whole = np.concatenate([outer.inverse_a, inner.inverse_a])
    return Parts(joined(outer.columns, inner.columns), joined(outer.rows, inner.rows), whole)
