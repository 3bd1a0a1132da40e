"""How close to a kink a call is looked at, and told to lie on it: cases on each side, whichever way the call went."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.diagnostics.call_check import relative_margins
from cvxift.errors import ApplicabilityWarning
from cvxift.kkt.regularity.point import KINK
from cvxift.layers.core import LayerCore

FAR, NEAR, ON = 1e-6, 1e-8, 1e-12  # slacks, of entries around one


def projection(closed_form: str) -> LayerCore:
    """Onto z ≥ 0 with the sum given: a closed form, or rows like any other."""
    z, theta = cp.Variable(3, name="z"), cp.Parameter(3, name="theta")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z - theta)), [cp.sum(z) == 1, z >= 0])
    return LayerCore(problem, [theta], [z], check="warn", closed_form=closed_form)


def point(slack: float) -> np.ndarray:
    """Where the last entry of z is `slack`; it is zero, with a multiplier of that size, for a negative one."""
    return np.array([0.7, 0.3, 0.0]) + np.array([0.0, -slack, slack]) * (1.0 if slack > 0 else 1.5)


@pytest.mark.parametrize("closed_form", ["auto", "never"])
@pytest.mark.parametrize("side", [1.0, -1.0], ids=["a slack", "a multiplier"])
def test_calls_near_a_kink_are_looked_at_and_those_on_it_told(closed_form: str, side: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        core = projection(closed_form)
        for slack, looked_at in ((FAR, 0), (NEAR, 1)):  # near it, the solution is accurate enough to know its side
            core.solve([point(side * slack)], None, False)
            assert (relative_margins(core._warm)[0] <= KINK) == looked_at
            assert core.last_report.weak == (looked_at if closed_form == "auto" else 0)
            assert cvxift.diagnose(core, point(side * slack)).verdict is cvxift.Verdict.APPLIES
    core = projection(closed_form)
    with pytest.warns(ApplicabilityWarning, match="weakly active"):
        core.solve([point(side * ON)], None, False)
    assert core.last_report.weak == 1
    assert cvxift.diagnose(core, point(side * ON)).verdict is cvxift.Verdict.ONE_SIDED
