"""Kinks under other policies, beside flat variables, at the end of a parameter's range, and where rounding hid them."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
from kinks import WAYS, Case, every_way, fresh, heard, tied_maximum, two_balls, two_bounds

import cvxift
from cvxift.program.affine import AffineMap


@every_way("make", [two_bounds, tied_maximum, two_balls], [two_balls])
def test_regularize_tells_of_kinks_and_takes_one_side(make, way):
    case = make()
    found, said = heard(lambda: WAYS[way](fresh(case), singular="regularize"))
    assert any("kink" in text and case.rows in text for text in said)
    assert min(abs(found - slope) for slope in case.slopes) <= 1e-5 * (1.0 + max(map(abs, case.slopes)))
    with pytest.raises(Exception, match="kink"):  # JAX wraps what a callback raises
        WAYS[way](fresh(case), singular="regularize", check="raise")


def test_regularize_chooses_along_flat_directions_without_a_word():
    x, t = cp.Variable(3, name="x"), cp.Parameter(name="t", value=1.0)
    s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.square(cp.sum(x) - t))), singular="regularize", check="raise")
    np.testing.assert_allclose(s.jacobian(x, t), np.full(3, 1 / 3), atol=1e-6)


@pytest.mark.parametrize("option", [{"check": "raise"}, {"singular": "raise"}, {"singular": "raise", "check": "off"}])
def test_flat_outputs_alone_are_refused_and_named(option):
    x, y, t = cp.Variable(2, name="x"), cp.Variable(2, name="y"), cp.Parameter(name="t", value=1.0)
    problem = cp.Problem(cp.Minimize(cp.square(cp.sum(x) - t) + cp.sum_squares(y - t)))
    with pytest.raises(cvxift.ApplicabilityError, match=r"outputs \((x\[0\], x\[1\]|x\[1\], x\[0\])\)"):
        cvxift.differentiate(problem, **option).vjp({x: np.array([1.0, 0.0])})
    assert cvxift.differentiate(problem, **option).vjp({y: np.ones(2)})[t] == pytest.approx(2.0, abs=1e-9)


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_kink_beside_a_free_variable_that_nobody_asked_for(way):
    """s₀ may be anything from |x₀| to 1; x₁ stops at 1."""
    x, s, c = cp.Variable(2, name="x"), cp.Variable(2, name="s"), cp.Parameter(2, name="c", value=np.array([0.5, 1.0]))
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - c)), [cp.abs(x) <= s, s <= 1])
    case = Case(problem, x, np.array([0.0, 1.0]), c, np.array([0.0, 1.0]), (0.0, 1.0))
    found, said = heard(lambda: WAYS[way](fresh(case)))
    assert any("kink" in text or "not unique" in text for text in said)  # NumPy's forward mode is asked for s, too
    assert min(abs(found), abs(found - 1.0)) <= 1e-8


@pytest.mark.parametrize("seed", range(12))
def test_opposed_rows_that_are_parallel_up_to_rounding_do_not_meet_far_away(seed):
    rng = np.random.default_rng(seed)
    D, units, a = 10 ** rng.uniform(-4, 4, 3), 10 ** rng.uniform(-3, 3, 4), rng.normal(size=3)
    x, t, u = cp.Variable(3, name="x"), cp.Parameter(name="t", value=0.0), cp.Parameter(name="u", value=0.0)
    y = cp.multiply(D, x)
    rows = [units[0] * (a @ y) <= units[0] * (units[1] * t), units[2] * (a @ y) >= units[2] * (units[3] * u)]
    s = cvxift.differentiate(cp.Problem(cp.Minimize(1.55e-3 * (cp.sum_squares(y - 1 / 3) + y[0])), rows))
    _, said = heard(lambda: s.vjp({x: np.ones(3)}))
    assert any("lead to no solution" in text and "constraint" in text for text in said)


def test_data_of_rounding_size_are_no_unit():
    """X = Π(C − I) is zero and C rests on its kink; what rounding leaves of C − I must not become the scale."""
    C = cp.Parameter((2, 2), name="C", symmetric=True, value=np.array([[1 - 2e-16, -2.4e-17], [-2.4e-17, 1.0]]))
    X = cp.Variable((2, 2), PSD=True, name="X")
    s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(X - C + np.eye(2)))))
    assert s.solution.units is None
    _, said = heard(lambda: s.vjp({X: np.ones((2, 2))}))
    assert any("kink" in text for text in said)


def test_terms_that_cancel_leave_zero():
    import scipy.sparse as sp

    cancel = AffineMap(sp.csr_array(np.array([[1.0, 1.0], [1.0, 2.0]])), np.array([-0.3, 0.0]))
    np.testing.assert_array_equal(cancel(np.array([0.1, 0.2])), [0.0, 0.5])
    np.testing.assert_array_equal(cancel(np.array([[0.1, 0.2], [1.0, 2.0]]))[:, 0], [0.0, 2.7])
    small = cancel(np.array([0.1, 0.2 + 1e-14]))[0]
    assert small == pytest.approx(1e-14, rel=1e-2)
    tiny = AffineMap(sp.csr_array(np.array([[1e-12, 1e-12], [1.0, 1e6]])), np.array([1e-12, 1.0]))
    assert tiny(np.array([1.0, 1.0]))[0] == pytest.approx(3e-12)


NORM = np.array([1.0, 2.0, 3.0])
WEIGHTED = {
    "norm1": (cp.norm1, -np.ones(3) / 2),
    "norm": (cp.norm, -NORM / np.linalg.norm(NORM) / 2),
    "exp": (lambda z: cp.sum(cp.exp(z)), -np.exp(NORM) / 2),
    "logistic": (lambda z: cp.sum(cp.logistic(z)), -1 / (1 + np.exp(-NORM)) / 2),
    "norm3": (lambda z: cp.norm(z, 3), -(NORM**2) / np.sum(NORM**3) ** (2 / 3) / 2),
}


@pytest.mark.parametrize("atom", sorted(WEIGHTED))
def test_a_weight_of_zero_has_the_derivative_of_its_feasible_side(atom):
    """x(a) minimizes ‖x − c‖² + a f(x): dx/da = −∇f(c)/2 at a = 0, where the range of a ends."""
    function, slope = WEIGHTED[atom]
    x, a = cp.Variable(3, name="x"), cp.Parameter(name="a", nonneg=True, value=0.0)
    s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(x - NORM) + a * function(x))))
    found, said = heard(lambda: (s.jvp({a: 1.0})[x], s.vjp({x: np.ones(3)})[a]))
    assert any("changes of a to one side lead to no solution" in text for text in said)
    np.testing.assert_allclose(found[0], slope, rtol=1e-5)
    np.testing.assert_allclose(found[1], slope.sum(), rtol=1e-5)


def test_equalities_that_contradict_each_other_are_not_solved_to_learn_it(monkeypatch):
    """Marginals that must sum to the same: nearly every change of one alone has no solution."""
    n = 12
    flow, rows = cp.Variable((n, n), name="flow"), cp.Parameter(n, name="rows", value=np.ones(n))
    cost = np.random.default_rng(0).random((n, n))
    problem = cp.Problem(
        cp.Minimize(cp.sum(cp.multiply(cost, flow)) + 0.1 * cp.sum_squares(flow)),
        [flow >= 0, cp.sum(flow, 1) == rows, cp.sum(flow, 0) == np.ones(n)],
    )
    s = cvxift.differentiate(problem)
    monkeypatch.setattr(s.solution.engine, "solve", lambda *_, **__: pytest.fail("a program was solved"))
    inside = np.zeros(n)
    inside[:2] = 1.0, -1.0
    tangent, said = heard(lambda: s.jvp({rows: inside})[flow])
    assert not said  # this change keeps the sum
    h = 1e-6
    rows.value = 1.0 + h * inside
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    np.testing.assert_allclose(tangent, (flow.value - s.value(flow)) / h, atol=1e-4)
    _, said = heard(lambda: s.jvp({rows: np.eye(n)[0]}))
    assert any("changes of rows to one side lead to no solution" in text for text in said)


def test_several_vertices_of_a_linear_program_are_told_twice():
    """Every point of the simplex is optimal; the point that the problem holds afterwards is one of them."""
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c", value=np.ones(2))
    problem = cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) == 1])
    for _ in range(2):
        _, said = heard(lambda: cvxift.differentiate(problem).jacobian(x, c))
        assert any("not unique" in text or "kink" in text for text in said)


@pytest.mark.parametrize("first", ["vjp", "jvp"])
def test_each_mode_says_it_once_a_solution(first):
    x, t = cp.Variable(2, name="x"), cp.Parameter(2, name="t", value=np.zeros(2))
    s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0]), closed_form="never")
    ways = {"vjp": lambda: s.vjp({x: np.ones(2)}), "jvp": lambda: s.jvp({t: np.ones(2)})}
    order = [first, *(way for way in ways if way != first)]
    for way in order:
        with pytest.warns(cvxift.ApplicabilityWarning, match="kink"):
            ways[way]()
    with warnings.catch_warnings():
        warnings.simplefilter("error", cvxift.ApplicabilityWarning)
        for way in order:
            ways[way]()


def test_an_instance_without_a_solution_is_not_judged():
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    x, t = cp.Variable(2, name="x"), cp.Parameter(2, name="t")
    flow = np.array([[1.0, 1.0], [-1.0, -1.0]])  # solvable where t adds up to zero
    problem = cp.Problem(cp.Minimize(np.array([1.0, 2.0]) @ x + 0.1 * cp.sum_squares(x)), [flow @ x == t, x >= 0])
    layer = CvxpyLayer(problem, [t], [x], on_failure="nan")
    theta = torch.tensor([[0.0, 0.0], [1e-6, 0.0], [-1e-6, 0.0], [1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    with pytest.warns(cvxift.ApplicabilityWarning):
        (out,) = layer(theta)
    assert np.isnan(out.detach().numpy()).any(axis=1).tolist() == [False, True, True, False]
