"""Nonlinear problems as PyTorch and JAX layers: the transforms that DPP problems' layers take, to second order."""

from __future__ import annotations

import copy
import itertools
import pickle
import warnings

import cvxpy as cp
import numpy as np
import pytest

import cvxift

pytest.importorskip("unopy")
pytest.importorskip("cvxpy", minversion="1.9")
torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

from cvxift.jax import CvxpyLayer as JaxLayer  # noqa: E402
from cvxift.torch import CvxpyLayer as TorchLayer  # noqa: E402

T, R = np.array([0.3, 0.9]), np.array(2.0)


def parts():
    x, t, r = cp.Variable(2, name="x"), cp.Parameter(2, name="t"), cp.Parameter(name="r")
    x.value = np.array([1.0, 0.5])
    objective = cp.Minimize(cp.sum_squares(x - t) + t[1] * x[0] * x[1])
    problem = cp.Problem(objective, [cp.sum_squares(x) == r])
    return problem, [t, r], [x, problem.constraints[0].dual_variables[0]]


def projection(layer):
    """Onto the sphere of squared radius r: √r t/‖t‖."""
    x, t, r = cp.Variable(3, name="x"), cp.Parameter(3, name="t"), cp.Parameter(name="r")
    x.value = np.ones(3)
    return layer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum_squares(x) == r]), [t, r], [x], nlp=True)


@pytest.fixture(scope="module")
def reference():
    problem, (t, r), (x, dual) = parts()
    t.value, r.value = T, R
    s = cvxift.differentiate(problem, nlp=True)
    return s.value(x), s.jacobian(x, t), s.jacobian(x, r), s.value(dual), s.jacobian(dual, t)


def double(*values):
    return [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]


class TestTorch:
    def test_values_and_gradients(self, reference) -> None:
        layer = TorchLayer(*parts(), nlp=True)
        t, r = double(T, R)
        z, dual = layer(t, r)
        np.testing.assert_allclose(z.detach().numpy(), reference[0], atol=1e-10)
        np.testing.assert_allclose(dual.detach().numpy(), reference[3], atol=1e-10)
        (dual + z @ torch.tensor([1.0, 2.0], dtype=torch.float64)).backward()
        np.testing.assert_allclose(t.grad.numpy(), np.array([1.0, 2.0]) @ reference[1] + reference[4], atol=1e-9)

    def test_batches_agree_with_single_calls(self) -> None:
        layer = TorchLayer(*parts(), nlp=True)
        t, r = double(np.stack([T, T + 0.2, T - 0.1]), np.array([2.0, 1.5, 1.0]))
        assert torch.autograd.gradcheck(lambda t, r: layer(t, r), (t, r))
        alone = [layer(t[i], r[i])[0] for i in range(3)]
        torch.testing.assert_close(layer(t, r)[0], torch.stack(alone), atol=1e-10, rtol=0.0)
        (shared,) = torch.autograd.grad(layer(t, r[0])[0].sum(), t)
        assert shared.shape == t.shape

    def test_transforms(self, reference) -> None:
        layer = TorchLayer(*parts(), nlp=True)
        t, r = (value.detach() for value in double(T, R))
        np.testing.assert_allclose(torch.func.jacrev(lambda t: layer(t, r)[0])(t), reference[1], atol=1e-9)
        np.testing.assert_allclose(torch.func.jacfwd(lambda t: layer(t, r)[0])(t), reference[1], atol=1e-9)
        rows = torch.vmap(torch.func.grad(lambda t: layer(t, r)[0][0]))(t.expand(3, 2))
        np.testing.assert_allclose(rows, np.tile(reference[1][0], (3, 1)), atol=1e-9)

    def test_compiled(self, reference) -> None:
        layer = TorchLayer(*parts(), nlp=True)
        t, r = double(T, R)
        torch.compile(lambda t, r: layer(t, r)[0].sum(), fullgraph=True, backend="aot_eager")(t, r).backward()
        np.testing.assert_allclose(t.grad.numpy(), reference[1].sum(axis=0), atol=1e-9)

    def test_single_precision(self, reference) -> None:
        layer = TorchLayer(*parts(), nlp=True)
        t, r = (value.detach().float().requires_grad_() for value in double(T, R))
        (z, _) = layer(t, r)
        z[0].backward()
        assert z.dtype == t.grad.dtype == torch.float32
        np.testing.assert_allclose(t.grad.numpy(), reference[1][0], atol=1e-6)

    def test_copies_and_pickles(self, reference) -> None:
        layer = TorchLayer(*parts(), nlp=True)
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            t, r = double(T, R)
            (z, _) = other(t, r)
            z[1].backward()
            np.testing.assert_allclose(t.grad.numpy(), reference[1][1], atol=1e-9)

    def test_copies_start_where_the_variables_stood(self) -> None:
        x, p = cp.Variable(name="x"), cp.Parameter(name="p")
        x.value = -1.2
        problem = cp.Problem(cp.Minimize(cp.square(cp.square(x) - 1) + p * x))
        layer = TorchLayer(problem, [p], [x], nlp=True)
        x.value = 1.2
        for other in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert other(torch.tensor(0.1))[0] < -0.9

    def test_problems_that_cvxpy_solved_are_copied(self) -> None:
        x, q = cp.Variable(2), cp.Parameter(2, pos=True, value=np.array([1.0, 2.0]))
        problem = cp.Problem(cp.Minimize(q[0] * q[1] * cp.sum_squares(x - 1) + cp.sum(cp.exp(x))), [cp.norm(x) <= 1])
        problem.solve(solver="CLARABEL")
        layer = TorchLayer(problem, [q], [x], nlp=True)
        (t,) = double(q.value)
        (z,) = layer(t)
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            torch.testing.assert_close(other(t)[0], z, atol=1e-12, rtol=0.0)

    def test_failed_instances_cost_no_others(self) -> None:
        t, r = double(np.stack([T, T, T]), np.array([2.0, -1.0, 1.0]))
        with pytest.raises(cvxift.SolveError, match=r"Instance \(1,\).*infeasible") as raised:
            TorchLayer(*parts(), nlp=True)(t, r)
        assert np.isfinite(raised.value.solutions[0][[0, 2]]).all()
        with pytest.warns(cvxift.ApplicabilityWarning, match="infeasible"):
            z, _ = TorchLayer(*parts(), nlp=True, on_failure="nan")(t, r)
        assert torch.isnan(z[1]).all() and torch.isfinite(z[[0, 2]]).all()
        z[[0, 2]].sum().backward()
        assert r.grad[1] == 0.0 and r.grad[0] != 0.0

    def test_warm_start_follows_the_branch(self) -> None:
        # x = ±1 are the two minima; the tilt makes the other one global, and a solve from afar may prefer it.
        x, p = cp.Variable(name="x"), cp.Parameter(name="p")
        x.value = 0.9
        problem = cp.Problem(cp.Minimize(cp.square(cp.square(x) - 1) + p * x))
        layer = TorchLayer(problem, [p], [x], nlp=True)
        layer(torch.tensor(-0.1, dtype=torch.float64))
        for value in np.linspace(-0.1, 0.6, 15):
            (z,) = layer(torch.tensor(value), warm_start=True)
            assert z > 0.5
        assert layer.core._warm.solutions[0].solver == "Newton"

    def test_a_lost_branch_is_told(self) -> None:
        # The minimum near +1 ends at a tilt of 1.54; beyond it only the other one is left.
        x, p = cp.Variable(name="x"), cp.Parameter(name="p")
        x.value = 0.9
        problem = cp.Problem(cp.Minimize(cp.square(cp.square(x) - 1) + p * x))
        layer = TorchLayer(problem, [p], [x], nlp=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer(torch.tensor(1.2, dtype=torch.float64))
            layer(torch.tensor(1.25, dtype=torch.float64), warm_start=True)
        with pytest.warns(cvxift.ApplicabilityWarning, match="another branch"):
            (z,) = layer(torch.tensor(1.7, dtype=torch.float64), warm_start=True)
        assert z < -1.0

    def test_a_jump_to_the_next_of_many_minima_is_told_and_a_long_smooth_step_is_not(self) -> None:
        # Minima lie 0.157 apart; the one that is followed from 1.96 ends where the parameter exceeds 6.
        x, p = cp.Variable(name="x"), cp.Parameter(name="p")
        x.value = 2.04
        layer = TorchLayer(cp.Problem(cp.Minimize(cp.nlp.cos(40 * (x + 4)) + 5 * cp.square(x - p))), [p], [x], nlp=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (first,) = layer(torch.tensor(2.04, dtype=torch.float64))
            for value in (3.0, 5.0, 5.9):
                (z,) = layer(torch.tensor(value, dtype=torch.float64), warm_start=True)
                assert abs(z - first) < 0.04
        with pytest.warns(cvxift.ApplicabilityWarning, match="another branch"):
            (z,) = layer(torch.tensor(6.3, dtype=torch.float64), warm_start=True)
        assert z - first > 0.1
        (t, r), circle = double(T, R), TorchLayer(*parts(), nlp=True)
        circle(t, r)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            circle(t, 2.0 * r, warm_start=True)  # moves every entry by some four tenths
        assert circle.core._warm.solutions[0].solver == "Newton"

    def test_last_report_and_diagnose(self) -> None:
        layer = TorchLayer(*parts(), nlp=True)
        t, r = double(T, R)
        layer(t, r)
        assert layer.last_report.residual < 1e-10
        report = layer.diagnose(t, r)
        assert report.ok and report.audit().agrees

    def test_second_order_of_a_projection_in_all_modes(self) -> None:
        layer, (t, r) = projection(TorchLayer), double([0.3, 0.9, -0.4], 2.0)
        exact = lambda t, r: torch.sqrt(r) * t / t.norm()  # noqa: E731
        for outer, inner in itertools.product((torch.func.jacrev, torch.func.jacfwd), repeat=2):
            for argnums in itertools.product((0, 1), repeat=2):
                found, expected = (
                    outer(inner(f, argnums=argnums[0]), argnums=argnums[1])(t.detach(), r.detach())
                    for f in (lambda t, r: layer(t, r)[0], exact)
                )
                torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
        rows = torch.stack([t, 2.0 * t]).detach().requires_grad_()
        assert torch.autograd.gradgradcheck(lambda rows: layer(rows, r.detach())[0], (rows,))

    def test_third_order_is_refused(self) -> None:
        layer, (t, r) = projection(TorchLayer), double([0.3, 0.9, -0.4], 2.0)
        thrice = torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(lambda t: layer(t, r.detach())[0])))
        with pytest.raises(cvxift.ProgramError, match="orders up to 2 are supported"):
            thrice(t.detach())

    def test_options(self) -> None:
        t, r = double(T, R)
        with pytest.raises(cvxift.ProgramError, match="exclude each other"):
            TorchLayer(*parts(), nlp=True, gp=True)
        assert "exclude each other" in str(cvxift.diagnose(parts()[0], nlp=True, gp=True))
        layer = TorchLayer(*parts(), nlp=True, solver="UNO", solver_args={"max_iterations": 100})
        with pytest.raises(cvxift.SolveError, match="limit"):
            layer(t, r, solver_args={"max_iterations": 0})
        layer(t, r)
        with pytest.raises(cvxift.ProgramError, match="on_device"):
            TorchLayer(*parts(), nlp=True, on_device="always")


class TestJax:
    def test_values_and_gradients(self, reference) -> None:
        layer = JaxLayer(*parts(), nlp=True)
        with jax.enable_x64(True):
            t, r = jax.numpy.asarray(T), jax.numpy.asarray(R)
            np.testing.assert_allclose(layer(t, r)[0], reference[0], atol=1e-10)
            for mode in (jax.jacrev, jax.jacfwd):
                np.testing.assert_allclose(jax.jit(mode(lambda t: layer(t, r)[0]))(t), reference[1], atol=1e-9)
            rows = jax.vmap(jax.grad(lambda t: layer(t, r)[1]))(jax.numpy.stack([t, t + 0.1]))
            np.testing.assert_allclose(rows[0], reference[4], atol=1e-9)
            batch = layer(jax.numpy.stack([t, t + 0.1]), r)[0]
            np.testing.assert_allclose(batch[0], reference[0], atol=1e-10)

    def test_second_order(self) -> None:
        layer = projection(JaxLayer)
        with jax.enable_x64(True):
            t = jax.numpy.asarray([0.3, 0.9, -0.4])
            exact = jax.hessian(lambda t: 2.0**0.5 * t / jax.numpy.linalg.norm(t))
            found = jax.jit(jax.vmap(jax.hessian(lambda t: layer(t, jax.numpy.asarray(2.0))[0])))
            rows = jax.numpy.stack([t, 2.0 * t])
            np.testing.assert_allclose(found(rows), jax.vmap(exact)(rows), atol=1e-9)

    def test_single_precision_is_the_default(self, reference) -> None:
        layer = JaxLayer(*parts(), nlp=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            t = jax.numpy.asarray(T, dtype=jax.numpy.float32)
            gradient = jax.grad(lambda t: layer(t, jax.numpy.asarray(2.0))[0][0])(t)
        np.testing.assert_allclose(gradient, reference[1][0], atol=1e-6)


@pytest.mark.parametrize("solver", [None, "UNO"])
@pytest.mark.parametrize("kind", ["box", "ridge", "entropy", "norm", "exp"])
def test_dpp_problems_give_the_gradient_of_the_conic_path(kind: str, solver: str | None) -> None:
    rng = np.random.default_rng(2)
    A, c = rng.standard_normal((6, 4)), rng.standard_normal(4)
    x, b, r = cp.Variable(4, name="x"), cp.Parameter(6, name="b", value=rng.standard_normal(6)), cp.Parameter(pos=True)
    r.value = 0.8
    fit = cp.sum_squares(A @ x - b)
    objective, constraints = {
        "box": (fit, [x <= 0.4, cp.sum(x) == r]),
        "ridge": (fit + r * cp.sum_squares(x), []),
        "entropy": (r * cp.sum(-cp.entr(x)) + b[:4] @ x, [cp.sum(x) == 1]),
        "norm": (fit + r * cp.norm1(x), [c @ x <= 0.1]),
        "exp": (cp.sum(cp.exp(A @ x)) + r * cp.sum_squares(x) + b[:4] @ x, []),
    }[kind]
    x.value = np.full(4, 0.2)
    problem = cp.Problem(cp.Minimize(objective), constraints)
    conic = cvxift.differentiate(problem)
    local = cvxift.differentiate(problem, nlp=True, solver=solver)
    for parameter in (b, r):
        expected = conic.jacobian(x, parameter)
        size = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(local.jacobian(x, parameter), expected, rtol=0.0, atol=1e-8 * size)


def test_a_convex_problem_that_is_not_dpp_gives_the_gradient_of_its_dpp_form() -> None:
    rng = np.random.default_rng(1)
    F = rng.standard_normal((4, 4))
    w, mu, risk, cap = (
        cp.Variable(4, name="w"), cp.Parameter(4, name="mu"), cp.Parameter(nonneg=True), cp.Parameter(nonneg=True),
    )  # fmt: skip
    plain = cp.Problem(cp.Maximize(mu @ w - risk * cp.sum_squares(F @ w)), [cp.sum(w) == 1, w >= 0, w <= cap])
    twice = cp.Problem(cp.Maximize(mu @ w - risk * cp.sum_squares(F @ w)), [cp.sum(w) == 1, w >= 0, w <= cap * cap / 2])
    values = [rng.standard_normal(4), 0.7, 0.6]
    t = double(*values)
    (a,) = TorchLayer(plain, [mu, risk, cap], [w])(*t)
    expected = torch.autograd.grad(a @ torch.arange(4.0, dtype=torch.float64), t)
    values[2] = np.sqrt(2 * 0.6)
    s = double(*values)
    (b,) = TorchLayer(twice, [mu, risk, cap], [w], nlp=True)(*s)
    found = torch.autograd.grad(b @ torch.arange(4.0, dtype=torch.float64), s)
    torch.testing.assert_close(a, b, atol=1e-8, rtol=0.0)
    for k in (0, 1):
        torch.testing.assert_close(found[k], expected[k], atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(found[2], expected[2] * values[2], atol=1e-8, rtol=1e-8)
