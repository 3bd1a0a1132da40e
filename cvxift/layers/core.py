"""What the framework layers share: the constructor's arguments, a call's shapes and values, the outputs' splitting.

A call's tensors have the parameter's shape, or any leading batch dimensions before it, the same for all tensors; those
without leading dimensions are shared by the batch (`cvxift.program.parameters.batch_of`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast, get_args

import cvxpy as cp
import numpy as np

from cvxift import solvers
from cvxift.argmax.closed_form.closed_map import ClosedForm, ClosedMap, ClosedSolved
from cvxift.compat import named_solver, solver_and_options
from cvxift.errors import SolveError
from cvxift.kkt.conflict import first_agrees
from cvxift.kkt.policy import Check, Policy, choice, options_of
from cvxift.kkt.solution_map import OnFailure, Solved
from cvxift.layers.description import facts
from cvxift.program.checks import check_listed
from cvxift.program.parameters import batch_of, wrong_count, wrong_shape
from cvxift.program.split_leaves import SplitProblem
from cvxift.program.structure import Floats

if TYPE_CHECKING:
    from cvxift.diagnostics.call_check import CallReport, Watch
    from cvxift.kkt.batch.device import DeviceMap

LOOKS = 64  # instances on a kink that are analysed for warnings in the life of a layer with a closed form


@dataclass(frozen=True, eq=False)
class Call:
    """One solved call of a layer.

    Attributes:
        solved: the batch.
        shapes: shape of each parameter as it was given.
    """

    solved: Solved
    shapes: tuple[tuple[int, ...], ...]


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
        check: ``"warn"`` (once for each solution and mode) or ``"raise"`` where the map has no derivative; ``"off"``.
        closed_form: ``"auto"``: a problem whose solution has a closed form that is known is solved and differentiated
            by it, unless a solver, options for it or another policy are named; ``"never"``. See docs/argmax.md.

    Attributes:
        logs, logged: which parameters enter through their logarithm (geometric programs), for adapters; if any.
        exps, exponential: which outputs leave through the exponential, for adapters; if any.
        parts: the user's problem, where complex leaves of it were split; None where the problem is the user's.

    Raises:
        ProgramError: an argument cannot be used; says which and why.
    """

    parts: SplitProblem | None = None
    _agreed = False  # whether the canonical program was compared with the user's expressions

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
        check: Check = "off",
        closed_form: ClosedForm = "auto",
    ) -> None:
        choice("closed_form", closed_form, get_args(ClosedForm))
        check_listed(parameters, variables)
        self._given, self._verbose = (named_solver(solver), options_of(solver_args)), verbose
        how = {"policy": policy, "on_failure": on_failure, "check": check}
        canonical = {"gp": gp, "canon_backend": canon_backend, "closed_form": closed_form}
        self._set_map((problem, parameters, variables), verbose, how, canonical)
        self.parameters = self.map.parameters
        self.shapes = tuple(p.shape for p in self.parameters)
        self.sizes = tuple(p.size for p in self.parameters)
        self.output_shapes = tuple(tuple(variable.shape) for variable in variables)
        self.outputs, self.output_slices = tuple(variables), self.map.slices
        log, exp = self.map.log_mask, self.map.exp_mask
        ends = np.cumsum((0, *self.sizes))
        self.logs = tuple(log is not None and bool(log[i:j].any()) for i, j in pairwise(ends))
        self.exps = tuple(exp is not None and bool(exp[part].any()) for part in self.output_slices)
        self.logged, self.exponential = any(self.logs), any(self.exps)
        self._warm: Solved | None = None
        self._check: Check = check
        self._watch: Watch | None = None
        self._looks = 0

    def _set_map(self, what: Any, verbose: bool, how: Mapping[str, Any], canonical: Mapping[str, Any]) -> None:
        """Make the solution map, with its solver and options."""
        named, args = self._given
        general = named is not None or bool(args) or verbose
        never = {"closed_form": "never"} if general else {}
        self.map = ClosedMap(*what, solver=named, **{**how, **canonical, **never})
        if general:
            first, args = self._solver_and_options({})
            if first is not None:
                self.map.engine.choose(first)
            self.map.engine.set_options(args)
        self.map.make_ready()

    def batch_shape(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The call's batch shape.

        Args:
            shapes: shape of each tensor, in the order of the parameters.

        Returns:
            The leading dimensions.

        Raises:
            ProgramError: wrong number of tensors, a wrong shape, or leading dimensions that do not agree.
        """
        if len(shapes) != len(self.shapes):
            raise wrong_count(self.parameters, len(shapes))
        if shapes == self.shapes:
            return ()
        leading = []
        for parameter, shape, expected in zip(self.parameters, shapes, self.shapes, strict=True):
            rank = len(expected)
            if len(shape) < rank or tuple(shape[len(shape) - rank :]) != expected:
                raise wrong_shape(parameter, tuple(shape), self.parameters)
            leading.append(tuple(shape[: len(shape) - rank]))
        return batch_of(self.parameters, leading)

    def solve(
        self, values: Sequence[Floats], solver_args: Mapping[str, Any] | None, warm_start: bool, prepare: bool = False
    ) -> tuple[Call, list[Floats]]:
        """Solve at the given parameters.

        Args:
            values: a float64 array for each parameter, of its shape with any leading batch dimensions; for geometric
                programs the logarithm of those in `logs`.
            solver_args: options for this call, over those of the constructor.
            warm_start: start from the previous call's solutions.
            prepare: factorize now what the derivatives of an unbatched call will need.

        Returns:
            The call, to be handed to `vjp`; and the outputs, each of shape (batch…, *shape); the
            logarithm of those in `exps`.

        Raises:
            ProgramError: a shape, a value or an option is wrong.
            SolveError: an instance could not be solved.
        """
        shapes = tuple(value.shape for value in values)
        batch = self.batch_shape(shapes)
        solved = self._solved(self._pack(values, batch), solver_args, warm_start, prepare=prepare)
        outputs = self._split(solved.outputs, batch)
        self._look(solved)
        return Call(solved, shapes), outputs

    def solve_flat(
        self,
        theta: Floats,
        solver_args: Mapping[str, Any] | None,
        warm_start: bool,
        there: DeviceMap | None = None,
    ) -> Solved:
        """As `solve`, at parameters that lie side by side already, in the layer's order, each raveled in C order.

        Args:
            theta: shape (batch…, N), float64; for geometric programs the logarithm of the parameters in `logs`.
            solver_args: as for `solve`.
            warm_start: as for `solve`.
            there: the map on a device, for a θ that is an array of that device.

        Returns:
            The solved batch; its outputs lie side by side as well.
        """
        solved = self._solved(theta, solver_args, warm_start, there)
        self._look(solved)
        return solved

    def _solved(
        self,
        theta: Floats,
        solver_args: Mapping[str, Any] | None,
        warm_start: bool,
        there: DeviceMap | None = None,
        prepare: bool = False,
    ) -> Solved:
        """`solve_flat` before the cheap checks."""
        warm = self._warm.warm() if warm_start and self._warm is not None else None
        solver, args = None, None
        if solver_args:
            solver, args = self._solver_and_options(solver_args)
        known = {"solver_args": args, "warm": warm, "solver": solver, "check": not self.logged}
        try:
            solved = self.map.solve(theta, **known, prepare=prepare) if there is None else there.solve(theta, **known)
        except SolveError as error:
            error.solutions = None if error.solutions is None else self._returned(np.asarray(error.solutions))
            raise
        theta = theta if there is None else cast(Any, solved).theta
        if not self._agreed and not isinstance(solved, ClosedSolved):  # a closed form makes no canonical program
            order = self.map._permutation
            own = np.asarray(theta if order is None else theta[..., order])
            self._agreed = first_agrees(self.map.program, solved.solutions, own)
        return solved

    def _solver_and_options(self, args: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """The solver to try first and its options, for a call's options over the constructor's."""
        (name, given), engine = self._given, self.map.engine
        name, options = solver_and_options(name, {**given, **args}, engine.candidates, engine.condensation.structure)
        return name, {**options, **(solvers.get(name or engine.first).verbose_options if self._verbose else {})}

    def remember(self, solved: Solved) -> None:
        """Make a solved call the last one, of which `last_report` and ``warm_start`` speak."""
        self._warm = solved

    def _look(self, solved: Solved) -> None:
        """Remember a call, and make the cheap checks of it."""
        self._warm = solved
        if self._check == "off":
            return
        if isinstance(solved, ClosedSolved):
            weak = solved.weak
            # Every instance looked at costs more than the closed form of many: warnings are told once anyway.
            if not weak or (self._check == "warn" and self._looks >= LOOKS):
                return
            self._looks += weak
        elif not solved.batch_shape:
            solution = solved.solutions[0]
            if solution.point is None or (solution.engine.cones.polyhedral and solution.clear):
                return
        if self._watch is None:
            from cvxift.diagnostics.call_check import Watch

            self._watch = Watch(self.map, self._check)
        self._watch.look(solved)

    @property
    def last_report(self) -> CallReport | None:
        """Statistics of the last call: margins, residuals, conditioning; None before the first."""
        from cvxift.diagnostics.call_check import CallReport

        last, mapping = self._warm, self.map
        return None if last is None else CallReport(last, mapping.policy, mapping.path_of(last), mapping.account)

    def check(self, values: Sequence[Floats]) -> None:
        """Refuse values that are not finite or contradict a parameter's attributes; `solve` does it where it sees them.

        Args:
            values: as for `solve`, but without the logarithms that a geometric program takes.

        Raises:
            ProgramError: names the parameter and the entry.
        """
        self.map.check(self._pack(values, self.batch_shape(tuple(value.shape for value in values))))

    def vjp(self, call: Call, bars: Sequence[Floats]) -> list[Floats]:
        """Cotangents of the parameters, of the shapes they were given in, for cotangents of the outputs."""
        return self._unpack(self.map.derivative(call.solved, (), self._join(bars, call)), call)

    def _pack(self, values: Sequence[Floats], batch: tuple[int, ...]) -> Floats:
        """θ of shape (*batch, N): every value raveled in C order, side by side."""
        if not values:
            return np.empty((*batch, 0))
        if not batch:
            return np.concatenate([value.reshape(-1) for value in values])
        theta = np.empty((*batch, sum(self.sizes)))
        start = 0
        for value, shape, size in zip(values, self.shapes, self.sizes, strict=True):
            lead = value.shape[: value.ndim - len(shape)]
            theta[..., start : start + size] = value.reshape(*lead, size)
            start += size
        return theta

    def _unpack(self, theta: Floats, call: Call) -> list[Floats]:
        """The transpose of `_pack`: entries of θ in each parameter's given shape, summed over broadcast dimensions."""
        parts, start, batch = [], 0, call.solved.batch_shape
        for given, shape, size in zip(call.shapes, self.shapes, self.sizes, strict=True):
            part = theta[..., start : start + size]
            start += size
            lead = given[: len(given) - len(shape)]
            if lead != batch:
                extra = len(batch) - len(lead)
                axes = (*range(extra), *(extra + k for k, length in enumerate(lead) if length != batch[extra + k]))
                part = part.sum(axis=axes)
            parts.append(part.reshape(given))
        return parts

    def _split(self, flat: Floats, batch: tuple[int, ...]) -> list[Floats]:
        """Flat outputs, one array a variable."""
        parts = zip(self.output_slices, self.output_shapes, strict=True)
        return [flat[..., part].reshape((*batch, *shape)) for part, shape in parts]

    def _join(self, bars: Sequence[Floats], call: Call) -> Floats:
        """The inverse of `_split`."""
        batch = call.solved.batch_shape
        parts = [
            bar.reshape(*batch, part.stop - part.start) for bar, part in zip(bars, self.output_slices, strict=True)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def _returned(self, flat: Floats) -> tuple[np.ndarray, ...]:
        """What a call returns for flat values of the outputs."""
        arrays = tuple(self._split(flat, flat.shape[:-1]))
        return arrays if self.parts is None else self.parts.in_numbers(arrays)

    def facts(self) -> dict[str, str]:
        """What `repr` shows."""
        shown = self.parts or self
        solver = self._given[0] or (self.map.engine.first if self._given[1] else "auto")
        return facts(shown.parameters, shown.outputs, solver, self.map.path)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_warm": None, "_watch": None}
