"""Multipliers and active set of constrained minimizers, found from the point on the host, in compiled programs too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray

from cvxift.implicit.multipliers import recover
from cvxift.implicit.residual import balance, relative_residual, weights
from cvxift.jax.host_call import constant
from cvxift.jax.implicit_function import Conditions
from cvxift.jax.trees import floating

Array = Any


@dataclass(frozen=True, eq=False)
class _Host:
    """What the host must know.

    Attributes:
        conditions: for sizes and names.
        given: whether multipliers are.
    """

    conditions: Conditions
    given: bool


def _recover(*operands: np.ndarray, host: _Host) -> np.ndarray:
    p, m = host.conditions.sizes
    lead, eps = operands[0].shape[:-1], float(np.finfo(operands[0].dtype).eps)
    out = np.empty((*lead, p + 3 * m), operands[0].dtype)
    for index in np.ndindex(*lead):
        g, balanced, rows, slack, given = (operand[index].astype(float) for operand in operands)
        own = given if host.given else None
        out[index] = recover(host.conditions, g, balanced, slack, lambda which, rows=rows: rows[which], own, eps)
    return out


def _result(*operands: ShapedArray, host: _Host) -> ShapedArray:
    p, m = host.conditions.sizes
    return operands[0].update(shape=(*operands[0].shape[:-1], p + 3 * m), weak_type=False)


_on_host = constant("cvxift_implicit_multipliers", _recover, _result)


def multipliers(conditions: Conditions, x: Array, theta: list[Array], given: Array | None) -> tuple[Array, ...]:
    """ν, λ, the mask of active rows and the margins, in x's dtype, without derivatives."""
    n, (p, m) = x.size, conditions.sizes
    along = [weights_of(x), *(weights_of(t) if floating(t) else None for t in theta)]
    slope = jax.grad(conditions.energy)
    g = slope(x, *theta)
    balanced = balance(jnp, slope, x, theta, g, along, n)
    values = conditions.constraints(x, *theta)
    rows = jax.jacrev(conditions.constraints)(x, *theta)
    slack = relative_residual(jnp, conditions.constraints, x, theta, values, along, n, of_bounds=True)
    slack = (jnp.sign(values) * slack)[p:]
    own = jnp.zeros(0, x.dtype) if given is None else given
    parts = [jax.lax.stop_gradient(part) for part in (g, balanced, rows, slack, own)]
    found = _on_host(*parts, host=_Host(conditions, given is not None))
    return tuple(jnp.split(found, (p, p + m, p + 2 * m)))


def weights_of(t: Array) -> Array:
    """`weights` of the entries, in the array's shape."""
    return jnp.asarray(weights(int(np.prod(jnp.shape(t)))), dtype=jnp.result_type(t)).reshape(jnp.shape(t))
