"""Points to start the next solve from, and Newton's steps from them in a solver's place.

Where θ has moved little since a point was found, Newton's steps from it reach the new one: a factorization or two
instead of an interior-point method's ten to twenty, or a first-order method's thousands of iterations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvxift.program.lazy import Made
from cvxift.program.structure import Floats
from cvxift.solvers.base import Raw, Status

FIRST_STEP_LEAVES = (
    1e-2  # relative residual that the first step must reach: convergence is quadratic from there, or one step away
)
TOO_FAR = 0.1  # relative residual from which no step is tried on curved cones, where Newton goes astray from afar
FOLLOWING = 4  # steps at most: 1e-2, 1e-4, 1e-8, 1e-16
WORTH_FOLLOWING = 1000  # rows and columns of curved programs from which a step from afar is cheaper than a solver
WORTH_HANDING = 200  # rows and columns from which an old active set saves more than it costs to hand over
WORDS = "Newton's steps from the previous point"


@dataclass(frozen=True, eq=False)
class Starts(Made["Raw | None"]):
    """A point for each instance of a batch, of the condensed programs in their own units; NaN where there is none.

    Attributes:
        x: shape (B, n).
        s: shape (B, m).
        y: shape (B, m).
    """

    x: Floats
    s: Floats
    y: Floats

    @classmethod
    def of(cls, points: Sequence[Raw | None], n: int, m: int) -> Starts:
        """The same from single points."""
        if isinstance(points, Starts):
            return points
        none = Raw(np.full(n, np.nan), np.full(m, np.nan), np.full(m, np.nan), Status.FAILED, "")
        held = [none if point is None else point for point in points]
        return cls(*(np.array([getattr(p, name) for p in held]).reshape(len(held), -1) for name in ("x", "s", "y")))

    def __len__(self) -> int:
        return len(self.x)

    def make(self, index: int) -> Raw | None:
        """One instance's point; None if there is none."""
        x, s, y = self.x[index], self.s[index], self.y[index]
        known = np.isfinite(x).all() and np.isfinite(y).all()
        return Raw(x, s, y, Status.SOLVED, "") if known else None
