"""Which leading dimensions make a batch: cvxpylayers' rule for one, and nothing looser for several."""

import cvxpy as cp
import numpy as np
import pytest

import cvxift.jax
import cvxift.torch
from cvxift.errors import ProgramError

torch = pytest.importorskip("torch")
jnp = pytest.importorskip("jax.numpy")
peer = pytest.importorskip("cvxpylayers.torch")


def lasso():
    x, t, w = cp.Variable(3), cp.Parameter(3, name="t"), cp.Parameter(name="w", nonneg=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - t) + w * cp.norm1(x))), [t, w], [x]


ARRAYS = {"torch": (cvxift.torch.CvxpyLayer, torch.as_tensor), "jax": (cvxift.jax.CvxpyLayer, jnp.asarray)}
REFUSED = [((4, 3), (4, 1)), ((4, 1, 3), (4,)), ((4, 3), (1,)), ((2, 4, 3), (4,)), ((2, 4, 3), (3, 4)), ((4, 3), (5,))]


@pytest.mark.parametrize("framework", ARRAYS)
class TestBatch:
    @pytest.mark.parametrize(("t", "w"), REFUSED)
    def test_leading_dimensions_that_do_not_agree_are_refused(self, framework, t, w):
        make, array = ARRAYS[framework]
        layer = make(*lasso())
        with pytest.raises(ProgramError, match=r"batch dimensions do not broadcast together: 't'.*'w'"):
            layer(array(np.ones(t)), array(np.ones(w)))
        assert "do not broadcast together" in str(layer.diagnose(array(np.ones(t)), array(np.ones(w))))

    def test_the_message_says_how_to_mend_a_linear_layers_output(self, framework):
        make, array = ARRAYS[framework]
        with pytest.raises(ProgramError, match=r"'w' \(4, 1\).*give it the shape \(4,\): \.squeeze\(1\)"):
            make(*lasso())(array(np.ones((4, 3))), array(np.ones((4, 1))))

    @pytest.mark.parametrize(
        ("t", "w", "batch"),
        [((3,), (), ()), ((4, 3), (4,), (4,)), ((4, 3), (), (4,)), ((3,), (4,), (4,)), ((2, 4, 3), (2, 1), (2, 4))],
    )
    def test_shared_parameters_stay_allowed(self, framework, t, w, batch):
        make, array = ARRAYS[framework]
        values = np.random.default_rng(0).normal(size=t), np.random.default_rng(1).random(w)
        (x,) = make(*lasso())(*map(array, values))
        expected = np.sign(values[0]) * np.maximum(np.abs(values[0]) - values[1][..., None] / 2, 0.0)
        assert x.shape == (*batch, 3)
        assert np.allclose(np.asarray(x), expected, atol=1e-6)


@pytest.mark.parametrize(("t", "w"), REFUSED)
def test_the_peer_refuses_the_same(t, w):
    with pytest.raises(ValueError, match=r"Invalid parameter|Inconsistent batch"):
        peer.CvxpyLayer(*lasso())(torch.ones(t), torch.ones(w))
