"""The margin is the distance to the nearest kink: nothing jumps nearer than that, and something does just beyond."""

from __future__ import annotations

import numpy as np
import pytest
from cone_points import HARD_EXP, HARD_POW, ONE_OF_EACH, eigenvectors, kind_of, sample

from cvxift.cones import Cones, margin, project, spectrum
from cvxift.program.row_order import triangle

CURVED = [name for name in ONE_OF_EACH if name not in ("zero", "nonneg")]
RAYS = np.sinh(np.linspace(-20, 20, 40001))


def svec(matrix):
    row, column = triangle(len(matrix))
    return np.where(row == column, 1.0, 2.0**0.5) * matrix[row, column]


def jumps(cones, v):
    """How many eigenvalues of D are exactly one and exactly zero: what changes at a kink."""
    d = spectrum(cones, v).d
    return np.stack([(d == 1).sum(axis=-1), (d == 0).sum(axis=-1)], axis=-1)


def normals(kind, alpha, side):
    """Unit inner normals of the curved boundary of the cone (side 1), or of its polar (side −1)."""
    with np.errstate(over="ignore", invalid="ignore"):
        if kind == "exp":
            rays = np.stack([-np.ones_like(RAYS), RAYS - 1, np.exp(-RAYS)])
            if side < 0:
                rays = -np.stack([RAYS, np.ones_like(RAYS), np.exp(RAYS)])
        else:
            rho = RAYS / 10
            rays = np.stack([alpha * np.exp((alpha - 1) * rho), (1 - alpha) * np.exp(alpha * rho), -np.ones_like(rho)])
            if side < 0:
                rays = -np.stack([np.exp((1 - alpha) * rho), np.exp(-alpha * rho), np.ones_like(rho)])
        rays = rays / np.abs(rays).max(axis=0)
    return (rays / np.linalg.norm(rays, axis=0))[:, np.isfinite(rays).all(axis=0)]


def ways_out(cones, v):
    """Unit directions of which one leads straight to the nearest kink."""
    kind, param = kind_of(cones), cones.blocks()[0].param
    found = spectrum(cones, v)
    Q = eigenvectors(found)
    ways = [*Q.T, *-Q.T]
    if kind == "soc" and v.size > 1:
        unit = v[1:] / np.linalg.norm(v[1:])
        ways += [np.append(a, b * unit) / np.sqrt(2) for a in (-1, 1) for b in (-1, 1)]
    if kind == "psd":
        vectors = found.groups[0].eigenvectors_of_matrix[0]
        outer = [svec(np.outer(u, u)) for u in vectors.T]
        ways += [*outer, *(-way for way in outer)]
    if kind in ("exp", "pow"):
        side = 1 if (found.d == 1).all() else -1
        rays = normals(kind, param, side)
        if kind == "pow" and v[2] < 0:
            rays[2] *= -1
        ways.append(-rays[:, np.argmin(v @ rays)])
        wedge = np.array([max(v[0], 0), max(v[1], 0), 0])
        if wedge.any():
            ways.append(-wedge / np.linalg.norm(wedge))
    return np.array(ways)


@pytest.mark.parametrize("name", CURVED)
def test_nothing_jumps_nearer_and_something_just_beyond(name, rng):
    cones = ONE_OF_EACH[name]
    checked = 0
    for trial in range(60):
        v = rng.normal(size=cones.m) if trial % 2 else sample(cones, rng)
        free = margin(cones, v)[0]
        if free < 1e-9 * np.linalg.norm(v):
            continue
        here = jumps(cones, v)
        steps = rng.normal(size=(100, cones.m))
        steps /= np.linalg.norm(steps, axis=1, keepdims=True)
        ways = ways_out(cones, v)
        assert (jumps(cones, v + 0.9999 * free * steps) == here).all(), v
        assert (jumps(cones, v + 0.9999 * free * ways) == here).all(), v
        assert (jumps(cones, v + 1.0001 * free * ways) != here).any(), v
        checked += 1
    assert checked >= 30


@pytest.mark.parametrize("name", [name for name in CURVED if name.startswith(("exp", "pow"))])
def test_depth_inside_against_a_fine_search(name, rng):
    cones = ONE_OF_EACH[name]
    kind, alpha = kind_of(cones), cones.blocks()[0].param
    v = np.concatenate([rng.normal(size=(150, 3)), rng.normal(size=(150, 3)) * 10 ** rng.uniform(-3, 3, (150, 3))])
    checked = 0
    for point in v:
        d = spectrum(cones, point).d
        if not (d == d[0]).all():
            continue
        folded = np.array([point[0], point[1], abs(point[2])]) if kind == "pow" else point
        searched = (folded @ normals(kind, alpha, 1 if d[0] else -1)).min()
        found = margin(cones, point)[0]
        # The search misses the least value by the square of its spacing, 1e-3.
        assert searched - 1e-6 * np.linalg.norm(point) <= found <= (1 + 1e-12) * searched
        checked += 1
    assert checked >= 30


def test_margins_known_in_closed_form():
    cones = Cones(zero=1, nonneg=2, soc=(1, 3), psd=(2,), exp=3)
    v = np.array([5.0, -2, 3, -0.5, 1, 3, 4, 2, 0, -0.25, -1, -2, 0.5, -1, -2, -3, 0, -2, 3])
    expected = [np.inf, 2, 3, 0.5, 4 / np.sqrt(2), 0.25, 0.5, 1, 0]
    np.testing.assert_allclose(margin(cones, v), expected, rtol=1e-15)


@pytest.mark.parametrize("name", ["exp", "pow0.33"])
def test_margin_scales_with_the_point_and_bounds_the_parts(name):
    cones = ONE_OF_EACH[name]
    hard = HARD_EXP if name == "exp" else HARD_POW
    free = margin(cones, hard)
    for scale in (1e-8, 1e8):
        np.testing.assert_allclose(margin(cones, scale * hard), scale * free, rtol=1e-7, atol=1e-14 * scale)
    s = project(cones, hard)
    y = s - hard
    for part in (s, y):
        size = np.linalg.norm(part, axis=1)
        rounding = 1e-15 * np.linalg.norm(hard, axis=1)
        assert ((free[:, 0] <= size + rounding) | (size == 0)).all()
