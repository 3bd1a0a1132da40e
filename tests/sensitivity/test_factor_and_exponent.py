"""A parameter of a geometric program that is a factor and an exponent: closed forms and finite differences."""

import cvxpy as cp
import numpy as np
import pytest

import cvxift


def box():
    """min w + h s.t. a wᵃ h ≥ 8: stationarity gives w = a h, so wᵃ⁺¹ = 8."""
    a = cp.Parameter(pos=True, value=2.0, name="a")
    w, h = cp.Variable(pos=True, name="w"), cp.Variable(pos=True, name="h")
    return cp.Problem(cp.Minimize(w + h), [a * w**a * h >= 8]), a, w, h


def slope(a):
    """dw/da of w = 8^(1/(1+a))."""
    return -np.log(8) * 8 ** (1 / (1 + a)) / (1 + a) ** 2


def test_the_derivative_is_the_sum_over_both_roles():
    problem, a, w, h = box()
    s = cvxift.differentiate(problem, gp=True)
    assert np.isclose(s.value(w), 2.0) and np.isclose(h.value, 1.0)
    assert np.isclose(s.jacobian(w, a), slope(2.0), atol=1e-12)
    assert np.isclose(s.vjp({w: 1.0})[a], slope(2.0), atol=1e-12)
    assert np.isclose(s.jvp({a: 1.0})[w], slope(2.0), atol=1e-12)
    assert np.isclose(s.jacobian(h, a), (slope(2.0) - 1.0) / 2, atol=1e-12)  # h = w/a
    assert s.report.ok and cvxift.diagnose(problem, gp=True).ok
    assert repr(s).count("a ()") == 1


def test_exponents_of_gmatmul_agree_with_finite_differences():
    start = np.array([[1.0, 0.5], [0.3, 2.0]])
    b, x = cp.Parameter((2, 2), pos=True, name="b"), cp.Variable(2, pos=True)
    constraints = [cp.gmatmul(b, x) >= np.array([2.0, 3.0]), cp.multiply(b[0], x) >= 0.1]
    problem = cp.Problem(cp.Minimize(cp.sum(x) + cp.sum(cp.multiply(b, np.ones((2, 2))))), constraints)

    def solution(value):
        b.value = value
        return cvxift.differentiate(problem, gp=True)

    for direction in np.random.default_rng(0).normal(size=(3, 2, 2)):
        ends = [solution(start + sign * 1e-5 * direction).value(x) for sign in (1, -1)]
        found = solution(start).jvp({b: direction})[x]
        assert np.allclose(found, (ends[0] - ends[1]) / 2e-5, atol=1e-8)
        assert np.isclose(np.vdot(direction, solution(start).vjp({x: np.ones(2)})[b]), found.sum())


def test_torch():
    torch, adapter = pytest.importorskip("torch"), pytest.importorskip("cvxift.torch")
    problem, a, w, h = box()
    layer = adapter.CvxpyLayer(problem, [a], [w, h, problem.constraints[0].dual_variables[0]], gp=True)
    t = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    layer(t)[0].sum().backward()
    assert np.allclose(t.grad, slope(t.detach().numpy()), atol=1e-12)
    assert torch.autograd.gradcheck(layer, (t,)) and torch.autograd.gradgradcheck(lambda t: layer(t)[0], (t,))
    assert torch.isclose(layer(2.0)[0], torch.tensor(2.0)) and layer.diagnose(t[0].detach()).ok
    assert repr(layer).count("a ()") == 1
    with pytest.raises(cvxift.ProgramError, match="'a' enters a geometric program, but is not positive"):
        layer(-t.detach())


def test_jax():
    jax, adapter = pytest.importorskip("jax"), pytest.importorskip("cvxift.jax")
    problem, a, w, _ = box()
    layer = adapter.CvxpyLayer(problem, [a], [w], gp=True)
    with jax.enable_x64(True):
        values = jax.numpy.array([2.0, 3.0])
        gradients = jax.jit(jax.vmap(jax.grad(lambda t: layer(t)[0])))(values)
        assert np.allclose(gradients, slope(np.asarray(values)), atol=1e-12)
        assert np.isclose(jax.jacfwd(lambda t: layer(t)[0])(2.0), slope(2.0), atol=1e-12)
    assert repr(layer).count("a ()") == 1
