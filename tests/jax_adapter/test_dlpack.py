"""Other libraries' arrays in a JAX layer."""

from __future__ import annotations

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from cvxift.errors import ProgramError
from cvxift.jax import CvxpyLayer


def layer() -> CvxpyLayer:
    """The projection of t onto {x ≥ 0, Σx = total}."""
    x, t, total = cp.Variable(4), cp.Parameter(4, name="t"), cp.Parameter(name="total")
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0, cp.sum(x) == total]), [t, total], [x])


def test_tensors_are_taken_when_asked(rng: np.random.Generator) -> None:
    solve, values = layer(), rng.standard_normal((3, 4)).astype(np.float32)
    (expected,) = solve(jnp.asarray(values), 1.0)
    (got,) = solve(torch.from_numpy(values), 1.0, from_dlpack=True)
    assert isinstance(got, jax.Array)
    np.testing.assert_array_equal(got, expected)
    (mixed,) = solve(values, torch.tensor(1.0), from_dlpack=True)
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-6)


def test_otherwise_the_error_names_the_parameter_and_the_way(rng: np.random.Generator) -> None:
    solve = layer()
    with pytest.raises(ProgramError, match=r"Parameter 't' is a torch\.Tensor; expected .* Pass from_dlpack=True"):
        solve(torch.zeros(4), 1.0)
    with pytest.raises(ProgramError, match="Parameter 't' is a list"):
        solve([0.0] * 4, 1.0, from_dlpack=True)
    with pytest.raises(ProgramError, match=r"Parameter .t. .Tensor. could not be taken over by DLPack"):
        solve(torch.zeros(4, requires_grad=True), 1.0, from_dlpack=True)
