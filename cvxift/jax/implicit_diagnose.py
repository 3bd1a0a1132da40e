"""A function of arrays at a point, for the diagnosis, which is NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvxift.errors import ProgramError
from cvxift.implicit.oracle import Oracle
from cvxift.implicit.trees import entry_of
from cvxift.jax.arrays import visible
from cvxift.jax.trees import floating

Array = Any


def oracle(function: Any, prepared: Any) -> Oracle:
    """The oracle of an implicit function at a prepared point.

    Args:
        function: the `ImplicitFunction`.
        prepared: the point.

    Raises:
        ProgramError: inside a transformation, where there are no values to look at.
    """
    settings, conditions, w = function.settings, prepared.conditions, prepared.w
    if not visible(w, *prepared.operands):
        raise ProgramError("diagnose looks at values: call it outside of jit, vmap and grad.")
    first = int(settings.constrained)  # the mask of active rows goes first
    names = prepared.names
    own = [first + i for i in range(len(names)) if floating(prepared.operands[first + i])]
    shapes = [jnp.shape(prepared.operands[i]) for i in own]
    rule = function._rule(prepared)

    def moved(theta: Array) -> list[Array]:
        now, start = list(prepared.operands), 0
        for i, shape in zip(own, shapes, strict=True):
            size = int(np.prod(shape))
            part = jnp.asarray(theta[start : start + size]).reshape(shape)
            now[i], start = part.astype(jnp.result_type(prepared.operands[i])), start + size
        return now

    def of_both(point: Array, theta: Array) -> Array:
        return prepared.function(jnp.asarray(point, dtype=w.dtype), *moved(theta))

    value = jax.jit(of_both)
    slope = jax.jit(lambda v, theta, v_dot, theta_dot: jax.jvp(of_both, (v, theta), (v_dot, theta_dot))[1])
    product = jax.jit(lambda v: jax.jvp(lambda point: prepared.function(point, *prepared.operands), (w,), (v,))[1])
    pulled = jax.jit(lambda v: jax.vjp(lambda point: prepared.function(point, *prepared.operands), w)[1](v)[0])
    wide = jnp.result_type(float)

    def given(v: np.ndarray) -> Array:
        return jnp.asarray(v, dtype=w.dtype)

    def tangent(v: np.ndarray, theta: np.ndarray, v_dot: np.ndarray, theta_dot: np.ndarray) -> np.ndarray:
        return _host(slope(given(v), jnp.asarray(theta, wide), given(v_dot), jnp.asarray(theta_dot, wide)))

    def derivative(theta_dot: np.ndarray) -> np.ndarray:
        b = given(tangent(_host(w), theta, 0.0 * _host(w), theta_dot))
        damped = (lambda v: product(v) + settings.damping * v) if settings.damping else product
        return _host(rule.solve(damped, -b))[: conditions.layout.size]

    def solve(theta: np.ndarray) -> np.ndarray:
        arrays = moved(theta)[first : first + len(names)]
        x, _, _ = function._solve(conditions.rebuild, arrays, None)
        return _host(conditions.layout.matching("What the solver returned", x))

    chosen = [_host(prepared.operands[i]).reshape(-1) for i in own]
    theta = np.concatenate(chosen) if chosen else np.zeros(0)
    return Oracle(
        settings,
        _host(w),
        theta,
        conditions.layout.size,
        conditions.sizes,
        _host(prepared.operands[0]) if settings.constrained else np.zeros(0),
        _host(prepared.margins),
        float(jnp.finfo(w.dtype).eps),
        lambda v, theta: _host(value(given(v), jnp.asarray(theta, wide))),
        tangent,
        lambda v: _host(product(given(v))),
        lambda v: _host(pulled(given(v))),
        lambda: _host(jax.vmap(product, out_axes=-1)(jnp.eye(len(w), dtype=w.dtype))),
        derivative,
        solve,
        conditions.entry,
        lambda j: entry_of([names[i - first] for i in own], shapes, j),
    )


def _host(array: Any) -> np.ndarray:
    return np.asarray(array).astype(float)
