"""The outputs, flat, from a canonical point: values, tangents and cotangents."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from cvxift._types import cached_property
from cvxift.kkt.backend import HOST, Array, Arrays
from cvxift.program.affine import AffineMap
from cvxift.program.declared import Declared
from cvxift.program.recover import Output

_numbers = itertools.count()


class Recovery:
    """Outputs from (x, y): one constant affine map.

    Values are returned within the sets that variables declare, which a point satisfies to its residual.
    The multipliers of two inequalities that act as one equality are the positive parts of their entries of that map,
    marked in `positive`; `linear` and `transpose` are those of the map, to which `alive` adds what the parts do.
    On the host; `on` gives the same elsewhere.

    Args:
        outputs: the requested outputs, each with its own map.
        n: number of columns.
        m: number of rows.

    Attributes:
        outputs: as given.
        X, Y: the map's matrices, shapes (K, n) and (K, m).
        has_dual: whether Y has entries.
        positive: outputs that are positive parts, shape (K,); None without.
        number: names these outputs among all that were ever asked for.
    """

    def __init__(self, outputs: Sequence[Output], n: int, m: int) -> None:
        blocks_x, blocks_y, offsets = [], [], []
        for output in outputs:
            rows = math.prod(output.shape)
            primal = output.kind == "primal"
            blocks_x.append(output.matrix if primal else sp.csr_array((rows, n)))
            blocks_y.append(sp.csr_array((rows, m)) if primal else output.matrix)
            offsets.append(np.zeros(rows) if output.offset is None else output.offset)
        self.X = sp.csr_array(sp.vstack(blocks_x)) if blocks_x else sp.csr_array((0, n))
        self.Y = sp.csr_array(sp.vstack(blocks_y)) if blocks_y else sp.csr_array((0, m))
        self.has_dual, self._n = self.Y.nnz > 0, n
        self.number, self.outputs = next(_numbers), tuple(outputs)
        offset = np.concatenate(offsets) if offsets else np.zeros(0)
        masks = [np.zeros(math.prod(o.shape), dtype=bool) if o.positive is None else o.positive for o in outputs]
        positive = np.concatenate(masks) if any(mask.any() for mask in masks) else None
        self._sets = [output.declared for output in outputs], [math.prod(output.shape) for output in outputs]
        self._constants = offset if offset.any() else None, positive
        self._put(HOST)

    @cached_property
    def columns(self) -> np.ndarray:
        """Which columns the outputs read, shape (n,)."""
        read = np.zeros(self._n, dtype=bool)
        read[self.X.indices[self.X.data != 0.0]] = True
        return read

    def _put(self, place: Arrays) -> None:
        """Make the arrays for one place."""
        self._place = place
        put, affine = place.put, AffineMap if place is HOST else place.affine
        offset, positive = self._constants
        self._offset, self.positive = (None if part is None else put(part) for part in (offset, positive))
        self._X, self._XT = affine(self.X), affine(sp.csr_array(self.X.T))
        self._Y, self._YT = (affine(self.Y), affine(sp.csr_array(self.Y.T))) if self.has_dual else (None, None)
        self._declared = Declared(*self._sets, affine) if any(self._sets[0]) else None

    def on(self, place: Arrays) -> Recovery:
        """The same for arrays of another place."""
        if place is self._place:
            return self
        out = copy.copy(self)
        out._put(place)
        return out

    def __call__(self, x: Array, y: Array, theta: Array) -> Array:
        """The outputs, shape (..., K), at x (..., n), y (..., m) and the program's θ (..., N)."""
        xp, out = self._place.xp, self.linear(x, y)
        out = out if self._offset is None else out + self._offset
        if self.positive is not None:
            out = xp.where(self.positive & (out <= 0.0), xp.zeros_like(out), out)
        return out if self._declared is None else self._declared.nearest(xp, out, theta)

    def alive(self, outputs: Array, vectors: Array) -> Array:
        """Tangents, or cotangents, of the outputs without those of positive parts that are zero.

        Args:
            outputs: the outputs, shape (*batch, K), in this place or on the host; none for a call that keeps none,
                which returns `vectors`.
            vectors: shape (..., *batch, K).
        """
        if self.positive is None or outputs.shape[-1] != self.positive.shape[0]:
            return vectors
        xp = self._place.xp
        outputs = self._place.put(outputs) if isinstance(outputs, np.ndarray) else outputs
        return xp.where(self.positive & (outputs <= 0.0), xp.zeros_like(vectors), vectors)

    def linear(self, x: Array, y: Array) -> Array:
        """Tangent of the outputs for tangents x (..., n) and y (..., m)."""
        out = self._X(x)
        return out if self._Y is None else out + self._Y(y)

    def transpose(self, bar: Array) -> tuple[Array, Array | None]:
        """Cotangents of x and y (None for zero) for a cotangent of the outputs, shape (..., K)."""
        return self._XT(bar), None if self._YT is None else self._YT(bar)
