"""The central path: its points solve the perturbed conditions, its derivative is the path's own, its end is x*."""

from __future__ import annotations

import numpy as np
import pytest
from plant import assemble, inner, move, plant, tangent

from cvxift.cones import Cones
from cvxift.errors import ApplicabilityError, ProgramError
from cvxift.kkt.engine import Engine
from cvxift.kkt.instance import Layout
from cvxift.kkt.policy import Policy
from cvxift.kkt.smooth import central_point
from cvxift.program.structure import Data

CONES = Cones(zero=2, nonneg=9)


def on_the_path(planted, mu):
    instance = Layout(planted.structure).instance(planted.data)
    return instance, central_point(instance, planted.x, planted.s - planted.y, mu)


@pytest.fixture(params=[4, 0], ids=["quadratic", "linear"])
def planted(request, rng):
    """A program with a bounded feasible set that has an interior; the linear one has a vertex for its solution."""
    n, tight = 5, 3
    x, A = rng.standard_normal(n), rng.standard_normal((11, n))
    A[2:5], A[5:8] = np.eye(3, n), -np.eye(3, n)
    v = np.concatenate([rng.standard_normal(2), -np.ones(tight) - rng.random(tight), np.ones(6) + rng.random(6)])
    s = np.where(np.arange(11) < 2, 0.0, np.maximum(v, 0.0))
    root = rng.standard_normal((n, request.param))
    return assemble(CONES, root @ root.T, A, x, s, s - v)


@pytest.mark.parametrize("mu", [1.0, 1e-3, 1e-8])
def test_the_point_satisfies_the_perturbed_conditions(planted, mu):
    instance, point = on_the_path(planted, mu)
    zero = CONES.zero
    np.testing.assert_allclose(instance.P @ point.x + instance.q + instance.A.T @ point.y, 0.0, atol=1e-8)
    np.testing.assert_allclose(instance.A @ point.x + point.s, instance.b, atol=1e-8)
    assert (point.s[zero:] > 0.0).all() and (point.y[zero:] > 0.0).all() and not point.s[:zero].any()
    np.testing.assert_allclose(point.s[zero:] * point.y[zero:], mu, rtol=1e-9)
    np.testing.assert_allclose(point.v, point.s - point.y, rtol=1e-9, atol=1e-12)


def test_the_path_ends_at_the_solution(planted):
    gaps = [np.abs(on_the_path(planted, mu)[1].x - planted.x).max() for mu in (1e-2, 1e-5, 1e-8)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-5


@pytest.mark.parametrize("mu", [0.3, 1e-2])
def test_the_derivative_is_the_paths(planted, rng, mu):
    structure = planted.structure
    policy = Policy(singular="smooth", mu=mu)
    engine = Engine(structure)
    linear = engine.solve(planted.data).linearization(policy)
    dot = tangent(structure, rng)
    if not planted.data.P.any():
        dot = Data(0.0 * dot.P, dot.q, dot.A, dot.b, dot.d)
    step = 1e-6
    ends = []
    for sign in (1.0, -1.0):
        moved = engine.solve(move(planted.data, dot, sign * step))
        ends.append(moved.linearization(policy))
    x_dot, y_dot = linear.jvp(dot)
    np.testing.assert_allclose(x_dot, (ends[0].x - ends[1].x) / (2 * step), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(y_dot, (ends[0].y - ends[1].y) / (2 * step), rtol=1e-4, atol=1e-5)
    x_bar, y_bar = rng.standard_normal(structure.n), rng.standard_normal(structure.m)
    pulled = linear.vjp(x_bar, y_bar)
    assert inner(pulled, dot) == pytest.approx(x_bar @ x_dot + y_bar @ y_dot, rel=1e-8)


def test_a_linear_program_has_a_useful_gradient_on_the_path(planted, rng):
    if planted.data.P.any():
        pytest.skip("a quadratic program has a gradient of its own")
    solution = Engine(planted.structure).solve(planted.data)
    x_bar = rng.standard_normal(planted.structure.n)
    own = solution.linearization(Policy()).vjp(x_bar).q
    smooth = solution.linearization(Policy(singular="smooth", mu=0.1)).vjp(x_bar).q
    assert np.abs(own).max() < 1e-9  # the vertex does not move with the cost
    assert np.abs(smooth).max() > 1e-4


def test_other_cones_are_refused(rng):
    planted = plant(Cones(nonneg=2, soc=(3,)), 4, rng)
    with pytest.raises(ProgramError, match="linear constraints only"):
        on_the_path(planted, 0.1)


def test_no_interior_is_told():
    """x ≤ 0 and −x ≤ 0: no strictly feasible point."""
    planted = assemble(
        Cones(nonneg=2), np.eye(1), np.array([[1.0], [-1.0]]), np.zeros(1), np.zeros(2), np.array([1.0, 1.0])
    )
    with pytest.raises(ApplicabilityError, match="strictly"):
        on_the_path(planted, 1e-3)
