"""cvxift differentiates the solutions of CVXPY problems by the implicit function theorem, and says where it applies."""

from cvxift.errors import ApplicabilityError, ApplicabilityWarning, CvxiftError, ProgramError, SolveError
from cvxift.kkt.policy import Iterative, Policy
from cvxift.sensitivity import Sensitivity, differentiate

__version__ = "0.1.0"

__all__ = [
    "ApplicabilityError",
    "ApplicabilityWarning",
    "CvxiftError",
    "Iterative",
    "Policy",
    "ProgramError",
    "Sensitivity",
    "SolveError",
    "differentiate",
]
