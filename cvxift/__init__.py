"""cvxift differentiates the solutions of CVXPY problems by the implicit function theorem, and says where it applies."""

import importlib
from typing import TYPE_CHECKING, Any

from cvxift.errors import ApplicabilityError, ApplicabilityWarning, CvxiftError, ProgramError, SolveError
from cvxift.kkt.policy import Iterative, Policy
from cvxift.layers.differentiate import differentiate
from cvxift.layers.sensitivity import Sensitivity

if TYPE_CHECKING:
    from cvxift.diagnostics import BatchReport, Report, Verdict, diagnose
    from cvxift.layers.sweeps.results import Sweep
    from cvxift.layers.sweeps.sweep import sweep

__version__ = "0.2.0.dev0"

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
    "Sweep",
    "Verdict",
    "diagnose",
    "differentiate",
    "sweep",
]

_LATER = {
    **dict.fromkeys(("BatchReport", "Report", "Verdict", "diagnose"), "cvxift.diagnostics"),
    "Sweep": "cvxift.layers.sweeps.results",
    "sweep": "cvxift.layers.sweeps.sweep",
}


def __getattr__(name: str) -> Any:
    """Load the diagnostics and sweeps when one of their names is used."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'cvxift' has no attribute '{name}'")


def __dir__() -> list[str]:
    """What the module holds, and the names that are loaded later."""
    return sorted({*globals(), *__all__})
