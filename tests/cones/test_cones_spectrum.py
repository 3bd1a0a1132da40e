"""What a spectrum gives besides D: the kept directions, margins, and a start for the spectrum at a nearby point."""

from __future__ import annotations

import numpy as np
import pytest
from cone_points import EVERYTHING, ONE_OF_EACH, eigenvectors, sample

from cvxift.cones import Cones, margin, spectrum
from cvxift.cones.exp import Exponential

ALL = {**ONE_OF_EACH, "everything": EVERYTHING, "many": Cones(soc=(4, 4, 2, 4), psd=(3, 3, 1), exp=9, pow=(0.2, 0.7))}


@pytest.fixture(params=ALL)
def cones(request):
    return ALL[request.param]


def points(cones, rng, count):
    """Gaussian points, points with cones at their faces and apexes, and the origin."""
    v = rng.standard_normal((count, cones.m))
    v[count // 2 :] *= rng.choice([0.0, 1e-8, 1.0, 1e6], size=(count - count // 2, cones.m))
    v[-1] = 0.0
    return v


def curved_points(count, rng):
    """Exponential and power cones of every kind, as the other tests sample them."""
    alone = (Cones(exp=1), Cones(pow=(0.3,)))
    return Cones(exp=count, pow=(0.3,) * count), np.concatenate([sample(c, rng) for c in alone for _ in range(count)])


def test_kept_directions_are_the_eigenvectors_below_one(cones, rng):
    for v in points(cones, rng, 12):
        found = spectrum(cones, v)
        Q, d = eigenvectors(found), found.d
        rows, curvature = found.tight_and_curved()
        columns = found.eigenvectors(lambda d: d < 1.0)
        kept = np.concatenate([np.eye(cones.m)[:, rows], columns.toarray()], axis=1)
        np.testing.assert_allclose(kept.T @ kept, np.eye(kept.shape[1]), atol=1e-13)
        first = cones.zero + cones.nonneg
        below = np.flatnonzero(d[first:] < 1.0) + first
        # They span what the whole basis' columns with d < 1 span, zero and nonneg rows left out.
        np.testing.assert_allclose(kept @ kept.T, Q[:, below] @ Q[:, below].T, atol=1e-12)
        h = np.concatenate([np.zeros(len(rows)), curvature])
        np.testing.assert_allclose(kept.T @ found.apply(kept.T).T, np.diag(h / (1.0 + h)), atol=1e-12)
        dense = np.zeros((cones.m, columns.shape[1] + 2))
        found.write_eigenvectors(dense, 2, lambda d: d < 1.0)
        np.testing.assert_array_equal(dense[:, 2:], columns.toarray())


def test_chosen_columns_of_one_cone(cones, rng):
    found = spectrum(cones, points(cones, rng, 3)[0])
    for group in found.groups:
        for k in range(group.count):
            whole = np.eye(group.dim) if group.Q is None else group.Q[k]
            chosen = rng.random(group.dim) < 0.5
            np.testing.assert_allclose(group.columns(k, chosen), whole[:, chosen], rtol=0, atol=1e-15)


def test_margin_of_a_known_spectrum(cones, rng):
    v = points(cones, rng, 12)
    np.testing.assert_array_equal(margin(cones, v, spectrum(cones, v)), margin(cones, v))
    np.testing.assert_array_equal(margin(cones, v[0], spectrum(cones, v[0])), margin(cones, v[0]))


@pytest.mark.parametrize("distance", [0.0, 1e-12, 1e-6, 1e-2, 1.0, 1e3])
def test_a_neighbour_changes_nothing(cones, rng, distance):
    """Whatever is said to be near, be it far away or on another face: the spectrum is that of the point."""
    v = points(cones, rng, 12)
    near = spectrum(cones, v + distance * rng.standard_normal(v.shape))
    helped, alone = spectrum(cones, v, near), spectrum(cones, v)
    scale = np.linalg.norm(v, axis=-1, keepdims=True) + 1e-300
    assert (np.abs(helped.s - alone.s) <= 1e-14 * scale).all()
    w = rng.standard_normal(cones.m)
    np.testing.assert_allclose(helped.apply(w), alone.apply(w), rtol=0, atol=1e-9)


def test_a_neighbour_changes_nothing_at_any_scale(rng):
    cones, v = curved_points(300, rng)
    other = v.reshape(-1, 3)[rng.permutation(len(v) // 3)].ravel()
    near = spectrum(cones, np.where(rng.random(cones.m) < 0.5, v * (1.0 + 1e-7 * rng.standard_normal(cones.m)), other))
    helped, alone = spectrum(cones, v, near), spectrum(cones, v)
    scale = np.repeat(np.abs(v.reshape(-1, 3)).max(axis=1), 3)
    assert (np.abs(helped.s - alone.s) <= 1e-14 * scale).all()


def test_a_neighbour_of_another_shape_is_ignored(rng):
    cones = Cones(exp=2)
    v = rng.standard_normal((3, 6))
    np.testing.assert_array_equal(spectrum(cones, v, spectrum(cones, v[0])).s, spectrum(cones, v).s)


@pytest.mark.parametrize("width", [0, 4, 100])
def test_logarithmic_steps_stay_inside_their_bracket(rng, width):
    """The guess for the exponential cone is finite and between the rays where σ and τ are positive."""
    v = rng.standard_normal((3, 5000)) * 10 ** rng.uniform(-width, width, (3, 5000))
    cone = Exponential()
    with np.errstate(all="ignore"):
        v = v[:, cone.regime(v, np.zeros(v.shape[1])) == 0]
        v = v / np.abs(v).max(axis=0)
        rho = cone.guess(v, np.zeros(v.shape[1]))
        root = cone.root(v, np.zeros(v.shape[1]))
    assert np.isfinite(rho).all()
    if width == 0:
        assert np.mean(np.abs(rho - root) <= 1e-3 * (1.0 + np.abs(root))) > 0.95
