"""What null vectors of the KKT system mean: dependent active constraints, and directions that may leave the optimum.

The null space of A_rᵀ (on directions without curvature) is spanned by vectors w with Aᵀw = 0. Brought to echelon form,
each basis vector is supported on a circuit: a group that is dependent and none of whose proper subgroups is (Oxley,
Matroid Theory, Proposition 1.2.6). Other pivots give other circuits; the smallest found is reported.

The signs of w say what such a group means. Row j follows from the others, a_j = Σ λ_i a_i with λ_i = −w_i/w_j, if λ_i
is in the dual cone of every inequality i: then it can be removed. If all of w is in the dual cones, the inequalities
add up to 0 ≤ 0: none of them can have slack, and they act as equalities. Otherwise each bounds the feasible set for
itself.

Whether the solution can move in a direction without curvature is decided, not inferred. A null vector of K says that
the objective has no slope and no curvature along it at the point. If it moves linear rows alone, that holds for a whole
step: there are other solutions. If it moves a curved cone, the curvature may vanish at the point alone, as that of x⁴
does at 0, and the solution is unique; then the user's own objective and constraints are evaluated a good way along it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import cvxpy as cp
import numpy as np
from cvxpy.constraints.constraint import Constraint
from cvxpy.constraints.psd import PSD
from scipy.linalg import qr

from cvxift import cones as cone
from cvxift._types import EPS
from cvxift.diagnostics.domain import evaluate, values_at
from cvxift.diagnostics.user_terms import row_name
from cvxift.kkt.engine import ACCEPTABLE
from cvxift.kkt.regularity.kernel import Kernel
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.thresholds import FELT, NOISE
from cvxift.program.agreement import excess
from cvxift.program.recover import ELEMENTWISE
from cvxift.program.structure import Floats

TRIES = 12  # pivot orders that are tried for a few dependences; one for more than `MANY_DEPENDENT`
MANY_DEPENDENT = 16
READ = 8  # groups of entries of the same constraints whose meaning is read; further ones are counted
MOST_CONDITION = 1e8  # of a block of pivots, from which an echelon form says nothing
SUPPORT = 4.0 * EPS * MOST_CONDITION  # part of an echelon vector's largest entry that rounding may leave of a zero
REACH = (0.1, 0.3)  # of the variables' size, that a direction is followed
COSTS = 0.1 * REACH[0] ** 8  # of the growth along the whole size, that is none: even x⁸ has grown ten times as much
EVALUATION_ROUNDING = 1e-12  # of the objective, and of constraints, that evaluating them leaves


@dataclass(frozen=True)
class Dependence:
    """A minimal group of dependent active constraints.

    Attributes:
        names: of the constraints, bounds and entries in it.
        kind: ``"redundant"``: one of them follows from the others; ``"pinned"``: the inequalities among them hold with
            equality only; ``"crossing"``: each of them bounds the feasible set for itself.
        removable: the names that follow from the others and that a user can remove.
        inequalities: the names that are inequalities.
        alike: further groups of entries of the same constraints.
    """

    names: tuple[str, ...]
    kind: Literal["redundant", "pinned", "crossing"]
    removable: tuple[str, ...] = ()
    inequalities: tuple[str, ...] = ()
    alike: int = 0


def loose_multipliers(kernel: Kernel, user: np.ndarray) -> Any:
    """Combinations of active rows that leave the user's multipliers undetermined, equilibrated, shape (m, k)."""
    W = kernel.dependent_rows()
    size = np.sqrt(np.asarray(W[user].multiply(W[user]).sum(axis=0)).ravel())
    return W[:, np.flatnonzero(size > FELT)]


def dependent_groups(point: LocalPoint, kernel: Kernel, user: np.ndarray) -> list[Dependence]:
    """Minimal dependent groups that involve the user's own rows, the smallest first.

    Args:
        point: the point.
        kernel: K there.
        user: mask of the user's rows, shape (m,).
    """
    pairs, basis = kernel.dependences()
    circuits = [*_columns(pairs), *_circuits(basis)]
    found: dict[frozenset[int], tuple[np.ndarray, Floats]] = {}
    for support, values in circuits:
        if user[support].any():
            found.setdefault(frozenset(map(int, support)), (support, values))
    out: dict[tuple[Any, ...], Dependence] = {}
    seen: dict[tuple[int, ...], list[Any]] = {}
    covered: set[str] = set()
    for support, values in sorted(found.values(), key=lambda circuit: len(circuit[0])):
        owners = tuple(np.unique(point.program.row_labels.owners(support)))
        keys = seen.setdefault(owners, [])
        if len(keys) >= READ:
            out[keys[-1]] = replace(out[keys[-1]], alike=out[keys[-1]].alike + 1)
            continue
        group = _read(point, support, values)
        if set(group.names) <= covered:  # one group for each new dependence, not every circuit of the matroid
            continue
        covered |= set(group.names)
        key = (owners, group.kind)
        keys.append(key)
        out[key] = group if key not in out else replace(out[key], alike=out[key].alike + 1)
    return list(out.values())


def _columns(W: Any) -> Iterator[tuple[np.ndarray, Floats]]:
    for k in range(W.shape[1]):
        part = slice(W.indptr[k], W.indptr[k + 1])
        yield W.indices[part], W.data[part]


def _circuits(W: Floats) -> Iterator[tuple[np.ndarray, Floats]]:
    """Rows and values of vectors of minimal support in the column space of W, by echelon forms over pivot orders."""
    k, rng = W.shape[1], np.random.default_rng(0)
    size = np.linalg.norm(W, axis=1)
    rows = np.flatnonzero(size > 0.0)
    W, size = W[rows], size[rows]
    for attempt in range(0 if not k else TRIES if 1 < k <= MANY_DEPENDENT else 1):
        weight = 1.0 / size if attempt == 0 else rng.uniform(0.1, 1.0, len(W)) / size
        factors: tuple[Any, ...] = qr((weight[:, None] * W).T, mode="r", pivoting=True)
        block = W[factors[1][:k]]
        if np.linalg.cond(block) < MOST_CONDITION:
            for vector in np.linalg.solve(block.T, W.T):
                kept = np.abs(vector) > SUPPORT * np.abs(vector).max()
                yield rows[kept], vector[kept]


def _read(point: LocalPoint, support: np.ndarray, values: Floats) -> Dependence:
    """What the group means: members by name, and whether each one's part of w is in its dual cone."""
    labels, w = point.program.row_labels, np.zeros(point.structure.m)
    w[support] = values
    made = {
        label.constraint.id
        for label in (labels[int(row)] for row in support)
        if label.atom is not None and label.constraint is not None
    }
    members: dict[str, list[int]] = {}
    for row in map(int, support):
        label = labels[row]
        whole = label.constraint is not None and label.constraint.id in made  # an atom's rows belong to it as a whole
        name = row_name(point, row)
        members.setdefault(name.split(", entry")[0] if whole else name, []).append(row)
    signs = {name: _signs(point, w, rows) for name, rows in members.items()}
    inequalities = [name for name, sign in signs.items() if sign != (True, True)]
    removable = []
    for name, rows in members.items():
        others = [signs[other] for other in members if other != name]
        up, down = signs[name]
        # w_name in the dual cone: the others must be in minus theirs; an equality needs both.
        follows = (not up or all(sign[1] for sign in others)) and (not down or all(sign[0] for sign in others))
        if (up or down) and follows and _own(point, rows):
            removable.append(name)
    if not removable and len(members) == 2:
        first, second = (labels[rows[0]].constraint for rows in members.values())
        if first is not None and second is not None and first is not second and _same(first, second):
            removable = list(members)  # the same constraint, written twice
    if removable:
        kind = "redundant"
    else:
        pinned = all(up for up, _ in signs.values()) or all(down for _, down in signs.values())
        kind = "pinned" if pinned and inequalities else "crossing"
    return Dependence(tuple(members), kind, tuple(removable), tuple(inequalities))


def _same(first: Any, second: Any) -> bool:
    """Whether two constraints or expressions are the same, part by part."""
    if first is second:
        return True
    if type(first) is not type(second) or len(first.args) != len(second.args):
        return False
    if isinstance(first, cp.Constant):
        return first.shape == second.shape and (not first.size or float(abs(first.value - second.value).max()) == 0.0)
    if not first.args:
        return False  # another variable or parameter
    own = () if isinstance(first, Constraint) else (str(first.get_data()), str(second.get_data()))
    return len(set(own)) <= 1 and all(_same(*pair) for pair in zip(first.args, second.args, strict=True))


def _own(point: LocalPoint, rows: list[int]) -> bool:
    """Whether the rows are those of one linear constraint that the user wrote, which can be removed."""
    linear = point.cones.zero + point.cones.nonneg
    labels = [point.program.row_labels[row] for row in rows]
    return all(row < linear for row in rows) and all(
        label.constraint is not None and label.atom is None for label in labels
    )


def _signs(point: LocalPoint, w: Floats, rows: list[int]) -> tuple[bool, bool]:
    """Whether w, and −w, on the cones of these rows lies in their dual cones; both for equalities."""
    unit = np.isin(point.cones.unit_of_row, np.unique(point.cones.unit_of_row[rows]))
    unit[: point.cones.zero] = False
    if not unit.any():
        return True, True
    part = np.where(unit, w, 0.0)
    if max(rows) < point.cones.zero + point.cones.nonneg:
        return bool((part >= 0.0).all()), bool((part <= 0.0).all())
    size = float(np.abs(part).max())
    # v is in the dual cone where −v projects to zero on the cone (Moreau).
    up = np.abs(cone.project(point.cones, -part)[unit]).max() <= ACCEPTABLE * size
    down = np.abs(cone.project(point.cones, part)[unit]).max() <= ACCEPTABLE * size
    return bool(up), bool(down)


def flat_direction(point: LocalPoint, kernel: Kernel) -> Floats | None:
    """A direction, shape (n,), in which the variables asked for can move without loss; None if none is found.

    First among those that leave curved cones and weakly active rows where they are.
    """
    null = kernel.null_columns
    scale, free = kernel.scale[: kernel.n], null
    fixed = np.isin(point.cones.unit_of_row, point.weak)
    fixed[point.cones.zero + point.cones.nonneg :] = True
    if fixed.any():
        A, sigma = point.instance.rows[np.flatnonzero(fixed)], point.scales[0][fixed, None]
        moved = (A @ (scale[:, None] * null)) / sigma
        _, values, V = np.linalg.svd(moved, full_matrices=True)
        size = np.linalg.norm(abs(A) @ np.abs(scale[:, None] * null) / sigma) or 1.0
        values = np.concatenate([values, np.zeros(V.shape[0] - len(values))])
        free = null @ V[values <= NOISE * size].T
    part = free[point.asked]
    if part.size and np.linalg.norm(part, 2) > FELT:
        u = scale * (free @ np.linalg.svd(part, full_matrices=False)[2][0])
        # Rows that an inaccurate point leaves slack say that it can move; the objective further on says whether it can.
        if point.program.log_mask is not None or _stays(point, _unit(point, u)):
            return u
    for z in _candidates(null[point.asked]):
        for sign in (1.0, -1.0):
            if costs_nothing(point, sign * scale * (null @ z)):
                return sign * scale * (null @ z)
    return None


def steepest(point: LocalPoint, kernel: Kernel) -> Floats:
    """The direction of the null space, shape (n,), that moves the variables asked for most."""
    part = kernel.null_columns[point.asked]
    return kernel.flat_columns() @ np.linalg.svd(part, full_matrices=False)[2][0]


def moves_curved(point: LocalPoint, u: Floats) -> bool:
    """Whether a direction moves a curved cone that is not slack by a good way."""
    linear = point.cones.zero + point.cones.nonneg
    A, tight = point.instance.rows[linear:], point.margins[point.cones.unit_of_row[linear:]] <= REACH[0]
    return bool((np.abs(A @ u)[tight] > NOISE * (abs(A) @ np.abs(u))[tight]).any())


def costs_nothing(point: LocalPoint, u: Floats) -> bool:
    """Whether the user's objective stays, and constraints hold, a good way along a direction."""
    program = point.program
    if program.log_mask is not None:
        return False
    asked = np.abs(u[point.asked]).max(initial=0.0)
    if asked == 0.0:
        return False
    unit = _unit(point, u)
    return _stays(point, unit) and _feasible(point, point.x + REACH[0] * unit)


def _unit(point: LocalPoint, u: Floats) -> Floats:
    """A direction as long as the variables asked for are."""
    asked = float(np.abs(u[point.asked]).max(initial=0.0)) or 1.0
    return u / asked * (float(np.abs(point.x[point.asked]).max(initial=0.0)) or 1.0)


def _stays(point: LocalPoint, unit: Floats) -> bool:
    """Whether the user's objective is the same a good way along a direction."""
    start = _objective(point, point.x)
    far = [abs(value - start) for value in (_objective(point, point.x + t * unit) for t in (*REACH, 1.0))]
    spread = max([value for value in far if np.isfinite(value)], default=0.0)
    return far[0] <= COSTS * spread + EVALUATION_ROUNDING * abs(start)


def _objective(point: LocalPoint, x: Floats) -> float:
    with np.errstate(all="ignore"):
        return float(np.ravel(evaluate(point.program.problem.objective.expr, values_at(point, x)))[0])


def _feasible(point: LocalPoint, x: Floats) -> bool:
    """Whether the user's constraints and attributes hold to rounding; no where a kind of constraint is not known."""
    values = values_at(point, x)
    for variable in point.program.problem.variables():
        value = values[variable.id]
        if np.abs(variable.project(value) - value).max(initial=0.0) > _level(value, 0.0):
            return False
    return all(_holds(constraint, values) for constraint in point.program.problem.constraints)


def _holds(constraint: Any, values: dict[int, Floats]) -> bool:
    if not isinstance(constraint, (*ELEMENTWISE, PSD)):
        return False
    sides = [np.asarray(evaluate(arg, values), dtype=float) for arg in constraint.args]
    return bool(excess(constraint, sides).max(initial=0.0) <= _level(*(*sides, 0.0)[:2]))


def _level(left: Any, right: Any) -> float:
    size = max(1.0, *(float(np.abs(side).max(initial=0.0)) for side in (left, right)))
    return 1e3 * EVALUATION_ROUNDING * size


def _candidates(part: Floats) -> Iterator[Floats]:
    """Combinations of the columns: the one that moves most, and those that move few entries."""
    if not part.size:
        return
    yield from np.linalg.svd(part, full_matrices=False)[2][:1]
    k = part.shape[1]
    if k > 1:
        pivots = np.argsort(-np.linalg.norm(part, axis=1), kind="stable")[: 2 * k]
        yield from np.linalg.lstsq(part[pivots], np.eye(len(pivots)), rcond=None)[0].T[:8]
