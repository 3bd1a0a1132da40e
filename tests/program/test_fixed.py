"""Columns that an equality of their own fixes: the same points and KKT solves, and the user's derivatives and names."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

import cvxift
from cvxift.cones import Cones
from cvxift.kkt.backend import Arrays
from cvxift.kkt.batch.device import DeviceMap
from cvxift.kkt.instance import Layout
from cvxift.kkt.solution_map import SolutionMap
from cvxift.kkt.system.reduced import ReducedSystem, rotation
from cvxift.program import condensation as fixed
from cvxift.program.condensation import Condensation
from cvxift.program.structure import Data, Structure
from cvxift.torch import CvxpyLayer
from tests.program.test_elimination import solved

X, Y, AUX, ROWS = 5, 3, 6, 4  # free columns, fixed ones, auxiliaries of a least-squares term, inequalities


def program(rng, auxiliaries=AUX):
    """½zᵀPz + qᵀz with z = (free, fixed, auxiliary), all blocks of P and A coupled, and a·fixed = b."""
    n = X + Y + auxiliaries
    half = rng.standard_normal((X + Y, X + Y))
    P = np.zeros((n, n))
    P[: X + Y, : X + Y] = half @ half.T / n + 0.1 * np.eye(X + Y)
    P[X + Y :, X + Y :] = np.eye(auxiliaries)
    fixing, residual = np.zeros((Y, n)), np.zeros((auxiliaries, n))
    fixing[np.arange(Y), X + np.arange(Y)] = [2.0, -1.0, 0.5]
    residual[:, : X + Y], residual[:, X + Y :] = rng.standard_normal((auxiliaries, X + Y)), -np.eye(auxiliaries)
    G = np.concatenate([rng.standard_normal((ROWS, X + Y)), np.zeros((ROWS, auxiliaries))], axis=1)
    A = np.concatenate([residual, fixing, G])
    P_cols, P_rows = np.nonzero(P.T)
    A_cols, A_rows = np.nonzero(A.T)
    cones = Cones(zero=auxiliaries + Y, nonneg=ROWS)
    structure = Structure.from_patterns(n, cones, P=(P_rows, P_cols), A=(A_rows, A_cols))
    b = np.concatenate([rng.standard_normal(auxiliaries + Y), 0.5 + rng.random(ROWS)])
    return structure, Data(P[P_rows, P_cols], rng.standard_normal(n), A[A_rows, A_cols], b, np.zeros(()))


@pytest.fixture(params=["dense", "sparse"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(fixed, "WRITTEN_OUT", 20_000 if request.param == "dense" else 0)


@pytest.mark.parametrize("auxiliaries", [0, AUX])
def test_same_point_and_same_kkt_solves(auxiliaries, blocks):
    structure, data = program(np.random.default_rng(0), auxiliaries)
    condensation = Condensation(structure, np.ones(structure.nnzA, dtype=bool), data.A)
    assert condensation.structure.n == X and condensation.structure.m == ROWS
    small, way = condensation.condense(data)
    instance, point = solved(condensation.structure, small)
    x, s, y = way.expand(point.x, point.s, point.y)
    outside = Layout(structure, True).instance(data)
    assert outside.errors(x, s, y)[2].worst < 1e-12

    inner = ReducedSystem(instance, rotation(condensation.structure.cones, point.v))
    outer = ReducedSystem(outside, rotation(structure.cones, s - y))
    rng = np.random.default_rng(4)
    for lead in ((), (3,)):
        g, h = rng.standard_normal((*lead, structure.n)), rng.standard_normal((*lead, structure.m))
        for rows in (h, None):
            found = way.solve(lambda a, b: inner.solve(a, b)[:2], g, rows)
            for one, other in zip(found, outer.solve(g, rows)[:2], strict=True):
                np.testing.assert_allclose(one, other, atol=1e-9)
    kept = condensation.restrict(x, y)
    np.testing.assert_array_equal(kept[0], point.x)
    np.testing.assert_array_equal(condensation.restrict(x, condensation.lift(kept[1]))[1], kept[1])


@pytest.mark.parametrize("shared", [True, False])
def test_a_batch_is_its_instances(shared):
    structure, data = program(np.random.default_rng(0))
    condensation = Condensation(structure, np.ones(structure.nnzA, dtype=bool), data.A)
    assert condensation.batches
    rng = np.random.default_rng(5)
    batch = Data(*(np.stack([part, 2.0 * part]) for part in (data.P, data.q, data.A, data.b)), np.zeros(2))
    same = np.broadcast_to(data.A, batch.A.shape)
    batch = Data(batch.P, batch.q, same if shared else batch.A, batch.b, batch.d)
    if not shared:  # constant coefficients are the same in all instances
        columns = np.isin(structure.A_rows, np.flatnonzero(np.arange(structure.m) < structure.cones.zero))
        batch.A[1, columns] = data.A[columns]
    small, way = condensation.condense(batch)
    g, h = rng.standard_normal((2, structure.n)), rng.standard_normal((2, structure.m))

    def inner(g, h):
        return 2.0 * g, h - 1.0

    together, point = way.solve(inner, g, h), way.expand(g[:, :X], h[:, :ROWS], h[:, :ROWS])
    for i in range(2):
        one, alone = condensation.condense(batch[i])
        for name in ("P", "q", "A", "b"):
            np.testing.assert_allclose(getattr(small, name)[i], getattr(one, name), atol=1e-12)
        for own in (alone, way[i]):
            for all_of_them, single in zip(together, own.solve(inner, g[i], h[i]), strict=True):
                np.testing.assert_allclose(all_of_them[i], single, atol=1e-12)
            for all_of_them, single in zip(point, own.expand(g[i, :X], h[i, :ROWS], h[i, :ROWS]), strict=True):
                np.testing.assert_allclose(all_of_them[i], single, atol=1e-12)


def test_columns_stay_where_they_are_not_fixed_for_every_parameter():
    structure, data = program(np.random.default_rng(0), 0)
    pivots = (structure.A_rows < Y) & (structure.A_cols >= X)
    assert Condensation(structure, ~pivots, data.A).fixed is None  # coefficients that vary with θ
    x, w, t = cp.Variable(3), cp.Variable(3), cp.Parameter(3, value=[0.0, 1.0, 2.0])
    own_rows = cp.Problem(cp.Minimize(cp.sum_squares(x - w)), [w == t, w[:2] >= -1, x >= 0])
    fixed_columns = cvxift.differentiate(own_rows).solution.engine.condensation.fixed
    assert fixed_columns is not None and len(fixed_columns.parts.columns.indices[1]) == 1  # w[2]: no row is its alone


# -- the user's problems --


def tied_and_plain():
    """min ½[x; w]ᵀQ[x; w] + φᵀx,  w = θ,  Gx + φ∘w ≤ h,  and the same with θ in the place of w."""
    rng = np.random.default_rng(7)
    n = 4
    half = rng.standard_normal((2 * n, 2 * n))
    Q, G, h = half @ half.T / n + 0.5 * np.eye(2 * n), rng.standard_normal((n, n)), rng.random(n)
    theta, phi = rng.standard_normal(n), rng.standard_normal(n)
    x, w, t, f = (
        cp.Variable(n, name="x"),
        cp.Variable(n, name="w"),
        cp.Parameter(n, name="t"),
        cp.Parameter(n, name="f"),
    )
    tie, rows = w == t, G @ x + cp.multiply(f, w) <= h
    tied = cp.Problem(cp.Minimize(0.5 * cp.quad_form(cp.hstack([x, w]), cp.psd_wrap(Q)) + f @ x), [tie, rows])
    u, b, c = cp.Variable(n), cp.Parameter(n), cp.Parameter(n)
    plain_rows = G @ u <= b
    plain = cp.Problem(cp.Minimize(0.5 * cp.quad_form(u, cp.psd_wrap(Q[:n, :n])) + c @ u), [plain_rows])

    def inside(theta, phi):  # of the plain problem's parameters
        return {b: h - phi * theta, c: Q[:n, n:] @ theta + phi}

    return (tied, x, w, t, f, tie, rows), (plain, u, b, c, plain_rows), (Q, theta, phi, inside)


def test_the_untied_form_has_the_same_derivatives():
    (tied, x, w, t, f, tie, rows), (plain, u, b, c, plain_rows), (Q, theta, phi, inside) = tied_and_plain()
    t.value, f.value = theta, phi
    s = cvxift.differentiate(tied)
    assert s.solution.engine.condensation.fixed is not None and s.report.ok
    for parameter, value in inside(theta, phi).items():
        parameter.value = value
    p = cvxift.differentiate(plain)
    n = len(theta)
    np.testing.assert_allclose(s.value(x), p.value(u), atol=1e-12)
    np.testing.assert_allclose(s.value(w), theta, atol=1e-15)
    y = rows.dual_variables[0]
    np.testing.assert_allclose(s.value(y), p.value(plain_rows.dual_variables[0]), atol=1e-10)
    assert np.any(s.value(y) > 1e-3) and np.any(s.value(y) == 0.0)
    for out, other in ((x, u), (y, plain_rows.dual_variables[0])):
        by_b, by_c = p.jacobian(other, b), p.jacobian(other, c)
        np.testing.assert_allclose(s.jacobian(out, t), by_c @ Q[:n, n:] - by_b * phi, atol=1e-9)
        np.testing.assert_allclose(s.jacobian(out, f), by_c - by_b * theta, atol=1e-9)
    np.testing.assert_allclose(s.jacobian(w, t), np.eye(n), atol=1e-12)
    np.testing.assert_allclose(s.jacobian(w, f), 0.0, atol=1e-12)
    # The tie's multiplier, from the Lagrangian's derivative with respect to w.
    multiplier = -(Q[n:, :n] @ s.value(x) + Q[n:, n:] @ theta + phi * s.value(y))
    np.testing.assert_allclose(s.value(tie.dual_variables[0]), multiplier, atol=1e-10)
    expected = -(Q[n:, :n] @ s.jacobian(x, t) + Q[n:, n:] + phi[:, None] * s.jacobian(y, t))
    np.testing.assert_allclose(s.jacobian(tie.dual_variables[0], t), expected, atol=1e-9)


def test_finite_differences_of_tight_solutions():
    (tied, x, w, t, f, tie, rows), _, (_, theta, phi, _) = tied_and_plain()
    t.value, f.value = theta, phi
    s = cvxift.differentiate(tied)
    outputs = [x, w, tie.dual_variables[0], rows.dual_variables[0]]

    def solved(theta, phi):
        t.value, f.value = theta, phi
        tied.solve(solver="CLARABEL", tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
        return [np.array(out.value) for out in outputs]

    step = 1e-4
    for k, unit in enumerate(np.eye(len(theta))):
        for parameter, move in ((t, (unit, 0 * unit)), (f, (0 * unit, unit))):
            ends = [solved(theta + sign * step * move[0], phi + sign * step * move[1]) for sign in (1.0, -1.0)]
            for out, up, down in zip(outputs, *ends, strict=True):
                np.testing.assert_allclose(s.jacobian(out, parameter)[..., k], (up - down) / (2 * step), atol=2e-6)


@pytest.mark.parametrize("curved", [False, True])
def test_layers_and_second_order(curved):
    x, w, t = cp.Variable(3), cp.Variable(3), cp.Parameter(3)
    bound = cp.norm(x - 0.5 * w) <= 0.7 if curved else x <= 0.4 + 0.1 * w
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - 2 * w) + cp.sum(x)), [w == t, bound]), [t], [x, w])
    theta = torch.tensor([[0.3, -0.8, 1.1], [1.3, 0.2, -0.4]], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda v: layer(v), theta, atol=1e-6)
    torch.autograd.gradgradcheck(lambda v: layer(v)[0], theta, atol=1e-5)


def test_reports_name_the_users_constraints():
    x, w, t = cp.Variable(2, name="x"), cp.Variable(2, name="w"), cp.Parameter(2, name="t", value=[1.0, 2.0])
    report = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(x - w)), [w == t, x <= [1.0, 3.0]])).report
    assert (
        not report.ok and "constraint 1 (x <= [1, 3]), entry (0,)" in str(report) and "constraint 0" not in str(report)
    )
    impossible = cp.Problem(cp.Minimize(cp.sum_squares(x)), [w == t, x >= w, x <= 0])
    with pytest.raises(cvxift.SolveError, match=r"w == t"):
        cvxift.differentiate(impossible)


def test_arrays_of_another_place():
    (tied, x, w, t, f, tie, _), _, (_, theta, phi, _) = tied_and_plain()
    here = SolutionMap(tied, [t, f], [x, w, tie.dual_variables[0]])
    there = DeviceMap(here, Arrays(np))
    rng = np.random.default_rng(0)
    values = np.concatenate([theta, phi]) + 0.01 * rng.standard_normal((3, 2 * len(theta)))
    one, other = here.solve(values), there.solve(values)
    np.testing.assert_allclose(other.outputs, one.outputs, atol=1e-9)
    bar, dot = rng.standard_normal(one.outputs.shape), rng.standard_normal(values.shape)
    np.testing.assert_allclose(there.vjp(other, bar), here.vjp(one, bar), atol=1e-8)
    np.testing.assert_allclose(there.jvp(other, dot), here.jvp(one, dot), atol=1e-8)
