"""The product cone on other arrays than the host's: the same spectra, products and derivatives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cone_points import EVERYTHING, ONE_OF_EACH

from cvxift.cones import Cones, spectrum
from cvxift.cones.product import PlacedCones

ALL = {
    **ONE_OF_EACH,
    "everything": EVERYTHING,
    "mixed": Cones(2, 1, soc=(4, 2, 4, 1), psd=(3, 1, 3), exp=2, pow=(0.2, 0.7)),
}


def put_torch(values: np.ndarray):
    import torch

    return torch.from_numpy(np.array(values))


@pytest.fixture(params=["numpy", "torch"])
def placed(request, cones) -> Iterator[PlacedCones]:
    if request.param == "numpy":
        yield PlacedCones(cones, np, np.array, np.asarray)
    else:
        import array_api_compat.torch as xp

        yield PlacedCones(cones, xp, put_torch, np.asarray)


@pytest.fixture(params=ALL)
def cones(request):
    return ALL[request.param]


def points(cones: Cones, rng: np.random.Generator) -> np.ndarray:
    """Points inside, outside and between, some of each scale, and the origin; shape (2, 5, m)."""
    v = rng.standard_normal((10, cones.m))
    v[3:9] *= 10.0 ** rng.integers(-8, 9, (6, 1))
    v[-1] = 0.0
    return v.reshape(2, 5, -1)


def test_spectra_are_the_hosts(cones: Cones, placed: PlacedCones, rng: np.random.Generator) -> None:
    v = points(cones, rng)
    here, there = spectrum(cones, v), placed.spectrum(placed.put(v))
    size = np.abs(v).max(axis=-1, keepdims=True)
    assert (np.abs(np.asarray(there.s) - here.s) <= 1e-13 * size).all()
    for name in ("d", "complement"):
        np.testing.assert_allclose(np.asarray(getattr(there, name)), getattr(here, name), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(np.asarray(there.kept), here.kept)
    np.testing.assert_array_equal(np.asarray(there.d) == 0.0, here.d == 0.0)


def test_eigenvectors_are_orthonormal_and_give_D(cones: Cones, placed: PlacedCones, rng: np.random.Generator) -> None:
    v, w = points(cones, rng), rng.standard_normal((3, 2, 5, cones.m))
    here, there = spectrum(cones, v), placed.spectrum(placed.put(v))
    turned = there.rotate(placed.put(w))
    np.testing.assert_allclose(np.asarray(there.restore(turned)), w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.asarray(there.restore(there.d * turned)), here.apply(w), rtol=0, atol=1e-11)
    A = rng.standard_normal((2, 5, cones.m, 3))
    columns = np.moveaxis(np.asarray(there.rotate(placed.put(np.moveaxis(A, -1, 0)))), 0, -1)
    np.testing.assert_allclose(np.asarray(there.rotate_rows(placed.put(A))), columns, rtol=0, atol=1e-12)
    columns = np.moveaxis(here.rotate(np.moveaxis(A, -1, 0)), 0, -1)
    np.testing.assert_allclose(here.rotate_rows(A), columns, rtol=0, atol=1e-12)


def test_bends_and_split_cotangents_are_the_hosts(cones: Cones, placed: PlacedCones, rng: np.random.Generator) -> None:
    v = rng.standard_normal((4, cones.m))
    a, b = rng.standard_normal((2, 4, cones.m)), rng.standard_normal((4, cones.m))
    here, there = spectrum(cones, v), placed.spectrum(placed.put(v))
    if cones.polyhedral:
        return
    expected = here.bend(a, b)
    size = 1.0 + np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(there.bend(placed.put(a), placed.put(b))), expected, rtol=0, atol=1e-9 * size)
    for got, wanted in zip(there.split(placed.put(expected)), here.split(expected), strict=True):
        np.testing.assert_allclose(np.asarray(got), wanted, rtol=0, atol=1e-8 * (1.0 + np.abs(wanted).max()))


def test_split_solves_its_equations(cones: Cones, rng: np.random.Generator) -> None:
    """(I − D)a − Dw = v̄ for the w on slack directions; −(I − D)ȳ is what is left of v̄."""
    found = spectrum(cones, rng.standard_normal((5, cones.m)))
    v_bar = rng.standard_normal((5, cones.m))
    w, y_bar = found.split(v_bar)
    size = 1.0 + np.abs(y_bar).max()
    np.testing.assert_allclose(-found.apply(w) - (y_bar - found.apply(y_bar)), v_bar, rtol=0, atol=1e-13 * size)


def test_nan_spoils_its_own_point_alone(cones: Cones, placed: PlacedCones, rng: np.random.Generator) -> None:
    v = rng.standard_normal((3, cones.m))
    v[1] = np.nan
    here, there = spectrum(cones, v), placed.spectrum(placed.put(v))
    np.testing.assert_allclose(np.asarray(there.s)[[0, 2]], here.s[[0, 2]], rtol=1e-13)
    if cones.zero < cones.m:
        assert np.isnan(np.asarray(there.s)[1, cones.zero :]).all()


def test_the_largest_of_each_cone(cones: Cones, placed: PlacedCones, rng: np.random.Generator) -> None:
    values = rng.random((3, cones.m))
    expected = values.copy()
    for start, stop in zip(cones.unit_starts, [*cones.unit_starts[1:], cones.m], strict=True):
        expected[:, start:stop] = values[:, start:stop].max(axis=1, keepdims=True)
    np.testing.assert_array_equal(np.asarray(placed.largest(placed.put(values))), expected)


def test_near_spectra_change_nothing(rng: np.random.Generator) -> None:
    cones = Cones(exp=3, pow=(0.3, 0.6))
    placed = PlacedCones(cones, np, np.array, np.asarray)
    v = rng.standard_normal((4, cones.m))
    near = placed.spectrum(v + 1e-6 * rng.standard_normal(v.shape))
    np.testing.assert_allclose(placed.spectrum(v, near).s, placed.spectrum(v).s, rtol=1e-13, atol=1e-15)


def test_jax_arrays(rng: np.random.Generator) -> None:
    """In one compiled function, where no value can be looked at."""
    jax = pytest.importorskip("jax")
    cones = Cones(nonneg=1, soc=(3, 2, 3), psd=(2,))
    v, w = rng.standard_normal((2, cones.m)), rng.standard_normal((2, cones.m))

    def everything(found, w):
        return found.s, found.d, found.apply(w), found.bend(w, w)

    with jax.enable_x64(True):
        placed = PlacedCones(cones, jax.numpy, jax.numpy.asarray, np.asarray)
        there = jax.jit(lambda v, w: everything(placed.spectrum(v), w))(v, w)
        for got, expected in zip(there, everything(spectrum(cones, v), w), strict=True):
            np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-10, atol=1e-11)
