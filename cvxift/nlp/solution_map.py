"""The solution map of a nonlinear program: as `cvxift.kkt.solution_map`, at local solutions, to second order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import cvxpy as cp
import numpy as np

from cvxift.errors import warn_user
from cvxift.kkt.engine import Solution
from cvxift.kkt.failures import tell_nonsmooth, tell_steep
from cvxift.kkt.policy import Policy
from cvxift.kkt.solution_map import SolutionMap, Solved
from cvxift.nlp.engine import NonlinearEngine, start_values
from cvxift.nlp.second_order import difference, tell_inexact
from cvxift.program.smooth import SmoothProgram
from cvxift.program.structure import Floats

PATH = "nonlinear solver and KKT system"


class NonlinearMap(SolutionMap):
    """θ ↦ outputs of a local solution, with its vector-Jacobian and Jacobian-vector products.

    Args:
        problem: a problem that follows the rules of disciplined nonlinear programs.
        parameters: as for `SolutionMap`.
        outputs: likewise.
        solver: name of the nonlinear solver; None for the first that is installed.
        solver_args: its options, and ``best_of``: a number of starts.
        verbose: whether it may print.
        policy: how derivatives are taken.
        **options: the other arguments of `SolutionMap`.
    """

    path = PATH
    highest_order = 2

    def __init__(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter] | None,
        outputs: Sequence[Any],
        *,
        solver: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
        verbose: bool = False,
        policy: Policy | None = None,
        program: SmoothProgram | None = None,
        engine: NonlinearEngine | None = None,
        **options: Any,
    ) -> None:
        program = SmoothProgram(problem) if program is None else program
        if engine is None:
            engine = NonlinearEngine(
                program, start_values(problem), solver=solver, solver_args=solver_args, verbose=verbose
            )
        own: Any = program  # has all that a solution map reads of a `Program`
        super().__init__(problem, parameters, outputs, policy=policy, program=own, engine=engine, **options)

    def _each(self, work: Callable[[int], Solution], count: int, solver: str | None) -> list[Solution]:
        """One instance after the other: the engine's oracles hold one point at a time."""
        return [work(i) for i in range(count)]

    def solve(self, theta: Floats, **how: Any) -> Solved:
        """As `SolutionMap.solve`; says where the last call's solutions were not followed."""
        solved = super().solve(theta, **how)
        lost = [i for i, solution in enumerate(solved.solutions) if solution.ok and _local(solution).lost]
        if lost and self.applicability != "off":
            count = len(solved.solutions)
            which = "The solution" if count == 1 else f"Of {count} instances, {len(lost)} (the first is {lost[0]})"
            warn_user(
                f"{which} may lie on another branch of local solutions than the last call's: Newton's steps from there "
                "led to none nearby, and the solver's lies some way off. Derivatives are those of the new one. Move "
                "the parameters in smaller steps to stay on a branch."
            )
        return solved

    def path_of(self, solved: Solved) -> str:
        """Which way a solved call went, in words."""
        return PATH

    def _one(self, solution: Solution, tangents: Sequence[Floats], bar: Floats | None) -> Floats:
        self._tell(solution)
        if len(tangents) + (bar is not None) < 2 or solution.point is None:
            return super()._one(solution, tangents, bar)
        return self._second(solution, tangents[-1], (*tangents[:-1],), bar)

    def _second(self, solution: Solution, along: Floats, tangents: Sequence[Floats], bar: Floats | None) -> Floats:
        """How a first product changes along directions of θ; see `cvxift.nlp.second_order`.

        Args:
            solution: one solved instance.
            along: the directions, shape (N,) or (k, N).
            tangents: the product's, if it is forward: one, of such a shape.
            bar: its cotangents, if it is reverse.
        """
        other = tangents[0] if bar is None else bar
        lead = np.broadcast_shapes(along.shape[:-1], other.shape[:-1])
        ways, others = (np.broadcast_to(v, (*lead, v.shape[-1])).reshape(-1, v.shape[-1]) for v in (along, other))
        quiet = copy.copy(self)
        quiet.applicability = "off"  # what is to be said is said of the point itself
        theta, program, engine = _local(solution).theta, cast(SmoothProgram, self.program), self.engine
        assert isinstance(engine, NonlinearEngine)
        sizes = program.sizes(theta)

        def product(map_: SolutionMap, at: Solution, vectors: Floats) -> Floats:
            return SolutionMap._one(map_, at, (vectors,) if bar is None else (), None if bar is None else vectors)

        out, worst = product(self, solution, others), 0.0
        for way in np.unique(ways, axis=0):
            rows = (ways == way).all(axis=1)
            step = self._in_order(way)
            length = float(np.max(np.abs(step) / sizes, initial=0.0))

            def beside(h: float, step: Floats = step, length: float = length, rows: Any = rows) -> Floats | None:
                neighbor = engine.beside(theta + h / length * step, solution.x, solution.y)
                return None if neighbor is None else product(quiet, neighbor, others[rows])

            slope, error = difference(beside, out[rows]) if length else (np.zeros_like(out[rows]), 0.0)
            out[rows], worst = length * slope, max(worst, error)
        if worst > 1.0:
            tell_inexact(self.account(solution), worst, self.applicability)
        return out.reshape(*lead, -1)

    def _tell(self, solution: Solution) -> None:
        """Say that curvature vanishes at a point, where Newton's convergence showed it, or that p(θ) has a kink."""
        if not solution.ok or self.applicability == "off":
            return
        if _local(solution).slow:
            tell_steep(self.account(solution), self.applicability)
        if _local(solution).kinks:
            tell_nonsmooth(self.account(solution), _local(solution).kinks, self.applicability)


def _local(solution: Solution) -> Any:
    """The program linearized at a solution's point."""
    data: Any = solution.data
    return data.program
