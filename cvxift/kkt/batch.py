"""Batches of small dense programs: one solver call an instance, all else vectorized over the batch.

The solvers run on the host. Residuals, Newton's steps and the KKT systems (`cvxift.kkt.dense`) run where the batch's
arrays live: NumPy's on the host, a framework's on their own device. Instances that the vectorized path cannot certify
(a residual above the goal, a singular or badly conditioned K) are taken one by one by the engine, on the host, which
polishes, falls back to other solvers, and applies the policy for singular systems.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from cvxift import cones as cone
from cvxift import solvers
from cvxift.cones.array_cones import on_host
from cvxift.kkt.backend import HOST, Array
from cvxift.kkt.dense import DensePrograms
from cvxift.kkt.dense_newton import DensePoints, check, polish
from cvxift.kkt.dense_systems import DenseSystems
from cvxift.kkt.engine import TOLERANCE, Engine, Solution
from cvxift.kkt.instance import Residuals
from cvxift.kkt.newton import GOAL, Point
from cvxift.kkt.regularity.thresholds import CLEAR
from cvxift.kkt.starts import CLOSE, FOLLOWING, NEAR, WORDS, Starts
from cvxift.kkt.units import Rescaled, Way
from cvxift.program.lazy import Made
from cvxift.program.structure import Data, Floats
from cvxift.solvers import Pool
from cvxift.solvers.base import Raw, Status

THREAD_COST = 2000  # stored matrix entries an instance from which a thread may pay for itself
LARGEST = 160  # rows + columns up to which one padded factorization beats a reduced one an instance

_pools: weakref.WeakKeyDictionary[Engine, dict[Any, Pool]] = weakref.WeakKeyDictionary()


def fits(engine: Engine) -> bool:
    """Whether an engine's instances are small programs that pay for dense arrays."""
    structure = engine.condensation.structure
    # Of a sparse instance with curved cones most of the time goes into calls, which a batch makes once.
    dense = engine.layout.dense or not engine.cones.polyhedral
    return dense and engine.condensation.batches and 0 < structure.n + structure.m <= LARGEST


class Elimination(Protocol):
    """The way from a batch of condensed programs to the original ones; see `cvxift.program.elimination`."""

    def expand(self, x: Array, s: Array, y: Array) -> tuple[Array, Array, Array]:
        """The original points from the condensed ones'."""
        ...

    def solve(self, inner: Callable[[Array, Array], tuple[Array, Array]], g: Array, h: Array) -> tuple[Array, Array]:
        """The original KKT systems through the condensed ones."""
        ...


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
    points: DensePoints
    elimination: Elimination | None
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
            point = Point(self.x[index], s, s - v, v, residuals, spectrum=spectrum)
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

        The cheap question of `cvxift.kkt.regularity.account`, asked of all instances at once.
        """
        v, cones = self.v, self.engine.cones
        size = np.abs(v[:, cones.zero :] if cones.polyhedral else v)
        near = size if cones.polyhedral else cone.margin(cones, v)
        return ~(near.min(axis=-1, initial=np.inf) > CLEAR * (1.0 + size.max(axis=-1, initial=0.0)))

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


def merged(xp: Any, whole: Array, rows: Array, where: Array, axis: int = 0) -> Array:
    """The rows of `whole`, and after them those of `rows`, taken by an index array: replaces rows out of place."""
    return xp.take(xp.concat([whole, rows], axis=axis), where, axis=axis)


def solve(
    engine: Engine,
    data: Data,
    *,
    solver_args: Mapping[str, Any] | None,
    warm: Sequence[Raw | None] | None,
    solver: str | None,
) -> DenseBatch:
    """Solve a batch of small dense programs on the host.

    Args:
        engine: the programs' engine; `fits` it.
        data: their data, shapes (B, …).
        solver_args: options for the first solver in this call.
        warm: a point an instance to start from.
        solver: name of the solver to try first in this call.

    Returns:
        The solutions.
    """
    host = HostSide(data, *engine.condense(data))
    order, raws, x, v = forward(
        engine, host.small, host.substitution, solver_args=solver_args, warm=warm, solver=solver
    )
    P, A = engine.layout.stack(host.small)
    programs = DensePrograms(HOST, P, host.small.q, A, host.small.b, on_host(engine.cones))
    statuses = [raw.status for raw in raws]
    batch = checked(engine, lambda: host, programs, host.substitution, order, statuses, x, v)
    rest = unfinished(batch)
    batch.replace({i: host.solve(engine, i, solver, solver_args, raws[i]) for i in rest})
    return batch


def forward(
    engine: Engine,
    small: Data,
    way: Way | None,
    *,
    solver_args: Mapping[str, Any] | None,
    warm: Sequence[Raw | None] | None,
    solver: str | None,
) -> tuple[str, list[Raw], Floats, Floats]:
    """Solve condensed programs on the host, unchecked.

    Returns:
        The solver's name, what it returned, x (B, n) and v = s − y (B, m).
    """
    structure, count = engine.condensation.structure, len(small.q)
    order, options, session = engine.open(solver, solver_args)

    def ask(small: Data, starts: Starts | None) -> list[Raw]:
        if structure.nnzA + structure.nnzP < THREAD_COST:
            return session.solve_batch(small.P, small.q, small.A, small.b, starts)
        return _pool(engine, order[0], options).solve_batch(small, starts)

    starts = None if warm is None else Starts.of(warm, structure.n, structure.m)
    if starts is not None and isinstance(way, Rescaled):
        starts = Starts(*way.units.point(starts.x, starts.s, starts.y))
    if starts is not None and engine.follows(order[0], count):
        raws = _followed(engine, small, starts, ask)
    else:
        raws = ask(small, starts)
    x = np.array([raw.x for raw in raws]).reshape(count, structure.n)
    v = np.array([raw.s - raw.y for raw in raws]).reshape(count, structure.m)
    return order[0], raws, x, v


def _followed(
    engine: Engine, small: Data, starts: Starts, ask: Callable[[Data, Starts | None], list[Raw]]
) -> list[Raw]:
    """Newton's steps from the points that are close; the solver is asked for the other instances."""
    P, A = engine.layout.stack(small)
    programs = DensePrograms(HOST, P, small.q, A, small.b, on_host(engine.cones))
    x, v = starts.x, starts.s - starts.y
    if not engine.cones.polyhedral:
        x = np.where(check(programs, x, v).worst[:, None] <= NEAR, x, np.nan)
    points = polish(programs, x, v, max_steps=FOLLOWING, close=CLOSE)
    done, s = points.worst <= TOLERANCE, np.asarray(points.spectrum.s)  # `checked` polishes further
    raws = {i: Raw(points.x[i], s[i], s[i] - points.v[i], Status.SOLVED, WORDS) for i in np.flatnonzero(done).tolist()}
    rest = np.flatnonzero(~done)
    if len(rest):
        asked = ask(small[rest], Starts(starts.x[rest], starts.s[rest], starts.y[rest]))
        raws.update(zip(rest.tolist(), asked, strict=True))
    return [raws[i] for i in range(len(small.q))]


def _pool(engine: Engine, name: str, options: Mapping[str, Any]) -> Pool:
    """The engine's sessions of a solver with these options, for batches; kept as long as the engine."""
    pools = _pools.setdefault(engine, {})
    key = (name, tuple(sorted((option, repr(value)) for option, value in options.items())))
    if key not in pools:
        structure = engine.condensation.structure
        pools[key] = Pool(lambda: solvers.get(name).session(structure, **options))
    return pools[key]


def checked(
    engine: Engine,
    host: Callable[[], HostSide],
    programs: DensePrograms,
    elimination: Elimination | None,
    name: str,
    statuses: Sequence[Status],
    x: Array,
    v: Array,
) -> DenseBatch:
    """A batch from what a solver returned: residuals, and Newton where they are not at the goal.

    Args:
        engine: the programs' engine.
        host: the batch's host side, if it is asked for.
        programs: the condensed programs.
        elimination: the way to the original ones.
        name: the solver.
        statuses: how it ended.
        x: condensed columns, shape (B, n), where the programs are.
        v: condensed s − y, shape (B, m).
    """
    return DenseBatch(engine, host, programs, polish(programs, x, v), elimination, name, statuses)


def unfinished(batch: DenseBatch) -> list[int]:
    """Instances that are to be taken one by one: no point from the solver, Newton ends above the goal, P indefinite.

    On curved cones Newton may end at what their projections' rounding leaves, as `Engine.solve` takes it as well.
    """
    points = batch.points
    good = points.worst <= GOAL
    if not batch.engine.cones.polyhedral:
        good |= points.settled & (points.worst <= TOLERANCE)
    if batch.engine.vouched and good.any():
        good &= _convex(batch)
    return [i for i, status in enumerate(batch.statuses) if not (status.has_point and good[i])]


def _convex(batch: DenseBatch) -> np.ndarray:
    """Which instances' P are positive semidefinite, shape (B,); the others are looked at one by one."""
    engine, host = batch.engine, batch.host()
    instances = (engine.layout.instance(host.small[i], moderate=True) for i in range(len(batch)))
    return np.array([engine.convex(host.data.P[i], instance) for i, instance in enumerate(instances)])
