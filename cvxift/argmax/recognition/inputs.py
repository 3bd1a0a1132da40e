"""From θ to the inputs of a recognized program's allocation, and their tangents and cotangents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set

import numpy as np
import scipy.sparse as sp

from cvxift.argmax.recognition.form import Affine, Form, Indices
from cvxift.program.affine import AffineMap
from cvxift.program.structure import Floats


class _Part:
    """One input as c + Mθ on θ's last axis.

    Args:
        row: row of each entry of M.
        column: its column.
        value: its value.
        constant: c, shape (rows,).
        width: length of θ.
    """

    def __init__(self, row: Indices, column: Indices, value: Floats, constant: Floats, width: int) -> None:
        rows = len(constant)
        self._width = width
        # Mostly an input is a part of θ as it lies, times a number: a view is faster than any gather.
        self._where: slice | None = None
        straight = len(value) == rows and not constant.any() and np.array_equal(row, np.arange(rows))
        if straight and np.array_equal(column, column[0] + row) and np.all(value == value[0]):
            self._where, self._weight = slice(int(column[0]), int(column[0]) + rows), float(value[0])
            return
        self._map = AffineMap(sp.csr_array((value, (row, column)), shape=(rows, width)), constant)
        self._adjoint = AffineMap(sp.csr_array((value, (column, row)), shape=(width, rows)))

    def value(self, theta: Floats, linear: bool = False) -> Floats:
        """The input, shape (..., rows), or its linear part; may be a view of θ."""
        if self._where is None:
            return self._map.linear(theta) if linear else self._map(theta)
        part = theta[..., self._where]
        return part if self._weight == 1.0 else self._weight * part

    def pull(self, bar: Floats, out: Floats | None) -> Floats:
        """The cotangent of θ added to `out`, shape (..., N); a new array if there is none yet."""
        if self._where is None:
            added = self._adjoint(bar)
            return added if out is None else out + added
        if out is None:
            if self._where == slice(0, self._width):
                return self._weight * bar
            out = np.zeros((*bar.shape[:-1], self._width))
        out[..., self._where] += self._weight * bar
        return out


class InputMaps:
    """θ ↦ the allocation's inputs, and the transpose; pieces that do not depend on θ are kept aside.

    Args:
        form: the form.
        columns: for each entry of θ, its place in the program's.

    Attributes:
        divides: whether c depends on θ; else the scores are divided by it once.
        constant: the pieces that do not; None where there are none.
    """

    def __init__(self, form: Form, columns: np.ndarray) -> None:
        groups = form.layout.groups
        flat, size, single = groups.ravel(), groups.shape, (len(groups), 1)
        sums = 0 if form.total is None else len(form.total.constant)
        self.divides = form.stiffness.varies
        weight = None if self.divides else np.repeat(1.0 / form.stiffness.constant[groups[:, 0]], size[1])
        pieces: dict[str, tuple[Affine | None, np.ndarray, tuple[int, int]]] = {
            "score": (form.score, flat, size),
            "prior": (form.prior, flat, size),
            "stiffness": (form.stiffness, groups[:, 0], single),
            "total": (form.total, np.arange(sums), (len(groups), sums // len(groups))),
            "lower": (form.lower, flat, size),
            "upper": (form.upper, flat, size),
        }
        self.constant: dict[str, Floats | None] = {}
        self._shapes: dict[str, tuple[int, int]] = {}
        self._parts: dict[str, _Part] = {}
        self._theta_size = len(columns)
        place = np.argsort(columns)  # from the program's θ to this map's
        for name, (piece, rows, shape) in pieces.items():
            if piece is None:
                self.constant[name] = None
                continue
            row, column, value, constant = piece.scaled(rows, weight if name == "score" else None)
            if not len(value):
                self.constant[name] = constant.reshape(shape)
                continue
            self._shapes[name] = shape
            self._parts[name] = _Part(row, place[column], value, constant, len(columns))

    @property
    def moving(self) -> Set[str]:
        """Names of the pieces that depend on θ."""
        return self._shapes.keys()

    def values(self, theta: Floats) -> dict[str, Floats | None]:
        """Every piece at θ; those that are parts of θ may be views of it."""
        out = dict(self.constant)
        for name, part in self._parts.items():
            out[name] = part.value(theta).reshape(*theta.shape[:-1], *self._shapes[name])
        score = out["score"]
        if "score" not in self._shapes and theta.ndim > 1 and score is not None:
            out["score"] = np.broadcast_to(score, (*theta.shape[:-1], *score.shape))
        return out

    def tangent(self, theta_dot: Floats) -> dict[str, Floats]:
        """Tangents of the pieces that move, and of the scores."""
        lead = theta_dot.shape[:-1]
        out = {
            name: part.value(theta_dot, linear=True).reshape(*lead, *self._shapes[name])
            for name, part in self._parts.items()
        }
        if "score" not in out:
            score = self.constant["score"]
            assert score is not None
            out["score"] = np.zeros((*lead, *score.shape))
        return out

    def pull(self, bars: Mapping[str, Floats]) -> Floats:
        """Cotangent of θ; pieces not named, and those that do not move, count as zero."""
        lead = next(iter(bars.values())).shape[:-2]
        out = None
        for name, part in self._parts.items():
            if name in bars:
                out = part.pull(bars[name].reshape(*lead, math.prod(self._shapes[name])), out)
        return np.zeros((*lead, self._theta_size)) if out is None else out
