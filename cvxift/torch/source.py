"""Who computes the derivatives of a layer's solution map, and what operators and autograd functions of them share.

The forms are those of `cvxift.torch.form`. Operands have shape (*lead, ·), with as many leading dimensions each, which
broadcast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cvxift.layers.solve_cache import Host, Options
from cvxift.torch.device import form_there

Operands = tuple[torch.Tensor, ...]
Apply = Callable[[torch.Tensor, Operands, "torch.Tensor | None"], torch.Tensor]  # θ, tangents, z̄ ↦ a form


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
        there = None if self.host.residence is None else self.host.residence.at(theta.device)
        if there is not None:
            return form_there(there, theta, tangents, bar, self.options)
        if not tangents and bar is None:
            return to_torch(np.array(self.host.solution(to_numpy(theta), self.options)), theta)
        dots = [to_numpy(tangent) for tangent in tangents]
        out = self.host.derivative(to_numpy(theta), dots, None if bar is None else to_numpy(bar), self.options)
        return to_torch(np.array(out), theta)


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
