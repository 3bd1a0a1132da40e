"""What a problem holds before and after `differentiate`: other parameters' values, nobody's values, inaccurate ones."""

from __future__ import annotations

from importlib.metadata import version

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.kkt.solution_map import SolutionMap
from cvxift.kkt.warm_point import holds_values_of
from cvxift.program.program import Program

SCS = tuple(map(int, version("scs").split(".")[:2]))


def nearest() -> tuple[cp.Problem, cp.Variable, cp.Parameter]:
    x, p = cp.Variable(3, name="x"), cp.Parameter(3, name="p", value=np.ones(3))
    return cp.Problem(cp.Maximize(-cp.sum_squares(x - p)), [x <= 0.5]), x, p


def test_values_of_other_parameters_do_not_stay():
    problem, x, p = nearest()
    problem.solve(solver=cp.CLARABEL)
    p.value = np.array([0.1, 0.2, 3.0])
    s = cvxift.differentiate(problem)
    np.testing.assert_allclose(x.value, [0.1, 0.2, 0.5], atol=1e-9)
    np.testing.assert_allclose(s.value(x), x.value, atol=1e-9)
    assert problem.value == pytest.approx(-6.25) and problem.status == "optimal"
    np.testing.assert_allclose(problem.constraints[0].dual_value, [0.0, 0.0, 5.0], atol=1e-8)


def test_values_that_nobody_solved_for_get_a_status():
    problem, x, _ = nearest()
    x.value = np.full(3, 0.5)
    cvxift.differentiate(problem)
    assert problem.status == "optimal" and problem.value == pytest.approx(-0.75)


def test_a_solution_that_the_problem_holds_becomes_accurate():
    problem, x, _ = nearest()
    problem.solve(solver=cp.SCS)
    s = cvxift.differentiate(problem)
    np.testing.assert_allclose(x.value, 0.5, rtol=1e-12)
    np.testing.assert_allclose(s.value(x), 0.5, rtol=1e-12)
    assert problem.solver_stats.solver_name == "SCS"


@pytest.mark.skipif(SCS < (3, 3), reason="earlier SCS calls these rows infeasible, as Clarabel does")
def test_a_held_point_that_no_polishing_improves_is_told():
    """Rows that are inconsistent by 1e-7: a solver accepts them, and the point remains off by that."""
    flow, rows = cp.Variable((3, 3), name="flow"), cp.Parameter(3, name="rows", value=np.full(3, 1 - 1e-7))
    cost = np.array([[1.0, 3, 4], [2.5, 1, 3], [4, 2, 1.5]])
    constraints = [flow >= 0, cp.sum(flow, 1) <= rows, cp.sum(flow, 0) == np.ones(3)]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(cost, flow)) + cp.norm(cp.vec(flow, order="F"))), constraints)
    problem.solve(solver=cp.SCS, eps_abs=1e-6, eps_rel=1e-6)
    assert problem.status == "optimal"
    with pytest.warns(cvxift.ApplicabilityWarning, match=r"accurate only to a relative residual.*constraint"):
        s = cvxift.differentiate(problem)
    assert 1e-9 < s.residuals.worst <= 1e-6
    with pytest.raises(cvxift.ApplicabilityError, match="accurate only"):
        cvxift.differentiate(problem, check="raise")


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("off", "held"), [(1e-5, True), (1e-2, False)])
def test_a_variable_that_is_zero_is_held_to_the_accuracy_of_the_others(unit, off, held):
    x, z = cp.Variable(2, name="x"), cp.Variable(2, name="z")
    p = cp.Parameter(2, name="p", value=np.array([1.0, -0.5]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p) + cp.sum_squares(z / unit)))
    program = Program(problem)
    solution = SolutionMap(problem, None, [x, z], program=program).solve(p.value).solutions[0]
    for other, value in ((0.0, True), (off, held)):
        x.value, z.value = p.value, unit * np.full(2, other)
        assert holds_values_of(solution, program) == value
    x.value, z.value = p.value * (1 + off), np.zeros(2)
    assert holds_values_of(solution, program) == held


def test_values_that_the_problem_holds_stay_where_one_is_zero():
    x, z, p = cp.Variable(2), cp.Variable(2), cp.Parameter(2, value=np.array([0.3, -0.5]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p) + cp.sum_squares(z)), [cp.sum(x) == 1])
    cvxift.differentiate(problem)
    z.value = np.full(2, 1e-17)
    before = z.value
    cvxift.differentiate(problem)
    assert z.value is before
