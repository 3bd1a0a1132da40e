"""The product cone on arrays of any namespace and device: projection, derivative, kinks and distances.

Each group of equal cones is computed at once. Arrays have shape (..., m) with any leading batch dimensions, in the row
order of `Cones`. Second-order and semidefinite cones are closed forms and a decomposition that the array API standard
has. The rays of exponential and power cones are roots, found by iterations that look at values: where arrays are not
NumPy's, those cones' rows are copied to the host, and their spectra back, one copy each way for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import array_api_compat
import numpy as np

from cvxift._types import Array, Floats, cached_property
from cvxift.cones.base import Cone
from cvxift.cones.curve_group import CurveArrays
from cvxift.cones.exp import Exponential
from cvxift.cones.linear import Nonneg, Zero
from cvxift.cones.power import Power
from cvxift.cones.psd import Semidefinite
from cvxift.cones.soc import SecondOrder
from cvxift.cones.spectrum import Spectrum
from cvxift.program.cones import Cones

CONES: dict[str, Cone] = {
    "zero": Zero(),
    "nonneg": Nonneg(),
    "soc": SecondOrder(),
    "psd": Semidefinite(),
    "exp": Exponential(),
    "pow": Power(),
}
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
        self._kinds = CONES
        if host is not None:
            own = {"zero": Zero(xp), "nonneg": Nonneg(xp), "soc": SecondOrder(xp), "psd": Semidefinite(xp, put)}
            self._kinds = {**CONES, **own}

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
        xp, flat = self.xp, []
        if not values:
            return self.put(np.zeros((*batch, 0)))
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
        """The spectrum of DΠ_K(v), with Π_K(v) as its `s`; of a cone without curved ones a `LinearSpectrum`.

        Args:
            v: points, shape (..., m).
            near: the spectrum at nearby points of the same shape, which saves some of the work.
        """
        return LinearSpectrum(self, v) if self.cones.polyhedral else self.full_spectrum(v, near)

    def full_spectrum(self, v: Array, near: Any = None) -> Spectrum:
        """The same as a `Spectrum`, whatever the cones."""
        batch, parts = tuple(v.shape[:-1]), self.take(v)
        known = near.groups if near is not None and near.batch == batch else (None,) * len(parts)
        away = {} if self.host is None else self._rooted(v, known)
        groups = tuple(
            away[k] if k in away else self._kinds[part.kind].spectrum(part, entries, group)
            for k, (part, entries, group) in enumerate(zip(self.cones.parts, parts, known, strict=True))
        )
        return Spectrum(self.cones, batch, groups, self)

    def _rooted(self, v: Array, known: Sequence[Any]) -> dict[int, CurveArrays]:
        """The groups of cones whose spectra are computed on the host, by their numbers; one copy each way."""
        chosen = [k for k, part in enumerate(self.cones.parts) if part.kind in ON_HOST]
        if not chosen:
            return {}
        assert self.host is not None
        first = min(int(self.cones.parts[k].index.min()) for k in chosen)  # they are the last rows
        here, groups = self.host(v[..., first:]), []
        for k in chosen:
            part, near = self.cones.parts[k], known[k]
            entries = here[..., part.index - first]
            groups.append(CONES[part.kind].spectrum(part, entries, near.source if near is not None else None))
        tables = [
            np.concatenate([g.s, g.d, g.complement, g.Q.reshape(*g.s.shape[:-1], 9)], axis=-1) for g in groups
        ]  # (..., count, 18) each
        table, ends = self.put(np.concatenate(tables, axis=-2)), np.cumsum([group.count for group in groups]).tolist()
        return {
            k: CurveArrays(table[..., end - group.count : end, :], group, self.xp, self.put)
            for k, group, end in zip(chosen, groups, ends, strict=True)
        }


@lru_cache(maxsize=64)
def on_host(cones: Cones) -> PlacedCones:
    """The cone on NumPy's arrays."""
    return PlacedCones(cones, array_api_compat.array_namespace(np.zeros(0)), np.asarray)


def project(cones: Cones, v: Floats) -> Floats:
    """Nearest point of K.

    Args:
        cones: the product cone.
        v: points, shape (..., m); NaN rows give NaN.

    Returns:
        s = Π_K(v), same shape; s ⊥ s − v, and s − v lies in the dual cone.

    Example:
        >>> import numpy as np
        >>> project(Cones(zero=1, nonneg=2, soc=(3,)), np.array([1.0, 2.0, -3.0, 0.0, 3.0, 4.0]))
        array([0. , 2. , 0. , 2.5, 1.5, 2. ])
    """
    if cones.polyhedral:
        s = np.maximum(v, 0.0)
        s[..., : cones.zero] = 0.0
        return s
    placed = on_host(cones)
    parts = zip(cones.parts, placed.take(v), strict=True)
    return placed.join([CONES[part.kind].project(part, entries) for part, entries in parts], v.shape[:-1])


def spectrum(cones: Cones, v: Floats, near: Spectrum | None = None) -> Spectrum:
    """Eigenvalues and eigenvectors of D = DΠ_K(v).

    Args:
        cones: the product cone.
        v: points, shape (..., m). At a kink, D is the limit from inside the cone.
        near: the spectrum at nearby points of the same shape, which saves some of the work and changes nothing else.

    Returns:
        The spectrum, with groups in row order; exactly 0.0 and 1.0 for tight and slack directions.

    Example:
        >>> import numpy as np
        >>> spectrum(Cones(nonneg=3), np.array([1.0, -2.0, 3.0])).d
        array([1., 0., 1.])
    """
    return on_host(cones).full_spectrum(v, near)


def margin(cones: Cones, v: Floats, known: Spectrum | None = None) -> Floats:
    """Distance of v to the nearest kink of Π_K, for each unit: how far strict complementarity is from failing.

    Args:
        cones: the product cone.
        v: points, shape (..., m).
        known: the spectrum at v, which saves computing it.

    Returns:
        Distances, shape (..., units): each zero row (inf), each nonnegative row (|v_i|), each other cone, in row order.
        `cones.unit_starts` gives the first row of each.

    Example:
        >>> import numpy as np
        >>> margin(Cones(zero=1, nonneg=2, soc=(2,)), np.array([1.0, 2.0, -3.0, 0.0, 1.0]))
        array([       inf, 2.        , 3.        , 0.70710678])
    """
    groups = (None,) * len(cones.parts) if known is None else known.groups
    parts = zip(cones.parts, on_host(cones).take(v), groups, strict=True)
    return _by_unit(cones, v, (CONES[part.kind].margin(part, entries, group) for part, entries, group in parts))


def distance(cones: Cones, s: Floats) -> Floats:
    """Distance of s to the cone, for each unit.

    Args:
        cones: the product cone.
        s: points, shape (..., m).

    Returns:
        Distances, shape (..., units), in the order of `margin`; zero where s belongs to the cone.

    Example:
        >>> import numpy as np
        >>> distance(Cones(zero=1, nonneg=2), np.array([1.0, 2.0, -3.0]))
        array([1., 0., 3.])
    """
    parts = zip(cones.parts, on_host(cones).take(s), strict=True)
    return _by_unit(cones, s, (CONES[part.kind].distance(part, entries) for part, entries in parts))


def _by_unit(cones: Cones, v: Floats, values: Iterable[Floats]) -> Floats:
    """One number for each unit, from those of each part."""
    out = np.empty((*v.shape[:-1], cones.units))
    for where, own in zip(cones.unit_parts, values, strict=True):
        out[..., where] = own
    return out
