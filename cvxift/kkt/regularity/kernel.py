"""The null space and the extreme singular values of the reduced KKT matrix, and solves that know of them.

    K = [ P   A_rᵀ ;  A_r   −H ],    H ≽ 0

K (u, w) = 0 gives uᵀPu + wᵀHw = 0, so Pu = 0, A_r u = 0 and Hw = 0, A_rᵀw = 0: the null space is the sum of the flat
directions u of the objective on the active constraints, and of the combinations w under which active rows are
dependent. Everything is measured on the equilibrated matrix diag(c) K diag(c) (Ruiz 2001), whose entries are of size 1
whatever the units of the user's data.

Small K: all eigenvalues, by a dense symmetric decomposition. Large K: the null space and the eigenvalue next to it, by
block inverse iteration on sparse LU factors, with parallel rows merged and large second-order cones lifted; `exact`
says which.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from cvxift.kkt.instance import Instance
from cvxift.kkt.regularity.nearest import nearest
from cvxift.kkt.regularity.repeats import Repeats
from cvxift.kkt.system.assembly import equilibrate, kkt_matrix, scale_symmetric
from cvxift.kkt.system.reduced import ReducedSystem, Rotation
from cvxift.kkt.system.soc_extension import Lifted
from cvxift.program.products import apply
from cvxift.program.structure import Floats

MINIMUM_DEGREE = 40  # entries a column up to which K is ordered by minimum degree
ALL_EIGENVALUES = 400  # unknowns up to which all eigenvalues are computed
NULL_EIGENVALUE = 1e-10  # eigenvalue, relative to the largest, up to which a direction counts as null
DEPENDENT = 1e-6  # singular value of the null space's part in the rows above which it is no flat direction's rounding
SHIFT = 1e-11  # of the inverse iteration


class Kernel:
    """K at one choice of D = DΠ_K(v).

    Args:
        instance: the program's matrices.
        rotation: the kept directions.
        tolerance: eigenvalue, relative to the largest, up to which a direction counts as null.

    Attributes:
        smallest: smallest singular value of the equilibrated K that is not null (1 for an empty K).
        largest: its largest singular value.
        exact: whether all singular values were computed.
        scale: the equilibration c, shape (N,).
        values: all eigenvalues (exact) or those nearest to zero, by magnitude.
    """

    def __init__(self, instance: Instance, rotation: Rotation, tolerance: float = NULL_EIGENVALUE) -> None:
        self.rotation, self.tolerance = rotation, tolerance
        self.n, self.m = instance.structure.n, instance.structure.m
        large = self.n + rotation.size > ALL_EIGENVALUES
        self._lifted = Lifted.of(instance, rotation) if large else None
        if self._lifted is not None:
            self.K, self._first = sp.csc_array(self._lifted.K), self.n + 2 * self._lifted.count
        else:
            A_r = ReducedSystem(instance, rotation).A_r
            diagonal = np.zeros(self.n + rotation.size)
            if rotation.h is not None:
                diagonal[len(diagonal) - len(rotation.h) :] = -rotation.h
            self.K, self._first = (
                sp.csc_array(kkt_matrix(sp.csc_array(instance.P), sp.csr_array(A_r), diagonal)),
                self.n,
            )
        self.size = len(self.K.indptr) - 1
        self.scale = equilibrate(self.K, 8)
        scaled = scale_symmetric(self.K, self.scale)
        self.exact = not large
        self._repeats = None if self.exact else Repeats.of(scaled, self._first)
        if self.exact:
            self._dense(scaled.toarray())
        else:
            self._sparse(scaled)

    def _dense(self, K: Floats) -> None:
        values, vectors = np.linalg.eigh(K) if self.size else (np.zeros(0), np.zeros((0, 0)))
        self.largest = float(np.abs(values).max(initial=0.0)) or 1.0
        kept = np.abs(values) > self.tolerance * self.largest
        self._null = vectors[:, ~kept]
        self.smallest = float(np.abs(values[kept]).min(initial=self.largest))
        self.values = values[np.argsort(-np.abs(values))]
        self._range, self._values = vectors[:, kept], values[kept]

    def _sparse(self, K: sp.csc_array) -> None:
        if self._repeats is not None:
            K = sp.csc_array(self._repeats.Q.T @ K @ self._repeats.Q)
        self._matrix, size = K, len(K.indptr) - 1
        self.largest = float(sla.norm(K, np.inf)) or 1.0  # within √N of the spectral norm; K is equilibrated
        # Minimum degree on K's own symmetric pattern was up to 30 times faster, but slower where K is nearly dense.
        ordering = "MMD_AT_PLUS_A" if K.nnz <= MINIMUM_DEGREE * size else "COLAMD"
        self._lu = sla.splu(sp.csc_array(K - SHIFT * sp.eye_array(size, format="csc")), permc_spec=ordering)
        found = nearest(self._lu.solve, size, SHIFT, self.tolerance * self.largest)
        self._null = found.null
        self.smallest = self.largest if found.smallest is None else found.smallest
        self.values = np.concatenate([found.values[::-1], np.zeros(self.size - size)])

    @cached_property
    def null(self) -> Floats:
        """Basis of the null space in the equilibrated scaling, orthonormal, shape (N, k)."""
        if self._repeats is None:
            return self._null
        return np.concatenate([self._repeats.Q @ self._null, self._repeats.null.toarray()], axis=1)

    @property
    def condition(self) -> float:
        """Condition number of the equilibrated K, its null space left out."""
        return self.largest / self.smallest

    @property
    def null_columns(self) -> Floats:
        """The null space's part on the columns of x, equilibrated, shape (n, k); that of parallel rows has none."""
        return self._null[: self.n] if self._repeats is None else self._repeats.Q[: self.n] @ self._null

    def dependent_rows(self) -> Any:
        """Basis of the combinations under which active rows are dependent, equilibrated, sparse, shape (m, k)."""
        whole = self._null if self._repeats is None else self._repeats.Q @ self._null
        parts = [sp.csc_array(_span(whole[self._first :]))]
        if self._repeats is not None:
            parts.append(self._repeats.null[self._first :])
        return sp.csc_array(self._directions @ sp.hstack(parts, format="csc"))

    def dependences(self) -> tuple[Any, Floats]:
        """Combinations w of active rows with Aᵀw = 0, in original units, that span all of them.

        Returns:
            Pairs of parallel rows, sparse, shape (m, p); and a basis of the others, in which of parallel rows only the
            first takes part, shape (m, k).
        """
        scale = self.scale[self._first :]
        if self._repeats is None:
            part = _span(self._null[self._first :])
            return sp.csc_array((self.m, 0)), self._directions @ (scale[:, None] * part)
        alone, pairs = self._repeats.first_of_each, self._repeats.pairs
        part = _span((alone @ self._null)[self._first :])
        return (
            sp.csc_array(self._directions @ (sp.diags_array(scale) @ pairs[self._first :])),
            self._directions @ (scale[:, None] * part),
        )

    @cached_property
    def _directions(self) -> sp.csc_array:
        """The kept directions as columns, in the order of K's rows after the first block, shape (m, r)."""
        turn = self.rotation if self._lifted is None else self._lifted.rest
        columns = turn.directions
        parts = [_units(turn.rows, self.m) if columns is None else sp.csc_array(columns)]
        if self._lifted is not None:
            parts.append(_units(self._lifted.rows, self.m))
        return sp.csc_array(sp.hstack(parts, format="csc"))

    def flat_columns(self) -> Floats:
        """The null space's part on the columns of x, in original units, shape (n, k)."""
        return self.scale[: self.n, None] * self.null_columns

    def solve(self, g: Floats, h: Floats) -> tuple[Floats, Floats, Floats]:
        """Least-squares solutions of K (u, w) = (g, h), of minimal norm in the equilibrated scaling.

        Args:
            g: right-hand sides on columns, shape (k, n).
            h: right-hand sides on rows, shape (k, m).

        Returns:
            u of shape (k, n), w of shape (k, m), and for each right-hand side the part outside the range of K,
            relative to the whole, shape (k,).
        """
        extra = np.zeros((len(g), self._first - self.n))  # unknowns that lift cones
        f = np.concatenate([g, extra, apply(self._directions.T, h)], axis=-1).T * self.scale[:, None]
        norm = np.linalg.norm(f, axis=0)
        outside, merged = np.zeros_like(norm), f
        if self._repeats is not None:
            merged = self._repeats.Q.T @ f
            outside = np.linalg.norm(self._repeats.null.T @ f, axis=0)
        null = self._null
        part = null.T @ merged
        outside = np.hypot(outside, np.linalg.norm(part, axis=0))
        lost = np.divide(outside, norm, out=np.zeros_like(norm), where=norm > 0)
        merged = merged - null @ part
        if self.exact:
            z = self._range @ ((self._range.T @ merged) / self._values[:, None])
        else:
            z = np.zeros_like(merged)
            for _ in range(3):  # refinement takes the shift out
                step = self._lu.solve(merged - self._matrix @ z)
                z = z + step - null @ (null.T @ step)
        if self._repeats is not None:
            z = self._repeats.Q @ z
        z = z.T * self.scale
        return z[:, : self.n], apply(self._directions, z[:, self._first :]), lost


def _span(rows: Floats) -> Floats:
    """Orthonormal basis of the columns' span, flat directions left out, which have nothing in the rows.

    Rows in which it has no more than what a null direction is known to take no part in it: they are exactly zero.
    """
    u, values, _ = np.linalg.svd(rows, full_matrices=False)
    basis = u[:, values > DEPENDENT]
    basis[np.linalg.norm(basis, axis=1) <= NULL_EIGENVALUE] = 0.0
    return basis


def _units(rows: np.ndarray, m: int) -> sp.csc_array:
    """Unit vectors of these rows as columns, shape (m, len(rows))."""
    return sp.csc_array((np.ones(len(rows)), rows, np.arange(len(rows) + 1)), shape=(m, len(rows)))
