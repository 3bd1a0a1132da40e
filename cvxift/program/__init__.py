"""From a CVXPY problem to its parametrized canonical program, and back to the user's names."""

from cvxift.program import write_back as _write_back  # noqa: F401  (lets solved problems be pickled)
from cvxift.program.labels import Label
from cvxift.program.program import Program
from cvxift.program.recover import Output
from cvxift.program.structure import Data, Structure

__all__ = ["Data", "Label", "Output", "Program", "Structure"]
