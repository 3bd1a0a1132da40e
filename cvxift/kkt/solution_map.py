"""The solution map of a problem between flat arrays: what every adapter (NumPy, torch, JAX) wraps.

θ holds the parameters in the order in which the map was given them, each raveled in C order; the output holds the
requested variables and dual variables likewise. Both may have leading batch dimensions. For a geometric program θ
enters as its logarithm where `log_mask` says so and outputs leave as exponentials where `exp_mask` says so; adapters
apply both with their own operations, so that derivatives of any order follow.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, get_args

import cvxpy as cp
import numpy as np

from cvxift._types import cached_property
from cvxift.kkt.batch import solve as batch_path
from cvxift.kkt.batch.solutions import Solved
from cvxift.kkt.engine import TOLERANCE, Engine, Solution
from cvxift.kkt.failures import OnFailure, inaccurate, unsolved
from cvxift.kkt.instance_products import InstanceProducts
from cvxift.kkt.policy import Check, Policy, choice
from cvxift.kkt.recovery import Recovery
from cvxift.program.parameters import in_callers_order
from cvxift.program.program import Program
from cvxift.program.structure import Data, Floats
from cvxift.solvers.base import Raw
from cvxift.solvers.batch import blas_threads, run


class SolutionMap(InstanceProducts):
    """θ ↦ outputs of a parametrized problem, with its vector-Jacobian, Jacobian-vector and second-order products.

    Args:
        problem: a DPP problem.
        parameters: the parameters in the order of θ.
        outputs: variables and dual variables in the order of the output.
        policy: how derivatives are taken.
        on_failure: ``"raise"`` or ``"nan"`` for instances that cannot be solved.
        check: ``"warn"``, ``"raise"`` or ``"off"`` where a derivative does not exist.
        gp: whether the problem is a geometric program.
        solver: name of the solver to try first; None chooses.
        solver_args: options for that solver.
        canon_backend: CVXPY's canonicalization backend.
        program: the problem's program, if it was built before.
        engine: the program's engine, likewise.
        **options: the last six, of the program and its engine.

    Attributes:
        form: a closed form of the solution; None where calls take none.

    Raises:
        ProgramError: the problem cannot be used, or a parameter, variable, solver or option is unknown.
    """

    form: Any = None

    def __init__(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter] | None,
        outputs: Sequence[Any],
        *,
        policy: Policy | None = None,
        on_failure: OnFailure = "raise",
        check: Check = "warn",
        **options: Any,
    ) -> None:
        self._set_ways(policy, on_failure, check)
        self._set_program(problem, parameters, outputs, **options)

    def _set_program(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter] | None,
        outputs: Sequence[Any],
        gp: bool = False,
        solver: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
        canon_backend: str | None = None,
        program: Program | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.program = Program(problem, gp, canon_backend, parameters=parameters) if program is None else program
        self.parameters = in_callers_order(parameters, self.program.parameters)
        self._permutation = self._theta_permutation()
        self._set_outputs(outputs)
        if engine is not None:
            self.engine = engine
            return
        self.engine = Engine(
            self.program.structure,
            constant=~self.program.A_varies,
            A=self.program.A_constants,
            solver=solver,
            solver_args=solver_args,
            vouched=self.program.vouched,
        )

    def _set_ways(self, policy: Policy | None, on_failure: OnFailure, check: Check) -> None:
        choice("on_failure", on_failure, get_args(OnFailure))
        choice("check", check, get_args(Check))
        self.policy = Policy() if policy is None else policy
        self.on_failure: OnFailure = on_failure
        self.applicability: Check = check

    def _set_outputs(self, outputs: Sequence[Any]) -> None:
        self.outputs = [self.program.output(obj) for obj in outputs]
        sizes = [math.prod(output.shape) for output in self.outputs]
        self.slices = [slice(stop - size, stop) for size, stop in zip(sizes, np.cumsum(sizes, dtype=int), strict=True)]
        self.output_size = int(sum(sizes))

    @cached_property
    def _recover(self) -> Recovery:  # pyright: ignore[reportIncompatibleVariableOverride]  # read, never set
        return Recovery(self.outputs, self.program.structure.n, self.program.structure.m)

    def make_ready(self) -> None:
        """Make what calls take from the problem alone, the solver's session included: the first call need not."""
        _ = self._recover, self._unrestricted
        self.engine.open(None, None)

    def for_outputs(self, outputs: Sequence[Any]) -> Self:
        """The map to other outputs, with the same program, engine and policy."""
        out = copy.copy(self)
        for made in ("_recover", "exp_mask", "_batched"):  # of the outputs that were
            vars(out).pop(made, None)
        out._set_outputs(outputs)
        return out

    def _theta_permutation(self) -> np.ndarray | None:
        """Where each entry of the program's θ stands in ours; None if nowhere else."""
        if [p.id for p in self.parameters] == [p.id for p in self.program.parameters]:
            return None
        ours, start = {}, 0
        for p in self.parameters:
            ours[p.id] = np.arange(start, start + p.size)
            start += p.size
        order = [ours[p.id] for p in self.program.parameters]
        permutation = np.concatenate(order) if order else np.zeros(0, dtype=int)
        return None if np.array_equal(permutation, np.arange(len(permutation))) else permutation

    @cached_property
    def log_mask(self) -> np.ndarray | None:
        """Entries of θ that enter through their logarithm, shape (N,); None if none do."""
        mask = self.program.log_mask
        if mask is None or self._permutation is None:
            return mask
        out = np.empty_like(mask)
        out[self._permutation] = mask
        return out

    @cached_property
    def exp_mask(self) -> np.ndarray | None:
        """Outputs that leave through the exponential, shape (K,); None if none do."""
        mask = np.zeros(self.output_size, dtype=bool)
        for part, output in zip(self.slices, self.outputs, strict=True):
            mask[part] = output.exp
        return mask if mask.any() else None

    @cached_property
    def _unrestricted(self) -> bool:
        """Whether any finite θ is one that the parameters may have."""
        return self.log_mask is None and not any(p.num_attributes for p in self.parameters)

    def closed(self, theta: Floats) -> Solved | None:
        """The batch in closed form, θ of shape (*batch, N); None where none is known."""
        return None

    def check(self, theta: Floats) -> None:
        """Refuse values that are not finite or that contradict a parameter's attributes.

        Args:
            theta: the parameters as given (not logged), shape (..., N).

        Raises:
            ProgramError: names the parameter and the entry.
        """
        self.program.check(self._in_order(theta))

    def data(self, theta: Floats) -> Data:
        """The program's data at θ, shape (..., N)."""
        return self.program.evaluate(self._in_order(theta))

    def _in_order(self, theta: Floats) -> Floats:
        """θ in the program's order."""
        return theta if self._permutation is None else theta[..., self._permutation]

    def solve(
        self,
        theta: Floats,
        *,
        solver_args: Mapping[str, Any] | None = None,
        warm: Sequence[Raw | None] | None = None,
        solver: str | None = None,
        check: bool = False,
        prepare: bool = False,
    ) -> Solved:
        """Solve every instance of θ.

        Args:
            theta: shape (..., N), finite.
            solver_args: options for this call, over those of the map.
            warm: a point an instance to start from, as `Solved.warm` gives.
            solver: name of the solver to try first in this call.
            check: refuse values that are not finite or contradict a parameter's attributes; as given, not logged.
            prepare: linearize and factorize an unbatched call ahead of its derivatives, so that a singular system is
                known now; batches do it all at once when asked.

        Returns:
            The solved batch.

        Raises:
            ProgramError: a value is refused.
            SolveError: an instance has no solution that passes the check and `on_failure` is ``"raise"``; carries the
                others.
            ApplicabilityError: under ``check="raise"``, a point is accepted that is not at the goal.
        """
        if check and not (self._unrestricted and math.isfinite(theta.dot(theta) if theta.ndim == 1 else theta.sum())):
            self.check(theta)
        if self.form is not None and not solver_args and solver is None:
            closed = self.closed(theta)
            if closed is not None:
                return closed
        batch, order, engine = theta.shape[:-1], self._permutation, self.engine
        if not batch:
            start = warm[0] if warm else None
            own = theta if order is None else theta[order]
            data = self.program.evaluate(own)
            solution = engine.solve(data, solver_args=solver_args, warm=start, solver=solver, follow=True)
            solved, point = Solved((), (solution,), self._recover(solution.x, solution.y, own)), solution.point
            if point is not None and point.worst <= TOLERANCE:
                if prepare:
                    solution.linearization(self.policy).prepare()
                return solved
        else:
            flat = theta.reshape(-1, theta.shape[-1])
            data = self.data(flat)
            points = warm if warm is not None and len(warm) == len(flat) else None
            if batch_path.fits(self.engine) and len(flat):
                solutions = batch_path.solve(self.engine, data, solver_args=solver_args, warm=points, solver=solver)
                outputs = self._recover(solutions.full_x, solutions.full_y, self._in_order(flat))
            else:
                solutions = self._each(
                    lambda i: self.engine.solve(
                        data[i],
                        solver_args=solver_args,
                        warm=None if points is None else points[i],
                        solver=solver,
                        follow=True,
                    ),
                    len(flat),
                    solver,
                )
                outputs = np.empty((len(flat), self.output_size))
                for i, solution in enumerate(solutions):
                    outputs[i] = self._recover(solution.x, solution.y, self._in_order(flat[i]))
            solved = Solved(batch, solutions, outputs.reshape(*batch, self.output_size))
        if not solved.ok:
            outputs, exps = solved.outputs, self.exp_mask
            if exps is not None:  # an error carries the user's variables, not their logarithms
                outputs = np.where(exps, np.exp(np.where(exps, outputs, 0.0)), outputs)
            unsolved(solved.solutions, batch, outputs, self.on_failure, self.program)
        inaccurate(solved, self.program, self.applicability)
        if prepare and not batch and solved.ok:
            solved.solutions[0].linearization(self.policy).prepare()
        return solved

    def _each(self, work: Callable[[int], Solution], count: int, solver: str | None) -> list[Solution]:
        """work(i) for every i, in threads where an instance pays for one and its time is not spent in dense algebra."""
        engine, structure = self.engine, self.engine.condensation.structure
        _, _, session = engine.open(solver, None)
        small = structure.nnzA + structure.nnzP < batch_path.THREAD_COST
        if small or not session.releases_gil or (engine.layout.dense and blas_threads()):
            return [work(i) for i in range(count)]
        return run(work, count)

    def raise_unsolved(self, solution: Solution) -> None:
        """Raise the SolveError of one unbatched instance.

        Raises:
            SolveError: always.
        """
        unsolved((solution,), (), np.full(self.output_size, np.nan), "raise", self.program)
