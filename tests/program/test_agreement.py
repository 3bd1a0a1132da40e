"""The canonical program is compared with CVXPY's own expressions; what `differentiate` leaves in the problem."""

from __future__ import annotations

import contextlib

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
from atom_table import ATOMS, SHIFT
from cvxpy.lin_ops.backends.coo_backend import CooCanonBackend
from problem_zoo import NEEDS_1_9, OLD, ZOO

import cvxift
from cvxift.program import Program, agreement, reach


def least_squares(**attributes):
    x = cp.Variable(3, name="x", **attributes)
    c = cp.Parameter(3, name="c", value=np.array([1.0, -2.0, 0.5]))
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(x) - 2 * c @ x), [cp.norm(x) <= 1, cp.sum(x) == 0.3, cp.exp(x[0]) <= 1.4]
    )
    return problem, x, c


def faulty(monkeypatch, change):
    """A backend that returns, for the rows of constraints or for the cost, other numbers."""
    original = CooCanonBackend.build_matrix

    def build(self, lin_ops, *args, **kwargs):
        matrix = sp.csc_array(original(self, lin_ops, *args, **kwargs))
        return sp.csc_array(change(sp.coo_array(matrix), len(lin_ops), self.var_length))

    monkeypatch.setattr(CooCanonBackend, "build_matrix", build)


def scaled_cost(matrix, count, width):
    return matrix * 1.5 if count == 1 else matrix


def wrong_right_side(matrix, count, width):
    """The equality's right-hand side, the last column's first row."""
    if count == 1:
        return matrix
    rows = matrix.shape[0] // (width + 1)
    data = matrix.data.copy()
    data[matrix.coords[0] == width * rows] += 0.4
    return sp.coo_array((data, matrix.coords), shape=matrix.shape)


@pytest.mark.parametrize(
    ("change", "where"), [(scaled_cost, "the objective"), (wrong_right_side, r"constraint 1 \(sum\(x")]
)
def test_a_backend_that_returns_other_numbers_is_told(monkeypatch, change, where):
    faulty(monkeypatch, change)
    problem, x, c = least_squares()
    x.value = np.array([9.0, 8.0, 7.0])
    with pytest.raises(cvxift.ProgramError, match=f"says something else than the problem.*{where}"):
        cvxift.differentiate(problem)
    assert x.value.tolist() == [9.0, 8.0, 7.0]
    assert c.value.tolist() == [1.0, -2.0, 0.5]


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_layer_looks_at_its_first_call(monkeypatch, framework):
    pytest.importorskip(framework)
    values = np.array([[1.0, -2.0, 0.5], [0.3, 0.2, 0.1]])
    if framework == "torch":
        import torch

        from cvxift.torch import CvxpyLayer

        given = torch.tensor(values)
    else:
        from cvxift.jax import CvxpyLayer

        given = values
    looked = []
    original = agreement.check_agreement
    monkeypatch.setattr(agreement, "check_agreement", lambda *args: (looked.append(args), original(*args)))
    problem, x, c = least_squares()
    x.value, c.value = np.array([9.0, 8.0, 7.0]), np.array([5.0, 5.0, 5.0])
    layer = CvxpyLayer(problem, parameters=[c], variables=[x])
    layer(given)
    layer(given[0])
    assert len(looked) == 1
    assert x.value.tolist() == [9.0, 8.0, 7.0]
    assert c.value.tolist() == [5.0, 5.0, 5.0]
    with monkeypatch.context() as patch:
        faulty(patch, scaled_cost)
        with pytest.raises(Exception, match="says something else than the problem"):
            CvxpyLayer(problem, parameters=[c], variables=[x])(given)


def test_parameters_in_another_order_and_geometric_programs_in_layers():
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    x, a, b = cp.Variable(2, name="x"), cp.Parameter(2, name="a"), cp.Parameter(name="b")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.sum(x) <= b])
    for order in ([a, b], [b, a]):
        given = {a: torch.tensor([1.0, 2.0]), b: torch.tensor(5.0)}
        CvxpyLayer(problem, parameters=order, variables=[x])(*(given[p] for p in order))
    y, p = cp.Variable(pos=True), cp.Parameter(pos=True)
    gp = cp.Problem(cp.Minimize(y + p / y))
    (root,) = CvxpyLayer(gp, parameters=[p], variables=[y], gp=True)(torch.tensor(4.0, dtype=torch.float64))
    assert np.isclose(root.item(), 2.0)


def test_a_parameter_that_nobody_found_is_told(monkeypatch):
    goes_through = reach.Reach.__init__

    def finds_what_is_listed(self, problem):
        goes_through(self, problem)
        self.parameters = tuple(problem.parameters())

    monkeypatch.setattr(reach.Reach, "__init__", finds_what_is_listed)
    z, x = cp.Variable(2), cp.Variable(2, name="x")
    p, q = cp.Parameter(2, value=np.array([1.0, -2.0])), cp.Parameter(2, value=np.array([0.1, 0.2]))
    hidden = cp.suppfunc(z, [cp.norm1(z) <= 1])(x - p)
    with pytest.raises(cvxift.ProgramError, match="the objective minimize"):
        cvxift.differentiate(cp.Problem(cp.Minimize(hidden + cp.sum_squares(x - q))))


@pytest.mark.parametrize("name", ZOO)
def test_every_canonical_program_agrees(name):
    if OLD and name in NEEDS_1_9:
        pytest.skip("needs CVXPY 1.9")
    case = ZOO[name](np.random.default_rng(3)).set()
    s = cvxift.differentiate(case.problem, gp=case.gp)
    assert s.solution.ok
    assert np.isclose(case.problem.value, s.value(case.problem.objective), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ATOMS)
@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_no_false_alarm_in_other_units(name, unit):
    x, c = cp.Variable(4, name="x"), cp.Parameter(4, value=SHIFT)
    bound = float(ATOMS[name](cp.Constant(SHIFT)).value)
    constraint = unit * ATOMS[name](x) <= unit * (bound - 0.01)
    with contextlib.suppress(cvxift.SolveError):  # the bound is below what some atoms reach
        cvxift.differentiate(cp.Problem(cp.Minimize(unit * cp.sum_squares(x - c)), [constraint]))


@pytest.mark.parametrize(
    "problem",
    [
        lambda z, c: cp.Problem(cp.Minimize(-cp.sum(cp.entr(z)) + c @ z), [z[0] == 0, z[1:] <= 1]),
        lambda z, c: cp.Problem(cp.Minimize(cp.sum(cp.rel_entr(z, np.ones(3)))), [z[0] == 0]),
        lambda z, c: cp.Problem(cp.Maximize(cp.sum(cp.sqrt(z)) - c @ z), [z[0] == 0, z <= 4]),
        lambda z, c: cp.Problem(cp.Minimize(cp.quad_over_lin(z[:2], z[2]) + z[2])),
        lambda z, c: cp.Problem(cp.Minimize(1e3 * c @ z - cp.sum(cp.entr(z))), [cp.sum(z) == 1, z >= 0]),
    ],
)
def test_no_false_alarm_at_the_edge_of_a_domain(problem):
    z, c = cp.Variable(3, name="z"), cp.Parameter(3, value=np.array([0.1, 0.2, 1.0]))
    made = problem(z, c)
    s = cvxift.differentiate(made)
    assert np.isfinite(made.value)
    assert np.isclose(made.value, s.value(made.objective))


# -- what `differentiate` leaves in the problem


@pytest.mark.parametrize("sense", [cp.Minimize, cp.Maximize])
def test_value_status_and_duals_are_those_of_solve(sense):
    def make():
        x, c = cp.Variable((2, 2), name="x"), cp.Parameter((2, 2), value=np.array([[1.0, -2.0], [0.5, 3.0]]))
        sign = 1 if sense is cp.Minimize else -1
        cone = cp.SOC(cp.Constant(np.array([2.0, 1.5])), x)
        constraints = [cp.sum(x) == 1, x <= 1, cone, x + x.T >> -5 * np.eye(2)]
        return cp.Problem(sense(sign * cp.sum_squares(x - c)), constraints), x

    solved, x = make()
    solved.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    problem, y = make()
    cvxift.differentiate(problem)
    assert problem.status == solved.status == "optimal"
    assert np.isclose(problem.value, solved.value)
    assert np.allclose(y.value, x.value, atol=1e-6)
    assert problem.solver_stats.solver_name
    assert np.allclose(problem.solution.primal_vars[y.id], x.value, atol=1e-6)
    for mine, theirs in zip(problem.constraints, solved.constraints, strict=True):
        assert mine.id in problem.solution.dual_vars
        for one, two in zip(mine.dual_variables, theirs.dual_variables, strict=True):
            assert np.shape(one.value) == np.shape(two.value)
            assert np.allclose(one.value, two.value, atol=1e-5)


def test_a_solved_problem_keeps_its_solver_and_its_accurate_values():
    problem, x, _ = least_squares()
    problem.solve(solver=cp.CLARABEL)
    value, held, stats = problem.value, x.value, problem.solver_stats
    s = cvxift.differentiate(problem)
    assert np.isclose(problem.value, value, rtol=1e-6)
    assert np.allclose(x.value, held, atol=1e-6)
    assert np.allclose(x.value, s.value(x), rtol=1e-12)
    assert problem.solver_stats is stats
    value, held = problem.value, x.value
    cvxift.differentiate(problem)
    assert problem.value == value
    assert x.value is held


@pytest.mark.parametrize("options", [{}, {"gp": True}, {"nlp": True}], ids=["dpp", "gp", "nlp"])
@pytest.mark.parametrize("step", [1e-4, 1e-6])
def test_values_follow_parameters_that_move_by_less_than_a_solver_is_accurate(options, step):
    x, t = cp.Variable(2, pos=bool(options.get("gp"))), cp.Parameter(2, pos=True)
    if "gp" in options:
        problem = cp.Problem(cp.Minimize(x[0] / x[1] + t[0] * x[0] * x[1] + t[1] / x[0]), [x[1] <= 3])
    else:
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t) + cp.sum(cp.exp(x))))
    center, direction = np.array([1.0, 2.0]), np.array([1.0, 0.5])
    values, derivatives, costs, slopes = [], [], [], []
    for k in (1, -1):
        t.value = center + k * step * direction
        s = cvxift.differentiate(problem, **options)
        assert np.allclose(x.value, s.value(x), rtol=1e-12)
        values.append(np.array(x.value))
        costs.append(problem.value)
        derivatives.append(s.jvp({t: direction})[x])
        slopes.append(s.vjp({problem.objective: 1.0})[t] @ direction)
    derivative, slope = np.mean(derivatives, axis=0), np.mean(slopes)
    assert np.allclose((values[0] - values[1]) / (2 * step), derivative, rtol=1e-6)
    assert np.isclose((costs[0] - costs[1]) / (2 * step), slope, rtol=1e-6)


@pytest.mark.parametrize("sense", [cp.Minimize, cp.Maximize])
def test_infeasible_and_unbounded_are_said_as_solve_says_them(sense):
    sign = 1 if sense is cp.Minimize else -1
    for constraints, status in (
        ([lambda x: x >= 1, lambda x: x <= 0], "infeasible"),
        ([lambda x: x <= 0], "unbounded"),
    ):
        problems = []
        for _ in range(2):
            x = cp.Variable(2)
            problems.append((cp.Problem(sense(sign * cp.sum(x)), [c(x) for c in constraints]), x))
        (solved, _), (problem, x) = problems
        solved.solve(solver=cp.CLARABEL)
        x.value = np.ones(2)
        with pytest.raises(cvxift.SolveError):
            cvxift.differentiate(problem, solver="clarabel")
        assert problem.status == solved.status == status
        assert problem.value == solved.value
        assert x.value is None


# -- declared bounds


@pytest.mark.parametrize("solver", [None, "scs", "clarabel", "osqp"])
def test_declared_bounds_hold_exactly(solver):
    rng = np.random.default_rng(0)
    low, high = np.where(rng.random(12) < 0.5, -0.3, -np.inf), np.where(rng.random(12) < 0.5, 0.7, np.inf)
    c = cp.Parameter(12)
    for seed in range(5):
        c.value = np.random.default_rng(seed).normal(size=12)
        for attributes, ends in (
            ({"nonneg": True}, (0.0, np.inf)),
            ({"nonpos": True}, (-np.inf, 0.0)),
            ({"bounds": [low, high]}, (low, high)),
            ({"bounds": [-0.1, 0.2]}, (-0.1, 0.2)),
        ):
            x = cp.Variable(12, **attributes)
            A = rng.normal(size=(20, 12))
            problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ (x - c)) + 0.1 * cp.norm(x, 1)))
            s = cvxift.differentiate(problem, solver=solver)
            for value in (s.value(x), x.value):
                assert np.all(value >= ends[0])
                assert np.all(value <= ends[1])


def test_declared_bounds_hold_exactly_in_layers():
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    x, y = cp.Variable(6, nonneg=True), cp.Variable((2, 2), bounds=[-1.0, 0.25])
    c, d = cp.Parameter(6), cp.Parameter((2, 2))
    A = np.random.default_rng(0).normal(size=(9, 6))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ (x - c)) + cp.sum_squares(y - d) + cp.exp(cp.sum(x) / 9)))
    layer = CvxpyLayer(problem, parameters=[c, d], variables=[x, y])
    generator = torch.Generator().manual_seed(0)
    C, D = (torch.randn(30, *shape, generator=generator, dtype=torch.float64) for shape in ((6,), (2, 2)))
    for first, second in ((C, D), (C[0], D[0])):
        a, b = layer(first, second)
        assert (a >= 0).all()
        assert (b >= -1).all()
        assert (b <= 0.25).all()


def test_a_program_holds_nothing_of_the_check():
    problem, _, c = least_squares()
    program = Program(problem)
    s = cvxift.differentiate(problem, program=program)
    agreement.check_agreement(program, s.solution.data, c.value, s.solution.x, 0.0)
    moved = s.solution.x + 0.1
    with pytest.raises(cvxift.ProgramError, match="says something else"):
        agreement.check_agreement(program, s.solution.data, c.value, moved, 0.0)
