"""The solution map's derivative of any order in given directions, and its transpose, closed under differentiation.

    forward(θ; θ̇₁ … θ̇ₖ)       = Dᵏz(θ)[θ̇₁, …, θ̇ₖ]                    k = 0 is the solution itself
    adjoint(θ; θ̇₁ … θ̇ₖ₋₁, z̄)  = ∇_θ ⟨z̄, Dᵏ⁻¹z(θ)[θ̇₁, …, θ̇ₖ₋₁]⟩

Both are linear in every operand but θ. A tangent replaces a direction or, of θ, adds one; a cotangent of the result
takes the place of the operand whose gradient is asked for. So both modes and every order come from these two.

`torch.func.vmap` adds a leading dimension, of length 1 on operands that it does not map: a vmapped solve is one batch,
and directions that it maps are so many right-hand sides of one factorization.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from cvxift.errors import ProgramError
from cvxift.layers.solve_cache import Host
from cvxift.torch.nested import keep, nested, primals
from cvxift.torch.operators import compute, encoded
from cvxift.torch.source import Apply, Operands, Source, cotangents, is_legacy_batched, leading, split
from cvxift.torch.tensors import recorded


class Form(torch.autograd.Function):
    """Either form; the last direction is z̄ where `adjoint` is set."""

    @staticmethod
    def forward(source: Source, adjoint: bool, theta: torch.Tensor, *directions: torch.Tensor) -> torch.Tensor:
        """Compute."""
        tangents, bar = split(adjoint, directions)
        if recorded() or any(map(is_legacy_batched, (theta, *directions))):
            # `torch.autograd.grad(is_grads_batched=True)` and what records operations see operators alone.
            return compute(source.key, encoded(source.options), theta, tangents, bar)
        return source(theta, tangents, bar)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        """Keep the operands for both modes."""
        ctx.source, ctx.adjoint = inputs[:2]
        keep(ctx, *inputs[2:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Cotangents of θ and of the directions."""
        theta, *directions = ctx.saved_tensors
        (g,) = grads
        if g is None:
            return (None,) * (3 + len(directions))
        wanted = ctx.needs_input_grad[2:]
        if refused(ctx.source.host, len(directions) + 1) is not None:
            wanted = (False, *wanted[1:])  # θ came through `Unsupported`, which refuses if this gradient is used
        return None, None, *cotangents(applied(ctx.source), wanted, ctx.adjoint, theta, directions, g)

    @staticmethod
    @nested
    def jvp(ctx: Any, *dots: Any) -> torch.Tensor | None:
        """The tangent of the result: one term for each operand that moves."""
        theta, *directions = primals(ctx)
        apply = applied(ctx.source)
        theta_dot, *moved = dots[2:]
        terms = []
        if theta_dot is not None:
            tangents, bar = split(ctx.adjoint, directions)
            terms.append(apply(theta, (*tangents, theta_dot), bar))
        for i, dot in enumerate(moved):
            if dot is not None:
                tangents, bar = split(ctx.adjoint, (*directions[:i], dot, *directions[i + 1 :]))
                terms.append(apply(theta, tangents, bar))
        return functools.reduce(torch.add, terms) if terms else None

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]  # named arguments for the base's *args
        info: Any, in_dims: tuple[int | None, ...], source: Source, adjoint: bool, *operands: torch.Tensor
    ) -> tuple[torch.Tensor, int]:
        """One more leading dimension."""
        return Form.apply(source, adjoint, *leading(in_dims[2:], operands)), 0


class Unsupported(torch.autograd.Function):
    """θ, whose derivative is refused by name: the engine asks for it only where somebody uses it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(message: str, theta: torch.Tensor) -> torch.Tensor:
        """θ itself."""
        return theta.view_as(theta)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        """Keep the message."""
        ctx.message = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Refuse.

        Raises:
            ProgramError: always.
        """
        raise ProgramError(ctx.message)

    @staticmethod
    def jvp(ctx: Any, *dots: Any) -> torch.Tensor:
        """Refuse.

        Raises:
            ProgramError: always.
        """
        raise ProgramError(ctx.message)


def applied(source: Source) -> Apply:
    """`Form` as a function of (θ, tangents, bar or None) that refuses an order that the problem does not have."""

    def apply(theta: torch.Tensor, tangents: Operands, bar: torch.Tensor | None) -> torch.Tensor:
        order = len(tangents) + (bar is not None)
        source.host.check_order(order)
        refusal = refused(source.host, order + 1)
        if refusal is not None:
            theta = Unsupported.apply(refusal, theta)  # type: ignore[assignment]  # torch leaves apply untyped
        # Torch leaves apply untyped.
        return Form.apply(source, bar is not None, theta, *tangents, *(() if bar is None else (bar,)))  # type: ignore[return-value]

    return apply


def refused(host: Host, order: int) -> str | None:
    """Why the problem has no derivative of an order; None if it has one."""
    try:
        host.check_order(order)
    except ProgramError as error:
        return str(error)
    return None
