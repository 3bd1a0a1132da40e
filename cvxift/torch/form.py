"""The solution map's derivative of any order in given directions, and its transpose, closed under differentiation.

    forward(θ; θ̇₁ … θ̇ₖ)       = Dᵏz(θ)[θ̇₁, …, θ̇ₖ]                    k = 0 is the solution itself
    adjoint(θ; θ̇₁ … θ̇ₖ₋₁, z̄)  = ∇_θ ⟨z̄, Dᵏ⁻¹z(θ)[θ̇₁, …, θ̇ₖ₋₁]⟩

Both are linear in every operand but θ. A tangent replaces a direction or, of θ, adds one; a cotangent of the result
takes the place of the operand whose gradient is asked for. So both modes and every order come from these two.

Operands have shape (*lead, ·), with as many leading dimensions each, which broadcast. `torch.func.vmap` adds one, of
length 1 on operands that it does not map: a vmapped solve is one batch, and directions that it maps are so many
right-hand sides of one factorization.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cvxift.errors import ProgramError
from cvxift.layers.solve_cache import Host, Options
from cvxift.torch.device import form_there, resident
from cvxift.torch.nested import keep, nested, primals

Operands = tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class Source:
    """Who computes a form.

    Attributes:
        host: solutions and derivatives by θ.
        options: of the call.
        key: the host's name among the operators; see `cvxift.torch.operators`.
    """

    host: Host
    options: Options
    key: str

    def __call__(self, theta: torch.Tensor, tangents: Operands, bar: torch.Tensor | None) -> torch.Tensor:
        """Compute a form: on the tensors' device if the layer resides there, else on the host.

        Args:
            theta: shape (*lead, N).
            tangents: shapes (*lead, N).
            bar: shape (*lead, K) for the adjoint form, None for the forward one.

        Returns:
            Shape (*lead, N) for the adjoint form, (*lead, K) for the forward one, of θ's dtype and device.
        """
        there = resident(self.host, theta)
        if there is not None:
            return form_there(there, theta, tangents, bar, self.options)
        if not tangents and bar is None:
            return to_torch(np.array(self.host.solution(to_numpy(theta), self.options)), theta)
        dots = [to_numpy(tangent) for tangent in tangents]
        out = self.host.derivative(to_numpy(theta), dots, None if bar is None else to_numpy(bar), self.options)
        return to_torch(np.array(out), theta)


class Form(torch.autograd.Function):
    """Either form; the last direction is z̄ where `adjoint` is set."""

    @staticmethod
    def forward(source: Source, adjoint: bool, theta: torch.Tensor, *directions: torch.Tensor) -> torch.Tensor:
        """Compute."""
        tangents, bar = split(adjoint, directions)
        if any(map(is_legacy_batched, (theta, *directions))):
            # `torch.autograd.grad(is_grads_batched=True)` maps operators row by row, not autograd functions.
            from cvxift.torch.operators import compute, encoded

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


Apply = Callable[[torch.Tensor, Operands, "torch.Tensor | None"], torch.Tensor]


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


def cotangents(
    apply: Apply,
    wanted: Sequence[bool],
    adjoint: bool,
    theta: torch.Tensor,
    directions: Sequence[torch.Tensor],
    g: torch.Tensor,
) -> list[torch.Tensor | None]:
    """Gradients with respect to θ and the directions of ⟨g, form(θ; directions)⟩.

    Args:
        apply: computes a form.
        wanted: which gradients are needed.
        adjoint: whether the form is the adjoint one.
        theta: shape (*lead, N).
        directions: shapes (*lead, ·); z̄ last in the adjoint form.
        g: cotangent of the form.
    """
    tangents, bar = split(adjoint, directions)
    # ⟨g, adjoint(θ; t…, z̄)⟩ = ⟨z̄, forward(θ; t…, g)⟩: in the adjoint form g is one more tangent, in the forward form z̄.
    dots, output_bar = ((*tangents, g), bar) if adjoint else (tangents, g)
    grads: list[torch.Tensor | None] = [None] * (1 + len(directions))
    if wanted[0]:
        grads[0] = summed(apply(theta, dots, output_bar), theta)
    for i, tangent in enumerate(tangents, start=1):
        if wanted[i]:
            grads[i] = summed(apply(theta, (*dots[: i - 1], *dots[i:]), output_bar), tangent)
    if bar is not None and wanted[-1]:
        grads[-1] = summed(apply(theta, dots, None), bar)
    return grads


def split(adjoint: bool, directions: Sequence[torch.Tensor]) -> tuple[Operands, torch.Tensor | None]:
    """The tangents and z̄, None in the forward form."""
    return (tuple(directions[:-1]), directions[-1]) if adjoint else (tuple(directions), None)


def summed(grad: torch.Tensor, operand: torch.Tensor) -> torch.Tensor:
    """The gradient summed over the leading dimensions along which the operand was shared."""
    return grad if grad.shape == operand.shape else grad.sum_to_size(operand.shape)


def leading(in_dims: Sequence[int | None], operands: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The operands with a mapped dimension in front, of length 1 on those that are not mapped."""
    return [
        operand.unsqueeze(0) if dim is None else operand.movedim(dim, 0)
        for operand, dim in zip(operands, in_dims, strict=True)
    ]


def is_legacy_batched(tensor: torch.Tensor) -> bool:
    """Whether `torch.autograd.grad(is_grads_batched=True)` maps over the tensor."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor)  # pyright: ignore[reportAttributeAccessIssue]


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's values as a float64 array on the CPU; shares memory where it can."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype is not torch.float64 or not tensor.is_cpu:  # a `to` without effect costs as much as a small product
        tensor = tensor.to(device="cpu", dtype=torch.float64)
    return tensor.numpy()


def to_torch(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """An array as a tensor of the other's dtype and device."""
    tensor = torch.from_numpy(np.asarray(array, order="C"))
    if like.dtype is not torch.float64 or not like.is_cpu:
        tensor = tensor.to(device=like.device, dtype=like.dtype)
    return tensor
