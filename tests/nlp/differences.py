"""Finite differences of tightly solved nonlinear programs."""

from __future__ import annotations

import numpy as np

import cvxift

RELATIVE = 1e-6


def differences(s: cvxift.Sensitivity, output, parameter, step: float = 1e-4) -> np.ndarray:
    """Central differences of the solutions at neighbouring parameters, extrapolated (Richardson)."""
    local, engine, theta = s.program, s.solution.engine, s._theta
    read = s.program.output(output)

    def at(moved: np.ndarray) -> np.ndarray:
        solution = engine.solve(local.evaluate(moved))
        assert solution.ok and solution.residuals.worst < 1e-11, solution.describe()
        return read.value(solution.x if read.kind == "primal" else solution.y).ravel()

    columns = []
    for k in range(*local.offsets[parameter].indices(len(theta))):
        e = step * max(1.0, abs(theta[k])) * np.eye(len(theta))[k]
        wide, close = (at(theta + t * e) - at(theta - t * e) for t in (1.0, 0.5))
        columns.append((8.0 * close - wide) / (6.0 * e[k]))
    return np.stack(columns, axis=-1).reshape(*output.shape, *parameter.shape)


def assert_close(found: np.ndarray, expected: np.ndarray, relative: float = RELATIVE) -> None:
    size = max(1e-3, float(np.abs(expected).max(initial=0.0)))
    assert np.abs(found - expected).max(initial=0.0) <= relative * size
