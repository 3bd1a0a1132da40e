"""Places: constant sparse maps by gathers, factors, and the affine maps of a program put together again."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cvxift.kkt.backend import HOST, KEEP_FACTORS, Arrays
from cvxift.kkt.sparse_affine import Gather
from cvxift.program.affine import AffineMap
from tests.kkt.places import mapping, place_of


def ragged(rows: int, columns: int, rng: np.random.Generator) -> sp.csr_array:
    """Rows of 0, 1, 2, … entries up to all columns, in random order, some with coefficient one."""
    dense = np.zeros((rows, columns))
    for row in dense:
        count = int(rng.integers(0, columns + 1))
        row[rng.permutation(columns)[:count]] = np.where(rng.random(count) < 0.3, 1.0, rng.standard_normal(count))
    return sp.csr_array(dense)


@pytest.mark.parametrize("shape", [(12, 7), (1, 1), (5, 0), (0, 5), (40, 33)])
@pytest.mark.parametrize("place", ["numpy", "torch"])
def test_gather_is_the_matrix(place: str, shape: tuple[int, int], rng: np.random.Generator) -> None:
    matrix, constant = ragged(*shape, rng), rng.standard_normal(shape[0])
    with place_of(place) as where:
        for c in (None, constant, np.zeros(shape[0])):
            gather = Gather(where, matrix, c)
            for batch in ((), (3,), (2, 3), (0,)):
                v = rng.standard_normal((*batch, shape[1]))
                got = where.host(gather(where.put(v)))
                np.testing.assert_allclose(got, v @ matrix.toarray().T + (0.0 if c is None else c), atol=1e-12)


def test_gather_of_one_width_in_order_needs_no_sorting(rng: np.random.Generator) -> None:
    pick = sp.csr_array(np.eye(6)[[3, 1, 5]])
    with place_of("torch") as where:
        assert Gather(where, pick)._where is None
        v = rng.standard_normal((2, 6))
        np.testing.assert_array_equal(where.host(Gather(where, pick)(where.put(v))), v[:, [3, 1, 5]])


def test_padding_reads_no_entry_of_the_vector() -> None:
    """Where +∞ means "no bound", a padded zero coefficient must not meet it."""
    matrix = sp.csr_array(np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 2.0]]))
    with place_of("numpy") as where:
        np.testing.assert_array_equal(Gather(where, matrix)(np.array([1.0, 2.0, 3.0, np.inf])), [6.0, np.inf])


@pytest.mark.parametrize("ones", [True, False])
def test_affine_parts_put_together_again(ones: bool, rng: np.random.Generator) -> None:
    matrix = ragged(20, 6, rng)
    if ones:
        matrix = sp.csr_array((np.ones(4), ([0, 2, 3, 5], [1, 1, 0, 3])), shape=(6, 4))
    for constant in (None, np.where(rng.random(matrix.shape[0]) < 0.5, 1.0, 0.0), rng.standard_normal(matrix.shape[0])):
        M, c = AffineMap(matrix, constant).parts()
        np.testing.assert_array_equal(M.toarray(), matrix.toarray())
        np.testing.assert_array_equal(c, np.zeros(len(c)) if constant is None else constant)


def test_a_program_is_its_affine_pieces(rng: np.random.Generator) -> None:
    program = mapping(5, 4, 2).program
    theta = rng.standard_normal((3, program.theta_size))
    data = program.evaluate(theta)
    for name, (matrix, constant) in program.affine().items():
        values = (matrix @ theta.T).T + constant
        np.testing.assert_allclose(values.reshape(3, -1), np.asarray(getattr(data, name)).reshape(3, -1), atol=1e-12)


@pytest.mark.parametrize("size", [3, KEEP_FACTORS - 1, KEEP_FACTORS, 60])
@pytest.mark.parametrize("place", ["host", "numpy", "torch"])
def test_factors_solve_and_tell_singular_matrices(place: str, size: int, rng: np.random.Generator) -> None:
    K = rng.standard_normal((5, size, size))
    K[1] = 0.0
    K[3, 1] = K[3, 0]
    f = rng.standard_normal((5, size, 2))
    with place_of("numpy" if place == "host" else place) as where:
        where = HOST if place == "host" else where
        factor = where.factor(where.put(K))
        first = where.host(factor.solve(where.put(f)))
        growth = where.host(factor.growth())
        again = where.host(factor.solve(where.put(f)))
    good = [0, 2, 4]
    np.testing.assert_allclose(np.einsum("bij,bjk->bik", K, first)[good], f[good], atol=1e-9)
    np.testing.assert_array_equal(first, again)  # to the last bit: autodiff checkers call twice
    assert (growth[good] < 1e6).all() and not (growth[[1, 3]] < 1e13).any()


def test_growth_before_any_solve(rng: np.random.Generator) -> None:
    K = rng.standard_normal((2, 4, 4))
    factor = HOST.factor(K)
    before = factor.growth()
    factor.solve(rng.standard_normal((2, 4, 1)))
    np.testing.assert_allclose(before, factor.growth(), rtol=1e-12)


def test_tokens_tell_values_apart() -> None:
    import torch

    from cvxift.torch.device import TorchArrays

    place, a = TorchArrays(torch.device("cpu")), torch.zeros(3, dtype=torch.float64)
    first = place.token(a)
    assert place.token(a.detach()) == first
    a[0] = 1.0
    assert place.token(a) != first
    assert place.token(a[:2]) != place.token(a)
    with torch.inference_mode():
        b = torch.zeros(3)
        assert place.token(b) != place.token(b)
    plain = Arrays(np)
    assert plain.token(np.ones(2)) == plain.token(np.ones(2)) != plain.token(np.zeros(2))
