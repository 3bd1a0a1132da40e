"""Whether a kink of Π_K at the point is a kink of the user's solution map.

A cone whose slack and multiplier vanish together (a weakly active row, a second-order cone at its apex …) lies on a
kink of Π_K. The user's map need not have one there:

- the slack can be opened by moving auxiliary columns alone along the set of solutions (an epigraph variable of a slack
  constraint): then the row is slack at another solution with the same user's variables;
- the multiplier can be made positive along the set of multipliers (a duplicated or redundant row): then it is tight;
- all pieces that meet at the kink have the same derivative of the user's variables.

The first two are linear programs over directions, asked of rows alone; for them u = 0 in the user's columns, Pu = 0,
A_r u = 0 and the slacks of weak rows grow, or Aᵀw = 0 and their multipliers do. The third, which covers other cones
too, is asked of `cvxift.kkt.regularity.pieces`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

from cvxift.kkt.regularity.kernel import Kernel
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.thresholds import FELT, STEP
from cvxift.kkt.system.reduced import ReducedSystem, Rotation, rotation
from cvxift.program.structure import Floats

FREED = 0.5  # of the largest step; what lines bound alone can be scaled: the best of it is 0 or 1


@dataclass(frozen=True, eq=False)
class Kinks:
    """What the kinks at a point mean.

    Attributes:
        weak: units on a kink.
        opened: those that auxiliaries can open: counted as slack.
        closed: those whose multiplier can be made positive: counted as tight.
        harmless: those left, if the pieces agree on the user's variables.
        real: those left, if they do not.
        shift: the scaled shift that selects the piece on which the other checks look, shape (m,).
        flat_pieces: share of two pieces, those left all slack and all tight, that have a flat direction in the user's
            variables.
    """

    weak: np.ndarray
    opened: np.ndarray
    closed: np.ndarray
    harmless: np.ndarray
    real: np.ndarray
    shift: Floats
    flat_pieces: float


def touches_user(point: LocalPoint, kernel: Kernel) -> float:
    """Size of the null space's part in the user's columns: 0 where the user's variables have no flat direction."""
    part = kernel.null_columns[point.asked]
    return float(np.linalg.norm(part, 2)) if part.size else 0.0


def find_kinks(point: LocalPoint, differ: bool) -> Kinks:
    """Sort the weak units by what they mean for the user's variables.

    Args:
        point: the point.
        differ: whether the pieces of the solution map that meet at the point differ.
    """
    weak = point.weak
    none = weak[:0]
    rows = weak[point.cones.unit_starts[weak] < point.cones.zero + point.cones.nonneg]
    opened = _opened(point, weak, rows) if len(rows) else none
    left = np.setdiff1d(rows, opened)
    closed = _closed(point, np.union1d(opened, left), left) if len(left) else none
    rest = np.setdiff1d(weak, opened)
    rest = np.setdiff1d(rest, closed)
    shift = _shift(point, opened, 1.0) + _shift(point, closed, -1.0)
    if not len(rest):
        return Kinks(weak, opened, closed, none, none, shift, 0.0)
    sides = [shift + _shift(point, rest, sign) for sign in (1.0, -1.0)]
    flat = float(np.mean([touches_user(point, point.kernel(side)) > FELT for side in sides]))
    real = differ or flat > 0.0
    return Kinks(weak, opened, closed, none if real else rest, rest if real else none, sides[0], flat)


def nonunique(point: LocalPoint) -> Floats | None:
    """A direction in which the user's variables can move without loss, weak rows opening along it.

    Returns:
        The direction, shape (n,), no column over its unit; None if none is found.
    """
    n, user, unit = point.structure.n, point.asked, point.units[0]
    rng = np.random.default_rng(0)
    fixed = _still(point, point.weak) @ sp.diags_array(unit)
    rows = _scaled_rows(point, point.weak) @ sp.diags_array(unit)
    size = np.where(user, 1.0, np.inf)
    for _ in range(2):
        r = np.where(user, rng.standard_normal(n), 0.0)
        for forth in (r, -r):  # a direction whose way back is closed lies on one side of r
            u = _minimize(-forth, fixed, rows, np.c_[-size, size])
            if u is not None and float(np.abs(u[user]).max(initial=0.0)) > FREED:
                return unit * u
    return None


def _shift(point: LocalPoint, units: np.ndarray, sign: float) -> Floats:
    out = np.zeros(point.structure.m)
    for unit in units:
        out[point.rows_of(int(unit))] = sign * STEP * point.interior(int(unit))
    return out


def _kept(point: LocalPoint, slack: np.ndarray) -> tuple[Any, Rotation]:
    """The kept rows A_r with these units counted as slack, scaled by row."""
    turn = rotation(point.cones, point.moved(_shift(point, slack, 1.0)))
    return sp.csr_array(ReducedSystem(point.instance, turn).A_r), turn


def _still(point: LocalPoint, slack: np.ndarray) -> Any:
    """Rows that vanish along directions without curvature on which all kept rows stay."""
    return sp.csr_array(sp.vstack([sp.csr_array(point.instance.P), _kept(point, slack)[0]]))


def _scaled_rows(point: LocalPoint, units: np.ndarray) -> Any:
    at = point.cones.unit_starts[units]
    return sp.csr_array(sp.diags_array(1.0 / point.scales[0][at]) @ point.instance.rows[at])


def _opened(point: LocalPoint, weak: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Weak rows whose slack opens when auxiliaries move along the set of solutions."""
    auxiliary = np.flatnonzero(~point.asked)
    if not len(auxiliary):
        return rows[:0]
    # maximize Σε over u:  Pu = 0, A_r u = 0, A_w u + ε ≤ 0, 0 ≤ ε ≤ 1
    still, moved = _still(point, weak), _scaled_rows(point, rows)
    return rows[_push(still.tocsc()[:, auxiliary], moved.tocsc()[:, auxiliary])]


def _closed(point: LocalPoint, slack: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Weak rows whose multiplier becomes positive along the set of multipliers."""
    A_r, turn = _kept(point, slack)
    stiff = np.ones(A_r.shape[0], dtype=bool)
    # Beside large multipliers v cannot show that the weak rows are open: they are in z already.
    stiff[: len(turn.rows)] = ~np.isin(point.cones.unit_of_row[turn.rows], slack)
    if turn.h is not None:
        stiff[len(turn.rows) :] = turn.h == 0.0
    # maximize Σε over (w, z):  A_rᵀw + A_wᵀz = 0, ε ≤ z, 0 ≤ ε ≤ 1
    balance = sp.hstack([A_r[np.flatnonzero(stiff)].T, _scaled_rows(point, rows).T]).tocsc()
    pick = sp.hstack([sp.csr_array((len(rows), int(stiff.sum()))), -sp.eye_array(len(rows))])
    return rows[_push(balance, pick)]


def _push(fixed: Any, rows: Any) -> np.ndarray:
    """Which ε can be made positive:  maximize Σε over u with  fixed u = 0,  rows u + ε ≤ 0,  0 ≤ ε ≤ 1."""
    count, width = rows.shape
    cost = np.concatenate([np.zeros(width), -np.ones(count)])
    limits = np.concatenate([np.tile((-np.inf, np.inf), (width, 1)), np.tile((0.0, 1.0), (count, 1))])
    wide = sp.hstack([fixed, sp.csr_array((fixed.shape[0], count))])
    u = _minimize(cost, wide, sp.hstack([rows, sp.eye_array(count)]), limits)
    return np.zeros(count, dtype=bool) if u is None else u[width:] > FREED


def _minimize(cost: Floats, equal: Any, rows: Any, limits: Floats) -> Floats | None:
    """minimize costᵀu over  equal u = 0,  rows u ≤ 0,  u within limits;  None if it could not be solved."""
    equal = sp.csr_array(equal)
    size = abs(equal).max(axis=1).toarray().ravel() if equal.shape[0] else np.zeros(0)
    equal = sp.diags_array(1.0 / np.where(size > 0.0, size, 1.0)) @ equal
    zeros = np.zeros(rows.shape[0]), np.zeros(equal.shape[0])
    found = linprog(cost, A_ub=rows, b_ub=zeros[0], A_eq=equal, b_eq=zeros[1], bounds=limits)
    return found.x if found.status == 0 else None
