"""A user's script, for type checkers; it also runs."""

# What CVXPY and JAX leave untyped is theirs.
# pyright: strict, reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from typing import Any, assert_type

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import NDArray

import cvxift
import cvxift.jax as cj
import cvxift.torch as ct
from cvxift import argmax, atoms
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

scores, array = torch.rand(4, 4), jnp.ones((4, 4))
assert_type(ct.softmax(scores), torch.Tensor)
assert_type(ct.sparsemax(scores, dim=0), torch.Tensor)
assert_type(ct.entmax(scores, alpha=1.5), torch.Tensor)
assert_type(ct.constrained_softmax(scores, 0.5), torch.Tensor)
assert_type(ct.constrained_sparsemax(scores, 0.5), torch.Tensor)
assert_type(ct.box(scores), torch.Tensor)
assert_type(ct.budget(scores, 2.0), torch.Tensor)
assert_type(ct.soft_rank(scores), torch.Tensor)
assert_type(ct.soft_sort(scores, regularizer="entropic"), torch.Tensor)
assert_type(ct.rank_loss(scores, torch.arange(1.0, 5.0).expand(4, 4)), torch.Tensor)
assert_type(ct.birkhoff(scores), torch.Tensor)
assert_type(ct.transport(scores), torch.Tensor)
assert_type(ct.fenchel_young_loss(scores, ct.softmax(scores)), torch.Tensor)
assert_type(ct.viterbi(scores, scores), tuple[torch.Tensor, torch.Tensor])
assert_type(cj.softmax(array), jax.Array)
assert_type(cj.sparsemax(array, axis=0), jax.Array)
assert_type(cj.entmax(array, alpha=1.5), jax.Array)
assert_type(cj.budget(array, 2.0), jax.Array)
assert_type(cj.soft_rank(array), jax.Array)
assert_type(cj.transport(array), jax.Array)
assert_type(cj.fenchel_young_loss(array, cj.softmax(array)), jax.Array)
assert_type(cj.viterbi(array, array), tuple[jax.Array, jax.Array])


def square(z: Any, s: Any) -> Any:
    """Zero at the square root of s."""
    return z**2 - s


def newton(z: Any, s: Any) -> Any:
    """A step towards it."""
    return (z + s / z) / 2


def energy(z: Any, s: Any) -> Any:
    """Least there."""
    return ((z**2 - s) ** 2).sum()


def torch_root(s: torch.Tensor) -> torch.Tensor:
    """A solver; the implicit function has its type."""
    return s.sqrt()


@cj.implicit_root(square)
def jax_root(s: jax.Array) -> jax.Array:
    """Likewise."""
    return jnp.sqrt(s)


assert_type(ct.implicit_root(square, torch_root, check="off")(scores), torch.Tensor)
assert_type(ct.implicit_root(square)(torch_root)(scores), torch.Tensor)
assert_type(ct.implicit_fixed_point(newton, torch_root)(scores), torch.Tensor)
assert_type(ct.implicit_argmin(energy, torch_root)(scores), torch.Tensor)
assert_type(ct.implicit_root(square, torch_root).diagnose(scores[0]), cvxift.Report | cvxift.BatchReport)
assert_type(jax_root(array), jax.Array)

for maps in (argmax.softmax(4), argmax.sparsemax(4), argmax.birkhoff(3), argmax.permutahedron(3)):
    assert_type(maps, cp.Problem)
    assert_type(argmax.parameter(maps), cp.Parameter)
    assert_type(argmax.variable(maps), cp.Variable)
entropy: cp.Expression = atoms.neg_entropy(x) + atoms.tsallis_neg_entropy(x, 1.5)

assert_type(sensitivity.jvp({t: np.ones(2)})[x], Any)
assert_type(sensitivity.vjp({x: np.ones(2)})[t], NDArray[Any])
assert_type(sensitivity.jacobian(x, t), NDArray[Any])
assert_type(sensitivity.report.verdict, cvxift.Verdict)
assert_type(str(layer.last_report), str)
