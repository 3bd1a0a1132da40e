"""Python numbers and 0-d arrays for scalar parameters, in both frameworks."""

import cvxpy as cp
import numpy as np
import pytest

import cvxift.jax
import cvxift.torch
from cvxift.errors import ProgramError

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

VECTORS = {
    "torch": (cvxift.torch.CvxpyLayer, lambda v, dtype: torch.tensor(v, dtype=getattr(torch, dtype))),
    "jax": (cvxift.jax.CvxpyLayer, lambda v, dtype: jax.numpy.asarray(v, dtype=dtype)),
}


def ridge(make):
    x, t, w = cp.Variable(3), cp.Parameter(3, name="t"), cp.Parameter(name="w", nonneg=True)
    return make(cp.Problem(cp.Minimize(cp.sum_squares(x - t) + w * cp.sum_squares(x)), [x >= -9]), [t, w], [x])


@pytest.mark.parametrize("framework", VECTORS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("one", [3, 3.0, np.float64(3), np.int64(3), np.array(3.0), np.array(3)], ids=repr)
@pytest.mark.parametrize("given", [[1.0, -2.0, 4.0], [[1.0, -2.0, 4.0]] * 2], ids=["single", "batch"])
def test_a_number_is_a_constant_of_the_others_dtype(framework, dtype, one, given):
    make, vector = VECTORS[framework]
    if framework == "jax" and dtype == "float64" and not jax.config.read("jax_enable_x64"):
        pytest.skip("JAX has no float64 here")
    (x,) = ridge(make)(vector(given, dtype), one)
    assert np.allclose(np.asarray(x), np.asarray(given) / 4.0, atol=1e-6)
    assert str(x.dtype).endswith(dtype)


@pytest.mark.parametrize("framework", VECTORS)
@pytest.mark.parametrize(("bad", "message"), [(True, "'w'"), ("3", "'w'"), (1j, "'w'")])
def test_what_is_no_number_is_refused(framework, bad, message):
    make, vector = VECTORS[framework]
    with pytest.raises(ProgramError, match=message):
        ridge(make)(vector([1.0, 2.0, 3.0], "float32"), bad)


@pytest.mark.parametrize("framework", VECTORS)
def test_a_number_for_a_vector_is_refused_by_shape(framework):
    with pytest.raises(ProgramError, match=r"'t' has shape \(\); expected \(3,\)"):
        ridge(VECTORS[framework][0])(1.0, 2.0)


def test_gradients_flow_past_a_number_and_the_layer_compiles():
    layer, t = ridge(cvxift.torch.CvxpyLayer), torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(t, 3.0)[0].sum(), t)
    assert torch.allclose(gradient, torch.full_like(t, 0.25))
    compiled = torch.compile(lambda v: layer(v, 3.0)[0], backend="eager", fullgraph=True)
    assert torch.allclose(compiled(t), t / 4)
