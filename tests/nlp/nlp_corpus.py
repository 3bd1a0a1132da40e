"""Labelled nonlinear problems: what a report must say of each.

Each entry: the problem with the values that its variables hold, the verdict, and the cause of a finding (None where
there is to be no fault).
"""

from __future__ import annotations

from collections.abc import Callable

import cvxpy as cp
import numpy as np

APPLIES, PRIMAL, ONE_SIDED = "applies", "applies to the primal only", "one-sided"
NOT, NOT_OPTIMAL = "does not apply", "point not optimal"
CORPUS: dict[str, tuple[Callable[[], cp.Problem], str, str | None]] = {}


def entry(verdict: str, cause: str | None) -> Callable:
    def register(build: Callable[[], cp.Problem]) -> Callable:
        CORPUS[build.__name__] = (build, verdict, cause)
        return build

    return register


def solved(problem: cp.Problem) -> cp.Problem:
    """The problem with its variables' values for a solution, as some solver may have left them."""
    problem._status = cp.OPTIMAL
    return problem


def variable(value, **options) -> cp.Variable:
    value = np.asarray(value, dtype=float)
    x = cp.Variable(value.shape, name="x", **options)
    x.value = value
    return x


def parameter(value) -> cp.Parameter:
    value = np.asarray(value, dtype=float)
    return cp.Parameter(value.shape, name="p", value=value)


@entry(APPLIES, None)
def regular_minimum() -> cp.Problem:
    x, p = variable([1.0, 0.5]), parameter([0.3, 0.9])
    return cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum_squares(x) == 2])


@entry(APPLIES, None)
def regular_inequality_and_bound() -> cp.Problem:
    x, p = variable([0.5, 0.5], bounds=[0, 3]), parameter([2.0, -1.0])
    return cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.square(x[0]) + x[1] <= 1])


@entry(APPLIES, None)
def maximum_of_a_concave_function_on_a_sphere() -> cp.Problem:
    x, p = variable([1.0, 1.0]), parameter([1.0, 2.0])
    return cp.Problem(cp.Maximize(p @ x), [cp.sum_squares(x) == 1])


@entry(APPLIES, None)
def nonconvex_objective_at_a_bound() -> cp.Problem:
    x, p = variable(0.9, bounds=[-1, 1]), parameter(0.3)
    return cp.Problem(cp.Minimize(-cp.square(x) - p * x))


@entry(APPLIES, None)
def wrong_local_minimum() -> cp.Problem:
    x, p = variable(0.9), parameter(0.1)
    return cp.Problem(cp.Minimize(cp.square(cp.square(x) - 1) + p * x))


@entry(APPLIES, None)
def distinct_entries_under_max() -> cp.Problem:
    x, p = variable([0.4, -0.2]), parameter([1.0, 0.2])
    return cp.Problem(cp.Minimize(cp.max(cp.multiply(p, x)) + cp.sum_squares(x - 1)))


@entry(NOT_OPTIMAL, "not a local minimum")
def saddle_of_an_unconstrained_function() -> cp.Problem:
    x, p = variable([0.0, 0.0]), parameter(1.0)
    return solved(cp.Problem(cp.Minimize(cp.square(cp.square(x[0]) - 1) + p * cp.square(x[1]))))


@entry(NOT_OPTIMAL, "not a local minimum")
def saddle_on_a_sphere() -> cp.Problem:
    # The middle eigenvector.
    x, p = variable([0.0, 1.0, 0.0]), parameter([1.0, 2.0, 3.0])
    return solved(cp.Problem(cp.Minimize(cp.sum(cp.multiply(p, cp.square(x)))), [cp.sum_squares(x) == 1]))


@entry(NOT_OPTIMAL, "not a local minimum")
def maximum_taken_for_a_minimum() -> cp.Problem:
    x, p = variable(0.0), parameter(1.0)
    return solved(cp.Problem(cp.Minimize(p * cp.nlp.cos(x)), [x >= -1, x <= 1]))


@entry(NOT_OPTIMAL, "not a local minimum")
def projection_onto_a_circle_from_inside_on_the_far_side() -> cp.Problem:
    x, p = variable([-1.0, 0.0]), parameter([0.5, 0.0])
    return solved(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum_squares(x) == 1]))


@entry(NOT_OPTIMAL, "not a local minimum")
def cubic_at_its_flat_point() -> cp.Problem:
    x, p = variable(0.0), parameter(1.0)
    return solved(cp.Problem(cp.Minimize(p * x**3), [x >= -1]))


@entry(NOT_OPTIMAL, "not a local minimum")
def monkey_saddle() -> cp.Problem:
    x, p = variable([0.0, 0.0]), parameter(1.0)
    return solved(cp.Problem(cp.Minimize(p * (x[0] ** 3 - 3 * x[0] * cp.square(x[1]))), [cp.sum_squares(x) <= 1]))


@entry(NOT_OPTIMAL, "not a local minimum")
def cubic_along_a_circle() -> cp.Problem:
    x, p = variable([1.0, 0.0]), parameter(1.0)
    return solved(cp.Problem(cp.Minimize(p * x[1] ** 3), [cp.sum_squares(x) == 1]))


@entry(NOT, "vanishing curvature")
def quartic_at_its_minimum() -> cp.Problem:
    x, p = variable([0.0, 0.0]), parameter(0.0)
    cost = cp.square(cp.square(x[0])) - p * x[0] + cp.square(x[1] - cp.square(x[0]))
    return solved(cp.Problem(cp.Minimize(cost)))


@entry(NOT, "flat direction")
def projection_of_the_centre_onto_a_circle() -> cp.Problem:
    x, p = variable([1.0, 0.0]), parameter([0.0, 0.0])
    return cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum_squares(x) == 1])


@entry(NOT, "flat direction")
def non_isolated_solutions() -> cp.Problem:
    x, p = variable([1.0, 0.3]), parameter(1.0)
    return cp.Problem(cp.Minimize(cp.square(x[0] - p)), [x[1] <= 5, x[1] >= -5])


@entry(NOT, "flat direction")
def repeated_eigenvalue() -> cp.Problem:
    x, p = variable([0.6, 0.8, 0.0]), parameter([1.0, 1.0, 3.0])
    return cp.Problem(cp.Minimize(cp.sum(cp.multiply(p, cp.square(x)))), [cp.sum_squares(x) == 1])


@entry(NOT, "vanishing curvature")
def quartic_minimum() -> cp.Problem:
    x, p = variable(0.7), parameter(0.0)
    return cp.Problem(cp.Minimize(cp.square(cp.square(x)) - p * x))


@entry(NOT, "vanishing curvature")
def sixth_power() -> cp.Problem:
    x, p = variable([0.7, 0.2]), parameter(0.0)
    return cp.Problem(cp.Minimize(cp.power(x[0], 6) - p * x[0] + cp.square(x[1] - 1)))


@entry(NOT, "vanishing curvature")
def flat_along_an_equality() -> cp.Problem:
    x, p = variable([0.5, 0.5]), parameter(0.0)
    return cp.Problem(cp.Minimize(cp.square(cp.square(x[0])) - p * x[0]), [x[0] + x[1] == 1])


@entry(ONE_SIDED, "weakly active")
def weakly_active_bound() -> cp.Problem:
    x, p = variable(0.1, bounds=[0, 2]), parameter(0.0)
    return cp.Problem(cp.Minimize(cp.exp(x) - x - p * x))


@entry(ONE_SIDED, "weakly active")
def weakly_active_nonconvex_constraint() -> cp.Problem:
    x, p = variable([0.1, 0.9]), parameter([0.0, 1.0])
    return cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum_squares(x) >= 1])


@entry(ONE_SIDED, "weakly active")
def max_with_a_tie() -> cp.Problem:
    x, p = variable([0.3, 0.1]), parameter([1.0, 0.0])
    return cp.Problem(cp.Minimize(cp.max(x) + 0.5 * cp.sum_squares(x - p)))


@entry(PRIMAL, "dependent constraints")
def the_same_constraint_twice() -> cp.Problem:
    x, p = variable([1.0, 0.5]), parameter([2.0, 2.0])
    return cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum_squares(x) <= 1, 2 * cp.sum_squares(x) <= 2])


@entry(PRIMAL, "dependent constraints")
def three_constraints_at_a_vertex_of_the_plane() -> cp.Problem:
    x, p = variable([0.9, 0.9]), parameter([3.0, 3.0])
    return cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.square(x[0]) <= 1, x[1] <= 1, cp.sum_squares(x) <= 2])


@entry(ONE_SIDED, "torn apart")
def dependent_constraints_that_a_parameter_pulls_apart() -> cp.Problem:
    x, p = variable([1.0, 0.5]), parameter(1.0)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - 2)), [cp.sum_squares(x) <= p, 2 * cp.sum_squares(x) <= 2])


@entry(NOT_OPTIMAL, "no multipliers")
def complementarity_constraint() -> cp.Problem:
    # 0 ≤ x₀ ⊥ x₁ ≥ 0 has no multipliers at the corner.
    x, p = variable([0.0, 0.0]), parameter([1.0, 1.0])
    return cp.Problem(cp.Minimize(p @ x - x[0] * 3), [x >= 0, x[0] * x[1] <= 0, x[0] + cp.square(x[0]) <= x[1]])


@entry(NOT_OPTIMAL, "no multipliers")
def hock_schittkowski_13() -> cp.Problem:
    x, p = variable([1.0, 0.0]), parameter(2.0)
    return cp.Problem(cp.Minimize(cp.square(x[0] - p) + cp.square(x[1])), [(1 - x[0]) ** 3 >= x[1], x >= 0])


@entry(NOT_OPTIMAL, "infeasible")
def no_feasible_point() -> cp.Problem:
    x, p = variable(0.5), parameter(-1.0)
    return cp.Problem(cp.Minimize(x), [cp.square(x) + cp.nlp.sin(x) <= p])


@entry(NOT_OPTIMAL, "unbounded")
def no_lower_bound() -> cp.Problem:
    x, p = variable(0.5), parameter(1.0)
    return cp.Problem(cp.Minimize(-p * cp.nlp.sinh(x)))


@entry(NOT_OPTIMAL, "not optimal")
def unconverged_point() -> cp.Problem:
    x, p = variable([1.0, 0.5]), parameter([0.3, 0.9])
    return solved(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum_squares(x) == 2]))


@entry(NOT_OPTIMAL, "not optimal")
def solution_of_other_parameters() -> cp.Problem:
    x, p = variable([1.0, 0.5]), parameter([0.3, 0.9])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum_squares(x) == 2])
    problem.solve(nlp=True, solver="UNO", logger="SILENT")
    p.value = np.array([-0.9, 0.3])
    return problem


@entry(NOT_OPTIMAL, "bad input")
def not_a_nonlinear_program() -> cp.Problem:
    x, p = variable([1.0, 0.5]), parameter([0.3, 0.9])
    return cp.Problem(cp.Minimize(p @ x), [cp.norm(x) == 1])


@entry(ONE_SIDED, "kink")
def kink_of_the_parameters_alone() -> cp.Problem:
    x, p = variable([0.3, 0.4]), parameter([0.0, 1.0])
    return cp.Problem(cp.Minimize(cp.sum_squares(x - cp.abs(p))))
