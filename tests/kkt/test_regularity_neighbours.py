"""The pieces that neighbours show: jumps and kinks are told by every solver, and agreeing pieces are one."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from kinks import Case as Point
from kinks import heard, numpy_jvp, numpy_vjp, torch_backward

from cvxift import ApplicabilityError, differentiate
from cvxift.kkt.search import Search

SOLVERS = [None, "clarabel", "daqp", "osqp", "piqp", "scs"]
ASK = [numpy_vjp, numpy_jvp, torch_backward]


def beside_a_free_variable() -> Point:
    """x = max(c, 0) at c = 0, beside z, at which nothing looks and which solvers leave inside its bounds."""
    x, z, c = cp.Variable(2, name="x"), cp.Variable(2, name="z"), cp.Parameter(2, name="c", value=np.array([0.0, 3.0]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0, z >= 0, z <= 1])
    return Point(problem, x, np.array([1.0, 0.0]), c, np.array([1.0, 0.0]), (1.0, 0.0))


def capped_simplex() -> Point:
    """Two rows weak at once, and dependent where both are tight: x = (0, 1), c on the edge of that piece."""
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c", value=np.array([0.0, 1.0]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.sum(x) == 1, x >= 0, x <= 1])
    return Point(problem, x, np.array([1.0, 0.0]), c, np.array([1.0, 0.0]), (0.5, 0.0))


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("make", [beside_a_free_variable, capped_simplex])
def test_a_kink_is_told_whatever_the_solver(make, solver, ask):
    case = make()
    value, said = heard(lambda: ask(case, solver=solver, closed_form="never"))
    assert said
    assert min(abs(value - slope) for slope in case.slopes) < 1e-6


@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("ask", ASK)
def test_a_jump_to_another_vertex_is_told(ask, unit):
    # x[1] costs nothing: any of [0, 1] is optimal, and the least change of its cost decides.
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c", value=np.array([1.0, 0.0]))
    problem = cp.Problem(cp.Minimize(c @ x), [x >= 0, unit * x <= unit])
    case = Point(problem, x, np.array([0.0, 1.0]), c, np.array([0.0, 1.0]), (np.nan, np.nan))
    _, said = heard(lambda: ask(case))
    assert said


@pytest.mark.parametrize("units", [np.ones(3), np.array([1e4, 1.0, 1e-3])])
@pytest.mark.parametrize("ask", ASK)
def test_a_step_out_of_the_feasible_set_is_told(ask, units):
    # Flows into and out of three nodes balance only if the demands sum to zero.
    M = np.array([[-1.0, 0.0, 1.0, 1.0], [1.0, -1.0, 0.0, 0.0], [0.0, 1.0, -1.0, -1.0]])
    f, d = cp.Variable(4, name="f"), cp.Parameter(3, name="d", value=np.array([1.0, 0.0, -1.0]))
    problem = cp.Problem(
        cp.Minimize(cp.sum(f) + 0.5 * cp.sum_squares(f)), [cp.multiply(units, M @ f) == cp.multiply(units, d), f >= 0]
    )
    case = Point(problem, f, np.ones(4), d, np.array([1.0, 0.0, 0.0]), (np.nan, np.nan))
    _, said = heard(lambda: ask(case))
    assert said


@pytest.mark.parametrize("ask", ASK)
def test_a_parameter_that_moves_along_a_ridge_makes_no_kink(ask):
    # mu₁ = mu₂: fees alone lead to points as degenerate as this one, whose active rows solvers choose by rounding.
    w, fee = cp.Variable(2, name="w"), cp.Parameter(nonneg=True, name="fee", value=0.25)
    mu = cp.Parameter(2, name="mu", value=np.array([0.75, 0.75]))
    cost = cp.sum_squares(w) - mu @ w + fee * cp.norm1(w - 0.5)
    case = Point(
        cp.Problem(cp.Minimize(cost), [cp.sum(w) == 1]), w, np.array([1.0, 0.0]), mu, np.array([1.0, 0.0]), (0.0, 0.0)
    )
    value, said = heard(lambda: ask(case))
    assert abs(value) < 1e-8
    assert not said


def test_rounding_of_columns_that_tight_rows_fix_is_no_inconsistency():
    # All four are at bounds that move together; the equality that they satisfy then is dependent.
    unit = np.array([30.98, 3.291, 175.77, 0.03034])
    a, C = cp.Variable(4, name="a"), cp.Parameter(name="C", value=1.351017699423518)
    x = cp.multiply(unit, a)
    rows = np.array([1.55e-4, 0.7302, 1.77, 189.65])
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(x) - 100.0 * cp.sum(x)),
        [0.0101 * (np.array([-1.0, 1.0, 1.0, -1.0]) @ x) == 0.0, x >= 0, cp.multiply(rows, x) <= 0.37 * rows * C],
    )
    out, said = heard(lambda: differentiate(problem).jvp({C: 1.0})[a])
    np.testing.assert_allclose(out * unit, 0.37, rtol=1e-9)
    assert not said


@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(("tilt", "told"), [(0.0, True), (0.1, False)])
def test_a_vertex_of_the_set_of_solutions_is_told(tilt, told, ask, unit):
    # Without the tilt any x[0] in [-2, -1.25] is optimal; an active-set solver ends at a vertex, where K is regular.
    x, b = cp.Variable(2, name="x"), cp.Parameter(3, name="b", value=np.array([1.0, 0.5, -0.5]))
    A = np.array([[0.0, 1.0], [1.0, 3.0], [2.0, -1.0]])
    cost = cp.max(A @ (unit * x) + b) - tilt * unit * x[0]
    problem = cp.Problem(cp.Minimize(cost), [cp.abs(unit * x) <= 2.0])
    case = Point(problem, x, np.array([unit, 0.0]), b, np.array([0.0, 0.0, 1.0]), (np.nan, np.nan))
    value, said = heard(lambda: ask(case, solver="daqp"))
    assert bool(said) == told
    assert told or abs(value + 0.5) < 1e-6  # 2 x₀ − x₁ − 0.5 = −1 there: x₀ = −1.25 moves by −½ a unit of b₂


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("solver", [None, "clarabel", "scs"])
def test_a_side_without_a_unique_solution_is_told(solver, ask):
    # On one side x₁ and x₂ share what costs the same in either; SCS leaves dependent rows, all multipliers positive.
    x, b = cp.Variable(4, name="x"), cp.Parameter(2, name="b", value=np.array([-1.0, 1.0]))
    A = np.array([[0.0, -3.0, -3.0, -3.0], [3.0, 2.0, 2.0, 3.0]])
    problem = cp.Problem(cp.Minimize(cp.norm1(x)), [A @ x == b])
    case = Point(problem, x, np.array([1.0, 0.0, 0.0, 0.0]), b, np.array([0.0, 1.0]), (1.0 / 3.0, 0.0))
    _, said = heard(lambda: ask(case, solver=solver))
    assert said


@pytest.mark.parametrize("ask", ASK)
def test_entries_of_parameters_and_constraints_are_named(ask):
    case = beside_a_free_variable()
    _, said = heard(lambda: ask(case, closed_form="never"))
    assert any("with respect to c[0] depends" in word and "(x >= 0), entry (0,)" in word for word in said)
    assert not any("c[1]" in word for word in said)
    with pytest.raises(ApplicabilityError, match=r"with respect to c\[0\], c\[1\] depends.*\(x >= 0\), entry \(0,\)"):
        ask(capped_simplex(), closed_form="never", singular="raise")


@pytest.mark.parametrize("solver", [None, "osqp", "clarabel", "piqp", "scs"])
def test_a_weight_at_zero_has_the_derivative_of_its_feasible_side(solver):
    """The column that is |x₁ − x₀| is free at weight 0, and held as soon as the weight moves."""
    x, c, a = cp.Variable(2), cp.Parameter(2, value=[1.0, 2.0]), cp.Parameter(nonneg=True, value=0.0)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c) + a * cp.norm1(x[1:] - x[:1])))
    found, said = heard(lambda: differentiate(problem, solver=solver).vjp({x: [1.0, 0.0]}))
    assert said
    np.testing.assert_allclose(found[a], 0.5, atol=1e-8)
    np.testing.assert_allclose(found[c], [1.0, 0.0], atol=1e-8)


SETS = {
    "ball": lambda x: cp.norm(x) <= 1,
    "cone": lambda x: cp.SOC(cp.Constant(1.0), x),
    "ellipse": lambda x: cp.norm(cp.multiply(np.array([1.0, 3.0]), x)) <= 1,
    "matrix": lambda x: cp.bmat([[1.0 + x[1], x[0]], [x[0], 1.0 - x[1]]]) >> 0,
    "exponential": lambda x: cp.sum(cp.exp(x) + cp.exp(-x)) <= 6,
    "power": lambda x: cp.sum(cp.power(x, 4)) <= 1,
    "box": lambda x: cp.hstack([x, -x]) <= 1,
}


@pytest.mark.parametrize("unit", [1.0, 1e3])
@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("name", SETS)
def test_a_set_without_a_cost_has_no_unique_solution(name, ask, unit):
    """Any point of the set is optimal: it is said so, once, and no jump from one to another is a derivative."""
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c", value=np.zeros(2))
    problem = cp.Problem(cp.Minimize(unit * c @ x), [SETS[name](x)])
    case = Point(problem, x, np.array([1.0, 0.5]), c, np.array([0.3, 1.0]), (0.0, 0.0))
    value, said = heard(lambda: ask(case))
    assert len(said) == 1 and "not unique" in said[0], said
    assert abs(value) <= 1e-8


@pytest.mark.parametrize("ask", ASK)
def test_a_kink_beside_outputs_that_can_move_is_told_too(ask):
    """y = max(c₀, 0) at c₀ = 0, while x₀ and x₁ share what costs the same in either."""
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c", value=np.array([0.0, 1.0, 1.0]))
    cost = cp.square(x[2] - c[0]) + c[1:] @ x[:2]
    problem = cp.Problem(cp.Minimize(cost), [cp.sum(x[:2]) >= 1, x >= 0])
    case = Point(problem, x, np.array([0.3, 0.1, 1.0]), c, np.array([1.0, 0.0, 0.0]), (1.0, 0.0))
    value, said = heard(lambda: ask(case))
    assert any("not unique" in word for word in said) and any("kink" in word for word in said)
    assert min(abs(value - slope) for slope in case.slopes) < 1e-6


@pytest.mark.parametrize("ask", ASK)
def test_a_root_is_no_jump(ask):
    """x = c^(1/3): its neighbour, the step's root away, is on the curve, however far that is."""
    x, c = cp.Variable(name="x"), cp.Parameter(name="c", value=0.0)
    case = Point(cp.Problem(cp.Minimize(cp.power(x, 4) - c * x)), x, np.array(1.0), c, np.array(1.0), (np.inf, np.inf))
    value, said = heard(lambda: ask(case))
    assert said and not any("not unique:" in word for word in said)
    assert value > 100.0


def test_neighbours_are_asked_for_briefly(monkeypatch):
    """A projection onto power cones of a point of theirs: few neighbours can be solved, and none is worth long work."""
    asked = []
    ask = Search._ask

    def note(search, name, options, session=None, warm=True):
        asked.append((name, dict(options)))
        return ask(search, name, options, session, warm)

    rng, shape = np.random.default_rng(0), (2, 1)
    a, b = rng.uniform(0.1, 1.0, shape), rng.uniform(1.0, 2.0, shape)
    given = [a, b, a**0.4 * b**0.6]
    x, p = [cp.Variable(shape) for _ in given], [cp.Parameter(shape, value=v) for v in given]
    near = cp.sigma_max(cp.hstack(x) - cp.hstack(p))
    sensitivity = differentiate(cp.Problem(cp.Minimize(near), [cp.constraints.PowCone3D(*x, 0.4)]))
    monkeypatch.setattr(Search, "_ask", note)
    _, said = heard(lambda: sensitivity.jvp({p[0]: np.ones(shape)}))
    assert said and any(name != "clarabel" for name, _ in asked)
    assert all(options for name, options in asked if name != "clarabel")


@pytest.mark.parametrize("turn", range(12))
@pytest.mark.parametrize("ask", [numpy_vjp, numpy_jvp])
def test_an_end_of_the_set_of_solutions_is_told_whichever_way_the_set_lies(ask, turn):
    # The largest of four planes is least along an edge, at whose end a third of them is weak.
    x, t = cp.Variable(2, name="x"), cp.Variable(name="t")
    b = cp.Parameter(4, name="b", value=np.array([0.5, -1.0, 1.5, -1.0]))
    c, s = np.cos(np.pi * turn / 6), np.sin(np.pi * turn / 6)
    planes = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]) @ np.array([[c, -s], [s, c]])
    problem = cp.Problem(cp.Minimize(t), [planes @ x + b <= t])
    case = Point(problem, x, np.array([1.0, 0.3]), b, np.array([1.0, 0.0, -0.4, 0.2]), (np.nan, np.nan))
    _, said = heard(lambda: ask(case))
    assert any("not unique" in text for text in said)


@pytest.mark.parametrize("unit", [1.0, 1e-2, np.array([0.008, 0.4])])
def test_rounding_of_columns_that_are_zero_is_no_kink(unit):
    # A support vector machine that ignores its features: w is zero to rounding, and so is what multiplies X there.
    data = [[-2, -1], [3, -2], [3, -3], [-1, 2], [0, -3], [-3, 1], [2, -1], [0, 1], [3, -3], [-2, 1], [0, -1], [-2, 1]]
    y = np.array([-1.0, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 1])
    w, b, X = cp.Variable(2, name="w"), cp.Variable(name="b"), cp.Parameter((12, 2), name="X", value=np.array(data) / 2)
    margins = cp.multiply(y, X @ cp.multiply(unit, w) + b)
    cost = 0.5 * cp.sum_squares(cp.multiply(unit, w)) + 0.05 * cp.square(b) + 0.3 * cp.sum(cp.pos(1 - margins))
    problem, bar = cp.Problem(cp.Minimize(cost)), np.array([1.0, 0.3])
    gradient, said = heard(lambda: differentiate(problem).vjp({w: bar})[X])
    assert not said
    direction, h = np.random.default_rng(0).standard_normal((12, 2)), 1e-4
    found = []
    for step in (h, -h):
        X.value = np.array(data) / 2 + step * direction
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        found.append(bar @ w.value)
    assert np.sum(gradient * direction) == pytest.approx((found[0] - found[1]) / (2 * h), abs=1e-7)  # w stays zero
