"""What the JAX layer takes and refuses: dtypes, shapes, values, and instances that cannot be solved."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

jnp = pytest.importorskip("jax.numpy")
import jax  # noqa: E402
from jax_layers import qp_layer, qp_values, simplex_layer  # noqa: E402

from cvxift import ApplicabilityError, ApplicabilityWarning, ProgramError  # noqa: E402
from cvxift.jax import CvxpyLayer  # noqa: E402
from tests.layer_problems import failing  # noqa: E402

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

    def test_types(self):
        self.refused("'total' has dtype bool", jnp.ones(3), jnp.asarray(True))
        self.refused("'total' is a bool", jnp.ones(3), True)
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


class TestTold:
    """What a layer says where it cannot go on, and that the next call knows nothing of it."""

    def test_later_calls_are_not_marked_by_a_failure(self):
        step = jax.jit(CvxpyLayer(*failing(), check="off"))
        for _ in range(2):
            with pytest.raises(jax.errors.JaxRuntimeError, match="infeasible"):
                jax.block_until_ready(step(np.zeros(2), 2.0))
            np.testing.assert_allclose(step(np.zeros(2), 0.1)[0], 0.05, atol=1e-7)

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
