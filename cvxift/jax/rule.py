"""The one primitive: the solution map's derivative of any order in given directions, or its transpose.

    forward(θ; θ̇₁ … θ̇ₖ)       = Dᵏz(θ)[θ̇₁, …, θ̇ₖ]                    k = 0 is the solution itself
    adjoint(θ; θ̇₁ … θ̇ₖ₋₁, z̄)  = ∇_θ ⟨z̄, Dᵏ⁻¹z(θ)[θ̇₁, …, θ̇ₖ₋₁]⟩

Both are linear in every operand but θ. They are closed under differentiation, which adds a direction (θ) or replaces
one, and under transposition, which exchanges a direction for a cotangent; so these rules give both modes and every
order. All operands are (*lead, ·) with as many leading axes, which broadcast; `vmap` adds one, of length 1 on operands
that it does not map, so that a batch is one call and what is shared stays shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching

from cvxift.jax.host_call import call_host, lower_to_host, placed_as
from cvxift.layers.solve_cache import Host, Options

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
    return placed_as(form(*operands), operands)


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


def _lowered(*operands: jax.Array, form: Form) -> jax.Array:
    # Where XLA partitions the program, the first device to ask has the whole computed; the others find it.
    return call_host(form, _shape(*(operand.aval for operand in operands), form=form), *operands)


lower_to_host(solution_map, _lowered)
