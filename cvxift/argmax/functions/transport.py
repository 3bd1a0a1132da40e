"""Regularized optimal transport and soft permutations: exact implicit derivatives of any order.

Scores have shape (..., n, m), in any floating dtype (those below float32 compute in float32); −∞ forbids an entry. The
plan alone is kept for the derivatives, which are those of `cvxift.argmax.polytope`.
"""

from __future__ import annotations

from typing import Any

from cvxift._types import Array
from cvxift.argmax.feasibility import balanced
from cvxift.argmax.functions.arguments import broadcasts, check_choice, temperature_of
from cvxift.argmax.functions.documentation import public
from cvxift.argmax.functions.framework import Framework
from cvxift.errors import ProgramError

REGULARIZERS = ("entropic", "quadratic")


@public
def transport(
    fw: Framework,
    theta: Array,
    a: Any,
    b: Any,
    temperature: Any,
    regularizer: str,
    tol: float | None,
    max_iterations: int,
) -> Array:
    """Transport plan: argmax of ⟨θ, z⟩ − temperature·Ω(z) over {z ≥ 0, z 1 = a, zᵀ1 = b}.

    Args:
        theta: scores (minus costs), (..., n, m); −∞ forbids an entry.
        a: row masses ≥ 0, broadcast to (..., n); None for 1/n each.
        b: column masses ≥ 0 of the same total, broadcast to (..., m); None for 1/m each.
        temperature: > 0, a number or a tensor that broadcasts against θ.
        regularizer: Ω, ``"entropic"`` for Σ z log z, ``"quadratic"`` for ½‖z‖², whose plans are sparse.
        tol: how far the plan's marginals may be off, as a part of the mass; None for 64 roundings of the dtype.
        max_iterations: Newton steps, at most.

    Returns:
        Plans of θ's shape and dtype, differentiable in θ, a, b and the temperature. As the totals of a and b must stay
        equal, their gradients are those along such changes (of least norm).

    Raises:
        ProgramError: shapes do not fit, masses are negative or have different totals, a line with mass is fully masked,
            scores are NaN or +∞, an integer dtype, temperature ≤ 0.
        SolveError: the tolerance was not met; it carries the error of each failed instance, and the others' plans.

    Under ``jax.jit`` and ``jax.vmap``, where values cannot be seen, a plan that does not exist or was not found to the
    tolerance is NaN instead.

    Source: Cuturi 2013; Blondel, Seguy, Rolet 2018 (quadratic); derivatives: Eisenberger et al. 2022.

    Example:
        >>> import torch
        >>> from cvxift.torch import transport
        >>> transport(torch.eye(2), regularizer="quadratic").tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    x, a, b = _prepared(fw, "transport", theta, a, b, temperature, regularizer)
    if 0 in x.shape:
        return theta  # keeps its graph
    return fw.cast(fw.transport(x, a, b, regularizer, tol, max_iterations)[0], theta)


@public
def birkhoff(
    fw: Framework, theta: Array, temperature: Any, regularizer: str, tol: float | None, max_iterations: int
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
        >>> import torch
        >>> from cvxift.torch import birkhoff
        >>> birkhoff(torch.tensor([[0.0, 3.0], [1.0, 2.0]]), 0.1).round(decimals=2).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    theta = fw.floating("birkhoff", theta)
    if theta.ndim < 2 or theta.shape[-1] != theta.shape[-2]:
        raise ProgramError(f"birkhoff got scores of shape {tuple(theta.shape)}; expected (..., n, n).")
    ones = _even(fw, theta, -1)
    return transport(fw, theta, ones, ones, temperature, regularizer, tol, max_iterations)


@public
def transport_loss(
    fw: Framework,
    theta: Array,
    target: Any,
    temperature: Any,
    regularizer: str,
    tol: float | None,
    max_iterations: int,
) -> Array:
    """Fenchel–Young loss of `transport` between the target's own masses; its gradient in θ is prediction − target.

    Args:
        theta: scores, (..., n, m).
        target: plans y ≥ 0 of θ's shape, whose sums are the masses; no gradient flows to them.
        temperature: > 0, a number or a tensor that broadcasts against the loss.
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
        >>> import torch
        >>> from cvxift.torch import transport_loss
        >>> float(transport_loss(torch.eye(2), torch.eye(2) / 2, regularizer="quadratic"))
        0.0
    """
    theta = fw.floating("transport_loss", theta)
    y = fw.constant(fw.array(target, fw.wider(theta)))
    if y.shape != theta.shape:
        raise ProgramError(f"target has shape {tuple(y.shape)}; expected theta's, {tuple(theta.shape)}.")
    t = fw.array(temperature, y)
    warmth = temperature if fw.is_number(temperature) else t[..., None, None] if t.ndim else t
    rows, columns = fw.xp.sum(y, axis=-1), fw.xp.sum(y, axis=-2)
    x, a, b = _prepared(fw, "transport_loss", theta, rows, columns, warmth, regularizer)
    if 0 in x.shape:
        return theta.sum((-2, -1))
    z, level = fw.transport(x, a, b, regularizer, tol, max_iterations)
    value = fw.transport_loss(regularizer, y, fw.constant(z), fw.constant(level))
    return fw.cast(fw.envelope(x, z, y, value, 2) * t, theta)


def _prepared(
    fw: Framework, name: str, theta: Array, a: Any, b: Any, temperature: Any, regularizer: str
) -> tuple[Array, Array, Array]:
    """Scores over temperature and the masses, broadcast and in the dtype that is computed in."""
    theta = fw.floating(name, theta)
    if theta.ndim < 2:
        raise ProgramError(f"{name} got scores of shape {tuple(theta.shape)}; expected (..., n, m).")
    check_choice(name, "regularizer", regularizer, REGULARIZERS)
    x = fw.wider(theta)
    x = x / temperature_of(fw, name, temperature, x)
    masses = []
    for word, given, size, axis in (("a", a, x.shape[-2], -1), ("b", b, x.shape[-1], -2)):
        mass = _even(fw, x, axis, max(size, 1)) if given is None else fw.array(given, x)
        if not broadcasts(mass.shape, (*x.shape[:-2], size)):
            raise ProgramError(
                f"{name} got masses {word} of shape {tuple(mass.shape)}; expected ({size},) or (..., {size}) to "
                f"broadcast against scores of shape {tuple(theta.shape)}."
            )
        masses.append(fw.xp.broadcast_to(mass, (*x.shape[:-2], size)))
    rows, columns = masses
    halves = [fw.xp.finfo(m.dtype).eps for m in (a, b) if hasattr(m, "dtype") and fw.is_half(m)]
    if halves:
        columns = balanced(fw.xp, rows, columns, max(map(float, halves)))
    return x, rows, columns


def _even(fw: Framework, x: Array, axis: int, number: int = 1) -> Array:
    """One mass for all lines, of which there are so many."""
    # Divided as an array: a size that `torch.jit.trace` records would make single precision of a number.
    return fw.xp.ones_like(fw.xp.sum(fw.constant(x), axis=axis)) / number
