"""The product cone on arrays of any namespace and device: the cones' own formulas where those arrays live.

Second-order and semidefinite cones are closed forms and a decomposition that the array API standard has. The rays of
exponential and power cones are roots, found by iterations that look at values: those cones' rows are copied to the
host, and their spectra back, one copy each way for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import array_api_compat
import numpy as np

from cvxift._types import Array, cached_property
from cvxift.cones.base import Cone, Group
from cvxift.cones.curve_group import CurveGroup, bent
from cvxift.cones.nonneg import Nonneg
from cvxift.cones.product import CONES, spectrum
from cvxift.cones.psd import Semidefinite
from cvxift.cones.soc import SecondOrder
from cvxift.cones.spectrum import Spectrum
from cvxift.cones.zero import Zero
from cvxift.program.cones import Cones, Part

ON_HOST = ("exp", "pow")  # kinds of cones whose spectra are computed on the host


class LinearSpectrum:
    """The spectrum of a product of half lines and points: D is diagonal, 0 or 1.

    Args:
        placed: the cone.
        v: points, shape (..., m).

    Attributes:
        s: Π_K(v), shape (..., m).
        d: eigenvalues, same shape.
        complement: 1 − d.
    """

    def __init__(self, placed: PlacedCones, v: Array) -> None:
        self._placed, self._v = placed, v
        self.s = placed.half * (v + placed.xp.abs(v))  # exact: v + |v| is 2v or 0

    @cached_property
    def kept(self) -> Array:
        """Directions with d < 1, shape (..., m): v = 0, the kink, counts as slack."""
        return (self._v < 0.0) | self._placed.equality

    @cached_property
    def complement(self) -> Array:
        """1 − d, shape (..., m)."""
        return self._placed.xp.astype(self.kept, self._placed.xp.float64)

    @cached_property
    def d(self) -> Array:
        """Eigenvalues, shape (..., m)."""
        return 1.0 - self.complement

    def rotate(self, w: Array) -> Array:
        """Product Qᵀw = w."""
        return w

    def rotate_rows(self, A: Array) -> Array:
        """Product QᵀA = A."""
        return A

    def restore(self, w: Array) -> Array:
        """Product Qw = w."""
        return w


class PlacedCones:
    """The product cone on arrays of one place.

    Args:
        cones: the product cone.
        xp: a namespace of the array API standard.
        put: makes arrays of the place from NumPy's.
        host: makes NumPy's arrays from the place's; None where they are NumPy's own.

    Example:
        >>> there = PlacedCones(Cones(nonneg=1, soc=(3,)), np, np.asarray, np.asarray)
        >>> there.spectrum(np.array([[-1.0, 0.0, 3.0, 4.0]])).s
        array([[0. , 2.5, 1.5, 2. ]])
    """

    def __init__(
        self,
        cones: Cones,
        xp: Any,
        put: Callable[[np.ndarray], Array],
        host: Callable[[Array], np.ndarray] | None = None,
    ) -> None:
        self.cones, self.xp, self.put, self.host = cones, xp, put, host
        self._kinds: dict[str, Cone] = {
            "zero": Zero(xp),
            "nonneg": Nonneg(xp),
            "soc": SecondOrder(xp),
            "psd": Semidefinite(xp, put),
        }

    def __reduce__(self) -> Any:
        if self.host is None:  # a namespace is not pickled
            return on_host, (self.cones,)
        return super().__reduce__()

    @cached_property
    def half(self) -> Array:
        """½ in the nonnegative rows, 0 in the zero rows, shape (m,); of a cone without others."""
        return self.put(np.where(np.arange(self.cones.m) >= self.cones.zero, 0.5, 0.0))

    @cached_property
    def equality(self) -> Array:
        """The zero rows, shape (m,)."""
        return self.half == 0.0

    @cached_property
    def curved(self) -> Array:
        """1 in the rows of cones other than zero and nonneg, 0 in those, shape (m,)."""
        return self.put(np.where(np.arange(self.cones.m) >= self.cones.zero + self.cones.nonneg, 1.0, 0.0))

    @cached_property
    def _rows(self) -> list[Any]:
        """Each part's rows: a slice, or an index array of the place."""
        return [part.rows if isinstance(part.rows, slice) else self.put(part.rows.ravel()) for part in self.cones.parts]

    @cached_property
    def _order(self) -> Array | None:
        """Where each row stands among the parts' rows, one part after the other; None if they are in order."""
        index = np.concatenate([np.zeros(0, dtype=np.intp), *(part.index.ravel() for part in self.cones.parts)])
        order = np.argsort(index)
        return None if np.array_equal(order, np.arange(len(order))) else self.put(order)

    def take(self, v: Array) -> list[Array]:
        """The parts' entries of v (..., m), each (..., count, dim)."""
        out = []
        for part, rows in zip(self.cones.parts, self._rows, strict=True):
            flat = v[..., rows] if isinstance(rows, slice) else self.xp.take(v, rows, axis=-1)
            out.append(self.xp.reshape(flat, (*v.shape[:-1], part.count, part.dim)))
        return out

    def join(self, values: Sequence[Array], batch: tuple[int, ...]) -> Array:
        """The inverse of `take`; the values' leading dimensions broadcast to `batch`."""
        xp = self.xp
        flat = []
        for value in values:
            length = value.shape[-2] * value.shape[-1]
            whole = xp.reshape(value, (*value.shape[:-2], length))
            flat.append(xp.broadcast_to(whole, (*batch, length)))
        out = flat[0] if len(flat) == 1 else xp.concat(flat, axis=-1)
        return out if self._order is None else xp.take(out, self._order, axis=-1)

    def take_rows(self, A: Array) -> list[Array]:
        """The parts' rows of matrices A (..., m, n), each (..., count, dim, n)."""
        out = []
        for part, rows in zip(self.cones.parts, self._rows, strict=True):
            flat = A[..., rows, :] if isinstance(rows, slice) else self.xp.take(A, rows, axis=-2)
            out.append(self.xp.reshape(flat, (*A.shape[:-2], part.count, part.dim, A.shape[-1])))
        return out

    def join_rows(self, values: Sequence[Array]) -> Array:
        """The inverse of `take_rows`."""
        xp = self.xp
        flat = [xp.reshape(v, (*v.shape[:-3], v.shape[-3] * v.shape[-2], v.shape[-1])) for v in values]
        out = flat[0] if len(flat) == 1 else xp.concat(flat, axis=-2)
        return out if self._order is None else xp.take(out, self._order, axis=-2)

    def largest(self, values: Array) -> Array:
        """The largest of each cone's values in all of its rows, shape (..., m); zero and nonnegative rows keep theirs.

        Args:
            values: shape (..., m).
        """
        if self.host is None:
            starts = self.cones.unit_starts
            counts = np.diff(np.append(starts, self.cones.m))
            return np.repeat(np.maximum.reduceat(values, starts, axis=-1), counts, axis=-1)
        xp, parts = self.xp, self.take(values)
        return self.join(
            [xp.broadcast_to(xp.max(part, axis=-1, keepdims=True), part.shape) for part in parts], values.shape[:-1]
        )

    def spectrum(self, v: Array, near: Any = None) -> Any:
        """The spectrum of DΠ_K(v), with Π_K(v) as its `s`.

        Args:
            v: points, shape (..., m).
            near: the spectrum at nearby points of the same shape, which saves some of the work.

        Returns:
            `LinearSpectrum`, `Spectrum` on NumPy's arrays, or `PlacedSpectrum`.
        """
        if self.cones.polyhedral:
            return LinearSpectrum(self, v)
        if self.host is None:
            return spectrum(self.cones, v, near)
        parts = self.take(v)
        rooted = iter(self._rooted(v, near))
        groups = [
            next(rooted) if part.kind in ON_HOST else self._kinds[part.kind].spectrum(part, entries)
            for part, entries in zip(self.cones.parts, parts, strict=True)
        ]
        return PlacedSpectrum(self.cones, tuple(v.shape[:-1]), tuple(groups), self)

    def _rooted(self, v: Array, near: Any) -> list[CurveArrays]:
        """The groups of cones whose spectra are computed on the host."""
        parts = [part for part in self.cones.parts if part.kind in ON_HOST]
        if not parts:
            return []
        assert self.host is not None
        first = min(int(part.index.min()) for part in parts)  # they are the last rows
        here = self.host(v[..., first:])
        known = [None] * len(parts)
        if near is not None and near.batch == tuple(v.shape[:-1]):
            known = [group.source for group in near.groups if isinstance(group, CurveArrays)]
        groups = []
        for part, group in zip(parts, known, strict=True):
            entries = here[..., part.index - first]
            groups.append(CONES[part.kind].spectrum(part, entries, group))
        return self._moved(parts, groups)

    def _moved(self, parts: Sequence[Part], groups: Sequence[Any]) -> list[CurveArrays]:
        """The host's groups as arrays of the place, by one copy."""
        tables = [
            np.concatenate([g.s, g.d, g.complement, g.Q.reshape(*g.s.shape[:-1], 9)], axis=-1) for g in groups
        ]  # (..., count, 18) each
        table = self.put(np.concatenate(tables, axis=-2))
        out, start = [], 0
        for part, group in zip(parts, groups, strict=True):
            out.append(CurveArrays(part, table[..., start : start + part.count, :], group, self))
            start += part.count
        return out


@lru_cache(maxsize=64)
def on_host(cones: Cones) -> PlacedCones:
    """The cone on NumPy's arrays."""
    return PlacedCones(cones, array_api_compat.array_namespace(np.zeros(0)), np.asarray)


class CurveArrays(Group):
    """The spectrum of exponential or power cones as arrays of a place.

    Args:
        part: which cones and which of the rows.
        table: s, d, 1 − d and Q of each cone side by side, shape (..., count, 18).
        source: the spectrum on the host.
        placed: the place.
    """

    def __init__(self, part: Part, table: Array, source: CurveGroup, placed: PlacedCones) -> None:
        self.part, self.source, self._placed, self.xp = part, source, placed, placed.xp
        self.s, self.d, self.complement = (table[..., i : i + 3] for i in (0, 3, 6))
        self._Q = self.xp.reshape(table[..., 9:], (*table.shape[:-1], 3, 3))

    @property
    def Q(self) -> Array:
        """Eigenvectors, shape (..., count, 3, 3)."""
        return self._Q

    def rotate(self, w: Array) -> Array:
        """Product Qᵀw."""
        return self.xp.sum(self._Q * w[..., :, None], axis=-2)

    def restore(self, w: Array) -> Array:
        """Product Qw."""
        return self.xp.sum(self._Q * w[..., None, :], axis=-1)

    @cached_property
    def _coefficients(self) -> Array:
        return self._placed.put(self.source.coefficients)

    def rotate_rows(self, A: Array) -> Array:
        """Product QᵀA."""
        return self.xp.matrix_transpose(self._Q) @ A

    def bend(self, a: Array, b: Array) -> Array:
        """As `CurveGroup.bend`; its coefficients are copied from the host when first asked for."""
        return self.restore(bent(self.xp, self._coefficients, self.rotate(a), self.rotate(b)))


@dataclass(frozen=True, eq=False)
class PlacedSpectrum(Spectrum):
    """A spectrum on arrays of a place: `s`, `d`, `complement`, `rotate`, `restore`, `apply`, `bend` and `split`.

    Attributes:
        placed: the cone in its place.
    """

    placed: PlacedCones

    @property
    def xp(self) -> Any:
        """The namespace of the arrays."""
        return self.placed.xp

    def rotate_rows(self, A: Array) -> Array:
        """Product QᵀA for matrices with the spectrum's own leading dimensions, shape (..., m, n)."""
        return self.placed.join_rows(
            [group.rotate_rows(part) for group, part in zip(self.groups, self.placed.take_rows(A), strict=True)]
        )

    def _each(self, product: Callable[..., Array], *vectors: Array) -> Array:
        parts = [self.placed.take(w) for w in vectors]
        values = [product(group, *own) for group, own in zip(self.groups, zip(*parts, strict=True), strict=True)]
        return self._assemble(values, np.broadcast_shapes(self.batch, *(tuple(w.shape[:-1]) for w in vectors)))

    def _assemble(self, values: list[Array], batch: tuple[int, ...]) -> Array:
        return self.placed.join(values, batch)
