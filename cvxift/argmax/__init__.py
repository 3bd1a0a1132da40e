"""Regularized argmax maps: as CVXPY problems (`problems`) and in closed form (`closed`)."""

from cvxift.argmax.problems import (
    birkhoff,
    box,
    budget,
    constrained_softmax,
    constrained_sparsemax,
    entmax,
    flow,
    fusedmax,
    linear_chain,
    over,
    parameter,
    permutahedron,
    softmax,
    sparsemax,
    transport,
    variable,
)

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
    "over",
    "parameter",
    "permutahedron",
    "softmax",
    "sparsemax",
    "transport",
    "variable",
]
