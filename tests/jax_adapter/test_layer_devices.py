"""The JAX layer and soft ranks on two devices of the host, and on one core: what the host computes waits for nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.children import light

pytest.importorskip("jax.numpy")

HERE = Path(__file__).resolve().parent

PROGRAM = """
import contextlib
import jax, jax.numpy as jnp, numpy as np
stack = contextlib.ExitStack()
stack.enter_context(jax.enable_x64(True))  # in this thread, not in those that run callbacks
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from jax_layers import simplex_layer
from cvxift import ProgramError

layer = simplex_layer()
targets, total = jnp.asarray(np.random.default_rng(0).standard_normal((8, 3))), jnp.asarray(1.0)

def loss(t, s):
    return jnp.cos(layer(t, s)[0]).sum()

alone = jax.value_and_grad(loss, argnums=(0, 1))(targets, total)
curved = jax.jit(jax.vmap(jax.hessian(loss), (0, None)))(targets, total)
assert len(jax.devices()) == 2
mesh = Mesh(np.array(jax.devices()), ("batch",))
spread, shared = (jax.device_put(v, NamedSharding(mesh, spec)) for v, spec in ((targets, P("batch")), (total, P())))

def same(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), ours, theirs)

# a batch sharded over both devices, with and without jit
(x,) = layer(spread, shared)
assert x.sharding.is_equivalent_to(spread.sharding, 2), x.sharding
same(x, layer(targets, total)[0])
same(jax.jit(layer)(spread, shared), layer(targets, total))
same(jax.jit(jax.vmap(jax.hessian(loss), (0, None)))(spread, shared), curved)
for transform in (jax.jit, lambda f: f):
    same(transform(jax.value_and_grad(loss, argnums=(0, 1)))(spread, shared), alone)

# every device solves its own share
for checked in (True, False):
    mapped = jax.shard_map(lambda t, s: jax.lax.psum(loss(t, s), "batch"), mesh=mesh, in_specs=(P("batch"), P()),
                           out_specs=P(), check_vma=checked)
    same(jax.jit(jax.value_and_grad(mapped, argnums=(0, 1)))(spread, shared), alone)

hessians = jax.vmap(jax.hessian(loss), (0, None))
each = jax.shard_map(hessians, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P("batch"))
same(jax.jit(each)(spread, shared), curved)
same(mapped(spread, shared), alone[0])

# arrays that lie apart
first, second = (jax.device_put(v, d) for v, d in zip((targets, total), jax.devices()))
assert layer(jax.device_put(targets, jax.devices()[1]), total)[0].devices() == {jax.devices()[1]}
try:
    layer(first, second)
except ProgramError as error:
    assert "'total' is on" in str(error) and "'target' is on" in str(error) and "device_put" in str(error), error
else:
    raise SystemExit("arrays on two devices were taken")

# a large sharded parameter must not wait for the thread that solves
import cvxpy as cp
from cvxift.jax import CvxpyLayer
y, A = cp.Variable(2), cp.Parameter((50000, 2), name="A")
big = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(y) + cp.sum(A @ y))), [A], [y])
rows = jax.device_put(jnp.ones((2, 50000, 2)), NamedSharding(mesh, P("batch")))
same(jax.jit(lambda A: big(2 * A)[0])(rows), np.full((2, 2), -50000.0))
each = jax.jit(jax.shard_map(lambda A: jax.grad(lambda A: big(2 * A)[0].sum())(A), mesh=mesh, in_specs=P("batch"),
                             out_specs=P("batch")))
same(each(rows), np.full((2, 50000, 2), -1.0))

# soft ranks and sorted scores
from cvxift.jax import soft_rank, soft_sort
scores = jnp.asarray(np.random.default_rng(1).standard_normal((8, 5)))
halves = jax.device_put(scores, NamedSharding(mesh, P("batch")))
for function in (soft_rank, soft_sort):
    expected = function(scores)
    apart = jax.device_put(scores, jax.devices()[1])
    assert function(apart).devices() == {jax.devices()[1]}
    each = jax.shard_map(function, mesh=mesh, in_specs=P("batch"), out_specs=P("batch"))
    for found in (function(apart), function(halves), jax.jit(function)(halves), each(halves), jax.jit(each)(halves)):
        same(found, expected)
    assert function(halves).sharding.is_equivalent_to(halves.sharding, 2)
print("done")
"""

# A copy into a JAX array needs a thread of the device, and the one there is runs the callback.
ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, jax.numpy as jnp, numpy as np
import cvxpy as cp
from cvxift.jax import CvxpyLayer, soft_rank

x = jnp.asarray(np.random.default_rng(0).standard_normal((1000, 100)), dtype=jnp.float32)
y, A = cp.Variable(2), cp.Parameter((50000, 2), name="A")
layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(y) + cp.sum(A @ y))), [A], [y])
rank, solve = jax.jit(lambda x: soft_rank(x, 1e-6)), jax.jit(lambda A: layer(2 * A)[0])
found = [f for k in range(10) for f in (rank(x + k), soft_rank(x + k, 1e-6), solve(jnp.ones((50000, 2)) + k))]
# A rank moves by the rounding of a score, of which the largest is below 16, over the temperature; here by 2 at most.
rounding = 16 * np.finfo(np.float32).eps / 1e-6
for k, (compiled, direct, solved) in enumerate(zip(found[::3], found[1::3], found[2::3])):
    np.testing.assert_allclose(compiled, direct, rtol=0, atol=rounding)
    np.testing.assert_allclose(solved, -50000.0 * (1 + k), rtol=1e-6)
print("done")
"""


def run(program: str, **variables: str) -> None:
    environment = {**light(HERE), "JAX_PLATFORMS": "cpu", **variables}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.returncode == 0 and result.stdout.strip() == "done", result.stderr[-3000:]


def test_two_devices_of_the_host():
    run(PROGRAM, XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no way to keep to one core on this platform")
def test_on_one_core_no_call_waits_for_itself():
    run(ONE_CORE)
