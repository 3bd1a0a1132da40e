"""One account of a solved point, which derivatives, checks and reports all read.

Cheap questions come first: is any cone near a kink, is K near singular? Almost always the answer is no, and the point
lies on one smooth piece of the solution map. Else the null space of K is sampled and weak rows are opened where
auxiliary columns can open them; what is left is looked at from the pieces that meet there
(`cvxift.kkt.regularity.pieces`).

    flat    (u, 0) in the null space of K: the columns can move at no cost. Told where an output moves along u.
    torn    (0, w) in the null space of K: dependent active rows. Harmless where θ does not pull them apart.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import cvxpy as cp
import numpy as np

from cvxift.kkt.newton import GOAL
from cvxift.kkt.policy import Iterative, Policy, Singular
from cvxift.kkt.regularity import pieces as around
from cvxift.kkt.regularity.active_sets import on_active_set, with_weak
from cvxift.kkt.regularity.curvature import borne_out, curved, runs_away, unsettled
from cvxift.kkt.regularity.endless import endless_direction
from cvxift.kkt.regularity.null_space import NullVector, is_regular, null_vector
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.shared_force import Shared, depends_on_multipliers, of_largest_curvature
from cvxift.kkt.regularity.theta import ThetaJacobian
from cvxift.kkt.regularity.thresholds import BEYOND, CLOSER, FELT, MEAN_STEPS, NULL, PULLED, STEP
from cvxift.kkt.regularity.weak_rows import closed, felt, flat_on_weak_rows, not_opened
from cvxift.kkt.solution import Linearization
from cvxift.program.program import Program
from cvxift.program.structure import Data, Floats

if TYPE_CHECKING:
    from cvxift.kkt.engine import Solution
    from cvxift.kkt.recovery import Recovery


class Regularity:
    """What is known of the solution map at a solved point.

    Args:
        program: the problem's program.
        solution: a solution of it that has a point.
        policy: how derivatives are taken.
        recover: the outputs that are asked for.
    """

    def __init__(self, program: Program, solution: Solution, policy: Policy, recover: Recovery) -> None:
        self.program, self.solution, self.policy, self.recover = program.at(solution), solution, policy, recover
        self.told: set[tuple[str, str]] = set()  # in which mode what was said of the point already
        self.entries_that_differ: np.ndarray | None = None  # of θ, between the pieces, once a tangent has asked
        self._away = STEP  # how far the neighbours are that lie on the pieces
        self._by_direction: dict[bytes | int, Linearization] = {}  # those pieces

    @cached_property
    def plain(self) -> Linearization:
        """The linearization with weak rows counted as slack, and dependent rows all kept."""
        direct = self.policy.singular not in ("smooth", "regularize") and self.policy.iterative(0.0) is None
        if direct and not self.clear and len(self.local.weak) and self.local.weak_is_linear:
            return with_weak(self.local, self.local.weak, self.policy, tight=False)
        return self.solution.linearization(self.policy)

    @cached_property
    def local(self) -> LocalPoint:
        """The point on the scale of its own data."""
        outputs = () if self.recover.has_dual else self.recover.outputs
        return LocalPoint(self.program, self.solution, outputs=outputs)

    @cached_property
    def jacobian(self) -> ThetaJacobian:
        """F_θ at the point."""
        return ThetaJacobian.at(self.program, self.solution.x, self.solution.y)

    @cached_property
    def pieces(self) -> tuple[Linearization, ...]:
        """The pieces of the solution map that meet at the point; derivatives are those of the first."""
        return self._found[0]

    @cached_property
    def sides(self) -> tuple[Linearization, ...]:
        """Where one smooth piece of curved cones meets itself, or ends: two linearizations around; else none."""
        if self.solution.structure.cones.polyhedral or (len(self.pieces) < 2 and not self.ended) or self.only_flat:
            return ()
        return around.around(self.local, self.policy, self.ended)

    @cached_property
    def nearer_sides(self) -> tuple[Linearization, ...]:
        """The same from the shortest step, whose mean is off by less."""
        return around.around(self.local, self.policy, False, MEAN_STEPS[-1:]) if self.sides else ()

    @property
    def ended(self) -> bool:
        """Whether some change of θ leads to no solution near the point."""
        return bool(self._found[1])

    @property
    def ends(self) -> list[cp.Parameter]:
        """The parameters of which some change leads to no solution by itself."""
        return [self.program.parameters[number] for number in self._found[1] if number >= 0]

    @property
    def steep(self) -> bool:
        """Whether no derivative fits solutions nearby, where curvature is too small to say where the solution is."""
        return self._found[2]

    @cached_property
    def exact(self) -> Regularity:
        """The account without a proximal term, which hides dependent rows and flat directions; else this one."""
        return self.with_policy("least_squares") if self.policy.singular == "regularize" else self

    def with_policy(self, singular: Singular) -> Regularity:
        """The account of the point under another policy for singular systems."""
        return Regularity(self.program, self.solution, replace(self.policy, singular=singular), self.recover)

    @cached_property
    def _found(self) -> tuple[tuple[Linearization, ...], tuple[int, ...], bool]:
        """The pieces, and whether the map is `ended` and `steep`."""
        if self._shared is not None:
            return self._shared.pieces, (), not self._shared.whole
        pieces, ended = self._around
        if self.solution.engine.cones.polyhedral:
            return pieces, ended, False
        if self.first_order is not None:
            return (self.first_order,), (), False
        steep = self._unsettled or self.split or (len(pieces) == 1 and not ended and self.fast)
        return pieces, ended, steep and self._flat_of(pieces) is None

    @cached_property
    def fast(self) -> bool:
        """Whether outputs move so fast that derivatives hold for no step that can be computed."""
        return self.direct and not self.clear and runs_away(self.local, self.recover, self.plain, self.policy)

    @cached_property
    def _unsettled(self) -> bool:
        if self.solution.engine.cones.polyhedral or not self.direct:
            return False
        if not self.clear and self.local.doubtful:
            return True
        return self.solution.residuals.worst > GOAL and unsettled(self.local, self.plain)

    @cached_property
    def split(self) -> bool:
        """Whether derivatives depend on how dependent cones share a force."""
        return self.exact is self and depends_on_multipliers(self)

    @cached_property
    def _shared(self) -> Shared | None:
        return of_largest_curvature(self)

    @property
    def direct(self) -> bool:
        """Whether K is factorized, or could be without much ado."""
        small = self.solution.engine.structure.n + self.solution.engine.structure.m <= around.LOOKED_AROUND
        return self.policy.singular in ("least_squares", "raise") and (small or self.policy.iterative(0.0) is None)

    @cached_property
    def first_order(self) -> Linearization | None:
        """What solutions nearby bear out, to first order, where curvature vanishes; None elsewhere."""
        if self.solution.engine.cones.polyhedral or not self.direct:
            return None
        pieces, _ = self._around
        flat = self._flat_of(pieces) is not None
        if not flat and self._flat_of((self.plain,)) is None and not self._unsettled:
            return None
        candidates = [piece for piece in (curved(self.local), *(() if flat else pieces)) if piece is not None]
        nulls = [self._null_of(piece) for piece in candidates]
        still = [piece for piece, null in zip(candidates, nulls, strict=True) if null is None or not self.moves(null)]
        return borne_out(self.local, self.recover, still) if still else None

    @cached_property
    def _around(self) -> tuple[tuple[Linearization, ...], tuple[int, ...]]:
        if self.exact is not self:  # a proximal term chooses among flat directions; it does not join pieces
            pieces, ended, _ = self.exact._found
            return (pieces if len(pieces) > 1 or next(iter(pieces)) is not self.exact.plain else (self.plain,)), ended
        if self.policy.singular == "smooth" or (self.clear and is_regular(self.plain)):
            return (self.plain,), ()
        if self._closed is not None:
            return (self._closed,), ()
        if not self._degenerate():
            return (self.plain,), ()
        if self.null is not None and len(self.pulled) and self._loose is None and around.held(self.local, self.null):
            return (self.plain,), around.parameters_of(self.program, self.pulled)
        # With linear constraints the pieces are active sets, which hold for all points with these rows tight and weak.
        flat = self._loose
        key = self.active_set("pieces", self.plain)
        made: list[Linearization] = []

        def find() -> tuple[list[np.ndarray], tuple[int, ...]]:
            found, ended = self._reached(flat, self._away)
            if not found and not self.local.cones.polyhedral:
                self._away = BEYOND * STEP
                found, ended = self._reached(flat, self._away)
            self._by_direction = {number: piece for number, (piece, _) in found.items()}
            made.extend(self._by_direction.values())
            return [v for _, v in found.values()], ended

        sets, ended = self.local.constants.judged(key, find)
        if not made:
            again = [on_active_set(self.local, v, self.solution.point, self.policy, flat) for v in sets]
            made = [piece for piece in again if piece is not None]
            if len(made) < len(sets):
                made.clear()
                _, ended = find()
        return self._sound(made) or (self.plain,), ended

    @property
    def _loose(self) -> Floats | None:
        """A flat direction that no output feels, shape (n,); None without."""
        u = None if self.null is None or not self.null.u.any() else self.null.u
        return None if u is None or self.moves(NullVector(u, np.zeros_like(self.solution.y))) else u

    def _reached(
        self, flat: Floats | None, length: float
    ) -> tuple[dict[bytes | int, tuple[Linearization, Floats]], tuple[int, ...]]:
        torn = None if self.null is None or not self.null.w.any() else self.null.w
        free = self._flat_of((self.plain,)) is not None
        return around.find(self.local, self.jacobian, self.policy, self.recover, flat, torn, free, length)

    def _sound(self, pieces: list[Linearization]) -> tuple[Linearization, ...]:
        # A neighbour that is as torn as the point is on no piece either.
        return tuple(piece for piece in pieces if not len(self.pulled_by(piece))) or tuple(pieces)

    @cached_property
    def two_distances(self) -> tuple[tuple[Linearization, ...], tuple[Linearization, ...]] | None:
        """Curved cones' pieces from a distance and from `CLOSER` of it, if solutions are found at both; else None."""
        if self.exact is not self:
            return self.exact.two_distances
        numbers = [number for number, piece in self._by_direction.items() if piece in self.pieces]
        for length in (CLOSER * self._away, self._away / CLOSER):  # too near, solutions may not be accurate enough
            found = self._reached(self._loose, length)[0]
            again = self._sound([found[number][0] for number in numbers if number in found])
            if len(again) == len(self.pieces):
                return (self.pieces, again) if length < self._away else (again, self.pieces)
        return None

    def _degenerate(self) -> bool:
        """Whether several pieces may meet here that the outputs can tell apart."""
        return self.local.constants.judged(self.active_set("degenerate", self.plain), self._judge)

    def active_set(self, question: str, piece: Linearization) -> bytes | None:
        """What names a piece's K and the weak rows, for linear constraints: what depends on them is asked once."""
        if not self.solution.engine.cones.polyhedral or isinstance(self.policy.linear_solver, Iterative):
            return None
        weak = b"" if self.clear else self.local.weak.tobytes()
        asked = f"{question} {self.policy.singular} {self.recover.number} ".encode()
        return asked + np.packbits(piece.v > 0.0).tobytes() + b"/" + weak

    def _judge(self) -> bool:
        if len(self.pulled) > 0 or self.split:
            return True
        if self.clear:
            return False
        weak = not_opened(self, self.local.weak) if len(self.local.weak) else self.local.weak
        return len(weak) > 0 and felt(self, weak)

    @cached_property
    def clear(self) -> bool:
        """Whether no cone is anywhere near a kink."""
        return self.solution.clear

    @cached_property
    def null(self) -> NullVector | None:
        """A random vector of the null space of K on the plain piece; None where K is regular."""
        return self._null_of(self.plain) if self.exact is self else self.exact.null

    def _null_of(self, piece: Linearization) -> NullVector | None:
        if is_regular(piece):
            return None
        return self.local.constants.judged(self.active_set("null", piece), lambda: null_vector(self.local, piece))

    @cached_property
    def pulled(self) -> np.ndarray:
        """Entries of θ that pull dependent rows apart, or along a flat direction."""
        return self.pulled_by(self.plain) if self.exact is self else self.exact.pulled

    def pulled_by(self, piece: Linearization, limit: float = PULLED) -> np.ndarray:
        """The same on another piece, from a cosine of `limit` on."""
        null = self._null_of(piece)
        if null is None:
            return np.zeros(0, dtype=int)
        columns, rows = self.local.units
        pull = self.jacobian.pulled(null.u, null.w, (NULL * columns, NULL * rows))
        return np.flatnonzero(pull > limit)

    def harmless(self, piece: Linearization) -> bool:
        """Whether a piece's K is singular, but no output moves along its null space and no entry of θ pulls at it."""
        null = self._null_of(piece)
        return null is not None and not self.moves(null) and not len(self.pulled_by(piece))

    def torn_by(self, direction: Data) -> bool:
        """Whether a change of the data pulls along null vectors, or weak rows may be what ends the map."""
        if self.null is None or len(self.local.weak):
            return True
        sides = zip(self.plain.residual_tangent(direction), self.null, strict=True)
        return any(bool((np.abs(f @ part) > PULLED * (np.abs(f) @ np.abs(part))).any()) for f, part in sides)

    @cached_property
    def output_unit(self) -> Floats:
        """The unit of each output, shape (K,)."""
        columns, rows = self.local.units
        out = abs(self.recover.X) @ columns
        return out + abs(self.recover.Y) @ rows if self.recover.has_dual else out

    @cached_property
    def theta_unit(self) -> Floats:
        """What each entry of θ sums from rows and columns that move by their units, shape (N,)."""
        columns, rows = self.local.units
        G, H = self.local.jacobian_of_sizes.sizes_of_entries
        return G @ columns + H @ rows

    @cached_property
    def flat(self) -> NullVector | None:
        """A flat direction along which an output moves; None if there is none, or a proximal term chooses there."""
        if self.exact is not self:
            return None
        pieces = self.pieces if self._shared is None else (*self.pieces, self.plain)  # whose multipliers are not unique
        return self._flat_of(pieces) or (flat_on_weak_rows(self) if self._closed is None else None)

    @property
    def only_flat(self) -> bool:
        """Whether outputs can move at no cost, and no rows are weak or depend on each other: nothing else is amiss."""
        return self.flat is not None and not self.flat.w.any() and (self.clear or not len(self.local.weak))

    @cached_property
    def _closed(self) -> Linearization | None:
        return closed(self)

    def _flat_of(self, pieces: tuple[Linearization, ...]) -> NullVector | None:
        for piece in pieces:
            null = self.null if piece is self.plain else self._null_of(piece)
            if null is not None and self.moves(null):
                return null
        return None

    @cached_property
    def endless(self) -> NullVector | None:
        """A direction along which outputs move without end at no cost; None if there is none."""
        if self.solution.structure.cones.polyhedral:
            return None
        u = endless_direction(self.local, self.recover.columns)
        return None if u is None else NullVector(u, np.zeros_like(self.solution.y))

    def moves(self, null: NullVector) -> bool:
        """Whether an output moves along a null vector."""
        return bool((np.abs(self.recover.linear(null.u, null.w)) > FELT * self.output_unit).any())
