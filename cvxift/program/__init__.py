"""From a CVXPY problem to its parametrized canonical program, and back to the user's names."""

from cvxift.program import copies as _copies  # noqa: F401  (lets problems be pickled that were solved before)
from cvxift.program.labels import Label
from cvxift.program.program import Program
from cvxift.program.recover import Output
from cvxift.program.structure import Data, Structure

__all__ = ["Data", "Label", "Output", "Program", "Structure"]
