"""Solved batches: what a solution map hands over, points to start the next solve from, and those of small programs.

A batch of small dense programs stays where its arrays live; single instances are made of it when they are asked for.
Where θ has moved little since a point was found, Newton's steps from it reach the new one: a factorization or two
instead of an interior-point method's ten to twenty, or a first-order method's thousands of iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from cvxift import cones as cone
from cvxift._types import cached_property
from cvxift.kkt.backend import Array
from cvxift.kkt.batch.programs import DensePrograms
from cvxift.kkt.engine import Engine, Solution
from cvxift.kkt.instance import Residuals
from cvxift.kkt.newton import Point, Points
from cvxift.kkt.solution import near_kinks
from cvxift.kkt.system.batched import DenseSystems
from cvxift.kkt.units import Rescaled
from cvxift.program.lazy import Made
from cvxift.program.structure import Data, Floats
from cvxift.program.substitution import Way
from cvxift.solvers.base import Raw, Status


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


class HostSide(NamedTuple):
    """What the solvers and single instances need of a batch, on the host.

    Attributes:
        data: the original programs' data, shapes (B, …).
        small: the condensed programs' data, in moderate units.
        substitution: the way from there to the original ones.
    """

    data: Data
    small: Data
    substitution: Way | None

    def solve(
        self,
        engine: Engine,
        index: int,
        solver: str | None,
        solver_args: Mapping[str, Any] | None,
        found: Raw | None,
    ) -> Solution:
        """One instance alone, from what the first solver found."""
        way = None if self.substitution is None else self.substitution[index]
        condensed = self.small[index], way
        return engine.solve(self.data[index], solver=solver, solver_args=solver_args, found=found, condensed=condensed)


@dataclass(eq=False)
class DenseBatch(Made[Solution]):
    """Solutions of a batch of small dense programs; a single one is made when it is asked for.

    Attributes:
        engine: the programs' engine.
        host: their data on the host; a function, because a batch solved on a device may never need it.
        programs: the condensed programs' matrices, where the batch's arrays live.
        points: the condensed points.
        elimination: the way from the condensed programs to the original ones, likewise.
        name: the solver that was asked.
        statuses: how it ended, one an instance.
        singles: instances that were solved one by one.
        full_x: original columns, shape (B, n_full).
        full_y: original multipliers, shape (B, m_full).
    """

    engine: Engine
    host: Callable[[], HostSide]
    programs: DensePrograms
    points: Points
    elimination: Way | None
    name: str
    statuses: Sequence[Status]
    singles: dict[int, Solution] = field(default_factory=dict)
    full_x: Array = None
    full_y: Array = None
    _made: dict[int, Solution] = field(default_factory=dict)  # single instances of the vectorized path, as asked for

    def __post_init__(self) -> None:
        x, s = self.points.x, self.points.spectrum.s
        y = s - self.points.v
        self.full_x, _, self.full_y = (x, s, y) if self.elimination is None else self.elimination.expand(x, s, y)

    def __len__(self) -> int:
        return len(self.statuses)

    @property
    def ok(self) -> bool:
        """Whether every instance has a point that passed the check."""
        return all(solution.ok for solution in self.singles.values())

    @property
    def made(self) -> list[Solution]:
        """The single instances that were asked for so far."""
        return [*self.singles.values(), *self._made.values()]

    @cached_property
    def x(self) -> Floats:
        """Condensed columns on the host, shape (B, n)."""
        return self.programs.place.host(self.points.x)

    @cached_property
    def v(self) -> Floats:
        """Condensed s − y on the host, shape (B, m)."""
        return self.programs.place.host(self.points.v)

    def know(self, x: Floats, v: Floats) -> None:
        """Tell the batch its points' values on the host, so that it need not fetch them."""
        self.__dict__.update(x=x, v=v)

    @property
    def residuals(self) -> Floats:
        """Worst relative residuals, shape (B, 2): primal, dual."""
        return self.points.residuals

    def make(self, index: int) -> Solution:
        """The solution of one instance."""
        if index in self.singles:
            return self.singles[index]
        if index not in self._made:
            data, small, substitution = self.host()
            v, cones = self.v[index], self.engine.cones
            spectrum = None if cones.polyhedral else cone.spectrum(cones, v)
            s = cone.project(cones, v) if spectrum is None else spectrum.s
            residuals = Residuals(*map(float, self.residuals[index]))
            point = Point(self.x[index], s, s - v, v, residuals, residuals.worst, spectrum=spectrum)
            self._made[index] = self.engine.solution(
                data[index],
                point,
                self.engine.layout.instance(small[index], moderate=True),
                None if substitution is None else substitution[index],
                self.name,
                self.statuses[index],
                [(self.name, self.statuses[index], "", point.residuals.worst)],
            )
        return self._made[index]

    @cached_property
    def _systems(self) -> DenseSystems:
        return DenseSystems(self.programs, self.points.spectrum, self.points.most)

    def solve(self, g: Array, h: Array) -> tuple[Array, Array, Array]:
        """The KKT systems of all instances, factorized once.

        Args:
            g: right-hand sides on the original columns, shape (B, n_full) or (k, B, n_full).
            h: right-hand sides on the original rows, shape (B, m_full) or (k, B, m_full).

        Returns:
            u and w, of the shapes of g and h, and which instances are certified, shape (B,): those whose K is singular
            are not, because another judges what that means for the product.
        """
        if self.elimination is None:
            u, w, good = self._systems.solve(g, h, singular=False)
            return u, w, good & ~self._systems.doubtful
        certified: list[Array] = []

        def inner(g: Array, h: Array) -> tuple[Array, Array]:
            u, w, good = self._systems.solve(g, h, singular=False)
            certified.append(good & ~self._systems.doubtful)
            return u, w

        return (*self.elimination.solve(inner, g, h), certified[0])

    @cached_property
    def near_kinks(self) -> np.ndarray:
        """Instances that may lie on a kink, on the host, shape (B,): they are judged one by one.

        The question of `near_kinks`, asked of all instances at once.
        """
        return near_kinks(self.engine.cones, self.v)

    def starts(self) -> Starts:
        """The condensed programs' points in their own units, to start the next solve from."""
        x, s = np.array(self.x), np.array(self.programs.place.host(self.points.spectrum.s))
        y = s - self.v
        if isinstance(self.elimination, Rescaled):
            way = self.host().substitution
            assert isinstance(way, Rescaled)
            x, s, y = way.units.point_back(x, s, y)
        for i, solution in self.singles.items():
            found = solution.start()
            x[i], s[i], y[i] = (np.nan, np.nan, np.nan) if found is None else (found.x, found.s, found.y)
        return Starts(x, s, y)

    def replace(self, rows: Mapping[int, Solution]) -> None:
        """Put in the solutions of instances that were solved one by one."""
        if not rows:
            return
        self.singles.update(rows)
        place = self.programs.place
        index = np.arange(len(self))
        index[list(rows)] = len(self) + np.arange(len(rows))
        where = place.put(index)
        for name in ("full_x", "full_y"):
            values = np.stack([getattr(solution, name[-1]) for solution in rows.values()])
            setattr(self, name, merged(place.xp, getattr(self, name), place.put(values), where))


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


def merged(xp: Any, whole: Array, rows: Array, where: Array, axis: int = 0) -> Array:
    """The rows of `whole`, and after them those of `rows`, taken by an index array: replaces rows out of place."""
    return xp.take(xp.concat([whole, rows], axis=axis), where, axis=axis)
