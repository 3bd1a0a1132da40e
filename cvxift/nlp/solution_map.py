"""The solution map of a nonlinear program: as `cvxift.kkt.solution_map`, at local solutions, to second order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, cast

import cvxpy as cp
import numpy as np

from cvxift.errors import warn_user
from cvxift.kkt.engine import Solution
from cvxift.kkt.failures import Check, speak_once, tell_nonsmooth, tell_steep
from cvxift.kkt.policy import Policy
from cvxift.kkt.regularity.account import Regularity
from cvxift.kkt.solution_map import SolutionMap, Solved
from cvxift.nlp.engine import NonlinearEngine, start_values
from cvxift.program.smooth import SmoothProgram
from cvxift.program.structure import Floats

PATH = "nonlinear solver and KKT system"
LARGEST_STEP = 2.0**-5  # largest step, relative to the parameters
STEPS = 16  # of them, each half as long as the last one, at most: the shortest has a rounding error of about `PROMISED`
PROMISED = 1e-6  # error, relative to the derivative, that is promised of a product
ROUNDING = 1e-9  # error, relative to what a step of the parameters' size changes, that a derivative of zero may have
WELL_WITHIN = 1e-3  # of either, from which no more steps are made
TINY = np.finfo(float).tiny


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
        """How a first product changes along directions of θ.

        CVXPY's engine has no third derivatives of a program's functions. With J the exact Jacobian of the solution map,
        whose products Newton's method makes accurate to rounding at neighbours too,

            D²z[θ̇, θ̇′] = d/dh J(θ + h θ̇′) θ̇,      ∇_θ ⟨z̄, J θ̇⟩ = d/dh J(θ + h θ̇)ᵀ z̄     (D²z is symmetric)

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


def difference(product: Callable[[float], Floats | None], here: Floats) -> tuple[Floats, float]:
    """The derivative of a product along a line of parameters, at its start.

    Central differences at h, h/2, h/4, … have an error in even powers of h, which Richardson's scheme cancels one after
    the other. Where it stops, two values of neighbouring steps and orders bound the error of the better (Ridders 1982).
    Where no central ones agree, as across a kink, those to one side may, which is the side whose derivative J is.

    Args:
        product: h ↦ the product at θ + h d, with h = 1 a step as large as the parameters; None where there is none.
        here: the product at h = 0.

    Returns:
        The derivative, and a bound on its error over what is promised of it: above 1 the promise is broken.
    """
    at = cache(product)
    size = float(np.abs(here).max(initial=0.0))

    def slope(h: float, sides: tuple[int, int]) -> Floats | None:
        after, before = (here if side == 0 else at(side * h) for side in sides)
        return None if after is None or before is None else (after - before) / ((sides[0] - sides[1]) * h)

    best, error = here, np.inf
    for sides in ((1, -1), (1, 0), (0, -1)):
        value, told = _extrapolated(partial(slope, sides=sides), 4.0 if 0 not in sides else 2.0, size)
        if told < error:
            best, error = value, told
        if error <= 1.0:
            return best, error
    return best, error


def _extrapolated(slope: Callable[[float], Floats | None], ratio: float, size: float) -> tuple[Floats, float]:
    """The limit of difference quotients at falling steps, and the bound on its error.

    Args:
        slope: h ↦ a quotient; None where there is none.
        ratio: of the terms of its error to those at half the step, from one term to the next.
        size: of what the quotients are differences of.
    """
    best, error = np.zeros(()), np.inf
    row: list[Floats] = []
    for k in range(STEPS):
        last, found = row, slope(LARGEST_STEP * 0.5**k)
        row = [] if found is None else [found]  # past the end of a branch there is none; nearer there may be
        for order, coarse in enumerate(last if row else ()):
            fine = row[order]
            row.append(fine + (fine - coarse) / (ratio ** (order + 1) - 1.0))
            apart = max(float(np.abs(row[-1] - near).max(initial=0.0)) for near in (fine, coarse))
            told = apart / max(PROMISED * float(np.abs(row[-1]).max(initial=0.0)), ROUNDING * size, TINY)
            if told < error:
                best, error = row[-1], told
        if error <= WELL_WITHIN:
            break
    return best, error


def tell_inexact(account: Regularity, error: float, check: Check) -> None:
    """Say that a second derivative is less accurate than promised, or does not exist.

    Args:
        account: of the point.
        error: the bound, as `difference` gives it.
        check: what is done about it.

    Raises:
        ApplicabilityError: under ``check="raise"`` or ``singular="raise"``.
    """
    message = (
        f"The second derivative at this point is accurate to a relative error of {error * PROMISED:.0e} only: first "
        "ones at nearby parameters change as where an active set changes, a branch of solutions ends, or the KKT "
        "system is ill-conditioned. Move the parameters off such a point, or improve the scaling."
    )
    speak_once(account, message, check, "reverse")
