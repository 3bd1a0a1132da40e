"""Maps that keep an exponential, power or second-order cone, and give its rows units of their own.

    y exp(x/y) ≤ z    is    y exp(x̂/y) ≤ ẑ    for    x̂ = x − y ln λ,   ẑ = z/λ
    x^α y^β ≥ |z|     is    x̂^α ŷ^β ≥ |ẑ|     for    x̂ = λ x,   ŷ = μ y,   ẑ = λ^α μ^β z
    2 u w ≥ ‖z‖²      is    2 û ŵ ≥ ‖z‖²      for    û = λ u,   ŵ = w/λ,      u, w = s₀ ± s₁

The dual cones keep under the transposed inverses. A logarithm of a budget of a million has z = 10⁶ and the multiplier
10⁻⁶ beside entries near one, its reciprocal u = 10⁶ and w = 10⁻⁶ in s₀ = u + w: no v = s − y can tell them. Only cones
are turned in which A keeps its pattern: the exponential ones whose second row is a constant, and the second-order ones
whose first two rows have the same columns, as squares, reciprocals and means have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from cvxift._types import EPS
from cvxift.kkt.backend import Array, Arrays
from cvxift.program.structure import Cones, Floats, Structure

KNOWN = 1e-10  # relative accuracy of v = s − y under which a power cone asks for units of its own


def sheared(structure: Structure) -> np.ndarray:
    """First rows of the exponential cones that may be sheared, shape (k,)."""
    first = np.array([block.start for block in structure.cones.blocks() if block.kind == "exp"], dtype=np.int64)
    used = np.bincount(structure.A_rows, minlength=structure.m) > 0
    return first[~used[first + 1]]


@dataclass(frozen=True, eq=False)
class PowerRows:
    """The rows of power cones, whose units are free but for the third's.

    Attributes:
        first: their first rows, shape (k,).
        alpha: their exponents α, shape (k,).
    """

    first: np.ndarray
    alpha: Floats

    @classmethod
    def of(cls, cones: Cones) -> PowerRows:
        """Those of a product of cones."""
        return cls(cones.m - 3 * np.arange(len(cones.pow), 0, -1), np.array(cones.pow))

    @property
    def least(self) -> float:
        """The least entry ε that leaves v = s − y a relative accuracy of `KNOWN`, EPS/ε^(1 + 1/(1−a))."""
        steepest = float(np.maximum(self.alpha, 1.0 - self.alpha).max())
        return (EPS / KNOWN) ** (1.0 / (1.0 + 1.0 / (1.0 - steepest)))

    def third(self, units: Floats) -> Floats:
        """Units of rows, shape (..., m), the third's such as the first's and second's ask for."""
        out, first = units.copy(), self.first
        out[..., first + 2] = units[..., first] ** self.alpha * units[..., first + 1] ** (1.0 - self.alpha)
        return out

    def coupled(self, logarithms: Floats) -> Floats:
        """The nearest logarithms of units that keep the cones, shape (..., m)."""
        out, first = logarithms.copy(), self.first
        weights = self.alpha, 1.0 - self.alpha, -np.ones_like(self.alpha)
        rows = [logarithms[..., first + i] for i in range(3)]
        off = sum(w * row for w, row in zip(weights, rows, strict=True)) / sum(w * w for w in weights)
        for i, w in enumerate(weights):
            out[..., first + i] = rows[i] - w * off
        return out


@dataclass(frozen=True, eq=False)
class Boosted:
    """The second-order cones that may be boosted.

    Attributes:
        first: their first rows, shape (k,).
        sizes: their rows, shape (k,).
        rest: their rows but the first two.
        owner: of each of those, the number of its cone.
        entries: positions of A's entries in first rows.
        partners: positions of those in the same columns of second rows.
        counts: of the entries of each cone's first row, shape (k,).
    """

    first: np.ndarray
    sizes: np.ndarray
    rest: np.ndarray
    owner: np.ndarray
    entries: np.ndarray
    partners: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, structure: Structure) -> Boosted | None:
        """Those of a structure; None if there are none."""
        rows, columns = structure.places[2:]
        order = np.lexsort((columns, rows))
        starts = np.searchsorted(rows[order], np.arange(structure.m + 1))
        found: list[tuple[int, int]] = []
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        for block in structure.cones.blocks():
            if block.kind == "soc" and block.stop - block.start > 2:
                one, two = (order[starts[row] : starts[row + 1]] for row in (block.start, block.start + 1))
                if len(one) and np.array_equal(columns[one], columns[two]):
                    found.append((block.start, block.stop - block.start))
                    pairs.append((one, two))
        if not found:
            return None
        first, sizes = np.array(found).T
        owner = np.repeat(np.arange(len(first)), sizes - 2)
        rest = np.concatenate([np.arange(row + 2, row + size) for row, size in found])
        entries, partners = (np.concatenate(part) for part in zip(*pairs, strict=True))
        return cls(first, sizes, rest, owner, entries, partners, np.array([len(one) for one, _ in pairs]))

    def rotated(self, A: Floats, b: Floats) -> tuple[Floats, Floats]:
        """A's entries, shape (..., nnzA), and b, shape (..., m), with u and w in place of s₀ and s₁."""
        A, b, first = A.copy(), b.copy(), self.first
        for values, one, two in ((A, self.entries, self.partners), (b, first, first + 1)):
            u, w = values[..., one] + values[..., two], values[..., one] - values[..., two]
            values[..., one], values[..., two] = u, w
        return A, b

    def coupled(self, logarithms: Floats) -> Floats:
        """The nearest logarithms of units that a boost has, (..., m): those of z the mean of those of u and w."""
        out, first, k = logarithms.copy(), self.first, self.sizes - 2
        u, w, z = (logarithms[..., first + i] for i in range(3))
        both, apart = (u + w + k * z) / (1.0 + k / 2.0), u - w
        out[..., first], out[..., first + 1] = (both + apart) / 2.0, (both - apart) / 2.0
        out[..., self.rest] = (both / 2.0)[..., self.owner]
        return out


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
    def between(cls, first: np.ndarray, rows: Floats) -> Shears:
        """Those of cones with these first rows, shape (k,), that units of rows, shape (..., m), ask for."""
        second_of, first_of = np.arange(rows.shape[-1]), np.arange(rows.shape[-1])
        second_of[first], first_of[first + 1] = first + 1, first
        of_first, of_second = np.zeros_like(rows), np.zeros_like(rows)
        of_first[..., first] = of_second[..., first + 1] = np.log(rows[..., first] / rows[..., first + 2])
        return cls(np, second_of, first_of, of_first, of_second)

    def slacks(self, s: Array, sign: float = 1.0) -> Array:
        """Slacks, shape (..., m), sheared, or with sign −1 as they were."""
        moved = s - sign * self.of_first * self.xp.take(s, self.second_of, axis=-1)
        return self.xp.where(self.of_first != 0.0, moved, s)  # other rows may be infinite

    def multipliers(self, y: Array, sign: float = 1.0) -> Array:
        """Multipliers, shape (..., m), likewise."""
        moved = y + sign * self.of_second * self.xp.take(y, self.first_of, axis=-1)
        return self.xp.where(self.of_second != 0.0, moved, y)

    def entries(self, A: Floats) -> Floats:
        """A's entries, shape (..., nnzA): second rows have none."""
        return A

    def dense(self, A: Array) -> Array:
        """A, shape (B, m, n), likewise."""
        return A

    def put(self, place: Arrays) -> Shears:
        """The same on another place's arrays."""
        parts = self.second_of, self.first_of, self.of_first, self.of_second
        return Shears(place.xp, *(place.put(part) for part in parts))

    def __getitem__(self, index: int) -> Shears:
        """One instance of a batch."""
        return Shears(self.xp, self.second_of, self.first_of, self.of_first[index], self.of_second[index])


@dataclass(frozen=True, eq=False)
class Boosts:
    """The boosts of a program, or of each program of a batch, after its rows are in their units.

    Attributes:
        xp: the namespace of the arrays.
        cones: the cones.
        partner: for the first two rows of each cone the other one, for others themselves, shape (m,).
        factor: λ in those rows, 1 elsewhere, shape (..., m).
    """

    xp: Any
    cones: Boosted
    partner: Array
    factor: Array

    @classmethod
    def of(cls, cones: Boosted, factors: Floats, m: int) -> Boosts:
        """Those with λ of shape (..., k)."""
        partner, factor = np.arange(m), np.ones((*factors.shape[:-1], m))
        partner[cones.first], partner[cones.first + 1] = cones.first + 1, cones.first
        factor[..., cones.first] = factor[..., cones.first + 1] = factors
        return cls(np, cones, partner, factor)

    def _turned(self, values: Array, others: Array, factor: Array) -> Array:
        # (s₀, s₁) has u ± w, u = λ (s₀ + s₁)/2 and w = (s₀ − s₁)/2λ; nothing cancels that has not cancelled before.
        moved = (factor * (values + others) + (values - others) / factor) / 2.0
        return self.xp.where(factor != 1.0, moved, values)  # other rows may be infinite

    def slacks(self, s: Array, sign: float = 1.0) -> Array:
        """Slacks, shape (..., m), boosted, or with sign −1 as they were."""
        return self._turned(s, self.xp.take(s, self.partner, axis=-1), self.factor**sign)

    def multipliers(self, y: Array, sign: float = 1.0) -> Array:
        """Multipliers, shape (..., m), likewise."""
        return self.slacks(y, -sign)

    def entries(self, A: Floats) -> Floats:
        """A's entries, shape (..., nnzA), boosted."""
        one, two = self.cones.entries, self.cones.partners
        out, factor = A.copy(), self.factor[..., self.cones.first]
        each = factor[..., np.repeat(np.arange(len(self.cones.first)), self.cones.counts)]
        out[..., one] = self._turned(A[..., one], A[..., two], each)
        out[..., two] = self._turned(A[..., two], A[..., one], each)
        return out

    def dense(self, A: Array) -> Array:
        """A, shape (B, m, n), likewise."""
        return self._turned(A, self.xp.take(A, self.partner, axis=-2), self.factor[..., None])

    def put(self, place: Arrays) -> Boosts:
        """The same on another place's arrays."""
        return Boosts(place.xp, self.cones, place.put(self.partner), place.put(self.factor))

    def __getitem__(self, index: int) -> Boosts:
        """One instance of a batch."""
        return Boosts(self.xp, self.cones, self.partner, self.factor[index])


Turn: TypeAlias = Shears | Boosts
