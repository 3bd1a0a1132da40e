"""The errors cvxift raises on purpose: what is wrong, where in the user's problem, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
        solutions: the outputs of the whole batch, NaN in the failed instances, so that good ones are not lost.
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
