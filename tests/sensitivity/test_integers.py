"""Mixed-integer problems whose integers are held at their optimum: sensitivities, layers, reports, refusals."""

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.errors import ProgramError, SolveError

RNG = np.random.default_rng(0)
DEMAND, COST, OPENING = np.array([3.0, 4.0, 2.0]), RNG.uniform(1, 4, (4, 3)), RNG.uniform(3, 5, 4)


class Facilities:
    """Which of four facilities open, and what each ships to three customers; a truck's load is whole."""

    def __init__(self, money=1.0, unit=1.0):  # of the cost, and of what is shipped
        self.opened = cp.Variable(4, boolean=True, name="opened")
        self.trucks = cp.Variable(integer=True, name="trucks")
        self.ship = cp.Variable((4, 3), nonneg=True, name="ship")
        self.demand = cp.Parameter(3, name="demand", value=DEMAND)
        self.cost = cp.Parameter((4, 3), name="cost", nonneg=True, value=COST)
        self.opening = cp.Parameter(4, name="opening", nonneg=True, value=OPENING)
        ship = unit * self.ship
        self.total = cp.sum(ship) <= 2 * self.trucks
        self.problem = cp.Problem(
            cp.Minimize(
                money * (cp.sum(cp.multiply(self.cost, ship)) + self.opening @ self.opened + 0.1 * self.trucks)
            ),
            [cp.sum(ship, axis=0) >= self.demand, cp.sum(ship, axis=1) <= 8 * self.opened, self.total],
        )
        self.parameters = [self.demand, self.cost, self.opening]


def differences(solve, parameter, step=1e-4):
    """Central differences of what `solve` returns; exact for a linear program as long as its basis stays."""
    middle, out = parameter.value.copy(), []
    for index in np.ndindex(parameter.shape):
        ends = []
        for sign in (1, -1):
            value = middle.copy()
            value[index] += sign * step
            parameter.value = value
            ends.append(np.array(solve()))
        out.append((ends[0] - ends[1]) / (2 * step))
    parameter.value = middle
    return np.stack(out, axis=-1).reshape(*np.shape(out[0]), *parameter.shape)


def test_derivatives_are_those_of_the_mixed_integer_solver_itself():
    m = Facilities()
    s = cvxift.differentiate(m.problem, integers="fixed")
    for parameter in m.parameters:
        found = s.jacobian(m.ship, parameter)

        def solve():
            m.problem.solve(solver="HIGHS", mip_rel_gap=0.0)
            return m.ship.value

        assert np.allclose(found, differences(solve, parameter), atol=1e-7)
    assert np.abs(s.jacobian(m.ship, m.demand)).max() > 0.5  # something moves


def test_the_optimal_values_gradient_is_that_of_the_envelope_theorem():
    m = Facilities()
    s = cvxift.differentiate(m.problem, integers="fixed")
    assert m.problem.status == cp.OPTIMAL and np.isclose(s.value(m.problem.objective), m.problem.value)
    assert np.allclose(s.jacobian(m.problem.objective, m.opening), s.value(m.opened))
    assert np.allclose(s.jacobian(m.problem.objective, m.cost), s.value(m.ship), atol=1e-9)
    assert s.value(m.trucks) == 5.0 and set(s.value(m.opened)) == {0.0, 1.0}
    assert not s.jacobian(m.opened, m.demand).any() and not s.jvp({m.cost: np.ones((4, 3))})[m.trucks].any()


def test_a_parameter_may_multiply_an_integer():
    x, y, t = cp.Variable(name="x"), cp.Variable(integer=True, name="y"), cp.Parameter(name="t", value=0.7)
    problem = cp.Problem(cp.Minimize(x + 0.1 * y), [x >= 3 - t * y, y <= 4, y >= 0])
    s = cvxift.differentiate(problem, integers="fixed")
    assert s.value(y) == 4.0 and np.isclose(s.value(x), 3 - 0.7 * 4) and np.isclose(s.jacobian(x, t), -4.0)


def test_quadratic_costs_with_a_solver_that_takes_them():
    pytest.importorskip("pyscipopt")
    x, pick, t = cp.Variable(4), cp.Variable(4, boolean=True), cp.Parameter(4, value=np.array([0.3, -2.0, 1.0, 0.4]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.abs(x) <= 5 * pick, cp.sum(pick) <= 2])
    s = cvxift.differentiate(problem, integers="fixed")
    assert np.allclose(s.value(x), [0, -2, 1, 0], atol=1e-8)  # the two largest entries stay
    assert np.allclose(s.jacobian(x, t), np.diag([0, 1, 1, 0]), atol=1e-8)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_layers_hold_the_integers_of_each_instance(framework):
    adapter, m = pytest.importorskip(f"cvxift.{framework}"), Facilities()
    layer = adapter.CvxpyLayer(m.problem, m.parameters, [m.ship, m.opened], integers="fixed", check="off")
    costs = np.stack([COST, COST[::-1]])
    weights = RNG.normal(size=(4, 3))
    if framework == "torch":
        import torch

        values = [torch.tensor(v, requires_grad=True) for v in (DEMAND, costs, OPENING)]
        ship, opened = layer(*values)
        (ship * torch.tensor(weights)).sum().backward()
        gradient = values[0].grad.numpy()
        ship, opened = ship.detach().numpy(), opened.detach().numpy()
    else:
        import jax

        with jax.enable_x64(True):
            given = [jax.numpy.asarray(v) for v in (costs, OPENING)]
            gradient = jax.grad(lambda d: (layer(d, *given)[0] * weights).sum())(jax.numpy.asarray(DEMAND))
            ship, opened = map(np.asarray, layer(jax.numpy.asarray(DEMAND), *given))
    expected = np.zeros(3)
    for k in range(2):
        m.cost.value = costs[k]
        s = cvxift.differentiate(m.problem, integers="fixed", check="off")
        assert np.allclose(s.value(m.ship), ship[k], atol=1e-7) and np.allclose(s.value(m.opened), opened[k])
        expected += s.vjp({m.ship: weights})[m.demand]
    assert not np.array_equal(opened[0], opened[1])
    assert np.allclose(gradient, expected, atol=1e-6)
    reports = layer.diagnose(DEMAND, costs, OPENING)
    assert all("held at the optimum" in str(report) for report in reports.reports)


def test_a_layer_leaves_the_users_problem_as_it_was():
    torch, m = pytest.importorskip("torch"), Facilities()
    adapter = pytest.importorskip("cvxift.torch")
    layer = adapter.CvxpyLayer(m.problem, m.parameters, [m.ship], integers="fixed", check="off")
    layer(*(torch.tensor(2 * v) for v in (DEMAND, COST, OPENING)))
    assert m.ship.value is None and np.array_equal(m.demand.value, DEMAND) and m.problem.status is None


@pytest.mark.parametrize(("money", "unit"), [(1e-9, 1.0), (1e-7, 1e6), (1e6, 1e-6)])
def test_the_best_choice_is_the_same_in_other_units(money, unit):
    plain, m = Facilities(), Facilities(money, unit)
    expected, s = (cvxift.differentiate(k.problem, integers="fixed") for k in (plain, m))
    assert np.array_equal(s.value(m.opened), expected.value(plain.opened))
    assert np.allclose(unit * s.jacobian(m.ship, m.demand), expected.jacobian(plain.ship, plain.demand))


@pytest.mark.parametrize("bound", [10.0, 1e8])
def test_an_integer_near_zero_opens_no_large_bound(bound):
    x, y, t = cp.Variable(2, nonneg=True), cp.Variable(2, boolean=True), cp.Parameter(value=2.0)
    cost = np.array([1.0, 1.5]) @ x + np.array([4.0, 3.5]) @ y
    problem = cp.Problem(cp.Minimize(cost), [cp.sum(x) >= t, x <= bound * y])
    s = cvxift.differentiate(problem, integers="fixed")
    assert np.allclose(s.value(x), [2, 0]) and np.allclose(s.jacobian(x, t), [1, 0]) and s.report.ok


def gap_problem(price, money=1.0):
    """One of two machines, of the given price and of price 1, makes x ≥ t."""
    x, y, t = cp.Variable(2, nonneg=True, name="x"), cp.Variable(2, boolean=True, name="y"), cp.Parameter(name="t")
    t.value = 2.0
    cost = money * (price * x[0] + x[1] + y @ np.array([1.0, 1.0]))
    problem = cp.Problem(cp.Minimize(cost), [cp.sum(x) >= t, x <= 10 * y])
    return problem, x, t


def test_the_report_says_how_far_the_next_choice_is_and_tells_a_tie():
    for money, worse in ((1.0, "1"), (1e-7, "1e-07")):
        problem, _, _ = gap_problem(1.5, money)
        report = cvxift.diagnose(problem, integers="fixed")
        assert report.ok and "holds while this choice stays the best" in str(report)
        assert f"worse by {worse} in" in str(report)
    problem, _, _ = gap_problem(1.0)
    report = cvxift.diagnose(problem, integers="fixed")
    assert report.verdict is cvxift.Verdict.DOES_NOT_APPLY
    assert report.faults[0].cause == "tie of integers" and "x" in report.faults[0].where
    assert cvxift.differentiate(problem, integers="fixed").report.verdict is report.verdict


def test_without_the_argument_the_error_names_it():
    problem, x, t = gap_problem(1.5)
    adapter = pytest.importorskip("cvxift.torch")
    with pytest.raises(ProgramError, match="Pass integers='fixed'"):
        cvxift.differentiate(problem)
    with pytest.raises(ProgramError, match="Pass integers='fixed'"):
        adapter.CvxpyLayer(problem, [t], [x])
    assert "Pass integers='fixed'" in str(cvxift.diagnose(problem))


def with_entries():
    v = cp.Variable(3, boolean=[(0,)], name="v")
    return cp.Problem(cp.Minimize(cp.sum(v)), [v >= 0])


def finite():
    v = cp.Variable(name="v")
    return cp.Problem(cp.Minimize(v), [cp.FiniteSet(v, [1.0, 2.0])])


def integers_alone():
    v = cp.Variable(2, integer=True)
    return cp.Problem(cp.Minimize(cp.sum(v)), [v >= cp.Parameter(2, value=[0.5, 0.5])])


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (with_entries, {}, "integer in some of its entries only"),
        (finite, {}, "finitely many values"),
        (integers_alone, {}, "All variables of the problem are integers"),
        (lambda: cp.Problem(cp.Minimize(cp.sum_squares(cp.Variable(2)))), {}, "has no integer variable"),
        (lambda: gap_problem(2.0)[0], {"integers": "held"}, "integers='held' is not known"),
        (lambda: gap_problem(2.0)[0], {"gp": True}, "exclude each other"),
        (lambda: gap_problem(2.0)[0], {"nlp": True}, "exclude each other"),
        (lambda: gap_problem(2.0)[0], {"solver": "CLARABEL"}, "No installed solver takes"),
    ],
)
def test_what_cannot_be_held_is_refused(make, options, message):
    with pytest.raises(ProgramError, match=message):
        cvxift.differentiate(make(), **{"integers": "fixed", **options})


def test_a_parameter_without_a_value_is_named():
    problem, _, t = gap_problem(2.0)
    t.value = None
    with pytest.raises(ProgramError, match="'t' has no value"):
        cvxift.differentiate(problem, integers="fixed")


def test_no_solution_is_said_and_costs_the_batch_nothing():
    problem, x, t = gap_problem(2.0)
    t.value = 30.0
    with pytest.raises(SolveError, match="infeasible"):
        cvxift.differentiate(problem, integers="fixed")
    assert problem.status == cp.INFEASIBLE
    assert cvxift.diagnose(problem, integers="fixed").verdict is cvxift.Verdict.NOT_OPTIMAL
    torch, adapter = pytest.importorskip("torch"), pytest.importorskip("cvxift.torch")
    layer = adapter.CvxpyLayer(problem, [t], [x], integers="fixed", on_failure="nan", check="off")
    given = torch.tensor([30.0, 2.0], dtype=torch.float64, requires_grad=True)
    with pytest.warns(UserWarning, match="1 of 2 instances failed"):
        (out,) = layer(given)
    assert out[0].isnan().all() and torch.allclose(out[1], torch.tensor([0.0, 2.0], dtype=torch.float64))
    out[1].sum().backward()
    assert torch.allclose(given.grad, torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_a_failure_names_the_solver_that_was_tried(monkeypatch):
    """HiGHS takes no quadratic constraint, so that CVXPY chooses another; its failure is not HiGHS's."""
    k, z, t = cp.Variable(integer=True), cp.Variable(2), cp.Parameter(2, value=[0.4, 1.2])

    def solve(self, solver=None, **options):
        raise cp.SolverError(f"Solver '{solver or 'SCIP'}' failed. Try another solver, or solve with verbose=True.")

    monkeypatch.setattr(cp.Problem, "solve", solve)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - t) + k), [z >= k, k >= 0])
    for options, tried in (({}, "SCIP"), ({"solver": "GUROBI"}, "GUROBI")):
        with pytest.raises(SolveError, match=f"{tried} says failed"):
            cvxift.differentiate(problem, integers="fixed", **options)
