"""What is true at a case's point: value, one-sided slopes along directions, and whether the map is smooth there.

Slopes are differences of tightly solved problems at θ ± h d and θ ± 2h d. With s₁ and s₂ the slopes over the first and
the second step, 1.5 s₁ − 0.5 s₂ is the one-sided derivative up to O(h²), and |s₁ − s₂| bounds what curvature and the
solver's inaccuracy leave open. Nothing here imports cvxift.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from .families import build
from .kit import Case, Values
from .oracle import Oracle, Point, moved

SMALLEST_SCALE = 1e-2  # a slope below it counts as this much: base-unit data are of order one
KINK = 1e-3  # sides that differ by more than this share of their size are different
SMOOTH = 1e-4  # and by less than this share are the same
FLAT = 1e-3  # a solution that moves so far under a tilt of TILT is not unique, or nearly so
TILT = 1e-6
CLOSE = 1e-5  # step that leads to no solution either where the domain ends at the point itself
AGREED = 0.02  # share of their size by which a direction's two slopes may differ; 3 times it where no step does better


@dataclass(frozen=True)
class Side:
    """The derivative along one side of a direction.

    Attributes:
        kind: "slope", or why there is none: "outside", "infeasible", "fast", "unclear".
        slope: change of the outputs a unit of the direction.
        error: what the differences leave open.
    """

    kind: str
    slope: np.ndarray | None = None
    error: float = float("inf")

    def beside(self, other: Side) -> Side:
        """This one, with its difference from another reference's side as its error, if that is larger."""
        if self.slope is None or other.slope is None:
            return self
        return replace(self, error=max(self.error, float(np.abs(self.slope - other.slope).max(initial=0.0))))


@dataclass(frozen=True)
class Along:
    """Both sides of a direction; the left one's slope is that of the forward direction too."""

    direction: Values
    right: Side
    left: Side
    central: np.ndarray | None

    @cached_property
    def kind(self) -> str:
        """ "smooth", "kink", "sided" (the parameter's domain ends here), "edge" (no slope on a side) or "unclear"."""
        kinds = {self.right.kind, self.left.kind}
        if "unclear" in kinds:
            return "unclear"
        if kinds == {"slope"}:
            assert self.right.slope is not None and self.left.slope is not None
            gap = np.abs(self.right.slope - self.left.slope).max(initial=0.0)
            error = self.right.error + self.left.error
            if gap > max(KINK * self.scale, 10 * error):
                return "kink"
            return "smooth" if gap <= SMOOTH * self.scale + 3 * error and error <= 0.1 * self.scale else "unclear"
        return "sided" if kinds == {"slope", "outside"} else "edge"

    @cached_property
    def scale(self) -> float:
        """Size of the slopes."""
        slopes = [side.slope for side in (self.right, self.left) if side.slope is not None]
        return max([SMALLEST_SCALE, *(float(np.abs(slope).max(initial=0.0)) for slope in slopes)])

    def beside(self, other: Along) -> Along:
        """This one, with what the sides of another reference have otherwise as their error."""
        return replace(self, right=self.right.beside(other.right), left=self.left.beside(other.left))

    @cached_property
    def value(self) -> np.ndarray | None:
        """The two-sided derivative, or the side that there is."""
        if self.kind == "smooth":
            return self.central
        return self.right.slope if self.right.slope is not None else self.left.slope


@dataclass
class Reference:
    """What is true at a case's point.

    Args:
        case: the case.
        first: another reference, to confirm what was found by it: by another solver or tighter settings and other
            steps. What the two disagree about is left open.
    """

    case: Case
    first: Reference | None = None
    oracle: Oracle = field(init=False)
    point: Point = field(init=False)

    def __post_init__(self) -> None:
        stated = build(self.case, scaled=False)
        self.stated, self.values = stated, stated.values
        self.second = self.first is not None
        self.oracle = Oracle(stated, self.second)
        self.point = self.oracle.at(self.values)
        self._nearby, self._tried = self.case.rng(7), 0
        self._found: list[list[np.ndarray]] = []
        factor = 0.3 if self.second else 1.0
        self.steps = [factor * h for h in ((1e-4, 1e-6) if self.oracle.vertex else (1e-3, 1e-4, 1e-2))]

    @cached_property
    def directions(self) -> list[Values]:
        """Two of all parameters, their sum, and one entry of one parameter."""
        rng = self.case.rng(4)
        first, second = self._dense(rng), self._dense(rng)
        single = {name: np.zeros_like(value) for name, value in self.values.items()}
        name = sorted(single)[int(rng.integers(len(single)))]
        entry = np.unravel_index(int(rng.integers(single[name].size)), single[name].shape) if single[name].shape else ()
        single[name][entry] = 1.0
        if self._symmetric(name):
            single[name] = single[name] + single[name].T
        return [first, second, moved(first, second, 1.0), single]

    def _dense(self, rng: np.random.Generator) -> Values:
        drawn = {}
        for name, value in self.values.items():
            d = np.asarray(rng.standard_normal(value.shape))
            drawn[name] = (d + d.T) / 2 if self._symmetric(name) else d
        return drawn

    def _symmetric(self, name: str) -> bool:
        attributes = self.stated.parameters[name][0].attributes
        return bool(attributes["symmetric"] or attributes["PSD"] or attributes["NSD"])

    @cached_property
    def cotangents(self) -> list[np.ndarray]:
        """One of all outputs, and one entry."""
        assert self.point.x is not None
        rng = self.case.rng(5)
        single = np.zeros(len(self.point.x))
        single[int(rng.integers(len(single)))] = 1.0
        return [rng.standard_normal(len(single)), single]

    @cached_property
    def along(self) -> list[Along]:
        """The directions with their sides."""
        found = [self._along(direction) for direction in self.directions]
        return [one.beside(other) for one, other in zip(found, self.first.along)] if self.first else found

    @cached_property
    def neighbor(self) -> Values:
        """Parameter values nearby that have a solution; the point itself where none was found."""
        for step in (0.1, 1e-2, self.steps[0]):
            near = moved(self.values, self.directions[0], step)
            if self.oracle.at(near).status == "solved":
                return near
        return self.values

    @cached_property
    def flat(self) -> bool | None:
        """Whether other outputs are optimal too; None where it cannot be told."""
        if self.oracle.truth is not None or self.stated.gp:  # in logarithms, the families' programs are strictly convex
            return False
        assert self.point.x is not None
        drawn = self.case.rng(6).standard_normal(sum(w.size for w in self.oracle.tilts))
        drawn /= np.linalg.norm(drawn)
        size = 1.0 + np.abs(self.point.x).max(initial=0.0)

        def shift(tilt: float) -> float:
            there, back = self.oracle.at(self.values, tilt * drawn), self.oracle.at(self.values, -tilt * drawn)
            if there.x is None or back.x is None:
                return float("nan")
            return float(np.abs(there.x - back.x).max(initial=0.0)) / size

        first = shift(TILT)
        if first <= FLAT:
            return False
        if np.isnan(first):
            return None
        ratio = shift(100 * TILT) / first  # 1 where it is not unique; 100 at a strong minimum, 4.6 at a quartic one
        return True if ratio < 1.5 and first > 10 * FLAT else (False if ratio > 3 else None)

    @cached_property
    def kind(self) -> str:
        """ "smooth", "kink", "flat", "infeasible", "unbounded" or "unclear"."""
        if self.point.status != "solved":
            return self.point.status if self.point.status in ("infeasible", "unbounded") else "unclear"
        if self.flat is None or self.flat:
            return "unclear" if self.flat is None else "flat"
        kinds = {along.kind for along in self.along}
        if "kink" in kinds or "edge" in kinds:
            return "kink"
        if kinds == {"smooth"}:
            kinds = {self._additive(*triple) for triple in self._triples()}
            return "kink" if "kink" in kinds else ("unclear" if "unclear" in kinds else "smooth")
        return "unclear" if "unclear" in kinds else "sided"

    def _triples(self) -> Iterator[tuple[Along, Along, Along]]:
        """Directions d, e and d + e: a median, say, has the same slope on both sides of most lines, and is a kink."""
        first, second, both = self.along[:3]
        yield first, second, both
        rng = self.case.rng(9)
        for _ in range(6 if self.second else 0):
            fresh = self._dense(rng)
            yield first, self._along(fresh), self._along(moved(self.directions[0], fresh, 1.0))

    def _additive(self, first: Along, second: Along, both: Along) -> str:
        three = (first, second, both)
        if any(along.kind != "smooth" for along in three):
            return "kink" if any(along.kind in ("kink", "edge") for along in three) else "unclear"
        gap = float(np.abs(first.value + second.value - both.value).max(initial=0.0))  # type: ignore[operator]
        scale = max(along.scale for along in three)
        error = sum(along.right.error + along.left.error for along in three)
        if gap <= SMOOTH * scale + error:
            return "smooth"
        return "kink" if gap > max(KINK * scale, 5 * error) else "unclear"

    def _along(self, direction: Values) -> Along:
        right, forward = self._side(direction, 1.0)
        left, backward = self._side(direction, -1.0)
        central = None
        if forward is not None and backward is not None and forward[0] == backward[0]:
            h, near, far = forward
            first, second = (near - backward[1]) / (2 * h), (far - backward[2]) / (4 * h)
            central = (4 * first - second) / 3
        if central is None and right.slope is not None and left.slope is not None:
            central = (right.slope + left.slope) / 2
        return Along(direction, right, left, central)

    def _side(self, direction: Values, sign: float) -> tuple[Side, tuple[float, np.ndarray, np.ndarray] | None]:
        x0 = self.point.x
        assert x0 is not None
        seen: list[tuple[float, float]] = []
        kinds: list[str] = []
        best: tuple[float, Side, tuple[float, np.ndarray, np.ndarray]] | None = None
        for h in self.steps:
            near = self.oracle.at(moved(self.values, direction, sign * h))
            far = self.oracle.at(moved(self.values, direction, 2 * sign * h))
            if near.status != "solved" or far.status != "solved":
                kinds.append(near.status if near.status == far.status and near.status != "failed" else "unclear")
                continue  # the step may be longer than the way to the end of the domain
            if near.x is None or far.x is None:
                return Side("unclear"), None
            first, second = (near.x - x0) / h, (far.x - near.x) / h
            gap = float(np.abs(first - second).max(initial=0.0))
            size = max(SMALLEST_SCALE, float(np.abs(first).max(initial=0.0)), float(np.abs(second).max(initial=0.0)))
            found = Side("slope", sign * (1.5 * first - 0.5 * second), gap), (h, near.x, far.x)
            if gap <= AGREED * size:
                return found
            if best is None or gap / size < best[0]:
                best = gap / size, *found
            seen.append((h, float(np.abs(near.x - x0).max(initial=0.0))))
        if kinds and not seen:
            close = self.oracle.at(moved(self.values, direction, sign * CLOSE)).status
            kind = kinds[0] if set(kinds) == {close} else "unclear"
            return Side("infeasible" if kind == "unbounded" else kind), None
        if best is not None and best[0] <= 3 * AGREED:
            return best[1:]
        if len(seen) < 2:
            return Side("unclear"), None
        (large, moved_far), (small, moved_near) = seen[:2]
        growth = (moved_near / small) / max(moved_far / large, 1e-300)
        fast = growth > (large / small) ** 0.3 and moved_near > 1e-4
        return Side("fast" if fast else "unclear"), None

    def pieces(self, count: int) -> list[list[np.ndarray]]:
        """Derivatives along the directions at so many nearby points: for each point, one slope a direction.

        From the first dozen on, parameters move by different amounts: a piece may need little of one.
        """
        reach = 10 * self.steps[0]
        for number in range(self._tried, count):
            way = self._dense(self._nearby)
            if number >= 12:
                way = {name: 10.0 ** self._nearby.uniform(-2.0, 0.0) * part for name, part in way.items()}
            here, slopes = moved(self.values, way, reach), []
            for direction in self.directions:
                h = reach / 100
                ahead, behind = (self.oracle.at(moved(here, direction, sign * h)) for sign in (1.0, -1.0))
                if ahead.x is None or behind.x is None:
                    break
                slopes.append((ahead.x - behind.x) / (2 * h))
            else:
                self._found.append(slopes)
        self._tried = max(self._tried, count)
        return self._found
