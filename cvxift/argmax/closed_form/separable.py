"""Whether a problem is separable but for sums over groups of entries (see `kinds`), and its closed form.

    minimize  ½ Σ c_i z_i² + qᵀz,  c Σ z_i^α + qᵀz,  or  c Σ z_i log(z_i/p_i) (+ c Σ (1 − z_i) log(1 − z_i)) + qᵀz
    subject to  g Σ_{i∈group} z_i = k      disjoint groups that cover z, or none
                g z_i ≤ h                  bounds

Each part is read, and a problem with one that fits nowhere is refused. Groups of one size are rows, (G, n); others lie
side by side in one row, (1, n).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cvxift._types import Indices, override
from cvxift.argmax.closed_form.affine import Rows, gathered
from cvxift.argmax.closed_form.form import Form, Pieces, Solved
from cvxift.argmax.closed_form.inputs import Shape
from cvxift.argmax.closed_form.kinds import Allocation, Box, Budget, Kind, Limits, Sigmoid, Tsallis
from cvxift.argmax.closed_form.terms import Problem
from cvxift.argmax.closed_form.tree import need
from cvxift.argmax.groups import Adjacent
from cvxift.program.structure import Floats


class SeparableForm(Form[Allocation]):
    """θ ↦ z of a kind.

    Args:
        kind: which φ.
        name: see `Form`.
        pieces: see `Form`; with them perhaps "total" (G, 1), "lower" and "upper" (G, n).
        entry: see `Form`.
        slope: see `separable`.
    """

    def __init__(self, kind: Kind, name: str, pieces: Pieces, entry: Indices, slope: float) -> None:
        super().__init__(name, pieces, entry)
        self.kind, self._unit = kind, kind.unit + slope
        self._bounds = tuple({"lower", "upper"} & self.inputs.moving)
        self._moves = not {"total", "lower", "upper"}.isdisjoint(self.inputs.moving)
        self._limits = None if self._moves else self._limits_of(self.inputs.constant)

    def _limits_of(self, values: Mapping[str, Floats]) -> Limits | None:
        return self.kind.limits(values.get("total"), values.get("lower"), values.get("upper"))

    @override
    def at(self, x: Floats, values: Mapping[str, Floats]) -> Allocation | None:
        limits = self._limits_of(values) if self._moves else self._limits
        found = None if limits is None else self.kind.solve(x, limits)
        # Where sums or bounds move, but bounds hold every entry of a group, they cannot all move as they please.
        if found is None or (self._moves and found.pinned):
            return None
        found.moving = self._bounds
        return found

    @override
    def margins(self, state: Solved[Allocation]) -> Floats:
        return state.inner.margins(state.scores.stiffness)

    @override
    def shifts(self, state: Solved[Allocation]) -> Floats | None:
        sums = state.inner.limits.k is not None
        return np.broadcast_to(state.inner.tau - self._unit * sums, state.inner.z.shape)


class Layout(NamedTuple):
    """How entries lie in groups.

    Attributes:
        entry: the entries, group by group.
        lengths: number of entries of each group.
        shape: of the entries' arrays, (G, n), or (1, n) of groups of unequal length.
    """

    entry: Indices
    lengths: Indices
    shape: tuple[int, int]

    @classmethod
    def of(cls, entry: Indices, lengths: Indices) -> Layout:
        """Groups as rows if they have one length."""
        alike = bool((lengths == lengths[0]).all())
        return cls(entry, lengths, (len(lengths), int(lengths[0])) if alike else (1, len(entry)))

    @property
    def ragged(self) -> bool:
        """Whether the groups' lengths differ."""
        return len(self.lengths) != self.shape[0]

    @property
    def of_groups(self) -> tuple[int, int]:
        """Shape of what groups have."""
        return (1, len(self.lengths)) if self.ragged else (self.shape[0], 1)

    def each(self, values: np.ndarray) -> np.ndarray:
        """For each of the problem's entries its group's value."""
        out = np.empty(len(self.entry), dtype=values.dtype)
        out[self.entry] = np.repeat(values, self.lengths)
        return out

    @property
    def first(self) -> Indices:
        """The first entry of each group."""
        return self.entry[np.cumsum(self.lengths) - self.lengths]


def regularizer(problem: Problem, summed: bool) -> tuple[Kind, dict[str, Rows]]:
    """The kind that the terms make, and its score, stiffness and perhaps prior, for each entry.

    Args:
        problem: the problem; entropies relative to other entries are refused.
        summed: whether the entries have sums.

    Raises:
        Unknown: they make none.
    """
    n, N, terms = problem.n, problem.N, problem.terms
    every: Indices = np.arange(n)
    alpha = float(terms.exponent[0]) if len(terms) else np.nan
    need((terms.exponent == alpha).all() and alpha >= 1.0, "no regularizer, or several kinds")
    stiffness = gathered(n, N, [(terms.entry, terms.weight.times(alpha * (alpha - 1.0) if alpha != 1.0 else 1.0))])
    score: list[tuple[Indices, Rows]] = [(every, problem.linear.times(-1.0))]
    if alpha == 2.0:
        kind: Kind = Budget() if summed else Box()
        return kind, {"score": gathered(n, N, score), "stiffness": stiffness}
    near = np.flatnonzero(~terms.far)
    need(np.unique(terms.entry[near]).size == len(near) == n, "an entry has no term, or several")
    if alpha != 1.0:
        # w α z^{α−1} + q + τ = 0, and φ(d) = [(α−1)d]^{1/(α−1)} has z^{α−1} = (α−1) d
        need(summed, "powers without a sum")
        return Tsallis(alpha), {"score": gathered(n, N, score), "stiffness": stiffness}
    need((terms.base_entry < 0).all(), "an entropy relative to entries")
    if terms.base.moving:
        need(summed and len(near) == len(terms), "a parameter in an entropy beside another")
        prior = gathered(n, N, [(terms.entry, terms.base)])
        return Tsallis(), {"score": gathered(n, N, score), "stiffness": stiffness, "prior": prior}
    # c y log(y/p) is c y log y − c log(p) y, and y = 1 − z has −z in it
    need((terms.base.c > 0).all(), "an entropy relative to no mass")
    score.append((terms.entry, terms.weight.times(np.where(terms.far, -1.0, 1.0) * np.log(terms.base.c))))
    found = {"score": gathered(n, N, score), "stiffness": gathered(n, N, [(terms.entry[near], terms.weight[near])])}
    if len(near) == len(terms):
        need(summed, "the entries have no sum")
        return Tsallis(), found
    rest = np.flatnonzero(terms.far)
    need(not summed and np.unique(terms.entry[rest]).size == len(rest) == n, "entropies of other parts")
    both = gathered(2 * n, N, [(terms.entry + n * terms.far, terms.weight)])
    need(both.alike(every, n + every), "the two entropies differ")
    return Sigmoid(), found


def one_stiffness(stiffness: Rows, layout: Layout | None = None) -> Rows:
    """The curvature of each group, of each entry if their lengths differ; of one group if nothing else is said.

    Refused unless a group's entries share it and it is positive where it is a number.
    """
    n = len(stiffness.c)
    layout = Layout.of(np.arange(n), np.array([n])) if layout is None else layout
    need(stiffness.alike(layout.each(layout.first), np.arange(n)), "the entries' curvatures differ")
    need((stiffness.varies | (stiffness.c > 0)).all(), "an entry has no curvature")
    return stiffness[layout.entry if layout.ragged else layout.first]


def pieces_of_one(inputs: Mapping[str, Rows], entry: Indices) -> dict[str, tuple[Rows, Shape]]:
    """Score, one stiffness and perhaps prior of entries in one group."""
    pieces = {name: (rows[entry], (1, len(entry))) for name, rows in inputs.items() if name != "stiffness"}
    return {**pieces, "stiffness": (one_stiffness(inputs["stiffness"]), (1, 1))}


def bounds(problem: Problem) -> tuple[Rows | None, Rows | None]:
    """Lower and upper bounds on the entries, if there are some; other inequalities are refused."""
    need((np.diff(problem.G.indptr) == 1).all(), "an inequality of several entries")
    return _bound(problem, -1.0), _bound(problem, 1.0)


def _bound(problem: Problem, side: float) -> Rows | None:
    """One side; `side` is −1 for lower bounds."""
    at = np.flatnonzero(problem.G.data * side > 0)
    if not len(at):
        return None
    entry, value = problem.G.indices[at], problem.h[at].times(1.0 / problem.G.data[at])
    if value.moving:
        need(len(at) == problem.n == np.unique(entry).size, "parameters bound some entries only, or twice")
        return gathered(problem.n, problem.N, [(entry, value)])
    values = np.full(problem.n, side * np.inf)
    tightest: np.ufunc = np.minimum if side > 0 else np.maximum
    tightest.at(values, entry, value.c)
    return Rows.fixed(values, problem.N)


def without_idle(
    low: Rows | None, high: Rows | None, entropic: bool, implied: Floats
) -> tuple[Rows | None, Rows | None]:
    """The bounds but those that never hold: lower ones of entropies, which have z > 0, and upper ones beyond others.

    Args:
        low: lower bounds.
        high: upper bounds.
        entropic: whether the terms are entropies; other lower bounds of theirs are refused.
        implied: upper bounds that hold anyway; NaN where none is known.
    """
    if entropic and low is not None:
        need(not low.moving and (low.c <= 0).all(), "an entropy with lower bounds")
        low = None
    return low, None if high is not None and not high.moving and (high.c >= implied).all() else high


def read_separable(problem: Problem) -> Form:
    """The closed form.

    Raises:
        Unknown: the problem has none.
    """
    need(not len(problem.tops.size), "sums of largest entries")
    layout, total = _groups(problem)
    kind, inputs = regularizer(problem, total is not None)
    return separable(kind, inputs, total, *bounds(problem), layout)


def separable(
    kind: Kind,
    inputs: Mapping[str, Rows],
    total: Rows | None,
    low: Rows | None,
    high: Rows | None,
    layout: Layout,
    slope: float = 0.0,
) -> Form:
    """The closed form of a kind.

    Args:
        kind: which φ.
        inputs: score, stiffness and perhaps prior of each entry.
        total: sums of the groups; None without.
        low: lower bounds; None without.
        high: upper bounds; None without.
        layout: the groups.
        slope: of a linear part of Ω that the scores are without; a multiplier makes up for it.

    Raises:
        Unknown: the kind cannot have such bounds, or a group's entries differ.
    """
    low, high = _settled(kind, total, low, high, layout)
    flat, shape = layout.entry, layout.shape
    inputs = dict(inputs)
    c = one_stiffness(inputs.pop("stiffness"), layout)
    pieces = {name: (rows[flat], shape) for name, rows in inputs.items()}
    pieces["stiffness"] = c, shape if layout.ragged else layout.of_groups
    if total is not None:
        pieces["total"] = total, layout.of_groups
    for name, bound in (("lower", low), ("upper", high)):
        if bound is not None:
            pieces[name] = bound[flat], shape
    if layout.ragged:
        need(kind.name != "softmax" or high is None, "caps under entropies of groups of unequal length")
        kind.groups = Adjacent(layout.lengths)
    return SeparableForm(kind, _name(kind, total, low, high), pieces, flat, slope)


def _groups(problem: Problem) -> tuple[Layout, Rows | None]:
    """Groups of entries with a sum each, and the sums; single entries where there are none."""
    E = problem.E
    if not E.shape[0]:
        return Layout.of(np.arange(problem.n), np.ones(problem.n, dtype=int)), None
    sizes = np.diff(E.indptr)
    need(sizes.min() > 0 and E.nnz == problem.n, "the sums do not cover the entries once")
    need(np.unique(E.indices).size == problem.n, "the sums overlap")
    gain = E.data[E.indptr[:-1]]
    need(np.all(E.data == np.repeat(gain, sizes)), "a sum is weighted")
    order = np.lexsort((E.indices, np.repeat(np.arange(len(sizes)), sizes)))
    return Layout.of(E.indices[order].astype(np.intp), sizes), problem.b.times(1.0 / gain)


def _settled(
    kind: Kind, total: Rows | None, low: Rows | None, high: Rows | None, layout: Layout
) -> tuple[Rows | None, Rows | None]:
    """The bounds that may hold; those that the kind cannot have are refused."""
    least = None if low is None else low.numbers
    implied = np.full(len(layout.entry), 1.0 if isinstance(kind, Sigmoid) else np.nan)  # NaN compares false
    if total is not None:
        implied = layout.each(np.where(total.varies, np.nan, total.c))
        if isinstance(kind, Budget):  # less what the others are at least
            least = np.full(len(implied), np.nan) if least is None or np.isinf(least).any() else least
            implied = implied - layout.each(Adjacent(layout.lengths).sum(least[layout.entry])) + least
    powers = isinstance(kind, Tsallis) and kind.alpha != 1.0
    low, high = without_idle(low, high, isinstance(kind, Tsallis | Sigmoid) and not powers, implied)
    if powers:
        need(low is not None and not low.moving and not low.c.any(), "powers without z ≥ 0, or with other bounds")
        low = None
    if powers or isinstance(kind, Sigmoid):
        need(high is None, "upper bounds beside an entropy")
    elif isinstance(kind, Box):
        need(low is not None or high is not None, "nothing to recognize")
    elif isinstance(kind, Budget):
        need(any(v is not None and np.isfinite(v.c).all() for v in (low, high)), "unbounded entries under a sum")
    return low, high


def _name(kind: Kind, total: Rows | None, low: Rows | None, high: Rows | None) -> str:
    if kind.name == "softmax":
        return "softmax" if high is None else "constrained softmax"
    if type(kind) is Budget:
        unit = total is not None and not total.moving and bool((total.c == 1.0).all())
        if unit and low is not None and not low.moving and not low.c.any():
            return "sparsemax" if high is None else "constrained sparsemax"
    return kind.name
