"""Whether the structured closed forms have a solution, and found it: which entry is wrong, and what to do.

These checks branch on values, so compiled programs go without: there, what cannot be computed comes out as NaN.
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat
import numpy as np

from cvxift._types import Array
from cvxift.errors import ProgramError, SolveError


def check_entries(name: str, x: Array, masks: bool = True) -> None:
    """Refuse NaN and +∞, and −∞ where it cannot be a mask, naming the entry.

    Args:
        name: the function that was called.
        x: its scores.
        masks: whether −∞ masks.

    Raises:
        ProgramError: a score is not allowed.
    """
    xp = array_api_compat.array_namespace(x)
    bad = xp.isnan(x) | (xp.isinf(x) & (x > 0)) if masks else ~xp.isfinite(x)
    where = first(bad)
    if where is not None:
        allowed = "finite numbers, or −∞ for a mask" if masks else "finite numbers"
        raise ProgramError(f"{name} got the score {float(x[where])} at {where}; expected {allowed}.")


def balanced(xp: Any, a: Array, b: Array, rounding: float) -> Array:
    """Column masses b scaled to the total of the row masses a, where the totals differ by their rounding alone.

    Args:
        xp: the namespace.
        a: row masses, (..., n).
        b: column masses, (..., m).
        rounding: of the dtype that the masses were given in, relative.
    """
    ratio = (xp.sum(a, axis=-1) / xp.sum(b, axis=-1))[..., None]
    return xp.where(xp.abs(ratio - 1.0) <= 4.0 * rounding, b * ratio, b)


def check_masses(name: str, x: Array, a: Array, b: Array) -> None:
    """Refuse masses between which there is no transport plan.

    Args:
        name: the function that was called.
        x: scores, (..., n, m), −∞ forbidding an entry.
        a: row masses, (..., n).
        b: column masses, (..., m).

    Raises:
        ProgramError: masses are negative or not finite, their totals differ, or a line has mass but no allowed entry.
    """
    xp = array_api_compat.array_namespace(x, a, b)
    for word, masses in (("a", a), ("b", b)):
        where = first(~((masses >= 0) & xp.isfinite(masses)))
        if where is not None:
            raise ProgramError(f"{name} got the mass {word}{list(where)} = {float(masses[where])}; expected ≥ 0.")
    rows, columns = xp.sum(a, axis=-1), xp.sum(b, axis=-1)
    where = first(unequal(a, b))
    if where is not None:
        raise ProgramError(
            f"{name}: a and b sum to {float(rows[where])} and {float(columns[where])}{_at(where)}; no plan exists "
            "between different totals. Normalize them."
        )
    opened = ~xp.isinf(x) & (a > 0)[..., :, None] & (b > 0)[..., None, :]
    for word, masses, axis in (("row", a, -1), ("column", b, -2)):
        where = first((masses > 0) & ~xp.any(opened, axis=axis))
        if where is not None:
            raise ProgramError(f"{name}: {word} {list(where)} has mass, but only masked entries; no plan exists.")


def unequal(a: Array, b: Array) -> Array:
    """Where the totals of the masses a (..., n) and b (..., m) differ by more than rounding, or are NaN."""
    xp = array_api_compat.array_namespace(a, b)
    rows, columns = xp.sum(a, axis=-1), xp.sum(b, axis=-1)
    return ~(xp.abs(rows - columns) <= math.sqrt(xp.finfo(a.dtype).eps) * (rows + columns))


def without_plan(x: Array, a: Array, b: Array) -> Array:
    """Instances whose scores or masses `check_entries` and `check_masses` would refuse, but for masks, (...)."""
    xp = array_api_compat.array_namespace(x, a, b)
    bad = unequal(a, b) | xp.any(~(x < xp.inf), axis=(-2, -1))
    return bad | xp.any(~(a >= 0), axis=-1) | xp.any(~(b >= 0), axis=-1)


def check_converged(name: str, error: Array, tol: float, iterations: Any, z: Array) -> None:
    """Refuse a plan whose error exceeds the tolerance.

    Args:
        name: the function that was called.
        error: errors of the marginals, (...).
        tol: what they may be.
        iterations: how many were made.
        z: the plans, which the error carries, NaN where they failed.

    Raises:
        SolveError: an error exceeds the tolerance.
    """
    xp = array_api_compat.array_namespace(error)
    bad = ~(error <= tol)
    where = first(bad)
    if where is None:
        return
    flat = np.asarray([bool(value) for value in xp.reshape(bad, (-1,))]).reshape(tuple(bad.shape))
    failures = {}
    for index in map(tuple, np.argwhere(flat).tolist()):
        failures[index] = ("iteration limit", {"marginal error": float(error[index])})
    raise SolveError(
        f"{name}: the marginals are off by {float(error[where]):.1e} of the mass{_at(where)} after {int(iterations)} "
        f"iterations, more than tol = {tol:.1e}. If entries are masked, check that a plan exists within those allowed; "
        "else raise the temperature, tol or max_iterations.",
        status="iteration limit",
        failures=failures,
        solutions=(xp.where(bad[..., None, None], xp.full_like(z, xp.nan), z),),
    )


def first(bad: Array) -> tuple[int, ...] | None:
    """Index of the first true entry; None if there is none."""
    xp = array_api_compat.array_namespace(bad)
    if not bool(xp.any(bad)):
        return None
    flat = xp.reshape(xp.astype(bad, xp.int32), (-1,))
    return tuple(int(i) for i in np.unravel_index(int(xp.argmax(flat)), tuple(bad.shape)))


def _at(where: tuple[int, ...]) -> str:
    return f" in instance {where}" if where else ""
