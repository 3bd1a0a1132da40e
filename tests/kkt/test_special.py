"""Systems of a special form, turned matrix variables and lifted cones, against the unreduced Jacobian."""

from __future__ import annotations

import numpy as np
import pytest
from plant import assemble, plant

from cvxift import cones as cone
from cvxift.cones import Cones
from cvxift.kkt.instance import Layout
from cvxift.kkt.system import soc_extension
from cvxift.kkt.system.factor import DenseFactor
from cvxift.kkt.system.psd_eigenbasis import Turned
from cvxift.kkt.system.reduced import ReducedSystem, rotation
from cvxift.kkt.system.soc_extension import Lifted
from cvxift.program.row_order import triangle

LEADS = ((), (3,), (0,))


def svec(matrix):
    row, column = triangle(len(matrix))
    return np.where(row == column, 1.0, 2.0**0.5) * matrix[row, column]


def unreduced(planted):
    """The map (g, h) ↦ (u, w) with J (u, v) = (g, h), w = (D − I)v, from J written out."""
    cones, n = planted.structure.cones, planted.structure.n
    D = cone.spectrum(cones, planted.s - planted.y).apply(np.eye(cones.m))
    P, A = planted.structure.P_matrix(planted.data.P).toarray(), planted.structure.A_matrix(planted.data.A).toarray()
    tilt = D - np.eye(cones.m)
    J = np.block([[P, A.T @ tilt], [A, D]])

    def solve(g, h):
        z = np.linalg.solve(J, np.concatenate([g, h]))
        return z[:n], tilt @ z[n:]

    return solve


def agrees(planted, system, rng, atol=1e-9):
    n, m = planted.structure.n, planted.structure.m
    reference = unreduced(planted)
    for lead in LEADS:
        g, h = rng.standard_normal((*lead, n)), rng.standard_normal((*lead, m))
        u, w, certificate = system.solve(g, h)
        assert u.shape == g.shape and w.shape == h.shape and certificate.consistent
        without, w_without, _ = system.solve(g, None)
        for i in np.ndindex(*lead):
            expected, plain = reference(g[i], h[i]), reference(g[i], np.zeros(m))
            np.testing.assert_allclose(u[i], expected[0], atol=atol)
            np.testing.assert_allclose(w[i], expected[1], atol=atol)
            np.testing.assert_allclose(without[i], plain[0], atol=atol)
            np.testing.assert_allclose(w_without[i], plain[1], atol=atol)


def matrix(rng, order, negative):
    """svec of a symmetric matrix with so many negative eigenvalues."""
    U = np.linalg.qr(rng.standard_normal((order, order)))[0]
    size = 0.3 + rng.random(order)
    return svec((U * np.where(np.arange(order) < negative, -size, size)) @ U.T)


def matrix_program(rng, signs, cost, others=8):
    """Matrix variables of order 4 with these numbers of negative eigenvalues, other columns, rows that couple them."""
    cones = Cones(zero=3, nonneg=4, soc=(3,), psd=(4,) * len(signs), exp=1)
    dim, first = 10 * len(signs), 3 + 4 + 3
    n = dim + others
    v = rng.standard_normal(cones.m)
    v[3:7] = [0.5, -0.7, 1.0, -0.4]
    v[first : first + dim] = np.concatenate([matrix(rng, 4, k) for k in signs])
    A = rng.standard_normal((cones.m, n))
    # svec scales, as CVXPY writes them: −1 on the diagonal, −√2 off it; the columns in an order of their own.
    scale = np.tile(np.where(np.isin(np.arange(10), [0, 2, 5, 9]), -1.0, -(2.0**0.5)), len(signs))
    columns = rng.permutation(n)[:dim]
    A[first : first + dim] = 0.0
    A[first + np.arange(dim), columns] = scale
    A[4] = 0.0
    A[4, columns[0]] = 2.0  # a bound on an entry of the matrix, tight
    P = np.zeros((n, n))
    rest = np.setdiff1d(np.arange(n), columns)
    P[rest, rest] = 1.0
    if cost == "norm":
        P[columns, columns] = 0.7 * scale**2
    elif cost == "diagonal":
        P[columns, columns] = 0.5 + rng.random(dim)
    else:
        root = rng.standard_normal((n, n))
        P += root @ root.T / n
    s = cone.project(cones, v)
    return assemble(cones, P, A, rng.standard_normal(n), s, s - v)


def system_of(planted, dense):
    return ReducedSystem(
        Layout(planted.structure, dense).instance(planted.data),
        rotation(planted.structure.cones, planted.s - planted.y),
    )


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@pytest.mark.parametrize("cost", ["norm", "diagonal", "full"])
@pytest.mark.parametrize("signs", [(1,), (0,), (3, 4), (3, 0, 4, 2)], ids=str)
def test_turned_matrix_variables_give_the_unreduced_solution(rng, signs, cost, dense):
    planted = matrix_program(rng, signs, cost)
    system = system_of(planted, dense)
    assert isinstance(system.special, Turned)
    tight = sum(k * (k + 1) // 2 for k in signs)
    assert len(system.special.free) == 10 * len(signs) - tight
    agrees(planted, system, rng)


def test_rows_that_share_a_column_or_hold_two_are_not_turned(rng):
    planted = matrix_program(rng, (2,), "full")
    structure, data = planted.structure, planted.data
    A = structure.A_matrix(data.A).toarray()
    first = structure.cones.rows("psd").start
    for row in (0.5 * A[first], A[first] + 0.1 * A[0]):  # the first row's column a second time; a row of many columns
        changed = A.copy()
        changed[first + 3] = row
        P = structure.P_matrix(data.P).toarray()
        other = assemble(structure.cones, P, changed, planted.x, planted.s, planted.y)
        system = system_of(other, True)
        assert system.special is None
        agrees(other, system, rng, atol=1e-7)


def test_a_regularized_system_is_not_special(rng):
    planted = matrix_program(rng, (2,), "full")
    instance = Layout(planted.structure).instance(planted.data)
    system = ReducedSystem(instance, rotation(planted.structure.cones, planted.s - planted.y), "regularize")
    assert system.special is None


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@pytest.mark.parametrize("slope", [0.0, 0.9, -0.9, 0.999999, -0.999999])
def test_lifted_cones_give_the_unreduced_solution(rng, monkeypatch, slope, dense):
    """t/ρ = ±0.999999 is at the boundary rays, where η is 10⁶ or 10⁻⁶."""
    monkeypatch.setattr(soc_extension, "LARGE_CONE", 5)
    cones = Cones(zero=2, nonneg=3, soc=(3, 6, 6, 6, 7, 6), psd=(2,), exp=1)
    n = 30
    planted = plant(cones, n, rng)
    v = planted.s - planted.y
    first = 2 + 3 + 3
    v[first] = 20.0  # in the cone
    v[first + 6] = -20.0  # in its polar
    for start, dim in ((first + 12, 6), (first + 18, 7), (first + 25, 6)):
        v[start] = slope * np.linalg.norm(v[start + 1 : start + dim])
    s = cone.project(cones, v)
    P = planted.structure.P_matrix(planted.data.P).toarray() + np.eye(n)
    A = planted.structure.A_matrix(planted.data.A).toarray()
    planted = assemble(cones, P, A, planted.x, s, s - v)
    system = system_of(planted, dense)
    assert isinstance(system.special, Lifted)
    assert system.special.count == 3 and system.special.rest.size < cones.m - 19
    agrees(planted, system, rng, atol=1e-6 if abs(slope) > 0.99 else 1e-9)


def test_a_lifted_cone_costs_memory_of_its_rows(rng):
    dim = 2000
    cones = Cones(soc=(dim,))
    v = np.concatenate([[0.3], rng.standard_normal(dim - 1) / np.sqrt(dim)])
    s = cone.project(cones, v)
    planted = assemble(cones, np.eye(dim), -np.eye(dim), rng.standard_normal(dim), s, s - v)
    system = system_of(planted, False)
    assert system.K.nnz <= 10 * dim
    assert not isinstance(system.factor, DenseFactor)
    g, h = rng.standard_normal(dim), rng.standard_normal(dim)
    u, w, certificate = system.solve(g, h)
    assert certificate.residual < 1e-12
    # P = I, A = −I:  u − w = g,  −u + (v-direction) D v = h  with w = (D − I)v.
    np.testing.assert_allclose(u - w, g, atol=1e-10)
    spectrum = cone.spectrum(cones, v)
    turned = spectrum.rotate(-u - h), spectrum.rotate(w)
    kept = spectrum.d < 1.0
    curvature = spectrum.d[kept] / spectrum.complement[kept]
    np.testing.assert_allclose(turned[0][kept], curvature * turned[1][kept], atol=1e-9)
    np.testing.assert_allclose(turned[1][~kept], 0.0, atol=1e-10)
