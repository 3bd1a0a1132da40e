"""The search for a point of one instance: solvers in turn, each point polished and checked, until one is good.

A solver's point is taken for what it is worth: Newton's steps start from it, and its residual decides. A point at the
goal ends the search. One between the goal and what is acceptable is kept while the solver's tight second call and the
other solvers are tried; so is the best of several. Two solvers that find no point to exist end it as well, unless a
point was found that is at the goal: what solvers call infeasible is not solved by a point that is nearly feasible.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cvxift import cones as cone
from cvxift import solvers
from cvxift._types import EPS
from cvxift.errors import ProgramError
from cvxift.kkt.instance import Instance
from cvxift.kkt.newton import GOAL, Point, evaluate, goal_of, polish
from cvxift.kkt.solution import Attempts
from cvxift.kkt.vertex import WHOLE_STEPS, settle
from cvxift.program.structure import Data, Floats
from cvxift.solvers.base import Raw, Session, Status

if TYPE_CHECKING:
    from cvxift.kkt.engine import Engine

LOGGER = logging.getLogger(__name__)
TOLERANCE = 1e-9  # a point this good ends the search
ACCEPTABLE = 1e-6  # the best point of all solvers is accepted up to this relative residual
SCALES = (1.0, 1e3, 1e-3)  # of s over y, in each row's units, tried where reading the active set off s − y fails
FIRST_STEP_LEAVES = 1e-2  # relative residual that the first step from an old point must reach: quadratic from there
QUICK_STEPS = 8  # in Maros–Mészáros 165 of 168 points that whole steps lead to the goal are there after so many
FOLLOWING = 4  # steps from an old point at most: 1e-2, 1e-4, 1e-8, 1e-16
WORDS = "Newton's steps from the previous point"
CONCLUSIVE = (Status.INFEASIBLE, Status.UNBOUNDED)
OPINION_SIZE = 500  # rows + columns up to which a first-order solver is asked whether a conic program is infeasible
OPINION_ORDER = 20  # order of a matrix likewise
LEFT_OVER = 1e-2  # part of the cost qᵀx that nothing balances: near 1 where a point runs away, else its error
CANCELS = EPS / LEFT_OVER  # part of their terms under which P x and A x are rounding, and x is known to a percent
ENDLESS = "the objective falls without end along the point returned"


class Search:
    """One instance's search.

    Args:
        engine: opens the solvers' sessions.
        small: the condensed instance's data, in moderate units.
        instance: its matrices.
        warm: a point to start from, in the same units.
        brief: whether all solvers but the first are asked briefly, and none a second time that needs long for it.

    Attributes:
        best: the best point found so far, polished.
        name: the solver whose point it is.
        status: that solver's status, or of the last one when there is no point.
        attempts: (solver, status, message, residual after polishing) of each call.
    """

    def __init__(
        self, engine: Engine, small: Data, instance: Instance, warm: Raw | None = None, brief: bool = False
    ) -> None:
        self._engine, self._small, self._instance, self._warm = engine, small, instance, warm
        self._only_brief = brief
        self._polyhedral = engine.cones.polyhedral
        self.best: Point | None = None
        self._worst = math.inf  # its residual
        self.name, self.status = "", Status.FAILED
        self.attempts: Attempts = []
        self._verdicts: list[Status] = []

    @property
    def accepted(self) -> Point | None:
        """The best point if it is good enough; None where solvers agree that there is none, and it is not exact."""
        if not self._worst <= ACCEPTABLE:
            return None
        return None if self._refuted and not self.reached else self.best

    @property
    def reached(self) -> bool:
        """Whether the best point is at the goal."""
        return self._worst <= TOLERANCE

    @property
    def _refuted(self) -> bool:
        """Whether two calls found that no point exists."""
        return len(self._verdicts) > 1

    def follow(self, name: str) -> bool:
        """Newton's steps alone from the point to start from: enough where θ moved little since it was found.

        Args:
            name: the solver whose place they take.

        Returns:
            Whether they reached the goal; if not, nothing is kept of them.
        """
        warm = self._warm
        if warm is None or not self._engine.follows(name):
            return False
        point = polish(
            self._instance,
            warm.x,
            warm.s - warm.y,
            goal=goal_of(self._engine.cones),
            max_steps=FOLLOWING,
            close=FIRST_STEP_LEAVES,
        )
        self._worst = point.worst
        if not self.reached:
            self._worst = np.inf
            return False
        self.attempts.append((name, Status.SOLVED, WORDS, self._worst))
        self.best, self.name, self.status = point, name, Status.SOLVED
        return True

    def run(
        self, order: list[str], options: Mapping[str, Any], session: Session | None = None, found: Raw | None = None
    ) -> None:
        """Ask the solvers in turn.

        Args:
            order: their names.
            options: the first one's options.
            session: the first one's session, if it is open.
            found: what the first one returned, if it was called already.
        """
        opinion = False  # whether the solver asked is only to confirm that there is no point
        contested = False  # whether one that was asked so has found a point
        for index, name in enumerate(order):
            if index:
                options = self._brief(name) if opinion or self._only_brief else {}
                found = session = None
            raw = self._ask(name, options, session) if found is None else found
            if _has_point(raw):
                # From a tight point one step leads to most active sets, which costs less than to look long for them.
                first, taken = len(self.attempts), self._take(name, raw, quick=self._polyhedral)
                if self.reached:
                    return
                solver = solvers.get(name)
                for tight in () if solver.patient else self._tight(name, solver.tight, options):
                    self._take(name, tight)
                    if self.reached:
                        return
                if self._polyhedral and taken:
                    del self.attempts[first]
                    self._take(name, raw)
                    if self.reached:
                        return
            else:
                self._fail(name, raw, certain=bool(index) or not self._engine.quick_options)
            if self._refuted or (opinion and raw.status is not Status.SOLVED):
                break
            opinion, contested = False, contested or opinion
            if not self._polyhedral and self._verdicts and not contested:
                # An interior-point certificate; another solver may confirm it where that costs little.
                opinion = index + 1 < len(order) and self._cheap(order[index + 1])
                if not opinion:
                    break
        if self._verdicts and (self._refuted or not (self._polyhedral or contested)):
            self.status = self._verdicts[-1] if self._polyhedral else self._verdicts[0]
        elif self.accepted is None and not (self._verdicts and self.attempts[-1][1] in CONCLUSIVE):
            self._be_patient(order)
            if self.accepted is None and self.status is Status.SOLVED:
                self.status = self._verdicts[0] if contested else Status.INACCURATE

    def _ask(self, name: str, options: Mapping[str, Any], session: Session | None = None, warm: bool = True) -> Raw:
        """One call of a solver; one that cannot be set up for an instance has failed, as any other may."""
        try:
            session = self._engine.session(name, options) if session is None else session
        except ProgramError as error:
            if not self.attempts:  # the user's own solver or options
                raise
            n, m = self._small.q.shape[-1], self._small.b.shape[-1]
            return Raw(np.full(n, np.nan), np.full(m, np.nan), np.full(m, np.nan), Status.FAILED, str(error))
        small = self._small
        return session.solve(small.P, small.q, small.A, small.b, self._warm if warm else None)

    def _fail(self, name: str, raw: Raw, certain: bool = True) -> None:
        self._note(name, raw, float("nan"))
        if raw.status in CONCLUSIVE and (certain or self._polyhedral):
            self._verdicts.append(raw.status)
        if self.best is None:
            self.name, self.status = name, raw.status

    def _take(self, name: str, raw: Raw, quick: bool = False) -> bool:
        """Polish a solver's point; whether it is one, and not far out where the cost has no end."""
        point = polished(self._instance, raw, quick)
        worst = point.worst
        if self._polyhedral and worst <= ACCEPTABLE and runs_away(self._instance, point):
            self._fail(name, replace(raw, status=Status.UNBOUNDED, message=ENDLESS))
            return False
        self._note(name, raw, worst)
        if self.best is None or worst < self._worst:
            self.best, self._worst, self.name, self.status = point, worst, name, raw.status
        return True

    def _note(self, name: str, raw: Raw, worst: float) -> None:
        self.attempts.append((name, raw.status, raw.message, worst))
        level = logging.DEBUG if worst <= TOLERANCE else logging.INFO  # others will be tried
        LOGGER.log(
            level, "%s: %s %s; relative residual %.1e after polishing", name, raw.status.value, raw.message, worst
        )

    def _tight(self, name: str, tight: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[Raw]:
        """A solver's point at tight tolerances, where the active set of a program may show; nothing without one."""
        if any(option not in options for option in tight):
            raw = self._ask(name, {**tight, **options}, warm=False)
            if _has_point(raw):
                yield raw

    def _be_patient(self, order: list[str]) -> None:
        """Second calls of the solvers that need long for them, before giving up."""
        for name in () if self._only_brief else order:
            solver = solvers.get(name)
            if solver.patient:
                for raw in self._tight(name, solver.tight, {}):
                    self._take(name, raw)
                    if self.reached:
                        return

    def _brief(self, name: str) -> Mapping[str, Any]:
        return solvers.get(name).brief

    def _cheap(self, name: str) -> bool:
        """Whether the solver's opinion on a conic program costs little."""
        structure = self._instance.structure
        small = structure.n + structure.m <= OPINION_SIZE and max(structure.cones.psd, default=0) <= OPINION_ORDER
        return small or not self._brief(name)


def _has_point(raw: Raw) -> bool:
    # A point that is not finite comes as NaN everywhere; see `Session`.
    return raw.status.has_point and not (len(raw.x) and raw.x[0] != raw.x[0])


def polished(instance: Instance, raw: Raw, quick: bool = False) -> Point:
    """A solver's point after Newton; where constraints are linear and it is to be `quick`, after a few steps.

    An interior-point solver leaves sᵢ yᵢ ≈ μ in every row, and v = s − y reads the active set off it right only
    where both are of one scale. Where that fails, s and y are compared in what y is worth in units of s there, τ
    times: a linear row counts as tight if sᵢ < τ τᵢ yᵢ, a curved cone's s and y are read off s − τ τᵢ y.
    """
    cones = instance.structure.cones
    if cones.polyhedral:
        start = evaluate(instance, raw.x, raw.s - raw.y)
        most = QUICK_STEPS if quick else WHOLE_STEPS
        best = start.point if start.point.worst <= GOAL else settle(instance, start, most)
    else:
        best = polish(instance, raw.x, raw.s - raw.y, goal=goal_of(cones))
    if quick or best.worst <= TOLERANCE or cones.m == cones.zero:
        return best
    worth = _worth(instance, raw.x, raw.y)
    for v in _readings(cones, raw, worth):
        point = polish(instance, raw.x, v)
        if point.worst < best.worst:
            best = point
        if best.worst <= TOLERANCE:
            break
    return best


def runs_away(instance: Instance, point: Point) -> bool:
    """Whether a point lies far out on a direction d along which the cost has no end: Pd = 0, −Ad ∈ K, qᵀd < 0.

    There P x cancels, and q, which nothing balances, or only what rounding leaves of P x, is little beside its terms:
    the residual, relative to those, is as small as the point is far. For linear constraints: with others a cost may
    also fall slower than along any direction; see `cvxift.kkt.regularity.endless`.
    """
    x = point.x
    cost = float(instance.q @ x)
    if not cost < 0.0:
        return False
    Px = instance.P @ x
    far = np.full(len(x), np.abs(x).max())
    if np.abs(Px).max() > ACCEPTABLE * far.sum() * np.abs(instance.values.P).max(initial=0.0):
        return False  # as elsewhere than far out: |P| itself is not needed
    left_over = float((Px + instance.q + instance.AT @ point.y) @ x) <= LEFT_OVER * cost
    rounding = ACCEPTABLE if left_over else CANCELS
    P, A, _ = instance.magnitudes
    if not (np.abs(Px) <= rounding * (P @ far)).all():
        return False
    cones = instance.structure.cones
    return bool((cone.distance(cones, -(instance.A @ x)) <= rounding * (A @ far)).all())


def _readings(cones: cone.Cones, raw: Raw, worth: Floats) -> Iterator[Floats]:
    """v as read off a solver's s and y at several scales; an active set once."""
    scaled = (_read(cones, raw, tau * worth) for tau in SCALES)
    if not cones.polyhedral:  # damped steps began at s − y
        yield from scaled
        return
    seen: set[bytes] = set()
    for v in itertools.chain([raw.s - raw.y], scaled):
        tight = (v < 0.0).tobytes()
        if tight not in seen:
            seen.add(tight)
            yield v


def _worth(instance: Instance, x: Floats, y: Floats) -> Floats:
    """How many units of s one unit of y is worth in each row (or curved cone), shape (m,).

    sᵢ is small beside the row's size, and yᵢ where yᵢ |A_ij| is small in all of the row's columns, so that sᵢ < τᵢ yᵢ,
    τ the worth, compares like with like whatever the units.
    """
    rows, columns = instance.scales.sizes(x, y)
    A_rows, A_cols = instance.structure.places[2:]
    share = np.zeros(instance.structure.m)
    np.maximum.at(share, A_rows, np.abs(instance.values.A) / columns[A_cols])
    return rows * instance.scales.by_cone(share)


def _read(cones: cone.Cones, raw: Raw, balance: Floats) -> Floats:
    """v = s − y of the complementary pair that a solver's s and y stand for, y being worth `balance` units of s."""
    v = raw.s - raw.y
    rows = slice(cones.zero, cones.zero + cones.nonneg)
    s, y = np.maximum(raw.s[rows], 0.0), np.maximum(raw.y[rows], 0.0)
    if not cones.polyhedral:
        worth = np.where(balance > 0.0, balance, 1.0)
        scaled = raw.s - worth * raw.y
        at = cone.project(cones, scaled)
        v = at - (at - scaled) / worth
    v[rows] = np.where(s < balance[rows] * y, -y, s)
    v[: cones.zero] = -raw.y[: cones.zero]
    return v
