"""Factorizations and least squares against NumPy's, on badly scaled, singular, inconsistent and empty systems."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from cvxift.kkt.regularity.thresholds import GROWN
from cvxift.kkt.system import sparse_factor
from cvxift.kkt.system.assembly import equilibrate, kkt_matrix, scale_symmetric
from cvxift.kkt.system.factor import DenseFactor, LeastSquares, ShiftedFactor, column_size, relative_size
from cvxift.kkt.system.sparse_factor import LuFactor, SparseFactor


def parts(rng, n=7, r=3, density=0.6):
    """P positive definite, A_r with full row rank, H ≥ 0."""
    root = rng.standard_normal((n, n)) * (rng.random((n, n)) < density)
    P = root @ root.T + 0.1 * np.eye(n)
    A = rng.standard_normal((r, n)) * (rng.random((r, n)) < density)
    A[:, :r] += 2.0 * np.eye(r)
    return P, A, np.concatenate([np.zeros(n), -rng.random(r)])


def block(P, A, diagonal):
    return np.block([[P, A.T], [A, np.zeros((len(A), len(A)))]]) + np.diag(diagonal)


def test_kkt_matrix_is_the_block_matrix_and_stores_its_diagonal(rng):
    for n, r in ((7, 3), (4, 0), (1, 1)):
        P, A, diagonal = parts(rng, n, r)
        K = kkt_matrix(sp.csc_array(P), sp.csr_array(A), diagonal)
        np.testing.assert_array_equal(K.toarray(), block(P, A, diagonal))
        assert K.has_canonical_format
    empty = kkt_matrix(sp.csc_array((3, 3)), sp.csr_array((2, 3)), np.zeros(5))
    assert empty.nnz == 5  # the diagonal, though zero


def test_equilibrate_evens_the_rows_and_leaves_zero_rows(rng):
    P, A, diagonal = parts(rng)
    size = 10.0 ** rng.uniform(-8, 8, len(diagonal))
    K = size[:, None] * block(P, A, diagonal) * size
    K[4], K[:, 4] = 0.0, 0.0
    for matrix in (K, sp.csc_array(K)):
        scale = equilibrate(matrix, 12)
        largest = np.abs(scale[:, None] * K * scale).max(axis=1)
        assert scale[4] == 1.0 and largest[4] == 0.0
        np.testing.assert_allclose(np.delete(largest, 4), 1.0, rtol=0.05)
    np.testing.assert_allclose(equilibrate(K), equilibrate(sp.csc_array(K)), rtol=1e-14)
    np.testing.assert_allclose(scale_symmetric(sp.csc_array(K), size).toarray(), size[:, None] * K * size, rtol=1e-14)


def factors(P, A, diagonal):
    K = kkt_matrix(sp.csc_array(P), sp.csr_array(A), diagonal)
    return DenseFactor(K.toarray()), SparseFactor(K, len(P)), LuFactor(K)


@pytest.mark.parametrize("spread", [0.0, 4.0, 8.0])
@pytest.mark.parametrize("columns", [None, 3])
def test_solves_whatever_the_scaling(rng, spread, columns):
    P, A, diagonal = parts(rng)
    size = 10.0 ** rng.uniform(-spread, spread, len(diagonal))
    n = len(P)
    P, A = size[:n, None] * P * size[:n], size[n:, None] * A * size[:n]
    diagonal = diagonal * size**2
    u = rng.standard_normal((len(size), columns) if columns else len(size))
    u = (u.T / size).T  # a solution of size 1 in the equilibrated system
    f = block(P, A, diagonal) @ u
    for factor in factors(P, A, diagonal):
        solution, residual, _ = factor.solve(f)
        assert residual < 1e-12, factor.method
        np.testing.assert_allclose((solution.T * size).T, (u.T * size).T, atol=1e-8, err_msg=factor.method)


def test_the_shift_leaves_no_trace(rng):
    P, A, diagonal = parts(rng, 30, 12)
    K = kkt_matrix(sp.csc_array(P), sp.csr_array(A), diagonal)
    u = rng.standard_normal(42)
    for delta in (1e-9, 1e-5):
        factor = SparseFactor(K, 30, delta)
        once = np.abs(factor.apply_inverse(K @ u) - u).max()
        solution, _, steps = factor.solve(K @ u)
        assert once > 0.01 * delta  # the shift is there …
        assert steps > 0
        np.testing.assert_allclose(solution, u, atol=1e-11)  # … and refinement removes it


@pytest.mark.parametrize("power", [40, 46, 48, 50])
def test_a_small_block_among_many_rows_shows_in_the_condition_number(power):
    """Equal entries, or signs that agree, hide the direction (1, −1) of the block from an estimate."""
    block = np.array([[1.0, 1.0], [1.0, 1.0 + 2.0**-power]])
    factor = LuFactor(sp.csc_array(sp.block_diag([block, np.eye(58)])))
    assert 0.05 * 2.0**power < factor.estimate() < 20.0 * 2.0**power


def test_condition_estimates_are_within_a_factor(rng):
    P, A, diagonal = parts(rng, 20, 8)
    K = block(P, A, diagonal)
    scale = equilibrate(sp.csc_array(K))
    even = np.linalg.cond(scale[:, None] * K * scale, 1)
    dense, sparse, lu = factors(P, A, diagonal)
    assert np.linalg.cond(K, 1) / 10 <= dense.condition <= 1.01 * np.linalg.cond(K, 1)
    assert even / 10 <= sparse.condition <= 1.01 * even
    assert even / 10 <= lu.condition <= 1.01 * even


def test_singular_systems_are_found(rng):
    P, A, diagonal = parts(rng)
    A = np.vstack([A, A[:1]])
    diagonal = np.concatenate([np.zeros(len(P)), np.zeros(len(A))])
    dense = DenseFactor(block(P, A, diagonal))
    assert dense.singular and dense.condition > 1e13
    nothing = DenseFactor(np.full((2, 2), np.nan))
    assert nothing.singular
    with pytest.raises(RuntimeError):
        LuFactor(sp.csc_array(np.zeros((3, 3))))


@pytest.mark.parametrize("sparse", [False, True])
def test_least_squares_of_singular_systems(rng, sparse):
    P, A, _ = parts(rng)
    P[:, -1] = P[-1] = 0.0
    A[:, -1] = 0.0  # a flat direction
    A = np.vstack([A, A[0] - A[1]])  # a dependent row
    dense = block(P, A, np.zeros(len(P) + len(A)))
    K = sp.csc_array(dense) if sparse else dense
    solver = LeastSquares(K, np.ones(len(dense)))
    consistent = dense @ rng.standard_normal(len(dense))
    for f in (consistent, rng.standard_normal(len(dense)), np.zeros(len(dense))):
        u, residual, _ = solver.solve(f)
        expected = np.linalg.lstsq(dense, f, rcond=1e-12)[0]
        np.testing.assert_allclose(u, expected, atol=1e-8)
        left = np.abs(f - dense @ expected).max() / max(np.abs(f).max(), 1e-300)
        assert residual == pytest.approx(left, abs=1e-9)
    stack = np.stack([consistent, rng.standard_normal(len(dense))], axis=1)
    both, _, _ = solver.solve(stack)
    np.testing.assert_allclose(both, np.linalg.lstsq(dense, stack, rcond=1e-12)[0], atol=1e-8)


def test_empty_systems():
    factor = DenseFactor(np.zeros((0, 0)))
    u, residual, _ = factor.solve(np.zeros(0))
    assert u.shape == (0,) and residual == 0.0 and not factor.singular


@pytest.mark.parametrize("columns", [None, 2])
def test_shifted_lu_solves_singular_systems_that_have_a_solution(rng, columns):
    # Dependent rows, a flat direction of P outside their reach, and curvature over six orders of magnitude.
    n, r = 40, 12
    P = np.diag(10.0 ** rng.uniform(-6, 0, n))
    A = rng.standard_normal((r, n))
    A = np.concatenate([A, A[:4], A[:4] + A[4:8]])
    P[0], P[:, 0], A[:, 0] = 0.0, 0.0, 0.0
    K = kkt_matrix(sp.csc_array(P), sp.csr_array(A), np.zeros(n + len(A)))
    shape = (n + len(A),) if columns is None else (n + len(A), columns)
    f = K @ rng.standard_normal(shape)
    lu = LuFactor(K, n, 1e-10)
    u, certificate = lu.certified(f)
    assert certificate.consistent and certificate.residual < 1e-9
    # Least norm in the equilibrated scale, but for rounding errors over the shift along the null vectors.
    scale = lu.scale if columns is None else lu.scale[:, None]
    scaled = lu.scale[:, None] * K.toarray() * lu.scale
    expected = scale * (np.linalg.pinv(scaled, rcond=1e-12) @ (scale * f))
    np.testing.assert_allclose(u[:n], expected[:n], rtol=1e-6, atol=1e-7 * np.abs(expected).max())
    np.testing.assert_allclose(u, expected, atol=1e-3 * np.abs(expected).max())
    f[0] += 1e-3 * np.abs(f).max()  # along the flat direction: no solution
    assert not lu.certified(f)[1].consistent


def test_rounding_is_not_taken_for_inconsistency(rng):
    # K is nonsingular, of condition 1e8, and f along its smallest direction, so that u is 1e8 times larger than f.
    n = 60
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    K = sp.csc_array((basis * np.geomspace(1.0, 1e-9, n)) @ basis.T)
    K = sp.csc_array((K + K.T) / 2)
    f = np.asarray(basis[:, -1]) + 1e-12 * rng.standard_normal(n)
    for factor in (LuFactor(K), DenseFactor(K.toarray())):
        u, certificate = factor.certified(f)
        assert np.abs(u).max() > 1e8 * np.abs(f).max()
        assert certificate.residual > 1e-9 and certificate.consistent
        assert certificate.rounding < 1e-5
        assert not replace(certificate, residual=2.0 * certificate.rounding).consistent


def test_a_shifted_factor_gives_the_solution_of_least_norm(rng):
    """K singular in both blocks: a flat direction and a row twice."""
    n, r = 7, 4
    root, A = rng.standard_normal((n, 3)), rng.standard_normal((r, n))
    A[3] = A[0]
    A[:, 6], root[6] = 0.0, 0.0
    K = np.block([[root @ root.T, A.T], [A, np.zeros((r, r))]])
    solver = ShiftedFactor(K, n)
    scale = solver.scale
    for columns in ((), (3,)):
        f = K @ rng.standard_normal((n + r, *columns))
        u, residual, _ = solver.solve(f)
        assert residual < 1e-12
        wide = scale if not columns else scale[:, None]
        expected = wide * np.linalg.lstsq(scale[:, None] * K * scale, wide * f, rcond=1e-10)[0]
        np.testing.assert_allclose(u, expected, atol=1e-9)
    outside = rng.standard_normal(n + r)  # not in the range: the residual says so
    assert solver.solve(outside)[1] > 1e-3


def singular_kkt(rng, n=60, m=30):
    """A sparse K with flat directions and dependent rows, some of them such as (1, 1) and (1, −1)."""
    P = sp.block_diag([sp.eye_array(n - 8), np.zeros((4, 4)), np.ones((2, 2)), np.array([[1.0, -1.0], [-1.0, 1.0]])])
    A = sp.random_array((m - 2, n - 8), density=0.1, rng=rng)
    A = sp.hstack([A, np.zeros((m - 2, 8))], format="csr")
    A = sp.vstack([A, A[[0]], 2.0 * A[[1]]], format="csr")
    return kkt_matrix(sp.csc_array(P), sp.csr_array(A), np.zeros(n + m)), n


@pytest.mark.parametrize("right_hand_sides", [None, 3])
def test_least_norm_by_the_factors_that_there_are(right_hand_sides):
    rng = np.random.default_rng(0)
    K, n = singular_kkt(rng)
    factor = SparseFactor(K, n)
    assert factor.growth > GROWN
    shape = (K.shape[0],) if right_hand_sides is None else (K.shape[0], right_hand_sides)
    for f in (rng.standard_normal(shape), K @ rng.standard_normal(shape)):
        found = factor.least_norm(f)
        assert found is not None
        c = factor.scale if f.ndim == 1 else factor.scale[:, None]
        scaled = factor.scale[:, None] * K.toarray() * factor.scale
        np.testing.assert_allclose(found[0], c * (np.linalg.pinv(scaled, rcond=1e-12) @ (c * f)), atol=1e-9)
        assert found[1] == pytest.approx(relative_size(f - K @ found[0], column_size(f)))


def test_singular_values_near_the_shift_are_not_called_null():
    K, n = singular_kkt(np.random.default_rng(0))
    shift = sp.diags_array(np.where(np.arange(K.shape[0]) < n, 3e-9, -3e-9))
    near = SparseFactor(sp.csc_array(K + shift), n)
    assert near.least_norm(np.ones(K.shape[0])) is None


def test_null_vectors_of_equal_entries_are_seen():
    """(1, −1) and (1, 1) meet fixed signs of ±1 with nothing, for one of the two."""
    for sign in (1.0, -1.0):
        for place in range(40):
            P = sp.lil_array(sp.eye_array(42))
            P[place : place + 2, place : place + 2] = np.array([[1.0, sign], [sign, 1.0]])
            K = kkt_matrix(sp.csc_array(P), sp.csr_array((0, 42)), np.zeros(42))
            assert SparseFactor(K, 42).growth > GROWN


def test_a_workspace_serves_the_next_matrix_with_its_pattern_and_gives_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    made: list[None] = []
    new = sparse_factor.qdldl.Solver
    monkeypatch.setattr(sparse_factor.qdldl, "Solver", lambda *of, **how: made.append(None) or new(*of, **how))
    A = sp.csr_array(sp.random_array((12, 30), density=0.2, rng=rng))
    matrices = [kkt_matrix(sp.csc_array(sp.diags_array(rng.uniform(1, 2, 30))), A, np.zeros(42)) for _ in range(3)]
    f = rng.standard_normal(42)
    one = SparseFactor(matrices[0], 30)
    first = one.solve(f)[0]
    two = SparseFactor(matrices[1], 30)
    assert len(made) == 2  # the first one's factors are still wanted
    np.testing.assert_array_equal(one.solve(f)[0], first)
    fresh = two.solve(f)[0]
    del one, two
    again = SparseFactor(matrices[1], 30)
    assert len(made) == 2
    np.testing.assert_array_equal(again.solve(f)[0], fresh)
    del again
    singular = matrices[2].copy()
    singular.data[:] = 0.0
    assert SparseFactor(singular, 30, 1e-9).solve(f)[1] > 0.5  # nothing of an earlier matrix is left in it
    np.testing.assert_allclose(matrices[2] @ SparseFactor(matrices[2], 30).solve(f)[0], f, atol=1e-10)
    assert len(made) == 2


def test_a_zero_pivot_is_seen_in_a_workspace_as_in_a_new_one(rng: np.random.Generator) -> None:
    K = kkt_matrix(
        sp.csc_array(sp.diags_array(np.array([1.0, 2.0]))), sp.csr_array(np.array([[1.0, 3.0]])), np.zeros(3)
    )
    pattern = sparse_factor._Pattern(K)
    zero = np.zeros_like(K.data)
    with pytest.raises(RuntimeError):
        pattern.factorized(zero)
    pattern.give_back(pattern.factorized(np.where(pattern.diagonal, 1.0, K.data)))
    with pytest.raises(RuntimeError):
        pattern.factorized(zero)
