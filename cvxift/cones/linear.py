"""Points and half lines, whose projections are piecewise linear: equality and inequality rows.

zero      Π = 0, D = 0 everywhere: no kink; the dual cone is the whole line
nonneg    Π(v) = max(v, 0), D = 1 where v ≥ 0 (slack) and 0 elsewhere (tight); a kink at v = 0
"""

from __future__ import annotations

import numpy as np

from cvxift._types import Floats
from cvxift.cones.base import Cone, Diagonal, Group
from cvxift.program.cones import Part


class Zero(Cone):
    """Equality rows."""

    def project(self, part: Part, v: Floats) -> Floats:
        """Π(v) = 0."""
        return self.xp.zeros_like(v)

    def spectrum(self, part: Part, v: Floats, near: Group | None = None) -> Diagonal:
        """D = 0."""
        nothing = self.xp.zeros_like(v)
        return Diagonal(self.xp, part, nothing, nothing)

    def margin(self, part: Part, v: Floats, group: Group | None = None) -> Floats:
        """There is no kink."""
        return np.full(v.shape[:-1], np.inf)

    def distance(self, part: Part, s: Floats) -> Floats:
        """|s|."""
        return np.abs(s[..., 0])


class Nonneg(Cone):
    """Inequality rows."""

    def project(self, part: Part, v: Floats) -> Floats:
        """Π(v) = max(v, 0)."""
        return self.xp.maximum(v, self.xp.zeros_like(v))

    def spectrum(self, part: Part, v: Floats, near: Group | None = None) -> Diagonal:
        """D = 1 where v ≥ 0 (slack), 0 where v < 0 (tight)."""
        xp, nothing = self.xp, self.xp.zeros_like(v)
        return Diagonal(xp, part, xp.maximum(v, nothing), xp.where(v >= 0.0, xp.ones_like(v), nothing))

    def margin(self, part: Part, v: Floats, group: Group | None = None) -> Floats:
        """|v|."""
        return np.abs(v[..., 0])

    def distance(self, part: Part, s: Floats) -> Floats:
        """max(−s, 0)."""
        return np.maximum(-s[..., 0], 0.0)
