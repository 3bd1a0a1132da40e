"""cvxift differentiates the solutions of CVXPY problems by the implicit function theorem, and says where it applies."""

from typing import TYPE_CHECKING, Any

from cvxift.errors import ApplicabilityError, ApplicabilityWarning, CvxiftError, ProgramError, SolveError
from cvxift.kkt.policy import Iterative, Policy
from cvxift.layers.sensitivity import Sensitivity, differentiate

if TYPE_CHECKING:
    from cvxift.diagnostics import BatchReport, Report, Verdict, diagnose

__version__ = "0.1.0"

__all__ = [
    "ApplicabilityError",
    "ApplicabilityWarning",
    "BatchReport",
    "CvxiftError",
    "Iterative",
    "Policy",
    "ProgramError",
    "Report",
    "Sensitivity",
    "SolveError",
    "Verdict",
    "diagnose",
    "differentiate",
]

_DIAGNOSTICS = ("BatchReport", "Report", "Verdict", "diagnose")


def __getattr__(name: str) -> Any:
    """Load the diagnostics when one of their names is used."""
    if name in _DIAGNOSTICS:
        from cvxift import diagnostics

        return getattr(diagnostics, name)
    raise AttributeError(f"module 'cvxift' has no attribute '{name}'")
