"""Multipliers and active set of constrained minimizers, found from the point on the host, in compiled programs too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray

from cvxift.implicit.multipliers import NEAR, recover
from cvxift.implicit.residual import relative_residual, tolerance_of, weights
from cvxift.implicit.voice import say, weakly_active
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
    lead = operands[0].shape[:-1]
    out = np.empty((*lead, p + 3 * m), operands[0].dtype)
    for index in np.ndindex(*lead):
        out[index] = _one(host, *(operand[index] for operand in operands))
    return out


def _one(host: _Host, g: np.ndarray, rows: np.ndarray, slack: np.ndarray, given: np.ndarray) -> Any:
    settings, (p, m) = host.conditions.settings, host.conditions.sizes
    tolerance = settings.tolerance or tolerance_of(float(np.finfo(g.dtype).eps))
    candidates = np.arange(m) if host.given else np.flatnonzero(slack >= -NEAR)
    wide = rows.astype(float)
    pair = (given[:p], given[p:]) if host.given else None
    found = recover(g.astype(float), wide[:p], candidates, wide[p + candidates], slack.astype(float), tolerance, pair)
    if found.weak.any() and settings.check != "off":
        names = [host.conditions.entry(len(g) + p + int(i)) for i in np.flatnonzero(found.weak)]
        say(weakly_active(settings.title, names), settings.check)
    return np.concatenate([found.equality, found.inequality, found.active, found.margin])


def _result(*operands: ShapedArray, host: _Host) -> ShapedArray:
    p, m = host.conditions.sizes
    return operands[0].update(shape=(*operands[0].shape[:-1], p + 3 * m), weak_type=False)


_on_host = constant("cvxift_implicit_multipliers", _recover, _result)


def multipliers(conditions: Conditions, x: Array, theta: list[Array], given: Array | None) -> tuple[Array, ...]:
    """ν, λ, the mask of active rows and the margins, in x's dtype, without derivatives."""
    p, m = conditions.sizes
    g = jax.grad(conditions.energy)(x, *theta)
    values = conditions.constraints(x, *theta)
    rows = jax.jacrev(conditions.constraints)(x, *theta)
    slack = jnp.zeros(0, x.dtype)
    if m:
        along = [weights_of(x), *(weights_of(t) if floating(t) else None for t in theta)]
        slack = (jnp.sign(values) * relative_residual(jnp, conditions.constraints, x, theta, values, along))[p:]
    own = jnp.zeros(0, x.dtype) if given is None else given
    parts = [jax.lax.stop_gradient(part) for part in (g, rows, slack, own)]
    found = _on_host(*parts, host=_Host(conditions, given is not None))
    return found[:p], found[p : p + m], found[p + m : p + 2 * m], found[p + 2 * m :]


def weights_of(t: Array) -> Array:
    """`weights` of the entries, in the array's shape."""
    return jnp.asarray(weights(int(np.prod(jnp.shape(t)))), dtype=jnp.result_type(t)).reshape(jnp.shape(t))
