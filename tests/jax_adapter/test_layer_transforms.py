"""Every transformation of the JAX layer, in any nesting and order, against derivatives that are known otherwise."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import cvxpy as cp
import numpy as np
import pytest

jnp = pytest.importorskip("jax.numpy")
import jax  # noqa: E402
from jax_layers import (  # noqa: E402
    ball_layer,
    difference,
    directions_like,
    entropy_layer,
    qp_layer,
    qp_values,
    simplex_layer,
)

from cvxift import ProgramError  # noqa: E402
from cvxift.jax import CvxpyLayer  # noqa: E402
from cvxift.layers import solve_cache  # noqa: E402


@pytest.fixture(autouse=True)
def double():
    """64-bit types within a test and nowhere else."""
    with jax.enable_x64(True):
        yield


TARGETS = np.random.default_rng(2).standard_normal((6, 3))


def count_solves(layer, monkeypatch):
    """Shapes of θ of every solve from now on."""
    shapes, solve = [], layer.core.solve_flat
    monkeypatch.setattr(
        layer.core, "solve_flat", lambda theta, *rest: shapes.append(theta.shape) or solve(theta, *rest)
    )
    return shapes


def rows(gradient):
    """The gradient of one instance, for each."""
    return lambda t, s: np.array([gradient(row, s) for row in t])


# f(targets or one target, total) is a sum over instances; each entry gives its gradient with respect to the targets.
TRANSFORMS = {
    "grad": lambda f: rows(jax.grad(f)),
    "jit grad": lambda f: rows(jax.jit(jax.grad(f))),
    "grad jit": lambda f: jax.grad(jax.jit(f)),
    "value_and_grad": lambda f: lambda t, s: jax.value_and_grad(f)(t, s)[1],
    "vmap grad": lambda f: jax.vmap(jax.grad(f), in_axes=(0, None)),
    "grad vmap": lambda f: jax.grad(lambda t, s: jax.vmap(f, in_axes=(0, None))(t, s).sum()),
    "grad batch": lambda f: jax.grad(f),
    "jit vmap jit grad": lambda f: jax.jit(jax.vmap(jax.jit(jax.grad(f)), in_axes=(0, None))),
    "vmap other axis": lambda f: lambda t, s: jax.vmap(jax.grad(f), in_axes=(1, None))(t.T, s),
    "nested vmap": lambda f: (
        lambda t, s: jax.vmap(jax.vmap(jax.grad(f), (0, None)), (1, None), 1)(t.reshape(2, 3, 3), s).reshape(6, 3)
    ),
    "vmap size": lambda f: lambda t, s: jax.vmap(jax.grad(f), (None, 0), 1)(t, jnp.full(2, s))[:, 0],
    "jacrev": lambda f: jax.vmap(jax.jacrev(f), in_axes=(0, None)),
    "jacfwd": lambda f: jax.vmap(jax.jacfwd(f), in_axes=(0, None)),
    "jit jacfwd": lambda f: jax.jit(jax.vmap(jax.jacfwd(f), in_axes=(0, None))),
    "vjp": lambda f: lambda t, s: jax.vjp(f, t, s)[1](1.0)[0],
    "jvp": lambda f: (
        lambda t, s: np.array([[jax.jvp(lambda r: f(r, s), (row,), (e,))[1] for e in jnp.eye(3)] for row in t])
    ),
    "linearize": lambda f: (
        lambda t, s: jax.vmap(jax.linearize(lambda t: f(t, s), t)[1])(jnp.eye(18).reshape(18, 6, 3)).reshape(6, 3)
    ),
    "linear_transpose": lambda f: lambda t, s: jax.linear_transpose(jax.linearize(lambda t: f(t, s), t)[1], t)(1.0)[0],
    "lax.map": lambda f: lambda t, s: jax.lax.map(lambda row: jax.grad(f)(row, s), t),
    "grad lax.map": lambda f: jax.grad(lambda t, s: jax.lax.map(lambda row: f(row, s), t).sum()),
    "grad scan": lambda f: jax.jit(
        jax.grad(lambda t, s: jax.lax.scan(lambda c, row: (c + f(row, s), None), 0.0, t)[0])
    ),
    "jacfwd scan": lambda f: jax.jacfwd(lambda t, s: jax.lax.scan(lambda c, row: (c + f(row, s), None), 0.0, t)[0]),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    "jit checkpoint": lambda f: jax.jit(jax.grad(jax.checkpoint(f))),
    "cond": lambda f: jax.grad(lambda t, s: jax.lax.cond(t.sum() < 100.0, f, lambda t, s: s, t, s)),
}


class TestFirstOrder:
    """One layer, one gradient known from the batched call; each transformation has to find it."""

    layer = simplex_layer(closed_form="never")

    def loss(self, target, total):
        return jnp.sin(self.layer(target, total)[0]).sum()

    def expected(self):
        """Gradients of every instance, by the formula: on the support of size k, dx = (I − 11ᵀ/k) dt + 1/k d(total)."""
        rows, scalars = [], []
        for target in TARGETS:
            x = np.asarray(self.layer(jnp.asarray(target), 1.0)[0])
            on = x > 1e-9
            bar = np.cos(x) * on
            rows.append(bar - on * bar.sum() / on.sum())
            scalars.append(bar.sum() / on.sum())
        return np.array(rows), np.array(scalars)

    @pytest.mark.parametrize("name", TRANSFORMS)
    def test_with_respect_to_a_vector(self, name):
        gradient = TRANSFORMS[name](self.loss)(jnp.asarray(TARGETS), jnp.asarray(1.0))
        np.testing.assert_allclose(gradient, self.expected()[0], atol=1e-10)

    def test_with_respect_to_what_a_batch_shares(self):
        for gradient in (
            jax.grad(self.loss, argnums=1)(jnp.asarray(TARGETS), 1.0),
            jax.grad(lambda t, s: jax.vmap(self.loss, (0, None))(t, s).sum(), argnums=1)(jnp.asarray(TARGETS), 1.0),
            jax.jit(jax.jacfwd(self.loss, argnums=1))(jnp.asarray(TARGETS), 1.0),
        ):
            np.testing.assert_allclose(gradient, self.expected()[1].sum(), atol=1e-10)

    def test_pytrees_of_parameters(self):
        tree = {"a": jnp.asarray(TARGETS), "b": [jnp.asarray(1.0)]}
        gradient = jax.jit(jax.grad(lambda tree: self.loss(tree["a"], tree["b"][0])))(tree)
        np.testing.assert_allclose(gradient["a"], self.expected()[0], atol=1e-10)
        np.testing.assert_allclose(gradient["b"][0], self.expected()[1].sum(), atol=1e-10)

    def test_recurrence_through_scan(self):
        def last(t):
            return jax.lax.scan(lambda z, row: (self.layer(row + 0.3 * z, 1.0)[0], None), jnp.zeros(3), t)[0][0]

        targets, dots = (jnp.asarray(TARGETS),), (jnp.asarray(directions_like([TARGETS], 4)[0]),)
        (expected,) = difference(lambda t: [last(t)], targets, dots)
        assert float(jnp.vdot(jax.jit(jax.grad(last))(*targets), dots[0])) == pytest.approx(float(expected), abs=1e-8)
        assert float(jax.jvp(jax.jit(last), targets, dots)[1]) == pytest.approx(float(expected), abs=1e-8)


LAYERS = {
    "qp": (qp_layer, qp_values),
    "socp": (ball_layer, lambda: [np.array([2.0, 1.0, -0.5]), np.array(1.2)]),
    "entropy": (entropy_layer, lambda: [np.array([0.3, -0.2, 1.0, 0.1]), np.array(0.7)]),
    "batched socp": (ball_layer, lambda: [TARGETS[:3] * 3, np.array([0.5, 1.0, 0.7])]),
    "slack cone": (ball_layer, lambda: [np.array([0.2, 0.1, -0.3]), np.array(1.2)]),
}


class TestHigherOrder:
    """Hessian-vector products against differences of gradients; both modes in every nesting."""

    @pytest.mark.parametrize("name", LAYERS)
    def test_hessian_vector_products(self, name):
        make, values = LAYERS[name]
        layer, values = make(), tuple(map(jnp.asarray, values()))
        weights = [jnp.asarray(w) for w in directions_like(layer(*values), 8)]
        dots = tuple(jnp.asarray(dot) for dot in directions_like(values, 9))
        every = tuple(range(len(values)))

        def loss(*v):
            return sum((w * jnp.sin(out)).sum() for w, out in zip(weights, layer(*v), strict=True))

        def slope(*v):  # ∂f·dots
            return jax.jvp(loss, v, dots)[1]

        def turned(*v):  # ⟨∇f, dots⟩
            return sum(jnp.vdot(part, dot) for part, dot in zip(gradient(*v), dots, strict=True))

        gradient = jax.jit(jax.grad(loss, argnums=every))
        products, curvature = jax.jit(
            lambda *v: (
                {
                    "forward over reverse": jax.jvp(gradient, v, dots)[1],
                    "reverse over forward": jax.grad(slope, argnums=every)(*v),
                    "reverse over reverse": jax.grad(turned, argnums=every)(*v),
                },
                jax.jvp(slope, v, dots)[1],  # forward over forward
            )
        )(*values)
        expected = difference(gradient, values, dots, step=1e-4)
        scale = max(np.abs(part).max() for part in expected) + 1.0
        for mode, product in products.items():
            for ours, theirs in zip(product, expected, strict=True):
                np.testing.assert_allclose(ours / scale, theirs / scale, atol=2e-7, err_msg=mode)
        by_difference = sum(float(jnp.vdot(part, dot)) for part, dot in zip(expected, dots, strict=True))
        assert float(curvature) == pytest.approx(by_difference, rel=1e-6, abs=1e-6 * float(scale))

    def test_hessian_of_the_ball_is_that_of_the_formula(self):
        layer, point = ball_layer(), jnp.array([2.0, 1.0, -0.5])

        def ours(p):
            return layer(p, 1.0)[0][0]

        closed = jax.jit(jax.vmap(jax.hessian(lambda p: (p / jnp.linalg.norm(p))[0])))
        points = jnp.stack([point, -point, point[::-1]])
        for hessian in (jax.hessian, lambda f: jax.jacrev(jax.jacrev(f)), lambda f: jax.jacfwd(jax.jacfwd(f))):
            np.testing.assert_allclose(jax.jit(hessian(ours))(point), closed(points)[0], atol=1e-9)
        np.testing.assert_allclose(jax.jit(jax.vmap(jax.hessian(ours)))(points), closed(points), atol=1e-9)

    def test_any_order_where_the_constraints_are_linear(self):
        x, a, b = cp.Variable(2), cp.Parameter((2, 2), name="a"), cp.Parameter(2, name="b")
        layer = CvxpyLayer(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x)), [a @ x == b]), [a, b], [x])
        matrix, vector = np.array([[2.0, 0.3], [-0.4, 1.5]]), np.array([1.0, -0.7])

        def along(t):  # (1 + t) a x = b
            return layer((1 + t) * matrix, jnp.asarray(vector))[0]

        start, sign = np.linalg.solve(matrix, vector), {3: -6.0, 4: 24.0}  # dᵏ/dtᵏ 1/(1+t) = (−1)ᵏ k! / (1+t)ᵏ⁺¹
        for modes in ([jax.jacfwd] * 4, [jax.jacrev] * 3, [jax.jacrev, jax.jacfwd, jax.jacrev, jax.jacfwd]):
            f = along
            for mode in modes:
                f = mode(f)
            np.testing.assert_allclose(jax.jit(f)(0.0), sign[len(modes)] * start, rtol=1e-9)

    def test_any_order_where_the_solution_has_a_closed_form(self):
        x, theta, t = cp.Variable(3), cp.Parameter(3, name="theta"), cp.Parameter(pos=True, name="t")
        sparsemax = cp.Maximize(theta @ x - 0.5 * t * cp.sum_squares(x))
        layer = CvxpyLayer(cp.Problem(sparsemax, [cp.sum(x) == 1, x >= 0]), [theta, t], [x])

        def ours(t):
            return layer(jnp.array([1.0, 0.3, -2.0]), t)[0]

        def closed(t):  # on the support {0, 1}
            return jnp.array([0.5 + 0.35 / t, 0.5 - 0.35 / t, 0.0])

        for mode in (jax.jacfwd, jax.jacrev, jax.jacfwd):
            ours, closed = mode(ours), mode(closed)
            np.testing.assert_allclose(jax.jit(ours)(2.0), closed(2.0), atol=1e-10)

    def test_third_derivatives_of_a_batch_of_quadratic_programs(self):
        layer, values = qp_layer(), [jnp.asarray(value) for value in qp_values((3,))]

        def cost(q, *rest):
            return (layer(rest[0], q, *rest[1:])[0] ** 3).sum()

        rest = [values[0], *values[2:]]
        dots = [jnp.asarray(dot) for dot in directions_like(values[:2], 1)]

        def second(t):
            return jax.jvp(lambda Q: jax.grad(cost)(values[1], Q + t * dots[0], *rest[1:]), (values[0],), (dots[0],))[1]

        third = jax.jit(jax.jacfwd(second))(0.0)
        (expected,) = difference(lambda t: [second(t)], [0.0], [1.0])
        np.testing.assert_allclose(third, expected, atol=1e-6 * (1 + np.abs(expected).max()))

    def test_orders_that_are_not_known_are_refused_when_traced(self):
        with pytest.raises(ProgramError, match=r"order 3 .*curved cones \(soc\).*orders 1 and 2"):
            jax.jit(jax.grad(lambda p: jax.hessian(lambda p: ball_layer()(p, 1.0)[0][0])(p)[0, 0]))(jnp.ones(3))
        layer = simplex_layer(singular="smooth")
        jax.hessian(lambda t: layer(t, 1.0)[0][0])(jnp.ones(3))
        with pytest.raises(ProgramError, match=r"order 3 .*singular='smooth'"):
            jax.jacfwd(jax.hessian(lambda t: layer(t, 1.0)[0][0]))(jnp.ones(3))

    def test_geometric_program(self):
        x, y = cp.Variable(pos=True), cp.Variable(pos=True)
        a = cp.Parameter(pos=True, name="a")
        layer = CvxpyLayer(cp.Problem(cp.Minimize(x + a * y), [x * y >= 8]), [a], [x, y], gp=True)
        assert float(layer(2.0)[0]) == pytest.approx(4.0)  # √(8a)
        assert float(jax.grad(lambda a: layer(a)[0])(2.0)) == pytest.approx(1.0)  # √(8/a)/2
        assert float(jax.jit(jax.hessian(lambda a: layer(a)[0]))(2.0)) == pytest.approx(-0.25)  # −√8 a^{−3/2}/4
        with pytest.raises(ProgramError, match=r"'a'.*pos"):
            layer(jnp.asarray(-1.0))
        with pytest.raises(jax.errors.JaxRuntimeError, match="'a'"):
            jax.block_until_ready(jax.jit(layer)(jnp.asarray(-1.0)))


def test_the_solver_and_the_closed_form_agree():
    derivatives = []
    for closed_form in ("auto", "never"):
        layer = simplex_layer(closed_form=closed_form)
        assert layer.core.map.path.startswith("closed form") == (closed_form == "auto")

        def loss(t, s, layer=layer):
            return jnp.sin(layer(t, s)[0]).sum()

        f = jax.vmap(lambda t, s, loss=loss: (loss(t, s), jax.grad(loss, 1)(t, s), jax.hessian(loss)(t, s)), (0, None))
        derivatives.append(jax.jit(f)(jnp.asarray(TARGETS), 1.0))
    for ours, theirs in zip(*derivatives, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


class TestHost:
    """What reaches the host, and how often."""

    def test_a_vmapped_layer_is_one_batched_solve(self, monkeypatch):
        layer = simplex_layer()
        shapes = count_solves(layer, monkeypatch)
        nested = jax.vmap(jax.vmap(lambda t, s: layer(t, s)[0], in_axes=(0, None)), in_axes=(None, 0))
        jax.block_until_ready(jax.jit(nested)(jnp.asarray(TARGETS), jnp.ones(2)))
        assert shapes == [(2, 6, 4)]

    def test_derivatives_find_the_solve(self, monkeypatch):
        layer = simplex_layer()
        shapes = count_solves(layer, monkeypatch)
        step = jax.jit(jax.value_and_grad(lambda t: layer(t, 1.0)[0][0]))
        jax.block_until_ready(step(jnp.asarray(TARGETS[0])))
        jax.block_until_ready(jax.jacrev(lambda t: layer(t, 1.0)[0])(jnp.asarray(TARGETS[1])))
        jax.block_until_ready(jax.jit(jax.hessian(lambda t: layer(t, 1.0)[0][0]))(jnp.asarray(TARGETS[2])))
        assert shapes == [(4,)] * 3

    def test_nothing_depends_on_what_is_kept(self, monkeypatch):
        layer = simplex_layer()
        f = jax.jit(jax.hessian(lambda t: jnp.sin(layer(t, 1.0)[0]).sum()))
        kept = f(jnp.asarray(TARGETS))
        monkeypatch.setattr(solve_cache, "KEPT_NUMBERS", 0)
        monkeypatch.setattr(solve_cache, "KEPT_LEAST", 0)
        layer._host._kept.clear()
        layer._host._held = 0
        shapes = count_solves(layer, monkeypatch)
        np.testing.assert_allclose(f(jnp.asarray(TARGETS)), kept, atol=1e-12)
        assert len(shapes) > 1 and not layer._host._kept and layer._host._held == 0

    def test_what_is_kept_is_bounded(self, monkeypatch):
        layer = simplex_layer()
        monkeypatch.setattr(solve_cache, "KEPT_NUMBERS", 7 * layer._host._numbers)
        for i in range(20):
            layer(jnp.asarray(TARGETS[0]) + i, 1.0)
        assert len(layer._host._kept) == 7 and layer._host._held == 7 * layer._host._numbers

    def test_threads(self):
        layer = simplex_layer()
        step = jax.jit(jax.grad(lambda t: layer(t, 1.0)[0][0]))
        rows = [jnp.asarray(np.random.default_rng(seed).standard_normal(3)) for seed in range(40)]

        def run(row):
            with jax.enable_x64(True):
                return np.asarray(step(row))

        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(run, rows * 3))
        np.testing.assert_array_equal(together, [run(row) for row in rows] * 3)

    def test_large_parameters_do_not_wait_for_themselves(self):
        x, A = cp.Variable(3), cp.Parameter((20000, 3), name="A")
        layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x) + cp.sum(A @ x))), [A], [x])
        value = jnp.ones((20000, 3))
        x, gradient = jax.jit(lambda A: (layer(2 * A)[0], jax.grad(lambda A: layer(A)[0].sum())(2 * A)))(value)
        np.testing.assert_allclose(x, -20000.0, rtol=1e-9)
        np.testing.assert_allclose(gradient, -0.5, rtol=1e-9)


def test_copies_and_layers_as_arguments():
    layer, target = simplex_layer(), jnp.asarray(TARGETS[0])
    expected = layer(target, 1.0)[0]
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_allclose(twin(target, 1.0)[0], expected, atol=1e-12)
        np.testing.assert_allclose(jax.jit(lambda layer, t: layer(t, 1.0)[0])(twin, target), expected, atol=1e-12)
    assert jax.tree.leaves({"layer": layer}) == []


def test_no_parameters_and_empty_batches():
    x = cp.Variable(2)
    (value,) = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - 1))), [], [x])()
    np.testing.assert_allclose(value, 1.0, atol=1e-9)
    layer = simplex_layer()
    empty = jnp.zeros((0, 3))
    assert layer(empty, 1.0)[0].shape == jax.vmap(lambda t: layer(t, 1.0)[0])(empty).shape == (0, 3)
    assert jax.jit(jax.grad(lambda t: layer(t, 1.0)[0].sum()))(empty).shape == (0, 3)
    assert jax.jit(jax.vmap(jax.hessian(lambda t: layer(t, 1.0)[0].sum())))(empty).shape == (0, 3, 3)


def test_report():
    layer = simplex_layer()
    assert layer.last_report is None
    layer(jnp.asarray(TARGETS), 1.0)
    assert layer.last_report.instances == 6 and layer.last_report.failed == 0
    report = layer.diagnose(jnp.asarray(TARGETS[0]), 1.0)
    assert report.ok
