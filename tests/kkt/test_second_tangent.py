"""Second derivatives along two tangents, and products of many vectors at once, at planted solutions."""

from __future__ import annotations

import numpy as np
import pytest
from plant import inner, move, tangent
from test_linearization import linearize, resolve

from cvxift.kkt.instance import Layout
from cvxift.kkt.products import DataEntries
from cvxift.kkt.solution import Linearization
from cvxift.program.structure import Data


def stacked(parts):
    return Data(*(np.stack([getattr(part, name) for part in parts]) for name in ("P", "q", "A", "b", "d")))


def test_second_tangent_agrees_with_differences_of_the_tangent(planted):
    rng = np.random.default_rng(5)
    structure = planted.structure
    first, other = tangent(structure, rng), tangent(structure, rng)
    linear = linearize(planted, True)

    def moved(step):
        data = move(planted.data, other, step)
        point = resolve(planted, data, planted)
        there = Linearization.at(structure, data, Layout(structure, True).instance(data), point.x, point.s, point.y)
        return np.concatenate(there.jvp(first))

    size = 1e-5 / (1.0 + sum(np.abs(part).max(initial=0.0) for part in linear.jvp(other)))
    expected = (moved(size) - moved(-size)) / (2 * size)
    actual = np.concatenate(linear.forward([first, other]))
    np.testing.assert_allclose(actual, expected, atol=3e-5 * (1.0 + np.abs(expected).max()))


def test_second_tangent_is_symmetric_and_paired_with_second(planted):
    rng = np.random.default_rng(6)
    structure = planted.structure
    first, other = tangent(structure, rng), tangent(structure, rng)
    x_bar, y_bar = rng.standard_normal(structure.n), rng.standard_normal(structure.m)
    linear = linearize(planted, False)
    x, y = linear.forward([first, other])
    for one, swapped in zip((x, y), linear.forward([other, first]), strict=True):
        np.testing.assert_allclose(one, swapped, atol=1e-9 * (1.0 + np.abs(one).max(initial=0.0)))
    paired = inner(linear.reverse(x_bar, y_bar, [first]), other)
    assert paired == pytest.approx(x_bar @ x + y_bar @ y, rel=1e-8, abs=1e-8)


def test_many_vectors_at_once_are_each_alone(planted):
    rng = np.random.default_rng(7)
    structure = planted.structure
    firsts, others = ([tangent(structure, rng) for _ in range(3)] for _ in range(2))
    x_bar, y_bar = rng.standard_normal((3, structure.n)), rng.standard_normal((3, structure.m))
    linear = linearize(planted, True)
    dots, also = stacked(firsts), stacked(others)
    jvp, bent, second = linear.jvp(dots), linear.forward([dots, also]), linear.reverse(x_bar, y_bar, [dots])
    for i in range(3):
        for together, alone in (
            *zip(jvp, linear.jvp(firsts[i]), strict=True),
            *zip(bent, linear.forward([firsts[i], others[i]]), strict=True),
        ):
            np.testing.assert_allclose(together[i], alone, atol=1e-10 * (1.0 + np.abs(alone).max(initial=0.0)))
        alone = linear.reverse(x_bar[i], y_bar[i], [firsts[i]])
        for name in ("P", "q", "A", "b"):
            one, other = getattr(second, name)[i], getattr(alone, name)
            np.testing.assert_allclose(one, other, atol=1e-9 * (1.0 + np.abs(other).max(initial=0.0)))


def test_act_is_the_matrices_product(planted):
    structure, rng = planted.structure, np.random.default_rng(8)
    x, y = rng.standard_normal(structure.n), rng.standard_normal(structure.m)
    columns, rows = DataEntries(structure).act(planted.data, x, y)
    P, A = structure.P_matrix(planted.data.P), structure.A_matrix(planted.data.A)
    np.testing.assert_allclose(columns, P @ x + A.T @ y, atol=1e-12)
    np.testing.assert_allclose(rows, A @ x, atol=1e-12)
