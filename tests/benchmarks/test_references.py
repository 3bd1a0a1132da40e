"""The references are right: against difference quotients, mpmath and points where the answer is planted."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.sparse as sp

from .bare import ready_clarabel, ready_daqp, ready_piqp
from .cases.argmax import SimplexProjection, Softmax, Sparsemax
from .cases.cones import BallRegression, ConeProgram, MaxCut, NearestCorrelation
from .cases.qp import DenseQP, LinearProgram, Portfolio, RandomFlow
from .cases.signal import TallLasso, TotalVariation
from .model import QP, Case, ReferenceFailed
from .references import closed
from .references.qp import LinearSystem, certified, residuals

SMALL = [
    DenseQP(None, 6, 8, 2),
    LinearProgram(n=8, inequalities=15, equalities=3),
    Portfolio(assets=15, factors=3),
    Softmax(n=7),
    Sparsemax(n=9),
    SimplexProjection(n=12),
    SimplexProjection(n=12, spread=True),
    TotalVariation(n=100),
    TallLasso(rows=60),
    RandomFlow(arcs=60),
    BallRegression(rows=12, n=5),
    ConeProgram(n=10, cones=5),
    NearestCorrelation(n=6),
    MaxCut(n=6),
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_gradients_match_difference_quotients(case: Case) -> None:
    """Central differences of the re-solved reference along random directions of each parameter."""
    values, dz = case.values(0), case.cotangent(0)
    reference = case.solve(values, dz)
    assert reference.regular, reference.note
    rng = np.random.default_rng(5)
    step = 1e-5
    for i, gradient in enumerate(reference.gradients):
        direction = rng.standard_normal(values[i].shape)
        ends = []
        for sign in (1, -1):
            moved = [*values[:i], values[i] + sign * step * direction, *values[i + 1 :]]
            ends.append(float(np.sum(dz * case.solve(tuple(moved), dz).x)))
        quotient = (ends[0] - ends[1]) / (2 * step)
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction) + np.abs(ends[0]) * 1e-3
        assert quotient == pytest.approx(float(np.sum(gradient * direction)), abs=3e-6 * scale)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_solution_is_that_of_the_problem(case: Case) -> None:
    """CVXPY's own solution of the formulation, in both ways of writing bounds, is the reference's x."""
    values = case.values(1)
    expected = case.solve(values, case.cotangent(1)).x
    for bounds_as_rows in (False, True):
        formulation = case.formulate(bounds_as_rows)
        assert formulation.problem.is_dpp()
        for parameter, value in zip(formulation.parameters, values, strict=True):
            parameter.value = value
        formulation.problem.solve(solver="CLARABEL")
        np.testing.assert_allclose(formulation.variable.value, expected, atol=2e-4)


DENSE, SPARSE = DenseQP(None, 6, 8, 2), Portfolio(assets=15, factors=3)
PAIRS = [(solver, case) for solver in (ready_daqp, ready_piqp, ready_clarabel) for case in (DENSE, SPARSE)]
PAIRS += [(solver, TotalVariation(n=50)) for solver in (ready_piqp, ready_clarabel)]  # P is singular: not for DAQP


@pytest.mark.parametrize(("solver", "case"), PAIRS, ids=lambda value: getattr(value, "name", value.__class__.__name__))
def test_bare_solvers_return_a_primal_dual_pair(solver, case: Case) -> None:
    """Signs of the multipliers are as stated, bounds handed over as bounds included."""
    qp = case.qp(case.values(0))
    assert qp is not None
    assert max(residuals(qp, *solver(qp)())) < 1e-6


def test_residuals_see_a_wrong_point() -> None:
    """A moved x, a moved multiplier and a multiplier on a missing bound all count."""
    qp = DenseQP(None, 6, 8, 2).qp(DenseQP(None, 6, 8, 2).values(0))
    point = certified(qp)
    assert max(residuals(qp, point.x, point.y)) < 1e-13
    assert max(residuals(qp, point.x + 1e-3, point.y)) > 1e-5
    y = point.y.copy()
    y[np.isinf(qp.l)] = -1.0
    assert residuals(qp, point.x, y)[2] == np.inf


def test_degenerate_and_singular_points_are_not_certified_as_regular() -> None:
    """min ½x² with x ≥ 0 has its multiplier and its slack zero; duplicate active rows make K singular."""
    one, eye = np.ones(1), sp.csc_array(sp.eye_array(1))
    weak = certified(QP(eye, 0 * one, eye, 0 * one, np.inf * one))
    assert abs(weak.margin) < 1e-9
    twice = sp.csc_array(np.ones((2, 1)))
    with pytest.raises(ReferenceFailed, match="singular"):
        certified(QP(eye, one, twice, np.zeros(2), np.full(2, np.inf)))


def test_refined_solve_beats_double_precision() -> None:
    """On a Hilbert matrix (condition 1e10) the error is that of extended precision, not that of double."""
    n = 8
    hilbert = 1 / (np.arange(n)[:, None] + np.arange(n)[None, :] + 1)
    rhs = np.arange(1.0, n + 1)
    with mpmath.workdps(60):
        exact = mpmath.lu_solve(mpmath.matrix(hilbert.tolist()), mpmath.matrix(rhs.tolist()))
        exact = np.array([float(v) for v in exact])
    found = LinearSystem(sp.csr_array(hilbert)).solve(rhs).astype(float)
    np.testing.assert_allclose(found, exact, rtol=1e-9)
    assert np.linalg.norm(found - exact) < 1e-2 * np.linalg.norm(np.linalg.solve(hilbert, rhs) - exact)
    assert LinearSystem(sp.csr_array(hilbert)).condition() > 1e6


def test_softmax_against_mpmath() -> None:
    """Large spread of θ, where naive exponentials overflow."""
    theta, dz = np.array([1000.0, 999.0, 0.0, -1000.0]), np.array([1.0, -2.0, 3.0, 4.0])
    with mpmath.workdps(50):
        weights = [mpmath.exp(t - 1000) for t in theta]
        z = [w / sum(weights) for w in weights]
        mean = sum(a * b for a, b in zip(z, dz, strict=True))
        gradient = [float(a * (b - mean)) for a, b in zip(z, dz, strict=True)]
    found = closed.softmax(theta, dz)
    np.testing.assert_allclose(found[0], [float(v) for v in z], rtol=1e-15)
    np.testing.assert_allclose(found[1], gradient, rtol=1e-14)


def test_total_variation_corrects_a_bad_guess() -> None:
    """From any guess, wrong jumps and all, the same certified solution."""
    case = TotalVariation(n=100)
    theta, weight = case.values(0)
    dz = case.cotangent(0)
    expected = case.solve((theta, weight), dz)
    for guess in (np.zeros(100), theta, -theta):
        x, gradient, _, _ = closed.total_variation(theta, float(weight), guess, dz)
        np.testing.assert_allclose(x, expected.x, atol=1e-12)
        np.testing.assert_allclose(gradient, expected.gradients[0], atol=1e-12)
    assert closed.total_variation(theta, 1e6, theta, dz)[0] == pytest.approx(np.full(100, theta.mean()))
