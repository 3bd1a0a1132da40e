"""Extreme singular values of a Jacobian, and the least curvature of a minimizer's Hessian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg as sl
import scipy.sparse.linalg as sla

from cvxift.implicit.oracle import Oracle

LANCZOS = 300  # iterations beyond

_linear_operator: Any = sla.LinearOperator  # its __new__ dispatches, unseen by type checkers
_eigsh: Any = sla.eigsh  # whose stubs want an integer tolerance


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of J, rows and columns scaled to size one where J was formed.

    Attributes:
        largest: the largest one.
        smallest: the smallest one, or an upper bound.
        exact: whether they come from the whole matrix.
        values: those that are known, falling.
        null: the right singular vector of the smallest, in w's units, shape (N,); None where it is not known.
    """

    largest: float
    smallest: float
    exact: bool
    values: np.ndarray
    null: np.ndarray | None

    @property
    def condition(self) -> float:
        """Their ratio."""
        return self.largest / self.smallest if self.smallest > 0.0 else float("inf")


def spectrum(oracle: Oracle, J: np.ndarray | None) -> Spectrum:
    """Extreme singular values.

    Args:
        oracle: F at the point.
        J: the matrix, or None for Lanczos's method.
    """
    if J is None:
        return _lanczos(oracle)
    row = np.abs(J).max(axis=1, initial=0.0)
    row[row == 0.0] = 1.0
    column = np.abs(J / row[:, None]).max(axis=0, initial=0.0)
    column[column == 0.0] = 1.0
    scaled = J / row[:, None] / column
    if not np.isfinite(scaled).all():
        return Spectrum(float("inf"), 0.0, True, np.zeros(0), None)
    _, values, right = np.linalg.svd(scaled)
    return Spectrum(float(values[0]), float(values[-1]), True, values, right[-1] / column)


def _lanczos(oracle: Oracle) -> Spectrum:
    """From JᵀJ by Lanczos's method: the smallest one is an upper bound, as every Ritz value is."""
    n = len(oracle.w)

    def square(v: np.ndarray) -> np.ndarray:
        return oracle.rmatvec(oracle.matvec(v.ravel()))

    operator = _linear_operator((n, n), matvec=square, dtype=float)
    start = np.random.default_rng(0).standard_normal(n)
    largest = float(_eigsh(operator, k=1, which="LA", v0=start, tol=1e-2, return_eigenvectors=False)[0])
    try:
        values, vectors = _eigsh(operator, k=1, which="SA", v0=start, tol=1e-2, ncv=40, maxiter=LANCZOS)
        smallest, null = float(values[0]), vectors[:, 0]
    except sla.ArpackNoConvergence as error:
        found = error.eigenvalues
        smallest, null = (float(found[0]), None) if len(found) else (largest, None)
    ends = np.sqrt(np.maximum([largest, smallest], 0.0))
    return Spectrum(float(ends[0]), float(ends[1]), False, ends, null)


def curvature(oracle: Oracle, J: np.ndarray | None) -> float:
    """Least eigenvalue of the Hessian on the active constraints' null space, over its largest; NaN if unknown.

    1 where the constraints leave no direction.
    """
    n = oracle.variables
    if J is not None:
        P, A = J[:n, :n], J[n:, :n]
        A = A[np.abs(A).max(axis=1, initial=0.0) > 0.0]
        if len(A):
            Z = sl.null_space(A / np.linalg.norm(A, axis=1, keepdims=True))
            if not Z.shape[1]:
                return 1.0
            P = Z.T @ P @ Z
        values = np.linalg.eigvalsh(0.5 * (P + P.T))
        size = float(np.abs(values).max(initial=0.0))
        return float(values[0]) / size if size > 0.0 else 0.0
    if oracle.settings.constrained:
        return float("nan")
    operator = _linear_operator((n, n), matvec=lambda v: oracle.matvec(v.ravel()), dtype=float)
    start = np.random.default_rng(0).standard_normal(n)
    try:
        low = _eigsh(operator, k=1, which="SA", v0=start, tol=1e-2, maxiter=LANCZOS, return_eigenvectors=False)
        high = _eigsh(operator, k=1, which="LM", v0=start, tol=1e-2, return_eigenvectors=False)
    except sla.ArpackNoConvergence:
        return float("nan")
    return float(low[0]) / abs(float(high[0])) if high[0] else 0.0
