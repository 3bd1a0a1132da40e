"""Whether a kink of Π_K at the point is a kink of the user's solution map.

A cone whose slack and multiplier vanish together (a weakly active row, a second-order cone at its apex …) lies on a
kink of Π_K. The user's map need not have one there:

- the slack can be opened by moving auxiliary columns alone along the set of solutions (an epigraph variable of a slack
  constraint): then the cone is slack at another solution with the same user's variables;
- the multiplier can be made positive along the set of multipliers (a duplicated or redundant row): then it is tight;
- all pieces that meet at the kink have the same derivative of the user's variables.

The first two are conic programs over directions; for them u = 0 in the user's columns, Pu = 0, A_r u = 0 and the slacks
of weak cones move inside, or Aᵀw = 0 and their multipliers do. The third is asked of `cvxift.kkt.regularity.pieces`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift import solvers
from cvxift.kkt.regularity.kernel import Kernel
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.thresholds import FELT, STEP
from cvxift.kkt.system.reduced import ReducedSystem, rotation
from cvxift.program.structure import Cones, Floats, Structure

FREED = 1e-3  # of the unit step that a slack or multiplier must move to count as opened


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
    opened = _opened(point, weak) if len(weak) else none
    rest = np.setdiff1d(weak, opened)
    closed = _closed(point, opened, rest) if len(rest) else none
    rest = np.setdiff1d(rest, closed)
    shift = _shift(point, opened, 1.0) + _shift(point, closed, -1.0)
    if not len(rest):
        return Kinks(weak, opened, closed, none, none, shift, 0.0)
    sides = [shift + _shift(point, rest, sign) for sign in (1.0, -1.0)]
    flat = float(np.mean([touches_user(point, point.kernel(side)) > FELT for side in sides]))
    real = differ or flat > 0.0
    return Kinks(weak, opened, closed, none if real else rest, rest if real else none, sides[0], flat)


def nonunique(point: LocalPoint, weak: np.ndarray, closed: np.ndarray | None = None) -> Floats | None:
    """A direction in which the user's variables can move without loss.

    Args:
        point: the point.
        weak: units whose slack may open along it.
        closed: units that count as tight.

    Returns:
        The direction, shape (n,), no column over its unit; None if none is found.
    """
    A_r, P = _tight(point, weak, closed), point.instance.P
    n, user = point.structure.n, point.asked
    rng = np.random.default_rng(0)
    unit = point.units[0]
    fixed = sp.vstack([sp.csr_array(P), A_r]) @ sp.diags_array(unit)
    box = sp.csr_array(sp.eye_array(n))[np.flatnonzero(user)]
    lines: Any = sp.vstack([box, -box])
    cones, rows = _weak_rows(point, weak)
    body: Any = rows @ sp.diags_array(unit)
    for _ in range(2):
        r = np.where(user, rng.standard_normal(n), 0.0)
        for forth in (r, -r):  # a direction whose way back is closed lies on one side of r
            u = _minimize(-forth, fixed, lines, np.ones(lines.shape[0]), cones, body, np.zeros(rows.shape[0]))
            if u is not None and float(np.abs(u[user]).max(initial=0.0)) > FREED:
                return unit * u
    return None


def _shift(point: LocalPoint, units: np.ndarray, sign: float) -> Floats:
    out = np.zeros(point.structure.m)
    for unit in units:
        out[point.rows_of(int(unit))] = sign * STEP * point.interior(int(unit))
    return out


def _tight(point: LocalPoint, slack: np.ndarray, closed: np.ndarray | None = None) -> Any:
    """The kept rows A_r with these units counted as slack and those as tight, scaled by row."""
    shift = _shift(point, slack, 1.0)
    if closed is not None:
        shift = shift + _shift(point, closed, -1.0)
    turn = rotation(point.cones, point.moved(shift))
    return sp.csr_array(ReducedSystem(point.instance, turn).A_r)


def _weak_rows(point: LocalPoint, weak: np.ndarray) -> tuple[Cones, Any]:
    """The weak units as a product cone of their own and their scaled rows of A, in its order."""
    rows = np.concatenate([point.rows_of(int(unit)) for unit in weak]) if len(weak) else np.zeros(0, dtype=int)
    sigma_s, _ = point.scales
    A = point.instance.rows[rows]
    return _cones_of(point, weak), sp.csr_array(sp.diags_array(1.0 / sigma_s[rows]) @ A)


def _cones_of(point: LocalPoint, weak: np.ndarray) -> Cones:
    starts = set(point.cones.unit_starts[weak].tolist())
    linear = point.cones.zero + point.cones.nonneg
    blocks = [block for block in point.cones.blocks() if block.start >= linear and block.start in starts]
    return Cones(
        nonneg=sum(1 for start in starts if start < linear),
        soc=tuple(block.stop - block.start for block in blocks if block.kind == "soc"),
        psd=tuple(int(block.param or 0) for block in blocks if block.kind == "psd"),
        exp=sum(1 for block in blocks if block.kind == "exp"),
        pow=tuple(float(block.param or 0.5) for block in blocks if block.kind == "pow"),
    )


def _inward(point: LocalPoint, units: np.ndarray) -> Any:
    """One column a unit: its interior direction in its rows."""
    parts = [point.interior(int(unit))[:, None] for unit in units]
    return sp.csr_array(sp.block_diag(parts)) if parts else sp.csr_array((0, 0))


def _opened(point: LocalPoint, weak: np.ndarray) -> np.ndarray:
    """Weak units whose slack opens when auxiliaries move along the set of solutions."""
    auxiliary = np.flatnonzero(~point.asked)
    if not len(auxiliary):
        return weak[:0]
    # maximize Σε over u:  Pu = 0, A_r u = 0, −A_b u − ε_b e_b ∈ K_b, 0 ≤ ε ≤ 1
    fixed = sp.vstack([sp.csr_array(point.instance.P), _tight(point, weak)]).tocsc()[:, auxiliary]
    cones, rows = _weak_rows(point, weak)
    return weak[_push(point, weak, cones, fixed, rows.tocsc()[:, auxiliary], 1.0)]


def _closed(point: LocalPoint, opened: np.ndarray, weak: np.ndarray) -> np.ndarray:
    """Weak units whose multiplier becomes positive along the set of multipliers."""
    # Multipliers stay complementary to the slack, so only where that is zero can they move inside the dual cone.
    linear = point.cones.zero + point.cones.nonneg
    kinds = {int(b.start): b.kind for b in point.cones.blocks()}
    size = np.zeros(point.cones.units)
    np.maximum.at(size, point.cones.unit_of_row, np.abs(point.s / point.scales[0]))
    starts = point.cones.unit_starts
    weak = np.array(
        [
            unit
            for unit in weak
            if starts[unit] < linear or (kinds[int(starts[unit])] in ("soc", "psd") and size[unit] <= point.tolerance)
        ],
        dtype=int,
    )
    if not len(weak):
        return weak
    turn = rotation(point.cones, point.moved(_shift(point, np.union1d(opened, weak), 1.0)))
    A_r: Any = sp.csr_array(ReducedSystem(point.instance, turn).A_r)
    stiff = np.ones(A_r.shape[0], dtype=bool)
    if turn.h is not None:
        stiff[len(turn.rows) :] = turn.h == 0.0
    cones, rows = _weak_rows(point, weak)
    # maximize Σε over (w, z):  A_rᵀw + A_bᵀz = 0, z_b − ε_b e_b ∈ K_b*, 0 ≤ ε ≤ 1
    balance = sp.hstack([A_r[np.flatnonzero(stiff)].T, rows.T]).tocsc()
    pick = sp.hstack([sp.csr_array((rows.shape[0], int(stiff.sum()))), sp.eye_array(rows.shape[0])])
    return weak[_push(point, weak, cones, balance, sp.csc_array(pick), -1.0)]


def _push(point: LocalPoint, weak: np.ndarray, cones: Cones, fixed: Any, rows: Any, sign: float) -> np.ndarray:
    """Which ε can be made positive:  maximize Σε over u with  fixed u = 0,  −sign·rows u − ε e ∈ K,  0 ≤ ε ≤ 1."""
    count, width = len(weak), int(rows.shape[1])
    inward = _inward(point, weak)
    zeros = sp.csr_array((fixed.shape[0], count))
    lines = sp.hstack([sp.csr_array((2 * count, width)), sp.vstack([sp.eye_array(count), -sp.eye_array(count)])])
    bounds = np.concatenate([np.ones(count), np.zeros(count)])
    cost = np.concatenate([np.zeros(width), -np.ones(count)])
    body: Any = sp.hstack([sign * sp.csr_array(rows), inward])
    u = _minimize(cost, sp.hstack([fixed, zeros]), lines, bounds, cones, body, np.zeros(body.shape[0]))
    return np.zeros(count, dtype=bool) if u is None else u[width:] > FREED


def _minimize(
    cost: Floats, equal: Any, lines: Any, bounds: Floats, cones: Cones, body: Any, b: Floats
) -> Floats | None:
    """minimize costᵀu over  equal u = 0,  lines u ≤ bounds,  b − body u ∈ cones;  None if it could not be solved."""
    equal = sp.csr_array(equal)
    empty = np.zeros(0, dtype=int)
    equal = equal[np.flatnonzero(np.diff(equal.indptr))]
    size = np.asarray(abs(equal).max(axis=1).todense()).ravel() if equal.shape[0] else np.ones(0)
    equal = sp.diags_array(1.0 / np.where(size > 0, size, 1.0)) @ equal if equal.shape[0] else equal
    total = Cones(
        zero=equal.shape[0],
        nonneg=cones.nonneg + lines.shape[0],
        soc=cones.soc,
        psd=cones.psd,
        exp=cones.exp,
        pow=cones.pow,
    )
    body = sp.csr_array(body)
    linear, rest = body[: cones.nonneg], body[cones.nonneg :]
    A = sp.csc_array(sp.vstack([equal, lines, linear, rest]))
    A.eliminate_zeros()
    A.sort_indices()
    coo = A.tocoo()
    n = len(cost)
    structure = Structure.from_patterns(n, total, P=(empty, empty), A=(coo.row, coo.col))
    right = np.concatenate([np.zeros(equal.shape[0]), bounds, b])
    raw = solvers.get("clarabel").session(structure).solve(np.zeros(0), cost, np.asarray(A.data, dtype=float), right)
    return raw.x if raw.status.has_point and np.isfinite(raw.x).all() else None
