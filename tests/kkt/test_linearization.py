"""Derivatives at planted solutions: against finite differences of a re-solved program, and against the unreduced
Jacobian of the normal map."""

from __future__ import annotations

import numpy as np
import pytest
from plant import inner, move, tangent

from cvxift import cones as cone
from cvxift.kkt.instance import Layout
from cvxift.kkt.newton import polish
from cvxift.kkt.solution import Linearization


def linearize(planted, dense):
    instance = Layout(planted.structure, dense).instance(planted.data)
    return Linearization.at(planted.structure, planted.data, instance, planted.x, planted.s, planted.y)


def unreduced(planted):
    """J of the normal map and the map (x, v) -> (x, y), formed from the definition."""
    structure, cones = planted.structure, planted.structure.cones
    v = planted.s - planted.y
    D = (
        np.stack([cone.spectrum(cones, v).apply(e) for e in np.eye(structure.m)], axis=1)
        if structure.m
        else np.zeros((0, 0))
    )
    P, A = structure.P_matrix(planted.data.P).toarray(), structure.A_matrix(planted.data.A).toarray()
    eye = np.eye(structure.m)
    return np.block([[P, A.T @ (D - eye)], [A, D]]), D - eye


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
def test_jvp_agrees_with_the_unreduced_jacobian(planted, dense):
    rng = np.random.default_rng(1)
    dot = tangent(planted.structure, rng)
    linear = linearize(planted, dense)
    x_dot, y_dot = linear.jvp(dot)
    J, to_y = unreduced(planted)
    g, h = linear.residual_tangent(dot)
    w = np.linalg.solve(J, np.concatenate([g, h]))
    n = planted.structure.n
    scale = 1.0 + np.abs(w).max()
    np.testing.assert_allclose(x_dot, w[:n], atol=1e-10 * scale)
    np.testing.assert_allclose(y_dot, to_y @ w[n:], atol=1e-10 * scale)
    assert linear.certificate.residual < 1e-11


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
def test_vjp_is_the_transpose_of_jvp(planted, dense):
    rng = np.random.default_rng(2)
    dot = tangent(planted.structure, rng)
    x_bar, y_bar = rng.standard_normal(planted.structure.n), rng.standard_normal(planted.structure.m)
    linear = linearize(planted, dense)
    x_dot, y_dot = linear.jvp(dot)
    left, right = inner(linear.vjp(x_bar, y_bar), dot), x_bar @ x_dot + y_bar @ y_dot
    assert left == pytest.approx(right, rel=1e-9, abs=1e-9)


def resolve(planted, data, start):
    """Newton from a nearby solution: a tight solution of the moved program."""
    point = polish(Layout(planted.structure, True).instance(data), start.x, start.s - start.y, goal=1e-15)
    assert point.residuals.worst < 1e-12
    return point


def test_jvp_agrees_with_finite_differences_of_a_resolved_program(planted):
    dot = tangent(planted.structure, np.random.default_rng(3))
    x_dot, y_dot = linearize(planted, True).jvp(dot)
    size = 1e-5 / (1.0 + np.abs(x_dot).max() + np.abs(y_dot).max(initial=0.0))
    up, down = (resolve(planted, move(planted.data, dot, sign * size), planted) for sign in (1, -1))
    scale = 1.0 + max(np.abs(x_dot).max(), np.abs(y_dot).max(initial=0.0))
    np.testing.assert_allclose((up.x - down.x) / (2 * size), x_dot, atol=1e-6 * scale)
    np.testing.assert_allclose((up.y - down.y) / (2 * size), y_dot, atol=1e-6 * scale)


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
def test_second_order_agrees_with_finite_differences_of_the_tangent(planted, dense):
    rng = np.random.default_rng(4)
    structure = planted.structure
    dot, direction = tangent(structure, rng), tangent(structure, rng)
    x_bar, y_bar = rng.standard_normal(structure.n), rng.standard_normal(structure.m)
    linear = linearize(planted, dense)
    second = inner(linear.reverse(x_bar, y_bar, [dot]), direction)

    def pairing(step):
        data = move(planted.data, direction, step)
        point = resolve(planted, data, planted)
        moved = Linearization.at(structure, data, Layout(structure, True).instance(data), point.x, point.s, point.y)
        x_dot, y_dot = moved.jvp(dot)
        return x_bar @ x_dot + y_bar @ y_dot

    size = 1e-5 / (1.0 + sum(np.abs(part).max(initial=0.0) for part in linear.jvp(direction)))
    expected = (pairing(size) - pairing(-size)) / (2 * size)
    assert second == pytest.approx(expected, rel=3e-5, abs=1e-5)
