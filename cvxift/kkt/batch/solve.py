"""Batches of small dense programs: one solver call an instance, all else vectorized over the batch.

The solvers run on the host. Residuals, Newton's steps and the KKT systems run where the batch's arrays live
(`cvxift.kkt.batch.programs`): NumPy's on the host, a framework's on their own device. Instances that the vectorized
path cannot certify (a residual above the goal, a singular or badly conditioned K) are taken one by one by the engine,
on the host, which polishes, falls back to other solvers, and applies the policy for singular systems.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cvxift import solvers
from cvxift.cones.product import on_host
from cvxift.kkt.backend import HOST
from cvxift.kkt.batch.programs import DensePrograms
from cvxift.kkt.batch.solutions import DenseBatch, HostSide, Starts
from cvxift.kkt.engine import TOLERANCE, Engine, session_key
from cvxift.kkt.newton import GOAL, polish
from cvxift.kkt.search import FIRST_STEP_LEAVES, FOLLOWING, WORDS
from cvxift.kkt.units import Rescaled
from cvxift.program.structure import Data, Floats
from cvxift.program.substitution import Way
from cvxift.solvers import Pool
from cvxift.solvers.base import Raw, Status

THREAD_COST = 2000  # stored matrix entries an instance from which a thread may pay for itself
TOGETHER = 8  # instances from which a step of Newton's on all costs less than the solver's iterations that it replaces
TOO_FAR = 0.1  # relative residual from which no step is tried on curved cones, where Newton goes astray from afar
LARGEST_PADDED = 160  # rows + columns up to which one padded factorization beats a reduced one an instance

_pools: weakref.WeakKeyDictionary[Engine, dict[Any, Pool]] = weakref.WeakKeyDictionary()


def fits(engine: Engine) -> bool:
    """Whether an engine's instances are small programs that pay for dense arrays."""
    if not engine.vectorized:
        return False
    structure = engine.condensation.structure
    small = engine.layout.dense and 0 < structure.n + structure.m <= LARGEST_PADDED
    return small and engine.condensation.batches


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
    order, raws, x, v, found = forward(
        engine, host.small, host.substitution, solver_args=solver_args, warm=warm, solver=solver
    )
    P, A = engine.layout.stack(host.small)
    programs = DensePrograms(HOST, P, host.small.q, A, host.small.b, on_host(engine.cones))
    statuses = [raw.status for raw in raws]
    points = polish(programs, x, v)
    batch = DenseBatch(engine, lambda: host, programs, points, host.substitution, order, statuses)
    rest = unfinished(batch)
    batch.replace({i: host.solve(engine, i, solver, solver_args, None if found is None else found[i]) for i in rest})
    return batch


def forward(
    engine: Engine,
    small: Data,
    way: Way | None,
    *,
    solver_args: Mapping[str, Any] | None,
    warm: Sequence[Raw | None] | None,
    solver: str | None,
) -> tuple[str, list[Raw], Floats, Floats, list[Raw] | None]:
    """Solve condensed programs on the host, unchecked.

    Returns:
        The solver's name, what it returned, x (B, n) and v = s − y (B, m); and again what it returned if that is what
        it returns for a single instance, else None.
    """
    structure, count = engine.condensation.structure, len(small.q)
    order, options, session = engine.open(solver, solver_args)
    less = {} if options or count < TOGETHER else solvers.get(order[0]).together
    if less:
        options = dict(less)
        session = engine.session(order[0], options)

    def ask(small: Data, starts: Starts | None) -> list[Raw]:
        if structure.nnzA + structure.nnzP < THREAD_COST:
            return session.solve_batch(small.P, small.q, small.A, small.b, starts)
        return _pool(engine, order[0], options).solve_batch(small, starts)

    starts = None if warm is None or not engine.hands_over(order[0]) else Starts.of(warm, structure.n, structure.m)
    if starts is not None and isinstance(way, Rescaled):
        starts = Starts(*way.units.point(starts.x, starts.s, starts.y))
    if starts is not None and engine.follows(order[0], count):
        raws = _followed(engine, small, starts, ask)
    else:
        raws = ask(small, starts)
    x = np.array([raw.x for raw in raws]).reshape(count, structure.n)
    s, y = np.array([raw.s for raw in raws]), np.array([raw.y for raw in raws])
    v = (s - y).reshape(count, structure.m)
    return order[0], raws, x, v, None if less else raws


def _followed(
    engine: Engine, small: Data, starts: Starts, ask: Callable[[Data, Starts | None], list[Raw]]
) -> list[Raw]:
    """Newton's steps from the points that are close; the solver is asked for the other instances."""
    P, A = engine.layout.stack(small)
    programs = DensePrograms(HOST, P, small.q, A, small.b, on_host(engine.cones))
    near = np.inf if engine.cones.polyhedral else TOO_FAR
    points = polish(programs, starts.x, starts.s - starts.y, max_steps=FOLLOWING, close=FIRST_STEP_LEAVES, near=near)
    done, s = points.worst <= TOLERANCE, np.asarray(points.spectrum.s)  # they are polished further
    raws = {i: Raw(points.x[i], s[i], s[i] - points.v[i], Status.SOLVED, WORDS) for i in np.flatnonzero(done).tolist()}
    rest = np.flatnonzero(~done)
    if len(rest):
        asked = ask(small[rest], Starts(starts.x[rest], starts.s[rest], starts.y[rest]))
        raws.update(zip(rest.tolist(), asked, strict=True))
    return [raws[i] for i in range(len(small.q))]


def _pool(engine: Engine, name: str, options: Mapping[str, Any]) -> Pool:
    """The engine's sessions of a solver with these options, for batches; kept as long as the engine."""
    pools = _pools.setdefault(engine, {})
    key = session_key(name, options)
    if key not in pools:
        structure = engine.condensation.structure
        pools[key] = Pool(lambda: solvers.get(name).session(structure, **options))
    return pools[key]


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
