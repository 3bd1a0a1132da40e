"""The rows of JAX's table: each takes a fresh layer and raises unless the transform gives what it should."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from .transforms import Cell, close, values

jax.config.update("jax_enable_x64", True)
WEIGHTS = jnp.array([1.0, 2.0, 3.0])


def arrays(batch: int | None = None) -> tuple[jax.Array, jax.Array]:
    """A and b."""
    A, b = values(batch)
    return jnp.asarray(A), jnp.asarray(b)


def closed(A: jax.Array, b: jax.Array) -> jax.Array:
    """The solution where x₁ ≥ 1/2 is active: AᵀA x + Cᵀν = Aᵀb, C x = d."""
    C, d = jnp.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], A.dtype), jnp.array([1.0, 0.5], A.dtype)
    lead = A.shape[:-2]
    top = jnp.concatenate([A.mT @ A, jnp.broadcast_to(C.T, (*lead, 3, 2))], -1)
    bottom = jnp.broadcast_to(jnp.concatenate([C, jnp.zeros((2, 2), A.dtype)], -1), (*lead, 2, 5))
    right = jnp.concatenate([(A.mT @ b[..., None])[..., 0], jnp.broadcast_to(d, (*b.shape[:-1], 2))], -1)
    return jnp.linalg.solve(jnp.concatenate([top, bottom], -2), right[..., None])[..., :3, 0]


def loss(layer: Any) -> Any:
    """A smooth function of the solution, by the layer or, for None, by the closed form."""
    solve = closed if layer is None else lambda A, b: layer(A, b)[0]
    return lambda A, b: (WEIGHTS * jnp.sin(solve(A, b))).sum()


def both(transform: Any) -> Cell:
    """The transform of the loss by the layer, against that by the closed form."""
    return lambda layer: close(transform(loss(layer)), transform(loss(None)))


def call(layer: Any) -> None:
    close(layer(*arrays())[0], closed(*arrays()))


def batch(layer: Any) -> None:
    close(layer(*arrays(4))[0], closed(*arrays(4)))
    close(jax.grad(loss(layer), (0, 1))(*arrays(4)), jax.grad(loss(None), (0, 1))(*arrays(4)))


def jitted(layer: Any) -> None:
    close(jax.jit(lambda A, b: layer(A, b)[0])(*arrays()), closed(*arrays()))


def single(layer: Any) -> None:
    A, b = (v.astype(jnp.float32) for v in arrays())
    out = layer(A, b)[0]
    assert out.dtype == jnp.float32, f"{out.dtype} for float32"
    close(out, closed(*arrays()))


def checked(modes: list[str], order: int) -> Cell:
    def cell(layer: Any) -> None:
        check_grads(lambda A, b: layer(A, b)[0], arrays(), order, modes=modes, atol=1e-2, rtol=1e-2, eps=1e-3)

    return cell


def mapped(layer: Any) -> None:
    A, b = arrays(4)
    close(jax.vmap(layer)(A, b)[0], closed(A, b))
    nested = jax.vmap(jax.vmap(lambda A, b: layer(A, b)[0], (None, 0)), (0, None))
    close(nested(A, b), closed(A[:, None], jnp.broadcast_to(b, (4, 4, 5))))


def scan(f: Any) -> Any:
    """The sum of the gradients along a scan whose state goes through the layer."""

    def run(A: jax.Array, b: jax.Array) -> jax.Array:
        def step(state: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
            value = f(A, row + 0.1 * state)
            return value, value

        return jax.lax.scan(step, jnp.zeros(()), b)[1].sum()

    return jax.grad(run, (0, 1))(arrays()[0], arrays(4)[1])


def sharded(layer: Any) -> None:
    devices = jax.devices()
    assert len(devices) == 2, "needs two host devices"
    place = NamedSharding(Mesh(devices, ("batch",)), PartitionSpec("batch"))
    A, b = (jax.device_put(v, place) for v in arrays(4))
    slopes = jax.jit(jax.vmap(jax.grad(loss(layer), (0, 1))))(A, b)
    close(slopes, jax.vmap(jax.grad(loss(None), (0, 1)))(*arrays(4)))


def deepcopied(layer: Any) -> None:
    call(layer)
    call(copy.deepcopy(layer))


def pickled(layer: Any) -> None:
    call(layer)
    call(pickle.loads(pickle.dumps(layer)))


V = tuple(jnp.sin(jnp.arange(1.0, v.size + 1)).reshape(v.shape) for v in arrays())

CELLS: dict[str, Cell] = {
    "a call": call,
    "a batch, and its gradient": batch,
    "float32 in, float32 out": single,
    "`grad`": both(lambda f: jax.grad(f, (0, 1))(*arrays())),
    "`value_and_grad`": both(lambda f: jax.value_and_grad(f, (0, 1))(*arrays())),
    "`check_grads`, reverse": checked(["rev"], 1),
    "`check_grads`, both modes, second order": checked(["fwd", "rev"], 2),
    "`vjp`": both(lambda f: jax.vjp(f, *arrays())[1](jnp.ones(()))),
    "`jvp`": both(lambda f: jax.jvp(f, arrays(), V)[1]),
    "`linearize`": both(lambda f: jax.linearize(f, *arrays())[1](*V)),
    "`jacrev`": both(lambda f: jax.jacrev(f, (0, 1))(*arrays())),
    "`jacfwd`": both(lambda f: jax.jacfwd(f, (0, 1))(*arrays())),
    "`hessian`": both(lambda f: jax.hessian(f, (0, 1))(*arrays())),
    "`grad` of `grad`": both(lambda f: jax.grad(lambda b: jax.grad(f, 1)(arrays()[0], b).sum())(arrays()[1])),
    "`jit`": jitted,
    "`jit` of `grad`": both(lambda f: jax.jit(jax.grad(f, (0, 1)))(*arrays())),
    "`jit` of `hessian`": both(lambda f: jax.jit(jax.hessian(f, 1))(*arrays())),
    "`vmap`, nested with mixed axes": mapped,
    "`vmap` of `grad`": both(lambda f: jax.vmap(jax.grad(f, (0, 1)))(*arrays(4))),
    "`grad` of `vmap`": both(lambda f: jax.grad(lambda A, b: jax.vmap(f)(A, b).sum(), (0, 1))(*arrays(4))),
    "`jit` of `vmap` of `grad`": both(lambda f: jax.jit(jax.vmap(jax.grad(f, (0, 1))))(*arrays(4))),
    "`grad` of `lax.scan`": both(scan),
    "`grad` of `lax.map`": both(
        lambda f: jax.grad(lambda A, b: jax.lax.map(lambda p: f(*p), (A, b)).sum(), (0, 1))(*arrays(4))
    ),
    "`grad` of `checkpoint`": both(lambda f: jax.grad(jax.checkpoint(f), (0, 1))(*arrays())),
    "`jit` over a batch on two devices": sharded,
    "`deepcopy`": deepcopied,
    "`pickle`": pickled,
}
