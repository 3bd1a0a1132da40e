"""What an implicit function is made of, checked when it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cvxift.errors import ProgramError
from cvxift.implicit.options import LinearSolver, resolve

Kind = Literal["root", "fixed_point", "argmin"]
CHECKS = ("off", "warn", "raise")


@dataclass(frozen=True, eq=False)
class Settings:
    """What the user gave.

    Attributes:
        kind: which function it is.
        function: F, T or E.
        solver: (*theta) ↦ x.
        equality: G of a constrained minimizer, or None.
        inequality: H, or None.
        linear_solver: the option; None for "auto".
        damping: added to the Jacobian's diagonal.
        has_aux: whether the solver returns (x, aux).
        has_multipliers: whether x is a pair of x and the multipliers (of equality, of inequality).
        check: what is done where a condition fails.
        tolerance: relative residual up to which a point counts as a solution; None for the dtype's.
        like: JAX alone: an example of what the solver returns; None if unknown.
    """

    kind: Kind
    function: Callable[..., Any]
    solver: Callable[..., Any]
    equality: Callable[..., Any] | None
    inequality: Callable[..., Any] | None
    linear_solver: LinearSolver | None
    damping: float
    has_aux: bool
    has_multipliers: bool
    check: str
    tolerance: float | None
    like: Any = None

    @classmethod
    def of(
        cls,
        kind: Kind,
        function: Any,
        solver: Any,
        *,
        linear_solver: Any = "auto",
        damping: float = 0.0,
        has_aux: bool = False,
        check: str = "warn",
        tolerance: float | None = None,
        equality: Any = None,
        inequality: Any = None,
        has_multipliers: bool = False,
        like: Any = None,
    ) -> Settings:
        """Check the arguments.

        Raises:
            ProgramError: by the argument's name.
        """
        for name, value in (("function", function), ("solver", solver), ("equality", equality)):
            if not callable(value) and not (name == "equality" and value is None):
                raise ProgramError(f"{name} must be callable; got {type(value).__name__}.")
        if inequality is not None and not callable(inequality):
            raise ProgramError(f"inequality must be callable; got {type(inequality).__name__}.")
        if check not in CHECKS:
            raise ProgramError(f"check = {check!r} is not known; choose 'off', 'warn' or 'raise'.")
        if not (_is_number(damping) and 0.0 <= damping < float("inf")):
            raise ProgramError(f"damping = {damping!r}; it must be a number >= 0.")
        if tolerance is not None and not (_is_number(tolerance) and tolerance > 0.0):
            raise ProgramError(f"tolerance = {tolerance!r}; it must be a number > 0.")
        if has_multipliers and equality is None and inequality is None:
            raise ProgramError("has_multipliers=True needs equality= or inequality=: without them there are none.")
        option = resolve(linear_solver)
        return cls(
            kind,
            function,
            solver,
            equality,
            inequality,
            option,
            float(damping),
            bool(has_aux),
            bool(has_multipliers),
            check,
            tolerance,
            like,
        )

    @property
    def constrained(self) -> bool:
        """Whether the KKT system takes the place of ∇E."""
        return self.equality is not None or self.inequality is not None

    @property
    def symmetric(self) -> bool:
        """Whether the Jacobian is symmetric by construction: a Hessian, or a KKT matrix."""
        return self.kind == "argmin"

    @property
    def title(self) -> str:
        """The function in words, for messages."""
        return f"implicit_{self.kind}({getattr(self.function, '__name__', type(self.function).__name__)})"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
