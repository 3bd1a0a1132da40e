"""Batches with curved cones: the numbers of the instances alone, wherever the arrays live; hard points among others."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from cvxift import cones as cone
from cvxift.cones import Cones
from cvxift.cones.product import PlacedCones, on_host
from cvxift.errors import ApplicabilityWarning, SolveError
from cvxift.kkt.backend import HOST
from cvxift.kkt.batch.device import DeviceMap
from cvxift.kkt.batch.programs import DensePrograms
from cvxift.kkt.batch.solutions import DenseBatch
from cvxift.kkt.batch.solve import TOGETHER
from cvxift.kkt.engine import TOLERANCE
from cvxift.kkt.instance import Layout
from cvxift.kkt.newton import polish
from cvxift.kkt.solution_map import SolutionMap
from cvxift.kkt.system.batched import DenseSystems
from cvxift.kkt.system.factor import ShiftedFactor
from cvxift.kkt.system.reduced import ReducedSystem, rotation
from cvxift.program.products import apply
from tests.kkt.curved import CASES, ON_DEVICE, curved, entropy, values
from tests.kkt.places import blind_run, counting, place_of
from tests.kkt.plant import Planted, plant

ALL_KINDS = Cones(zero=2, nonneg=3, soc=(4, 1, 2, 4), psd=(3, 1), exp=2, pow=(0.3, 0.8))


def close(got, expected, tolerance: float = 1e-10) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max(initial=0.0) <= tolerance * (1.0 + np.abs(expected).max(initial=0.0))


def one_by_one(m: SolutionMap, theta: np.ndarray, bar: np.ndarray, dot: np.ndarray, other: np.ndarray) -> list:
    """Outputs, vjp, jvp, second and second_tangent of every instance alone."""
    rows = []
    for t, b, d, o in zip(theta, bar, dot, other, strict=True):
        s = m.solve(t)
        rows.append((s.outputs, m.vjp(s, b), m.jvp(s, d), m.derivative(s, (d,), b), m.derivative(s, (d, o))))
    return [np.array(part) for part in zip(*rows, strict=True)]


def products(there, solved, bar, dot, other) -> list:
    """The same of a batch, by a `SolutionMap` or a `DeviceMap`."""
    return [
        solved.outputs,
        there.vjp(solved, bar),
        there.jvp(solved, dot),
        there.derivative(solved, (dot,), bar),
        there.derivative(solved, (dot, other)),
    ]


def vectors(m: SolutionMap, *shape: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    K, N = m.output_size, m.theta_size
    return rng.standard_normal((*shape, K)), rng.standard_normal((*shape, N)), rng.standard_normal((*shape, N))


@pytest.mark.parametrize("place", ["host", "numpy", "torch"])
@pytest.mark.parametrize("name", CASES)
def test_a_batch_equals_its_instances(name: str, place: str, rng: np.random.Generator) -> None:
    m, theta = curved(name), values(name, 6, rng)
    given = vectors(m, 6, rng=rng)
    expected = one_by_one(m, theta, *given)
    if place == "host":
        solved = m.solve(theta)
        got = products(m, solved, *given)
        assert isinstance(solved.solutions, DenseBatch) and solved.solutions.points.worst.max() <= TOLERANCE
    else:
        with place_of(place) as where:
            there = DeviceMap(m, where)
            solved = there.solve(where.put(theta))
            got = [where.host(v) for v in products(there, solved, *map(where.put, given))]
    for found, wanted in zip(got, expected, strict=True):
        close(found, wanted)


def test_instances_with_curved_cones_of_few_entries_are_taken_together_too(rng: np.random.Generator) -> None:
    n = 25
    problem, parameters, outputs = entropy(n)
    m = SolutionMap(problem, parameters, outputs)
    theta = np.concatenate([rng.standard_normal((3, n)), 0.2 * rng.standard_normal((3, 1))], axis=1)
    given = vectors(m, 3, rng=rng)
    solved = m.solve(theta)
    assert isinstance(solved.solutions, DenseBatch) and not solved.solutions.singles
    for found, wanted in zip(products(m, solved, *given), one_by_one(m, theta, *given), strict=True):
        close(found, wanted)


def test_jax_arrays_give_the_hosts_numbers_in_one_compiled_function(rng: np.random.Generator) -> None:
    """Errors and a solve with the systems; while it is compiled no value can be looked at."""
    jax = pytest.importorskip("jax")

    cones = Cones(zero=1, nonneg=1, soc=(3,), psd=(2,))
    planted = [plant(cones, 12, rng) for _ in range(2)]
    x, v = rng.standard_normal((2, 12)), np.array([p.s - p.y for p in planted])
    g, h = rng.standard_normal((2, 12)), rng.standard_normal((2, cones.m))

    def work(programs: DensePrograms, x, v, g, h):
        dual, primal, residuals, spectrum = programs.errors(x, v)
        return dual, primal, residuals, *DenseSystems(programs, spectrum, None).solve(g, h)

    here = stacked(planted)
    expected = work(here, x, v, g, h)
    with place_of("jax") as where:
        placed = stacked(planted, where).cones
        compiled = jax.jit(lambda P, q, A, b, *rest: work(DensePrograms(where, P, q, A, b, placed), *rest))
        found = compiled(here.P, here.q, here.A, here.b, x, v, g, h)
        for got, wanted in zip(found[:-1], expected[:-1], strict=True):
            close(where.host(got), wanted)
        assert where.host(found[-1]).all() and expected[-1].all()


@pytest.mark.parametrize("name", CASES)
def test_products_against_differences(name: str, rng: np.random.Generator) -> None:
    m, theta, step = curved(name), values(name, 4, rng), 1e-5
    bar, dot, _ = vectors(m, 4, rng=rng)
    if name == "inequality":  # its second parameter is symmetric
        F0 = dot[:, 3:].reshape(4, 3, 3)
        dot[:, 3:] = (F0 + np.swapaxes(F0, 1, 2)).reshape(4, 9)
    solved, up, down = m.solve(theta), m.solve(theta + step * dot), m.solve(theta - step * dot)
    close(m.jvp(solved, dot), (up.outputs - down.outputs) / (2 * step), 1e-6)
    close(m.derivative(solved, (dot,), bar), (m.vjp(up, bar) - m.vjp(down, bar)) / (2 * step), 1e-5)
    close(m.derivative(solved, (dot, dot)), (m.jvp(up, dot) - m.jvp(down, dot)) / (2 * step), 1e-5)


@pytest.mark.parametrize("place", ["host", "torch"])
def test_several_right_hand_sides_and_batch_shapes(place: str, rng: np.random.Generator) -> None:
    m = curved("everything")
    theta = values("everything", 6, rng).reshape(2, 3, -1)
    bar, dot, other = vectors(m, 4, 2, 3, rng=rng)
    reference = m.solve(theta.reshape(6, -1))
    expected = [
        products(m, reference, *(v[k].reshape(6, -1) for v in (bar, dot, other)))[1:] for k in range(4)
    ]  # one after the other
    if place == "host":
        got = products(m, m.solve(theta), bar, dot, other)
    else:
        with place_of(place) as where:
            there = DeviceMap(m, where)
            solved = there.solve(where.put(theta))
            got = [where.host(v) for v in products(there, solved, *map(where.put, (bar, dot, other)))]
    for i, found in enumerate(got[1:]):
        assert found.shape[:3] == (4, 2, 3)
        close(found.reshape(4, 6, -1), np.array([parts[i] for parts in expected]))


def projection(copies: int = 1) -> SolutionMap:
    """The projection to the unit ball, stated so many times."""
    x, t = cp.Variable(3), cp.Parameter(3)
    constraints = [cp.SOC(1.0, x) for _ in range(copies)]
    return SolutionMap(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - t)), constraints), [t], [x])


@pytest.mark.parametrize("place", ["host", "torch"])
def test_slack_tight_and_kinked_instances_share_a_batch(place: str, rng: np.random.Generator) -> None:
    """Inside the ball, outside, at the centre, and on the boundary without a multiplier, where Π_K has a kink."""
    m = projection()
    theta = np.array([[0.1, 0.2, -0.3], [2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [0.6, 0.0, 0.8], [-3.0, 0.0, 0.0]])
    bar, dot, other = vectors(m, 5, rng=rng)
    expected = one_by_one(m, theta, bar, dot, other)
    size = np.maximum(np.linalg.norm(theta, axis=1, keepdims=True), 1.0)
    if place == "host":
        got = products(m, m.solve(theta), bar, dot, other)
    else:
        with place_of(place) as where:
            there = DeviceMap(m, where)
            got = [
                where.host(v)
                for v in products(there, there.solve(where.put(theta)), *map(where.put, (bar, dot, other)))
            ]
    close(got[0], theta / size, 1e-9)
    smooth = [0, 1, 2, 4]
    for found, wanted in zip(got, expected, strict=True):
        close(found[smooth], wanted[smooth])
        assert np.isfinite(found).all()


def test_norms_inside_their_bounds_leave_no_instance_alone(rng: np.random.Generator) -> None:
    """There CVXPY's auxiliary column is free and K is singular; x and its derivatives are unique all the same."""
    x, t, r = cp.Variable(3), cp.Parameter(3), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - t)), [cp.norm(x) <= r])
    m = SolutionMap(problem, [t, r], [x])
    theta = np.concatenate([rng.standard_normal((6, 3)), np.array([[0.1], [9.0], [0.2], [8.0], [0.3], [7.0]])], axis=1)
    bar, dot, other = vectors(m, 6, rng=rng)
    solved = m.solve(theta)
    assert isinstance(solved.solutions, DenseBatch) and not solved.solutions.singles
    got = products(m, solved, bar, dot, other)
    close(got[0][1::2], theta[1::2, :3])
    for found, wanted in zip(got, one_by_one(m, theta, bar, dot, other), strict=True):
        close(found, wanted)


def test_singular_systems_are_solved_as_one_by_one(rng: np.random.Generator) -> None:
    """Least norm where there is a solution, no certificate where there is none; equal rows, and columns of zeros."""
    n, r, count = 6, 4, 5
    P, A = np.zeros((count, n, n)), rng.standard_normal((count, r, n))
    root = rng.standard_normal((count, n, n - 1))
    P[:, :-1, :-1] = root[:, :-1] @ np.swapaxes(root[:, :-1], 1, 2)
    A[..., -1] = 0.0
    A[:, 1] = A[:, 0] * 10.0 ** rng.integers(-3, 4, (count, 1))
    K = np.concatenate(
        [np.concatenate([P, np.swapaxes(A, 1, 2)], -1), np.concatenate([A, np.zeros((count, r, r))], -1)], -2
    )
    programs = DensePrograms(HOST, P, np.zeros((count, n)), A, np.zeros((count, r)), on_host(Cones(zero=r)))
    systems = DenseSystems(programs, programs.cones.spectrum(np.zeros((count, r))), None)

    def solve(f):
        u, w, certified = systems.solve(f[..., :n], f[..., n:])
        return np.concatenate([u, w], axis=-1), certified

    f = apply(K, rng.standard_normal((3, count, n + r)))
    u, solved = solve(f)
    assert solved.all()
    for i in range(count):
        close(f[:, i], u[:, i] @ K[i], 1e-11)
        alone = ShiftedFactor(K[i], n).solve(f[:, i].T)[0].T
        close(u[:, i, :n], alone[:, :n])
        close(u[:, i], alone, 1e-6)  # along null vectors both have rounding errors over δ = 1e-8
    f[:, 2] += 1.0
    first, second = solve(f)[1], solve(f[0])[1]
    expected = np.arange(count) != 2
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(second, expected)


@pytest.mark.parametrize("place", ["host", "torch"])
def test_equal_cones_share_their_multipliers_without_harm(place: str, rng: np.random.Generator) -> None:
    """Two equal balls: where both are tight their multipliers are not unique, x and its derivatives are."""
    m, once = projection(copies=2), projection()
    theta = np.array([[0.1, 0.2, -0.3], [2.0, -1.0, 0.5], [0.3, 0.0, 0.1]])
    bar = rng.standard_normal((3, 3))
    reference = once.solve(theta)
    if place == "host":
        solved = m.solve(theta)
        outputs, vjp = solved.outputs, m.vjp(solved, bar)
    else:
        with place_of(place) as where:
            there = DeviceMap(m, where)
            found = there.solve(where.put(theta))
            outputs, vjp = where.host(found.outputs), where.host(there.vjp(found, where.put(bar)))
    close(outputs, reference.outputs)
    close(vjp, once.vjp(reference, bar))


@pytest.mark.parametrize("place", ["host", "torch"])
def test_a_failed_instance_costs_the_others_nothing(place: str, rng: np.random.Generator) -> None:
    x, t, r = cp.Variable((2, 2), symmetric=True), cp.Parameter((2, 2)), cp.Parameter()
    constraints = [x >> 0, cp.trace(x) <= r, cp.SOC(2.0, x[0]), cp.ExpCone(x[0, 1], 1.0, 3.0 + x[0, 0])]
    constraints.append(cp.PowCone3D(1.0 + x[0, 0], 1.0 + x[1, 1], x[0, 1], 0.4))
    m = SolutionMap(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), constraints), [t, r], [x], on_failure="nan")
    theta = np.concatenate([rng.standard_normal((4, 4)), np.array([[1.0], [-1.0], [0.5], [2.0]])], axis=1)
    good = [0, 2, 3]
    bar, dot, other = vectors(m, 4, rng=rng)
    alone = m.solve(theta[good])
    expected = products(m, alone, *(v[good] for v in (bar, dot, other)))
    if place == "host":
        with pytest.warns(ApplicabilityWarning, match="Instance .1,. of the batch was not solved: infeasible"):
            solved = m.solve(theta)
        got = products(m, solved, bar, dot, other)
    else:
        with place_of(place) as where:
            there = DeviceMap(m, where)
            with pytest.warns(ApplicabilityWarning, match="Instance .1,. of the batch was not solved: infeasible"):
                found = there.solve(where.put(theta))
            got = [where.host(v) for v in products(there, found, *map(where.put, (bar, dot, other)))]
    assert np.isnan(got[0][1]).all() and not any(part[1].any() for part in got[1:])
    for part, wanted in zip(got, expected, strict=True):
        close(part[good], wanted)
    m.on_failure = "raise"
    with pytest.raises(SolveError, match=r"Instance .1,. of the batch"):
        m.solve(theta)


@pytest.mark.parametrize("name", [*ON_DEVICE, "entropy", "everything"])
def test_the_device_is_read_by_the_documented_copies_alone(name: str, rng: np.random.Generator) -> None:
    m, theta = curved(name, solver="scs"), values(name, 3, rng)
    bar, dot, _ = vectors(m, 3, rng=rng)
    assert blind_run(m, theta, bar, dot) >= 7


@pytest.mark.parametrize("name", ["ball", "matrix", "entropy", "everything"])
def test_what_is_moved(name: str, rng: np.random.Generator) -> None:
    """Besides what linear programs move: the rows of exponential and power cones, and their spectra back."""
    import torch

    place, moved = counting(torch.device("cpu"))
    m, B = curved(name), 4
    drawn = values(name, B, rng)
    drawn = np.copysign(np.maximum(np.abs(drawn), 0.3), drawn)  # small ones ask for units, which would go there too
    theta = torch.from_numpy(drawn)
    bar, dot, _ = map(torch.from_numpy, vectors(m, B, rng=rng))
    there = DeviceMap(m, place)
    there.derivative(there.solve(theta), (dot,), bar)  # the constants go there once
    small = m.engine.condensation.structure
    k = small.cones.exp + len(small.cones.pow)
    rooted = [("fetch", (B, 3 * k)), ("put", (B, k, 18))] if k else []
    moved.clear()
    solved = there.solve(theta)
    step = [("put", (B,)), *3 * rooted, *rooted, ("fetch", (B, 4))]
    first = [("fetch", tuple(theta.shape)), ("put", (B, small.n + small.m)), *rooted, ("fetch", (B, 3))]
    assert moved[: len(first)] == first
    rest = moved[len(first) :]
    assert len(rest) % len(step) == 0 and rest == step * (len(rest) // len(step))
    assert not solved.solutions.singles
    moved.clear()
    there.vjp(solved, bar)
    there.jvp(solved, dot)
    judged = [("fetch", (B, small.m))]  # v after Newton, once: whether an instance lies on a kink is asked on the host
    assert [step for step in moved if step not in judged] == [("fetch", (B,)), ("fetch", (B,))] and len(moved) <= 3
    moved.clear()
    there.derivative(solved, (dot,), bar)
    there.derivative(solved, (dot,), bar)
    kinds = [count for count in (small.cones.exp, len(small.cones.pow)) if count]
    assert moved == [*(("put", (B, count, 3)) for count in kinds), ("fetch", (B,)), ("fetch", (B,))]


def stacked(planted: list[Planted], where=None) -> DensePrograms:
    """The programs of a batch, on the host or in a place."""
    structure = planted[0].structure
    layout = Layout(structure, True)
    instances = [layout.instance(p.data) for p in planted]
    parts = [np.stack([np.asarray(getattr(i, name)) for i in instances]) for name in ("P", "q", "A", "b")]
    if where is None:
        return DensePrograms(HOST, *parts, on_host(structure.cones))
    cones = PlacedCones(structure.cones, where.xp, where.put, where.host)
    return DensePrograms(where, *map(where.put, parts), cones)


@pytest.mark.parametrize("place", ["host", "numpy", "torch"])
def test_newton_goes_where_the_instances_alone_go(place: str, rng: np.random.Generator) -> None:
    """Points far off, near, at the goal, and with NaN, on all kinds of cones."""
    planted = [plant(ALL_KINDS, 30, rng) for _ in range(5)]
    off = np.array([1e-2, 1e-5, 0.0, np.nan, 1e-8])[:, None]
    x = np.array([p.x for p in planted]) + off * rng.standard_normal((5, 30))
    v = np.array([p.s - p.y for p in planted]) + off * rng.standard_normal((5, ALL_KINDS.m))
    if place == "host":
        points = polish(stacked(planted), x, v)
        found = points.x
    else:
        with place_of(place) as where:
            points = polish(stacked(planted, where), where.put(x), where.put(v))
            found = where.host(points.x)
    assert np.isnan(found[3]).all() and points.worst[3] == np.inf
    layout = Layout(planted[0].structure, True)
    for i in (0, 1, 2, 4):
        alone = polish(layout.instance(planted[i].data), x[i], v[i])
        assert points.worst[i] <= max(alone.residuals.worst, 1e-12) * (1 + 1e-6)
        close(found[i], alone.x)


@pytest.mark.parametrize("place", ["numpy", "torch"])
def test_residuals_are_those_of_the_instances_in_any_unit(place: str, rng: np.random.Generator) -> None:
    m = ALL_KINDS.m
    planted = [plant(ALL_KINDS, 8, rng) for _ in range(4)]
    x, v = rng.standard_normal((4, 8)), rng.standard_normal((4, m))
    v[1] *= 1e6
    v[2, 5:] = 0.0  # at the apexes
    layout, expected = Layout(planted[0].structure, True), []
    for i, p in enumerate(planted):
        s = cone.project(ALL_KINDS, v[i])
        found = layout.instance(p.data).errors(x[i], s, s - v[i])[2]
        expected.append([found.primal, found.dual])
    with place_of(place) as where:
        points = polish(stacked(planted, where), where.put(x), where.put(v), max_steps=0)
    np.testing.assert_allclose(points.residuals, expected, rtol=1e-9)


@pytest.mark.parametrize("worth", [0.0, np.inf], ids=["sorted", "all directions"])
def test_systems_are_the_reduced_ones(worth: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same solutions as the systems of each instance alone, whose equations hold: D(v) is what the spectrum says."""
    monkeypatch.setattr("cvxift.kkt.system.batched.WORTH_SORTING", worth)
    planted = [plant(ALL_KINDS, 30, rng) for _ in range(4)]
    programs = stacked(planted)
    v = np.array([p.s - p.y for p in planted])
    systems = DenseSystems(programs, programs.cones.spectrum(v), None)
    g, h = rng.standard_normal((3, 4, 30)), rng.standard_normal((3, 4, ALL_KINDS.m))
    u, w, certified = systems.solve(g, h)
    assert certified.all()
    layout = Layout(planted[0].structure, True)
    for i, p in enumerate(planted):
        alone = ReducedSystem(layout.instance(p.data), rotation(ALL_KINDS, v[i]))
        u_i, w_i, _ = alone.solve(g[:, i], h[:, i])
        close(u[:, i], u_i)
        close(w[:, i], w_i)
    close(apply(programs.P, u) + apply(np.swapaxes(programs.A, 1, 2), w), g)
    spectrum = cone.spectrum(ALL_KINDS, v)
    gap = apply(programs.A, u) - h
    close(gap - spectrum.apply(gap), spectrum.apply(w))


def test_solutions_of_a_batch_are_those_of_single_calls(rng: np.random.Generator) -> None:
    m, theta = curved("everything"), values("everything", 3, rng)
    solved = m.solve(theta)
    for i, row in enumerate(theta):
        got, wanted = solved.solutions[i], m.solve(row).solutions[0]
        close(got.x, wanted.x)
        close(got.s, wanted.s)
        close(got.y, wanted.y)
        assert got.ok and got.point is not None and got.point.spectrum is not None


def test_maps_are_pickled_after_second_order_products(rng: np.random.Generator) -> None:
    import copy

    m, theta = curved("ball"), values("ball", 2, rng)
    bar, dot, _ = vectors(m, 2, rng=rng)
    expected = m.derivative(m.solve(theta), (dot,), bar)
    other = copy.deepcopy(m)
    close(other.derivative(other.solve(theta), (dot,), bar), expected)


def _norms(rng, count, n=6, k=3):
    """A second-order program and values at which some norms are tight, some slack."""
    x, f, A, C, d = cp.Variable(n), cp.Parameter(n), cp.Parameter((4 * k, n)), cp.Parameter((k, n)), cp.Parameter(k)
    rows = [cp.norm(A[4 * i : 4 * i + 4] @ x - 1) <= C[i] @ x + d[i] for i in range(k)]
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) + f @ x), rows)
    theta = [
        np.concatenate([rng.standard_normal(n), M.ravel(), rng.standard_normal(k * n) / 4, 2 + 2 * rng.random(k)])
        for M in rng.standard_normal((count, 4 * k, n))
    ]
    return SolutionMap(problem, [f, A, C, d], [x]), np.array(theta)


def _entropies(rng, count, n=6, m=2):
    """A problem of entropies with linear constraints."""
    z, t, G = cp.Variable(n), cp.Parameter(n), cp.Parameter((m, n))
    problem = cp.Problem(cp.Maximize(t @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1, G @ z <= 0.3])
    theta = np.concatenate([rng.standard_normal((count, n)), rng.standard_normal((count, m * n))], axis=1)
    return SolutionMap(problem, [t, G], [z]), theta


@pytest.mark.parametrize("make", [_norms, _entropies])
def test_a_batch_that_asks_less_of_the_solver_ends_at_the_same_points(rng, make) -> None:
    """Instances beside each other are solved to 1e-6 and polished; alone, to 1e-9: both end at rounding."""
    mapping, theta = make(rng, 3 * TOGETHER)
    solved = mapping.solve(theta)
    bar = np.tile(rng.standard_normal(mapping.output_size), (len(theta), 1))
    gradients = mapping.vjp(solved, bar)
    assert solved.solutions.points.worst.max() <= 1e-12
    for i, row in enumerate(theta):
        alone = mapping.solve(row)
        size = 1.0 + np.abs(alone.outputs).max()  # residuals of 1e-12, times the condition
        np.testing.assert_allclose(solved.outputs[i], alone.outputs, rtol=0, atol=1e-11 * size)
        one = mapping.vjp(alone, bar[i])
        np.testing.assert_allclose(gradients[i], one, rtol=0, atol=1e-10 * (1 + np.abs(one).max()))


def test_an_instance_that_newton_does_not_finish_is_solved_again_alone(rng, monkeypatch) -> None:
    mapping, theta = _norms(rng, TOGETHER)
    asked = []
    real = mapping.engine.solve
    monkeypatch.setattr(mapping.engine, "solve", lambda *a, **k: asked.append(k["found"]) or real(*a, **k))
    theta[2, 6:] = 0.0  # ‖−1‖ ≤ 0
    with pytest.raises(SolveError, match="infeasible") as caught:
        mapping.solve(theta)
    assert asked == [None]  # what the solver said when less was asked of it does not count
    outputs = np.asarray(caught.value.solutions)
    assert np.isfinite(np.delete(outputs, 2, axis=0)).all() and np.isnan(outputs[2]).all()
