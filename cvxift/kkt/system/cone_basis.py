"""The directions that stay in the reduced KKT system: those in which DΠ_K(v) has an eigenvalue below 1.

With D = Q diag(d) Qᵀ, a direction with d = 0 is tight (an equality row), one with 0 < d < 1 carries the curvature
h = d/(1 − d), and one with d = 1 (slack) leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cvxift import cones as cone
from cvxift._types import cached_property
from cvxift.program.products import apply
from cvxift.program.structure import Floats

ROTATION_ROUNDING = 1e-13  # part of a cone's entries of A under which an entry of QᵀA is the rounding of Q
FEW_ROWS = 250  # rows up to which the kept directions are one dense matrix


class Rotation:
    """The kept directions: unit vectors first, then eigenvectors of the cones that are curved at v.

    Tight rows of zero and nonneg cones, and the rows of other cones where D = 0, are kept by their index.

    Args:
        rows: indices of the rows kept as they are, shape (t,).
        h: diagonal of H on the last directions, shape (k,); None for zero.
        spectrum: the spectrum that has the eigenvectors; None where all kept directions are rows.

    Attributes:
        rows, h, spectrum: as given.
        size: number of kept directions, t plus the eigenvectors.
    """

    def __init__(self, rows: np.ndarray, h: Floats | None = None, spectrum: cone.Spectrum | None = None) -> None:
        self.rows, self.h, self.spectrum = rows, h, spectrum
        self.size = len(rows) + (0 if spectrum is None or h is None else len(h))
        self._few = spectrum is not None and spectrum.cones.m <= FEW_ROWS
        if spectrum is None:
            self.directions = None  # known at once: the property of this name finds the others

    @cached_property
    def Q(self) -> sp.csc_array | None:
        """The kept eigenvectors, sparse, shape (m, k); None where all kept directions are rows."""
        return None if self.spectrum is None else self.spectrum.eigenvectors(_below_one)

    @cached_property
    def directions(self) -> Floats | sp.csc_array | None:
        """All kept directions as columns, shape (m, t + k); dense where there are few rows. None if all are rows."""
        if self.spectrum is None or not self._few:
            return self._columns
        t = len(self.rows)
        out = np.zeros((self.spectrum.cones.m, self.size))
        out[self.rows, np.arange(t)] = 1.0
        self.spectrum.write_eigenvectors(out, t, _below_one)
        return out

    @cached_property
    def _columns(self) -> sp.csc_array | None:
        """The same, always sparse."""
        Q, t = self.Q, len(self.rows)
        if Q is None or self.spectrum is None:
            return None
        indptr = np.concatenate([np.arange(t), Q.indptr + t])
        indices = np.concatenate([self.rows.astype(Q.indices.dtype), Q.indices])
        return sp.csc_array(
            (np.concatenate([np.ones(t), Q.data]), indices, indptr), shape=(self.spectrum.cones.m, self.size)
        )

    def without(self, groups: Sequence[cone.Group], but: Sequence[np.ndarray] = ()) -> Rotation:
        """The kept directions of the rows that no cone of these groups has, and some rows of theirs."""
        spectrum = self.spectrum
        assert spectrum is not None
        cones = spectrum.cones
        rest = replace(spectrum, groups=tuple(group for group in spectrum.groups if group not in groups))
        tight, h = rest.tight_and_curved()
        rows = np.concatenate([self.rows[self.rows < cones.zero + cones.nonneg], tight, *but])
        return Rotation(rows, h, rest) if len(h) else Rotation(rows)

    def rotated(self, A: Any) -> Any:
        """The kept rows of a matrix, shape (t + k, n): dense for a dense array, else CSR.

        Args:
            A: dense array or CSR matrix, shape (m, n).
        """
        if self.spectrum is None:
            return A[self.rows]
        # Eigenvectors are known to rounding: what that leaves of A's entries is none. Equilibration would make a
        # constraint of a row of them.
        if isinstance(A, np.ndarray):
            assert self.directions is not None
            out = self.directions.T @ A
            out[np.abs(out) <= ROTATION_ROUNDING * np.add.reduceat(np.abs(A), self._starts, axis=0)[self._unit]] = 0.0
            return out
        assert self._columns is not None
        product: Any = sp.csr_array(self._columns.T @ A)
        m = A.shape[0]
        units = np.searchsorted(self._starts, np.arange(m), side="right") - 1
        whole: Any = sp.csr_array((np.ones(m), (units, np.arange(m))), shape=(len(self._starts), m)) @ abs(A)
        rows = np.repeat(np.arange(product.shape[0]), np.diff(product.indptr))
        limit = np.asarray(sp.csr_array(whole)[self._unit[rows], product.indices]).ravel()
        product.data[np.abs(product.data) <= ROTATION_ROUNDING * limit] = 0.0
        return product

    @cached_property
    def _starts(self) -> np.ndarray:
        """First row of each cone."""
        assert self.spectrum is not None
        return self.spectrum.cones.unit_starts

    @cached_property
    def _unit(self) -> np.ndarray:
        """The cone that each kept direction belongs to."""
        directions = self.directions
        assert directions is not None
        dense = isinstance(directions, np.ndarray)
        row = (directions != 0.0).argmax(axis=0) if dense else directions.indices[directions.indptr[:-1]]
        return np.searchsorted(self._starts, row, side="right") - 1

    def reduce(self, value: Floats) -> Floats:
        """Components along the kept directions, along the last axis: (..., m) to (..., t + k)."""
        return value[..., self.rows] if self.directions is None else apply(self.directions.T, value)

    def restore(self, value: Floats, m: int) -> Floats:
        """The vector with these components: (..., t + k) to (..., m)."""
        if self.directions is not None:
            return apply(self.directions, value)
        out = np.zeros((*value.shape[:-1], m))
        out[..., self.rows] = value
        return out

    def same(self, other: Rotation) -> bool:
        """Whether both are the same polyhedral active set, so that a factorization may serve for both."""
        return (
            self.h is None
            and other.h is None
            and len(self.rows) == len(other.rows)
            and bool(np.all(self.rows == other.rows))
        )


def _below_one(d: Floats) -> NDArray[np.bool_]:
    return d < 1.0


def rotation(cones: cone.Cones, v: Floats, spectrum: cone.Spectrum | None = None) -> Rotation:
    """The kept directions at v = s − y.

    Args:
        cones: the product cone.
        v: the point, shape (m,).
        spectrum: the spectrum of DΠ_K(v); computed when absent and needed.
    """
    polyhedral = cones.zero + cones.nonneg
    # D is 0 on zero rows; on a nonnegative row it is 1 where v > 0. v = 0 is the kink: it is counted as slack and
    # reported by the margin.
    mask = v[:polyhedral] < 0.0
    mask[: cones.zero] = True
    tight = mask.nonzero()[0]
    if cones.polyhedral:
        return Rotation(tight)
    if spectrum is None:
        spectrum = cone.spectrum(cones, v)
    rows, h = spectrum.tight_and_curved()
    return Rotation(np.concatenate([tight, rows]) if len(rows) else tight, h, spectrum)
