"""The matrix-free path: it agrees with the factorization, honours its tolerance and limit, and says why it stopped."""

from __future__ import annotations

import numpy as np
import pytest
from plant import plant

from cvxift.cones import Cones
from cvxift.errors import ProgramError
from cvxift.kkt.instance import Layout
from cvxift.kkt.policy import LARGEST_DIRECT, Iterative, Policy
from cvxift.kkt.system.iterative import IterativeSystem
from cvxift.kkt.system.reduced import ReducedSystem, rotation

CASES = {
    "quadratic": Cones(zero=2, nonneg=7),
    "soc": Cones(zero=1, nonneg=2, soc=(3, 4)),
    "psd": Cones(zero=1, psd=(3, 2)),
    "exp and pow": Cones(zero=1, exp=2, pow=(0.3,)),
}


@pytest.fixture(params=[*CASES], ids=str)
def planted(request, rng):
    return plant(CASES[request.param], 9, rng)


def systems(planted, options, dense=None):
    instance = Layout(planted.structure, dense).instance(planted.data)
    v = planted.s - planted.y
    return IterativeSystem(instance, v, options), ReducedSystem(instance, rotation(planted.structure.cones, v))


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@pytest.mark.parametrize("lead", [(), (2,), (0,)], ids=str)
def test_agrees_with_the_factorization(planted, rng, lead, dense):
    iterative, direct = systems(planted, Iterative(tolerance=1e-13), dense)
    g, h = rng.standard_normal((*lead, planted.structure.n)), rng.standard_normal((*lead, planted.structure.m))
    for right in (h, None):
        u, w, certificate = iterative.solve(g, right)
        expected = direct.solve(g, right)
        np.testing.assert_allclose(u, expected[0], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(w, expected[1], rtol=1e-6, atol=1e-7)
        assert certificate.residual < 1e-9


def test_the_projection_is_taken_apart_once(planted, rng, monkeypatch):
    iterative, _ = systems(planted, Iterative(tolerance=1e-12))
    monkeypatch.setattr("cvxift.cones.product.CONES", {})  # no cone gives its eigenvectors any more
    certificate = iterative.solve(rng.standard_normal(planted.structure.n), None)[2]
    assert certificate.iterations > 1 and certificate.residual < 1e-9


def test_the_tolerance_is_honoured(planted, rng):
    g, h = rng.standard_normal(planted.structure.n), rng.standard_normal(planted.structure.m)
    found = [systems(planted, Iterative(tolerance=tolerance))[0].solve(g, h)[2] for tolerance in (1e-2, 1e-6, 1e-12)]
    iterations = [certificate.iterations for certificate in found]
    assert iterations[0] < iterations[1] < iterations[2]
    assert found[2].residual < 1e-10
    # LSMR stops where ‖r‖ ≤ btol ‖f‖ + atol ‖J‖ ‖z‖, in the Euclidean norm.
    assert found[1].residual < found[0].residual
    assert all(certificate.method == "LSMR" for certificate in found)
    assert all("to the tolerance" in certificate.message for certificate in found)


def test_the_limit_is_honoured_and_told(planted, rng):
    g, h = rng.standard_normal(planted.structure.n), rng.standard_normal(planted.structure.m)
    certificate = systems(planted, Iterative(tolerance=1e-12, max_iterations=3))[0].solve(g, h)[2]
    assert certificate.iterations == 3
    assert certificate.message == "iteration limit"
    assert not certificate.consistent
    assert "iteration limit" in str(certificate)


def test_a_zero_right_hand_side(planted):
    n, m = planted.structure.n, planted.structure.m
    u, w, certificate = systems(planted, Iterative())[0].solve(np.zeros(n), np.zeros(m))
    assert not u.any() and not w.any()
    assert certificate.residual == 0.0 and certificate.message == "the right-hand side is zero"


def test_a_singular_system_gives_the_solution_where_there_is_one(rng):
    planted = plant(Cones(zero=2, nonneg=4), 8, rng, rank=2, tight=0.0)  # flat directions
    iterative, _ = systems(planted, Iterative(tolerance=1e-13))
    P = planted.structure.P_matrix(planted.data.P).toarray()
    A = planted.structure.A_matrix(planted.data.A).toarray()
    wanted, multiplier = rng.standard_normal(8), np.concatenate([rng.standard_normal(2), np.zeros(4)])
    g, h = P @ wanted + A.T @ multiplier, np.where(np.arange(6) < 2, A @ wanted, 0.0)
    u, w, certificate = iterative.solve(g, h)
    assert certificate.residual < 1e-9
    np.testing.assert_allclose(P @ u + A.T @ w, g, atol=1e-7)
    np.testing.assert_allclose((A @ u)[:2], h[:2], atol=1e-7)
    _, _, lost = iterative.solve(rng.standard_normal(8), h)  # a right-hand side outside the range
    assert not lost.consistent and "least-squares" in lost.message


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"tolerance": 1.0}, {"max_iterations": 0}], ids=str)
def test_options_are_checked(options):
    with pytest.raises(ProgramError, match=next(iter(options))):
        Iterative(**options)


def test_when_the_path_is_taken():
    assert Policy().iterative(LARGEST_DIRECT) is None
    assert Policy().iterative(2 * LARGEST_DIRECT) == Iterative()
    assert Policy(linear_solver="direct").iterative(2 * LARGEST_DIRECT) is None
    assert Policy(linear_solver="iterative").iterative(1) == Iterative()
    options = Iterative(tolerance=1e-5)
    assert Policy(linear_solver=options).iterative(1) is options
