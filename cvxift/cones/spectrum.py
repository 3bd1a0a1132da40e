"""The spectrum D = DΠ_K(v) = Q diag(d) Qᵀ of the whole product cone, put together from the groups of equal cones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cvxift._types import Floats, cached_property
from cvxift.cones.base import Group
from cvxift.program.cones import Cones

if TYPE_CHECKING:
    from cvxift.cones.product import PlacedCones


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues and orthonormal eigenvectors of D = DΠ_K(v); symmetric, 0 ≼ D ≼ I.

    Args:
        cones: the product cone.
        batch: leading batch dimensions of v.
        groups: spectrum of each group of equal cones, by their first rows.
        placed: the cone where the arrays live.

    Example:
        >>> import numpy as np
        >>> from cvxift.cones import Cones, spectrum
        >>> found = spectrum(Cones(zero=1, nonneg=2, soc=(3,)), np.array([1.0, 2.0, -3.0, 0.0, 3.0, 4.0]))
        >>> found.d
        array([0. , 1. , 0. , 1. , 0.5, 0. ])
        >>> found.apply(np.ones(6)).round(2)
        array([0. , 1. , 0. , 1.2, 0.8, 0.9])
    """

    cones: Cones
    batch: tuple[int, ...]
    groups: tuple[Group, ...]
    placed: PlacedCones

    @cached_property
    def s(self) -> Floats:
        """The projection Π_K(v), shape (..., m); it comes with the spectrum at no cost."""
        return self.placed.join([group.s for group in self.groups], self.batch)

    @cached_property
    def d(self) -> Floats:
        """Eigenvalues in row order, shape (..., m); exactly 0.0 (tight) or 1.0 (slack) where theory says so."""
        return self.placed.join([group.d for group in self.groups], self.batch)

    @cached_property
    def complement(self) -> Floats:
        """1 − d without cancellation, shape (..., m)."""
        return self.placed.join([group.complement for group in self.groups], self.batch)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Directions with d < 1, shape (..., m)."""
        return self.d < 1.0

    def apply(self, w: Floats) -> Floats:
        """Product Dw for w of shape (..., m), whose leading dimensions broadcast with the batch."""
        return self._each(lambda group, part: group.apply(part), w)

    def rotate(self, w: Floats) -> Floats:
        """Product Qᵀw for w of shape (..., m)."""
        return self._each(lambda group, part: group.rotate(part), w)

    def restore(self, w: Floats) -> Floats:
        """Product Qw for w of shape (..., m)."""
        return self._each(lambda group, part: group.restore(part), w)

    def rotate_rows(self, A: Floats) -> Floats:
        """Product QᵀA for matrices with the spectrum's own leading dimensions, shape (..., m, n)."""
        parts = zip(self.groups, self.placed.take_rows(A), strict=True)
        return self.placed.join_rows([group.rotate_rows(part) for group, part in parts])

    def bend(self, a: Floats, b: Floats) -> Floats:
        """D²Π_K(v)[a, b] for directions of shape (..., m), whose leading dimensions broadcast with the batch."""
        return self._each(lambda group, *parts: group.bend(*parts), a, b)

    def split(self, v_bar: Floats) -> tuple[Floats, Floats]:
        """A cotangent of v as a cotangent ȳ of y = Π_K(v) − v, and what slack directions leave of it.

        (I − D)a − Dw = v̄ is, on slack directions, w = −v̄; on the others it is (I − D)(a + ȳ) = Dw with ȳ = −v̄/(1 − d).

        Args:
            v_bar: shape (..., m).

        Returns:
            w on slack directions (zero on the others), and ȳ (zero on slack ones), shapes (..., m).
        """
        xp, turned = self.placed.xp, self.rotate(v_bar)
        nothing, slack = xp.zeros_like(turned), self.d == 1.0
        divisor = xp.where(slack, xp.ones_like(self.d), self.complement)
        return -self.restore(xp.where(slack, turned, nothing)), -self.restore(
            xp.where(slack, nothing, turned / divisor)
        )

    @cached_property
    def curved(self) -> tuple[Group, ...]:
        """The groups in which D of some cone is neither 0 nor I."""
        return tuple(group for group in self.groups if group.dim > 1 and group.mixed.any())

    def tight_and_curved(self) -> tuple[NDArray[np.intp], Floats]:
        """Of one point, the rows of cones other than zero and nonneg where D = 0, and d/(1 − d) < ∞ where it is mixed.

        Returns:
            Rows in ascending order within each group, and d/(1 − d) in the order of `eigenvectors`.
        """
        rows, curvature = [], []
        for group in self.groups:
            if group.kind in ("zero", "nonneg"):
                continue
            mixed, d = group.mixed, group.d
            every = bool(mixed.all())
            if not every:
                rows.append(group.rows[~mixed & (d[:, 0] == 0.0)].ravel())
                d = d[mixed]
            kept = d < 1.0
            curvature.append(d[kept] / (group.complement if every else group.complement[mixed])[kept])
        return (
            np.concatenate(rows) if rows else np.zeros(0, dtype=np.intp),
            curvature[0] if len(curvature) == 1 else np.concatenate([*curvature, np.zeros(0)]),
        )

    def eigenvectors(self, choose: Callable[[Floats], NDArray[np.bool_]]) -> sp.csc_array:
        """Eigenvectors at one point as sparse columns, cone by cone, shape (m, k).

        Args:
            choose: from eigenvalues, which are wanted.
        """
        places, values, lengths = [], [], []
        for group in self.curved:
            index, columns = self._chosen(group, choose)
            places.append(index.ravel())
            values.append(columns.ravel())
            lengths.append(np.full(len(columns), group.dim))
        nothing = np.zeros(0, dtype=np.intp)
        indptr = np.concatenate([[0], np.cumsum(np.concatenate([*lengths, nothing]))])
        entries = np.concatenate([*values, np.zeros(0)])
        indices = np.concatenate([*places, nothing])
        out = sp.csc_array((entries, indices, indptr), shape=(self.cones.m, len(indptr) - 1))
        if not entries.all():
            out.eliminate_zeros()
        return out

    def write_eigenvectors(self, out: Floats, first: int, choose: Callable[[Floats], NDArray[np.bool_]]) -> None:
        """Write the same columns to a dense array of zeros.

        Args:
            out: shape (m, ·).
            first: the first column.
            choose: from eigenvalues, which are wanted.
        """
        for group in self.curved:
            index, columns = self._chosen(group, choose)
            out[index, np.arange(first, first + len(columns))[:, None]] = columns
            first += len(columns)

    @staticmethod
    def _chosen(group: Group, choose: Callable[[Floats], NDArray[np.bool_]]) -> tuple[NDArray[np.intp], Floats]:
        """Rows and values of the chosen eigenvectors of a group's mixed cones, each (k, dim)."""
        mixed = group.mixed
        if mixed.all():
            rows, d = group.rows, group.d
        else:
            rows, d = group.rows[mixed], group.d[mixed]
        chosen = choose(d)
        columns = np.swapaxes(group.eigenvectors(mixed), -1, -2)[chosen]
        return np.repeat(rows, chosen.sum(axis=-1), axis=0), columns

    def _each(self, product: Callable[..., Floats], *vectors: Floats) -> Floats:
        """product(group, its parts of the vectors) for every group, put together."""
        parts = [self.placed.take(w) for w in vectors]
        values = [product(group, *own) for group, own in zip(self.groups, zip(*parts, strict=True), strict=True)]
        return self.placed.join(values, np.broadcast_shapes(self.batch, *(tuple(w.shape[:-1]) for w in vectors)))
