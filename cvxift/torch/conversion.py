"""Layers of the cvxpylayers package as layers of this one."""

from __future__ import annotations

from typing import Any

import cvxpy as cp

from cvxift.errors import ProgramError
from cvxift.torch.layer import CvxpyLayer


def from_cvxpylayers(layer: Any, **options: Any) -> CvxpyLayer:
    """A layer of the same problem, parameters, variables and options as one of `cvxpylayers.torch`.

    The solver is carried over if it was named; diffcp, which is cvxpylayers' default, leaves the choice to cvxift.

    Args:
        layer: a ``cvxpylayers.torch.CvxpyLayer``, or one of ``cvxpylayers.jax``.
        **options: arguments of `CvxpyLayer` to set or replace, such as ``check="raise"``.

    Returns:
        The layer; it does not share anything with the given one but the CVXPY problem.

    Raises:
        ProgramError: it is no layer of cvxpylayers, or one of before version 1.0; or as for `CvxpyLayer`.

    Example:
        >>> import cvxpy as cp, torch
        >>> from cvxpylayers.torch import CvxpyLayer as Theirs  # doctest: +SKIP
        >>> x, t = cp.Variable(2), cp.Parameter(2)
        >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0])
        >>> layer = from_cvxpylayers(Theirs(problem, [t], [x]))  # doctest: +SKIP
        >>> layer(torch.tensor([1.0, -1.0]))  # doctest: +SKIP
        (tensor([1., 0.]),)
    """
    context = getattr(layer, "ctx", None)
    problem = getattr(context, "problem", None)
    if context is None or not isinstance(problem, cp.Problem):
        raise ProgramError(
            f"Expected a layer of cvxpylayers 1.0 or newer, which knows its problem; got {type(layer).__name__}. Build "
            "a cvxift.torch.CvxpyLayer from the problem, its parameters and variables."
        )
    known = {"gp": context.gp, "solver": _solver(context.solver)}
    args = getattr(context.solver_ctx, "options", None)
    if args:
        known["solver_args"] = dict(args)
    return CvxpyLayer(problem, context.parameters, context.variables, **{**known, **options})


def _solver(solver: Any) -> str | None:
    """A solver's name as it was given; None for an object, which has no counterpart here."""
    return solver if isinstance(solver, str) else None
