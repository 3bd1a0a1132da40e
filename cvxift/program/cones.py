"""The product cone K of a canonical program: which cones stand in which rows.

Rows come in the order zero, nonneg, soc…, psd…, exp…, pow…, and inside a cone

    zero      s = 0                                     one row each
    nonneg    s ≥ 0                                     one row each
    soc       (t, z) with ‖z‖ ≤ t                       `soc` lists the numbers of rows
    psd       svec(S) with S ≽ 0                        `psd` lists the orders n; n(n + 1)/2 rows each
    exp       (x, y, z) in cl{y exp(x/y) ≤ z, y > 0}    three rows each
    pow       (x, y, z) with x^α y^(1−α) ≥ |z|, x, y ≥ 0    `pow` lists the α; three rows each

svec is the upper triangle column by column, off-diagonal entries times √2: (0,0), (0,1), (1,1), (0,2), (1,2), (2,2), …

A *unit* is what has a margin and a distance of its own: each zero and nonnegative row, each other cone, in row order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from numbers import Integral
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxift._types import Floats, cached_property
from cvxift.errors import ProgramError

KINDS = ("zero", "nonneg", "soc", "psd", "exp", "pow")


class Block(NamedTuple):
    """Consecutive rows that belong together: all zero rows, all nonnegative rows, or one cone of another kind.

    Attributes:
        kind: one of ``"zero"``, ``"nonneg"``, ``"soc"``, ``"psd"``, ``"exp"``, ``"pow"``.
        start: first row.
        stop: one past the last row.
        param: the order of a PSD cone, the exponent α of a power cone, otherwise None.
    """

    kind: str
    start: int
    stop: int
    param: int | float | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """All cones of one kind and one dimension, which are computed together.

    Attributes:
        kind: as in `Block`.
        dim: rows of each cone (1 for zero and nonneg).
        count: number of cones.
        rows: their rows: a slice of count·dim rows where they are consecutive, else indices of shape (count, dim).
        param: the order of PSD cones; the exponents α of power cones, shape (count,); otherwise None.
    """

    kind: str
    dim: int
    count: int
    rows: slice | NDArray[np.intp]
    param: int | NDArray[np.float64] | None = None

    @property
    def index(self) -> NDArray[np.intp]:
        """Row of every entry, shape (count, dim)."""
        if isinstance(self.rows, slice):
            return np.arange(self.rows.start, self.rows.stop).reshape(self.count, self.dim)
        return self.rows


@dataclass(frozen=True)
class Cones:
    """The product cone K.

    Args:
        zero: number of zero rows.
        nonneg: number of nonnegative rows.
        soc: rows of each second-order cone, each ≥ 1.
        psd: order of each positive semidefinite cone, each ≥ 1.
        exp: number of exponential cones.
        pow: exponent α of each power cone, each in (0, 1).

    Attributes:
        m: number of rows.
        entropic: whether cones of entropies, logarithms or powers are among them.
        polyhedral: whether all rows are zero or nonnegative rows.

    Raises:
        ProgramError: if a size is negative or not an integer, or an exponent is outside (0, 1).

    Example:
        >>> cones = Cones(zero=1, nonneg=2, soc=(3,), pow=(0.5,))
        >>> cones.m, cones.polyhedral
        (9, False)
        >>> [tuple(block) for block in cones.blocks()][2:]
        [('soc', 3, 6, None), ('pow', 6, 9, 0.5)]
    """

    zero: int = 0
    nonneg: int = 0
    soc: tuple[int, ...] = ()
    psd: tuple[int, ...] = ()
    exp: int = 0
    pow: tuple[float, ...] = ()
    m: int = field(init=False, repr=False, compare=False)
    entropic: bool = field(init=False, repr=False, compare=False)
    polyhedral: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("zero", "nonneg", "exp"):
            object.__setattr__(self, name, _size(name, getattr(self, name), 0))
        for name in ("soc", "psd"):
            object.__setattr__(self, name, tuple(_size(name, value, 1) for value in getattr(self, name)))
        exponents = tuple(float(alpha) for alpha in self.pow)
        for position, alpha in enumerate(exponents):
            if not 0.0 < alpha < 1.0:
                raise ProgramError(f"Cones: pow[{position}] is {alpha}; expected an exponent strictly between 0 and 1.")
        object.__setattr__(self, "pow", exponents)
        triangles = sum(n * (n + 1) // 2 for n in self.psd)
        m = self.zero + self.nonneg + sum(self.soc) + triangles + 3 * (self.exp + len(exponents))
        object.__setattr__(self, "m", m)
        object.__setattr__(self, "entropic", bool(self.exp or exponents))
        object.__setattr__(self, "polyhedral", not (self.soc or self.psd or self.exp or exponents))

    def blocks(self) -> tuple[Block, ...]:
        """The blocks that have rows, in row order."""
        return self._blocks

    @cached_property
    def eigenvector_numbers(self) -> float:
        """Numbers in the eigenvector blocks that a factorization needs; large second-order cones are lifted instead."""
        return float(sum((order * (order + 1) // 2) ** 2 for order in self.psd))

    @cached_property
    def _blocks(self) -> tuple[Block, ...]:
        return tuple(self._walk())

    def _walk(self) -> Iterator[Block]:
        sizes: list[tuple[str, int, int | float | None]] = [("zero", self.zero, None), ("nonneg", self.nonneg, None)]
        sizes += [("soc", dim, None) for dim in self.soc]
        sizes += [("psd", n * (n + 1) // 2, n) for n in self.psd]
        sizes += [("exp", 3, None)] * self.exp
        sizes += [("pow", 3, alpha) for alpha in self.pow]
        start = 0
        for kind, rows, param in sizes:
            if rows:
                yield Block(kind, start, start + rows, param)
            start += rows

    def rows(self, kind: str) -> slice:
        """The rows of all cones of one kind.

        Returns:
            Slice of rows, empty if there are none.

        Raises:
            ProgramError: if the kind is unknown.
        """
        if kind not in KINDS:
            raise ProgramError(f"Unknown kind of cone {kind!r}; known kinds: {', '.join(KINDS)}.")
        return self._kind_rows[kind]

    @cached_property
    def _kind_rows(self) -> dict[str, slice]:
        lengths = {
            "zero": self.zero,
            "nonneg": self.nonneg,
            "soc": sum(self.soc),
            "psd": sum(n * (n + 1) // 2 for n in self.psd),
            "exp": 3 * self.exp,
            "pow": 3 * len(self.pow),
        }
        stops = np.cumsum(list(lengths.values())).tolist()
        return {kind: slice(stop - lengths[kind], stop) for kind, stop in zip(KINDS, stops, strict=True)}

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Equal cones gathered; in the order of their first rows."""
        parts = []
        for kind in KINDS:
            rows = self.rows(kind)
            if rows.start == rows.stop:
                continue
            if kind in ("zero", "nonneg"):
                parts.append(Part(kind, 1, rows.stop - rows.start, rows))
            elif kind in ("exp", "pow"):
                alpha = np.array(self.pow) if kind == "pow" else None
                parts.append(Part(kind, 3, (rows.stop - rows.start) // 3, rows, alpha))
            else:
                parts.extend(_gather(kind, self.soc if kind == "soc" else self.psd, rows.start))
        return tuple(parts)

    @cached_property
    def unit_starts(self) -> NDArray[np.intp]:
        """First row of each unit, shape (units,)."""
        linear = self.zero + self.nonneg
        cones = [block.start for block in self.blocks() if block.start >= linear]
        return np.concatenate([np.arange(linear), np.array(cones, dtype=np.intp)])

    @cached_property
    def unit_of_row(self) -> NDArray[np.intp]:
        """The unit that each row belongs to, shape (m,)."""
        return np.arange(self.units).repeat(np.diff(np.append(self.unit_starts, self.m)))

    @cached_property
    def unit_parts(self) -> tuple[slice | NDArray[np.intp], ...]:
        """Units of each part, in the order of `parts`."""
        found: list[slice | NDArray[np.intp]] = []
        for part in self.parts:
            units = np.searchsorted(self.unit_starts, part.index[:, 0])
            first, last = int(units[0]), int(units[-1])
            found.append(slice(first, last + 1) if last - first + 1 == part.count else units)
        return tuple(found)

    @cached_property
    def heads(self) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """Which rows are heads of second-order cones, shape (m,), and of their tails the head, −1 elsewhere, (m,)."""
        first, head = np.zeros(self.m, dtype=bool), np.full(self.m, -1)
        for part in self.parts:
            if part.kind == "soc":
                first[part.index[:, 0]], head[part.index[:, 1:]] = True, part.index[:, :1]
        return first, head

    @cached_property
    def inside(self) -> Floats:
        """A point inside the nonnegative rows and second-order cones; zero in other rows; shape (m,)."""
        point = self.heads[0].astype(float)
        point[self.rows("nonneg")] = 1.0
        return point

    @property
    def units(self) -> int:
        """Number of units."""
        return self.zero + self.nonneg + len(self.soc) + len(self.psd) + self.exp + len(self.pow)


def _gather(kind: str, sizes: tuple[int, ...], first: int) -> Iterator[Part]:
    """One part for each distinct size, by first appearance."""
    lengths = np.array([n * (n + 1) // 2 if kind == "psd" else n for n in sizes], dtype=np.intp)
    starts = first + np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.intp)
    for size in dict.fromkeys(sizes):
        chosen = np.flatnonzero(np.array(sizes) == size)
        dim, count = int(lengths[chosen[0]]), len(chosen)
        begin = int(starts[chosen[0]])
        rows: slice | NDArray[np.intp]
        if chosen[-1] - chosen[0] + 1 == count:
            rows = slice(begin, begin + count * dim)
        else:
            rows = starts[chosen][:, None] + np.arange(dim)
        yield Part(kind, dim, count, rows, size if kind == "psd" else None)


def _size(name: str, value: object, least: int) -> int:
    """The value as an int ≥ least."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ProgramError(f"Cones: {name} has the size {value!r}; expected an integer ≥ {least}.")
    return int(value)
