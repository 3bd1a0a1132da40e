"""The null space and the extreme singular values of the reduced KKT matrix, and solves that know of them.

    K = [ P   A_rᵀ ;  A_r   −H ],    H ≽ 0

K (u, w) = 0 gives uᵀPu + wᵀHw = 0, so Pu = 0, A_r u = 0 and Hw = 0, A_rᵀw = 0: the null space is the sum of the flat
directions u of the objective on the active constraints, and of the combinations w under which active rows are
dependent. Everything is measured on the equilibrated matrix diag(c) K diag(c) (Ruiz 2001), whose entries are of size 1
whatever the units of the user's data.

Small K: all eigenvalues, by a dense symmetric decomposition. Large K: those nearest to zero by shift-and-invert
Lanczos on sparse LU factors (Ericsson & Ruhe 1980), and the largest by Lanczos; `exact` says which.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from cvxift.kkt.assembly import equilibrate, kkt_matrix
from cvxift.kkt.instance import Instance
from cvxift.kkt.system import ReducedSystem, Rotation
from cvxift.program.products import apply
from cvxift.program.structure import Floats

DENSE = 400  # unknowns up to which all eigenvalues are computed
SINGULAR = 1e-10  # eigenvalue, relative to the largest, up to which a direction counts as null
SHIFT = 1e-11  # of the shift-and-invert iteration
MOST = 96  # null directions that are looked for in a large K


class Kernel:
    """K at one choice of D = DΠ_K(v).

    Args:
        instance: the program's matrices.
        rotation: the kept directions.
        tolerance: eigenvalue, relative to the largest, up to which a direction counts as null.

    Attributes:
        smallest: smallest singular value of the equilibrated K that is not null (1 for an empty K).
        largest: its largest singular value.
        null: basis of the null space in the equilibrated scaling, orthonormal, shape (N, k).
        exact: whether all singular values were computed.
        scale: the equilibration c, shape (N,).
        values: all eigenvalues (exact) or those nearest to zero, by magnitude.
    """

    def __init__(self, instance: Instance, rotation: Rotation, tolerance: float = SINGULAR) -> None:
        self.rotation, self.tolerance = rotation, tolerance
        self.n, self.m = instance.structure.n, instance.structure.m
        A_r = ReducedSystem(instance, rotation).A_r
        self.size = self.n + A_r.shape[0]
        t = A_r.shape[0] - (0 if rotation.h is None else len(rotation.h))
        diagonal = np.zeros(self.size)
        if rotation.h is not None:
            diagonal[self.n + t :] = -rotation.h
        self.K = kkt_matrix(sp.csc_array(instance.P), sp.csr_array(A_r), diagonal)
        self.scale = equilibrate(self.K, 8)
        self.K = sp.csc_array(self.K)
        scaled = sp.diags_array(self.scale) @ self.K @ sp.diags_array(self.scale)
        self.exact = self.size <= DENSE
        if self.exact:
            self._dense(scaled.toarray())
        else:
            self._sparse(sp.csc_array(scaled))

    def _dense(self, K: Floats) -> None:
        values, vectors = np.linalg.eigh(K) if self.size else (np.zeros(0), np.zeros((0, 0)))
        self.largest = float(np.abs(values).max(initial=0.0)) or 1.0
        kept = np.abs(values) > self.tolerance * self.largest
        self.null = vectors[:, ~kept]
        self.smallest = float(np.abs(values[kept]).min(initial=self.largest))
        self.values = values[np.argsort(-np.abs(values))]
        self._range, self._values = vectors[:, kept], values[kept]

    def _sparse(self, K: sp.csc_array) -> None:
        eye = sp.eye_array(self.size, format="csc")
        self._matrix = K
        self.largest = float(sla.norm(K, np.inf))  # within √N of the spectral norm; K is equilibrated
        self._lu = sla.splu(sp.csc_array(K - SHIFT * eye))
        # SciPy's class makes another by its arguments, which stubs do not say.
        inverse = sla.LinearOperator((self.size, self.size), matvec=self._lu.solve, dtype=float)  # type: ignore[call-arg]
        count = 4
        start = np.random.default_rng(0).standard_normal(self.size)
        while True:
            options: dict[str, Any] = {"sigma": SHIFT, "OPinv": inverse, "v0": start, "tol": 1e-6}
            values, vectors = sla.eigsh(K, k=count, **options)
            null = np.abs(values) <= self.tolerance * self.largest
            if not null.all() or count >= min(MOST, self.size - 2):
                break
            count = min(4 * count, MOST, self.size - 2)
        self.null = np.linalg.qr(vectors[:, null])[0]
        self.smallest = float(np.abs(values[~null]).min(initial=self.largest))
        self.values = np.sort(np.abs(values))[::-1]

    @property
    def condition(self) -> float:
        """Condition number of the equilibrated K, its null space left out."""
        return self.largest / self.smallest

    @property
    def null_columns(self) -> Floats:
        """The null space's part on the columns of x, equilibrated, shape (n, k)."""
        return self.null[: self.n]

    def null_rows(self) -> Floats:
        """The null space's part on the multipliers, in original units, shape (m, k)."""
        part = self.scale[self.n :, None] * self.null[self.n :]
        return self.rotation.restore(part.T, self.m).T

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
        f = np.concatenate([g, self.rotation.reduce(h)], axis=-1).T * self.scale[:, None]
        outside = self.null.T @ f
        norm = np.linalg.norm(f, axis=0)
        lost = np.divide(np.linalg.norm(outside, axis=0), norm, out=np.zeros_like(norm), where=norm > 0)
        f = f - self.null @ outside
        if self.exact:
            z = self._range @ ((self._range.T @ f) / self._values[:, None])
        else:
            z = np.zeros_like(f)
            for _ in range(3):  # refinement takes the shift out
                step = self._lu.solve(f - self._matrix @ z)
                z = z + step - self.null @ (self.null.T @ step)
        z = z.T * self.scale
        return z[:, : self.n], self.rotation.restore(z[:, self.n :], self.m), lost


def stacked(A, columns: Floats) -> Floats:
    """A @ columns for the columns of a matrix, shape (m, k)."""
    return apply(A, columns.T).T
