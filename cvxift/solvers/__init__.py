"""Solvers: from numbers (P, q, A, b) on a structure to a point (x, s, y). One file a solver, one table that chooses."""

from cvxift.solvers.base import Raw, Session, Solver, Status
from cvxift.solvers.batch import Pool
from cvxift.solvers.table import choose, get, names, quick, register

__all__ = ["Pool", "Raw", "Session", "Solver", "Status", "choose", "get", "names", "quick", "register"]
