"""The batched dense path: the same numbers as instance by instance, on NumPy, PyTorch and JAX arrays alike."""

from __future__ import annotations

import numpy as np
import pytest

from cvxift.cones import Cones
from cvxift.cones.product import PlacedCones, on_host
from cvxift.errors import ApplicabilityError, ApplicabilityWarning, ProgramError, SolveError
from cvxift.kkt import newton
from cvxift.kkt.backend import HOST, Arrays
from cvxift.kkt.batch import solve as batch_path
from cvxift.kkt.batch.device import DeviceMap, reason
from cvxift.kkt.batch.programs import DensePrograms
from cvxift.kkt.batch.solutions import DenseBatch
from cvxift.kkt.equilibration import Equilibration
from cvxift.kkt.instance import Layout
from cvxift.kkt.policy import Policy
from cvxift.kkt.residuals import FLOOR
from cvxift.kkt.solution_map import SolutionMap, Solved
from cvxift.kkt.system import batched as dense_systems
from cvxift.program.products import apply
from cvxift.program.structure import Data, Structure
from tests.kkt.places import KINDS, PLACES, blind_run, counting, mapping, place_of, thetas

SIZES = {"small": (6, 5, 2), "larger": (30, 40, 6), "no equality": (5, 8, 0)}


def close(got, expected, tolerance: float = 1e-10) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max(initial=0.0) <= tolerance * (1.0 + np.abs(expected).max(initial=0.0))


def placed(where: Arrays, cones: Cones) -> PlacedCones:
    return PlacedCones(cones, where.xp, where.put, where.host)


def options_of(kind: str) -> dict:
    """An interior-point solver shares multipliers among repeated rows: they are not unique, and K is singular."""
    return {"duals": False, "solver": "clarabel"} if kind == "repeated rows" else {}


def determined(kind: str, bar: np.ndarray, n: int, m: int) -> np.ndarray:
    """The part of a cotangent of θ that is unique: of repeated rows, whose multipliers are not, the sums alone."""
    if kind != "repeated rows":
        return bar
    bar = np.array(bar)
    h, G = bar[:, :m], bar[:, m : m + m * n].reshape(len(bar), m, n)
    for rows in (h, G):
        rows[:, 0] += rows[:, 1]
        rows[:, 1] = 0.0
    return bar


def diagonal(theta: np.ndarray, n: int) -> np.ndarray:
    """θ with Q's diagonal alone, for the problem whose Q is a vector."""
    Q = theta[:, -n * n :].reshape(len(theta), n, n)
    return np.concatenate([theta[:, : -n * n], Q.diagonal(axis1=1, axis2=2)], axis=1)


def one_by_one(m: SolutionMap, theta: np.ndarray) -> list[Solved]:
    """Every instance through the unbatched path."""
    return [m.solve(row) for row in theta]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_host_batch_equals_its_instances(kind: str, size: str, rng: np.random.Generator) -> None:
    m = mapping(*SIZES[size], **options_of(kind))
    theta = thetas(kind, 4, *SIZES[size], rng)
    solved, singles = m.solve(theta), one_by_one(m, theta)
    assert isinstance(solved.solutions, DenseBatch)
    bar, dot = rng.standard_normal(solved.outputs.shape), rng.standard_normal(theta.shape)
    close(solved.outputs, [s.outputs for s in singles])
    expected = np.array([m.vjp(s, row) for s, row in zip(singles, bar, strict=True)])
    close(*(determined(kind, part, *SIZES[size][:2]) for part in (m.vjp(solved, bar), expected)))
    if kind != "repeated rows":  # there, a change of one of the rows has no derivative
        close(m.jvp(solved, dot), [m.jvp(s, row) for s, row in zip(singles, dot, strict=True)])


# JAX compiles every operation for every shape: there, the diagonal problem once.
EVERYWHERE = [
    (place, kind, squares)
    for place in PLACES
    for kind in KINDS
    for squares in (True, False)
    if squares or kind == "random" or place != "jax"
]


@pytest.mark.parametrize(("place", "kind", "squares"), EVERYWHERE)
def test_every_place_equals_the_unbatched_path(place: str, kind: str, squares: bool, rng: np.random.Generator) -> None:
    n, rows, p = 6, 5, 2
    m = mapping(n, rows, p, squares=squares, **options_of(kind))
    theta = thetas(kind, 3, n, rows, p, rng)
    theta = theta if squares else diagonal(theta, n)  # the planted point is not the solution then, which does no harm
    singles = one_by_one(m, theta)
    bar, dot, other = (rng.standard_normal((3, k)) for k in (m.output_size, m.theta_size, m.theta_size))
    with place_of(place) as where:
        there = DeviceMap(m, where)
        put = [where.put(v) for v in (theta, bar, dot, other)]
        solved = there.solve(put[0])
        got = {
            "outputs": solved.outputs,
            "vjp": there.vjp(solved, put[1]),
        }
        if kind != "repeated rows":
            got["jvp"] = there.jvp(solved, put[2])
            got["second"] = there.derivative(solved, (put[2],), put[1])
            got["second_tangent"] = there.derivative(solved, (put[2], put[3]))
        got = {name: where.host(value) for name, value in got.items()}
    close(got["outputs"], [s.outputs for s in singles])
    expected = np.array([m.vjp(s, b) for s, b in zip(singles, bar, strict=True)])
    close(*(determined(kind, part, n, rows) for part in (got["vjp"], expected)))
    if kind == "repeated rows":  # a change of one of the rows has no derivative
        return
    close(got["jvp"], [m.jvp(s, d) for s, d in zip(singles, dot, strict=True)])
    close(got["second"], [m.derivative(s, (d,), b) for s, b, d in zip(singles, bar, dot, strict=True)], 1e-8)
    close(got["second_tangent"], [m.derivative(s, (d, o)) for s, d, o in zip(singles, dot, other, strict=True)], 1e-8)


@pytest.mark.parametrize("place", PLACES)
def test_places_agree_with_each_other_to_rounding(place: str, rng: np.random.Generator) -> None:
    B, n, rows, p = (3, 6, 5, 2) if place == "jax" else (16, 10, 10, 5)  # JAX compiles every operation for every shape
    m = mapping(n, rows, p)
    theta = thetas("random", B, n, rows, p, rng)
    solved = m.solve(theta)
    bar, dot = rng.standard_normal((B, m.output_size)), rng.standard_normal(theta.shape)
    with place_of(place) as where:
        there = DeviceMap(m, where)
        found = there.solve(where.put(theta))
        close(where.host(found.outputs), solved.outputs)
        close(where.host(there.vjp(found, where.put(bar))), m.vjp(solved, bar))
        close(where.host(there.jvp(found, where.put(dot))), m.jvp(solved, dot))


@pytest.mark.parametrize("place", PLACES)
def test_products_against_differences(place: str, rng: np.random.Generator) -> None:
    m = mapping(6, 5, 2)
    theta, step = thetas("random", 3, 6, 5, 2, rng), 1e-5
    dot = rng.standard_normal(theta.shape)
    bar = rng.standard_normal((3, m.output_size))
    with place_of(place) as where:
        there = DeviceMap(m, where)
        up, down = there.solve(where.put(theta + step * dot)), there.solve(where.put(theta - step * dot))
        solved = there.solve(where.put(theta))
        slope = (where.host(up.outputs) - where.host(down.outputs)) / (2 * step)
        bend = (where.host(there.vjp(up, where.put(bar))) - where.host(there.vjp(down, where.put(bar)))) / (2 * step)
        close(where.host(there.jvp(solved, where.put(dot))), slope, 1e-6)
        close(where.host(there.derivative(solved, (where.put(dot),), where.put(bar))), bend, 1e-5)


@pytest.mark.parametrize("place", ["numpy", "torch"])
def test_several_right_hand_sides_and_batch_shapes(place: str, rng: np.random.Generator) -> None:
    m = mapping(6, 5, 2)
    theta = thetas("random", 6, 6, 5, 2, rng).reshape(2, 3, -1)
    bar, dot = rng.standard_normal((4, 2, 3, m.output_size)), rng.standard_normal((5, 1, 2, 3, m.theta_size))
    solved = m.solve(theta)
    with place_of(place) as where:
        there = DeviceMap(m, where)
        found = there.solve(where.put(theta))
        assert tuple(found.outputs.shape) == (2, 3, m.output_size)
        vjp, jvp = there.vjp(found, where.put(bar)), there.jvp(found, where.put(dot))
        assert tuple(jvp.shape) == (5, 1, 2, 3, m.output_size)
        close(where.host(vjp), m.vjp(solved, bar))
        close(where.host(vjp)[1], where.host(there.vjp(found, where.put(bar[1]))))
        close(where.host(jvp), m.jvp(solved, dot))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_empty_batch(place: str, shape: tuple[int, ...]) -> None:
    m = mapping(6, 5, 2)
    with place_of(place) as where:
        there = DeviceMap(m, where)
        solved = there.solve(where.zeros(*shape, m.theta_size))
        assert solved.ok and tuple(solved.outputs.shape) == (*shape, m.output_size)
        assert tuple(there.vjp(solved, where.zeros(*shape, m.output_size)).shape) == (*shape, m.theta_size)
        assert tuple(there.jvp(solved, where.zeros(4, *shape, m.theta_size)).shape) == (4, *shape, m.output_size)


def infeasible(m: SolutionMap, theta: np.ndarray) -> np.ndarray:
    """θ with rows 0 and 1 of Gx ≤ h contradicting each other in instance 1."""
    n, rows = 6, 5
    theta = theta.copy()
    h, G = theta[1, :rows], theta[1, rows : rows + rows * n].reshape(rows, n)
    G[1], h[0], h[1] = -G[0], -1.0, -1.0
    return theta


@pytest.mark.parametrize("place", PLACES)
def test_a_failed_instance_costs_the_others_nothing(place: str, rng: np.random.Generator) -> None:
    m = mapping(6, 5, 2, on_failure="nan")
    good = thetas("random", 3, 6, 5, 2, rng)
    bad, rest = infeasible(m, good), [0, 2]
    reference = m.solve(good)
    bar, dot = rng.standard_normal((3, m.output_size)), rng.standard_normal(good.shape)
    with place_of(place) as where:
        there = DeviceMap(m, where)
        with pytest.warns(ApplicabilityWarning, match="Instance .1,. of the batch was not solved: infeasible"):
            solved = there.solve(where.put(bad))
        outputs, vjp = where.host(solved.outputs), where.host(there.vjp(solved, where.put(bar)))
        jvp = where.host(there.jvp(solved, where.put(dot)))
    assert np.isnan(outputs[1]).all() and not vjp[1].any() and not jvp[1].any()
    close(outputs[rest], reference.outputs[rest])
    close(vjp[rest], m.vjp(reference, bar)[rest])
    close(jvp[rest], m.jvp(reference, dot)[rest])
    m.on_failure = "raise"
    with place_of(place) as where, pytest.raises(SolveError, match=r"Instance .1,. of the batch"):
        DeviceMap(m, where).solve(where.put(bad))


@pytest.mark.parametrize("place", ["host", "torch"])
def test_a_singular_instance_stays_on_the_host_and_is_taken_alone_elsewhere(
    place: str, rng: np.random.Generator
) -> None:
    """An exactly singular matrix makes NumPy's batched solve refuse; the other instances stay with the batch."""
    m = mapping(6, 5, 2, **options_of("repeated rows"))
    theta = thetas("random", 4, 6, 5, 2, rng)
    theta[2] = thetas("repeated rows", 1, 6, 5, 2, rng)[0]
    solved, singles = m.solve(theta), one_by_one(m, theta)
    bar = rng.standard_normal(solved.outputs.shape)
    expected = np.array([m.vjp(s, row) for s, row in zip(singles, bar, strict=True)])
    if place == "host":
        got = m.vjp(solved, bar)
    else:
        with place_of(place) as where:
            there = DeviceMap(m, where)
            solved = there.solve(where.put(theta))
            got = where.host(there.vjp(solved, where.put(bar)))
    close(*(determined("repeated rows", part, 6, 5) for part in (got, expected)))
    assert isinstance(solved.solutions, DenseBatch)
    assert set(solved.solutions.singles) == (set() if place == "host" else {2})
    if place == "host":  # a change of one of the rows has no derivative there: the instance is asked alone, and says so
        dot = np.zeros_like(theta)
        dot[:, 0] = 1.0
        solved = m.solve(theta)  # one that has not spoken yet
        with pytest.warns(ApplicabilityWarning, match="depends on the side"):
            tangents = m.jvp(solved, dot)
        close(tangents[[0, 1, 3]], [m.jvp(singles[i], dot[i]) for i in (0, 1, 3)])


@pytest.mark.parametrize("solver", ["osqp", "scs", "clarabel"])
def test_inexact_points_are_polished_in_the_batch(solver: str, rng: np.random.Generator) -> None:
    m = mapping(8, 6, 2, solver=solver)
    exact = mapping(8, 6, 2)
    theta = thetas("random", 8, 8, 6, 2, rng)
    solved = m.solve(theta)
    assert isinstance(solved.solutions, DenseBatch)
    assert solved.solutions.residuals.max() <= 1e-12
    close(solved.outputs, exact.solve(theta).outputs)
    assert solved.solutions[3].solver == solver


@pytest.mark.parametrize("place", ["numpy", "torch"])
def test_newton_leaves_hopeless_instances_where_they_were(place: str, rng: np.random.Generator) -> None:
    """Instances far off, with NaN, or at the goal share a batch without harm to each other."""
    B, m, n, zero = 4, 5, 4, 1
    P = np.stack([np.eye(n)] * B)
    A, b = rng.standard_normal((B, m, n)), rng.random((B, m))
    q = rng.standard_normal((B, n))
    with place_of(place) as where:
        parts = [where.put(v) for v in (P, q, A, b)]
        programs = DensePrograms(where, *parts, placed(where, Cones(zero, m - zero)))
        x, v = rng.standard_normal((B, n)), rng.standard_normal((B, m))
        x[1] = np.nan
        points = newton.polish(programs, where.put(x), where.put(v))
        start = newton.polish(programs, where.put(x), where.put(v), max_steps=0)
        assert np.isnan(where.host(points.x)[1]).all() and points.worst[1] == np.inf
        assert (points.worst[[0, 2, 3]] <= start.worst[[0, 2, 3]]).all()
        again = newton.polish(programs, points.x, points.v)
        done = points.worst <= 1e-12
        np.testing.assert_array_equal(where.host(again.x)[done], where.host(points.x)[done])


@pytest.mark.parametrize("worth", [0.0, np.inf], ids=["sorted", "all rows"])
@pytest.mark.parametrize("place", ["numpy", "torch"])
def test_sorting_the_rows_changes_nothing(
    place: str, worth: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense_systems, "WORTH_SORTING", worth)
    m = mapping(10, 10, 3)
    theta = thetas("random", 5, 10, 10, 3, rng)
    bar = rng.standard_normal((3, 5, m.output_size))
    reference = m.vjp(m.solve(theta), bar)
    with place_of(place) as where:
        there = DeviceMap(m, where)
        close(where.host(there.vjp(there.solve(where.put(theta)), where.put(bar))), reference)


@pytest.mark.parametrize("rows", [0, 1])
def test_programs_with_few_rows(rows: int, rng: np.random.Generator) -> None:
    n, B = 4, 3
    P = np.stack([np.eye(n) * (1.0 + k) for k in range(B)])
    A, b, q = rng.standard_normal((B, rows, n)), np.ones((B, rows)), rng.standard_normal((B, n))
    programs = DensePrograms(HOST, P, q, A, b, on_host(Cones(nonneg=rows)))
    points = newton.polish(programs, np.zeros((B, n)), np.ones((B, rows)))
    assert points.worst.max() <= 1e-12
    systems = dense_systems.DenseSystems(programs, points.spectrum, points.most)
    g, h = rng.standard_normal((B, n)), rng.standard_normal((B, rows))
    u, w, certified = systems.solve(g, h)
    assert certified.all() and w.shape == (B, rows)
    close(apply(P, u) + apply(A.swapaxes(-1, -2), w), g)


def test_absent_bounds_release_their_rows_everywhere(rng: np.random.Generator) -> None:
    m = mapping(6, 5, 0, duals=False)
    theta = thetas("random", 3, 6, 5, 0, rng)
    theta[0, 0] = theta[2, 3] = np.inf  # h, where +∞ is no bound
    solved = m.solve(theta)
    bar = rng.standard_normal(solved.outputs.shape)
    for name in ("numpy", "torch"):
        with place_of(name) as where:
            there = DeviceMap(m, where)
            found = there.solve(where.put(theta))
            close(where.host(found.outputs), solved.outputs)
            close(where.host(there.vjp(found, where.put(bar))), m.vjp(solved, bar))


@pytest.mark.parametrize("singular", ["regularize", "raise"])
def test_other_policies_are_taken_on_the_host(singular, rng: np.random.Generator) -> None:
    m = mapping(6, 5, 2, policy=Policy(singular))
    theta = thetas("random", 2, 6, 5, 2, rng)
    bar = rng.standard_normal((2, m.output_size))
    with place_of("torch") as where:
        there = DeviceMap(m, where)
        found = there.solve(where.put(theta))
        close(where.host(there.vjp(found, where.put(bar))), m.vjp(m.solve(theta), bar))
    if singular == "raise":
        m = mapping(6, 5, 2, policy=Policy(singular), **options_of("repeated rows"))
        theta, bar = thetas("repeated rows", 2, 6, 5, 2, rng), rng.standard_normal((2, 6))
        with place_of("torch") as where:
            there = DeviceMap(m, where)
            found = there.solve(where.put(theta))
            with pytest.raises(ApplicabilityError):
                there.vjp(found, where.put(bar))


def test_reasons_against_the_device() -> None:
    import cvxpy as cp

    x, t = cp.Variable(3), cp.Parameter(3)
    cone = SolutionMap(cp.Problem(cp.Minimize(cp.norm(x - t)), [x >= 0]), [t], [x])
    assert reason(cone) is None
    big, c = cp.Variable(600), cp.Parameter(600)
    large = SolutionMap(cp.Problem(cp.Minimize(cp.sum_squares(big - c)), [big >= 0]), [c], [big])
    assert "more than" in (reason(large) or "") or "eliminated" in (reason(large) or "")
    with place_of("torch") as where, pytest.raises(ProgramError, match="not differentiated on the tensors' device"):
        DeviceMap(large, where)


def test_values_are_checked_by_name(rng: np.random.Generator) -> None:
    m = mapping(6, 5, 2)
    theta = thetas("random", 2, 6, 5, 2, rng)
    theta[1, -1] = np.nan
    with place_of("torch") as where, pytest.raises(ProgramError, match="Parameter 'param"):
        DeviceMap(m, where).solve(where.put(theta))


def test_what_is_moved(rng: np.random.Generator) -> None:
    """A solve: θ to the host, (x, v) back, one report of 3B numbers; a product: B flags. Nothing else."""
    import torch

    place, moved = counting(torch.device("cpu"))
    m = mapping(6, 5, 2)
    theta = torch.from_numpy(thetas("random", 4, 6, 5, 2, rng))
    there = DeviceMap(m, place)
    there.solve(theta)  # the maps' and the cones' constants go there once
    moved.clear()
    small = m.engine.condensation.structure
    solved = there.solve(theta)
    assert [step for step in moved if step[1] != (small.m,)] == [
        ("fetch", tuple(theta.shape)),
        ("put", (4, small.n + small.m)),
        ("fetch", (4, 3)),
    ]
    moved.clear()
    _ = solved.solutions.v  # what the check of kinks looks at is on the host already
    assert moved == []
    there.vjp(solved, torch.from_numpy(rng.standard_normal((4, m.output_size))))
    there.jvp(solved, torch.zeros_like(theta))
    assert moved == [("fetch", (4,)), ("fetch", (4,))]


@pytest.mark.parametrize("solver", [None, "osqp"], ids=["exact", "polished"])
@pytest.mark.parametrize("squares", [True, False], ids=["eliminated", "diagonal"])
def test_the_device_is_read_by_the_documented_copies_alone(squares: bool, solver, rng: np.random.Generator) -> None:
    """On meta tensors every look at a value, and every meeting with a tensor of the host, is an error.

    What a real run fetched is played back to them.
    """
    m = mapping(6, 5, 2, squares=squares, solver=solver)
    theta = thetas("random", 4, 6, 5, 2, rng)
    theta = theta if squares else diagonal(theta, 6)
    bar, dot = rng.standard_normal((4, m.output_size)), rng.standard_normal(theta.shape)

    assert blind_run(m, theta, bar, dot) >= 6


def test_a_batch_is_warm_started(rng: np.random.Generator) -> None:
    m = mapping(8, 6, 2, solver="osqp")
    theta = thetas("random", 4, 8, 6, 2, rng)
    with place_of("torch") as where:
        there = DeviceMap(m, where)
        cold = there.solve(where.put(theta))
        warm = there.solve(where.put(theta), warm=cold.warm())
        close(where.host(warm.outputs), where.host(cold.outputs))


def test_sessions_of_a_batch_are_kept_with_their_engine(rng: np.random.Generator) -> None:
    n, rows, p = SIZES["larger"]
    m = mapping(n, rows, p)
    m.solve(thetas("random", 2, n, rows, p, rng))
    pools = batch_path._pools[m.engine]
    m.solve(thetas("random", 2, n, rows, p, rng))
    assert batch_path._pools[m.engine] is pools and len(pools) == 1


@pytest.mark.parametrize("place", PLACES)
def test_residuals_are_those_of_the_instances_in_any_unit(place: str, rng: np.random.Generator) -> None:
    """Each row, each column and the cost in units far apart: the batch measures as the unbatched path does."""
    B, m, n, zero = 6, 5, 4, 1
    rows, cost = 10.0 ** rng.integers(-8, 9, (B, m)), 10.0 ** np.array([-14, -9, -3, 0, 5, 9])
    P = np.stack([np.diag(rng.random(n)) for _ in range(B)]) * cost[:, None, None]
    q = rng.standard_normal((B, n)) * cost[:, None]
    A, b = rng.standard_normal((B, m, n)) * rows[..., None], rng.standard_normal((B, m)) * rows
    A[5, 2], b[5, 2] = 0.0, 0.0  # a row of zeros
    x, v = rng.standard_normal((B, n)), rng.standard_normal((B, m)) * rows
    v[:, 3] = 0.0
    structure = dense_structure(n, m, zero)
    expected = []
    for i in range(B):
        data = Data(P[i].T.ravel(), q[i], A[i].T.ravel(), b[i], np.zeros(()))
        s = np.where(np.arange(m) < zero, 0.0, np.maximum(v[i], 0.0))
        found = Layout(structure, True).instance(data).errors(x[i], s, s - v[i])[2]
        expected.append([found.primal, found.dual])
    s = np.where(np.arange(m) < zero, 0.0, np.maximum(v, 0.0))
    batch = Data(P.reshape(B, -1), q, A.transpose(0, 2, 1).reshape(B, -1), b, np.zeros(B))
    units = Equilibration(structure)(batch)
    assert units is not None
    small, (x, s, y) = units.data(structure, batch), units.point(x, s, s - v)
    P, A = Layout(structure, True).stack(small)
    with place_of(place) as where:
        cones = placed(where, Cones(zero, m - zero))
        programs = DensePrograms(where, *(where.put(part) for part in (P, small.q, A, small.b)), cones)
        points = newton.polish(programs, where.put(x), where.put(s - y), max_steps=0)
    # Units are powers of two: at most a factor 4 apart, of a share φ of the sizes.
    np.testing.assert_allclose(points.residuals, expected, rtol=4 * FLOOR)


def dense_structure(n: int, m: int, zero: int) -> Structure:
    """A structure in which every entry is stored, column by column."""

    def every(rows: int) -> tuple[np.ndarray, np.ndarray]:
        return np.tile(np.arange(rows), n), np.repeat(np.arange(n), rows)

    return Structure.from_patterns(n, Cones(zero=zero, nonneg=m - zero), P=every(n), A=every(m))
