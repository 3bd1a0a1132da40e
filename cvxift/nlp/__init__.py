"""Local solutions of nonlinear programs: solved, made accurate, differentiated by the KKT systems of `cvxift.kkt`."""

from cvxift.nlp.engine import NonlinearEngine, start_values
from cvxift.nlp.solution_map import NonlinearMap

__all__ = ["NonlinearEngine", "NonlinearMap", "start_values"]
