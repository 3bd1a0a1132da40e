"""The laws that every cone states, over the table of cones and over all of them together."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from cone_points import EVERYTHING, ONE_OF_EACH, distance_dual, eigenvectors, sample, second_derivative

from cvxift.cones import (
    Cones,
    distance,
    margin,
    project,
    spectrum,
)


def apply_derivative(cones, v, w):
    return spectrum(cones, v).apply(w)


def project_dual(cones, v):
    """By Moreau: Π*(v) = Π(−v) + v."""
    return project(cones, -v) + v


ALL = {**ONE_OF_EACH, "everything": EVERYTHING, "none": Cones()}
EPS = np.finfo(float).eps


def points(cones, rng, count=60):
    """Points of the product cone, each of whose cones is sampled for itself; the last one is the apex."""
    v = np.zeros((count + 1, cones.m))
    for block in cones.blocks():
        one = block_alone(block)
        for row in range(count):
            size = block.stop - block.start if block.kind in ("zero", "nonneg") else 1
            v[row, block.start : block.stop] = np.concatenate([sample(one, rng) for _ in range(size)])
    return v


def block_alone(block):
    if block.kind == "soc":
        return Cones(soc=(block.stop - block.start,))
    if block.kind in ("psd", "pow"):
        return Cones(**{block.kind: (block.param,)})
    return Cones(**{block.kind: 1})


def moderate(cones, rng, count=40):
    """Gaussian points far enough from kinks for finite differences."""
    v = rng.normal(size=(400, cones.m))
    return v[margin(cones, v).min(axis=-1, initial=np.inf) > 1e-3][:count]


def size_of(v):
    return np.linalg.norm(v, axis=-1, keepdims=True)


@pytest.fixture(params=ALL)
def cones(request):
    return ALL[request.param]


def test_projection_is_idempotent_and_positively_homogeneous(cones, rng):
    v = points(cones, rng)
    s = project(cones, v)
    assert (np.abs(project(cones, s) - s) <= 100 * EPS * size_of(v)).all()
    for scale in (1e-8, 2.0**-40, 3.0, 1e8):
        assert (np.abs(project(cones, scale * v) - scale * s) <= 100 * EPS * scale * size_of(v)).all()


def test_moreau_decomposition(cones, rng):
    v = points(cones, rng)
    s, y = project(cones, v), project_dual(cones, -v)
    assert (np.abs(s - y - v) <= 10 * EPS * size_of(v)).all()
    assert (np.abs(np.sum(s * y, axis=-1)) <= 100 * EPS * size_of(v)[:, 0] ** 2).all()
    assert (distance(cones, s) <= 100 * EPS * size_of(v)).all()
    assert (distance_dual(cones, y) <= 100 * EPS * size_of(v)).all()
    assert (distance_dual(cones, project_dual(cones, v)) <= 100 * EPS * size_of(v)).all()


def test_projection_is_nonexpansive(cones, rng):
    v = moderate(cones, rng)
    w = v + rng.normal(size=v.shape) * 10 ** rng.uniform(-9, 1, size=(len(v), 1))
    moved = size_of(project(cones, v) - project(cones, w))
    assert (moved <= size_of(v - w) + 100 * EPS * size_of(v)).all()


@pytest.mark.parametrize("width", [0, 2, 8, 30, 150])
@pytest.mark.parametrize("kind", ["exp", "pow"])
def test_many_curved_cones_of_every_shape(kind, width, rng):
    count = 20_000
    alpha = np.where(rng.random(count) < 0.7, rng.uniform(0.01, 0.99, count), 10 ** rng.uniform(-4, -1, count))
    cones = Cones(exp=count) if kind == "exp" else Cones(pow=tuple(np.where(rng.random(count) < 0.5, alpha, 1 - alpha)))
    v = rng.normal(size=(count, 3)) * 10 ** rng.uniform(-width, width, (count, 3))
    v = (v / np.abs(v).max(axis=1, keepdims=True)).ravel()
    s = project(cones, v)
    y = s - v
    assert (np.abs(np.sum((s * y).reshape(-1, 3), axis=1)) <= 10 * EPS).all()
    assert (distance(cones, s) <= 10 * EPS).all()
    assert (distance_dual(cones, y) <= 10 * EPS).all()
    found = spectrum(cones, v)
    assert (np.abs(found.apply(v) - s) <= 10 * EPS).all()
    assert ((found.d >= 0) & (found.d <= 1)).all()
    free = margin(cones, v)
    lengths = np.linalg.norm(np.stack([s, y]).reshape(2, -1, 3), axis=-1)
    assert ((free >= 0) & (free <= lengths.max(axis=0) + 10 * EPS)).all()


def test_distances_are_lengths_of_what_is_cut_off(cones, rng):
    v = points(cones, rng)
    off, off_dual = v - project(cones, v), v - project_dual(cones, v)
    total, total_dual = distance(cones, v), distance_dual(cones, v)
    assert total.shape == (len(v), cones.units)
    np.testing.assert_allclose(np.sum(total**2, axis=-1), np.sum(off**2, axis=-1), rtol=1e-6, atol=1e-30)
    gap = np.sqrt(np.sum(total_dual**2, axis=-1)) - size_of(off_dual)[:, 0]
    assert (np.abs(gap) <= 100 * EPS * size_of(v)[:, 0]).all()


def test_spectrum_is_that_of_a_symmetric_contraction(cones, rng):
    for v in points(cones, rng, 20):
        found = spectrum(cones, v)
        assert ((found.d >= 0) & (found.d <= 1)).all()
        assert np.abs(found.d + found.complement - 1).max(initial=0) <= 4 * EPS
        assert ((found.complement == 0) == (found.d == 1)).all()
        assert ((found.complement == 1) >= (found.d == 0)).all()
        Q = eigenvectors(found)
        np.testing.assert_allclose(Q.T @ Q, np.eye(cones.m), rtol=0, atol=1e-14)
        D = Q @ np.diag(found.d) @ Q.T
        applied = found.apply(np.eye(cones.m)).T
        np.testing.assert_allclose(applied, D, rtol=0, atol=1e-14)
        np.testing.assert_allclose(apply_derivative(cones, v, np.eye(cones.m)).T, D, rtol=0, atol=1e-14)
        w = rng.normal(size=cones.m)
        np.testing.assert_allclose(found.rotate(w), Q.T @ w, rtol=0, atol=1e-13)
        np.testing.assert_allclose(found.restore(w), Q @ w, rtol=0, atol=1e-13)
        # Euler's identity for a map homogeneous of degree one.
        assert np.abs(D @ v - project(cones, v)).max(initial=0) <= 100 * EPS * np.linalg.norm(v)
        np.testing.assert_array_equal(found.s, project(cones, v))


def test_dense_eigenvectors_are_those_of_the_basis(cones, rng):
    v = points(cones, rng, 1)[0]
    found = spectrum(cones, v)
    basis = eigenvectors(found)
    for group in found.groups:
        for index, rows in enumerate(group.rows):
            expected = np.eye(group.dim) if group.Q is None else group.Q[index]
            np.testing.assert_allclose(basis[np.ix_(rows, rows)], expected, rtol=0, atol=1e-15)


def test_derivative_agrees_with_differences(cones, rng):
    for v in moderate(cones, rng):
        w = rng.normal(size=cones.m)
        step = 1e-6
        slope = (project(cones, v + step * w) - project(cones, v - step * w)) / (2 * step)
        # The third derivative is of the order of 1/margin², at most 1e6.
        np.testing.assert_allclose(apply_derivative(cones, v, w), slope, rtol=0, atol=1e-4)
        if margin(cones, v).min(initial=np.inf) > 0.05:
            np.testing.assert_allclose(apply_derivative(cones, v, w), slope, rtol=0, atol=1e-8)


def test_second_derivative_is_symmetric_in_three_directions(cones, rng):
    for v in moderate(cones, rng, 10):
        a, b, c = rng.normal(size=(3, cones.m))
        values = [
            second_derivative(cones, v, left, right) @ other
            for left, right, other in ((a, b, c), (b, a, c), (a, c, b), (c, a, b), (b, c, a), (c, b, a))
        ]
        scale = np.abs(second_derivative(cones, v, a, b)).max(initial=0) * np.linalg.norm(c) + 1
        np.testing.assert_allclose(values, values[0], rtol=0, atol=1e-12 * scale)


def test_second_derivative_agrees_with_differences(cones, rng):
    for v in moderate(cones, rng, 10):
        a, b = rng.normal(size=(2, cones.m))
        step = 1e-4 * min(1.0, margin(cones, v).min(initial=1.0))
        ahead, behind = apply_derivative(cones, v + step * a, b), apply_derivative(cones, v - step * a, b)
        found = second_derivative(cones, v, a, b)
        slope, scale = (ahead - behind) / (2 * step), np.abs(found).max(initial=1)
        np.testing.assert_allclose(found, slope, rtol=0, atol=1e-5 * scale)


def test_second_derivative_lowers_the_degree_by_one(cones, rng):
    # D is homogeneous of degree 0, so its derivative along v vanishes.
    for v in moderate(cones, rng, 10):
        b = rng.normal(size=cones.m)
        scale = 1 + np.abs(second_derivative(cones, v, b, b)).max(initial=0)
        np.testing.assert_allclose(second_derivative(cones, v, v, b), 0, atol=1e-12 * scale)
        far, near = second_derivative(cones, 1e6 * v, b, b), second_derivative(cones, v, b, b)
        np.testing.assert_allclose(1e6 * far, near, rtol=0, atol=1e-12 * scale)


def test_batches_are_computed_as_their_members(cones, rng):
    v, a, b = rng.normal(size=(3, 2, 3, cones.m))
    together = {
        "project": project(cones, v),
        "dual": project_dual(cones, v),
        "derivative": apply_derivative(cones, v, a),
        "second": second_derivative(cones, v, a, b),
        "margin": margin(cones, v),
        "distance": distance(cones, v),
        "d": spectrum(cones, v).d,
        "s": spectrum(cones, v).s,
    }
    for index in np.ndindex(2, 3):
        alone = {
            "project": project(cones, v[index]),
            "dual": project_dual(cones, v[index]),
            "derivative": apply_derivative(cones, v[index], a[index]),
            "second": second_derivative(cones, v[index], a[index], b[index]),
            "margin": margin(cones, v[index]),
            "distance": distance(cones, v[index]),
            "d": spectrum(cones, v[index]).d,
            "s": spectrum(cones, v[index]).s,
        }
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][index], value, rtol=1e-11, atol=1e-13, err_msg=name)


def test_directions_broadcast_against_points(cones, rng):
    v, w = rng.normal(size=(3, cones.m)), rng.normal(size=(4, 1, cones.m))
    out = apply_derivative(cones, v, w)
    assert out.shape == (4, 3, cones.m)
    one = spectrum(cones, v[1])
    np.testing.assert_allclose(out[:, 1], one.apply(w[:, 0]), rtol=0, atol=1e-14)
    assert one.rotate(w).shape == one.restore(w).shape == (4, 1, cones.m)
    np.testing.assert_allclose(spectrum(cones, v).restore(w[0, 0])[1], one.restore(w[0, 0]), rtol=0, atol=1e-14)
    bent = second_derivative(cones, v[0], w[0], v)
    np.testing.assert_allclose(bent[2], second_derivative(cones, v[0], w[0, 0], v[2]), rtol=1e-12, atol=1e-13)


def test_empty_batches(cones):
    v = np.zeros((0, cones.m))
    assert project(cones, v).shape == spectrum(cones, v).d.shape == second_derivative(cones, v, v, v).shape == v.shape
    assert margin(cones, v).shape == distance(cones, v).shape == (0, cones.units)


def test_nan_stays_in_its_cone_and_its_instance(rng):
    cones = EVERYTHING
    v = rng.normal(size=(3, cones.m))
    clean, clean_d, clean_margin = project(cones, v), spectrum(cones, v).d, margin(cones, v)
    for block in cones.blocks()[1:]:
        for row in range(block.start, block.stop):
            spoilt = v.copy()
            spoilt[1, row] = np.nan
            s = project(cones, spoilt)
            assert np.isnan(s[1, block.start : block.stop]).any()
            others = np.ones(v.shape, dtype=bool)
            others[1, block.start : block.stop] = False
            np.testing.assert_allclose(s[others], clean[others], rtol=0, atol=1e-14)
            np.testing.assert_allclose(spectrum(cones, spoilt).d[others], clean_d[others], rtol=0, atol=1e-12)
            unit = np.searchsorted(cones.unit_starts, row, side="right") - 1
            found = margin(cones, spoilt)
            assert np.isnan(found[1, unit])
            rest = np.ones(found.shape, dtype=bool)
            rest[1, unit] = False
            np.testing.assert_allclose(found[rest], clean_margin[rest], rtol=1e-9)


def test_at_kinks_the_limit_from_inside_is_taken():
    cones = Cones(nonneg=1, soc=(3,), psd=(2,), exp=1, pow=(0.5,))
    np.testing.assert_array_equal(spectrum(cones, np.zeros(cones.m)).d, 1.0)
    on_boundary = np.array([0.0, 5, 3, 4, 1, 0, 0, 0, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(spectrum(cones, on_boundary).d, 1.0)
    assert (margin(cones, on_boundary) <= 1e-15).all()


@pytest.mark.parametrize("kind", ["nonneg", "soc", "psd", "exp", "pow"])
def test_work_in_python_does_not_grow_with_the_number_of_cones(kind, rng):
    def calls(count):
        cones = Cones(**{kind: count if kind in ("nonneg", "exp") else (0.4 if kind == "pow" else 3,) * count})
        v = rng.normal(size=cones.m)
        cones.parts, cones.unit_parts  # noqa: B018  # built once for all points
        seen = 0

        def trace(frame, event, arg):
            nonlocal seen
            seen += event == "call"

        sys.setprofile(trace)
        try:
            project(cones, v)
            spectrum(cones, v).eigenvectors(np.isfinite)
            second_derivative(cones, v, v, v)
        finally:
            sys.setprofile(None)
        return seen

    calls(20)
    assert calls(2000) <= 4 * calls(20)
