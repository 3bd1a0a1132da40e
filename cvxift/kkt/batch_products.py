"""Products with the derivatives of a batch, wherever its arrays live: one batched solve each, two of them or three.

The formulas are those of `cvxift.kkt.linearization`, in the same notation. Instances that the batched systems cannot
certify are taken one by one by the solution map, on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cvxift.kkt.backend import Array, Arrays
from cvxift.kkt.batch import DenseBatch, merged
from cvxift.kkt.dense import apply
from cvxift.kkt.device_maps import ProductMaps
from cvxift.kkt.policy import Policy
from cvxift.kkt.solved import Solved
from cvxift.kkt.units import Rescaled
from cvxift.program.structure import Floats

if TYPE_CHECKING:
    from cvxift.kkt.derivatives import Derivatives

Certified = tuple[Array, Array]  # a product, and which instances are certified


class BatchProducts:
    """`vjp`, `jvp`, `second` and `second_tangent` of a solution map for batches in one place.

    Args:
        mapping: the solution map.
        place: where the arrays live.
    """

    def __init__(self, mapping: Derivatives, place: Arrays) -> None:
        self._map, self.place = mapping, place
        self.maps = ProductMaps(mapping, place)

    def vjp(self, solved: Solved, bar: Array) -> Array:
        """Cotangents of θ, shape (*lead, *batch, N), for `bar` (*lead, *batch, K)."""
        return self._product(solved, self._vjp, self._map.vjp, self._map.theta_size, bar)

    def jvp(self, solved: Solved, theta_dot: Array) -> Array:
        """Tangents of the outputs, shape (*lead, *batch, K), for `theta_dot` (*lead, *batch, N)."""
        return self._product(solved, self._jvp, self._map.jvp, self._map.output_size, theta_dot)

    def second(self, solved: Solved, bar: Array, theta_dot: Array) -> Array:
        """Gradients with respect to θ of ⟨bar, J(θ) theta_dot⟩, shape (*lead, *batch, N)."""
        return self._product(solved, self._second, self._map.second, self._map.theta_size, bar, theta_dot)

    def second_tangent(self, solved: Solved, theta_dot: Array, other: Array) -> Array:
        """Second derivatives of the outputs along two tangents of θ, shape (*lead, *batch, K)."""
        single, size = self._map.second_tangent, self._map.output_size
        return self._product(solved, self._second_tangent, single, size, theta_dot, other)

    def _vjp(self, batch: DenseBatch, bar: Array) -> Certified:
        u, w, certified = batch.solve(*self.maps.adjoint_side(bar))
        return self.maps.pull_back(batch.full_x, batch.full_y, u, w), certified

    def _jvp(self, batch: DenseBatch, dot: Array) -> Certified:
        x_dot, y_dot, certified = batch.solve(*self._tangent_side(batch, dot))
        return self.maps.linear(x_dot, y_dot), certified

    def _tangent_side(self, batch: DenseBatch, dot: Array) -> tuple[Array, Array]:
        return self.maps.tangent_side(batch.full_x, batch.full_y, dot)

    def _second(self, batch: DenseBatch, bar: Array, dot: Array) -> Certified:
        maps = self.maps
        g_bar, h_bar = maps.adjoint_side(bar)
        u, w, first = batch.solve(g_bar, h_bar)
        g, h = self._tangent_side(batch, dot)
        x_dot, y_dot, certified = batch.solve(g, h)
        gamma_x, gamma_y = maps.act(maps.data(dot), u, w)
        slack = None
        if self._bends(batch):
            A, spectrum = batch.programs.A, batch.points.spectrum
            u_kept, tilt = maps.restrict(u, w - h_bar)  # −h is ȳ
            bend = spectrum.bend(self._v_dot(batch, h, x_dot, y_dot), apply(A, u_kept) + tilt)
            w_slack, y_bar = spectrum.split(bend)
            shift, slack = maps.lift(apply(self.place.xp.matrix_transpose(A), w_slack), w_slack)
            gamma_x, gamma_y = gamma_x + shift, gamma_y + maps.lift(shift, y_bar)[1]
        u2, w2, last = batch.solve(-gamma_x, -gamma_y)
        w2 = w2 if slack is None else w2 + slack
        out = maps.pull_back(batch.full_x, batch.full_y, u2, w2) + maps.pull_back(x_dot, y_dot, u, w, direct=True)
        return out, certified & first & last

    def _second_tangent(self, batch: DenseBatch, dot: Array, other: Array) -> Certified:
        maps = self.maps
        g, h = self._tangent_side(batch, dot)
        x_dot, y_dot, certified = batch.solve(g, h)
        g_other, h_other = self._tangent_side(batch, other)
        x_other, y_other, good = batch.solve(g_other, h_other)
        columns, rows = maps.act(maps.data(dot), x_other, y_other)
        columns2, rows2 = maps.act(maps.data(other), x_dot, y_dot)
        columns, rows = columns + columns2, rows + rows2
        if not self._bends(batch):
            x, y, last = batch.solve(-columns, -rows)
            return maps.linear(x, y), certified & good & last
        a, b = self._v_dot(batch, h, x_dot, y_dot), self._v_dot(batch, h_other, x_other, y_other)
        bend = batch.points.spectrum.bend(a, b)
        pushed, bend = maps.lift(apply(self.place.xp.matrix_transpose(batch.programs.A), bend), bend)
        x, y, last = batch.solve(-columns - pushed, -rows - bend)
        return maps.linear(x, y + bend), certified & good & last

    @staticmethod
    def _bends(batch: DenseBatch) -> bool:
        return not batch.engine.cones.polyhedral

    def _v_dot(self, batch: DenseBatch, h: Array, x_dot: Array, y_dot: Array) -> Array:
        """v̇ = ṡ − ẏ with ṡ = h − Aẋ, h = ḃ − Ȧx, on the condensed programs' rows."""
        x_kept, rest = self.maps.restrict(x_dot, h - y_dot)
        return rest - apply(batch.programs.A, x_kept)

    def _product(
        self,
        solved: Solved,
        product: Callable[..., Certified],
        single: Callable[..., Floats],
        size: int,
        *vectors: Array,
    ) -> Array:
        """A product of all instances, those that it does not certify replaced by the host's own.

        Args:
            solved: the batch.
            product: takes vectors (B, ·) or (k, B, ·), returns the product and which instances are certified.
            single: the same of the solution map, for one instance.
            size: length of the product.
            *vectors: shapes (*lead, *batch, ·), whose leading dimensions broadcast.
        """
        place, xp, batch = self.place, self.place.xp, solved.solutions
        shapes = [tuple(v.shape[: v.ndim - 1 - len(solved.batch_shape)]) for v in vectors]
        lead = np.broadcast_shapes(*shapes)
        shape = (*lead, *solved.batch_shape)
        if not isinstance(batch, DenseBatch) or 0 in shape:
            return place.zeros(*shape, size)
        stack = (math.prod(lead), len(batch)) if lead else (len(batch),)
        rows = [xp.reshape(xp.broadcast_to(v, (*shape, v.shape[-1])), (*stack, v.shape[-1])) for v in vectors]
        bends = product in (self._second, self._second_tangent) and self._bends(batch)
        # Curvature is known at v in the batch's own units: where those are others than the program's, one by one.
        if self._map.policy == Policy() and not (bends and isinstance(batch.elimination, Rescaled)):
            out, certified = product(batch, *rows)
            rest = sorted({*map(int, np.flatnonzero(~place.host(certified) | batch.near_kinks)), *batch.singles})
        else:  # the batched systems are those of the default policy alone
            out, rest = place.zeros(*stack, size), list(range(len(batch)))
        if rest:
            chosen = place.put(np.asarray(rest))
            hosted = [place.host(xp.take(v, chosen, axis=-2)) for v in rows]
            singles = [
                single(Solved((), (batch[i],), np.zeros(0)), *(v[..., j, :] for v in hosted))
                for j, i in enumerate(rest)
            ]
            where = np.arange(len(batch))
            where[rest] = len(batch) + np.arange(len(rest))
            out = merged(xp, out, place.put(np.stack(singles, axis=-2)), place.put(where), axis=-2)
        return xp.reshape(out, (*shape, size))
