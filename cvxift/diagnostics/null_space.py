"""What null vectors of the KKT system mean: dependent active constraints, and directions without curvature.

The null space of A_rᵀ (on directions without curvature) is spanned by vectors w with Aᵀw = 0. Brought to echelon form,
each basis vector is supported on a circuit: a group that is dependent and none of whose proper subgroups is (Oxley,
Matroid Theory, Proposition 1.2.6). Other pivots give other circuits; the smallest found is reported.

The signs of w say what such a group means. Row j follows from the others, a_j = Σ λ_i a_i with λ_i = −w_i/w_j, if λ_i
is in the dual cone of every inequality i: then it can be removed. If all of w is in the dual cones, the inequalities
add up to 0 ≤ 0: none of them can have slack, and they act as equalities. Otherwise each bounds the feasible set for
itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import cvxpy as cp
import numpy as np
from cvxpy.constraints.constraint import Constraint
from scipy.linalg import qr

from cvxift import cones as cone
from cvxift._types import EPS
from cvxift.diagnostics.user_terms import row_name
from cvxift.kkt.engine import ACCEPTABLE
from cvxift.kkt.regularity.kernel import Kernel
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.thresholds import FELT
from cvxift.program.structure import Floats

TRIES = 12  # pivot orders that are tried for a few dependences; one for more than `MANY_DEPENDENT`
MANY_DEPENDENT = 16
READ = 8  # groups of entries of the same constraints whose meaning is read; further ones are counted
MOST_CONDITION = 1e8  # of a block of pivots, from which an echelon form says nothing
SUPPORT = 4.0 * EPS * MOST_CONDITION  # part of an echelon vector's largest entry that rounding may leave of a zero


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


def steepest(point: LocalPoint, kernel: Kernel) -> Floats:
    """The direction of the null space, shape (n,), that moves the variables asked for most."""
    part = kernel.null_columns[point.asked]
    return kernel.flat_columns() @ np.linalg.svd(part, full_matrices=False)[2][0]
