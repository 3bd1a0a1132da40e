"""Batches of small dense quadratic programs: one solver call an instance, all else vectorized over the batch.

The reduced KKT systems differ in size from instance to instance, so the batch solves systems of one size: an inactive
row i keeps its place as  −w_i = 0.

    K = [ P   AᵀM ;  M A   M − I ],      M = diag(1 where the row is tight, 0 where it is slack)

Instances that the vectorized path cannot certify (a residual above the goal, a singular or badly conditioned K) are
taken one by one by the engine, which polishes, falls back to other solvers, and applies the policy for singular
systems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from cvxift.kkt.engine import Engine, Solution
from cvxift.kkt.factor import REFINE_GOAL
from cvxift.kkt.instance import Residuals
from cvxift.kkt.newton import GOAL, Point
from cvxift.program.condense import Substitution
from cvxift.program.products import apply, transposed
from cvxift.program.structure import Data, Floats
from cvxift.solvers.base import Raw, Status

LARGEST = 80  # rows + columns up to which one padded factorization beats a reduced one an instance
CERTIFIED = 1e-12  # relative residual up to which a vectorized solve is taken
GROWTH = 1e10  # bound on ‖K‖‖u‖/‖f‖, a lower bound of the condition number, up to which it is taken


def fits(engine: Engine) -> bool:
    """Whether an engine's instances are small dense quadratic programs."""
    structure = engine.condensation.structure
    return (
        engine.cones.polyhedral
        and engine.layout.dense
        and engine.condensation.batches
        and 0 < structure.n + structure.m <= LARGEST
    )


@dataclass(eq=False)
class DenseBatch(Sequence[Solution]):
    """Solutions of a batch of small dense quadratic programs; a single one is made when it is asked for.

    Attributes:
        engine: the programs' engine.
        data: the original programs' data, shapes (B, …).
        P: condensed, shape (B, n, n).
        A: condensed, shape (B, m, n).
        small: the condensed programs' data.
        substitution: the way from the condensed programs to the original ones.
        x: condensed columns, shape (B, n).
        v: condensed s − y, shape (B, m).
        residuals: worst relative residuals, shape (B, 2): primal, dual.
        singles: instances that were solved one by one.
        full_x: original columns, shape (B, n_full).
        full_y: original multipliers, shape (B, m_full).
    """

    engine: Engine
    data: Data
    P: Floats
    A: Floats
    small: Data
    substitution: Substitution | None
    x: Floats
    v: Floats
    residuals: Floats
    singles: dict[int, Solution]
    full_x: Floats
    full_y: Floats

    def __len__(self) -> int:
        return len(self.x)

    @property
    def ok(self) -> bool:
        """Whether every instance has a point that passed the check."""
        return all(solution.ok for solution in self.singles.values())

    @overload
    def __getitem__(self, index: int) -> Solution: ...

    @overload
    def __getitem__(self, index: slice) -> list[Solution]: ...

    def __getitem__(self, index: int | slice) -> Solution | list[Solution]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        if index not in self.singles:
            instance = self.engine.layout.instance(self.small[index])
            s = np.where(self._slack(self.v[index]), self.v[index], 0.0)
            point = Point(
                self.x[index], s, s - self.v[index], self.v[index], Residuals(*map(float, self.residuals[index]))
            )
            substitution = None if self.substitution is None else self.substitution[index]
            self.singles[index] = self.engine.solution(
                self.data[index],
                point,
                instance,
                substitution,
                self.engine.first,
                Status.SOLVED,
                [(self.engine.first, Status.SOLVED, "", point.residuals.worst)],
            )
        return self.singles[index]

    def _slack(self, v: Floats) -> np.ndarray:
        """Rows without a multiplier change."""
        slack = v >= 0.0
        slack[..., : self.engine.cones.zero] = False
        return slack

    def solve(self, g: Floats, h: Floats) -> tuple[Floats, Floats, np.ndarray]:
        """The KKT systems of all instances.

        Args:
            g: right-hand sides on the original columns, shape (B, n_full).
            h: right-hand sides on the original rows, shape (B, m_full).

        Returns:
            u (B, n_full), w (B, m_full), and which instances are certified, shape (B,).
        """
        certified = np.zeros(len(self), dtype=bool)

        def inner(g: Floats, h: Floats) -> tuple[Floats, Floats]:
            u, w, certified[:] = self._solve_small(g, h)
            return u, w

        return (*(inner(g, h) if self.substitution is None else self.substitution.solve(inner, g, h)), certified)

    def _solve_small(self, g: Floats, h: Floats) -> tuple[Floats, Floats, np.ndarray]:
        count, n = self.x.shape
        m = self.v.shape[1]
        tight = ~self._slack(self.v)
        K = np.zeros((count, n + m, n + m))
        K[:, :n, :n] = self.P
        K[:, n:, :n] = self.A * tight[:, :, None]
        K[:, :n, n:] = transposed(K[:, n:, :n])
        rows = np.arange(n, n + m)
        K[:, rows, rows] = tight - 1.0
        f = np.concatenate([g, h * tight], axis=-1)
        try:
            u = np.asarray(np.linalg.solve(K, f[..., None])[..., 0], dtype=float)
        except np.linalg.LinAlgError:  # one instance is exactly singular: all are taken one by one
            return np.zeros_like(g), np.zeros_like(h), np.zeros(count, dtype=bool)
        size = np.abs(f).max(axis=-1, initial=0.0)
        error = np.abs(f - apply(K, u)).max(axis=-1, initial=0.0)
        bound = np.abs(K).max(axis=(-1, -2)) * np.abs(u).max(axis=-1, initial=0.0)
        certified = (error <= CERTIFIED * size) & (bound <= GROWTH * np.maximum(size, REFINE_GOAL))
        return u[:, :n], u[:, n:], certified


def solve(
    engine: Engine,
    data: Data,
    *,
    solver_args: Mapping[str, Any] | None,
    warm: Sequence[Raw | None] | None,
    solver: str | None,
) -> DenseBatch:
    """Solve a batch of small dense quadratic programs.

    Args:
        engine: the programs' engine; `fits` it.
        data: their data, shapes (B, …).
        solver_args: options for the first solver in this call.
        warm: a point an instance to start from.
        solver: name of the solver to try first in this call.

    Returns:
        The solutions.
    """
    small, substitution = engine.condensation.condense(data)
    structure, count = engine.condensation.structure, len(data.q)
    _, _, session = engine.open(solver, solver_args)
    raws = [
        session.solve(small.P[i], small.q[i], small.A[i], small.b[i], warm[i] if warm is not None else None)
        for i in range(count)
    ]
    x = np.array([raw.x for raw in raws]).reshape(count, structure.n)
    v = np.array([raw.s - raw.y for raw in raws]).reshape(count, structure.m)
    solved = np.array([raw.status is Status.SOLVED for raw in raws], dtype=bool)
    P, A = engine.layout.stack(small)
    zero = engine.cones.zero
    s = np.maximum(v, 0.0)
    s[:, :zero] = 0.0
    y = s - v
    Px, ATy, Ax = apply(P, x), apply(transposed(A), y), apply(A, x)
    dual = _worst(Px + small.q + ATy) / (1.0 + np.maximum(np.maximum(_worst(Px), _worst(ATy)), _worst(small.q)))
    primal = _worst(Ax + s - small.b) / (1.0 + np.maximum(np.maximum(_worst(Ax), _worst(s)), _worst(small.b)))
    good = solved & (np.maximum(primal, dual) <= GOAL)
    full_x, _, full_y = (x, s, y) if substitution is None else substitution.expand(x, s, y)
    if substitution is None and not good.all():
        full_x, full_y = full_x.copy(), full_y.copy()
    batch = DenseBatch(
        engine, data, P, A, small, substitution, x, v, np.stack([primal, dual], axis=1), {}, full_x, full_y
    )
    for i in np.flatnonzero(~good):
        i = int(i)
        single = engine.solve(data[i], solver=solver, solver_args=solver_args, found=raws[i])
        batch.singles[i] = single
        full_x[i], full_y[i] = single.x, single.y
    return batch


def _worst(values: Floats) -> Floats:
    """‖·‖∞ of each row."""
    return np.abs(values).max(axis=-1, initial=0.0)
