"""One instance's search for a local solution: points from several sources, made accurate, judged, the best kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import lsqr

from cvxift._types import EPS
from cvxift.cones import project
from cvxift.kkt import convexity
from cvxift.kkt.engine import ACCEPTABLE, TOLERANCE, Solution
from cvxift.kkt.solution import Attempts
from cvxift.kkt.system.cone_basis import rotation
from cvxift.nlp.convex import ConvexSolver
from cvxift.nlp.multipliers import fitted
from cvxift.nlp.newton import Converged, converge
from cvxift.program.smooth import Request, interface
from cvxift.program.structure import Floats
from cvxift.solvers.base import Raw, Status

if TYPE_CHECKING:
    from cvxift.nlp.engine import NonlinearEngine

NEAR = 0.1  # relative distance up to which Newton's point belongs to the start where active rows change on the way
CLOSE = 1e-3  # relative residual of the point that variables hold from which Newton alone is tried
ESCAPE = 1e-2  # relative step off a saddle
ASIDE = 0.1  # of that step, to other sides; of a point, what lies near it
FOLLOW_STEPS = 12  # Newton steps to another parameter's solution
FEASIBLE = 1e-6  # relative violation up to which a point counts as feasible
FLAT = 1e-7  # slope, relative to that at the start, up to which a minimum of higher order counts as reached
ROUNDING = 1e-12  # the same where the slope is rounding
HUGE = 1e7  # multipliers, relative to the objective's gradient, that are those of no multipliers
PROBES = (1e-2, 1e-1, 1.0)  # relative steps from a flat point to where its cost is compared
SHORT = 1e-3  # the first of these from a point without curvature, where a cubic falls by 1e-9
COMBINED = (
    4  # random combinations of several flat directions; a cubic form that is not zero falls along one or its opposite
)
RETURNS = 3  # steps back to the active constraints from there
NO_MULTIPLIERS = "no multipliers satisfy the optimality conditions there"


class Search:
    """One instance's search."""

    def __init__(self, engine: NonlinearEngine, data: Request, theta: Floats, p: Floats) -> None:
        self.engine, self.data, self.theta, self.p = engine, data, theta, p
        self.program = engine.program
        self.best: Converged | None = None
        self.name, self.status = "", Status.FAILED
        self.descent: Floats | None = None
        self.scale = 0.0  # of the objective's gradient at the start
        self.attempts: Attempts = []
        self.none: Status | None = None  # why a convex solver says that there is no solution; in small units it may err
        self.left: Floats | None = None  # the last solution, where Newton from it led to none nearby

    def follow(self, warm: Raw) -> bool:
        """Newton from a solution at other parameters; whether it led to one nearby."""
        found = self.take("Newton", warm.x, warm.y, "", steps=FOLLOW_STEPS, far=NEAR)
        self.left = None if found and self.best is not None and self.best.contracts is not False else warm.x
        return found

    def call(self, solver: str | None, options: Mapping[str, Any], start: Floats, count: int, short: bool) -> None:
        """Call the solver from one start or several; keep the best local minimum."""
        name, own = interface.named(solver)
        _, _, found = self.program.oracles.derivatives(start, self.p, np.zeros(self.program.cones.m))
        self.scale = float(np.nan_to_num(np.abs(found.gradient)).max(initial=0.0))
        if solver is None and "preset" not in options and len(start) >= interface.INTERIOR:
            own = {**own, **interface.SPARSE.get(name, {})}
        own = {**own, **options}
        if short:
            radius = NEAR * (float(np.abs(start).max(initial=0.0)) or 1.0)
            own = {**interface.near_start(name, own, radius), **own}
        for x in (start, *self.engine.starts(self.theta, count)):
            self._from(name, own, x)

    def convex(self, solver: ConvexSolver) -> bool:
        """Take the point of a convex solver; whether it is a solution."""
        values, status, words = solver.solve(self.theta, self.engine.verbose)
        if values is None:
            self._tell(solver.name, status, words, float("nan"))
            self.none = status if status in (Status.INFEASIBLE, Status.UNBOUNDED) else None
            return False
        return self.take(solver.name, self.program.start(values, self.theta), None, words)

    def _from(self, name: str, options: Mapping[str, Any], start: Floats, escapes: int = 1) -> None:
        self.descent, before = None, self.best
        found = interface.solve(self.program, self.p, start, name, options, self.engine.verbose)
        if found.x is None:
            self._tell(name, status_of(found.words, 0.0), found.words, float("nan"))
            return
        self.take(name, found.x, found.y, found.words)
        if self.best is before and self.descent is not None and escapes:
            # A little to all sides, so that no symmetry leads to the next saddle.
            aside = ASIDE * np.random.default_rng(0).standard_normal(len(found.x)) * np.abs(self.descent).max()
            step = (self.descent + aside) * (
                ESCAPE * max(1.0, float(np.abs(found.x).max())) / np.abs(self.descent).max()
            )
            for sign in (1.0, -1.0):
                if self.best is before and self.status is not Status.UNBOUNDED:
                    self._from(name, options, found.x + sign * step, escapes - 1)

    def take(
        self,
        name: str,
        x: Floats,
        y: Floats | None,
        words: str,
        *,
        steps: int | None = None,
        far: float = np.inf,
        near: float = np.inf,
    ) -> bool:
        """Make a point accurate and keep it if it is the best local minimum so far.

        Args:
            name: whose point it is.
            x: columns, shape (n,).
            y: multipliers, shape (m,); fitted if None, or if they do not fit.
            words: the solver's.
            steps: largest number of Newton steps.
            far: relative distance from the point up to which Newton's counts, unless its steps contract from the first.
            near: relative residual of the point from which Newton is tried.

        Returns:
            Whether it is one.
        """
        at = None
        for multipliers in (y, None):
            y_used = fitted(self.program, self.p, x) if multipliers is None else multipliers
            at = self._converge(x, y_used, steps, near)
            if at is not None and at.point.worst <= TOLERANCE:
                break
        if at is None:
            return False
        residual = at.point.residuals
        flat = residual.worst > ACCEPTABLE and self._flat(at)
        if not flat and self._unqualified(x, at):
            told, status = f"{words}, {NO_MULTIPLIERS}" if words else NO_MULTIPLIERS, Status.INACCURATE
            if (violation := self._violation(x)) > CLOSE or _names(words, interface.UNBOUNDED):
                told, status = words, status_of(words, violation)
            self._tell(name, status, told, residual.worst)
            return False
        if (at.moved > far and not at.contracts) or (not flat and (residual.worst > ACCEPTABLE or self._drifted(at))):
            self._tell(name, status_of(words, self._violation(x)), words, residual.worst)
            return False
        basis, descent = rotation(self.engine.cones, at.point.v), None
        if not self.engine.convex(at.data.P, at.instance):
            descent = convexity.descent(at.instance, basis)
        if descent is None and (flat or at.slow) and at.step is not None:
            descent = self._falls(at, at.step[:, None], PROBES)
        elif descent is None and not self.engine.convex_by_rules:
            descent = self._falls(at, _combined(convexity.flat(at.instance, basis)), (SHORT, *PROBES), level=True)
        if descent is not None:
            self.descent = descent
            status = Status.UNBOUNDED if _names(words, interface.UNBOUNDED) else Status.NONCONVEX
            self._tell(name, status, words or "a saddle", residual.worst)
            return False
        self._tell(name, Status.SOLVED, words, residual.worst)
        if self.best is None or at.data.program.value < self.best.data.program.value:
            self.best, self.name, self.status = at, name, Status.SOLVED
        return True

    def _converge(self, x: Floats, y: Floats, steps: int | None, near: float) -> Converged | None:
        _, g = self.program.oracles.values(x, self.p)
        if not np.isfinite(g).all():
            return None
        cones = self.program.cones
        v = project(cones, -g) - (project(cones, -y) + y)
        arguments = (self.program, self.engine.layout, self.theta, self.p, x, v)
        if near < np.inf and converge(*arguments, 0).point.worst > near:
            return None
        return converge(*arguments) if steps is None else converge(*arguments, steps)

    def _flat(self, at: Converged) -> bool:
        """Whether Newton is on its slow way to a minimum of higher order, beside which no residual is small."""
        point, scale = at.point, max(1.0, self.scale)
        dual = at.data.program.gradient + at.instance.AT @ point.y
        limit = FLAT * scale if at.slow else ROUNDING * scale
        return point.residuals.primal <= ACCEPTABLE and float(np.abs(dual).max(initial=0.0)) <= limit

    def _drifted(self, at: Converged) -> bool:
        """Whether errors are small beside Px and Ax alone, as far out where ∇L or g only oscillates.

        There P x and q = ∇f − Px cancel to more digits than the point has. What balances is then what ∇L and g change
        by within a tenth of the point.
        """
        x, y, local = at.point.x, at.point.y, at.data.program
        dual = local.gradient + at.instance.AT @ y
        errors = _largest(dual), _largest(local.g + at.point.s)
        if max(errors) <= TOLERANCE:
            return False
        _, g, there = self.program.oracles.derivatives((1.0 - ASIDE) * x, self.p, y)
        slope = there.gradient + self.program.structure.A_matrix(there.A).T @ y
        scales = max(_largest(slope - dual) / ASIDE, _largest(local.gradient - dual)), _largest(g - local.g) / ASIDE
        rounding = 0.0, 4.0 * EPS * _largest(local.g)  # of a bound far from the point
        limits = (TOLERANCE * max(1.0, scale) + part for scale, part in zip(scales, rounding, strict=True))
        return any(error > limit for error, limit in zip(errors, limits, strict=True))

    def _unqualified(self, x: Floats, at: Converged) -> bool:
        """Whether a point is feasible, but no multipliers of moderate size make it stationary."""
        cones, structure = self.program.cones, self.program.structure
        if at.point.worst <= ACCEPTABLE:
            gradient = float(np.abs(at.data.program.gradient).max(initial=0.0))
            return float(np.abs(at.point.y).max(initial=0.0)) > HUGE * max(1.0, gradient)
        if not self._violation(x) <= FEASIBLE:
            return False
        _, g = self.program.oracles.values(x, self.p)
        equality = np.arange(cones.m) < cones.zero
        reach = max(1.0, float(np.abs(x).max(initial=0.0)))
        y = fitted(self.program, self.p, x)
        _, _, found = self.program.oracles.derivatives(x, self.p, y)
        left = float(np.abs(found.gradient + structure.A_matrix(found.A).T @ y).max(initial=0.0))
        active = bool((equality | (g >= -FEASIBLE * reach))[: cones.zero + cones.nonneg].any())
        size = max(self.scale, float(np.abs(found.gradient).max(initial=0.0)))
        return active and (left > CLOSE * size or float(np.abs(y).max(initial=0.0)) > HUGE * max(1.0, size))

    def _violation(self, x: Floats) -> float:
        """The constraints' largest violation, relative to the point's size."""
        _, g = self.program.oracles.values(x, self.p)
        worst = float(np.abs(g + project(self.program.cones, -g)).max(initial=0.0))
        return worst / max(1.0, float(np.abs(x).max(initial=0.0)))

    def _falls(
        self, at: Converged, directions: Floats, lengths: tuple[float, ...], level: bool = False
    ) -> Floats | None:
        """A direction in which the cost does not grow from a flat point, such as that of x³ at 0, shape (n,).

        The Lagrangian, which is the cost on the active rows, is compared to both sides, at points brought back to these
        rows. A side whose points violate a constraint tells nothing.

        Args:
            at: the point.
            directions: those to look along, shape (n, k).
            lengths: relative steps.
            level: whether a cost that stays level is one of a minimum.
        """
        x, p, y = at.point.x, self.p, at.point.y
        cones, norms = self.program.cones, self.program.norms
        active = (np.arange(cones.m) < cones.zero) | (at.point.y > 0.0)
        active[norms.row] = False
        A = sp.csr_array(at.instance.AT).T.tocsr()[np.flatnonzero(active)]
        reach = max(1.0, float(np.abs(x).max(initial=0.0)))
        local = at.data.program
        value = local.value + float(y @ local.g)
        slope = local.gradient + at.instance.AT @ y if level else np.zeros(len(x))  # of a stationary point: rounding
        for way in (sign * way for way in directions.T if way.any() for sign in (1.0, -1.0)):
            rises: list[float] = []
            for length in lengths:
                moved = x + length * reach / np.abs(way).max() * way
                for _ in range(RETURNS if A.shape[0] else 0):
                    g = self.program.oracles.values(moved, p)[1][active]
                    moved = moved - lsqr(A, g, atol=1e-14, btol=1e-14)[0] if np.isfinite(g).all() else moved
                moved = norms.settled(moved)
                cost, g = self.program.oracles.values(moved, p)
                if np.isfinite(cost) and self._violation(moved) <= FEASIBLE:
                    rises.append(cost + float(y @ g) - value - float(slope @ (moved - x)))
            rounding = ROUNDING * (abs(value) + max(map(abs, rises), default=0.0))
            grown = next((rise for rise in rises if abs(rise) > rounding), 0.0)
            if rises and (grown < 0.0 or (grown == 0.0 and not level)):
                return way
        return None

    def _tell(self, name: str, status: Status, words: str, residual: float) -> None:
        self.attempts.append((name, status, words, residual))
        if self.best is None:
            self.status = status

    def solution(self) -> Solution:
        """What the search found."""
        engine, best = self.engine, self.best
        if best is None:
            out = engine.failed(self.data, self.none or self.status, self.attempts)
            out.descent = self.descent
            return out
        if self.left is not None:
            mine = self.program.user_columns
            before, now = self.left[mine], best.point.x[mine]
            moved = float(np.abs(now - before).max(initial=0.0)) / (float(np.abs(before).max(initial=0.0)) or 1.0)
            best.data.program.lost = self.name != "cvxpy" and moved > CLOSE
        best.data.program.slow = best.slow or best.point.worst > ACCEPTABLE  # see `_flat`
        return engine.solution(best.data, best.point, best.instance, None, self.name, self.status, self.attempts)


def _largest(part: Floats) -> float:
    return float(np.abs(part).max(initial=0.0))


def _combined(directions: Floats) -> Floats:
    """Some directions, (n, k), and combinations of them; of many, combinations alone."""
    k = directions.shape[1]
    if k <= 1:
        return directions
    mixed = directions @ np.random.default_rng(0).standard_normal((k, COMBINED))
    return mixed if k > COMBINED else np.hstack([directions, mixed])


def status_of(words: str, primal: float) -> Status:
    """What a solver's words come to at a point that is no solution."""
    if _names(words, interface.LIMITS):
        return Status.ITERATION_LIMIT
    if _names(words, interface.UNBOUNDED):
        return Status.UNBOUNDED
    if _names(words, interface.INFEASIBLE):
        return Status.INFEASIBLE
    return Status.INFEASIBLE if primal > CLOSE else Status.INACCURATE


def _names(words: str, known: tuple[str, ...]) -> bool:
    return any(word in words for word in known)
