"""The zero cone {0}: equality rows. Its dual cone is the whole line, Π = 0 and D = 0 everywhere: no kink."""

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
