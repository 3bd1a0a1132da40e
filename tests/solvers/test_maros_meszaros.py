"""Real quadratic programs, badly scaled and often degenerate; skipped where the test set is not at hand."""

from __future__ import annotations

import numpy as np
import pytest
from maros_meszaros import FOLDER, load
from planted_programs import residuals

from cvxift.kkt.engine import Engine
from cvxift.kkt.policy import Policy
from cvxift.program.structure import Data
from cvxift.solvers import Status, choose, get

# Small ones, and those that tell solvers apart: singular P, free or fixed variables, coefficients over ten orders.
PROBLEMS = (
    "HS21", "HS35MOD", "HS52", "HS268", "HS76", "ZECEVIC2", "QAFIRO", "QADLITTL", "QRECIPE", "QPCBLEND", "DUALC1",
    "DUALC8", "DPKLO1", "PRIMALC2", "PRIMALC5", "QSHARE1B", "QBRANDY", "QE226", "QETAMACR", "QGFRDXPN", "QFORPLAN",
    "GOULDQP2", "DUAL2", "KSIP", "QSCFXM1", "YAO", "LASER", "QSHELL", "POWELL20", "LISWET9",
)  # fmt: skip
FOR_DAQP = tuple(name for name in PROBLEMS if name not in {
    "QETAMACR", "QGFRDXPN", "GOULDQP2", "QSCFXM1", "YAO", "LASER", "QSHELL", "POWELL20", "LISWET9",
})  # fmt: skip
DAQP_FAILS = {"QFORPLAN"}


def problem(name):
    if not (FOLDER / f"{name}.mat").exists():
        pytest.skip(f"no {name}.mat in {FOLDER}; set CVXIFT_MAROS_MESZAROS")
    structure, data = load(name)
    return structure, (data.P, data.q, data.A, data.b)


@pytest.mark.parametrize("name", PROBLEMS)
def test_piqp_solves_all(name):
    structure, numbers = problem(name)
    raw = get("piqp").session(structure).solve(*numbers)
    assert raw.status is Status.SOLVED
    assert max(residuals(structure, *numbers, raw)) < 1e-8
    assert raw.y[structure.cones.zero :].min(initial=0.0) >= 0.0
    assert raw.s[structure.cones.zero :].min(initial=0.0) >= 0.0


@pytest.mark.parametrize("name", FOR_DAQP)
def test_daqp_is_exact_or_says_that_it_is_not(name):
    structure, numbers = problem(name)
    raw = get("daqp").session(structure).solve(*numbers)
    if name in DAQP_FAILS:
        assert raw.status in (Status.NUMERICAL, Status.INFEASIBLE, Status.ITERATION_LIMIT)
        assert choose(structure)[0] != "daqp"
    else:
        assert raw.status is Status.SOLVED
        assert max(residuals(structure, *numbers, raw)) < 1e-7
        assert np.all((raw.s == 0.0) | (raw.y == 0.0))


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in {"POWELL20", "LISWET9", "YAO", "QSHARE1B"}])
def test_clarabel(name):
    structure, numbers = problem(name)
    raw = get("clarabel").session(structure).solve(*numbers)
    assert raw.status in (Status.SOLVED, Status.INACCURATE)
    assert max(residuals(structure, *numbers, raw)) < 1e-6


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_engine_solves_all(name):
    structure, numbers = problem(name)
    solution = Engine(structure).solve(Data(*numbers, np.float64(0.0)))
    assert solution.ok and solution.residuals.worst < (1e-7 if name == "QFORPLAN" else 1e-9)
    assert max(residuals(structure, *numbers, solution)) < (1e-6 if name == "QFORPLAN" else 1e-8)


# Besides plain ones: dependent active rows (CVXQP2_S, QPCBLEND, STADAT3), multipliers of 1e-7 (STADAT3), and a gradient
# 5e7 times the size of its right-hand side (UBH1).
@pytest.mark.parametrize(
    "name", ["HS21", "HS52", "HS76", "DUALC1", "PRIMALC5", "DPKLO1", "CVXQP2_S", "QPCBLEND", "LASER", "STADAT3", "UBH1"]
)
def test_the_gradient_is_that_of_the_solution(name, rng):
    structure, (P, q, A, b) = problem(name)
    engine = Engine(structure)
    solution = engine.solve(Data(P, q, A, b, np.float64(0.0)))
    rows = slice(structure.cones.zero, None)
    tight = solution.y[rows] > 0.0
    bar, direction = rng.standard_normal(structure.n), rng.standard_normal(structure.n) * (1.0 + np.abs(q))
    linear = solution.linearization(Policy())
    slope = float(linear.vjp(bar).q @ direction)
    assert linear.certificate is not None and linear.certificate.consistent
    # Between kinks x is affine in q, so that any step that keeps the active set gives the derivative.
    for step in 10.0 ** np.arange(-3.0, -9.0, -1.0):
        ends = []
        for h in (step, -step):
            ends.append(engine.solve(Data(P, q + h * direction, A, b, np.float64(0.0))))
            if not np.array_equal(ends[-1].y[rows] > 0.0, tight):
                break
        else:
            break
    else:
        pytest.fail("no step keeps the active set")
    quotient = float(bar @ (ends[0].x - ends[1].x)) / (2.0 * step)
    assert slope == pytest.approx(quotient, rel=1e-5)
