"""From θ to the inputs of a closed form, with tangents and cotangents; the scores x over the temperature c.

    x = a/c + log p,    ẋ = r̊ + ṗ/p,  r = a/c,  r̊ = (ȧ − r ċ)/c

Every input (scores a, curvature c, prior p, sums, bounds) is affine in θ. Where c or p do not depend on θ, their part
is left out: a is then divided by c beforehand, and a prior of numbers is part of a.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cvxift._types import Indices
from cvxift.argmax.closed_form.affine import Rows
from cvxift.program.affine import AffineMap
from cvxift.program.structure import Floats

Shape = tuple[int, int]


class _Part:
    """One input as c + Mθ on θ's last axis, to an array (…, G, n)."""

    def __init__(self, rows: Rows, shape: Shape) -> None:
        M, count = rows.M, len(rows.c)
        self.shape, self._width = shape, M.shape[1]
        # Mostly an input is a part of θ as it lies, times a number: a view is faster than any gather.
        self._where: slice | None = None
        single = M.nnz == count and np.array_equal(M.indptr, np.arange(count + 1)) and not rows.c.any()
        if single and np.array_equal(M.indices, M.indices[0] + np.arange(count)) and np.all(M.data == M.data[0]):
            self._where, self._weight = slice(int(M.indices[0]), int(M.indices[0]) + count), float(M.data[0])
            return
        self._map, self._adjoint = AffineMap(M, rows.c), AffineMap(sp.csr_array(M.T))

    def value(self, theta: Floats, linear: bool = False) -> Floats:
        """The input, or its linear part; may be a view of θ."""
        if self._where is None:
            out = self._map.linear(theta) if linear else self._map(theta)
        else:
            out = theta[..., self._where]
            out = out if self._weight == 1.0 else self._weight * out
        return out.reshape(*theta.shape[:-1], *self.shape)

    def pull(self, bar: Floats, out: Floats | None) -> Floats:
        """The cotangent of θ added to `out`, shape (..., N); a new array if there is none yet."""
        bar = bar.reshape(*bar.shape[:-2], math.prod(self.shape))
        if self._where is None:
            added = self._adjoint(bar)
            return added if out is None else out + added
        if out is None:
            if self._where == slice(0, self._width):
                return self._weight * bar
            out = np.zeros((*bar.shape[:-1], self._width))
        out[..., self._where] += self._weight * bar
        return out


class Inputs:
    """θ ↦ the inputs by name, and the transpose; those that do not depend on θ are kept aside.

    Args:
        pieces: the inputs, rows group by group, and their shapes (G, n); "score" and "stiffness" are among them.

    Attributes:
        divides: whether c depends on θ; else the scores are divided by it once.
        constant: the inputs that do not.
    """

    def __init__(self, pieces: Mapping[str, tuple[Rows, Shape]]) -> None:
        pieces = dict(pieces)
        score, size = pieces["score"]
        c = pieces["stiffness"][0]
        self.divides = c.moving
        if not self.divides:
            each = np.broadcast_to(1.0 / c.c.reshape(pieces["stiffness"][1]), size)
            pieces["score"] = score.times(each.ravel()), size
        self._size = score.M.shape[1]
        self.constant = {name: rows.c.reshape(shape) for name, (rows, shape) in pieces.items() if not rows.moving}
        self._parts = {name: _Part(rows, shape) for name, (rows, shape) in pieces.items() if rows.moving}

    @property
    def moving(self) -> set[str]:
        """Names of the inputs that depend on θ."""
        return set(self._parts)

    def values(self, theta: Floats) -> dict[str, Floats]:
        """Every input at θ, shape (*batch, G, n), or (G, n) where it is constant and no score; may be views of θ."""
        out = {**self.constant, **{name: part.value(theta) for name, part in self._parts.items()}}
        if "score" not in self._parts and theta.ndim > 1:
            out["score"] = np.broadcast_to(out["score"], (*theta.shape[:-1], *out["score"].shape))
        return out

    def tangent(self, theta_dot: Floats) -> dict[str, Floats]:
        """Tangents of the inputs that depend on θ, and of the scores."""
        out = {name: part.value(theta_dot, linear=True) for name, part in self._parts.items()}
        if "score" not in out:
            out["score"] = np.zeros((*theta_dot.shape[:-1], *self.constant["score"].shape))
        return out

    def pull(self, bars: Mapping[str, Floats]) -> Floats:
        """The cotangent of θ; inputs not named, and those that do not depend on it, count as zero."""
        out = None
        for name, part in self._parts.items():
            if name in bars:
                out = part.pull(bars[name], out)
        lead = next(iter(bars.values())).shape[:-2]
        return np.zeros((*lead, self._size)) if out is None else out


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores at one θ, or a batch.

    Attributes:
        ratio: r, shape (*batch, G, n).
        stiffness: c, of each group, (*batch, G, 1), or of each entry.
        divides: whether c depends on θ.
        prior: p > 0, (*batch, G, n), if there is one that depends on θ.
    """

    ratio: Floats
    stiffness: Floats
    divides: bool
    prior: Floats | None = None

    @classmethod
    def of(cls, values: Mapping[str, Floats], divides: bool) -> Scores | None:
        """From inputs; None where c or p is not positive."""
        ratio, stiffness, prior = values["score"], values["stiffness"], values.get("prior")
        if divides:
            if not (stiffness > 0).all():
                return None
            with np.errstate(over="ignore"):
                ratio = ratio / stiffness
        return None if prior is not None and not (prior > 0).all() else cls(ratio, stiffness, divides, prior)

    @property
    def x(self) -> Floats:
        """x, shape (*batch, G, n)."""
        return self.ratio if self.prior is None else self.ratio + np.log(self.prior)

    def _each(self, bar: Floats) -> Floats:
        """What the entries say of c, summed over groups if c is theirs."""
        return bar if self.stiffness.shape[-1] > 1 else bar.sum(axis=-1, keepdims=True)

    def _ratio_tangent(self, moved: Mapping[str, Floats]) -> Floats:
        if not self.divides:
            return moved["score"]
        return (moved["score"] - self.ratio * moved["stiffness"]) / self.stiffness

    def tangent(self, moved: Mapping[str, Floats]) -> Floats:
        """ẋ for tangents of the inputs."""
        x = self._ratio_tangent(moved)
        return x if self.prior is None else x + moved["prior"] / self.prior

    def pull(self, x_bar: Floats) -> dict[str, Floats]:
        """Cotangents of the inputs for one of x."""
        bars = {"score": x_bar}
        if self.divides:
            bars["score"] = x_bar / self.stiffness
            bars["stiffness"] = self._each(-bars["score"] * self.ratio)
        if self.prior is not None:
            bars["prior"] = x_bar / self.prior
        return bars

    def pull_tangent(self, x_bar: Floats, moved: Mapping[str, Floats]) -> dict[str, Floats]:
        """How `pull` of a fixed cotangent moves with the inputs; empty where it does not."""
        bars: dict[str, Floats] = {}
        if self.divides:
            c, c_dot = self.stiffness, moved["stiffness"]
            bars["score"] = -x_bar * c_dot / c**2
            lever = (self.ratio * c_dot / c - self._ratio_tangent(moved)) / c
            bars["stiffness"] = self._each(x_bar * lever)
        if self.prior is not None:
            bars["prior"] = -x_bar * moved["prior"] / self.prior**2
        return bars

    def second(self, moved: Mapping[str, Floats], along: Mapping[str, Floats]) -> Floats | None:
        """How `tangent` moves with the inputs; None where it does not."""
        out = None
        if self.divides:
            first, second = self._ratio_tangent(moved), self._ratio_tangent(along)
            out = -(second * moved["stiffness"] + first * along["stiffness"]) / self.stiffness
        if self.prior is not None:
            log = -(moved["prior"] / self.prior) * (along["prior"] / self.prior)
            out = log if out is None else out + log
        return out


class Entries:
    """Which of a form's entries, (…, G, n), are asked for, in which order.

    Args:
        chosen: for each output its entry, counted through.
        shape: (G, n).
    """

    def __init__(self, chosen: Indices, shape: Shape) -> None:
        size = math.prod(shape)
        self._shape, self._size = shape, size
        whole = len(chosen) == size
        self._chosen = None if whole and np.array_equal(chosen, np.arange(size)) else chosen
        self._back = np.argsort(chosen) if whole else None

    def take(self, z: Floats) -> Floats:
        """The outputs, shape (…, K)."""
        flat = z.reshape(*z.shape[:-2], self._size)
        return flat if self._chosen is None else flat[..., self._chosen]

    def put(self, bar: Floats) -> Floats:
        """A cotangent of the outputs as one of all entries."""
        if self._chosen is not None and self._back is not None:
            bar = bar[..., self._back]
        elif self._chosen is not None:
            flat = np.zeros((*bar.shape[:-1], self._size))
            flat[..., self._chosen] = bar
            bar = flat
        return bar.reshape(*bar.shape[:-1], *self._shape)
