"""Nonlinear programs of thousands of columns: sparse all the way, curvature judged, products quick."""

from __future__ import annotations

import tracemalloc

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.kkt import convexity
from cvxift.kkt.system.sparse_factor import SparseFactor
from cvxift.nlp import NonlinearEngine, start_values
from cvxift.program.smooth import SmoothProgram, interface

pytest.importorskip("unopy")
pytest.importorskip("cvxpy", minversion="1.9")


def pendulum(steps: int, h: float = 0.05):
    """A pendulum that follows a reference by a bounded torque."""
    x, u = cp.Variable((2, steps + 1), name="x"), cp.Variable(steps, name="u", bounds=[-0.5, 0.5])
    start, w = cp.Parameter(2, name="start", value=[1.0, 0.0]), cp.Parameter(pos=True, name="w", value=0.1)
    reference = 0.3 * np.sin(0.02 * np.arange(steps + 1))
    dynamics = [
        x[:, 0] == start,
        x[0, 1:] == x[0, :-1] + h * x[1, :-1],
        x[1, 1:] == x[1, :-1] + h * (u - cp.nlp.sin(x[0, :-1])),
    ]
    cost = cp.sum_squares(x[0] - reference) + 0.01 * cp.sum_squares(x[1]) + w * cp.sum_squares(u)
    return cp.Problem(cp.Minimize(cost), dynamics), x, u, w


def test_a_product_through_a_control_problem_takes_one_factorization(monkeypatch) -> None:
    problem, x, u, w = pendulum(800)
    s = cvxift.differentiate(problem, nlp=True)
    assert not s.solution.instance.dense and s.residuals.worst < 1e-10
    bar = np.random.default_rng(0).standard_normal(x.shape)
    made, factor = [], SparseFactor.__init__
    with monkeypatch.context() as patch:
        patch.setattr(SparseFactor, "__init__", lambda *args: made.append(args) or factor(*args))
        gradient = s.vjp({x: bar})
    assert len(made) <= 1
    local, theta = s.program, s._theta
    read, e = local.output(x), np.zeros(len(theta))
    e[local.offsets[w]] = 1e-4

    def at(moved: np.ndarray) -> float:
        solution = s.solution.engine.solve(local.evaluate(moved))
        assert solution.ok
        return float(np.sum(bar * read.value(solution.x)))

    assert gradient[w] == pytest.approx((at(theta + e) - at(theta - e)) / 2e-4, rel=1e-6)
    assert float(np.sum(bar * s.jvp({w: 1.0})[x])) == pytest.approx(gradient[w], rel=1e-9)
    tight = np.abs(np.abs(s.value(u)) - 0.5) < 1e-9
    assert tight.any() and not tight.all()
    assert s.solution.instance.structure.n > convexity.DENSE_NULL_SPACE
    (curvature,) = [check for check in s.report.checks if check.name == "reduced Hessian"]
    assert curvature.passed and curvature.value == 0.0


def test_memory_is_linear_in_the_number_of_steps() -> None:
    peaks = []
    for steps in (200, 400, 1600):
        tracemalloc.start()
        s = cvxift.differentiate(pendulum(steps)[0], nlp=True)
        s.vjp({s.problem.variables()[0]: np.ones(s.problem.variables()[0].shape)})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 2.0 * 6.0 * (peaks[1] - peaks[0])  # six times as many further steps


def test_a_saddle_of_many_columns_is_seen_without_its_inertia(monkeypatch) -> None:
    """A pivot of zero ends the factorization; Lanczos steps look for negative curvature all the same."""

    def zero_pivot(*_: object) -> None:
        raise RuntimeError("a pivot is zero")

    monkeypatch.setattr(convexity, "SparseFactor", zero_pivot)
    x, p = cp.Variable(convexity.DENSE_NULL_SPACE + 100, name="x"), cp.Parameter(name="p", value=1.0)
    x.value = np.zeros(x.shape)
    problem = cp.Problem(cp.Minimize(cp.sum(cp.square(cp.square(x) - p))), [x[0] + x[1] == 0])
    program = SmoothProgram(problem)
    held = NonlinearEngine(program, start_values(problem)).held(program.pack({p: 1.0}), start_values(problem))
    assert not held.ok and held.descent is not None


def test_a_saddle_of_many_columns_is_seen_and_left() -> None:
    n = convexity.DENSE_NULL_SPACE + 100
    x, p = cp.Variable(n, name="x"), cp.Parameter(name="p", value=1.0)
    energy = cp.sum(cp.square(cp.square(x) - p)) + cp.sum_squares(x[1:] - x[:-1])
    problem = cp.Problem(cp.Minimize(energy), [x[0] + x[1] == 0])
    x.value = np.zeros(n)
    program = SmoothProgram(problem)
    engine = NonlinearEngine(program, start_values(problem))
    held = engine.held(program.pack({p: 1.0}), start_values(problem))
    assert not held.ok and held.descent is not None
    assert float(energy.value) > float(_at(energy, x, 0.1 * held.descent[:n]))
    s = cvxift.differentiate(problem, nlp=True)
    assert float(s.value(problem.objective)) < 0.9 * n
    moved = s.jvp({p: 1.0})[x]
    assert np.median(np.abs(moved)) == pytest.approx(0.5, abs=1e-6)  # x = ±√p far from the constraint and from walls


def _at(expression: cp.Expression, x: cp.Variable, value: np.ndarray) -> float:
    x.value = value
    out = float(expression.value)
    x.value = np.zeros(x.shape)
    return out


@pytest.mark.parametrize(("steps", "preset"), [(50, None), (800, "ipopt")])
def test_uno_is_called_with_what_suits_the_size(monkeypatch, steps: int, preset: str | None) -> None:
    seen, solve = [], interface.solve

    def recorded(program, p, x, solver, options, verbose=False):
        seen.append(options.get("preset"))
        return solve(program, p, x, solver, options, verbose)

    monkeypatch.setattr(interface, "solve", recorded)
    cvxift.differentiate(pendulum(steps)[0], nlp=True)
    assert seen == [preset]
