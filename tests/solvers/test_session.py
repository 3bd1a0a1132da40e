"""What a session is handed: arrays that must not be written to, because they are views of a program's constants."""

from __future__ import annotations

import numpy as np
import pytest

from cvxift import solvers
from cvxift.cones import Cones
from cvxift.program.structure import Structure


@pytest.mark.parametrize("size", [3, 400])  # PIQP's dense and sparse backends
@pytest.mark.parametrize("name", ["daqp", "piqp", "clarabel", "osqp", "scs", "moreau"])
def test_read_only_data_are_solved_and_left_alone(name, size):
    rows = np.arange(size)
    structure = Structure.from_patterns(size, Cones(nonneg=size), P=(rows, rows), A=(rows, rows))
    solver = solvers.get(name)
    if solver.supports(structure) is not None:
        pytest.skip(solver.supports(structure))
    data = [np.ones(size), -2.0 * np.ones(size), np.ones(size), np.ones(size)]
    for values in data:
        values.flags.writeable = False
    session = solver.session(structure)
    for _ in range(2):  # the first call sets up, the second updates
        raw = session.solve(*data)
        np.testing.assert_allclose(raw.x, 1.0, atol=1e-4)
        np.testing.assert_allclose(raw.y, 1.0, atol=1e-4)


def test_daqp_takes_a_read_only_cost_without_rows():
    structure = Structure.from_patterns(2, Cones(), P=(np.arange(2), np.arange(2)), A=(np.arange(0), np.arange(0)))
    q = np.ones(2)
    q.flags.writeable = False
    raw = solvers.get("daqp").session(structure).solve(np.ones(2), q, np.zeros(0), np.zeros(0))
    np.testing.assert_allclose(raw.x, -1.0)
