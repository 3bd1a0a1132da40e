"""A user's script, for type checkers; it also runs."""

# What CVXPY and JAX leave untyped is theirs.
# pyright: strict, reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from typing import assert_type

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import NDArray

import cvxift
from cvxift.jax import CvxpyLayer as JaxLayer
from cvxift.torch import CvxpyLayer

x, t = cp.Variable(2), cp.Parameter(2, value=np.ones(2))
problem = cp.Problem(cp.Minimize(cp.norm(x - t)), [x >= 0])

sensitivity = cvxift.differentiate(problem)
assert_type(cvxift.diagnose(problem), cvxift.Report)
assert_type(cvxift.diagnose(sensitivity), cvxift.Report)
assert_type(sensitivity.value(problem.objective), float)
assert_type(sensitivity.value(x), NDArray[np.float64])

layer = CvxpyLayer(problem, [t], [x])
assert_type(layer(torch.zeros(2)), tuple[torch.Tensor, ...])
assert_type(layer(np.zeros(2), from_dlpack=True), tuple[torch.Tensor, ...])
assert_type(layer.diagnose(torch.zeros(2)), cvxift.Report | cvxift.BatchReport)
assert_type(cvxift.diagnose(layer, torch.zeros(2)), cvxift.Report | cvxift.BatchReport)

assert_type(JaxLayer(problem, [t], [x])(jnp.zeros(2)), tuple[jax.Array, ...])

found = cvxift.sweep(problem, {t: np.zeros((3, 2))}, jacobian=[(x, t)], n_jobs=1)
assert_type(found, cvxift.Sweep)
assert_type(found.value(x), NDArray[np.float64])
assert_type(found.jacobian(x, t), NDArray[np.float64])
assert_type(found.failed[0].reason if found.failed else "", str)
