"""Why a linear solve ended, as numbers that fit into arrays, and as words."""

from __future__ import annotations

RUNNING = 0
CONVERGED = 1
LIMIT = 2
INDEFINITE = 3
BREAKDOWN = 4
DIVERGED = 5
SINGULAR = 6
APPROXIMATE = 7
LEAST_SQUARES = 8
ASYMMETRIC = 9

WORDS = {
    CONVERGED: "solved to the tolerance",
    LIMIT: "iteration limit",
    INDEFINITE: "a direction of negative or no curvature: the Jacobian is not positive definite",
    BREAKDOWN: "stagnation or breakdown of the recurrence",
    DIVERGED: "the series diverges",
    SINGULAR: "the Jacobian is singular to working precision",
    APPROXIMATE: "approximation by design",
    LEAST_SQUARES: "least-squares solution: no exact one exists",
    ASYMMETRIC: "the Jacobian is not symmetric",
}
