"""The solver and the options that code written for cvxpylayers gives, as cvxift's.

cvxpylayers' default solver is diffcp, which solves by SCS, or by the solver that ``solve_method`` names, and takes
options of its own beside that solver's. Options that have a meaning here are passed to the solver they were written
for; those that say how diffcp differentiates, or on how many threads, have none: they are ignored, and a warning says
so once.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from cvxift import solvers
from cvxift.errors import ProgramError, warn_user
from cvxift.program.structure import Structure
from cvxift.solvers.settings import check_options

METHODS = {"SCS": "scs", "CLARABEL": "clarabel", "ECOS": "clarabel"}
"""``solve_method`` -> the solver here; Clarabel takes the place of ECOS, an interior-point method as well."""

IGNORED = {
    "n_jobs_forward": "a batch is solved on the threads that cvxift chooses",
    "n_jobs_backward": "a batch is differentiated in one call",
    "mode": "cvxift chooses how to solve the linear systems; see linear_solver",
    "derivative_kwargs": "they are those of diffcp's approximate derivatives",
    "raise_on_error": 'failures are handled as on_failure="raise" or "nan" says',
    "warm_starts": "pass warm_start=True to the call",
}
"""Options of diffcp that have no meaning here, and why."""

_FROM_ECOS = {
    "abstol": "tol_gap_abs",
    "reltol": "tol_gap_rel",
    "feastol": "tol_feas",
    "max_iters": "max_iter",
    "verbose": "verbose",
}
_told: set[str] = set()


def solver_and_options(
    solver: Any, args: Mapping[str, Any], candidates: Sequence[str], structure: Structure
) -> tuple[str | None, dict[str, Any]]:
    """The solver to try first and its options.

    Args:
        solver: a solver's name; None or ``"DIFFCP"``, cvxpylayers' default, leaves the choice to the options.
        args: options; of cvxpylayers' own, ``solve_method`` names a solver, ``eps`` is SCS' older name of both of its
            tolerances, and those in `IGNORED` are ignored.
        candidates: the solvers that cvxift would try for the problem, best first.
        structure: the problem's.

    Returns:
        The solver's name (None: no preference) and its options.

    Raises:
        ProgramError: `solver` is no name, ``solve_method`` is unknown, or no solver accepts the options together.
    """
    name, rest = named_solver(solver), dict(args)
    known = solvers.get(name).options if name else {}
    for option in [option for option in rest if option in IGNORED and option not in known]:
        _tell(option, f"solver_args['{option}'] is ignored: {IGNORED[option]}.")
        del rest[option]
    method = rest.pop("solve_method").upper() if name is None and isinstance(rest.get("solve_method"), str) else None
    if method is not None:
        if method not in METHODS:
            raise ProgramError(
                f"solve_method={args['solve_method']!r} is not known; choose one of {', '.join(METHODS)}, or name a "
                "solver with solver=."
            )
        name = METHODS[method]
        if method == "ECOS":
            _tell("ECOS", "solve_method='ECOS': Clarabel, an interior-point method as well, takes its place.")
            rest = {_FROM_ECOS.get(option, option): value for option, value in rest.items()}
    if name == "moreau":
        rest = _of_moreau(rest)
    if name in (None, "scs") and "eps" in rest:
        name = "scs"
        eps = rest.pop("eps")
        rest = {"eps_abs": eps, "eps_rel": eps, **rest}
    if name == "scs" and named_solver(solver) is None and not structure.m:
        check_options("scs", rest, solvers.get("scs").options)
        return None, {}  # SCS needs a row; what it was told is of no use to the solver that needs none
    if name is None and rest:
        free = [*candidates, *(["scs"] if "scs" not in candidates else [])]
        name = accepting(free, rest)
        if name not in candidates and solvers.get(name).supports(structure) is not None:
            return None, {}
    return name, rest


def named_solver(solver: Any) -> str | None:
    """The solver's name; None for None and cvxpylayers' default.

    Raises:
        ProgramError: it is no name.
    """
    if solver is not None and not isinstance(solver, str):
        raise ProgramError(
            f"solver must be a name or None; got {type(solver).__name__}. Add your own with cvxift.solvers.register."
        )
    return None if solver is None or solver.upper() == "DIFFCP" else solver.lower()


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
    close = [
        f"'{option}' ({name})"
        for name, options in known.items()
        for option in difflib.get_close_matches(unknown[0], options, n=1)
    ]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    first, *others = candidates
    rest = f" Those of {', '.join(others)}: cvxift.solvers.get(name).options." if others else ""
    raise ProgramError(
        f"No solver for this problem accepts solver_args {unknown} together.{hint} Options of {first}: "
        f"{', '.join(known[first])}.{rest}"
    )


def _of_moreau(args: dict[str, Any]) -> dict[str, Any]:
    """Moreau's options by their plain names.

    Those of its nested ``ipm_settings`` (a dict, or Moreau's own object) stand beside the others. Code for cvxpylayers
    also writes ``max_iters``, and one ``tol`` for all three tolerances, which are no fields of Moreau's settings.
    """
    nested = args.pop("ipm_settings", None) or {}
    fields = nested if isinstance(nested, Mapping) else nested.model_dump(exclude_unset=True)
    if "max_iters" in args:
        args = {"max_iter": args.pop("max_iters"), **args}
    if "tol" in args:
        tol = args.pop("tol")
        args = {"tol_gap_abs": tol, "tol_gap_rel": tol, "tol_feas": tol, **args}
    return {**args, **fields}


def _tell(cause: str, message: str) -> None:
    """Warn once in the life of the process."""
    if cause not in _told:
        _told.add(cause)
        warn_user(message, UserWarning)
