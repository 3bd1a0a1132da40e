"""The substitution of auxiliary columns: same solutions and same KKT solves as the original program."""

from __future__ import annotations

import numpy as np
import pytest

from cvxift.cones import Cones
from cvxift.kkt.instance import Layout
from cvxift.kkt.newton import polish
from cvxift.kkt.system.reduced import ReducedSystem, rotation
from cvxift.program.elimination import AuxiliaryColumns
from cvxift.program.structure import Data, Structure


def least_squares(rng, nx=5, ne=8, inequalities=3, density=1.0, idle=0):
    """½‖y‖² + qᵀ(x, y) with Bx + a·y = b_E and Gx ≤ h; a's signs differ; the first columns of B may be idle."""
    n = nx + ne
    P = np.zeros((n, n))
    P[:nx, :nx] = 0.5 * np.eye(nx)
    P[nx:, nx:] = np.diag(0.5 + rng.random(ne))
    B = rng.standard_normal((ne, nx)) * (rng.random((ne, nx)) < density)
    B[:, :idle] = 0.0
    G = rng.standard_normal((inequalities, nx))
    a = np.where(rng.random(ne) < 0.5, -1.0, 1.0)
    A = np.block([[B, np.diag(a)], [G, np.zeros((inequalities, ne))]])
    b = np.concatenate([rng.standard_normal(ne), 0.3 * rng.random(inequalities)])
    return build(Cones(zero=ne, nonneg=inequalities), P, rng.standard_normal(n), A, b)


def build(cones, P, q, A, b):
    P_cols, P_rows = np.nonzero(P.T)
    A_cols, A_rows = np.nonzero(A.T)
    structure = Structure.from_patterns(len(q), cones, P=(P_rows, P_cols), A=(A_rows, A_cols))
    return structure, Data(P[P_rows, P_cols], q, A[A_rows, A_cols], b, np.zeros(()))


def condensed(structure, data):
    return AuxiliaryColumns(structure, np.ones(structure.nnzA, dtype=bool), data.A)


def solved(structure, data):
    """A solution by Newton alone, from every active set that the start's signs give."""
    instance = Layout(structure, True).instance(data)
    rng = np.random.default_rng(0)
    for _ in range(200):
        v = np.where(rng.random(structure.m) < 0.5, -1.0, 1.0)
        point = polish(instance, np.zeros(structure.n), v)
        if point.residuals.worst < 1e-12:
            return instance, point
    raise AssertionError("no active set was found")


CASES = {
    "dense S": {},
    "sparse S": {"nx": 12, "ne": 14, "density": 0.12},
    "one column": {"nx": 1, "ne": 3},
    "dense S beside idle columns": {"nx": 6, "idle": 2},
    "few columns of S": {"nx": 14, "ne": 20, "idle": 11},
}


@pytest.fixture(params=CASES)
def program(request):
    return least_squares(np.random.default_rng(3), **CASES[request.param])


def test_both_forms_of_S_are_met():
    forms = []
    for options in CASES.values():
        condensation = condensed(*least_squares(np.random.default_rng(3), **options))
        assert condensation.parts is not None
        forms.append(condensation.dense)
    assert True in forms and False in forms


def test_columns_that_no_residual_touches_get_no_entries():
    for nx, idle in ((6, 2), (14, 11)):
        structure, data = least_squares(np.random.default_rng(3), nx=nx, ne=20, idle=idle)
        condensation = condensed(structure, data)
        assert condensation.structure.nnzP == (nx - idle) ** 2 + idle
        P = condensation.structure.P_matrix(condensation.condense(data)[0].P).toarray()
        A, W = structure.A_matrix(data.A).toarray()[:20], np.diag(structure.P_matrix(data.P).toarray())[nx:]
        B = A[:, :nx]
        np.testing.assert_allclose(P, 0.5 * np.eye(nx) + B.T @ (W[:, None] * B), atol=1e-12)


def test_same_solution(program):
    structure, data = program
    condensation = condensed(structure, data)
    small, substitution = condensation.condense(data)
    assert condensation.structure.n < structure.n and condensation.structure.m < structure.m
    _, point = solved(condensation.structure, small)
    x, s, y = substitution.expand(point.x, point.s, point.y)
    assert Layout(structure, True).instance(data).errors(x, s, y)[2].worst < 1e-12
    assert np.all(s[: structure.cones.zero] == 0.0)
    back = condensation.parts.restrict(x, y)
    np.testing.assert_array_equal(back[0], point.x)
    np.testing.assert_array_equal(back[1], point.y)
    np.testing.assert_array_equal(condensation.parts.restrict(x, condensation.parts.rows.lift(point.y))[1], point.y)


def test_same_kkt_solves(program):
    structure, data = program
    condensation = condensed(structure, data)
    small, substitution = condensation.condense(data)
    instance, point = solved(condensation.structure, small)
    _, s, y = substitution.expand(point.x, point.s, point.y)
    inner = ReducedSystem(instance, rotation(condensation.structure.cones, point.v))
    outer = ReducedSystem(Layout(structure, True).instance(data), rotation(structure.cones, s - y))
    rng = np.random.default_rng(4)
    for lead in ((), (3,)):
        g, h = rng.standard_normal((*lead, structure.n)), rng.standard_normal((*lead, structure.m))
        u, w = substitution.solve(lambda a, b: inner.solve(a, b)[:2], g, h)
        u_outer, w_outer, _ = outer.solve(g, h)
        np.testing.assert_allclose(u, u_outer, atol=1e-10)
        np.testing.assert_allclose(w, w_outer, atol=1e-10)


@pytest.mark.parametrize("case", ["dense S", "dense S beside idle columns", "few columns of S"])
def test_a_batch_is_its_instances(case: str):
    structure, data = least_squares(np.random.default_rng(3), **CASES[case])
    condensation = condensed(structure, data)
    assert condensation.batches
    rng = np.random.default_rng(5)
    batch = Data(*(np.stack([part, 1.0 + 0 * part, part]) for part in (data.P, data.q, data.A, data.b)), np.zeros(3))
    batch.A[1] = data.A
    batch.q[2] += rng.standard_normal(structure.n)
    small, substitution = condensation.condense(batch)
    g, h = rng.standard_normal((3, structure.n)), rng.standard_normal((3, structure.m))

    def inner(g, h):
        return 2.0 * g, h - 1.0

    together = substitution.solve(inner, g, h)
    for i in range(3):
        one, way = condensation.condense(batch[i])
        for name in ("P", "q", "A", "b"):
            np.testing.assert_allclose(getattr(small, name)[i], getattr(one, name), atol=1e-13)
        for all_of_them, alone in zip(together, way.solve(inner, g[i], h[i]), strict=True):
            np.testing.assert_allclose(all_of_them[i], alone, atol=1e-13)


def test_nothing_is_substituted_where_it_must_not_be():
    structure, data = least_squares(np.random.default_rng(3))
    singles = np.isin(structure.A_cols, np.flatnonzero(np.diff(structure.A_indptr) == 1))
    assert AuxiliaryColumns(structure, ~singles, data.A).parts is None  # coefficients that vary with θ
    constant = np.ones(structure.nnzA, dtype=bool)
    assert AuxiliaryColumns(structure, constant, np.where(singles, 0.0, data.A)).parts is None

    P, A = structure.P_matrix(data.P).toarray(), structure.A_matrix(data.A).toarray()
    loose = build(Cones(nonneg=structure.m), P, data.q, A, data.b)  # all rows are inequalities
    assert condensed(*loose).parts is None
    coupled = P + 0.01 * np.ones_like(P)  # P touches the auxiliaries off its diagonal
    assert condensed(*build(structure.cones, coupled, data.q, A, data.b)).parts is None
    trivial = condensed(*loose)
    same, way = trivial.condense(loose[1])
    assert way is None and same is loose[1] and trivial.structure is loose[0]
