"""How derivatives are taken: what to do with singular systems, and how the linear systems are solved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cvxift.errors import ProgramError

Singular = Literal["least_squares", "regularize", "smooth", "raise"]
Check = Literal["off", "warn", "raise"]
LinearSolver = Literal["auto", "direct", "iterative"]
Integers = Literal["fixed"]
"""What is done with the integers of a mixed-integer problem: ``"fixed"`` holds them at their optimum."""


@dataclass(frozen=True)
class Iterative:
    """Options of the matrix-free path.

    Args:
        tolerance: relative residual at which to stop, in (0, 1).
        max_iterations: largest number of iterations; None for four times the number of unknowns.

    Raises:
        ProgramError: the tolerance is not in (0, 1) or the limit is not positive.

    Example:
        >>> Iterative(tolerance=1e-10).tolerance
        1e-10
    """

    tolerance: float = 1e-12
    max_iterations: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.tolerance < 1.0:
            raise ProgramError(f"tolerance={self.tolerance} is not in (0, 1).")
        if self.max_iterations is not None and self.max_iterations < 1:
            raise ProgramError(f"max_iterations={self.max_iterations} is not positive.")


@dataclass(frozen=True)
class Policy:
    """How derivatives are taken.

    Args:
        singular: ``"least_squares"``: the exact derivative where it exists, also where multipliers are not unique;
            where it does not exist, the least-squares one, with an `ApplicabilityWarning`. ``"regularize"``: a proximal
            term is added. ``"smooth"``: the derivative of the log-barrier central path at `mu` instead of the
            solution's own, a useful gradient for linear programs. ``"raise"``: an `ApplicabilityError` where the system
            is singular and the outputs asked for feel it, whatever `check` says.
        mu: the central path's parameter, sᵢyᵢ = mu, positive; read under ``"smooth"`` alone.
        linear_solver: ``"direct"`` (factorize), ``"iterative"`` or `Iterative` options (matrix-free LSMR), ``"auto"``
            (by size).

    Raises:
        ProgramError: a value is not known or out of range.

    Example:
        >>> Policy(singular="smooth", mu=0.01).mu
        0.01
        >>> Policy(singular="guess")
        Traceback (most recent call last):
        cvxift.errors.ProgramError: singular='guess' is not known; choose one of ...
    """

    singular: Singular = "least_squares"
    mu: float = 1e-3
    linear_solver: LinearSolver | Iterative = "auto"

    def __post_init__(self) -> None:
        choice("singular", self.singular, get_args(Singular))
        if not self.mu > 0.0:
            raise ProgramError(f"mu={self.mu} is not positive.")
        if not isinstance(self.linear_solver, Iterative):
            choice("linear_solver", self.linear_solver, get_args(LinearSolver))

    def iterative(self, size: float) -> Iterative | None:
        """Options of the matrix-free path if it is to be taken for a system whose factors would hold `size` numbers."""
        if isinstance(self.linear_solver, Iterative):
            return self.linear_solver
        if self.linear_solver == "iterative" or (self.linear_solver == "auto" and size > LARGEST_DIRECT):
            return Iterative()
        return None


# Numbers in the dense blocks of semidefinite cones above which a factorization is not tried: a block of 10⁴ rows (order
# 140) takes 0.8 GB, its factorization about a minute.
LARGEST_DIRECT = 1e8


def choice(name: str, value: Any, known: Sequence[str]) -> None:
    """Refuse a value that is not one of the known words.

    Raises:
        ProgramError: names the argument and the known words.
    """
    if value not in known:
        raise ProgramError(f"{name}={value!r} is not known; choose one of {', '.join(map(repr, known))}.")


def check_reading(*, nlp: bool, gp: bool, integers: Integers | str | None) -> None:
    """Refuse two readings of one problem.

    Args:
        nlp: whether it is to be read as a nonlinear problem.
        gp: as a geometric program.
        integers: ``"fixed"`` for a mixed-integer problem.

    Raises:
        ProgramError: names two that were given, or the unknown value of `integers`.
    """
    if integers is not None:
        choice("integers", integers, get_args(Integers))
    readings = {"integers='fixed'": integers is not None, "gp=True": gp, "nlp=True": nlp}
    given = [reading for reading, chosen in readings.items() if chosen]
    if len(given) > 1:
        raise ProgramError(f"{given[0]} and {given[1]} exclude each other: choose one.")


def options_of(solver_args: Any) -> dict[str, Any]:
    """A copy of `solver_args`; empty for None.

    Raises:
        ProgramError: it is no dict.
    """
    if solver_args is None or isinstance(solver_args, Mapping):
        return dict(solver_args or {})
    raise ProgramError(
        f"solver_args={solver_args!r} is not known; give a dict of the solver's options, and its name as solver=."
    )
