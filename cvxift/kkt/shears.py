"""Exponential cones in other units: their third row may have one of its own.

    y exp(x/y) ≤ z    is    y exp(x̂/y) ≤ ẑ    for    x̂ = x − y ln λ,   ẑ = z/λ

so that the cone keeps under this shear, and its dual under the transposed inverse: ŷ_y = y_y + y_x ln λ, ŷ_z = λ y_z. A
logarithm of a budget of a million has z = 10⁶ and y_z = 10⁻⁶ beside entries near one, which no v = s − y can tell. Only
cones whose second row is a constant are sheared: the first row of A stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxift.kkt.backend import Array, Arrays
from cvxift.program.structure import Floats, Structure


def sheared(structure: Structure) -> np.ndarray:
    """First rows of the exponential cones that may be sheared, shape (k,)."""
    first = np.array([block.start for block in structure.cones.blocks() if block.kind == "exp"], dtype=np.int64)
    used = np.bincount(structure.A_rows, minlength=structure.m) > 0
    return first[~used[first + 1]]


@dataclass(frozen=True, eq=False)
class Shears:
    """The shears of a program, or of each program of a batch, after its rows are in their units.

    Attributes:
        xp: the namespace of the arrays.
        second_of: for each row the second row of its cone if it is a first one, else any, shape (m,).
        first_of: for each row the first row of its cone if it is a second one, else any, shape (m,).
        of_first: ln λ in first rows, 0 elsewhere, shape (..., m).
        of_second: ln λ in second rows, 0 elsewhere, shape (..., m).
    """

    xp: Any
    second_of: Array
    first_of: Array
    of_first: Array
    of_second: Array

    @classmethod
    def between(cls, first: np.ndarray, rows: Floats) -> Shears | None:
        """Those of cones with these first rows, shape (k,), that units of rows, shape (..., m), ask for, if any."""
        logarithms = np.log(rows[..., first] / rows[..., first + 2])
        if not logarithms.any():
            return None
        second_of, first_of = np.arange(rows.shape[-1]), np.arange(rows.shape[-1])
        second_of[first], first_of[first + 1] = first + 1, first
        of_first, of_second = np.zeros_like(rows), np.zeros_like(rows)
        of_first[..., first] = of_second[..., first + 1] = logarithms
        return cls(np, second_of, first_of, of_first, of_second)

    def slacks(self, s: Array, sign: float = 1.0) -> Array:
        """Slacks, shape (..., m), sheared, or with sign −1 as they were."""
        moved = s - sign * self.of_first * self.xp.take(s, self.second_of, axis=-1)
        return self.xp.where(self.of_first != 0.0, moved, s)  # other rows may be infinite

    def multipliers(self, y: Array, sign: float = 1.0) -> Array:
        """Multipliers, shape (..., m), likewise."""
        moved = y + sign * self.of_second * self.xp.take(y, self.first_of, axis=-1)
        return self.xp.where(self.of_second != 0.0, moved, y)

    def put(self, place: Arrays) -> Shears:
        """The same on another place's arrays."""
        parts = self.second_of, self.first_of, self.of_first, self.of_second
        return Shears(place.xp, *(place.put(part) for part in parts))

    def __getitem__(self, index: int) -> Shears:
        """One instance of a batch."""
        return Shears(self.xp, self.second_of, self.first_of, self.of_first[index], self.of_second[index])
