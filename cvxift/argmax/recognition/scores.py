"""The scores of an allocation at one θ, over the objective's curvature and shifted by a prior, with their derivatives.

    x = a/c + log p,    ẋ = r̊ + ṗ/p,  r = a/c,  r̊ = (ȧ − r ċ)/c

where c or p does not depend on θ, its part is left out (a is then divided by c beforehand).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cvxift.program.structure import Floats


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores at one θ, or a batch.

    Attributes:
        ratio: r, shape (*batch, G, n).
        stiffness: c, broadcasts to (*batch, G, 1).
        divides: whether c depends on θ.
        prior: p > 0, (*batch, G, n), if there is one that depends on θ.
    """

    ratio: Floats
    stiffness: Floats
    divides: bool
    prior: Floats | None = None

    @property
    def x(self) -> Floats:
        """x, shape (*batch, G, n)."""
        return self.ratio if self.prior is None else self.ratio + np.log(self.prior)

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
            bars["stiffness"] = -(bars["score"] * self.ratio).sum(axis=-1, keepdims=True)
        if self.prior is not None:
            bars["prior"] = x_bar / self.prior
        return bars

    def bend(self, x_bar: Floats, moved: Mapping[str, Floats]) -> dict[str, Floats]:
        """How `pull` of a fixed cotangent moves with the inputs; empty where it does not."""
        bars: dict[str, Floats] = {}
        if self.divides:
            c, c_dot = self.stiffness, moved["stiffness"]
            bars["score"] = -x_bar * c_dot / c**2
            lever = (self.ratio * c_dot / c - self._ratio_tangent(moved)) / c
            bars["stiffness"] = (x_bar * lever).sum(axis=-1, keepdims=True)
        if self.prior is not None:
            bars["prior"] = -x_bar * moved["prior"] / self.prior**2
        return bars

    def twist(self, moved: Mapping[str, Floats], along: Mapping[str, Floats]) -> Floats | None:
        """How `tangent` moves with the inputs; None where it does not."""
        out = None
        if self.divides:
            first, second = self._ratio_tangent(moved), self._ratio_tangent(along)
            out = -(second * moved["stiffness"] + first * along["stiffness"]) / self.stiffness
        if self.prior is not None:
            log = -(moved["prior"] / self.prior) * (along["prior"] / self.prior)
            out = log if out is None else out + log
        return out
