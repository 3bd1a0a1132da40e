"""What the framework layers share: reading the constructor's arguments, checking a call's shapes and values, splitting
the output.

A call's tensors have the parameter's shape, or any leading batch dimensions before it; the leading dimensions of all
tensors broadcast together, so that unbatched parameters are shared by the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift import solvers
from cvxift.errors import ProgramError
from cvxift.kkt.policy import Policy
from cvxift.kkt.solution_map import OnFailure, SolutionMap, Solved
from cvxift.program.structure import Floats

_DIFFCP_METHODS = {"SCS": "scs", "CLARABEL": "clarabel"}


class LayerCore:
    """A problem as a layer, without a framework.

    Args:
        problem: a DPP problem.
        parameters: all its parameters, in the order of the layer's tensors.
        variables: variables and dual variables to return.
        solver: name of the solver to try first; None (or cvxpylayers' ``"DIFFCP"``) chooses.
        gp: whether it is a geometric program.
        verbose: print the solver's output.
        canon_backend: CVXPY's canonicalization backend.
        solver_args: options for the solver.
        policy: how derivatives are taken.
        on_failure: ``"raise"`` or ``"nan"`` for instances that cannot be solved.

    Raises:
        ProgramError: an argument cannot be used; says which and why.
    """

    def __init__(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter],
        variables: Sequence[Any],
        *,
        solver: Any = None,
        gp: bool = False,
        verbose: bool = False,
        canon_backend: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
        policy: Policy | None = None,
        on_failure: OnFailure = "raise",
    ) -> None:
        for name, value, kind in (("parameters", parameters, cp.Parameter), ("variables", variables, cp.Variable)):
            if not isinstance(value, (list, tuple)) or not all(isinstance(item, kind) for item in value):
                raise ProgramError(
                    f"{name} must be a list or tuple of cp.{kind.__name__}; got {type(value).__name__} "
                    f"{[type(item).__name__ for item in value] if isinstance(value, (list, tuple)) else ''}."
                )
        if not variables:
            raise ProgramError("variables is empty: name at least one variable or dual variable to return.")
        args = dict(solver_args or {})
        solver, args = as_cvxift_solver(solver, args)
        self.map = SolutionMap(
            problem,
            parameters,
            variables,
            gp=gp,
            solver=solver,
            policy=policy,
            on_failure=on_failure,
            canon_backend=canon_backend,
        )
        engine = self.map.engine
        if solver is None and args:
            engine.prefer(accepting(engine.candidates, args))
        if verbose:
            args = {**args, **solvers.get(engine.first).verbose_options}
        engine.set_options(args)
        self.parameters = self.map.parameters
        self.shapes = tuple(p.shape for p in self.parameters)
        self.sizes = tuple(p.size for p in self.parameters)
        self.output_shapes = tuple(output.shape for output in self.map.outputs)
        self.output_slices = self.map.slices
        self._warm: Solved | None = None

    def batch_shape(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The call's batch shape.

        Args:
            shapes: shape of each tensor, in the order of the parameters.

        Returns:
            The broadcast leading dimensions.

        Raises:
            ProgramError: wrong number of tensors, a wrong shape, or leading dimensions that do not broadcast.
        """
        if len(shapes) != len(self.shapes):
            names = ", ".join(f"'{p.name()}' {p.shape}" for p in self.parameters)
            raise ProgramError(
                f"A tensor must be provided for each parameter: got {len(shapes)}, expected {len(self.shapes)} ({names})."
            )
        if shapes == self.shapes:
            return ()
        leading = []
        for parameter, shape, expected in zip(self.parameters, shapes, self.shapes, strict=True):
            rank = len(expected)
            if len(shape) < rank or tuple(shape[len(shape) - rank :]) != expected:
                self._wrong_shape(parameter, tuple(shape), expected)
            leading.append(tuple(shape[: len(shape) - rank]))
        try:
            return tuple(np.broadcast_shapes(*leading))
        except ValueError:
            given = ", ".join(f"'{p.name()}' {tuple(lead)}" for p, lead in zip(self.parameters, leading, strict=True))
            raise ProgramError(f"The parameters' batch dimensions do not broadcast together: {given}.") from None

    @staticmethod
    def _wrong_shape(parameter: cp.Parameter, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
        wanted = f"{expected} or (batch…, {', '.join(map(str, expected))})" if expected else "() or (batch…)"
        hint = ""
        if len(expected) == 2 and shape[-2:] == expected[::-1]:
            hint = f" Transpose it, or declare cp.Parameter({shape[-2:]})."
        raise ProgramError(f"Parameter '{parameter.name()}' has shape {shape}; expected {wanted}.{hint}")

    def solve(self, theta: Floats, solver_args: Mapping[str, Any] | None, warm_start: bool) -> Solved:
        """Solve a batch; θ as the canonical program takes it (logged for geometric programs), shape (..., N)."""
        args = None
        if solver_args:
            solver, args = as_cvxift_solver(self.map.engine.named, dict(solver_args))
            if solver is None or solver != self.map.engine.named:
                solver = solver or accepting(self.map.engine.candidates, args)
            return self._keep(self.map.solve(theta, solver_args=args, warm=self._points(warm_start), solver=solver))
        return self._keep(self.map.solve(theta, warm=self._points(warm_start)))

    def _points(self, warm_start: bool):
        return self._warm.warm() if warm_start and self._warm is not None else None

    def _keep(self, solved: Solved) -> Solved:
        self._warm = solved
        return solved

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_warm": None}


def accepting(candidates: Sequence[str], args: Mapping[str, Any]) -> str:
    """The first solver that accepts all of these options.

    Raises:
        ProgramError: none does; names the option that the most fitting one does not know.
    """
    for name in candidates:
        if all(key in solvers.get(name).options for key in args):
            return name
    known = {name: sorted(solvers.get(name).options) for name in candidates}
    unknown = [key for key in args if not any(key in options for options in known.values())] or list(args)
    listing = "; ".join(f"{name}: {', '.join(options)}" for name, options in known.items())
    raise ProgramError(f"No solver for this problem accepts solver_args {unknown} together. Known options: {listing}.")


def as_cvxift_solver(solver: Any, args: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Read the solver and options that code written for cvxpylayers gives.

    Args:
        solver: a name or None; ``"DIFFCP"`` is cvxpylayers' default.
        args: its options; ``solve_method`` names a solver, ``eps`` is SCS' older name of both of its tolerances.

    Returns:
        The solver's name (None: choose) and its options.

    Raises:
        ProgramError: `solver` is no name, or ``solve_method`` is unknown.
    """
    if solver is not None and not isinstance(solver, str):
        raise ProgramError(
            f"solver must be a name or None; got {type(solver).__name__}. Add your own with cvxift.solvers.register."
        )
    name = None if solver is None or solver.upper() == "DIFFCP" else solver
    if name is None and "solve_method" in args:
        method = str(args.pop("solve_method"))
        if method.upper() not in _DIFFCP_METHODS:
            raise ProgramError(
                f"solve_method={method!r} is not known; choose one of {', '.join(_DIFFCP_METHODS)}, or name a solver with solver=."
            )
        name = _DIFFCP_METHODS[method.upper()]
    if name in (None, "scs") and "eps" in args:
        eps = args.pop("eps")
        name = "scs"
        args.setdefault("eps_abs", eps)
        args.setdefault("eps_rel", eps)
    return name, args
