"""θ ↦ data is affine, its tangent and cotangent are exact transposes, and batches are stacks of instances."""

from __future__ import annotations

import tracemalloc

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
from problem_zoo import NEEDS_1_9, OLD, ZOO
from reference_solve import solve

from cvxift.errors import ProgramError
from cvxift.program import Data, Program
from cvxift.program.affine import LARGE_MAP, SPARE, Adjoint, AffineMap
from cvxift.program.attributes import expand, read

PIECES = ("P", "q", "A", "b", "d")


@pytest.fixture(params=ZOO)
def program(request):
    if OLD and request.param in NEEDS_1_9:
        pytest.skip("needs CVXPY 1.9")
    case = ZOO[request.param](np.random.default_rng(3))
    return Program(case.problem, gp=case.gp)


def inner_product(left: Data, right: Data) -> float:
    return sum(float(np.sum(getattr(left, piece) * getattr(right, piece))) for piece in PIECES)


def random_data(program: Program, rng: np.random.Generator, *batch: int) -> Data:
    s = program.structure
    return Data(*(rng.normal(size=(*batch, *shape)) for shape in ((s.nnzP,), (s.n,), (s.nnzA,), (s.m,), ())))


def test_difference_is_the_tangent(program, rng):
    theta, step = rng.normal(size=(2, program.theta_size))
    here, there, tangent = program.evaluate(theta), program.evaluate(theta + step), program.jvp(step)
    for piece in PIECES:
        np.testing.assert_allclose(getattr(there, piece) - getattr(here, piece), getattr(tangent, piece), atol=1e-12)


def test_cotangent_is_the_transpose(program, rng):
    bar, step = random_data(program, rng), rng.normal(size=program.theta_size)
    expected = inner_product(bar, program.jvp(step))
    assert float(program.vjp(bar) @ step) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_missing_cotangents_count_as_zero(program, rng):
    bar, zero = (
        random_data(program, rng, 2),
        Data(*(0 * getattr(random_data(program, rng, 2), piece) for piece in PIECES)),
    )
    for piece in PIECES:
        alone = Data(**{name: getattr(bar, name) if name == piece else None for name in PIECES})
        full = Data(**{name: getattr(bar if name == piece else zero, name) for name in PIECES})
        np.testing.assert_array_equal(program.vjp(alone), program.vjp(full))


def test_batches_are_stacks(program, rng):
    theta, bar = rng.normal(size=(2, 3, program.theta_size)), random_data(program, rng, 2, 3)
    batch, tangents, cotangents = program.evaluate(theta), program.jvp(theta), program.vjp(bar)
    assert batch.batch_shape == (2, 3)
    assert cotangents.shape == theta.shape
    for index in np.ndindex(2, 3):
        for piece in PIECES:
            np.testing.assert_allclose(
                getattr(batch[index], piece), getattr(program.evaluate(theta[index]), piece), atol=1e-15
            )
            np.testing.assert_allclose(
                getattr(tangents[index], piece), getattr(program.jvp(theta[index]), piece), atol=1e-15
            )
        np.testing.assert_allclose(cotangents[index], program.vjp(bar[index]), atol=1e-13)


def test_empty_batch(program):
    data = program.evaluate(np.zeros((0, program.theta_size)))
    assert data.batch_shape == (0,)
    assert program.vjp(data).shape == (0, program.theta_size)


def test_dense_qp_is_a_gather():
    """Every entry of the usual QP is one parameter entry or a constant, so no sparse product is made."""
    n, m, p = 4, 3, 2
    Q, q, G, h, A, b = (cp.Parameter(shape) for shape in ((n, n), n, (m, n), m, (p, n), p))
    x = cp.Variable(n)
    program = Program(cp.Problem(cp.Minimize(cp.sum_squares(Q @ x) + q @ x), [G @ x <= h, A @ x == b]))
    assert program._maps._map._mixed is None
    assert program._maps._adjoint._map._mixed is None


def test_A_varies_where_it_depends_on_theta():
    G, x = cp.Parameter((2, 3)), cp.Variable(3)
    program = Program(cp.Problem(cp.Minimize(cp.sum_squares(x)), [G @ x <= 1, np.ones((1, 3)) @ x == 1]))
    np.testing.assert_array_equal(program.A_varies, program.structure.A_rows >= 1)


def test_constant_pieces_cannot_be_written():
    x, b = cp.Variable(2), cp.Parameter(2)
    program = Program(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= b]))
    with pytest.raises(ValueError, match="read-only"):
        program.evaluate(np.zeros(2)).A[0] = 3.0


@pytest.mark.parametrize("attribute", ["symmetric", "PSD", "NSD"])
def test_symmetric_parameters_have_symmetric_gradients(attribute, rng):
    if OLD and attribute != "symmetric":
        pytest.skip("needs CVXPY 1.9")
    C, x = cp.Parameter((3, 3), **{attribute: True}), cp.Variable(3)
    if attribute == "symmetric":
        problem = cp.Problem(cp.Minimize(cp.sum_squares(C @ x - 1)))
    else:
        quadratic = cp.quad_form(x, C) if attribute == "PSD" else -cp.quad_form(x, C)
        problem = cp.Problem(cp.Minimize(quadratic + cp.sum(x)))
    program = Program(problem)
    gradient = program.vjp(random_data(program, rng)).reshape(3, 3)
    np.testing.assert_allclose(gradient, gradient.T, atol=1e-14)
    assert np.abs(gradient).max() > 0
    theta = rng.normal(size=(3, 3))
    left, right = program.evaluate(theta.ravel()), program.evaluate(theta.T.ravel())
    np.testing.assert_allclose(left.P, right.P, atol=1e-15)
    np.testing.assert_allclose(left.A, right.A, atol=1e-15)


def test_affine_map_of_every_kind_of_row(rng):
    """Empty, constant, single, single with constant, and many-entry rows, next to each other and apart."""
    dense = np.zeros((8, 4))
    dense[1, 2] = -2.0
    dense[2, [0, 3]] = 1.0, 4.0
    dense[3, 1] = 1.0
    dense[6] = rng.normal(size=4)
    constant = np.array([0.0, 0.0, 1.5, 2.5, -1.0, 0.0, 0.0, 3.0])
    affine, v = AffineMap(sp.csr_array(dense), constant), rng.normal(size=(5, 4))
    np.testing.assert_allclose(affine(v[0]), dense @ v[0] + constant, atol=1e-14)
    np.testing.assert_allclose(affine(v), v @ dense.T + constant, atol=1e-14)
    np.testing.assert_allclose(affine.linear(v), v @ dense.T, atol=1e-14)


@pytest.mark.parametrize("columns", [12 * SPARE - 1, 12 * SPARE + 1, 12 * SPARE * 100])
def test_a_map_and_its_adjoint_are_those_of_the_matrix_however_narrow(columns, rng):
    M, c = np.zeros((7, columns)), rng.standard_normal(7) * (np.arange(7) % 2)
    M.ravel()[rng.choice(M.size, 12, replace=False)] = rng.standard_normal(12)
    adjoint, affine = Adjoint(sp.csr_array(M)), AffineMap(sp.csr_array(M), c)
    v = rng.standard_normal((2, 3, columns))
    np.testing.assert_allclose(affine(v), v @ M.T + c, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(affine.linear(v[0, 0]), M @ v[0, 0], rtol=1e-14, atol=1e-14)
    matrix, constant = affine.parts()
    np.testing.assert_array_equal(matrix.toarray(), M)
    np.testing.assert_array_equal(constant, c)
    for batch in ((), (3,), (2, 2), (0,)):
        w = rng.standard_normal((*batch, 7))
        np.testing.assert_allclose(adjoint(w), w @ M, rtol=1e-14, atol=1e-14)


def test_a_sparse_parameter_is_built_without_arrays_of_its_full_size(rng):
    n = 2000
    at = tuple(np.unique(rng.integers(0, n, (3 * n, 2)), axis=0).T)
    A, b, x = cp.Parameter((n, n), sparsity=at), cp.Parameter(n), cp.Variable(n)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= -1, x <= 1])
    program = Program(problem)
    tracemalloc.start()
    Program(problem)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 12.0 * n**2  # masks of θ, a byte an entry: 6; index arrays would take it to 44
    assert program.vjp(program.evaluate(np.ones(program.theta_size))).shape == (program.theta_size,)


def test_batches_of_large_maps(rng):
    """Large maps are evaluated instance by instance; the numbers are those of single calls."""
    matrix = sp.csr_array(sp.random_array((5000, 40), density=0.02, rng=rng))
    affine, v = AffineMap(matrix, rng.normal(size=5000)), rng.normal(size=(2, 3, 40))
    assert len(affine._source) > LARGE_MAP
    batch, linear = affine(v), affine.linear(v)
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(batch[index], affine(v[index]), atol=1e-14)
        np.testing.assert_allclose(linear[index], matrix @ v[index], atol=1e-14)


def test_rows_without_entries_do_not_spread_nan():
    affine = AffineMap(sp.csr_array(np.array([[1.0, 0.0], [0.0, 0.0]])))
    np.testing.assert_array_equal(affine(np.array([np.nan, 1.0])), [np.nan, 0.0])


@pytest.mark.parametrize("is_reduced", [True, False])
@pytest.mark.parametrize("attribute", [{}, {"symmetric": True}, {"diag": True}, {"sparsity": ([0, 2, 1], [1, 2, 0])}])
def test_inner_parameters_read_and_rebuild_the_array(attribute, is_reduced, rng):
    """Reading an array that has the attribute loses nothing; reading any array projects it."""
    leaf = cp.Parameter((3, 3), **attribute)
    inner, own, weight = read(leaf, is_reduced)
    fill = expand(leaf)
    theta = (fill @ rng.normal(size=fill.shape[1])).reshape(3, 3)
    size = fill.shape[1] if is_reduced or not attribute else 9
    values = np.bincount(inner, weight * theta.ravel()[own], minlength=size)
    rebuilt = (fill @ values).reshape(3, 3) if is_reduced or not attribute else values.reshape(3, 3, order="F")
    np.testing.assert_allclose(rebuilt, theta, atol=1e-15)


class TestInfiniteBounds:
    """+∞ on the right of a nonneg row means that there is no bound, in constants and in parameters."""

    def problem(self):
        G, h, low, x = cp.Parameter((3, 2)), cp.Parameter(3), cp.Parameter(2), cp.Variable(2)
        return cp.Problem(cp.Minimize(cp.sum_squares(x - np.array([3.0, -3.0]))), [G @ x <= h, x >= low]), G, h, low, x

    def test_parametric_infinity_releases_the_row(self, rng):
        problem, G, h, low, x = self.problem()
        program = Program(problem)
        values = {G: rng.normal(size=(3, 2)), h: np.array([0.1, np.inf, 0.3]), low: np.array([-np.inf, -1.0])}
        data = program.evaluate(program.pack(values))
        assert all(np.isfinite(getattr(data, piece)).all() for piece in PIECES)
        x_star, y_star = solve(program, data)
        free = cp.Variable(2)
        rows = [0, 2]
        reference = cp.Problem(
            cp.Minimize(cp.sum_squares(free - np.array([3.0, -3.0]))),
            [values[G][rows] @ free <= values[h][rows], free[1] >= -1],
        )
        reference.solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(program.output(x).value(x_star), free.value, atol=1e-6)
        multiplier = program.output(problem.constraints[0].dual_variables[0]).value(y_star)
        assert abs(multiplier[1]) < 1e-8

    def test_only_the_instances_with_infinity_change(self, rng):
        problem, G, h, low, _ = self.problem()
        program = Program(problem)
        bounds = np.ones((2, 3))
        bounds[1, 2] = np.inf
        theta = program.pack({G: rng.normal(size=(3, 2)), h: bounds, low: -np.ones(2)})
        batch = program.evaluate(theta)
        finite = program.evaluate(theta[0])
        np.testing.assert_array_equal(batch.A[0], finite.A)
        row = next(k for k, label in enumerate(program.row_labels) if label.atom is None and label.index == (2,))
        np.testing.assert_array_equal(batch.A[1][program.structure.A_rows == row], 0.0)
        assert batch.b[1, row] == 1.0

    def test_constant_infinity_is_dropped_at_build(self):
        x = cp.Variable(3)
        constraint = x <= np.array([1.0, np.inf, 2.0])
        program = Program(cp.Problem(cp.Minimize(-cp.sum(x)), [constraint, x[1] <= 7]))
        assert program.structure.m == 3
        _, y = solve(program, program.evaluate(np.zeros(0)))
        np.testing.assert_allclose(program.output(constraint.dual_variables[0]).value(y), [1.0, 0.0, 1.0], atol=1e-8)
        assert [label.index for label in program.row_labels] == [(0,), (2,), ()]


def test_the_objective_takes_memory_for_its_nonzeros_alone():
    # Its columns × all of the problem's parameters, written out, would be 40 GB.
    n = 40_000
    x, q, low, weight = cp.Variable(n), cp.Parameter(n), cp.Parameter(2 * n), cp.Parameter(nonneg=True)
    P = sp.diags_array([1.0, 2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n), format="csc")
    objective = 0.5 * cp.quad_form(x, cp.psd_wrap(P)) + weight * cp.sum_squares(x) + q @ x + 3.0
    problem = cp.Problem(cp.Minimize(objective), [cp.hstack([x, -x]) >= low])
    tracemalloc.start()
    program = Program(problem)
    data = program.evaluate(program.pack({q: np.arange(float(n)), low: -np.ones(2 * n), weight: 0.5}))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400e6
    structure = program.structure
    assert structure.n == n and data.d == 3.0
    np.testing.assert_array_equal(data.q, np.arange(float(n)))
    assert abs(structure.P_matrix(data.P) - P - sp.eye_array(n)).max() == 0.0


def test_P_varies_where_an_entry_of_it_depends_on_theta():
    x, c, w = cp.Variable(2), cp.Parameter(2), cp.Parameter(nonneg=True)
    constant = Program(cp.Problem(cp.Minimize(cp.sum_squares(x) + c @ x)))
    weighted = Program(cp.Problem(cp.Minimize(w * cp.square(x[0]) + cp.square(x[1]) + c @ x)))
    assert (constant.P_varies, weighted.P_varies) == (False, True)


def test_theta_is_in_the_order_that_is_asked_for(rng):
    a, b, x = cp.Parameter(2), cp.Parameter(3), cp.Variable(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b)), [x[:2] >= a])
    theta = rng.standard_normal(5)
    first, other = Program(problem, parameters=[a, b]), Program(problem, parameters=[b, a])
    assert first.parameters == (a, b) and other.parameters == (b, a)
    one, two = first.evaluate(theta), other.evaluate(np.concatenate([theta[2:], theta[:2]]))
    np.testing.assert_array_equal(one.b, two.b)
    np.testing.assert_array_equal(one.q, two.q)
    with pytest.raises(ProgramError, match="missing"):
        Program(problem, parameters=[a])
