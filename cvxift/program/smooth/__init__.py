"""Smooth programs: CVXPY's nonlinear problems as exact sparse derivatives in variables and parameters together."""

from cvxift.program.smooth.linearized import LinearizedData, LocalProgram, Request
from cvxift.program.smooth.program import SmoothProgram

__all__ = ["LinearizedData", "LocalProgram", "Request", "SmoothProgram"]
