"""Problems with known truth: name -> (problem, verdict, why). The truth is from theory, never from a run.

Every builder returns a fresh problem with its parameters set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cvxpy as cp
import numpy as np

APPLIES, PRIMAL, SIDED, NOT, UNSOLVED = (
    "applies",
    "applies to the primal only",
    "one-sided",
    "does not apply",
    "point not optimal",
)


class Case(NamedTuple):
    """A labelled problem: its builder, the true verdict, the reason, and whether it is a geometric program."""

    build: Callable[[], cp.Problem]
    verdict: str
    why: str
    gp: bool = False


CASES: dict[str, Case] = {}


def case(verdict: str, why: str, gp: bool = False):
    """Register a builder."""

    def register(build: Callable[[], cp.Problem]) -> Callable[[], cp.Problem]:
        CASES[build.__name__] = Case(build, verdict, why, gp)
        return build

    return register


def param(value, name="theta", **attributes) -> cp.Parameter:
    value = np.asarray(value, dtype=float)
    return cp.Parameter(value.shape, name=name, value=value, **attributes)


def var(shape=(), name="x", **attributes) -> cp.Variable:
    return cp.Variable(shape, name=name, **attributes)


def project(target, constraints) -> cp.Problem:
    """Projection of a parameter onto {constraints(x)}."""
    x, theta = var(np.shape(target)), param(target)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), constraints(x))


# Linear programs --------------------------------------------------------------------------------------------------


def lp(cost) -> cp.Problem:
    x, c = var(len(cost)), param(cost, "c")
    return cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == 1, x >= 0])


@case(APPLIES, "a nondegenerate vertex, unique")
def lp_unique():
    return lp([1.0, 2.0, 3.0])


@case(NOT, "two vertices tie, so a whole edge is optimal")
def lp_tie():
    return lp([1.0, 1.0, 3.0])


@case(NOT, "all costs equal: the whole simplex is optimal")
def lp_all_tie():
    return lp([1.0, 1.0, 1.0])


@case(SIDED, "three lines meet in the vertex and θ moves one of them")
def lp_degenerate_vertex_moving():
    x, t = var(2), param(0.0)
    return cp.Problem(cp.Minimize(x[0] + 2 * x[1]), [x >= 0, x[0] + x[1] >= t])


@case(PRIMAL, "three lines meet in the vertex, but θ is in the cost alone and inside the normal cone")
def lp_degenerate_vertex_cost():
    x, c = var(2), param([1.0, 1.5], "c")
    return cp.Problem(cp.Minimize(c @ x), [x >= 0, x[0] + 2 * x[1] >= 0])


@case(NOT, "zero cost: every feasible point is optimal")
def lp_zero_cost():
    return lp([0.0, 0.0])


@case(APPLIES, "basis pursuit with a unique nondegenerate solution")
def basis_pursuit_unique():
    x, b = var(3), param([1.0, -2.0], "b")
    A = np.array([[1.0, 0.2, 0.3], [0.1, 1.0, -0.4]])
    return cp.Problem(cp.Minimize(cp.norm1(x)), [A @ x == b])


@case(NOT, "basis pursuit with two equal columns: their weights are free")
def basis_pursuit_tie():
    x, b = var(3), param([1.0, 2.0], "b")
    A = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return cp.Problem(cp.Minimize(cp.norm1(x)), [A @ x == b])


# Quadratic programs and sparsemax ---------------------------------------------------------------------------------


def simplex(target) -> cp.Problem:
    return project(target, lambda x: [cp.sum(x) == 1, x >= 0])


@case(APPLIES, "sparsemax inside a piece")
def sparsemax_inside():
    return simplex([0.5, 0.4, -1.0])


@case(SIDED, "sparsemax where one entry just vanishes: τ = 0 and θ₂ = 0")
def sparsemax_kink():
    return simplex([0.5, 0.5, 0.0])


@case(APPLIES, "sparsemax of tied scores is smooth: all three stay positive")
def sparsemax_tied():
    return simplex([0.3, 0.3, 0.3])


@case(SIDED, "sparsemax at a vertex with the runner-up exactly at the threshold: θ₁ = θ₂ + 1")
def sparsemax_vertex_kink():
    return simplex([1.5, 0.5, -2.0])


@case(SIDED, "a bound that is active with multiplier zero")
def bound_weak():
    return project([0.0, 1.0], lambda x: [x >= 0])


@case(SIDED, "a variable attribute that is active with multiplier zero")
def attribute_weak():
    x, theta = var(2, nonneg=True), param([0.0, 1.0])
    return cp.Problem(cp.Minimize(cp.sum_squares(x - theta)))


@case(APPLIES, "active bounds with positive multipliers")
def bound_strict():
    return project([-1.0, 1.0], lambda x: [x >= 0])


@case(SIDED, "projection onto a box in its corner's boundary: one coordinate exactly on the bound")
def box_edge():
    return project([1.0, 3.0], lambda x: [x <= 1, x >= -1])


@case(APPLIES, "weakly active bound that equalities fix anyway: no piece differs")
def weak_but_fixed():
    x, theta = var(2), param([0.0, 1.0])
    return cp.Problem(cp.Minimize(cp.sum_squares(x[1] - theta[1])), [x[0] == 0, x[1] <= 5, theta[0] * x[0] <= 4])


@case(APPLIES, "the same equality twice acts as one")
def duplicated_equality():
    return project([0.2, 0.9], lambda x: [cp.sum(x) == 1, cp.sum(x) == 1])


@case(APPLIES, "the same active inequality twice acts as one")
def duplicated_inequality():
    return project([2.0, 2.0], lambda x: [cp.sum(x) <= 1, 2 * cp.sum(x) <= 2])


@case(PRIMAL, "an equality that is the sum of two others")
def redundant_equality():
    return project([0.2, 0.9, 0.4], lambda x: [x[0] == 1, x[1] == 2, x[0] + x[1] == 3])


@case(APPLIES, "an upper bound and a lower bound that meet act as an equality")
def fixed_by_bounds():
    return project([0.2, 0.9], lambda x: [x[0] <= 1, x[0] >= 1])


@case(SIDED, "two active inequalities that coincide, each with its own right-hand side")
def duplicated_with_own_parameters():
    x, theta = var(2), param([1.0, 1.0])
    return cp.Problem(cp.Minimize(cp.sum_squares(x - 3)), [cp.sum(x) <= theta[0], cp.sum(x) <= theta[1]])


@case(SIDED, "two equalities that must agree: θ moves them apart and the problem ends")
def equalities_torn():
    x, theta = var(2), param([1.0, 1.0])
    return cp.Problem(cp.Minimize(cp.sum_squares(x)), [cp.sum(x) == theta[0], cp.sum(x) == theta[1]])


@case(NOT, "a singular Hessian and no constraint along its null space")
def hessian_flat():
    x, theta = var(2), param(1.0)
    return cp.Problem(cp.Minimize(cp.square(x[0] + x[1] - theta)), [x <= 5, x >= -5])


@case(APPLIES, "a singular Hessian whose null space an equality fixes")
def hessian_flat_fixed():
    x, theta = var(2), param(1.0)
    return cp.Problem(cp.Minimize(cp.square(x[0] + x[1] - theta)), [x[0] - x[1] == 0.3])


@case(APPLIES, "a linear objective on a ball: the constraint alone gives curvature")
def curvature_from_ball():
    x, c = var(2), param([1.0, 2.0], "c")
    return cp.Problem(cp.Minimize(c @ x), [cp.norm(x) <= 1])


@case(NOT, "zero cost on a ball: the whole ball is optimal")
def ball_zero_cost():
    x, c = var(2), param([0.0, 0.0], "c")
    return cp.Problem(cp.Minimize(c @ x), [cp.norm(x) <= 1])


@case(NOT, "a variable that nothing looks at")
def free_variable():
    x, y, theta = var(2), var(name="y"), param([1.0, 2.0])
    return cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [y <= 1, y >= -1])


# LASSO and norms --------------------------------------------------------------------------------------------------


def lasso(target, weight=1.0) -> cp.Problem:
    x, theta = var(len(target)), param(target)
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - theta) + weight * cp.norm1(x)))


@case(APPLIES, "soft thresholding inside a piece; entries at zero are strictly so")
def lasso_inside():
    return lasso([2.0, -3.0, 0.3])


@case(SIDED, "soft thresholding at its breakpoint |θ₀| = λ")
def lasso_breakpoint():
    return lasso([1.0, -3.0, 0.3])


@case(APPLIES, "group soft thresholding outside the ball")
def group_inside():
    x, theta = var(3), param([2.0, 1.0, 2.0])
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - theta) + cp.norm(x)))


@case(APPLIES, "group soft thresholding inside the ball: x = 0, the cone strictly at its apex")
def group_zero():
    x, theta = var(3), param([0.2, 0.1, 0.2])
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - theta) + cp.norm(x)))


@case(SIDED, "group soft thresholding on the sphere ‖θ‖ = λ")
def group_breakpoint():
    x, theta = var(2), param([0.6, 0.8])
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - theta) + cp.norm(x)))


@case(SIDED, "projection onto a cone from the boundary of its polar: the apex")
def soc_apex_weak():
    x, t, theta = var(2), var(name="t"), param([1.0, 0.0, -1.0])
    objective = cp.sum_squares(x - theta[:2]) + cp.square(t - theta[2])
    return cp.Problem(cp.Minimize(objective), [cp.SOC(t, x)])


@case(APPLIES, "projection onto a cone from inside its polar: the apex, strictly")
def soc_apex_strict():
    x, t, theta = var(2), var(name="t"), param([0.3, 0.0, -1.0])
    objective = cp.sum_squares(x - theta[:2]) + cp.square(t - theta[2])
    return cp.Problem(cp.Minimize(objective), [cp.SOC(t, x)])


@case(SIDED, "projection onto a ball of a point on its sphere")
def ball_edge():
    return project([0.6, 0.8], lambda x: [cp.norm(x) <= 1])


@case(APPLIES, "projection onto a ball from outside")
def ball_outside():
    return project([1.6, 0.8], lambda x: [cp.norm(x) <= 1])


@case(APPLIES, "projection onto a ball of a point inside: the epigraph variable alone is free")
def ball_inside():
    return project([0.1, 0.2], lambda x: [cp.norm(x) <= 1])


@case(APPLIES, "slack max, abs, norm and quadratic-over-linear constraints, tied arguments included")
def slack_atoms():
    return project(
        [0.0, 0.2, 0.2], lambda x: [cp.max(x) <= 4, cp.norm1(x) <= 9, cp.norm(x) <= 8, cp.quad_over_lin(x, 2.0) <= 7]
    )


@case(SIDED, "projection onto the ℓ1 ball of a point on its surface")
def l1_ball_edge():
    return project([0.4, 0.6], lambda x: [cp.norm1(x) <= 1])


# Semidefinite -----------------------------------------------------------------------------------------------------


def nearest_psd(target) -> cp.Problem:
    X, theta = cp.Variable((len(target), len(target)), name="X", PSD=True), param(target)
    return cp.Problem(cp.Minimize(cp.sum_squares(X - theta)))


@case(APPLIES, "nearest semidefinite matrix, eigenvalues of both signs")
def psd_mixed():
    return nearest_psd([[1.0, 0.5], [0.5, -1.0]])


@case(SIDED, "nearest semidefinite matrix of a singular one: an eigenvalue is zero")
def psd_rank_jump():
    return nearest_psd([[1.0, 1.0], [1.0, 1.0]])


@case(SIDED, "nearest semidefinite matrix of zero")
def psd_zero():
    return nearest_psd([[0.0, 0.0], [0.0, 0.0]])


@case(APPLIES, "nearest semidefinite matrix with a repeated positive eigenvalue is smooth")
def psd_repeated():
    return nearest_psd([[2.0, 0.0], [0.0, 2.0]])


@case(NOT, "a linear matrix cost on the spectraplex whose smallest eigenvalue is double")
def spectraplex_tie():
    X, C = cp.Variable((3, 3), name="X", PSD=True), param(np.diag([1.0, 1.0, 2.0]), "C")
    return cp.Problem(cp.Minimize(cp.trace(C @ X)), [cp.trace(X) == 1])


@case(APPLIES, "a linear matrix cost on the spectraplex with a simple smallest eigenvalue")
def spectraplex_unique():
    X, C = cp.Variable((3, 3), name="X", PSD=True), param(np.diag([1.0, 2.0, 3.0]), "C")
    return cp.Problem(cp.Minimize(cp.trace(C @ X)), [cp.trace(X) == 1])


# Exponential cone -------------------------------------------------------------------------------------------------


def softmax(theta) -> cp.Problem:
    x, c = var(len(theta)), param(theta)
    return cp.Problem(cp.Maximize(c @ x + cp.sum(cp.entr(x))), [cp.sum(x) == 1])


@case(APPLIES, "softmax")
def softmax_plain():
    return softmax([0.2, 0.5, 0.1])


@case(APPLIES, "softmax of scores 10 apart: probabilities of 5e-5")
def softmax_peaked():
    return softmax([10.0, 0.0, 0.0])


@case(APPLIES, "softmax with entries at −12: probabilities of 6e-6 beside large ones")
def softmax_tail():
    return softmax([0.0, 0.5, -12.0])


@case(APPLIES, "softmax of scores 50 apart: smooth, though the small probabilities are below rounding")
def softmax_far():
    return softmax([50.0, 0.0, 0.0])


@case(APPLIES, "softmax with scores toward −∞ and +∞: smooth, its derivative zero to rounding")
def softmax_infinite():
    return softmax([1000.0, 0.0, -1000.0])


@case(APPLIES, "logistic loss with a ridge")
def logistic():
    x, theta = var(2), param([1.0, -0.5])
    return cp.Problem(cp.Minimize(cp.logistic(theta @ x) + cp.sum_squares(x - 1)))


@case(APPLIES, "a slack log-sum-exp constraint")
def slack_log_sum_exp():
    return project([0.1, 0.2], lambda x: [cp.log_sum_exp(x) <= 6])


@case(SIDED, "an exponential constraint that is active with multiplier zero: exp(x₀) = 1 at the target 0")
def exp_edge():
    return project([0.0, 0.4], lambda x: [cp.exp(x[0]) <= 1])


@case(APPLIES, "a geometric program", gp=True)
def geometric():
    x, y, a = (
        cp.Variable(pos=True, name="x"),
        cp.Variable(pos=True, name="y"),
        cp.Parameter(pos=True, name="a", value=2.0),
    )
    return cp.Problem(cp.Minimize(x * y + a / x + a / y))


# Infeasible, unbounded, unconverged, badly scaled --------------------------------------------------------------------


@case(UNSOLVED, "contradicting equalities")
def infeasible():
    x, theta = var(2), param([1.0, 2.0])
    return cp.Problem(cp.Minimize(cp.sum_squares(x)), [cp.sum(x) == theta[0], cp.sum(x) == theta[1]])


@case(UNSOLVED, "a linear cost without bound")
def unbounded():
    x, c = var(2), param([1.0, 0.5], "c")
    return cp.Problem(cp.Minimize(c @ x), [x <= 1])


@case(UNSOLVED, "a solution held from other parameters")
def stale():
    problem = simplex([0.5, 0.4, -1.0])
    problem.solve(solver="CLARABEL")
    problem.parameters()[0].value = np.array([-1.0, 0.4, 0.5])
    return problem


@case(UNSOLVED, "a point that a loose solver stopped at")
def unconverged():
    problem = simplex([0.5, 0.4, -1.0])
    problem.solve(solver="SCS", max_iters=2, eps=1e-1)
    problem.variables()[0].value = problem.variables()[0].value + np.array([0.05, 0.02, 0.03])
    return problem


@case(APPLIES, "a point of a first-order solver, near enough to be polished")
def first_order():
    problem = simplex([0.5, 0.4, -1.0])
    problem.solve(solver="SCS", eps=1e-5)
    return problem


@case(APPLIES, "sparsemax inside a piece, cost scaled by 1e8")
def scaled_up():
    x, theta = var(3), param([0.5e8, 0.4e8, -1.0e8])
    return cp.Problem(cp.Minimize(0.5e8 * cp.sum_squares(x) - theta @ x), [cp.sum(x) == 1, x >= 0])


@case(APPLIES, "sparsemax inside a piece, variables of size 1e-6")
def scaled_down():
    x, theta = var(3), param([0.5e-6, 0.4e-6, -1.0e-6])
    return cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [cp.sum(x) == 1e-6, x >= 0])


@case(APPLIES, "one constraint in units a million times smaller than the other")
def scaled_mixed():
    return project([2.0, 3.0], lambda x: [1e3 * x[0] <= 1e3, 1e-3 * x[1] <= 1e-3])


@case(SIDED, "a weakly active bound in large units")
def scaled_kink():
    return project([1e6, 2e6], lambda x: [x <= 1e6, x[1] >= 0])


@case(APPLIES, "a problem without constraints")
def unconstrained():
    return project([1.0, 2.0], lambda x: [])


@case(APPLIES, "a problem without parameters")
def no_parameters():
    x = var(2)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - 1)), [x >= 0])


@case(UNSOLVED, "a problem that is not DPP")
def not_dpp():
    x, a = var(2), param([1.0, 2.0])
    return cp.Problem(cp.Minimize(cp.sum_squares(cp.multiply(cp.multiply(a, a), x) - 1)))


@case(UNSOLVED, "a parameter without a value")
def no_value():
    x, a = var(2), cp.Parameter(2, name="a")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - a)))
