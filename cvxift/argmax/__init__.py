"""Regularized argmax maps: as CVXPY problems (`problems`, `structured`), in closed form (the other modules)."""

from cvxift.argmax.bounded_problems import box, budget, constrained_softmax, constrained_sparsemax
from cvxift.argmax.problems import over, parameter, variable
from cvxift.argmax.simplex_problems import entmax, fusedmax, oscarmax, softmax, sparsemax
from cvxift.argmax.structured import birkhoff, flow, linear_chain, permutahedron, transport

__all__ = [
    "birkhoff",
    "box",
    "budget",
    "constrained_softmax",
    "constrained_sparsemax",
    "entmax",
    "flow",
    "fusedmax",
    "linear_chain",
    "oscarmax",
    "over",
    "parameter",
    "permutahedron",
    "softmax",
    "sparsemax",
    "transport",
    "variable",
]
