"""A layer under JAX's `shard_map` over two processes, as over the hosts of a cluster.

Each process holds one device and solves the instances of its own shard; `psum` adds up the gradients. Both end with the
gradient that one process finds on the whole batch.

    python examples/shard_map.py
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

ITEMS, BATCH, PROCESSES = 5, 16, 2


def total_and_gradient(batch: np.ndarray, mesh: Mesh | None) -> tuple[float, np.ndarray]:
    """Σ_i ‖x(scale · cost_i)‖² and its gradient with respect to the common scale, shape (ITEMS,)."""
    from cvxift.jax import CvxpyLayer

    cost, share = cp.Parameter(ITEMS, name="cost"), cp.Variable(ITEMS, name="share")
    objective = cp.Minimize(cost @ share + 0.5 * cp.sum_squares(share))
    problem = cp.Problem(objective, [cp.sum(share) == 1, share >= 0, share <= 0.6])
    layer = CvxpyLayer(problem, parameters=[cost], variables=[share], closed_form="never")

    def mine(scale: jax.Array, costs: jax.Array) -> tuple[jax.Array, jax.Array]:
        def total(scale: jax.Array) -> jax.Array:
            (share,) = layer(scale * costs)
            return jnp.sum(share**2)

        value, gradient = jax.value_and_grad(total)(scale)
        return (value, gradient) if mesh is None else jax.lax.psum((value, gradient), "hosts")

    scale = jnp.ones(ITEMS)
    if mesh is None:
        value, gradient = jax.jit(mine)(scale, jnp.asarray(batch))
    else:
        # Each process gives the rows of its own shard; none sees the whole batch.
        sharding = NamedSharding(mesh, P("hosts"))
        costs = jax.make_array_from_callback(batch.shape, sharding, lambda rows: batch[rows])
        # The layer's results are of this shard alone, which JAX cannot see: check_vma=False.
        sharded = jax.shard_map(mine, mesh=mesh, in_specs=(P(), P("hosts")), out_specs=P(), check_vma=False)
        value, gradient = jax.jit(sharded)(scale, costs)
    return float(value), np.asarray(gradient)


def worker(rank: int, port: int) -> None:
    """One process of the cluster."""
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=PROCESSES, process_id=rank)
    batch = np.random.default_rng(0).normal(size=(BATCH, ITEMS)).astype(np.float32)
    value, gradient = total_and_gradient(batch, Mesh(np.array(jax.devices()), ("hosts",)))
    whole, expected = total_and_gradient(batch, None)
    difference = max(abs(value - whole), float(np.abs(gradient - expected).max()))
    print(
        f"process {rank} of {jax.process_count()}, {len(jax.local_devices())} of {len(jax.devices())} devices: "
        f"total {value:.4f}, difference from one process {difference:.1e}",
        flush=True,
    )


def main() -> None:
    """Start the processes, as a cluster's launcher would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    command = [sys.executable, __file__, "--port", str(port), "--rank"]
    running = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(PROCESSES)]
    sys.exit(max(process.wait() for process in running))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int)
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    main() if options.rank is None else worker(options.rank, options.port)
