"""From a CVXPY problem to its parametrized canonical program, and back to the user's names."""

from cvxift.program.structure import Data, Structure

__all__ = ["Data", "Structure"]
