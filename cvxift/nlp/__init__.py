"""Local solutions of nonlinear programs: solved, made accurate, differentiated by the KKT systems of `cvxift.kkt`."""

from cvxift.nlp.engine import NonlinearEngine, start_values
from cvxift.nlp.search import NO_MULTIPLIERS
from cvxift.nlp.solution_map import NonlinearMap

__all__ = ["NO_MULTIPLIERS", "NonlinearEngine", "NonlinearMap", "start_values"]
