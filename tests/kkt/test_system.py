"""Columns that tight bounds fix leave the reduced system without a trace."""

from __future__ import annotations

import numpy as np
import pytest
from plant import assemble

from cvxift.cones import Cones
from cvxift.errors import ApplicabilityError
from cvxift.kkt.instance import Layout
from cvxift.kkt.system.reduced import ReducedSystem, rotation


def bounded(rng, duplicate=False, zero_row=False):
    """A program with one equality, a dense inequality and bounds ±x ≤ · on every column, half of them tight."""
    n = 6
    root = rng.standard_normal((n, n))
    P = root @ root.T + np.eye(n)
    rows = [rng.standard_normal((2, n)), -np.diag(0.5 + rng.random(n)), np.eye(n)]
    if duplicate:
        rows.append(2.0 * np.eye(n)[:2])
    if zero_row:
        rows.append(np.zeros((1, n)))
    A = np.vstack(rows)
    v = np.full(len(A), 1.0)
    v[[2, 4]] = -1.0  # lower bounds of columns 0 and 2 are tight
    if duplicate:
        v[2 + 2 * n] = -0.5  # so is a second bound of column 0
    v[1] = -0.7
    v[0] = -0.3
    s = np.maximum(v, 0.0)
    return assemble(Cones(zero=1, nonneg=len(A) - 1), P, A, rng.standard_normal(n), s, s - v)


def unreduced(planted, g, h):
    """Least-squares solution of the reduced system written out, no column eliminated."""
    P = planted.structure.P_matrix(planted.data.P).toarray()
    A = planted.structure.A_matrix(planted.data.A).toarray()
    tight = np.flatnonzero(planted.s - planted.y < 0.0)
    K = np.block([[P, A[tight].T], [A[tight], np.zeros((len(tight), len(tight)))]])
    u = np.linalg.lstsq(K, np.concatenate([g, h[tight]]), rcond=1e-12)[0]
    w = np.zeros(planted.structure.m)
    w[tight] = u[len(g) :]
    return u[: len(g)], w


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@pytest.mark.parametrize("zero_row", [False, True])
def test_fixed_columns_give_the_unreduced_solution(rng, dense, zero_row):
    planted = bounded(rng, zero_row=zero_row)
    system = ReducedSystem(Layout(planted.structure, dense).instance(planted.data), rotation_of(planted))
    assert system.fixed is not None and list(system.fixed.F) == [0, 2]
    assert system.K.shape == (6, 6)  # 6 − 2 columns and 4 − 2 rows
    for lead in ((), (3,)):
        g, h = rng.standard_normal((*lead, 6)), rng.standard_normal((*lead, planted.structure.m))
        u, w, certificate = system.solve(g, h)
        assert certificate.residual < 1e-12
        for i in np.ndindex(*lead):
            expected = unreduced(planted, g[i], h[i])
            np.testing.assert_allclose(u[i], expected[0], atol=1e-10)
            np.testing.assert_allclose(w[i], expected[1], atol=1e-10)


def rotation_of(planted):
    return rotation(planted.structure.cones, planted.s - planted.y)


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
def test_two_tight_bounds_on_one_column(rng, dense):
    planted = bounded(rng, duplicate=True)
    instance = Layout(planted.structure, dense).instance(planted.data)
    system = ReducedSystem(instance, rotation_of(planted))
    assert list(system.fixed.F) == [0, 2]
    g, h = rng.standard_normal(6), np.zeros(planted.structure.m)
    u, _, certificate = system.solve(g, h)  # the multipliers are not unique, x's derivative is
    assert certificate.consistent
    np.testing.assert_allclose(u, unreduced(planted, g, h)[0], atol=1e-9)
    strict = ReducedSystem(instance, rotation_of(planted), "raise")
    if dense:
        with pytest.raises(ApplicabilityError, match="singular"):
            strict.solve(g, h)


def test_a_regularized_system_is_close_and_keeps_every_column(rng):
    planted = bounded(rng)
    instance = Layout(planted.structure, True).instance(planted.data)
    g, h = rng.standard_normal(6), rng.standard_normal(planted.structure.m)
    exact, _, _ = ReducedSystem(instance, rotation_of(planted)).solve(g, h)
    errors = []
    for proximal in (1e-4, 1e-6):
        system = ReducedSystem(instance, rotation_of(planted), "regularize", proximal)
        assert system.fixed is None
        errors.append(np.abs(system.solve(g, h)[0] - exact).max())
    assert errors[1] < 0.02 * errors[0] < 1.0  # first order in the weight


@pytest.mark.parametrize(("least", "singular"), [(2.0**-40, False), (2.0**-46, True)])
def test_sparse_systems_are_regular_up_to_a_condition_number(least, singular):
    # The first two columns are parallel but for `least`; shifted factors do not converge, unshifted ones do.
    n = 60
    P = np.eye(n)
    P[:2, :2] = [[1.0, 1.0], [1.0, 1.0 + least]]
    none = np.zeros(0)
    planted = assemble(Cones(), P, np.zeros((0, n)), np.ones(n), none, none)
    instance = Layout(planted.structure, False).instance(planted.data)
    system = ReducedSystem(instance, rotation(Cones(), none), "raise")
    g = np.zeros(n)
    g[1] = 1.0
    if singular:
        with pytest.raises(ApplicabilityError, match="singular"):
            system.solve(g, none)
        return
    u, _, certificate = system.solve(g, none)
    assert certificate.consistent
    np.testing.assert_allclose(u[:2], [-1.0 / least, 1.0 / least], rtol=1e-3)
