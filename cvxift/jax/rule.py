"""The one primitive: the solution map's derivative of any order in given directions, or its transpose.

    forward(θ; θ̇₁ … θ̇ₖ)       = Dᵏz(θ)[θ̇₁, …, θ̇ₖ]                    k = 0 is the solution itself
    adjoint(θ; θ̇₁ … θ̇ₖ₋₁, z̄)  = ∇_θ ⟨z̄, Dᵏ⁻¹z(θ)[θ̇₁, …, θ̇ₖ₋₁]⟩

Both are linear in every operand but θ. They are closed under differentiation, which adds a direction (θ) or replaces
one, and under transposition, which exchanges a direction for a cotangent; so these rules give both modes and every
order. All operands are (*lead, ·) with as many leading axes, which broadcast; `vmap` adds one, of length 1 on operands
that it does not map, so that a batch is one call and what is shared stays shared.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

from cvxift.host import Host, Options

solution_map = Primitive("cvxift_solution_map")


@dataclass(frozen=True)
class Form:
    """Which function of θ and its directions: the primitive's only parameter.

    Attributes:
        host: what computes it.
        options: of the call.
        adjoint: whether it is the adjoint form, whose last operand is z̄.
    """

    host: Host
    options: Options
    adjoint: bool = False

    def __call__(self, theta: Any, *directions: Any) -> np.ndarray:
        """Compute on the host; arrays in, array out, in θ's dtype."""
        arrays = [np.asarray(direction) for direction in directions]
        theta = np.asarray(theta)
        if not arrays:
            out = self.host.solution(theta, self.options)
        else:
            tangents, bar = (arrays[:-1], arrays[-1]) if self.adjoint else (arrays, None)
            out = self.host.derivative(theta, tangents, bar, self.options)
        return np.ascontiguousarray(out, dtype=theta.dtype)

    def width(self) -> int:
        """Length of the result's last axis."""
        mapping = self.host.core.map
        return mapping.theta_size if self.adjoint else mapping.output_size


def solve(theta: jax.Array, host: Host, options: Options) -> jax.Array:
    """The outputs side by side, shape (*lead, K), at θ (*lead, N)."""
    return solution_map.bind(theta, form=Form(host, options))


@solution_map.def_impl
def _compute(*operands: Any, form: Form) -> jax.Array:
    """Without tracing: straight to the host, so that errors arrive as they were raised."""
    out = form(*operands)
    placed = [operand for operand in operands if getattr(operand, "committed", False)]
    if not placed:
        return jnp.asarray(out)
    sharding = placed[0].sharding
    if len(sharding.device_set) > 1:
        # Shards of the leading axes hold for the result if its leading axes are the same; else every device has it all.
        same = isinstance(sharding, NamedSharding) and len(sharding.spec) < out.ndim
        if not (same and placed[0].shape[:-1] == out.shape[:-1]):
            sharding = NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None
    return jax.device_put(out, sharding)


@solution_map.def_abstract_eval
def _shape(theta: ShapedArray, *directions: ShapedArray, form: Form) -> ShapedArray:
    lead = np.broadcast_shapes(theta.shape[:-1], *(direction.shape[:-1] for direction in directions))
    return theta.update(shape=(*lead, form.width()), weak_type=False)


def _differentiate(operands: Sequence[Any], dots: Sequence[Any], *, form: Form) -> tuple[Any, Any]:
    out = solution_map.bind(*operands, form=form)
    theta, *directions = operands
    terms = []
    if not isinstance(dots[0], ad.Zero):
        form.host.check_order(len(operands))
        cut = len(directions) - form.adjoint
        terms.append((theta, *directions[:cut], dots[0], *directions[cut:]))
    for position in range(1, len(operands)):
        if not isinstance(dots[position], ad.Zero):
            terms.append((*operands[:position], dots[position], *operands[position + 1 :]))
    first, *others = (solution_map.bind(*term, form=form) for term in terms)  # JAX asks only where something moves
    return out, sum(others, first)


ad.primitive_jvps[solution_map] = _differentiate


def _transpose(cotangent: Any, *operands: Any, form: Form) -> list[Any]:
    (position,) = (i for i, operand in enumerate(operands) if ad.is_undefined_primal(operand))
    aval = operands[position].aval
    if isinstance(cotangent, ad.Zero):
        result = ad.Zero(aval)
    else:
        before, after = operands[:position], operands[position + 1 :]
        if not form.adjoint:  # ⟨z̄, Dᵏz[… θ̇ …]⟩ as a function of θ̇
            flipped = (*before, *after, cotangent), Form(form.host, form.options, adjoint=True)
        elif position == len(operands) - 1:  # in z̄: the forward form along θ̄'s own space
            flipped = (*before, cotangent), Form(form.host, form.options, adjoint=False)
        else:  # in θ̇: symmetric to the gradient
            flipped = (*before, cotangent, *after), form
        result = solution_map.bind(*flipped[0], form=flipped[1])
        shared = tuple(axis for axis, length in enumerate(aval.shape[:-1]) if length != result.shape[axis])
        if shared:
            result = result.sum(axis=shared, keepdims=True)
    return [result if i == position else None for i in range(len(operands))]


ad.primitive_transposes[solution_map] = _transpose


def _vectorize(operands: Sequence[Any], axes: Sequence[Any], *, form: Form) -> tuple[Any, int]:
    moved = [
        jnp.expand_dims(operand, 0) if axis is None else jnp.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True)
    ]
    return solution_map.bind(*moved, form=form), 0


batching.primitive_batchers[solution_map] = _vectorize


host_call = Primitive("cvxift_host_call")


@host_call.def_abstract_eval
def _words_shape(theta: ShapedArray, *directions: ShapedArray, form: Form) -> ShapedArray:
    out = _shape(theta, *directions, form=form)
    return out.update(shape=(*out.shape, 2), dtype=np.dtype(np.uint32)) if out.dtype == np.float64 else out


def _call(ctx: Any, *operands: Any, form: Form) -> Any:
    """A call of the host with NumPy views of the operands.

    `jax.pure_callback` would first make JAX arrays of them, which costs more than a small solve, and waits for ever
    where all threads of a device run callbacks. The call bears no sharding: under `shard_map` each device has its share
    computed; where XLA partitions the program, operands are gathered and every device asks for the whole, which the
    first to ask computes and the others find.
    """

    def words(*arrays: np.ndarray) -> tuple[np.ndarray]:
        out = form(*arrays)
        return (out.view(np.uint32).reshape(*out.shape, 2) if out.dtype == np.float64 else out,)

    results, _, _ = mlir.emit_python_callback(
        ctx, words, None, list(operands), ctx.avals_in, ctx.avals_out, has_side_effect=False
    )
    return results


def _lowered(*operands: jax.Array, form: Form) -> jax.Array:
    """Doubles come back as pairs of words: the thread of a callback may not know that 64-bit types are enabled."""
    words = host_call.bind(*operands, form=form)
    return jax.lax.bitcast_convert_type(words, np.float64) if words.dtype == np.uint32 else words


# A callback is numbered within its module, so that one lowering must not serve two; older versions cache none.
_cacheable: dict[str, Any] = (
    {"cacheable": False} if "cacheable" in inspect.signature(mlir.register_lowering).parameters else {}
)
mlir.register_lowering(host_call, _call, **_cacheable)
mlir.register_lowering(solution_map, mlir.lower_fun(_lowered, multiple_results=False), **_cacheable)
