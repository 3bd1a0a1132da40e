"""Whether a problem is a transport plan, and its closed form.

    z_ij = φ(x_ij − u_i − v_j),   Σ_j z_ij = a_i,   Σ_i z_ij = b_j,       φ exp, or the positive part

It has the terms of a separable problem, and equalities α_i Σ_j z_ij = a_i and β_j Σ_i z_ij = b_j for all rows and
columns but one at most, which follows from the others; with masses that depend on θ one must be missing. The entries of
an m × n plan lie in one group, (…, 1, mn), and so do its sums (a, b), (…, 1, m + n).

Source: Cuturi 2013 (exp); Blondel, Seguy, Rolet 2018 (the positive part).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, csgraph_from_dense, floyd_warshall

from cvxift._types import EPS, Indices, override
from cvxift.argmax.closed_form.affine import Rows, gathered
from cvxift.argmax.closed_form.derivative import Argmax, Sums
from cvxift.argmax.closed_form.form import Form, Solved
from cvxift.argmax.closed_form.separable import bounds, pieces_of_one, regularizer, without_idle
from cvxift.argmax.closed_form.terms import Problem
from cvxift.argmax.closed_form.tree import need
from cvxift.argmax.polytope import fit, potentials
from cvxift.argmax.quadratic_transport import quadratic_transport
from cvxift.argmax.sinkhorn import sinkhorn
from cvxift.program.structure import Floats

EQUAL_TOTALS = 1e-12  # relative difference of the totals up to which a plan exists
SUMS_ROUNDING = 64 * EPS  # error of a plan's sums, relative to the total, that passes for none
NEAR_KINK = 1e-6  # relative distance from a kink up to which other multipliers are looked for
ROUNDING = 1024 * EPS  # relative to what an entry may hold at most


class PlanSums(Sums):
    """Rows' and columns' sums of a plan, side by side; see `polytope`.

    Args:
        s: shape (…, 1, mn).
        size: (m, n).
    """

    def __init__(self, s: Floats, size: tuple[int, int]) -> None:
        self._size, self._s = size, s.reshape(*s.shape[:-2], *size)

    def _matrix(self, flat: Floats) -> Floats:
        return flat.reshape(*flat.shape[:-2], *self._size)

    @staticmethod
    def _joined(u: Floats, v: Floats) -> Floats:
        return np.concatenate([u, v], axis=-1)[..., None, :]

    @override
    def total(self, r: Floats) -> Floats:
        matrix = self._matrix(r)
        return self._joined(matrix.sum(axis=-1), matrix.sum(axis=-2))

    @override
    def spread(self, tau: Floats) -> Floats:
        both = tau[..., 0, : self._size[0], None] + tau[..., 0, None, self._size[0] :]
        return both.reshape(*both.shape[:-2], 1, -1)

    @override
    def solve(self, k: Floats) -> Floats:
        return self._joined(*potentials(self._s, k[..., 0, : self._size[0]], k[..., 0, self._size[0] :]))

    @override
    def fit(self, w: Floats) -> Floats:
        w = self._matrix(w)
        return self._joined(*fit(self._s, np.broadcast_to(w, np.broadcast_shapes(self._s.shape, w.shape))))


class Plan(Argmax):
    """Solved plans.

    Args:
        z: shape (…, 1, mn).
        level: x − u ⊕ v, of z's shape.
        size: (m, n).
        entropic: which φ.
    """

    def __init__(self, z: Floats, level: Floats, size: tuple[int, int], entropic: bool) -> None:
        self.z, self.level, self.size, self._entropic = z, level, size, entropic
        self.held = {}

    @cached_property
    @override
    def slope(self) -> Floats:
        return self.z if self._entropic else (self.z > 0).astype(float)

    @property
    @override
    def bend(self) -> Floats | None:
        return self.z if self._entropic else None

    @cached_property
    @override
    def sums(self) -> Sums:
        return PlanSums(self.slope, self.size)

    @property
    def parted(self) -> bool:
        """Whether a plan's entries above zero leave its rows and columns in several parts, whose totals must agree."""
        return any(_parts(part)[0] > 1 for part in self.slope.reshape(-1, *self.size) > 0)

    def settle(self, a: Floats, b: Floats) -> None:
        """Leave no entry of a quadratic plan near a kink without need: Newton's method ends where one comes in."""
        lead = self.z.shape[:-2]
        plans, levels = (flat.reshape(*lead, *self.size) for flat in (self.z, self.level))
        a, b = (np.broadcast_to(sums, (*lead, sums.shape[-1])) for sums in (a, b))
        size = np.abs(levels)
        near = size.min(axis=(-2, -1)) <= NEAR_KINK * (1.0 + size.max(axis=(-2, -1)))
        for index in map(tuple, np.argwhere(near)):
            _settle(plans[index], levels[index], a[index], b[index])


def _parts(edges: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """How many pieces a bipartite graph, (m, n), has, and to which one each row and each column belongs."""
    m, n = edges.shape
    i, j = np.nonzero(edges)
    graph = coo_array((np.ones(len(i)), (i, m + j)), shape=(m + n, m + n))
    count, labels = connected_components(graph, directed=False)
    return count, labels[:m], labels[m:]


def _settle(z: Floats, level: Floats, a: Floats, b: Floats) -> None:
    """One plan and its level, (m, n), settled in place.

    Entries that hold no more than roundings are none of the plan's where the parts of its support balance without them.
    Then the parts are moved as far apart as the optimality conditions let them.
    """
    balance = SUMS_ROUNDING * a.sum()
    for support in (z > ROUNDING * np.minimum(a[:, None], b[None, :]), z > 0):
        count, rows, columns = _parts(support)
        rest = np.bincount(rows, a, count) - np.bincount(columns, b, count)
        if count == 1 or (np.abs(rest) <= balance).all():
            break
    if count > 1:
        z[rows[:, None] != columns[None, :]] = 0.0
        t = _apart(level, count, rows, columns)
        level += t[columns][None, :] - t[rows][:, None]


def _apart(level: Floats, count: int, rows: np.ndarray, columns: np.ndarray) -> Floats:
    """t to add to the parts' u, and to subtract from their v, so that the plan stays optimal, far from a kink.

    It does as long as t_d − t_c ≤ w_cd, the distance to zero of the largest level between the rows of c and the columns
    of d. Shortest distances from a part, or minus those to it, are such t. Their mean over all parts leaves each level
    strictly negative for which any t does: a constraint is tight for all of them only on a cycle of length zero, which
    holds it for every t.
    """
    largest = np.full((count, count), -np.inf)
    np.maximum.at(largest, (rows[:, None], columns[None, :]), level)
    distance = np.where(np.eye(count, dtype=bool), 0.0, np.maximum(-largest, 0.0))
    distance = floyd_warshall(csgraph_from_dense(distance, null_value=np.inf))  # a zero is an edge
    return 0.5 * (distance.mean(axis=0) - distance.mean(axis=1))


class PlanForm(Form[Plan]):
    """θ ↦ a plan.

    Args:
        entropic: which φ.
        inputs: score, stiffness and perhaps prior of each of the problem's entries.
        total: the masses a and b, m + n rows.
        entry: see `Form`.
        size: (m, n).
        slope: of a linear part of Ω that the scores are without; multipliers make up for it.
    """

    def __init__(
        self,
        entropic: bool,
        inputs: Mapping[str, Rows],
        total: Rows,
        entry: Indices,
        size: tuple[int, int],
        slope: float = 0.0,
    ) -> None:
        pieces = {**pieces_of_one(inputs, entry), "total": (total, (1, sum(size)))}
        super().__init__("entropic transport" if entropic else "quadratic transport", pieces, entry)
        self._entropic, self._size = entropic, size
        self._unit = 1.0 if entropic else slope

    def at(self, x: Floats, values: Mapping[str, Floats]) -> Plan | None:
        """The plan; None unless all masses are positive and their totals equal."""
        m = self._size[0]
        a, b = values["total"][..., 0, :m], values["total"][..., 0, m:]
        totals = a.sum(axis=-1), b.sum(axis=-1)
        if not ((a > 0).all() and (b > 0).all() and (np.abs(totals[0] - totals[1]) <= EQUAL_TOTALS * totals[0]).all()):
            return None
        scores, lead = x.reshape(*x.shape[:-2], *self._size), x.shape[:-2]
        a, b = (np.broadcast_to(sums, (*lead, sums.shape[-1])) for sums in (a, b))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = (sinkhorn if self._entropic else quadratic_transport)(scores, a, b)
        if not (found.error <= SUMS_ROUNDING).all():
            return None
        out = Plan(found.z.reshape(x.shape), found.level.reshape(x.shape), self._size, self._entropic)
        if not self._entropic:
            out.settle(a, b)
        return None if "total" in self.inputs.moving and out.parted else out

    @override
    def margins(self, state: Solved[Plan]) -> Floats:
        if self._entropic:
            return super().margins(state)
        level = state.inner.level
        size = np.abs(level * np.where(level > 0, 1.0, state.scores.stiffness))
        return size.min(axis=(-2, -1)) / (1.0 + size.max(axis=(-2, -1)))

    @override
    def shifts(self, state: Solved[Plan]) -> Floats | None:
        return state.scores.x - state.inner.level - self._unit


def read_plan(problem: Problem) -> Form:
    """The closed form.

    Raises:
        Unknown: the problem has none.
    """
    need(len(problem.variables) == 1 and not len(problem.tops.size), "several variables, or sums of largest entries")
    order, size, total = _grid(problem)
    kind, inputs = regularizer(problem, True)
    need(kind.name in ("softmax", "budget"), "a plan with another entropy")
    entropic = kind.name == "softmax"
    masses = np.where(total.varies, np.inf, total.c)
    implied = np.empty(problem.n)
    implied[order] = np.minimum(masses[: size[0], None], masses[size[0] :]).ravel()
    low, high = without_idle(*bounds(problem), entropic, implied)
    need(entropic or (low is not None and not low.moving and not low.c.any()), "squares without z ≥ 0")
    need(high is None, "upper bounds in a plan")
    return PlanForm(entropic, inputs, total, order, size)


def _grid(problem: Problem) -> tuple[Indices, tuple[int, int], Rows]:
    """The plan's entries row by row, (mn,), its shape, and its masses, a and b."""
    E, K = problem.E, problem.n
    sizes, entry = np.diff(E.indptr), E.indices
    need(len(sizes) >= 3 and sizes.min() >= 2 and sizes.sum() <= 2 * K, "the sums do not cover the entries twice")
    owner = np.repeat(np.arange(len(sizes)), sizes)
    gain = E.data[E.indptr[:-1]]
    need(np.all(E.data == gain[owner]), "a sum is weighted")

    # Lines that cross the first one are of the other direction; those with an entry of the first entry's, too.
    first = np.zeros(K, dtype=bool)
    first[entry[: sizes[0]]] = True
    crossing = np.zeros(len(sizes), dtype=bool)
    crossing[owner[first[entry]]] = True
    crossing[0] = False
    places = np.full((2, K), -1)
    places[crossing[owner].astype(int), entry] = owner
    counts = [int(np.count_nonzero(places[side] >= 0)) for side in (0, 1)]
    need(counts[0] + counts[1] == len(entry), "two sums of one direction overlap")
    need(max(counts) == K, "no direction covers all entries")
    complete = 0 if counts[0] == K else 1
    full, part = places[complete], places[1 - complete]
    if counts[1 - complete] == K and full[0] != full[1]:
        full, part = part, full  # the plan then lies as its entries do
    used, i = np.unique(full, return_inverse=True)
    others, j = np.unique(part, return_inverse=True)  # a missing line comes first, as −1
    m, n = len(used), len(others)
    need(m >= 2 and n >= 2 and m * n == K, "the sums are not those of a matrix")
    order = np.full(K, -1)
    order[i * n + j] = np.arange(K)
    need(order.min() >= 0, "two entries have the same sums")
    # Lines in the order of their first entries, so that the plan lies as its entries do wherever it can.
    order = order.reshape(m, n)
    down = np.argsort(order.min(axis=1))
    across = np.argsort(order[down[0]])
    line = np.concatenate([used[down], others[across]])
    there = np.flatnonzero(line >= 0)
    masses = problem.b[line[there]].times(1.0 / gain[line[there]])
    parts = [(there, masses)]
    for gap in np.flatnonzero(line < 0):  # a missing mass is what the others leave
        parts.append((np.full(len(there), gap), masses.times(np.where(there < m, 1.0, -1.0))))
    total = gathered(m + n, problem.N, parts)
    need(line.min() < 0 or not total.moving, "redundant sums with masses that are parameters")
    return order[down][:, across].ravel(), (m, n), total
