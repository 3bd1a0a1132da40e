"""Mixed-integer problems as sensitivities and as layers: what ``integers="fixed"`` makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from cvxift.errors import ProgramError
from cvxift.kkt.integers import IntegerMap
from cvxift.kkt.policy import choice
from cvxift.layers.core import LayerCore

Integers = Literal["fixed"]
"""What is done with the integers of a mixed-integer problem: ``"fixed"`` holds them at their optimum."""


def refuse_with(integers: Integers | None, **others: bool) -> None:
    """Refuse an unknown value, and other readings of the problem beside it.

    Args:
        integers: what the user gave.
        **others: name -> value of options that exclude it.

    Raises:
        ProgramError: names both.
    """
    if integers is None:
        return
    choice("integers", integers, get_args(Integers))
    for name, given in others.items():
        if given:
            raise ProgramError(f"integers='fixed' and {name}=True exclude each other: choose one.")


class IntegerCore(LayerCore):
    """A mixed-integer problem as a layer, without a framework: its integers are held, one instance after the other.

    Args: as `LayerCore`; ``solver`` and ``solver_args`` are those of the mixed-integer solver.
    """

    def _set_map(self, what: Any, verbose: bool, how: Mapping[str, Any], canonical: Mapping[str, Any]) -> None:
        named, args = self._given
        backend = canonical["canon_backend"]
        self.map: Any = IntegerMap(*what, solver=named, solver_args=args, verbose=verbose, canon_backend=backend, **how)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._agreed = True  # the map compares each of its programs with the user's expressions

    def _solver_and_options(self, args: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """The mixed-integer solver and its options are the constructor's."""
        if args:
            raise ProgramError("With integers='fixed', give solver_args to the layer's constructor, not to a call.")
        return None, {}
