"""Local solutions of nonlinear programs as sensitivities and as layers: what ``nlp=True`` makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.errors import ProgramError
from cvxift.kkt.failures import inaccurate, unsolved
from cvxift.kkt.policy import Check, Policy
from cvxift.kkt.solution_map import Solved
from cvxift.layers.core import LayerCore
from cvxift.layers.integers import IntegerCore, Integers, refuse_with
from cvxift.layers.sensitivity import Sensitivity
from cvxift.nlp import NonlinearEngine, NonlinearMap, start_values
from cvxift.program.smooth import SmoothProgram
from cvxift.program.write_back import write_back_none
from cvxift.solvers.base import Status


class NonlinearCore(LayerCore):
    """A nonlinear problem as a layer, without a framework: local solutions, one instance after the other.

    Args: as `LayerCore`; ``solver`` is a nonlinear solver's name, ``solver_args`` may hold ``best_of``.
    """

    def _set_map(self, what: Any, verbose: bool, how: Mapping[str, Any], canonical: Mapping[str, Any]) -> None:
        if canonical["gp"]:
            raise ProgramError("gp=True and nlp=True exclude each other: choose one.")
        named, args = self._given
        self.map: Any = NonlinearMap(*what, solver=named, solver_args=args, verbose=verbose, **how)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._agreed = True  # the engine evaluates CVXPY's own expressions

    def _solver_and_options(self, args: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """A call's options; the solver is the constructor's."""
        return None, dict(args)


def core_of(nlp: bool, integers: Integers | None, gp: bool) -> type[LayerCore]:
    """The kind of core that a layer has."""
    refuse_with(integers, nlp=nlp, gp=gp)
    return NonlinearCore if nlp else LayerCore if integers is None else IntegerCore


def differentiate_nonlinear(
    problem: cp.Problem,
    *,
    solver: str | None,
    solver_args: Mapping[str, Any] | None,
    policy: Policy,
    check: Check,
    program: SmoothProgram | None = None,
) -> tuple[Sensitivity, bool]:
    """The sensitivities at the local solution that the problem holds, or that is found from its variables' values.

    Args:
        problem: a problem that follows the rules of disciplined nonlinear programs.
        solver: as for `cvxift.differentiate`.
        solver_args: likewise.
        policy: how derivatives are taken.
        check: likewise.
        program: its smooth program, if it was built earlier.

    Returns:
        The sensitivities, and whether the problem held that solution.

    Raises:
        ProgramError: the problem cannot be used.
        SolveError: no local solution was found.
    """
    program = SmoothProgram(problem) if program is None else program
    own: Any = program  # has all that is read of a `Program` here
    theta = program.pack({p: p.value for p in program.parameters})
    values = start_values(problem)
    engine = NonlinearEngine(program, values, solver=solver, solver_args=solver_args)
    named = solver is not None or bool(solver_args)
    solution = engine.held(theta, values) if not named and all(value is not None for value in values) else None
    held = solution is not None and solution.ok
    if solution is None or not held:
        solution = engine.solve(program.evaluate(theta))
    if not solution.ok:
        if solution.status in (Status.INFEASIBLE, Status.UNBOUNDED):
            write_back_none(problem, solution.status.value)
        unsolved((solution,), (), np.empty(0), "raise", own)
    if not held:
        inaccurate(Solved((), (solution,), np.empty(0)), own, check)
    local: Any = program.at(solution)
    # It has all that sensitivities read of a `Program`, and its map of a `ClosedMap`.
    variables = problem.variables()
    mapping: Any = NonlinearMap(problem, None, variables, program=local, engine=engine, policy=policy, check=check)
    return Sensitivity(problem, local, solution, theta, policy, mapping, check), held
