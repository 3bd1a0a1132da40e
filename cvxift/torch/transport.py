"""Regularized optimal transport and soft permutations on tensors: exact implicit derivatives of any order.

Scores have shape (..., n, m), in float16, bfloat16, float32 or float64 (the halves compute in float32); −∞ forbids an
entry. The functions keep the plan alone for their derivatives, which are those of `cvxift.argmax.polytope`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from cvxift.argmax import polytope
from cvxift.argmax.feasibility import balanced, check_converged, check_entries, check_masses
from cvxift.argmax.quadratic_transport import quadratic_transport
from cvxift.argmax.sinkhorn import MAX_ITERATIONS, Plan, sinkhorn
from cvxift.errors import ProgramError
from cvxift.torch import kernels
from cvxift.torch.envelope import envelope
from cvxift.torch.nested import keep, kept, nested
from cvxift.torch.tensors import batched, broadcasts, require_floating, temperature_of

Tensor = torch.Tensor
Regularizer = Literal["entropic", "quadratic"]
SOLVERS = {"entropic": sinkhorn, "quadratic": quadratic_transport}


def transport(
    theta: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    regularizer: Regularizer = "entropic",
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Tensor:
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

    Source: Cuturi 2013; Blondel, Seguy, Rolet 2018 (quadratic); derivatives: Eisenberger et al. 2022.

    Example:
        >>> import torch
        >>> from cvxift.torch import transport
        >>> transport(torch.eye(2), regularizer="quadratic")
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """
    x, a, b = _prepared("transport", theta, a, b, temperature, regularizer)
    if x.numel() == 0:
        return theta
    return _transport(x, a, b, regularizer, tol, max_iterations)[0].to(theta.dtype)


def birkhoff(
    theta: Tensor,
    temperature: float | Tensor = 1.0,
    regularizer: Regularizer = "entropic",
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Tensor:
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
        >>> birkhoff(torch.tensor([[0.0, 3.0], [1.0, 2.0]]), temperature=0.1).round(decimals=2)
        tensor([[0., 1.],
                [1., 0.]])
    """
    if theta.ndim < 2 or theta.shape[-1] != theta.shape[-2]:
        raise ProgramError(f"birkhoff got scores of shape {tuple(theta.shape)}; expected (..., n, n).")
    ones = torch.ones(theta.shape[-1], device=theta.device)
    return transport(theta, ones, ones, temperature, regularizer, tol, max_iterations)


def transport_loss(
    theta: Tensor,
    target: Tensor,
    temperature: float | Tensor = 1.0,
    regularizer: Regularizer = "entropic",
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Tensor:
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
        >>> transport_loss(torch.eye(2), torch.eye(2) / 2, regularizer="quadratic")
        tensor(0.)
    """
    if theta.shape != target.shape:
        raise ProgramError(f"target has shape {tuple(target.shape)}; expected theta's, {tuple(theta.shape)}.")
    wide = torch.float64 if theta.dtype is torch.float64 else torch.float32
    t = torch.as_tensor(temperature, dtype=wide, device=theta.device)
    scale = t[..., None, None] if t.ndim else t
    y = target.detach().to(wide)
    x, a, b = _prepared("transport_loss", theta, y.sum(-1), y.sum(-2), scale, regularizer)
    if x.numel() == 0:
        return theta.sum((-2, -1))
    y = y.to(x.dtype)
    z, level = _transport(x, a, b, regularizer, tol, max_iterations)
    return (envelope(x, z, y, _loss(regularizer, y, z.detach(), level)) * t).to(theta.dtype)


def _shapes(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


@kernels.register("transport", _shapes)
def _solve(
    x: Tensor, a: Tensor, b: Tensor, regularizer: Regularizer, tol: float | None, limit: int
) -> tuple[Tensor, Tensor]:
    check_entries("transport", x)
    check_masses("transport", x, a, b)
    # Which entries have mass is decided by differences of scores: small masses under large scores need float64.
    wide = regularizer == "quadratic" and x.device.type != "mps"
    scores, rows, columns = (x.double(), a.double(), b.double()) if wide else (x, a, b)
    plan: Plan = SOLVERS[regularizer](scores, rows, columns, tol, limit)
    floor = 64 * torch.finfo(x.dtype).eps
    check_converged("transport", plan.error, floor if tol is None else max(tol, floor), plan.iterations, plan.z)
    return plan.z.to(x.dtype), plan.level.to(x.dtype)


class _Transport(torch.autograd.Function):
    """Plans at unit temperature, and their levels, without derivative; that of the plan is a function of it alone."""

    @staticmethod
    def forward(
        x: Tensor, a: Tensor, b: Tensor, regularizer: Regularizer, tol: float | None, limit: int
    ) -> tuple[Tensor, Tensor]:
        """The closed form, checked."""
        z, level = kernels.call("transport", (x, a, b), regularizer, tol, limit)
        return z, level

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the plan."""
        keep(ctx, output[0], inputs[3])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, bar: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Products of a cotangent with the transposed Jacobian, of differentiable operations."""
        if bar is None:
            return (None,) * 6
        return (*polytope.pullback(_weights(*kept(ctx)), bar), None, None, None)

    @staticmethod
    @nested
    def jvp(  # type: ignore[override]
        ctx: Any, dx: Tensor | None, da: Tensor | None, db: Tensor | None, *_: Any
    ) -> tuple[Tensor, None]:
        """Jacobian-vector product."""
        z, regularizer = kept(ctx)  # the result: an outer pass differentiates it as such
        given = (dx, da, db)
        zeros = (z, z[..., :, 0], z[..., 0, :])
        full = [torch.zeros_like(like) if part is None else part for part, like in zip(given, zeros)]
        return polytope.pushforward(_weights(z, regularizer), *full), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, tuple[int, int]]:
        """The mapped dimension becomes one more batch dimension."""
        given = (batched(info.batch_size, dim, x) for dim, x in zip(in_dims, args[:3]))
        return _Transport.apply(*given, *args[3:]), (0, 0)


@torch._dynamo.allow_in_graph
def _transport(
    x: Tensor, a: Tensor, b: Tensor, regularizer: Regularizer, tol: float | None, limit: int
) -> tuple[Tensor, Tensor]:
    return _Transport.apply(x, a, b, regularizer, tol, limit)  # type: ignore[return-value]


@torch._dynamo.allow_in_graph
def _loss(regularizer: Regularizer, y: Tensor, z: Tensor, level: Tensor) -> Tensor:
    return polytope.loss(regularizer, y, z, level)


def _prepared(
    name: str,
    theta: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    temperature: float | Tensor,
    regularizer: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores over temperature and the masses, broadcast and in the dtype that is computed in."""
    require_floating(name, theta)
    if theta.ndim < 2:
        raise ProgramError(f"{name} got scores of shape {tuple(theta.shape)}; expected (..., n, m).")
    if regularizer not in SOLVERS:
        raise ProgramError(f"{name} got regularizer = {regularizer!r}; expected 'entropic' or 'quadratic'.")
    dtype = torch.float64 if theta.dtype is torch.float64 else torch.float32
    x = theta.to(dtype)
    x = x / temperature_of(name, temperature, x)
    masses = []
    for word, given, size in (("a", a, x.shape[-2]), ("b", b, x.shape[-1])):
        mass = torch.full((size,), 1.0 / size, dtype=dtype, device=x.device) if given is None else given.to(x)
        if not broadcasts(mass.shape, (*x.shape[:-2], size)):
            raise ProgramError(
                f"{name} got masses {word} of shape {tuple(mass.shape)}; expected ({size},) or (..., {size}) to "
                f"broadcast against scores of shape {tuple(theta.shape)}."
            )
        masses.append(mass.expand(*x.shape[:-2], size))
    rows, columns = masses
    half = (torch.float16, torch.bfloat16)
    rounding = [torch.finfo(m.dtype).eps for m in (a, b) if m is not None and m.dtype in half]
    if rounding:
        columns = balanced(torch, rows, columns, max(rounding))
    return x, rows, columns


def _weights(z: Tensor, regularizer: Regularizer) -> Tensor:
    return z if regularizer == "entropic" else (z > 0).to(z.dtype)
