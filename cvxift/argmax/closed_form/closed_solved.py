"""Batches that were solved in closed form, as the solved calls of any other solution map."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cvxift.argmax.closed_form.form import Solved as State
from cvxift.kkt.engine import Solution
from cvxift.kkt.regularity.point import KINK
from cvxift.kkt.solution_map import Solved
from cvxift.program.lazy import Made
from cvxift.program.structure import Floats
from cvxift.solvers.base import Raw

if TYPE_CHECKING:
    from cvxift.argmax.closed_form.closed_map import ClosedMap

SHOWN = 8  # instances of a batch whose optimality a report measures


@dataclass(frozen=True, eq=False)
class ClosedSolved(Solved):
    """A batch solved in closed form.

    Attributes:
        solutions: the instances.
        state: what the form keeps of the batch.
    """

    solutions: ClosedSolutions
    state: State

    @property
    def ok(self) -> bool:
        """Every instance has a solution."""
        return True

    @property
    def weak(self) -> int:
        """Number of instances that seem to lie on a kink."""
        return int(np.count_nonzero(self.solutions.margins <= KINK))

    def warm(self) -> list[Raw | None]:
        """Nothing that a solver could start from."""
        return [None] * len(self.solutions)


class ClosedSolutions(Made[Solution]):
    """The instances' canonical points, each made when it is asked for.

    Args:
        mapping: the map.
        theta: shape (*batch, N).
        state: what the form keeps of the batch.
    """

    def __init__(self, mapping: ClosedMap, theta: Floats, state: State) -> None:
        self._map, self._theta, self._state = mapping, theta.reshape(-1, theta.shape[-1]), state
        self._made: dict[int, Solution] = {}

    def __len__(self) -> int:
        return len(self._theta)

    def make(self, index: int) -> Solution:
        """The canonical solution of one instance."""
        if index not in self._made:
            self._made[index] = self._map.canonical(self._theta[index])
        return self._made[index]

    @cached_property
    def residual(self) -> float:
        """Worst violation of the optimality conditions in the first instances."""
        return max((self._map.violation(theta) for theta in self._theta[:SHOWN]), default=0.0)

    @cached_property
    def margins(self) -> Floats:
        """Smallest relative distance to a kink of each instance, shape (instances,)."""
        assert self._map.form is not None
        return np.reshape(self._map.form.margins(self._state), -1)
