"""The null space of K, sampled: one random vector of it tells its parts on columns and on rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.thresholds import NOISE, NULL, PULLED
from cvxift.kkt.solution import Linearization
from cvxift.kkt.system.reduced import ReducedSystem
from cvxift.program.structure import Floats


class NullVector(NamedTuple):
    """A random vector of the null space of K: u on columns (n,), w on rows (m,), original program and units."""

    u: Floats
    w: Floats


def is_regular(piece: Linearization) -> bool:
    """Whether the factorization says at once that K is not singular."""
    return isinstance(piece.system, ReducedSystem) and piece.system.regular


def null_part(local: LocalPoint, piece: Linearization, u: Floats, t: Floats) -> NullVector:
    """The part of a vector that solving K r for r loses: its part in the null space of K.

    Args:
        local: the point.
        piece: whose K.
        u: columns, shape (n,).
        t: rows; w = (D − I) t, shape (m,).
    """
    Dt = piece._spectrum.apply(t)
    Pu, Au = piece.entries.act(local.data, u, Dt - t)
    u2, w2 = piece.solve(Pu, Au + Dt)
    return NullVector(u - u2, Dt - t - w2)


def null_vector(local: LocalPoint, piece: Linearization, seed: int = 1) -> NullVector | None:
    """A random vector of the null space of a piece's K, of this seed; None where K is regular.

    Solving K z = K r gives r back where K is regular and r without its null part where it is not, for every way of
    solving that returns a solution of least norm.
    """
    columns, rows = local.units
    rng = np.random.default_rng(seed)
    u = columns * rng.uniform(0.5, 1.0, len(columns)) * rng.choice((-1.0, 1.0), len(columns))
    t = rows * rng.uniform(0.5, 1.0, len(rows)) * rng.choice((-1.0, 1.0), len(rows))
    found = null_part(local, piece, u, t)
    # Beside entries on rows or columns of zeros, the rounding of the others would be all that products see.
    null = NullVector(_without_rounding(found.u, columns), _without_rounding(found.w, rows))
    # The null space of K is the sum of its parts on columns and on rows; what is rounding is neither.
    Pu, Au = piece.entries.act(local.data, null.u, np.zeros_like(null.w))
    ATw, _ = piece.entries.act(local.data, np.zeros_like(null.u), null.w)
    A, P = local.magnitudes
    tight = piece._spectrum.apply(Au)
    whole = np.concatenate([P @ np.abs(null.u), A @ np.abs(null.u)])
    flat = _vanishes(np.concatenate([Pu, Au - tight]), whole) and lost(null.u, columns)
    torn = _vanishes(ATw, A.T @ np.abs(null.w)) and lost(null.w, rows)
    if not flat and not torn:
        return None
    return NullVector(null.u if flat else np.zeros_like(u), null.w if torn else np.zeros_like(t))


def _without_rounding(part: Floats, unit: Floats) -> Floats:
    size = np.abs(part) / unit
    return np.where(size > NOISE * size.max(initial=0.0), part, 0.0)


def lost(part: Floats, unit: Floats) -> bool:
    """Whether a part of a random vector of the size of its units is more than what rounding loses."""
    return largest(part / unit) > NULL


def _vanishes(value: Floats, whole: Floats) -> bool:
    return largest(value) <= PULLED * largest(whole)


def largest(values: Floats) -> float:
    """The largest magnitude; 0 for an empty array."""
    return float(np.max(np.abs(values), initial=0.0))
