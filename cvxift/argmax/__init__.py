"""Regularized argmax maps: as CVXPY problems (`problems`, `structured`) and in closed form (the other modules)."""

from cvxift.argmax.problems import (
    box,
    budget,
    constrained_softmax,
    constrained_sparsemax,
    entmax,
    fusedmax,
    oscarmax,
    over,
    parameter,
    softmax,
    sparsemax,
    variable,
)
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
