"""Projections onto permutahedra, and transport plans, of JAX arrays: kernels and their rules.

Blocks of an isotonic regression are found in NumPy on the host. So are quadratic plans on the CPU, small ones apart,
as XLA takes seconds to compile their iterations and runs those of large plans slower than NumPy; and all those in
float32 without `jax_enable_x64`, as they need float64. The other iterations are `jax.lax.while_loop`s. Inside `jax.jit`
and `jax.vmap` values cannot be looked at: there, scores that are not finite, and a plan that does not exist or was not
found to the tolerance, give NaN instead of an error.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray

from cvxift.argmax import checks, derivatives, isotonic, polytope
from cvxift.argmax.feasibility import check_converged, check_entries, check_masses, without_plan
from cvxift.argmax.interior_transport import approach
from cvxift.argmax.loops import while_loop
from cvxift.argmax.quadratic_transport import quadratic_transport
from cvxift.argmax.sinkhorn import Plan, sinkhorn
from cvxift.jax.argmax_rule import differentiable
from cvxift.jax.arrays import doubles, look, visible
from cvxift.jax.host_call import constant

Array = jax.Array
Regularizer = Literal["entropic", "quadratic"]
# Entries of all plans from which NumPy serves, which spares seconds of compiling: 32 by 32 take it twice as long as
# XLA, 16 of 20 by 20 half as long.
WORTH_THE_HOST = 1000
permutahedron_loss, transport_loss = isotonic.loss, polytope.loss


def permutahedron(s: Array, w: Array, regularizer: Regularizer) -> Array:
    """See `Framework.permutahedron`; NaN in rows that are not finite."""
    for scores in (s, w):
        look(partial(check_entries, "The sorting", masks=False), scores)
    bad = ~jnp.all(jnp.isfinite(s) & jnp.isfinite(w), axis=-1, keepdims=True)
    # The blocks are found on the host and constant in their neighbourhood.
    first = _blocks_of_rows(*(jnp.where(bad, 0.0, scores) for scores in (s, w)), regularizer=regularizer)
    return checks.spoiled(jnp, isotonic.project(s, w, first, regularizer, _segment_sum), bad)


def _host_blocks(s: np.ndarray, w: np.ndarray, *, regularizer: Regularizer) -> np.ndarray:
    return isotonic.blocks(s, w, regularizer).astype(np.int32)


def _blocks_shape(s: ShapedArray, w: ShapedArray, *, regularizer: Regularizer) -> ShapedArray:
    return s.update(dtype=np.dtype(np.int32), weak_type=False)


_blocks_of_rows = constant("cvxift_isotonic_blocks", _host_blocks, _blocks_shape)


def _segment_sum(values: Array, index: Array) -> Array:
    n = values.shape[-1]
    if not n:
        return values
    sums = jax.vmap(lambda v, i: jax.ops.segment_sum(v, i, num_segments=n))
    return sums(values.reshape(-1, n), index.reshape(-1, n)).reshape(values.shape)


def _solve(
    x: Array, a: Array, b: Array, regularizer: Regularizer, tol: float | None, limit: int
) -> tuple[Array, Array, Array, Array]:
    """The plan, its level, its error and the number of iterations, in x's dtype.

    Which entries have mass is decided by differences of scores: small masses under large scores need float64, which
    JAX may not have where the host does.
    """
    if regularizer == "entropic":
        return _parts(_iterate(x, a, b, sinkhorn, tol, limit), x.dtype)
    if not doubles():
        return _on_host(x, a, b, tol, limit)

    def here(*arrays: Array) -> tuple[Array, Array, Array, Array]:
        return _parts(_iterate(*(part.astype(np.float64) for part in arrays), _quadratic, tol, limit), x.dtype)

    if x.size < WORTH_THE_HOST:
        return here(x, a, b)
    if visible(x):
        on_cpu = all(device.platform == "cpu" for device in x.devices())
        return _on_host(x, a, b, tol, limit) if on_cpu else here(x, a, b)
    return jax.lax.platform_dependent(x, a, b, cpu=partial(_on_host, tol=tol, limit=limit), default=here)


def _parts(plan: Plan, dtype: Any) -> tuple[Array, Array, Array, Array]:
    z, level, error, count = (part.astype(dtype) for part in (plan.z, plan.level, plan.error, plan.iterations))
    return z, level, error, count


@partial(jax.jit, static_argnums=(3, 4, 5))
def _iterate(x: Array, a: Array, b: Array, solver: Any, tol: float | None, limit: int) -> Plan:
    return solver(x, a, b, tol, limit, loop=jax.lax.while_loop)


def _on_host(x: Array, a: Array, b: Array, tol: float | None, limit: int) -> tuple[Array, Array, Array, Array]:
    packed = _plans_of_the_host(x, a, b, tol=tol, limit=limit)
    z, level = jnp.split(packed[..., :-2], 2, axis=-1)
    return z.reshape(x.shape), level.reshape(x.shape), packed[..., -2], packed[..., -1].max()


def _host_plans(x: np.ndarray, a: np.ndarray, b: np.ndarray, *, tol: float | None, limit: int) -> np.ndarray:
    """The quadratic plan's entries, its level's, its error and the number of iterations, side by side."""
    with np.errstate(all="ignore"):  # as compiled loops are: silent where there is no plan
        plan = quadratic_transport(x.astype(np.float64), a.astype(np.float64), b.astype(np.float64), tol, limit)
    rest = np.stack(np.broadcast_arrays(plan.error, float(plan.iterations)), axis=-1)
    parts = (part.reshape(*x.shape[:-2], -1) for part in (plan.z, plan.level))
    return np.concatenate([*parts, rest], axis=-1).astype(x.dtype)


def _packed_shape(x: ShapedArray, *_: ShapedArray, tol: float | None, limit: int) -> ShapedArray:
    return x.update(shape=(*x.shape[:-2], 2 * x.shape[-2] * x.shape[-1] + 2), weak_type=False)


_plans_of_the_host = constant("cvxift_quadratic_plans", _host_plans, _packed_shape)


def _interior(xp: Any, L: Array, a: Array, b: Array, opened: Array, limit: Any, loop: Any) -> tuple[Array, Array]:
    """`approach` by the host: it is seldom asked for, and half of what there is to compile."""
    packed = _interiors_of_the_host(L, a, b, opened, jnp.full(L.shape[:-2], limit, L.dtype))
    return packed[..., None, :-1], packed[..., -1].max()


def _host_interior(L: np.ndarray, a: np.ndarray, b: np.ndarray, opened: np.ndarray, limit: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        g, steps = approach(np, L, a, b, opened, limit.min(), while_loop)
    return np.concatenate([g[..., 0, :], np.full((*L.shape[:-2], 1), float(steps))], axis=-1)


def _interior_shape(L: ShapedArray, *_: ShapedArray) -> ShapedArray:
    return L.update(shape=(*L.shape[:-2], L.shape[-1] + 1), weak_type=False)


_interiors_of_the_host = constant("cvxift_transport_interior", _host_interior, _interior_shape)
_quadratic = partial(quadratic_transport, interior=_interior)


def _plan(x: Array, a: Array, b: Array, regularizer: Regularizer, tol: float | None, limit: int) -> tuple[Array, Array]:
    """The plan at unit temperature, NaN where the tolerance was not met, and its level."""
    least = 64 * float(jnp.finfo(x.dtype).eps)
    tolerance = least if tol is None else max(tol, least)
    look(partial(check_entries, "transport"), x)
    look(partial(check_masses, "transport"), x, a, b)
    z, level, error, iterations = _solve(x, a, b, regularizer, tol, limit)
    if visible(error):
        check_converged("transport", error, tolerance, iterations, z)
    return jnp.where(((error <= tolerance) & ~without_plan(x, a, b))[..., None, None], z, jnp.nan), level


@partial(jax.jit, static_argnums=2)
def _push(kept: tuple[Array], moves: Any, options: tuple[Any, ...]) -> tuple[Array]:
    """Where the plan is NaN, so is its derivative."""
    bad = jnp.isnan(kept[0][..., :1, :1])
    spoiled = [checks.spoiled(jnp, move, b) for move, b in zip(moves, (bad, bad[..., 0], bad[..., 0]))]
    return derivatives.TRANSPORT.push(kept, spoiled, options)


_differentiable = differentiable(_plan, replace(derivatives.TRANSPORT, push=_push))


def transport(
    x: Array, a: Array, b: Array, regularizer: Regularizer, tol: float | None, limit: int
) -> tuple[Array, ...]:
    z, level = _differentiable((x, a, b), (regularizer, tol, limit))
    return checks.spoiled(jnp, z), level
