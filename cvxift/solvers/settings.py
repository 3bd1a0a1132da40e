"""Settings of solvers' libraries: which options there are, those that are refused, and how values are written."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from cvxift._types import Floats
from cvxift.errors import ProgramError


def optional(package: str) -> Any:
    """A solver's package, or None where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        return None


def writable(*arrays: Floats) -> tuple[Floats, ...]:
    """The arrays, those that are read-only copied: some libraries map what they are given as mutable.

    What does not depend on the parameters comes as a read-only view of the program's constants.
    """
    return tuple(values if values.flags.writeable else values.copy() for values in arrays)


def check_options(solver: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that a solver does not know.

    Args:
        solver: the solver's name, for the message.
        given: the names the user gave.
        known: the names the solver accepts.

    Raises:
        ProgramError: names an unknown option, the closest known one, and lists all.

    Example:
        >>> check_options("scs", ["max_iters"], ["max_iters", "eps_abs"])
    """
    known = sorted(known)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise ProgramError(f"Solver '{solver}' has no option '{name}'.{hint} It accepts: {', '.join(known)}.")


def read_settings(settings: Any) -> dict[str, Any]:
    """The options of a solver that keeps them as attributes of a settings object, with the values they have there."""
    pairs = ((name, getattr(settings, name)) for name in dir(settings) if not name.startswith("_"))
    return {name: value for name, value in pairs if not callable(value)}


def write_settings(solver: str, settings: Any, options: Mapping[str, Any]) -> None:
    """Set options on a settings object.

    Args:
        solver: the solver's name, for the message.
        settings: the solver's settings object.
        options: names that `read_settings` lists, and their values.

    Raises:
        ProgramError: the solver's library refuses a value; names the option.
    """
    for name, value in options.items():
        try:
            setattr(settings, name, value)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ProgramError(f"Solver '{solver}' refuses option {name}={value!r}: {error}.") from error
