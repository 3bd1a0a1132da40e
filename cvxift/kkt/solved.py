"""A solved batch: what a solution map hands over, and what its derivatives are taken of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cvxift.kkt.batch.solutions import DenseBatch
from cvxift.kkt.engine import Solution
from cvxift.program.structure import Floats
from cvxift.solvers.base import Raw


@dataclass(frozen=True, eq=False)
class Solved:
    """A batch of solved instances.

    Attributes:
        batch_shape: leading dimensions; () when unbatched.
        solutions: the instances in C order.
        outputs: flat outputs, shape (*batch_shape, K); NaN where an instance failed.
    """

    batch_shape: tuple[int, ...]
    solutions: Sequence[Solution]
    outputs: Floats

    @property
    def ok(self) -> bool:
        """Whether every instance has a point that passed the check."""
        if isinstance(self.solutions, DenseBatch):
            return self.solutions.ok
        return all(solution.ok for solution in self.solutions)

    def warm(self) -> Sequence[Raw | None]:
        """Points of the condensed programs to start the next solve from."""
        if isinstance(self.solutions, DenseBatch):
            return self.solutions.starts()
        return [solution.start() for solution in self.solutions]

    def forget_words(self) -> None:
        """Let what was said of the instances be said again, where another call of a layer has found them."""
        for solution in getattr(self.solutions, "made", self.solutions):
            for account in solution.accounts.values():
                account.told.clear()
