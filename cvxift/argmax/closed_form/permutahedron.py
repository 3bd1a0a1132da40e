"""Whether a problem is the projection onto a permutahedron, and its closed form.

    minimize  ½c‖z‖² − aᵀz   or   c Σ z log z − aᵀz    subject to  Σ z = W_n,  the k largest of z sum to ≤ W_k, k < n

Bounds on single entries are bounds for k = 1 or n − 1 where all entries have the same. Further ones may stand beside
(z ≥ 0); the form is taken where they never hold, their gap to the W being ≥ 0.

With x = a/c sorted decreasingly and w_k = W_k − W_{k−1} as well, blocks B of consecutive entries from the isotonic
regression of x on w (of x on log w for the entropic regularizer, see `isotonic`) share a multiplier τ_B, and

    z_i = x_i − τ_B  or  exp(x_i − τ_B),     Σ_B z = Σ_B w.

The multiplier of the bound on the k largest is λ_k = c (τ_k − τ_{k+1}): positive between blocks, zero inside of one,
where the bound has a slack instead. Blocks are about to merge where λ_k = 0, and about to split where that slack is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from cvxift._types import EPS, Indices, override
from cvxift.argmax.closed_form.affine import Rows, gathered
from cvxift.argmax.closed_form.derivative import Argmax, GroupSums, Moved, Sums
from cvxift.argmax.closed_form.form import Form, Solved
from cvxift.argmax.closed_form.separable import pieces_of_one, regularizer
from cvxift.argmax.closed_form.terms import Problem
from cvxift.argmax.closed_form.tree import need
from cvxift.argmax.isotonic import blocks, project, segment_sum
from cvxift.program.structure import Floats

ROUNDING = 64 * EPS  # relative to sums of values, differences up to which they are the same


class Places:
    """Blocks as groups; what they have stands at the places at which they begin.

    Args:
        at: for each entry the place at which its block begins, (…, 1, n).
    """

    def __init__(self, at: Indices) -> None:
        self._at = at

    def sum(self, values: Floats) -> Floats:
        """The sum over each block; 0 at other places."""
        if values.shape == self._at.shape:
            return segment_sum(values, self._at)
        shape = np.broadcast_shapes(values.shape, self._at.shape)
        return segment_sum(np.broadcast_to(values, shape), np.broadcast_to(self._at, shape))

    def spread(self, values: Floats) -> Floats:
        """For each entry its block's value."""
        at = self._at if values.shape == self._at.shape else np.broadcast_to(self._at, values.shape)
        return np.take_along_axis(values, at, axis=-1)


class BlockSums(GroupSums):
    """Each block of entries has a sum, that of its values.

    Args:
        s: shape (…, 1, n).
        label: for each entry the place at which its block begins.
        first: the same for each place in decreasing order.
    """

    def __init__(self, s: Floats, label: Indices, first: Indices) -> None:
        super().__init__(s, Places(label))
        self._values = Places(first)

    @override
    def inputs(self, moved: Moved) -> Floats | None:
        return self._values.sum(moved["values"]) if "values" in moved else None

    @override
    def cotangents(self, m: Floats) -> dict[str, Floats]:
        return {"values": self._values.spread(m)}


class Blocks(Argmax):
    """Projections, shapes (…, 1, n).

    Args:
        z: the projections.
        entropic: whether φ is exp.
        order: z's entries from the largest on.
        w: the values, from the largest on.
        first: for each place in that order, the place at which its block begins.
        label: the same for each entry.
        shift: τ for each place.
    """

    def __init__(
        self, z: Floats, entropic: bool, order: Indices, w: Floats, first: Indices, label: Indices, shift: Floats
    ) -> None:
        self.z, self._entropic, self.order, self.w, self.first, self.shift = z, entropic, order, w, first, shift
        self._label, self.held = label, {}

    @cached_property
    @override
    def slope(self) -> Floats:
        return self.z if self._entropic else np.ones_like(self.z)

    @property
    @override
    def bend(self) -> Floats | None:
        return self.z if self._entropic else None

    @cached_property
    @override
    def sums(self) -> Sums:
        return BlockSums(self.slope, self._label, self.first)

    @property
    def between(self) -> np.ndarray:
        """Which neighbours in the order are in different blocks, (…, 1, n − 1)."""
        return self.first[..., 1:] == np.arange(1, self.first.shape[-1])


class PermutahedronForm(Form[Blocks]):
    """θ ↦ a projection.

    Args:
        entropic: whether the regularizer is Shannon's entropy, or the half square.
        inputs: score, stiffness and perhaps prior of each entry.
        values: w.
        gap: slacks of the bounds that must never hold; None without such.
    """

    def __init__(self, entropic: bool, inputs: Mapping[str, Rows], values: Rows, gap: Rows | None = None) -> None:
        n = len(values.c)
        pieces = {**pieces_of_one(inputs, np.arange(n)), "values": (values, (1, n))}
        if gap is not None:
            pieces["gap"] = gap, (1, len(gap.c))
        super().__init__("entropic permutahedron" if entropic else "permutahedron", pieces, np.arange(n))
        self._entropic = entropic
        self._values = None if {"values", "gap"} & self.inputs.moving else self._decreasing(self.inputs.constant)

    @override
    def at(self, x: Floats, values: Mapping[str, Floats]) -> Blocks | None:
        w = self._decreasing(values) if self._values is None else self._values
        if w is None:
            return None
        order = np.argsort(-x, axis=-1, kind="stable")
        s, w = np.take_along_axis(x, order, axis=-1), np.broadcast_to(w, x.shape)
        regularizer = "entropic" if self._entropic else "quadratic"
        target = np.log(w) if self._entropic else w
        first = blocks(s, target, regularizer)
        level = project(s, target, first, regularizer, segment_sum)
        # Multipliers from the same entry of each block: equal to the last bit inside of it.
        shift = np.take_along_axis(s - level, first, axis=-1)
        back = np.argsort(order, axis=-1)
        z = np.take_along_axis(np.exp(level) if self._entropic else level, back, axis=-1)
        if not np.isfinite(z).all():
            return None
        found = Blocks(z, self._entropic, order, w, first, np.take_along_axis(first, back, axis=-1), shift)
        # Values at which single entries are held cannot all move as they please.
        return None if "values" in self.inputs.moving and self._held(found).any() else found

    def _decreasing(self, values: Mapping[str, Floats]) -> Floats | None:
        """The values w, equal where they are so up to rounding; None if the form is not what the problem asks."""
        w, gap = values["values"], values.get("gap")
        if not np.isfinite(w).all() or (self._entropic and not (w > 0).all()):
            return None
        size = np.abs(np.cumsum(w, axis=-1)).max(axis=-1, keepdims=True)
        steps = w[..., :-1] - w[..., 1:]
        if (steps < -ROUNDING * size).any() or (gap is not None and (gap < -ROUNDING * size).any()):
            return None
        tied = steps <= ROUNDING * size
        if not tied.any() or "values" in self.inputs.moving:
            return w
        # The sums of the k largest come with rounding: without ties made exact, they would pass for steps.
        begins = np.concatenate([np.ones_like(tied[..., :1]), ~tied], axis=-1)
        first = np.maximum.accumulate(np.where(begins, np.arange(w.shape[-1]), 0), axis=-1)
        sums, count = segment_sum(w, first), segment_sum(np.ones_like(w), first)
        return np.take_along_axis(sums / np.maximum(count, 1.0), first, axis=-1)

    @staticmethod
    def _held(found: Blocks) -> np.ndarray:
        """Whether two single entries stand at one value, at which they stay whatever their scores; (…, 1, n − 1)."""
        edge = np.ones_like(found.first[..., :1], dtype=bool)
        between, w = found.between, found.w
        alone = np.concatenate([edge, between], axis=-1) & np.concatenate([between, edge], axis=-1)
        size = np.abs(np.cumsum(w, axis=-1)).max(axis=-1, keepdims=True)
        return alone[..., :-1] & alone[..., 1:] & (w[..., :-1] - w[..., 1:] <= ROUNDING * size)

    @override
    def margins(self, state: Solved[Blocks]) -> Floats:
        found, between = state.inner, state.inner.between
        level = np.take_along_axis(found.z, found.order, axis=-1)
        weight = np.where(between, (found.shift[..., :-1] - found.shift[..., 1:]) * state.scores.stiffness, np.inf)
        slack = np.where(between, np.inf, np.cumsum(found.w - level, axis=-1)[..., :-1])
        distance = np.where(self._held(found), np.inf, np.minimum(weight, slack))[..., 0, :]
        most = np.where(np.isfinite(distance), distance, 0.0).max(axis=-1, initial=0.0)
        return np.maximum(distance, 0.0).min(axis=-1, initial=np.inf) / (1.0 + most)


def read_permutahedron(problem: Problem) -> Form:
    """The closed form.

    Raises:
        Unknown: the problem has none.
    """
    n, N = problem.n, problem.N
    need(len(problem.variables) == 1, "several variables")
    need(len(problem.tops.size) + problem.G.shape[0] >= n - 1, "too few bounds")
    kind, inputs = regularizer(problem, True)
    need(kind.name in ("softmax", "budget"), "an entropy of another kind")
    E = problem.E
    need(E.shape[0] == 1 and E.nnz == n and np.all(E.data == E.data[0]), "no sum of all entries, or several equalities")
    total = problem.b.times(1.0 / E.data[0])
    size, whole, bound = _sums_largest(problem, total)
    # For each k one bound, by preference not one on entries, one that moves, the tightest; others must never hold.
    best = np.full(n + 1, -1)
    for i in np.lexsort((bound.c, ~bound.varies, np.arange(len(size)) >= len(problem.tops.size))):
        if whole[i] and 1 <= size[i] < n and best[size[i]] < 0:
            best[size[i]] = i
    need((best[1:n] >= 0).all(), "the k largest entries are not bounded for every k")
    k = np.arange(1, n)
    heads = gathered(n + 1, N, [(k, bound[best[1:n]]), (np.array([n]), total)])  # W_0 = 0, …, W_n
    values = gathered(n, N, [(np.arange(n), heads[1:]), (np.arange(n), heads[:-1].times(-1.0))])
    idle = np.setdiff1d(np.arange(len(size)), best)
    place = np.arange(len(idle))
    gap = gathered(len(idle), N, [(place, bound[idle]), (place, heads[size[idle]].times(-1.0))])
    entropic = kind.name == "softmax"
    _check(values, gap, entropic)
    return PermutahedronForm(entropic, inputs, values, gap if len(idle) else None)


def _sums_largest(problem: Problem, total: Rows) -> tuple[Indices, np.ndarray, Rows]:
    """Bounds on the sums of the largest entries: k, whether they are of all entries, and the bounds.

    Bounds of one row a piece, alike for all entries, are one; others stand for themselves.
    """
    n, G, tops = problem.n, problem.G, problem.tops
    need((np.diff(G.indptr) == 1).all(), "an inequality of several entries")
    rest = G.data < 0
    h = problem.h.times(1.0 / np.abs(G.data))
    alike: dict[tuple[object, ...], list[int]] = {}
    seen: set[tuple[object, ...]] = set()
    for row in range(len(h.c)):
        part = slice(*h.M.indptr[[row, row + 1]]) if h.moving else slice(0)
        key = bool(rest[row]), float(h.c[row]), *h.M.indices[part], *h.M.data[part]
        twice = (*key, int(G.indices[row])) in seen
        seen.add((*key, int(G.indices[row])))
        alike.setdefault((*key, row) if twice else key, []).append(row)
    single = [row for rows in alike.values() for row in (rows[:1] if len(rows) == n else rows)]
    complete = [len(rows) == n for rows in alike.values() for _ in (rows[:1] if len(rows) == n else rows)]
    at = np.array(single, dtype=int)
    size = np.concatenate([tops.size, np.where(rest[at], n - 1, 1)])
    turned = np.concatenate([tops.rest, rest[at]])
    every = np.arange(len(size))
    count = len(tops.size)
    parts = [(every[:count], tops.bound), (every[count:], h[at])]
    shifted = np.flatnonzero(turned)  # Σ of the k largest = W_n − Σ of the others
    parts.append((shifted, total[np.zeros(len(shifted), dtype=int)]))
    return (
        size,
        np.concatenate([np.ones(count, dtype=bool), np.array(complete, dtype=bool)]),
        gathered(len(size), problem.N, parts),
    )


def _check(values: Rows, gap: Rows, entropic: bool) -> None:
    """Refuse what is out of the form's range whatever the parameters are."""
    steps, size = values.c[:-1] - values.c[1:], np.abs(np.cumsum(values.c)).max()
    need(values.moving or (steps >= -ROUNDING * size).all(), "sums of the largest that are not concave")
    need(values.moving or not entropic or (values.c > 0).all(), "entropies at values of zero")
    need((gap.c[~gap.varies] >= -ROUNDING * size).all(), "a further bound that holds")
