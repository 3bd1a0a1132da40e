"""Projections and both derivatives against 60 digits, on random and hard points of every curved cone."""

from __future__ import annotations

from itertools import pairwise

import cone_reference as reference
import mpmath as mp
import numpy as np
import pytest
from cone_points import ALPHAS, HARD_EXP, HARD_POW, ONE_OF_EACH, sample, second_derivative

from cvxift.cones import Cones, margin, project, spectrum

CURVED = [name for name in ONE_OF_EACH if name not in ("zero", "nonneg", "soc1", "psd1")]
EPS = np.finfo(float).eps


def block_of(cones):
    block = cones.blocks()[0]
    return block.kind, block.param


def error(value, exact):
    return float(reference.norm([mp.mpf(float(a)) - b for a, b in zip(value, exact)]))


def check_projection(cones, v, allowed):
    kind, param = block_of(cones)
    exact_v = reference.column(v)
    exact = reference.PROJECT[kind](exact_v, param)
    if kind in ("exp", "pow"):
        reference.certify(kind, exact_v, exact, param)
    assert error(project(cones, v), exact) <= allowed * np.linalg.norm(v), v
    assert error(spectrum(cones, v).s, exact) <= allowed * np.linalg.norm(v), v


def check_derivative(cones, v, allowed, reach=1.0):
    """At a point whose margin is far above rounding; `reach` bounds the step where Π is smooth on a shorter length."""
    kind, param = block_of(cones)
    free = float(margin(cones, v)[0])
    step = mp.mpf(min(free, reach)) * mp.mpf(10) ** -15
    exact = reference.derivative(kind, reference.column(v), param, step)
    found = spectrum(cones, v)
    D = np.column_stack([found.apply(e) for e in np.eye(len(v))])
    assert np.abs(D - exact).max() <= allowed, v


@pytest.mark.parametrize("name", CURVED)
def test_projection_is_accurate_to_rounding(name, rng):
    cones = ONE_OF_EACH[name]
    # eigh is backward stable with a constant that grows with the order; the closed forms are within 5 units.
    allowed = (60 if name.startswith("psd") else 5) * EPS
    for _ in range(40):
        check_projection(cones, sample(cones, rng), allowed)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("name", [name for name in CURVED if name.startswith(("exp", "pow"))])
def test_projection_at_faces_apexes_and_ends(name, scale, rng):
    cones = ONE_OF_EACH[name]
    for point in HARD_EXP if name == "exp" else HARD_POW:
        check_projection(cones, scale * point, 5 * EPS)
        if scale == 1.0:
            check_projection(cones, point * (1 + 1e-12 * rng.normal(size=3)), 5 * EPS)


@pytest.mark.parametrize("alpha", [1e-3, 0.999])
def test_projection_with_extreme_exponents(alpha, rng):
    cones = Cones(pow=(alpha,))
    for point in HARD_POW:
        check_projection(cones, point, 5 * EPS)
    for _ in range(20):
        check_projection(cones, sample(cones, rng), 5 * EPS)


@pytest.mark.parametrize("name", CURVED)
def test_derivative_is_accurate_to_rounding(name, rng):
    cones = ONE_OF_EACH[name]
    checked = 0
    for _ in range(25):
        v = sample(cones, rng)
        relative = float(margin(cones, v)[0]) / np.linalg.norm(v)
        if relative > 1e-12:
            # Rounding v itself moves D by EPS over the margin; only eigh adds such an error of its own.
            check_derivative(cones, v, 100 * EPS / relative if name.startswith("psd") else 40 * EPS)
            checked += 1
    assert checked >= 10


@pytest.mark.parametrize("name", ["exp", "pow0.50", "pow0.33", "pow0.90"])
def test_derivative_at_hard_points(name):
    cones = ONE_OF_EACH[name]
    checked = 0
    for v in HARD_EXP if name == "exp" else HARD_POW:
        size = np.linalg.norm(v)
        if size > 0 and margin(cones, v)[0] > 1e-9 * size and (name == "exp" or v[2] != 0):
            check_derivative(cones, v, 40 * EPS, reach=1.0 if name == "exp" else 1e-3 * abs(v[2]))
            checked += 1
    assert checked >= 10


@pytest.mark.parametrize("name", CURVED)
def test_second_derivative(name, rng):
    cones = ONE_OF_EACH[name]
    kind, param = block_of(cones)
    checked = 0
    for _ in range(12):
        v = sample(cones, rng)
        size, free = np.linalg.norm(v), float(margin(cones, v)[0])
        if free < 1e-6 * size:
            continue
        a, b = rng.normal(size=(2, len(v)))
        step = mp.mpf(free) * mp.mpf(10) ** -13
        args = reference.column(v), reference.column(a), reference.column(b)
        exact = reference.second_derivative(kind, *args, param, step)
        allowed = 1e-12 * np.linalg.norm(exact) * size / free + 1e-15 / free
        assert np.abs(second_derivative(cones, v, a, b) - exact).max() <= allowed, v
        checked += 1
    assert checked >= 4


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("v", [(2.0, -3.0, 0.0), (-3.0, 2.0, 0.0)])
def test_power_cone_where_its_curve_ends(alpha, v):
    # At (r, −s, 0) the boundary is y = |z/x^α|^(1/(1 − α)): of no, infinite or finite curvature at z = 0.
    exponent = alpha if v[0] > 0 else 1 - alpha
    between = 1.0 if exponent > 0.5 else 0.0 if exponent < 0.5 else 2.0 / (2.0 + 2 * 3.0)
    found = spectrum(Cones(pow=(alpha,)), np.array(v))
    np.testing.assert_array_equal(found.d, [1.0, between, 0.0])
    np.testing.assert_array_equal(found.complement, [0.0, 1.0 - between, 1.0])
    D = np.column_stack([found.apply(e) for e in np.eye(3)])
    np.testing.assert_allclose(D, np.diag([v[0] > 0, v[1] > 0, between]), rtol=0, atol=1e-16)


def test_derivative_of_power_cone_tends_to_that_limit():
    for alpha in (0.3, 0.5, 0.7):
        cones = Cones(pow=(alpha,))
        limit = spectrum(cones, np.array([2.0, -3.0, 0.0])).d[1]
        gaps = [abs(spectrum(cones, np.array([2.0, -3.0, t])).d[1] - limit) for t in (1e-3, 1e-6, 1e-9, 1e-12, 1e-40)]
        assert all(later <= earlier for earlier, later in pairwise(gaps))
        assert gaps[-1] < 1e-15
