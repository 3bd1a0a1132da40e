"""The whole canonical point (x, s, y) of a recognized program, from its allocation: auxiliaries, slacks, multipliers.

The allocation fixes z. Quadratic auxiliaries follow from their own rows, epigraphs from the tight cones; the
multipliers follow from stationarity, column by column: auxiliaries and epigraphs first, then the sums' at the entries
that no bound holds, then the bounds'.
"""

from __future__ import annotations

import numpy as np

from cvxift.argmax.recognition.entropy_points import place_entropies
from cvxift.argmax.recognition.form import Form
from cvxift.argmax.recognition.kinds import Entmax
from cvxift.argmax.recognition.plans import PlanAllocation
from cvxift.argmax.recognition.separable import Allocation
from cvxift.program.structure import Data, Floats, Structure


def canonical_point(
    structure: Structure, form: Form, data: Data, found: Allocation, stiffness: float
) -> tuple[Floats, Floats, Floats]:
    """The optimal canonical point.

    Args:
        structure: the program's structure.
        form: its form.
        data: its data, unbatched.
        found: the allocation at these data, unbatched.
        stiffness: the objective's curvature c in the units of the scores; that of the plan, if it is one.

    Returns:
        x (n,), s (m,), y (m,).
    """
    where = form.layout
    z = np.empty(len(where.columns))
    z[where.groups] = found.z
    x, y = np.zeros(structure.n), np.zeros(structure.m)
    x[where.columns] = z
    A = structure.A_matrix(data.A)
    s = data.b - A @ x
    P = np.asarray(structure.P_matrix(data.P).diagonal() if structure.nnzP else np.zeros(structure.n), dtype=float)

    where.squares.place(P, data.q, x, s, y)
    place_entropies(structure, where.epigraphs, data, x, s, y)

    gradient = P * x + data.q + A.T @ y
    held_low, held_high = (_on_entries(form, mask) for mask in (found.at_lower, found.at_upper))
    if held_low is None:
        held_low = z <= 0.0 if isinstance(form.kind, Entmax) else np.zeros(len(z), dtype=bool)
    if held_high is None:
        held_high = np.zeros(len(z), dtype=bool)
    slope = np.empty(len(z))
    slope[where.groups] = found.slope
    own = gradient[where.columns]
    if where.sum_rows is not None:
        if isinstance(found, PlanAllocation):
            missing = np.flatnonzero(where.sum_rows < 0)
            multiplier = stiffness * found.multipliers(int(missing[0]) - found.size[0] if len(missing) else 0)
            there = np.flatnonzero(where.sum_rows >= 0)
            y[where.sum_rows[there]] = multiplier[there] / where.sum_gain[there]
            moved = found.spread(multiplier[None])
        else:
            multiplier = _sum_multipliers(form, own, slope, held_low, held_high)
            y[where.sum_rows] = multiplier / where.sum_gain
            moved = multiplier[:, None]
        shifted = own.copy()
        shifted[where.groups] += moved
        own = shifted
    for bound_rows, gain, held, sign in (
        (where.lower_rows, form.gain_lower, held_low, 1.0),
        (where.upper_rows, form.gain_upper, held_high, -1.0),
    ):
        at = np.flatnonzero(held & (bound_rows >= 0))
        y[bound_rows[at]] = sign * own[at] / gain[at]
    trees = where.epigraphs.trees
    if trees is not None:
        at = np.flatnonzero(held_low & (where.lower_rows < 0))
        trees.press(y, where.columns[at], own[at])
    linear = slice(structure.cones.zero, structure.cones.zero + structure.cones.nonneg)
    s[: structure.cones.zero] = 0.0
    s[linear] = np.where(y[linear] > 0.0, 0.0, s[linear])
    return x, s, y


def violation(structure: Structure, data: Data, x: Floats, s: Floats, y: Floats) -> float:
    """How far the point is from optimal, relative to its size; infinite where it is no number.

    Args:
        structure: the program's structure.
        data: its data, unbatched.
        x: columns, shape (n,).
        s: slacks, shape (m,).
        y: multipliers, shape (m,).

    Returns:
        The largest relative residual of Px + q + Aᵀy = 0, Ax + s = b, s ∈ K, y ∈ K*, sᵀy = 0; of curved cones only
        what their boundary does not make so: sᵀy and the multipliers' signs.
    """
    cones, A = structure.cones, structure.A_matrix(data.A)
    Px = structure.P_matrix(data.P) @ x if structure.nnzP else np.zeros_like(x)
    ATy, Ax = A.T @ y, A @ x
    linear, first = slice(cones.zero, cones.zero + cones.nonneg), cones.zero + cones.nonneg
    sign = -1.0 if cones.exp else 1.0
    size_s, size_y = 1.0 + np.abs(s).max(initial=0.0), 1.0 + np.abs(y).max(initial=0.0)
    errors = (
        np.abs(Px + data.q + ATy).max() / (1.0 + max(np.abs(data.q).max(), np.abs(ATy).max(), np.abs(Px).max())),
        np.abs(Ax + s - data.b).max(initial=0.0) / (1.0 + max(np.abs(Ax).max(initial=0.0), size_s)),
        np.max(-s[linear], initial=0.0) / size_s,
        np.max(-y[linear], initial=0.0) / size_y,
        np.abs(s[linear] * y[linear]).max(initial=0.0) / (size_s * size_y),
        abs(float(s[first:] @ y[first:])) / (size_s * size_y),
        np.max(-sign * y[first::3], initial=0.0) / size_y,
    )
    worst = float(np.max(errors))  # NaN if any is
    return worst if worst == worst else float("inf")


def _on_entries(form: Form, mask: np.ndarray | None) -> np.ndarray | None:
    if mask is None:
        return None
    out = np.empty(len(form.layout.columns), dtype=bool)
    out[form.layout.groups] = mask
    return out


def _sum_multipliers(form: Form, own: Floats, slope: Floats, held_low: np.ndarray, held_high: np.ndarray) -> Floats:
    """−(gradient) of each group's free entries, shape (G,); where all are held, the middle of what is left."""
    groups = form.layout.groups
    best = np.take_along_axis(groups, np.argmax(slope[groups], axis=1)[:, None], axis=1)[:, 0]
    out = -own[best]
    for g in np.flatnonzero(slope[groups].max(axis=1) == 0.0):
        members = groups[g]
        # gradient + multiplier is ≥ 0 at lower bounds, ≤ 0 at upper ones
        least = np.max(-own[members[held_low[members]]], initial=-np.inf)
        most = np.min(-own[members[held_high[members]]], initial=np.inf)
        out[g] = 0.5 * (least + most) if np.isfinite(most - least) else (least if np.isfinite(least) else most)
    return out
