"""NumPy code on the host as a part of JAX programs: compiled ones hand it views of the operands.

`jax.pure_callback` would first make JAX arrays of the operands. That costs more than a small solve, and it waits for
ever where every thread of the device runs a callback, since a copy into a JAX array needs such a thread, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
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


def constant(
    name: str, function: Callable[..., np.ndarray], result: Callable[..., ShapedArray]
) -> Callable[..., jax.Array]:
    """A function of batches that the host computes and no derivative passes through.

    Args:
        name: of the primitive.
        function: takes NumPy arrays with the same leading axes, and keywords; returns an array with these axes.
        result: shape and dtype of what it returns, from those of the arrays, and the keywords.

    Returns:
        The function on JAX arrays, traced or not; keywords are hashable. `jax.vmap` makes one call for all.
    """
    primitive = Primitive(name)

    @primitive.def_impl
    def compute(*operands: Any, **options: Any) -> jax.Array:
        return placed_as(function(*map(np.asarray, operands), **options), operands)

    def vectorize(operands: Sequence[Any], axes: Sequence[Any], **options: Any) -> tuple[jax.Array, int]:
        (length,) = {operand.shape[axis] for operand, axis in zip(operands, axes) if axis is not None}
        rows = [
            jnp.broadcast_to(operand, (length, *operand.shape)) if axis is None else jnp.moveaxis(operand, axis, 0)
            for operand, axis in zip(operands, axes)
        ]
        return primitive.bind(*rows, **options), 0

    def differentiate(primals: Sequence[Any], tangents: Sequence[Any], **options: Any) -> tuple[jax.Array, ad.Zero]:
        found = primitive.bind(*primals, **options)
        return found, ad.Zero(found.aval.to_tangent_aval())

    def lowered(*operands: Any, **options: Any) -> jax.Array:
        aval = result(*(operand.aval for operand in operands), **options)
        return call_host(partial(function, **options), aval, *operands)

    primitive.def_abstract_eval(result)
    batching.primitive_batchers[primitive] = vectorize
    ad.primitive_jvps[primitive] = differentiate
    lower_to_host(primitive, lowered)
    return primitive.bind


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
