"""Regularized optimal transport and soft permutations on JAX arrays: exact implicit derivatives of any order.

Scores have shape (..., n, m), in any floating dtype (those below float32 compute in float32); −∞ forbids an entry. The
iterations are `jax.lax.while_loop`s, but for quadratic plans in float32, which need float64: without
`jax_enable_x64` the host finds them. Inside `jax.jit` and `jax.vmap` values cannot be looked at: there, a plan that
does not exist or was not found to the tolerance is NaN instead of an error.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray

from cvxift.argmax import checks, polytope
from cvxift.argmax.feasibility import balanced, check_converged, check_entries, check_masses, without_plan
from cvxift.argmax.quadratic_transport import quadratic_transport
from cvxift.argmax.sinkhorn import MAX_ITERATIONS, Plan, sinkhorn
from cvxift.errors import ProgramError
from cvxift.jax.arrays import doubles, floating, look, temperature_of, visible
from cvxift.jax.envelope import envelope
from cvxift.jax.host_call import constant

Array = jax.Array
Regularizer = Literal["entropic", "quadratic"]
SOLVERS = {"entropic": sinkhorn, "quadratic": quadratic_transport}


def transport(
    theta: Array,
    a: Array | None = None,
    b: Array | None = None,
    temperature: float | Array = 1.0,
    regularizer: Regularizer = "entropic",
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Array:
    """Transport plan: argmax of ⟨θ, z⟩ − temperature·Ω(z) over {z ≥ 0, z 1 = a, zᵀ1 = b}.

    Args:
        theta: scores (minus costs), (..., n, m); −∞ forbids an entry.
        a: row masses ≥ 0, broadcast to (..., n); None for 1/n each.
        b: column masses ≥ 0 of the same total, broadcast to (..., m); None for 1/m each.
        temperature: > 0, a number or an array that broadcasts against θ.
        regularizer: Ω, ``"entropic"`` for Σ z log z, ``"quadratic"`` for ½‖z‖², whose plans are sparse.
        tol: how far the plan's marginals may be off, as a part of the mass; None for 64 roundings of the dtype.
        max_iterations: Newton steps, at most.

    Returns:
        Plans of θ's shape and dtype, differentiable in θ, a, b and the temperature. As the totals of a and b must stay
        equal, their gradients are those along such changes (of least norm). Under ``jit``, NaN where it failed.

    Raises:
        ProgramError: shapes do not fit, masses are negative or have different totals, a line with mass is fully masked,
            scores are NaN or +∞, an integer dtype, temperature ≤ 0.
        SolveError: the tolerance was not met; it carries the error of each failed instance, and the others' plans.

    Source: Cuturi 2013; Blondel, Seguy, Rolet 2018 (quadratic); derivatives: Eisenberger et al. 2022.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import transport
        >>> transport(jnp.eye(2), regularizer="quadratic").tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    theta = _scores("transport", theta, regularizer)
    x, a, b = _prepared("transport", theta, a, b, temperature)
    if x.size == 0:
        return theta
    return checks.spoiled(jnp, _plan(x, a, b, regularizer, tol, max_iterations)[0]).astype(theta.dtype)


def birkhoff(
    theta: Array,
    temperature: float | Array = 1.0,
    regularizer: Regularizer = "entropic",
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Array:
    """Soft permutation: argmax of ⟨θ, z⟩ − temperature·Ω(z) over doubly stochastic matrices.

    Args:
        theta: scores, (..., n, n); −∞ forbids an entry.
        temperature: as for `transport`; towards 0 the result tends to the best assignment.
        regularizer: as for `transport`.
        tol: as for `transport`.
        max_iterations: as for `transport`.

    Returns:
        Doubly stochastic matrices of θ's shape and dtype.

    Raises:
        ProgramError: as for `transport`, or θ is not square.
        SolveError: as for `transport`.

    Source: Mena, Belanger, Linderman, Snoek 2018.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import birkhoff
        >>> birkhoff(jnp.array([[0.0, 3.0], [1.0, 2.0]]), temperature=0.1).round(3).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    theta = jnp.asarray(theta)
    if theta.ndim < 2 or theta.shape[-1] != theta.shape[-2]:
        raise ProgramError(f"birkhoff got scores of shape {theta.shape}; expected (..., n, n).")
    ones = jnp.ones(theta.shape[-1])
    return transport(theta, ones, ones, temperature, regularizer, tol, max_iterations)


def transport_loss(
    theta: Array,
    target: Array,
    temperature: float | Array = 1.0,
    regularizer: Regularizer = "entropic",
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Array:
    """Fenchel–Young loss of `transport` between the target's own masses; its gradient in θ is prediction − target.

    Args:
        theta: scores, (..., n, m).
        target: plans y ≥ 0 of θ's shape, whose sums are the masses; no gradient flows to them.
        temperature: > 0, a number or an array that broadcasts against the loss.
        regularizer: as for `transport`.
        tol: as for `transport`.
        max_iterations: as for `transport`.

    Returns:
        Losses max_z {⟨θ, z⟩ − temperature·Ω(z)} − ⟨θ, y⟩ + temperature·Ω(y) ≥ 0, of shape (...).

    Raises:
        ProgramError: as for `transport`, or the shapes differ.
        SolveError: as for `transport`.

    Source: Blondel, Martins, Niculae 2020, Definition 2.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import transport_loss
        >>> float(transport_loss(jnp.eye(2), jnp.eye(2) / 2, regularizer="quadratic"))
        0.0
    """
    theta = _scores("transport_loss", theta, regularizer)
    y = jax.lax.stop_gradient(jnp.asarray(target))
    if theta.shape != y.shape:
        raise ProgramError(f"target has shape {y.shape}; expected theta's, {theta.shape}.")
    t = jnp.asarray(temperature)
    y = y.astype(jnp.promote_types(theta.dtype, jnp.float32))
    x, a, b = _prepared("transport_loss", theta, y.sum(-1), y.sum(-2), t[..., None, None] if t.ndim else t)
    if x.size == 0:
        return theta.sum((-2, -1))
    z, level = _plan(x, a, b, regularizer, tol, max_iterations)
    value = polytope.loss(regularizer, *jax.lax.stop_gradient((y, z, level)))
    return (envelope(x, z, y, value, 2) * t).astype(theta.dtype)


def _solve(
    x: Array, a: Array, b: Array, regularizer: Regularizer, tol: float | None, limit: int
) -> tuple[Array, Array, Array, Array]:
    """The plan, its level, its error and the number of iterations, in x's dtype.

    Which entries have mass is decided by differences of scores: small masses under large scores need float64, which
    JAX may not have where the host does.
    """
    single = regularizer == "quadratic" and x.dtype == np.float32
    if single and not doubles():
        packed = _plans_of_the_host(x, a, b, tol=tol, limit=limit)
        z, level = jnp.split(packed[..., :-2], 2, axis=-1)
        return z.reshape(x.shape), level.reshape(x.shape), packed[..., -2], packed[..., -1].max()
    dtype = np.dtype(np.float64) if single else x.dtype
    plan = _iterate(x.astype(dtype), a.astype(dtype), b.astype(dtype), regularizer, tol, limit)
    return plan.z.astype(x.dtype), plan.level.astype(x.dtype), plan.error, plan.iterations


@partial(jax.jit, static_argnums=(3, 4, 5))
def _iterate(x: Array, a: Array, b: Array, regularizer: Regularizer, tol: float | None, limit: int) -> Plan:
    return SOLVERS[regularizer](x, a, b, tol, limit, loop=jax.lax.while_loop)


def _host(x: np.ndarray, a: np.ndarray, b: np.ndarray, *, tol: float | None, limit: int) -> np.ndarray:
    """The quadratic plan's entries, its level's, its error and the number of iterations, side by side."""
    plan = quadratic_transport(x.astype(np.float64), a.astype(np.float64), b.astype(np.float64), tol, limit)
    rest = np.stack(np.broadcast_arrays(plan.error, float(plan.iterations)), axis=-1)
    parts = (part.reshape(*x.shape[:-2], -1) for part in (plan.z, plan.level))
    return np.concatenate([*parts, rest], axis=-1).astype(x.dtype)


def _packed_shape(x: ShapedArray, *_: ShapedArray, tol: float | None, limit: int) -> ShapedArray:
    return x.update(shape=(*x.shape[:-2], 2 * x.shape[-2] * x.shape[-1] + 2), weak_type=False)


_plans_of_the_host = constant("cvxift_quadratic_plans", _host, _packed_shape)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4, 5))
def _plan(x: Array, a: Array, b: Array, regularizer: Regularizer, tol: float | None, limit: int) -> tuple[Array, Array]:
    """The plan at unit temperature, NaN where the tolerance was not met, and its level, without derivative."""
    least = 64 * float(jnp.finfo(x.dtype).eps)
    tolerance = least if tol is None else max(tol, least)
    look(partial(check_entries, "transport"), x)
    look(partial(check_masses, "transport"), x, a, b)
    z, level, error, iterations = _solve(x, a, b, regularizer, tol, limit)
    if visible(error):
        check_converged("transport", error, tolerance, iterations, z)
    return jnp.where(((error <= tolerance) & ~without_plan(x, a, b))[..., None, None], z, jnp.nan), level


@_plan.defjvp
def _plan_jvp(regularizer: Regularizer, tol: float | None, limit: int, primals: Any, tangents: Any) -> Any:
    """The derivative is a function of the plan alone."""
    z, level = _plan(*primals, regularizer, tol, limit)
    bad = jnp.isnan(z[..., :1, :1])
    dx, da, db = (checks.spoiled(jnp, t, b) for t, b in zip(tangents, (bad, bad[..., 0], bad[..., 0])))
    return (z, level), (_push(z, dx, da, db, regularizer), jnp.zeros_like(level))


@partial(jax.jit, static_argnums=4)
def _push(z: Array, dx: Array, da: Array, db: Array, regularizer: Regularizer) -> Array:
    return polytope.pushforward(z if regularizer == "entropic" else (z > 0).astype(z.dtype), dx, da, db)


def _scores(name: str, theta: Array, regularizer: str) -> Array:
    theta = floating(name, theta)
    if theta.ndim < 2:
        raise ProgramError(f"{name} got scores of shape {theta.shape}; expected (..., n, m).")
    if regularizer not in SOLVERS:
        raise ProgramError(f"{name} got regularizer = {regularizer!r}; expected 'entropic' or 'quadratic'.")
    return theta


def _prepared(
    name: str, theta: Array, a: Array | None, b: Array | None, temperature: float | Array
) -> tuple[Array, Array, Array]:
    """Scores over temperature and the masses, broadcast and in the dtype that is computed in."""
    dtype = jnp.promote_types(theta.dtype, jnp.float32)
    x = theta.astype(dtype)
    x = x / temperature_of(name, temperature, x)
    masses = []
    for word, given, size in (("a", a, x.shape[-2]), ("b", b, x.shape[-1])):
        mass = jnp.full((size,), 1.0 / size, dtype) if given is None else jnp.asarray(given).astype(dtype)
        try:
            masses.append(jnp.broadcast_to(mass, (*x.shape[:-2], size)))
        except ValueError as error:
            raise ProgramError(
                f"{name} got masses {word} of shape {mass.shape}; expected ({size},) or (..., {size}) to broadcast "
                f"against scores of shape {theta.shape}."
            ) from error
    rows, columns = masses
    given = [jnp.asarray(m).dtype for m in (a, b) if m is not None]
    rounding = [float(jnp.finfo(kind).eps) for kind in given if kind in (jnp.float16, jnp.bfloat16)]
    if rounding:
        columns = balanced(jnp, rows, columns, max(rounding))
    return x, rows, columns
