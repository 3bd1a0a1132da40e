"""Eigenvalues nearest to zero of a large sparse symmetric matrix, and its null space, by block inverse iteration.

A block of random vectors is multiplied by T = (K − σI)⁻¹ a few times. Null directions grow by 1/σ, so the Ritz values
of T, which lie between its extreme eigenvalues, tell how many of the block are null; a block that is null altogether is
followed by a larger one in its complement, so that a null space of any dimension is found whole. The smallest
eigenvalue outside the null space is the largest Ritz value of T on the block's Krylov space (Golub & Underwood 1977),
which needs no convergence where hundreds of eigenvalues lie close together: an estimate from above, within a few
percent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cvxift._types import EPS
from cvxift.program.structure import Floats

FIRST_WIDTH = 4  # first width of the block
SEPARATING_POWERS = 3  # multiplications that separate null directions from the others
KRYLOV = 48  # dimension of the Krylov space at most
RITZ_SETTLED = 1e-7  # relative change of the largest Ritz value from one block to the next that ends the iteration


class Nearest(NamedTuple):
    """What was found.

    Attributes:
        null: orthonormal basis of the null space, shape (N, k).
        smallest: smallest magnitude of the other eigenvalues, estimated; None if the null space is everything.
        values: magnitudes of the eigenvalues nearest to zero that were estimated, ascending.
    """

    null: Floats
    smallest: float | None
    values: Floats


def nearest(inverse: Callable[[Floats], Floats], size: int, shift: float, limit: float) -> Nearest:
    """Find the null space and the smallest other eigenvalue.

    Args:
        inverse: T, for several columns at once.
        size: N.
        shift: σ.
        limit: magnitude up to which an eigenvalue counts as null.
    """
    rng = np.random.default_rng(0)
    null, width = np.zeros((size, 0)), FIRST_WIDTH
    while null.shape[1] < size:
        V = _orthonormal(rng.standard_normal((size, min(width, size - null.shape[1]))), null)
        for _ in range(SEPARATING_POWERS):
            V = _orthonormal(inverse(V), null)
        values, S = _ritz(V, inverse(V), shift)
        is_null = np.abs(values) <= limit
        rest = V @ S[:, ~is_null]
        null = np.concatenate([null, V @ S[:, is_null]], axis=1)
        if not is_null.all():
            break
        width = 2 * V.shape[1]
    else:
        return Nearest(null, None, np.zeros(null.shape[1]))
    found = _krylov(inverse, rest, null, shift, min(KRYLOV, size - null.shape[1]))
    return Nearest(null, float(found[0]), np.concatenate([np.zeros(null.shape[1]), found]))


def _krylov(inverse: Callable[[Floats], Floats], V: Floats, null: Floats, shift: float, most: int) -> Floats:
    """Magnitudes of eigenvalues nearest to zero on the complement of the null space, ascending; the first is good."""
    V = V[:, :FIRST_WIDTH]
    basis, images = V, inverse(V)
    values = np.sort(np.abs(_ritz(basis, images, shift)[0]))
    while basis.shape[1] < most:
        V = _orthonormal(images[:, -V.shape[1] :], np.concatenate([null, basis], axis=1))[:, : most - basis.shape[1]]
        basis, images = np.concatenate([basis, V], axis=1), np.concatenate([images, inverse(V)], axis=1)
        last, values = values[0], np.sort(np.abs(_ritz(basis, images, shift)[0]))
        if abs(values[0] - last) <= RITZ_SETTLED * values[0]:
            break
    return values


def _ritz(V: Floats, TV: Floats, shift: float) -> tuple[Floats, Floats]:
    """Eigenvalues of K from the Ritz values of T on an orthonormal basis, and their vectors in that basis."""
    T = V.T @ TV
    values, S = np.linalg.eigh((T + T.T) / 2.0)
    tiny = np.finfo(float).tiny
    return shift + 1.0 / np.where(np.abs(values) > tiny, values, tiny), S


def _orthonormal(V: Floats, against: Floats) -> Floats:
    """An orthonormal basis of the columns' part outside a subspace; again where rounding left something in it."""
    inside = against.T @ V
    V = np.linalg.qr(V - against @ inside)[0]
    inside = against.T @ V
    if np.abs(inside).max(initial=0.0) <= EPS * len(V):  # what the rounding of a product of that length may be
        return V
    return np.linalg.qr(V - against @ inside)[0]
