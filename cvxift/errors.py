"""The errors cvxift raises on purpose: what is wrong, where in the user's problem, what to do."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any

_WITHIN = ("cvxift", "torch", "jax")  # packages whose frames are not the user's


class CvxiftError(Exception):
    """Base class of every error that cvxift raises on purpose."""


class ProgramError(CvxiftError, ValueError):
    """The problem or its inputs cannot be used: not DPP, unknown parameter or variable, wrong shape or value."""


class SolveError(CvxiftError, RuntimeError):
    """No solver returned a point that satisfies the optimality conditions.

    Args:
        message: what happened and what to do.
        status: the solver's last status, such as ``"infeasible"``.
        failures: batch index -> (status, residuals) for each instance that failed; the key is ``()`` when unbatched.
        solutions: of a layer, what the call would have returned, as NumPy arrays: NaN in the failed instances, so that
            good ones are not lost.
    """

    def __init__(
        self,
        message: str,
        *,
        status: str = "failed",
        failures: Mapping[tuple[int, ...], tuple[str, Mapping[str, float]]] | None = None,
        solutions: Any = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.failures = dict(failures or {})
        self.solutions = solutions


class ApplicabilityError(CvxiftError, ArithmeticError):
    """The implicit function theorem does not apply at the point: which condition fails, where and how far."""


class ApplicabilityWarning(UserWarning):
    """A derivative was computed where a condition of the implicit function theorem fails, or nearly does."""


def warn_user(message: str, category: type[Warning] = ApplicabilityWarning) -> None:
    """Warn where the user's code called, and not where the package or a framework noticed.

    Args:
        message: what is said.
        category: of the warning.
    """
    frame, level = sys._getframe(1), 2
    # Code that torch.compile generates has no module name, and is no user's either.
    while frame is not None and frame.f_globals.get("__name__", _WITHIN[0]).split(".")[0] in _WITHIN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
