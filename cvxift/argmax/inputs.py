"""From θ to the inputs of a recognized program's allocation, and their tangents and cotangents."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from cvxift.argmax.form import Affine, Form
from cvxift.argmax.separable import Allocation, Limits
from cvxift.program.affine import AffineMap
from cvxift.program.structure import Floats


class InputMaps:
    """θ ↦ the allocation's inputs, and the transpose; pieces that do not depend on θ are kept aside.

    Args:
        form: the form.
        columns: for each entry of θ, its place in the program's.

    Attributes:
        divides: whether c depends on θ; else the scores are divided by it once.
        moving: names of the pieces that depend on θ.
        limits: the set, if it does not depend on θ and there is one.
    """

    def __init__(self, form: Form, columns: np.ndarray) -> None:
        self._kind = form.kind
        groups = form.layout.groups
        flat, size, single = groups.ravel(), groups.shape, (len(groups), 1)
        self.divides = form.stiffness.varies
        weight = None if self.divides else np.repeat(1.0 / form.stiffness.constant[groups[:, 0]], size[1])
        pieces: dict[str, tuple[Affine | None, np.ndarray, tuple[int, int]]] = {
            "score": (form.score, flat, size),
            "stiffness": (form.stiffness, groups[:, 0], single),
            "total": (form.total, np.arange(len(groups)), single),
            "lower": (form.lower, flat, size),
            "upper": (form.upper, flat, size),
        }
        self._constant: dict[str, Floats | None] = {}
        self.moving: dict[str, tuple[slice, tuple[int, int]]] = {}
        start, parts = 0, []
        for name, (piece, rows, shape) in pieces.items():
            if piece is None:
                self._constant[name] = None
                continue
            row, column, value, constant = piece.scaled(rows, weight if name == "score" else None)
            if not len(value):
                self._constant[name] = constant.reshape(shape)
                continue
            self.moving[name] = slice(start, start + len(rows)), shape
            parts.append((row + start, column, value, constant))
            start += len(rows)
        self.limits: Limits | None = None
        if not {"total", "lower", "upper"} & self.moving.keys():
            fixed = self._constant
            self.limits = form.kind.limits(fixed["total"], fixed["lower"], fixed["upper"], size[1])
        self._theta_size = len(columns)
        self._map = self._adjoint = None
        if parts:
            row, column, value, constant = (np.concatenate(piece) for piece in zip(*parts, strict=True))
            column = np.argsort(columns)[column]  # from the program's θ to this map's
            self._map = AffineMap(sp.csr_array((value, (row, column)), shape=(start, len(columns))), constant)
            self._adjoint = AffineMap(sp.csr_array((value, (column, row)), shape=(len(columns), start)))

    def values(self, theta: Floats) -> dict[str, Floats | None]:
        """Every piece at θ."""
        out = dict(self._constant)
        if self._map is not None:
            out.update(self._cut(self._map(theta)))
        if out["score"] is not None and "score" not in self.moving and theta.ndim > 1:
            out["score"] = np.broadcast_to(out["score"], (*theta.shape[:-1], *out["score"].shape))
        return out

    def _cut(self, stacked: Floats) -> dict[str, Floats]:
        lead = stacked.shape[:-1]
        return {name: stacked[..., at].reshape(*lead, *shape) for name, (at, shape) in self.moving.items()}

    def tangent(self, theta_dot: Floats) -> dict[str, Floats]:
        """Tangents of the pieces that move, and of the scores."""
        out = {} if self._map is None else self._cut(self._map.linear(theta_dot))
        if "score" not in out:
            score = self._constant["score"]
            assert score is not None
            out["score"] = np.zeros((*theta_dot.shape[:-1], *score.shape))
        return out

    def pull(self, bars: Mapping[str, Floats]) -> Floats:
        """Cotangent of θ; pieces not named, and those that do not move, count as zero."""
        named = {name: bars[name] for name in self.moving if name in bars}
        lead = next(iter(bars.values())).shape[:-2]
        if self._adjoint is None or not named:
            return np.zeros((*lead, self._theta_size))
        parts = []
        for name, (at, _) in self.moving.items():
            width = at.stop - at.start
            parts.append(named[name].reshape(*lead, width) if name in named else np.zeros((*lead, width)))
        return self._adjoint(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1))

    def allocate(self, theta: Floats) -> tuple[Allocation, Floats] | None:
        """The allocations at θ, shape (*batch, N), and c, which broadcasts to (*batch, G, 1).

        Returns:
            None if an instance is out of the form's range: an empty set, no curvature, scores beyond all numbers.
        """
        values = self.values(theta)
        x, stiffness = values["score"], values["stiffness"]
        assert x is not None and stiffness is not None
        if self.divides:
            if not (stiffness > 0).all():
                return None
            with np.errstate(over="ignore"):
                x = x / stiffness
        if not np.isfinite(x).all():
            return None
        limits = self.limits
        if limits is None:
            limits = self._kind.limits(values["total"], values["lower"], values["upper"], x.shape[-1])
        found = None if limits is None else self._kind.solve(x, limits)
        return None if found is None or self._pinned(found) else (found, stiffness)

    def _pinned(self, found: Allocation) -> bool:
        """Whether bounds or sums that move hold every entry of a group: they cannot all move as they please."""
        if found.limits.k is None or not {"total", "lower", "upper"} & self.moving.keys():
            return False
        return bool((found.inverse_sum == 0.0).any())
