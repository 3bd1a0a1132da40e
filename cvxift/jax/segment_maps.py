"""α-entmax, its losses and budgets over groups of entries of JAX arrays; see `cvxift.argmax.functions.ragged`.

With ``jax_enable_x64`` thresholds are found in float64 whatever the dtype. Where values cannot be seen, groups that
would be refused give NaN.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from cvxift.argmax import bounded, checks, derivatives, losses, segments
from cvxift.argmax.feasibility import check_entries
from cvxift.jax.argmax_rule import differentiable
from cvxift.jax.arrays import look, widest

Array = jax.Array


class Segments:
    """Entries (N,) of arrays in groups; groups' values have shape (G,).

    Args:
        ids: the group of each entry, from 0 to G − 1.
        number: G.
    """

    def __init__(self, ids: Array, number: int) -> None:
        self.ids, self.number = ids, number

    def sum(self, values: Array) -> Array:
        """The sum over each group."""
        return jax.ops.segment_sum(values, self.ids, num_segments=self.number)

    def max(self, values: Array) -> Array:
        """The largest entry of each group."""
        return jax.ops.segment_max(values, self.ids, num_segments=self.number)

    def spread(self, values: Array) -> Array:
        """For each entry its group's value."""
        return values[self.ids]


def _bad(x: Array, groups: Segments) -> Array:
    """Entries whose groups hold NaN or +∞."""
    return groups.spread(groups.sum((~(x < jnp.inf)).astype(x.dtype))) > 0


def _solve(x: Array, *given: object) -> tuple[Array]:
    alpha, ids, number = _parts(given)
    groups = Segments(ids, number)
    alpha = alpha if isinstance(alpha, float) else widest(alpha)
    z = segments.entmax(widest(x), alpha, groups, jax.lax.while_loop).astype(x.dtype)
    bad = _bad(x, groups)
    if not isinstance(alpha, float):
        bad = bad | jnp.isnan(groups.spread(alpha))
    return (jnp.where(bad, jnp.nan, z),)


def _parts(given: tuple) -> tuple:
    """α, ids and number of (α, ids, number), or of (ids, α, number) where α is an option."""
    first, second, number = given
    return (second, first, number) if isinstance(second, float) else (first, second, number)


_known, _varying = (differentiable(_solve, derivatives.of_entmax(order, Segments)) for order in (False, True))
_known_compiled = jax.jit(
    lambda x, ids, alpha, number: checks.spoiled(jnp, _known((x, ids), (alpha, number))[0]), static_argnums=(2, 3)
)
_varying_compiled = jax.jit(
    lambda x, ids, alpha, number: checks.spoiled(jnp, _varying((x, alpha, ids), (number,))[0]), static_argnums=3
)


def segment_entmax(x: Array, alpha: float | Array, ids: Array, number: int) -> Array:
    if x.size == 0:
        return x
    look(partial(check_entries, "entmax"), x)
    return (_known_compiled if isinstance(alpha, float) else _varying_compiled)(x, ids, alpha, number)


def _loss(theta: Array, y: Array, *given: object) -> tuple[Array]:
    alpha, ids, number = _parts(given)
    z = segment_entmax(theta, alpha, ids, number)
    return (losses.fenchel_young(theta, y, z, alpha, Segments(ids, number)),)


_loss_of_known, _loss_of_varying = (
    differentiable(_loss, derivatives.of_entmax_loss(segment_entmax, order, Segments)) for order in (False, True)
)


def segment_loss(theta: Array, y: Array, alpha: float | Array, ids: Array, number: int) -> Array:
    groups = Segments(ids, number)
    look(lambda theta, y, _: losses.check_targets(theta, y, groups), theta, y, ids)
    y = checks.spoiled(jnp, y, groups.spread(losses.off_simplex(jnp, theta, y, groups)))
    if isinstance(alpha, float):
        return _loss_of_known((theta, y, ids), (alpha, number))[0]
    return _loss_of_varying((theta, y, alpha, ids), (number,))[0]


def segment_budget(x: Array, total: Array, lower: Array, upper: Array, ids: Array, number: int) -> Array:
    look(partial(check_entries, "budget"), x)
    groups = Segments(ids, number)

    def check(x: Array, total: Array, lower: Array, upper: Array, _: Array) -> None:
        checks.check_bounds_of_groups("budget", x, total, lower, upper, groups)

    look(check, x, total, lower, upper, ids)
    return _budget(x, total, lower, upper, ids, number)


@partial(jax.jit, static_argnums=5)
def _budget(x: Array, total: Array, lower: Array, upper: Array, ids: Array, number: int) -> Array:
    groups, still = Segments(ids, number), jax.lax.stop_gradient
    found = bounded.sides(still(x), still(total), still(lower), still(upper), jax.lax.while_loop, groups)
    empty = checks.sums_allowed(jnp, x, total, lower, upper, groups)[2]
    wrong = ~(lower <= upper) | ~(jnp.abs(lower) < jnp.inf)
    bad_group = empty | (groups.sum((~(x < jnp.inf) | wrong).astype(x.dtype)) > 0)
    bad = groups.spread(bad_group)
    x, lower, upper = (checks.spoiled(jnp, part, bad) for part in (x, lower, upper))
    return bounded.value(x, checks.spoiled(jnp, total, bad_group), lower, upper, found, groups)
