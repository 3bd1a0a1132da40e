"""What the JAX layer takes and refuses: dtypes, shapes, values, and instances that cannot be solved."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

jnp = pytest.importorskip("jax.numpy")
import jax  # noqa: E402
from jax_layers import qp_layer, qp_values, simplex_layer  # noqa: E402

from cvxift import ApplicabilityError, ApplicabilityWarning, ProgramError, SolveError  # noqa: E402
from cvxift.jax import CvxpyLayer  # noqa: E402

TARGET = np.array([0.5, 0.4, -1.0])


class TestTypes:
    """The outputs' dtype is the inputs'; the arithmetic is in double precision all the same."""

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
    def test_narrow_types_are_solved_in_double_precision(self, dtype):
        layer, narrow = qp_layer(), [jnp.asarray(value, dtype=dtype) for value in qp_values()]

        def loss(*v):
            return layer(*v)[0].sum()

        gradient = jax.jit(jax.grad(loss, argnums=(0, 3)))
        x, gradients = layer(*narrow)[0], gradient(*narrow)
        assert x.dtype == gradients[0].dtype == gradients[1].dtype == dtype
        with jax.enable_x64(True):
            wide = [jnp.asarray(np.asarray(value, dtype=np.float64)) for value in narrow]
            x64, gradients64 = layer(*wide)[0], gradient(*wide)
            assert x64.dtype == np.float64
        assert np.array_equal(x, np.asarray(x64).astype(x.dtype))
        for ours, theirs in zip(gradients, gradients64, strict=True):  # rounded once, not computed in the narrow type
            assert np.array_equal(ours, np.asarray(theirs).astype(ours.dtype))

    def test_no_global_setting_changes(self):
        before = {name: getattr(jax.config, name) for name in ("jax_enable_x64", "jax_disable_jit", "jax_debug_nans")}
        layer = simplex_layer()
        jax.block_until_ready(jax.jit(jax.hessian(lambda t: layer(t, 1.0)[0][0]))(jnp.asarray(TARGET)))
        assert before == {name: getattr(jax.config, name) for name in before}
        assert layer(jnp.asarray(TARGET), 1.0)[0].dtype == jnp.float32

    def test_numbers_and_weak_types_follow_the_others(self):
        layer, weak = simplex_layer(), jnp.asarray(1.0)
        with jax.enable_x64(True):
            for total in (1, 1.0, weak, jnp.asarray(1.0), np.float32(1.0), np.ones((), np.float32)):
                for f in (layer, jax.jit(layer), jax.vmap(layer, in_axes=(0, None))):
                    target = jnp.asarray(TARGET, dtype=jnp.float32)
                    (x,) = f(target[None] if f not in (layer,) else target, total)
                    assert x.dtype == jnp.float32, type(total)
        (x,) = layer(TARGET, 1)  # NumPy's float64 without 64-bit types
        assert x.dtype == jnp.float32
        assert jax.grad(lambda s: layer(TARGET, s)[0][0])(1.0).dtype == jnp.float32

    def test_float32_values_may_be_symmetric_to_single_precision(self):
        S, X = cp.Parameter((3, 3), symmetric=True), cp.Variable((3, 3), symmetric=True)
        layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - S)), [X >> 0]), [S], [X])
        root = jnp.asarray(np.random.default_rng(1).standard_normal((3, 3)), dtype=jnp.float32)
        values, vectors = np.linalg.eigh(np.asarray(root + root.T, dtype=float))
        closed = vectors @ np.diag(values.clip(min=0)) @ vectors.T
        np.testing.assert_allclose(jax.jit(layer)(root + root.T)[0], closed, atol=1e-5)


class TestRefused:
    """With the parameter's name and the remedy, before anything is solved where the values are at hand."""

    layer = simplex_layer()

    def refused(self, message, *args, call=None, **options):
        with pytest.raises(ProgramError, match=message):
            (call or self.layer)(*args, **options)

    def test_count_and_shapes(self):
        self.refused("got 1, expected 2", jnp.ones(3))
        self.refused(r"'target' has shape \(4,\); expected \(3,\)", jnp.ones(4), 1.0)
        self.refused("do not broadcast.*'target' \\(2,\\), 'total' \\(5,\\)", jnp.ones((2, 3)), jnp.ones(5))
        matrices = [jnp.asarray(value, dtype=jnp.float32) for value in qp_values()]
        matrices[2] = matrices[2].T
        self.refused(r"'G' has shape \(4, 3\); expected \(3, 4\).*Transpose", *matrices, call=qp_layer())

    @pytest.mark.parametrize("wrap", [jax.jit, lambda f: f])
    def test_rank_under_vmap(self, wrap):
        mapped = wrap(jax.vmap(lambda t, s: self.layer(t, s)))
        self.refused(r"'target' has shape \(\).*Inside jax.vmap.*in_axes", jnp.ones(3), jnp.ones(3), call=mapped)

    def test_types(self):
        self.refused("'target' has dtype int32.*astype", jnp.arange(3), 1.0)
        self.refused("'target' has dtype complex64", jnp.ones(3, dtype=jnp.complex64), 1.0)
        self.refused("'total' has dtype bool", jnp.ones(3), jnp.asarray(True))
        self.refused("'total' is a bool", jnp.ones(3), True)
        self.refused("'target' is a list.*jnp.asarray", [1.0, 2.0, 3.0], 1.0)
        self.refused("'target' has dtype int32", jnp.arange(3), 1.0, call=jax.jit(self.layer))
        with jax.enable_x64(True):
            narrow = jnp.ones(3, dtype=jnp.float32)
            self.refused("'total' is float64, but 'target' is float32.*astype", narrow, jnp.ones(()) * np.float64(1))
            self.refused(
                "'total' is float64, but 'target'", narrow, np.float64(1) * np.ones(()), call=jax.jit(self.layer)
            )

    def test_tensors_of_another_framework(self):
        torch = pytest.importorskip("torch")
        self.refused("'target' is a torch.Tensor.*from_dlpack", torch.ones(3), 1.0)

    def test_traced_where_a_static_value_is_needed(self):
        call = jax.jit(lambda e: self.layer(jnp.ones(3), 1.0, solver_args={"eps_abs": e}))
        self.refused(r"solver_args\['eps_abs'\] is a traced value.*static_argnames", 1e-8, call=call)
        call = jax.jit(lambda w: self.layer(jnp.ones(3), 1.0, warm_start=w))
        self.refused("warm_start is a traced value", True, call=call)
        self.refused("mu is a traced value", 1e-3, call=jax.jit(lambda mu: simplex_layer(singular="smooth", mu=mu)))
        self.refused("'target' is traced.*diagnose outside", jnp.ones(3), 1.0, call=jax.jit(self.layer.diagnose))

    def test_options(self):
        self.refused("no_such_option", jnp.ones(3), 1.0, solver_args={"no_such_option": 1})
        for arguments in ({"singular": "ignore"}, {"on_failure": "zero"}, {"check": "loud"}, {"solver": "NOSUCH"}):
            with pytest.raises(ProgramError):
                simplex_layer(**arguments)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_values_that_are_not_finite(self, value):
        bad = jnp.asarray(TARGET).at[2].set(value)
        self.refused("'target' has the value (nan|inf) at entry \\(2,\\)", bad, 1.0)
        self.refused("'target'", bad, 1.0, call=jax.grad(lambda t, s: self.layer(t, s)[0][0]))
        with pytest.raises(jax.errors.JaxRuntimeError, match="'target' has the value"):
            jax.block_until_ready(jax.jit(self.layer)(bad, 1.0))

    def test_values_against_attributes_in_a_batch(self):
        totals = jnp.ones(4).at[3].set(-1.0)
        self.refused(r"'total' is declared nonneg=True.*\(3,\)", jnp.ones((4, 3)), totals, call=jax.vmap(self.layer))
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"'total' is declared nonneg=True.*\(3,\)"):
            jax.block_until_ready(jax.jit(jax.vmap(self.layer))(jnp.ones((4, 3)), totals))


class TestFailures:
    """One bad instance costs no other; the policy holds under every transformation."""

    def layer(self, **options):
        x, c, lower = cp.Variable(2), cp.Parameter(2, name="c"), cp.Parameter(name="lower")
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.sum(x) <= 1, cp.sum(x) >= lower])
        return CvxpyLayer(problem, [c, lower], [x], check="off", **options)

    values = np.zeros((3, 2), np.float32), np.array([0.1, 2.0, 0.5], np.float32)  # the second is infeasible

    @pytest.mark.parametrize("wrap", [lambda f: f, jax.vmap])
    def test_raises_after_the_batch_and_carries_the_rest(self, wrap):
        with pytest.raises(SolveError, match=r"\(1,\).*infeasible") as caught:
            wrap(self.layer())(*self.values)
        assert list(caught.value.failures) == [(1,)]
        np.testing.assert_allclose(caught.value.solutions[[0, 2]], [[0.05, 0.05], [0.25, 0.25]], atol=1e-7)

    @pytest.mark.parametrize("wrap", [jax.jit, lambda f: jax.jit(jax.vmap(f)), lambda f: jax.vmap(jax.jit(f))])
    def test_raises_with_the_row_under_jit(self, wrap):
        with pytest.raises((jax.errors.JaxRuntimeError, SolveError), match=r"Instance \(1,\) of the batch.*infeasible"):
            jax.block_until_ready(wrap(self.layer())(*self.values))

    @pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
    def test_nan_and_zero_gradients_on_request(self, wrap):
        layer = self.layer(on_failure="nan")

        def gradient(c, lower):
            return jax.grad(lambda c, lower: layer(c, lower)[0].sum(), argnums=(0, 1))(c, lower)

        with pytest.warns(ApplicabilityWarning, match="infeasible"):
            (x,) = jax.block_until_ready(wrap(jax.vmap(layer))(*self.values))
        assert np.isnan(x[1]).all() and np.isfinite(x[jnp.array([0, 2])]).all()
        c_bar, lower_bar = wrap(jax.vmap(gradient))(*self.values)
        np.testing.assert_allclose(lower_bar, [1.0, 0.0, 1.0], atol=1e-6)
        np.testing.assert_allclose(c_bar, 0.0, atol=1e-6)
        hessian = jax.jit(jax.vmap(jax.hessian(lambda c, lower: (layer(c, lower)[0] ** 2).sum(), 1)))(*self.values)
        np.testing.assert_allclose(hessian, [1.0, 0.0, 1.0], atol=1e-6)  # of lower²/2

    def test_later_calls_are_not_marked_by_a_failure(self):
        layer = self.layer()
        good = (self.values[0][0], self.values[1][0])
        step = jax.jit(layer)
        for _ in range(2):
            with pytest.raises(jax.errors.JaxRuntimeError, match="infeasible"):
                jax.block_until_ready(step(self.values[0][1], self.values[1][1]))
            np.testing.assert_allclose(step(*good)[0], 0.05, atol=1e-7)

    def test_kinks_are_told_as_the_layer_was_asked_to(self):
        kink = jnp.array([1.0, 0.0, -1.0])  # x₂ = 0 with a vanishing multiplier
        with pytest.warns(ApplicabilityWarning, match="kink"):
            jax.block_until_ready(jax.jit(simplex_layer())(kink, 1.0))
        with pytest.raises(ApplicabilityError, match="kink"):
            simplex_layer(check="raise")(kink, 1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            simplex_layer(check="off")(kink, 1.0)

    def test_singular_systems_under_raise(self):
        x, c = cp.Variable(2), cp.Parameter(2, name="c")
        flat = cp.Problem(cp.Minimize(cp.square(x[0] - c[0]) + 0 * c[1]), [x[1] <= 1, x[1] >= -1])
        layer = CvxpyLayer(flat, [c], [x], singular="raise", check="off")
        with pytest.raises(ApplicabilityError, match="singular"):
            jax.grad(lambda c: layer(c)[0][1])(jnp.array([0.3, 0.0]))
