"""What is said of a function whose conditions fail, and how: a warning, or an error."""

from __future__ import annotations

from cvxift.errors import ApplicabilityError, warn_user

RANDOM = (
    "the function draws random numbers (dropout?), so that its value at one point differs from call to call and "
    "defines no solution. Switch that off (module.eval()), or draw them outside and pass them as an argument."
)


def say(text: str, check: str) -> None:
    """Warn, or raise.

    Args:
        text: what is wrong.
        check: "warn", "raise" or "off".

    Raises:
        ApplicabilityError: if check is "raise".
    """
    if check == "raise":
        raise ApplicabilityError(text)
    if check != "off":
        warn_user(text)


def no_solution(title: str, entry: str, size: float, ratio: float, limit: float) -> str:
    """F ≠ 0."""
    return (
        f"{title}: the solver's point is no solution: the equation of {entry} is off by {abs(size):.1e}, which is "
        f"{ratio:.1e} of what balances in it (limit {limit:.0e}). Let the solver converge further; the derivative "
        "is as wrong as the point."
    )


def weakly_active(title: str, names: list[str]) -> str:
    """Tight rows without a multiplier."""
    return (
        f"{title}: {', '.join(names[:4])} is weakly active: tight, with a multiplier of zero. The solution map has a "
        "kink here; the derivative returned is that of the side on which the constraint is inactive. "
        "If the unknowns are that small by their unit, state them in a larger one."
    )
