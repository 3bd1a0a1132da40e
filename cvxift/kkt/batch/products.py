"""Products with the derivatives of a batch at once, wherever its arrays live: `cvxift.kkt.products` on its systems.

Instances that the batched systems cannot certify are taken one by one by the solution map, on the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cvxift._types import cached_property
from cvxift.kkt.backend import Array, Arrays
from cvxift.kkt.batch.device_maps import VaryingData
from cvxift.kkt.batch.solutions import DenseBatch, Solved, merged
from cvxift.kkt.derivatives import Derivatives
from cvxift.kkt.policy import Policy
from cvxift.kkt.products import Curvature, Pair, Products
from cvxift.kkt.units import Rescaled
from cvxift.program.substitution import Parts, Substitution


class BatchLinearization(Products):
    """The derivatives at the points of a batch, as far as its systems are certified.

    Args:
        batch: the solved batch.
        varying: the entries of its data that depend on θ.
        kept: the columns and rows that the cones of the condensed programs feel; None for all.

    Attributes:
        certified: instances whose solves so far are certified, shape (B,).
    """

    def __init__(self, batch: DenseBatch, varying: VaryingData, kept: Parts | None) -> None:
        self._batch, self.entries, self._kept = batch, varying.entries, kept
        self.x, self.y = batch.full_x, batch.full_y
        self.certified: Array = True

    def solve(self, g: Array, h: Array | None) -> Pair:
        """See `Products.solve`."""
        if h is None:
            h = self._batch.programs.place.zeros(*g.shape[:-1], self.entries.m)
        u, w, certified = self._batch.solve(g, h)
        self.certified = certified & self.certified
        return u, w

    @cached_property
    def curvature(self) -> Curvature | None:
        """See `Products.curvature`."""
        batch = self._batch
        if batch.engine.cones.polyhedral:
            return None
        return Curvature(_rows_of_cones(batch), batch.points.spectrum, self._kept)


def _rows_of_cones(batch: DenseBatch) -> Array:
    """A on the condensed rows, with the columns that are fixed beside those that are kept (`Condensation.felt`)."""
    way, xp, A = batch.elimination, batch.programs.place.xp, batch.programs.A
    fixed = way if way is None or way.further is None else way.further
    if not isinstance(fixed, Substitution) or fixed.C is None:
        return A
    C = fixed.C
    if isinstance(way, Substitution) and way is not fixed:
        C = xp.matrix_transpose(way.parts.rows.kept(xp.matrix_transpose(C)))
    return xp.concat([A, xp.broadcast_to(C, (*A.shape[:-1], C.shape[-1]))], axis=-1)


class BatchProducts(Derivatives):
    """The products of a solution map for batches in one place.

    Args:
        mapping: the solution map.
        place: where the arrays live.
    """

    def __init__(self, mapping: Derivatives, place: Arrays) -> None:
        self.map, self.place = mapping, place
        self.program, self.engine, self.policy = mapping.program, mapping.engine, mapping.policy
        self.output_size, self._permutation = mapping.output_size, mapping._permutation
        self._recover = mapping._recover.on(place)
        self._varying = VaryingData(mapping, place)
        felt = mapping.engine.condensation.felt
        self._kept = None if felt is None else felt.on(place)

    def _product(self, solved: Solved, tangents: Sequence[Array], bar: Array | None) -> Array:
        place, xp, batch = self.place, self.place.xp, solved.solutions
        vectors = tangents if bar is None else (*tangents, bar)
        lead = np.broadcast_shapes(*(tuple(v.shape[: v.ndim - 1 - len(solved.batch_shape)]) for v in vectors))
        shape, size = (*lead, *solved.batch_shape), self.output_size if bar is None else self.theta_size
        if not isinstance(batch, DenseBatch) or 0 in shape:
            return place.zeros(*shape, size)
        k = math.prod(lead)
        stack = (k, len(batch)) if k > 1 else (len(batch),)
        wide = [v if tuple(v.shape[:-1]) == shape else xp.broadcast_to(v, (*shape, v.shape[-1])) for v in vectors]
        rows = [xp.reshape(v, (*stack, v.shape[-1])) for v in wide]
        bends = len(vectors) > 1 and not self.engine.cones.polyhedral
        # Curvature is known in the batch's own units: where those are others than the program's, one by one.
        if self.policy == Policy() and not (bends and isinstance(batch.elimination, Rescaled)):
            out, certified = self._at_once(batch, rows[: len(tangents)], None if bar is None else rows[-1])
            rest = sorted({*map(int, np.flatnonzero(~place.host(certified) | batch.near_kinks)), *batch.singles})
        else:  # the batched systems are those of the default policy alone
            out, rest = place.zeros(*stack, size), list(range(len(batch)))
        if rest:
            chosen = place.put(np.asarray(rest))
            hosted = [place.host(xp.take(v, chosen, axis=-2)) for v in rows]
            alone = []
            for j, i in enumerate(rest):
                one = [v[..., j, :] for v in hosted]
                single = Solved((), (batch[i],), np.zeros(0))
                alone.append(self.map._product(single, one[: len(tangents)], None if bar is None else one[-1]))
            where = np.arange(len(batch))
            where[rest] = len(batch) + np.arange(len(rest))
            out = merged(xp, out, place.put(np.stack(alone, axis=-2)), place.put(where), axis=-2)
        return xp.reshape(out, (*shape, size))

    def _at_once(self, batch: DenseBatch, tangents: Sequence[Array], bar: Array | None) -> tuple[Array, Array]:
        """The product for vectors (B, ·) or (k, B, ·), and which instances are certified."""
        point = BatchLinearization(batch, self._varying, self._kept)
        directions = [self._varying.tangent(dot) for dot in tangents]
        if bar is None:
            out = self._recover.linear(*point.forward(directions))
        else:
            out = self._varying.cotangent(point.reverse(*self._recover.transpose(bar), directions))
        return out, point.certified
