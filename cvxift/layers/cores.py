"""Layers of other than convex programs: nonlinear ones by local solutions, mixed-integer ones with integers held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvxift.errors import ProgramError
from cvxift.kkt.integers import IntegerMap
from cvxift.kkt.policy import Integers, check_reading
from cvxift.layers.core import LayerCore
from cvxift.nlp import NonlinearMap
from cvxift.program.split_leaves import SplitProblem


class NonlinearCore(LayerCore):
    """A nonlinear problem as a layer, without a framework: local solutions, one instance after the other.

    Args: as `LayerCore`; ``solver`` is a nonlinear solver's name, ``solver_args`` may hold ``best_of``.
    """

    _agreed = True  # the engine evaluates CVXPY's own expressions

    def _set_map(self, what: Any, verbose: bool, how: Mapping[str, Any], canonical: Mapping[str, Any]) -> None:
        named, args = self._given
        self.map: Any = NonlinearMap(*what, solver=named, solver_args=args, verbose=verbose, **how)

    def _solver_and_options(self, args: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """A call's options; the solver is the constructor's."""
        return None, dict(args)


class IntegerCore(LayerCore):
    """A mixed-integer problem as a layer, without a framework: its integers are held, one instance after the other.

    Args: as `LayerCore`; ``solver`` and ``solver_args`` are those of the mixed-integer solver.
    """

    _agreed = True  # the map compares each of its programs with the user's expressions

    def _set_map(self, what: Any, verbose: bool, how: Mapping[str, Any], canonical: Mapping[str, Any]) -> None:
        named, args = self._given
        backend = canonical["canon_backend"]
        self.map: Any = IntegerMap(*what, solver=named, solver_args=args, verbose=verbose, canon_backend=backend, **how)

    def _solver_and_options(self, args: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """The mixed-integer solver and its options are the constructor's."""
        if args:
            raise ProgramError("With integers='fixed', give solver_args to the layer's constructor, not to a call.")
        return None, {}


def core_of(
    problem: Any,
    parameters: Any,
    variables: Any,
    *,
    nlp: bool,
    integers: Integers | None,
    gp: bool,
    **options: Any,
) -> LayerCore:
    """The core of a layer: of the problem's kind, with complex leaves taken apart.

    Args:
        problem: as for `LayerCore`.
        parameters: likewise.
        variables: likewise.
        nlp: whether it is a nonlinear problem.
        integers: ``"fixed"`` for a mixed-integer one.
        gp: whether it is a geometric program.
        **options: the other arguments of `LayerCore`.
    """
    check_reading(nlp=nlp, gp=gp, integers=integers)
    kind = NonlinearCore if nlp else LayerCore if integers is None else IntegerCore
    parts = SplitProblem.of(problem, gp) if kind is LayerCore else None
    what = (problem, parameters, variables) if parts is None else parts.layer(parameters, variables)
    core = kind(*what, gp=gp, **options)
    core.parts = parts
    return core
