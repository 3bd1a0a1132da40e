"""NumPy code on the host as a part of JAX programs: compiled ones hand it views of the operands.

`jax.pure_callback` would first make JAX arrays of the operands. That costs more than a small solve, and it waits for
ever where every thread of the device runs a callback, since a copy into a JAX array needs such a thread, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import NamedSharding, PartitionSpec

host_call = Primitive("cvxift_host_call")


def call_host(function: Callable[..., np.ndarray], aval: ShapedArray, *operands: jax.Array) -> jax.Array:
    """The function of NumPy arrays, as part of a compiled program.

    Doubles come back as pairs of words: the thread of a callback may not know that 64-bit types are enabled.

    Args:
        function: takes the operands as read-only NumPy arrays and returns one array; it must not call JAX.
        aval: shape and dtype of the result.
        *operands: arrays.
    """
    words = host_call.bind(*operands, function=function, aval=_in_words(aval))
    return jax.lax.bitcast_convert_type(words, np.float64) if aval.dtype == np.float64 else words


def lower_to_host(primitive: Primitive, traced: Callable[..., jax.Array]) -> None:
    """Compile a primitive as a function that uses `call_host`.

    Args:
        primitive: with one result.
        traced: takes its operands and parameters.
    """
    mlir.register_lowering(primitive, mlir.lower_fun(traced, multiple_results=False), **_cacheable)


def placed_as(out: np.ndarray, operands: Sequence[Any]) -> jax.Array:
    """A result of the host where the operands lie; shards of their leading axes hold for the result if it has them."""
    placed = [operand for operand in operands if getattr(operand, "committed", False)]
    if not placed:
        return jnp.asarray(out)
    sharding = placed[0].sharding
    if len(sharding.device_set) > 1:
        same = isinstance(sharding, NamedSharding) and len(sharding.spec) < out.ndim
        if not (same and placed[0].shape[:-1] == out.shape[:-1]):  # every device has it all
            sharding = NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None
    return jax.device_put(out, sharding)


def _in_words(aval: ShapedArray) -> ShapedArray:
    return aval.update(shape=(*aval.shape, 2), dtype=np.dtype(np.uint32)) if aval.dtype == np.float64 else aval


@host_call.def_abstract_eval
def _result(*operands: ShapedArray, function: Callable[..., np.ndarray], aval: ShapedArray) -> ShapedArray:
    return aval


def _call(ctx: Any, *operands: Any, function: Callable[..., np.ndarray], aval: ShapedArray) -> Any:
    """The call bears no sharding.

    Under `shard_map` each device has its share computed; where XLA partitions the program, operands are gathered and
    every device asks for the whole.
    """

    def words(*arrays: np.ndarray) -> tuple[np.ndarray]:
        out = function(*arrays)
        return (out.view(np.uint32).reshape(*out.shape, 2) if out.dtype == np.float64 else out,)

    results, _, _ = mlir.emit_python_callback(
        ctx, words, None, list(operands), ctx.avals_in, ctx.avals_out, has_side_effect=False
    )
    return results


# A callback is numbered within its module, so that one lowering must not serve two; older versions cache none.
_cacheable: dict[str, Any] = (
    {"cacheable": False} if "cacheable" in inspect.signature(mlir.register_lowering).parameters else {}
)
mlir.register_lowering(host_call, _call, **_cacheable)
