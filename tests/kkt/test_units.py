"""Units of rows, columns and cost change nothing: values, derivatives, acceptance, points that a problem holds."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
from plant import plant

import cvxift
from cvxift.cones import Cones
from cvxift.errors import ApplicabilityError, ApplicabilityWarning, SolveError
from cvxift.kkt.engine import ACCEPTABLE, TOLERANCE, Engine
from cvxift.kkt.equilibration import Equilibration
from cvxift.kkt.solution_map import SolutionMap
from cvxift.kkt.units import Units
from cvxift.program.structure import Data, Structure

CONES = [Cones(zero=2, nonneg=8), Cones(nonneg=4, soc=(3, 4)), Cones(zero=1, psd=(3,), nonneg=2), Cones(exp=2, zero=2)]
QUADRATIC = ("daqp", "piqp", "osqp")


def random_units(cones: Cones, n: int, rng, spread: float = 6.0) -> Units:
    each = np.diff(np.append(cones.unit_starts, cones.m))
    rows = np.repeat(10.0 ** rng.uniform(-spread, spread, cones.units), each)
    return Units(rows, 10.0 ** rng.uniform(-spread, spread, n), np.asarray(10.0 ** rng.uniform(-spread, spread)))


@pytest.mark.parametrize("cones", CONES, ids=str)
def test_the_units_found_take_others_back(rng, cones):
    n = 7
    for _ in range(5):
        planted = plant(cones, n, rng)
        find, units = Equilibration(planted.structure), random_units(cones, n, rng)
        moved = units.data(planted.structure, planted.data)
        found = find(moved)
        assert found is not None
        small = found.data(planted.structure, moved)
        for part in (small.P, small.A):
            assert np.abs(part).max() < 1e2
        both = [np.log10(there * here) for there, here in ((found.rows, units.rows), (found.columns, units.columns))]
        assert max(np.ptp(part) for part in both) < 2.5  # the entries themselves are that far apart
        for power in (found.rows, found.columns, found.cost):
            assert np.array_equal(np.exp2(np.round(np.log2(power))), power)
        assert find(planted.data) is None or np.abs(np.log10(find(planted.data).rows)).max() < 2.5


def test_a_batch_has_each_instances_own_units(rng):
    planted = plant(CONES[0], 7, rng)
    find = Equilibration(planted.structure)
    moved = [random_units(CONES[0], 7, rng, spread).data(planted.structure, planted.data) for spread in (0.0, 3.0, 6.0)]
    batch = type(moved[0])(*(np.stack([getattr(one, key) for one in moved]) for key in ("P", "q", "A", "b", "d")))
    found = find(batch)
    assert found is not None
    assert (found.rows[0] == 1.0).all() and (found.columns[0] == 1.0).all() and found.cost[0] == 1.0
    for k in (1, 2):
        alone = find(moved[k])
        assert alone is not None
        for key in ("rows", "columns", "cost"):  # powers of two, rounded from the same numbers
            ratio = getattr(found, key)[k] / getattr(alone, key)
            assert np.abs(np.log2(ratio)).max() <= 1.0


@pytest.mark.parametrize("cones", CONES, ids=str)
@pytest.mark.parametrize("solver", [None, "daqp", "piqp", "osqp", "clarabel", "scs"])
def test_the_point_does_not_depend_on_units(rng, cones, solver):
    if solver in QUADRATIC and not cones.polyhedral:
        pytest.skip("it solves quadratic programs")
    n = 7
    for _ in range(3):
        planted = plant(cones, n, rng)
        units = random_units(cones, n, rng, 4.0 if solver in ("osqp", "scs") else 6.0)
        solution = Engine(planted.structure, solver=solver).solve(units.data(planted.structure, planted.data))
        assert solution.ok and solution.residuals.worst <= TOLERANCE, solution.describe()
        np.testing.assert_allclose(units.point_back(solution.x, solution.s, solution.y)[0], planted.x, atol=1e-7)
        assert solution.attempts[0][0] == solution.solver or solver is None


# JAX's arrays take the way of PyTorch's, and every operation on them is compiled: they are asked once.
@pytest.mark.parametrize(
    ("path", "cone"),
    [*((path, cone) for path in ("one", "batch", "torch") for cone in ("linear", "norm", "exp")), ("jax", "linear")],
)
def test_derivatives_do_not_depend_on_units(rng, path, cone):
    from cvxift.kkt.batch.device import DeviceMap
    from tests.kkt.places import place_of

    n, theta = 3, np.array([[0.9, -0.2, 0.4, 1.0], [1.2, 0.3, -0.5, 0.8]])
    atoms = {
        "linear": lambda z, t: cp.sum(z) <= t,
        "norm": lambda z, t: cp.norm(z) <= t,
        "exp": lambda z, t: cp.exp(z[0]) <= t,
    }

    def jacobian(D, row, cost):
        x, c, t = cp.Variable(n), cp.Parameter(n), cp.Parameter()
        z = cp.multiply(D, x)
        constraint = atoms[cone](row * z, row * t) if cone != "exp" else row * cp.exp(z[0]) <= row * t
        m = SolutionMap(cp.Problem(cp.Minimize(cost * cp.sum_squares(z - c)), [constraint]), [c, t], [x])
        eye = np.eye(n)
        if path == "one":
            solved = [m.solve(point) for point in theta]
            assert all(s.solutions[0].residuals.worst <= TOLERANCE for s in solved)
            rows = [np.stack([m.vjp(s, e) for e in eye]) for s in solved]
            curved = [m.derivative(s, (np.ones(n + 1),), np.ones(n)) for s in solved]
            return np.stack([s.outputs for s in solved]) * D, np.stack(rows) * D[:, None], np.stack(curved)
        if path == "batch":
            s = m.solve(theta)
            rows = np.stack([m.vjp(s, np.tile(e, (2, 1))) for e in eye], axis=1)
            return s.outputs * D, rows * D[:, None], m.derivative(s, (np.ones((2, n + 1)),), np.ones((2, n)))
        with place_of(path) as where:
            there = DeviceMap(m, where)
            s = there.solve(where.put(theta))
            rows = np.stack([where.host(there.vjp(s, where.put(np.tile(e, (2, 1))))) for e in eye], axis=1)
            second = where.host(there.derivative(s, (where.put(np.ones((2, n + 1))),), where.put(np.ones((2, n)))))
            return where.host(s.outputs) * D, rows * D[:, None], second

    value, first, _ = jacobian(np.ones(n), 1.0, 1.0)
    for D, row, cost in ((np.full(n, 1e5), 1.0, 1.0), (np.array([1e-4, 1.0, 1e4]), 1e5, 1e-5), (np.ones(n), 1e-6, 1e6)):
        there, derivative, second = jacobian(D, row, cost)
        np.testing.assert_allclose(there, value, atol=1e-9)
        np.testing.assert_allclose(derivative, first, atol=1e-6)
        assert np.isfinite(second).all()


def test_a_start_from_another_point_is_in_the_programs_own_units():
    x, c = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(1e5 * x - c)), [1e5 * x >= 0])
    m = SolutionMap(problem, [c], [x], solver="osqp")
    first = m.solve(np.array([1.0, -1.0, 2.0]))
    assert first.solutions[0].units is not None
    np.testing.assert_allclose(first.warm()[0].x, [1e-5, 0.0, 2e-5], atol=1e-13)
    again = m.solve(np.array([1.1, -1.0, 2.0]), warm=first.warm())
    batch = m.solve(np.array([[1.0, -1.0, 2.0], [1.1, -1.0, 2.0]]), warm=[*first.warm(), *again.warm()])
    np.testing.assert_allclose(batch.outputs[1], again.outputs, atol=1e-13)


def test_the_central_path_is_the_programs_own():
    # s y = μ in the units that the user wrote, whatever those that it is solved in.
    for unit in (1.0, 1e-5, 1e5):
        x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c", value=np.array([1.0, 2.0]))
        problem = cp.Problem(cp.Minimize(c @ x / unit), [cp.sum(x) / unit == 1, x / unit >= 0])
        J = cvxift.differentiate(problem, singular="smooth", mu=1e-2, closed_form="never").jacobian(x, c) / unit
        if unit == 1.0:
            expected = J
        np.testing.assert_allclose(J, expected, rtol=1e-6)


# Slightly infeasible: supplies below demands by three times ε.
@pytest.mark.parametrize("solver", [None, "daqp", "piqp", "osqp", "clarabel", "scs"])
@pytest.mark.parametrize("cone", ["linear", "norm"])
@pytest.mark.parametrize("batched", [False, True], ids=["one", "batch"])
def test_what_is_infeasible_is_not_solved_in_silence(solver, cone, batched):
    if solver in QUADRATIC and cone != "linear":
        pytest.skip("it solves quadratic programs")
    Z, s = cp.Variable((3, 3), name="Z"), cp.Parameter(3, name="s")
    cost = np.array([[1.0, 3, 4], [2.5, 1, 3], [4, 2, 1.5]])
    tail = [cp.norm(Z) <= 9] if cone == "norm" else []
    constraints = [Z >= 0, cp.sum(Z, 1) <= s, cp.sum(Z, 0) == np.ones(3), *tail]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(cost, Z)) + 0.1 * cp.sum_squares(Z)), constraints)
    m = SolutionMap(problem, [s], [Z], solver=solver)
    for eps in (1e-7, 1e-6, 1e-5, 1e-4):
        theta = np.full((2, 3) if batched else 3, 1.0 - eps)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                m.solve(theta)
            except SolveError:
                continue
        assert any(issubclass(w.category, ApplicabilityWarning) for w in told) and eps < 1e-6
        assert "sum" in str(told[0].message).lower() and "relative residual" in str(told[0].message)


def test_a_point_short_of_the_goal_is_told():
    for batched in (False, True):
        x, t = cp.Variable(2, name="x"), cp.Parameter(name="t")
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 3)), [cp.sum(x) == t, cp.sum(x) == 1 + 1e-8])
        theta = np.array([[1.0 + 1e-8], [1.0]]) if batched else np.array([1.0])
        with pytest.warns(
            ApplicabilityWarning, match=r"relative residual of [23]\.\de-09.*constraint [01] \(.*um\(x"
        ) as told:
            solved = SolutionMap(problem, [t], [x]).solve(theta)
        assert ("Instance (1,)" in str(told[0].message)) is batched
        assert TOLERANCE < max(s.residuals.worst for s in solved.solutions) < ACCEPTABLE
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            SolutionMap(problem, [t], [x], check="off").solve(theta)
        with pytest.raises(ApplicabilityError, match="relative residual"):
            SolutionMap(problem, [t], [x], check="raise").solve(theta)
    t.value = 1.0
    with pytest.warns(ApplicabilityWarning, match="relative residual"):
        cvxift.differentiate(problem)


CONSTRAINTS = {
    "geo_mean": lambda x, t, r: r * cp.geo_mean(x) >= r * t,
    "exp": lambda x, t, r: r * cp.exp(x[0]) <= r * t,
    "norm": lambda x, t, r: r * cp.norm(x) <= r * t,
    "linear": lambda x, t, r: r * cp.sum(x) <= r * t,
}


@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize("held", ["differentiated", "solved"])
@pytest.mark.parametrize("r", [1e-4, 1.0, 1e4])
def test_a_held_point_is_the_point_in_any_unit_of_a_row(name, held, r):
    x = cp.Variable(2, name="x")
    c, t = cp.Parameter(2, name="c", value=np.array([0.6, 1.1])), cp.Parameter(name="t", value=1.0)
    problem = cp.Problem(cp.Minimize(0.01 * cp.sum_squares(x - c)), [CONSTRAINTS[name](x, t, r)])
    if held == "solved":
        problem.solve(solver=cp.CLARABEL)
    else:
        cvxift.differentiate(problem)
    report = cvxift.diagnose(problem)
    assert report.ok, str(report)
    # Of another parameter the point is another one, and is not taken for this one's.
    t.value = 1.3
    assert not cvxift.diagnose(problem).ok
    np.testing.assert_allclose(
        cvxift.differentiate(problem).value(x), cvxift.differentiate(problem, solver="clarabel").value(x), atol=1e-8
    )


def test_flows_of_an_entropy_at_a_low_temperature_are_found():
    k = 4
    edges = [(i * k + j, i * k + j + 1) for i in range(k) for j in range(k - 1)]
    edges += [(i * k + j, i * k + k + j) for i in range(k - 1) for j in range(k)]
    M = np.zeros((k * k, len(edges)))
    for e, (a, b) in enumerate(edges):
        M[a, e], M[b, e] = -1, 1
    r = np.zeros(k * k)
    r[0], r[-1] = -1, 1
    f, t = cp.Variable(len(edges)), cp.Parameter(len(edges))
    objective, balance = cp.Minimize(t @ f - 0.1 * cp.sum(cp.entr(f))), M[:-1] @ f == r[:-1]
    free, bounded = (
        SolutionMap(cp.Problem(objective, [balance, *extra]), [t], [f], check="off") for extra in ([], [f >= 0])
    )
    for seed in range(10):
        theta = np.random.default_rng(seed).uniform(0.5, 3, len(edges))
        flow = free.solve(theta).outputs
        # Optimality: t + 0.1 (1 + log f) is a potential's difference, also where the flow is 1e-14.
        gradient = theta + 0.1 * (1.0 + np.log(flow))
        potential = np.linalg.lstsq(M.T, gradient, rcond=None)[0]
        assert np.abs(gradient - M.T @ potential).max() < 1e-7
        np.testing.assert_allclose(bounded.solve(theta).outputs, flow, atol=1e-8)


def test_units_are_found_once_for_programs_with_the_same_powers_of_two(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    structure = Structure.from_patterns(
        3, Cones(nonneg=3), P=(np.arange(3), np.arange(3)), A=(np.arange(3), np.arange(3))
    )
    values = [10.0 ** rng.integers(-4, 5, 3) for _ in range(4)]  # none near √2 times a power of two
    data = Data(*values, np.zeros(()))
    made: list[None] = []
    scale = Equilibration._scale
    monkeypatch.setattr(Equilibration, "_scale", lambda *of: made.append(None) or scale(*of))
    find = Equilibration(structure)
    first, again = find(data), find(Data(*(1.001 * part for part in values), np.zeros(())))
    assert len(made) == 1
    other = Data(values[0], 8.0 * values[1], *values[2:], np.zeros(()))
    found, fresh = find(other), Equilibration(structure)(other)
    assert len(made) == 3
    for one, two in ((first, again), (found, fresh)):  # what was found before changes nothing
        for part in ("rows", "columns", "cost"):
            np.testing.assert_array_equal(getattr(one, part), getattr(two, part))


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0, 1e4])
def test_units_that_light_entries_alone_settle(unit):
    # Σ 1/xᵢ ≤ t, nearest to 0: xᵢ = n/t. Only the constants of the reciprocals' cones say what u w is.
    x, t = cp.Variable(3), cp.Parameter(value=1.0)
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(unit * x) / unit), [unit * cp.sum(cp.inv_pos(unit * x)) <= unit * t]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ApplicabilityWarning)
        s = cvxift.differentiate(problem)
        np.testing.assert_allclose(s.jvp({t: 1.0})[x] * unit, -3.0, rtol=1e-6)
    np.testing.assert_allclose(s.value(x) * unit, 3.0, rtol=1e-6)


def _ball(x, a, r):
    return a @ x, [cp.norm(x) <= r]


def _ball_with_a_fixed_column(x, a, r):
    z = cp.Variable(4)
    return a @ x + a[0] * z[3], [cp.norm(z) <= r, x == z[:3], z[3] == 0.5 * r]


def _trace(x, a, r):
    X = cp.Variable((2, 2), symmetric=True)
    return a @ x, [X >> 0, cp.trace(X) <= r, x == cp.hstack([X[0, 0], X[1, 1], X[0, 1]])]


def _powers(x, a, r):
    return -a @ cp.power(x, 0.4, approx=False), [cp.sum(x) <= r]


def _logarithms(x, a, r):
    return -a @ cp.log(x), [cp.sum(x) <= r]


@pytest.mark.parametrize("build", [_ball, _ball_with_a_fixed_column, _trace, _powers, _logarithms])
def test_second_derivatives_do_not_depend_on_units(build):
    x, a, r = cp.Variable(3), cp.Parameter(3, pos=True), cp.Parameter(pos=True)
    cost, rows = build(x, a, r)
    mapping, found = SolutionMap(cp.Problem(cp.Minimize(cost), rows), [a, r], [x]), []
    bar, first, other = np.array([1.0, -0.4, 0.2]), np.array([0.1, -0.2, 0.3, 0.4]), np.array([-0.3, 0.1, 0.2, 0.1])
    for price, size in [(1.0, 1.0), (1e8, 1e-8), (1e-7, 1e7), (1e-4, 1e-4), (1.0, 1e7)]:
        unit = np.array([price, price, price, size])
        solved = mapping.solve(unit * np.array([0.5, 0.8, 0.3, 1.0]))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reverse = mapping.derivative(solved, (unit * first,), bar) * unit / size
            forward = mapping.derivative(solved, (unit * first, unit * other)) / size
        assert reverse @ other == pytest.approx(bar @ forward, rel=1e-8)
        found.append(np.concatenate([reverse, forward]))
    for values in found[1:]:
        np.testing.assert_allclose(values, found[0], atol=1e-8 * np.abs(found[0]).max())
