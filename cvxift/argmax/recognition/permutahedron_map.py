"""The projection onto a permutahedron as a closed form of a program: values, derivatives, kinks, the canonical point.

With x = a/c sorted decreasingly and w as well, blocks B of consecutive entries from the isotonic regression of x on w
(of x on log w for the entropic regularizer, see `isotonic`) share a multiplier τ_B, and their sum is that of w:

    z_i = x_i − τ_B  or  exp(x_i − τ_B),     Σ_B z = Σ_B w,
    ż = s (ẋ − τ̇_B),   s = 1 or z;           z̈ = e (ẋ − τ̇)(ẋ′ − τ̇′) − s τ̈,   e = 0 or z,   Σ_B z̈ = 0.

The multiplier of the sum of the k largest is λ_k = c (τ_k − τ_{k+1}): positive between blocks, zero inside of one,
where the bound has a slack instead. Blocks are about to merge where λ_k = 0, and about to split where that slack is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cvxift.argmax.isotonic import blocks, project, segment_sum
from cvxift.argmax.recognition.entropy_points import place_entropies
from cvxift.argmax.recognition.form import Indices
from cvxift.argmax.recognition.read_permutahedron import ROUNDING, PermutahedronForm
from cvxift.argmax.recognition.recognized import Point
from cvxift.argmax.recognition.scaled_map import AffineInputs, ScaledMap, Scored
from cvxift.program.structure import Data, Floats, Structure


@dataclass(frozen=True, eq=False)
class Blocks:
    """Projections, shapes (*batch, n).

    Attributes:
        z: the projections.
        slope: s; None for 1.
        order: z's entries from the largest on.
        w: the values, from the largest on.
        first: for each place in that order, the place at which its block begins.
        label: the same for each entry.
        total: for each place at which a block begins the block's Σ s, 1 elsewhere.
        shift: τ for each place.
    """

    z: Floats
    slope: Floats | None
    order: Indices
    w: Floats
    first: Indices
    label: Indices
    total: Floats
    shift: Floats

    def gathered(self, values: Floats) -> Floats:
        """Sums over the blocks, at the places at which they begin, of values by entry."""
        return segment_sum(values, np.broadcast_to(self.label, values.shape))

    def spread(self, sums: Floats) -> Floats:
        """Values of the blocks to their entries."""
        return np.take_along_axis(sums, np.broadcast_to(self.label, sums.shape), axis=-1)

    def weighted(self, values: Floats) -> Floats:
        """s times values."""
        return values if self.slope is None else self.slope * values


class PermutahedronMap(ScaledMap[Blocks]):
    """θ ↦ the entries of a recognized projection.

    Args:
        structure: the program's structure.
        form: the program's form.
        columns: for each entry of θ, its place in the program's.
    """

    def __init__(self, structure: Structure, form: PermutahedronForm, columns: np.ndarray) -> None:
        super().__init__(AffineInputs(form.pieces, columns))
        self._structure, self.form, self.name = structure, form, form.name

    def at(self, x: Floats, values: Mapping[str, Floats | None]) -> Blocks | None:
        """See `ScaledMap`."""
        w = self._decreasing(values)
        if w is None:
            return None
        order = np.argsort(-x, axis=-1, kind="stable")
        s, w = np.take_along_axis(x, order, axis=-1), np.broadcast_to(w, x.shape)
        entropic = self.form.entropic
        regularizer = "entropic" if entropic else "quadratic"
        target = np.log(w) if entropic else w
        first = blocks(s, target, regularizer)
        if "values" in self.inputs.moving and self._held(first, w).any():
            return None  # such values cannot all move as they please
        level = project(s, target, first, regularizer, segment_sum)
        # Multipliers from the same entry of each block: equal to the last bit inside of it.
        shift = np.take_along_axis(s - level, first, axis=-1)
        back = np.argsort(order, axis=-1)
        z = np.take_along_axis(np.exp(level) if entropic else level, back, axis=-1)
        if not np.isfinite(z).all():
            return None
        label = np.take_along_axis(first, back, axis=-1)
        total = segment_sum(z if entropic else np.ones_like(z), label)
        total = np.where(total > 0, total, 1.0)
        return Blocks(z, z if entropic else None, order, w, first, label, total, shift)

    def _decreasing(self, values: Mapping[str, Floats | None]) -> Floats | None:
        """The values w, equal where they are so up to rounding; None if the form is not what the program asks."""
        w, gap = values["values"], values.get("gap")
        assert w is not None
        if not np.isfinite(w).all() or (self.form.entropic and not (w > 0).all()):
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

    def _held(self, first: Indices, w: Floats) -> np.ndarray:
        """Whether two single entries stand at one value, at which they stay whatever their scores; (*batch, n − 1)."""
        between = first[..., 1:] == np.arange(1, first.shape[-1])
        edge = np.ones_like(first[..., :1], dtype=bool)
        alone = np.concatenate([edge, between], axis=-1) & np.concatenate([between, edge], axis=-1)
        size = np.abs(np.cumsum(w, axis=-1)).max(axis=-1, keepdims=True)
        return alone[..., :-1] & alone[..., 1:] & (w[..., :-1] - w[..., 1:] <= ROUNDING * size)

    def value(self, inner: Blocks) -> Floats:
        """See `ScaledMap`."""
        return inner.z

    def _relative(self, inner: Blocks, x: Floats, moved: Mapping[str, Floats]) -> Floats:
        """ẋ − τ̇."""
        shape = np.broadcast_shapes(x.shape, inner.z.shape)
        x = np.broadcast_to(x, shape)
        sums = inner.gathered(inner.weighted(x))
        if "values" in moved:
            w = np.broadcast_to(moved["values"], shape)
            sums = sums - segment_sum(w, np.broadcast_to(inner.first, shape))
        return x - inner.spread(sums / inner.total)

    def push(self, inner: Blocks, x: Floats, moved: Mapping[str, Floats]) -> Floats:
        """See `ScaledMap`."""
        return inner.weighted(self._relative(inner, x, moved))

    def _pulled(self, inner: Blocks, bar: Floats) -> tuple[Floats, Floats]:
        """z̄ less its weighted means over the blocks, and these means where the blocks begin."""
        bar = np.broadcast_to(bar, np.broadcast_shapes(bar.shape, inner.z.shape))
        means = inner.gathered(inner.weighted(bar)) / inner.total
        return bar - inner.spread(means), means

    def _of_values(self, inner: Blocks, means: Floats) -> dict[str, Floats]:
        """The cotangent of w."""
        if "values" not in self.inputs.moving:
            return {}
        return {"values": np.take_along_axis(means, np.broadcast_to(inner.first, means.shape), axis=-1)}

    def pull(self, inner: Blocks, bar: Floats) -> tuple[Floats, dict[str, Floats]]:
        """See `ScaledMap`."""
        rest, means = self._pulled(inner, bar)
        return inner.weighted(rest), self._of_values(inner, means)

    def bend(
        self, inner: Blocks, bar: Floats, x: Floats, moved: Mapping[str, Floats]
    ) -> tuple[Floats, dict[str, Floats]] | None:
        """See `ScaledMap`."""
        if inner.slope is None:
            return None
        # x̄ = s (z̄ − m),  m_B = Σ_B s z̄ / Σ_B s;  ṡ = e (ẋ − τ̇)
        turning = inner.z * self._relative(inner, x, moved) * self._pulled(inner, bar)[0]
        means = inner.gathered(turning) / inner.total
        return turning - inner.slope * inner.spread(means), self._of_values(inner, means)

    def twist(
        self, inner: Blocks, x: Floats, moved: Mapping[str, Floats], y: Floats, along: Mapping[str, Floats]
    ) -> Floats | None:
        """See `ScaledMap`."""
        if inner.slope is None:
            return None
        turned = inner.z * self._relative(inner, x, moved) * self._relative(inner, y, along)
        return turned - inner.slope * inner.spread(inner.gathered(turned) / inner.total)

    def margins(self, state: Scored[Blocks]) -> Floats:
        """See `Recognized`."""
        found, n = state.inner, state.inner.z.shape[-1]
        level = np.take_along_axis(found.z, found.order, axis=-1)
        between = found.first[..., 1:] == np.arange(1, n)
        weight = np.where(between, (found.shift[..., :-1] - found.shift[..., 1:]) * state.scores.stiffness, np.inf)
        slack = np.where(between, np.inf, np.cumsum(found.w - level, axis=-1)[..., :-1])
        distance = np.where(self._held(found.first, found.w), np.inf, np.minimum(weight, slack))
        most = np.where(np.isfinite(distance), distance, 0.0).max(axis=-1, initial=0.0)
        return np.maximum(distance, 0.0).min(axis=-1, initial=np.inf) / (1.0 + most)

    def canonical(self, data: Data, state: Scored[Blocks]) -> Point:
        """See `Recognized`."""
        form, structure, found = self.form, self._structure, state.inner
        n, cones = len(found.z), structure.cones
        x, y = np.zeros(structure.n), np.zeros(structure.m)
        x[form.columns] = found.z
        A = structure.A_matrix(data.A)
        P = np.zeros(structure.n)
        if structure.nnzP:
            P[:] = structure.P_matrix(data.P).diagonal()
        c = float(np.ravel(state.scores.stiffness)[0])
        weights = np.where(found.first[1:] == np.arange(1, n), (found.shift[:-1] - found.shift[1:]) * c, 0.0)
        weights = np.maximum(weights, 0.0)
        for top, weight in zip((*form.tops, *form.idle), (*weights, *np.zeros(len(form.idle))), strict=True):
            top.place(found.z, found.order, float(weight), data.b, x, y)
        s = data.b - A @ x
        form.squares.place(P, data.q, x, s, y)
        place_entropies(structure, form.epigraphs, data, x, s, y)
        # The smallest entry is in no sum of the k largest; tops on the smallest have −λ on all entries besides.
        gradient = (P * x + data.q + A.T @ y)[form.columns]
        y[form.sum_row] = -gradient[found.order].mean() / form.sum_gain
        s[: cones.zero] = 0.0
        linear = slice(cones.zero, cones.zero + cones.nonneg)
        s[linear] = np.where(y[linear] > 0.0, 0.0, s[linear])
        return x, s, y
