"""The outputs, flat, from a canonical point: values, tangents and cotangents."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from cvxift.program.products import apply
from cvxift.program.recover import Output
from cvxift.program.structure import Floats

_numbers = itertools.count()


class Recovery:
    """Outputs from (x, y): one constant affine map; an index array where it only selects columns.

    Values are returned within the bounds that variables declare, which a point satisfies to its residual.
    The multipliers of two inequalities that act as one equality are the positive parts of their entries of that map,
    marked in `positive`; `linear` and `transpose` are those of the map, to which `alive` adds what the parts do.

    Args:
        outputs: the requested outputs, each with its own map.
        n: number of columns.
        m: number of rows.
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
        self.XT, self.YT = self.X.T.tocsr(), self.Y.T.tocsr()
        self.offset = np.concatenate(offsets) if offsets else np.zeros(0)
        self.has_dual = self.Y.nnz > 0
        masks = [np.zeros(math.prod(o.shape), dtype=bool) if o.positive is None else o.positive for o in outputs]
        self.positive = np.concatenate(masks) if any(mask.any() for mask in masks) else None
        self.n, self.m = n, m
        self.number = next(_numbers)  # names these outputs among all that were ever asked for
        low, high = (
            np.concatenate([np.full(math.prod(o.shape), end) if o.bounds is None else o.bounds[k] for o in outputs])
            if outputs
            else np.zeros(0)
            for k, end in enumerate((-np.inf, np.inf))
        )
        self.bounds = None if np.isneginf(low).all() and np.isposinf(high).all() else (low, high)
        plain = self.X.nnz == len(self.offset) and np.all(np.diff(self.X.indptr) == 1) and np.all(self.X.data == 1.0)
        plain = plain and not self.has_dual and not self.offset.any() and len(np.unique(self.X.indices)) == self.X.nnz
        self.select = self.X.indices.astype(np.intp) if plain else None

    def __call__(self, x: Floats, y: Floats) -> Floats:
        """The outputs, shape (..., K), at x (..., n) and y (..., m)."""
        out = self.linear(x, y) if self.select is not None else self.linear(x, y) + self.offset
        if self.positive is not None:
            out = np.where(self.positive, np.maximum(out, 0.0), out)
        return out if self.bounds is None else np.clip(out, *self.bounds)

    def alive(self, outputs: Floats, vectors: Floats) -> Floats:
        """Tangents, or cotangents, of the outputs without those of positive parts that are zero.

        Args:
            outputs: the outputs, shape (*batch, K); none for a call that keeps none, which returns `vectors`.
            vectors: shape (..., *batch, K).
        """
        if self.positive is None or outputs.shape[-1] != len(self.positive):
            return vectors
        return np.where(self.positive & (outputs <= 0.0), 0.0, vectors)

    def linear(self, x: Floats, y: Floats) -> Floats:
        """Tangent of the outputs for tangents x (..., n) and y (..., m)."""
        if self.select is not None:
            return x[..., self.select]
        out = apply(self.X, x)
        return out + apply(self.Y, y) if self.has_dual else out

    def transpose(self, bar: Floats) -> tuple[Floats, Floats | None]:
        """Cotangents of x and y (None for zero) for a cotangent of the outputs, shape (..., K)."""
        if self.select is not None:
            x_bar = np.zeros((*bar.shape[:-1], self.n))
            x_bar[..., self.select] = bar
            return x_bar, None
        return apply(self.XT, bar), (apply(self.YT, bar) if self.has_dual else None)
