"""Closed-form argmax maps and Fenchel–Young losses on tensors: exact, differentiable to any order, O(n) memory.

Every function takes any shape, float16, bfloat16, float32 or float64 (the halves compute in float32), masks by −∞
(fully masked rows give zeros), and works under ``torch.func``.
"""

from __future__ import annotations

from typing import Any

import torch

from cvxift.argmax import closed
from cvxift.errors import ProgramError

Tensor = torch.Tensor
HALVES = (torch.float16, torch.bfloat16)


class _Entmax(torch.autograd.Function):
    """α-entmax along the last axis; the derivative is a function of the output alone."""

    @staticmethod
    def forward(x: Tensor, alpha: Tensor) -> Tensor:
        """The closed form."""
        order = float(alpha)
        return torch.softmax(x, -1) if order == 1.0 else closed.entmax(x, order, _leaders)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep the output."""
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)
        ctx.order = float(inputs[1])

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, bar: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Vector-Jacobian product, of differentiable operations."""
        (z,) = ctx.saved_tensors
        dx = closed.entmax_derivative(z, bar, ctx.order) if ctx.needs_input_grad[0] else None
        dalpha = (bar * closed.entmax_order_derivative(z, ctx.order)).sum() if ctx.needs_input_grad[1] else None
        return dx, dalpha

    @staticmethod
    def jvp(  # type: ignore[override]
        ctx: Any, dx: Tensor | None, dalpha: Tensor | None
    ) -> Tensor:
        """Jacobian-vector product."""
        (z,) = ctx.saved_tensors
        dz = torch.zeros_like(z) if dx is None else closed.entmax_derivative(z, dx, ctx.order)
        return dz if dalpha is None else dz + dalpha * closed.entmax_order_derivative(z, ctx.order)

    @staticmethod
    def vmap(  # type: ignore[override]
        info: Any, in_dims: tuple[int | None, int | None], x: Tensor, alpha: Tensor
    ) -> tuple[Tensor, int]:
        """The mapped dimension becomes one more batch dimension."""
        if in_dims[1] is not None:
            raise ProgramError("alpha cannot be mapped by torch.vmap; call entmax for each alpha.")
        return _Entmax.apply(x.movedim(in_dims[0], 0), alpha), 0  # type: ignore[return-value, arg-type]


def entmax(x: Tensor, alpha: float | Tensor = 1.5, dim: int = -1, temperature: float | Tensor = 1.0) -> Tensor:
    """α-entmax: argmax over the simplex of xᵀz − temperature·Ω_α(z), Ω_α the negative Tsallis entropy.

    Args:
        x: scores of any shape; −∞ masks.
        alpha: order ≥ 1, a number or a 0-d tensor (which may require a gradient); 1 is softmax, 2 sparsemax.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x.

    Returns:
        Distributions of x's shape, dtype and device.

    Raises:
        ProgramError: α < 1, temperature ≤ 0, an integer dtype, no such dimension, NaN or +∞ scores.

    Source: Peters, Niculae, Martins 2019; ∂/∂α: Correia, Niculae, Martins 2019.

    Example:
        >>> import torch
        >>> from cvxift.torch import entmax
        >>> entmax(torch.tensor([1.0, 1.0, -3.0, -torch.inf]))
        tensor([0.5000, 0.5000, 0.0000, 0.0000])
    """
    order = float(alpha.detach()) if isinstance(alpha, Tensor) and alpha.ndim == 0 else alpha
    if not isinstance(order, float | int) or not 1 <= order < float("inf"):
        raise ProgramError(f"alpha = {alpha}; entmax expects one finite number ≥ 1.")
    scores = _scores("entmax", x, dim, temperature)
    order_tensor = alpha if isinstance(alpha, Tensor) else torch.tensor(float(order), dtype=torch.float64)
    if order == 1 and not order_tensor.requires_grad:
        return softmax(x, dim, temperature)
    moved = scores.movedim(dim, -1)
    masked = _check_scores(moved)
    z: Tensor = _Entmax.apply(moved, order_tensor)  # type: ignore[assignment]
    return (z.masked_fill(masked, 0.0) if order == 1 else z).movedim(-1, dim).to(x.dtype)


def sparsemax(x: Tensor, dim: int = -1, temperature: float | Tensor = 1.0) -> Tensor:
    """Sparsemax: the Euclidean projection of x / temperature onto the simplex.

    Args:
        x: scores of any shape; −∞ masks.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x.

    Returns:
        Distributions of x's shape, dtype and device.

    Raises:
        ProgramError: temperature ≤ 0, an integer dtype, no such dimension, NaN or +∞ scores.

    Source: Martins & Astudillo 2016.

    Example:
        >>> import torch
        >>> from cvxift.torch import sparsemax
        >>> sparsemax(torch.tensor([0.5, 0.4, -1.0]))
        tensor([0.5500, 0.4500, 0.0000])
    """
    return entmax(x, 2.0, dim, temperature)


def softmax(x: Tensor, dim: int = -1, temperature: float | Tensor = 1.0) -> Tensor:
    """Softmax, with zeros for fully masked rows.

    Args:
        x: scores of any shape; −∞ masks.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x.

    Returns:
        Distributions of x's shape, dtype and device.

    Raises:
        ProgramError: temperature ≤ 0, an integer dtype, no such dimension, NaN or +∞ scores.

    Source: Boltzmann 1868.

    Example:
        >>> import torch
        >>> from cvxift.torch import softmax
        >>> softmax(torch.tensor([[0.0, 0.0], [-torch.inf, -torch.inf]]))
        tensor([[0.5000, 0.5000],
                [0.0000, 0.0000]])
    """
    scores = _scores("softmax", x, dim, temperature)
    if scores.shape[dim] == 0:
        return torch.zeros_like(x)
    if _mapped(scores):  # no branch may look at the values
        masked = scores.detach().amax(dim, keepdim=True) == -float("inf")
        return torch.softmax(scores.masked_fill(masked, 0.0), dim).masked_fill(masked, 0.0).to(x.dtype)
    z = torch.softmax(scores, dim)
    if bool(torch.isnan(z.detach().select(dim, 0)).any()):  # a row is NaN altogether or not at all
        masked = _check_scores(scores.movedim(dim, -1)).movedim(-1, dim)
        z = torch.softmax(scores.masked_fill(masked, 0.0), dim).masked_fill(masked, 0.0)
    return z.to(x.dtype)


def budget(
    x: Tensor,
    total: float | Tensor = 1.0,
    lower: float | Tensor = 0.0,
    upper: float | Tensor = 1.0,
    dim: int = -1,
) -> Tensor:
    """Projection of x onto {l ≤ z ≤ u, Σ z = total}: soft choice of ``total`` entries, within bounds.

    Args:
        x: finite scores of any shape.
        total: required sum; a number, or a tensor of x's shape with size one along ``dim``.
        lower: lower bounds, broadcast against x.
        upper: upper bounds, broadcast against x.
        dim: the dimension that is summed.

    Returns:
        z of x's shape; differentiable in x, total and the bounds.

    Raises:
        ProgramError: the set is empty, bounds cross, or the scores are not finite.

    Source: Brucker 1984 (continuous quadratic knapsack).

    Example:
        >>> import torch
        >>> from cvxift.torch import budget
        >>> budget(torch.tensor([3.0, 0.5, 0.4, -2.0]), total=2.0)
        tensor([1.0000, 0.5500, 0.4500, 0.0000])
    """
    scores = _scores("budget", x, dim, 1.0).movedim(dim, -1)
    low, high = (_bound(bound, scores, x, dim) for bound in (lower, upper))
    need = torch.as_tensor(total, dtype=scores.dtype, device=scores.device)
    need = (need.movedim(dim, -1) if need.ndim == x.ndim and need.ndim else need).expand(*scores.shape[:-1], 1)
    with torch.no_grad():
        if not bool(torch.isfinite(scores).all()):
            raise ProgramError("budget got scores that are NaN or infinite; mask an entry by an upper bound of 0.")
        if not bool((low <= high).all()):
            raise ProgramError("budget: a lower bound exceeds its upper bound, so the set is empty.")
        slack = 1e-6 * (1 + need.abs())
        least, most = low.sum(-1, keepdim=True), high.sum(-1, keepdim=True)
        if not bool(((least <= need + slack) & (need <= most + slack)).all()):
            raise ProgramError(
                f"budget: no z within the bounds sums to total; the sums run from {float(least.max())} to "
                f"{float(most.min())}, total is {float(need.min())} to {float(need.max())}."
            )
        sides = closed.budget_sides(scores.detach(), need, low, high)
    return closed.budget_value(scores, need, low, high, *sides).movedim(-1, dim).to(x.dtype)


def constrained_sparsemax(x: Tensor, upper: float | Tensor, dim: int = -1) -> Tensor:
    """Sparsemax under upper bounds: argmax over {0 ≤ z ≤ u, Σ z = 1} of xᵀz − ½‖z‖².

    Args:
        x: finite scores.
        upper: upper bounds, broadcast against x.
        dim: the dimension along which the distributions lie.

    Returns:
        Distributions of x's shape; differentiable in x and the bounds.

    Raises:
        ProgramError: the bounds sum to less than 1, or the scores are not finite.

    Source: Malaviya, Ferreira, Martins 2018.

    Example:
        >>> import torch
        >>> from cvxift.torch import constrained_sparsemax
        >>> constrained_sparsemax(torch.tensor([3.0, 1.0, 0.0]), 0.5)
        tensor([0.5000, 0.5000, 0.0000])
    """
    return budget(x, 1.0, 0.0, upper, dim)


def constrained_softmax(x: Tensor, upper: float | Tensor, dim: int = -1) -> Tensor:
    """Softmax under upper bounds: argmax over {0 ≤ z ≤ u, Σ z = 1} of xᵀz − Σ z log z.

    Args:
        x: finite scores.
        upper: nonnegative upper bounds, broadcast against x.
        dim: the dimension along which the distributions lie.

    Returns:
        Distributions of x's shape; differentiable in x and the bounds.

    Raises:
        ProgramError: the bounds sum to less than 1, are negative, or the scores are not finite.

    Source: Martins & Kreutzer 2017.

    Example:
        >>> import torch
        >>> from cvxift.torch import constrained_softmax
        >>> constrained_softmax(torch.tensor([3.0, 0.0, 0.0]), 0.5)
        tensor([0.5000, 0.2500, 0.2500])
    """
    scores = _scores("constrained_softmax", x, dim, 1.0).movedim(dim, -1)
    high = _bound(upper, scores, x, dim)
    with torch.no_grad():
        if not bool(torch.isfinite(scores).all()):
            raise ProgramError("constrained_softmax got scores that are NaN or infinite; mask by an upper bound of 0.")
        if not bool((high >= 0).all()) or not bool((high.sum(-1) >= 1 - 1e-6).all()):
            raise ProgramError("constrained_softmax: upper must be ≥ 0 and sum to at least 1; the set is empty.")
        capped = closed.caps(scores.detach(), high)
    return closed.capped_value(scores, high, capped).movedim(-1, dim).to(x.dtype)


class _Loss(torch.autograd.Function):
    """Fenchel–Young loss: its gradient is prediction − target, so the solver is not differentiated."""

    @staticmethod
    def forward(theta: Tensor, target: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
        """Loss and prediction."""
        z = torch.softmax(theta, -1) if alpha == 1 else closed.entmax(theta, alpha, _leaders)
        held = torch.where(z > 0, theta, 0.0)  # −∞ carries no mass
        own = torch.where(target > 0, theta, 0.0)
        gap = _omega(target, alpha) - _omega(z, alpha)
        return gap + (held * z - own * target).sum(-1), z

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        """Keep the target and the scores."""
        ctx.save_for_backward(inputs[0], inputs[1])
        ctx.alpha = inputs[2]
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, bar: Tensor, _: Tensor
    ) -> tuple[Tensor, None, None]:
        """Prediction − target, itself differentiable in the scores."""
        theta, target = ctx.saved_tensors
        return bar.unsqueeze(-1) * (entmax(theta, ctx.alpha) - target), None, None


def fenchel_young_loss(theta: Tensor, target: Tensor, alpha: float = 1.5, dim: int = -1) -> Tensor:
    """Fenchel–Young loss of α-entmax: Ω*(θ) + Ω(y) − θᵀy, with gradient entmax(θ) − y.

    Args:
        theta: scores of any shape.
        target: distributions y of θ's shape; no gradient flows to them.
        alpha: order ≥ 1; 1 is the cross-entropy with logits minus the target's entropy, 2 the sparsemax loss.
        dim: the dimension along which the distributions lie.

    Returns:
        Losses ≥ 0, of θ's shape without ``dim``.

    Raises:
        ProgramError: as for `entmax`, or the shapes differ.

    Source: Blondel, Martins, Niculae 2020, Definition 2 and Proposition 2.

    Example:
        >>> import torch
        >>> from cvxift.torch import fenchel_young_loss
        >>> fenchel_young_loss(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]), alpha=2)
        tensor(0.)
    """
    if theta.shape != target.shape:
        raise ProgramError(f"target has shape {tuple(target.shape)}; expected theta's, {tuple(theta.shape)}.")
    if not 1 <= alpha < float("inf"):
        raise ProgramError(f"alpha = {alpha}; the loss expects a finite number ≥ 1.")
    scores = _scores("fenchel_young_loss", theta, dim, 1.0).movedim(dim, -1)
    _check_scores(scores)
    loss, _ = _Loss.apply(scores, target.to(scores.dtype).movedim(dim, -1), float(alpha))  # type: ignore[misc]
    return loss.to(theta.dtype)


def _leaders(scores: Tensor) -> Tensor:
    """Rows of the entries that can exceed the threshold, those > −1, packed to the left and filled up with −1."""
    inside = scores > -1.0
    longest = int(inside.sum(-1, dtype=torch.int32).max()) if inside.numel() else 0
    if longest == 0 or 4 * longest > scores.shape[-1]:
        return scores
    flat, mask = scores.reshape(-1, scores.shape[-1]), inside.reshape(-1, scores.shape[-1])
    row, _ = where = mask.nonzero(as_tuple=True)
    counts = mask.sum(-1)
    place = torch.arange(row.numel(), device=row.device) - (counts.cumsum(0) - counts)[row]
    packed = flat.new_full((flat.shape[0], longest), -1.0)
    packed[row, place] = flat[where]
    return packed.reshape(*scores.shape[:-1], longest)


def _omega(z: Tensor, alpha: float) -> Tensor:
    if alpha == 1:
        return torch.special.xlogy(z, z).sum(-1)
    return (z**alpha - z).sum(-1) / (alpha * (alpha - 1))


def _scores(name: str, x: Tensor, dim: int, temperature: float | Tensor) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ProgramError(f"{name} got scores of type {kind}; expected a floating tensor. Convert it with .float().")
    if not -x.ndim <= dim < x.ndim:
        raise ProgramError(f"{name} got dim = {dim}, but the scores have shape {tuple(x.shape)}.")
    if isinstance(temperature, float | int) and temperature == 1:
        return x.float() if x.dtype in HALVES else x
    if not bool((torch.as_tensor(temperature) > 0).all()):
        raise ProgramError(f"{name} got temperature = {temperature}; it must be > 0.")
    return (x.float() if x.dtype in HALVES else x) / temperature


def _check_scores(scores: Tensor) -> Tensor:
    """Fully masked rows, (..., 1); raises where a score is NaN or +∞."""
    if scores.shape[-1] == 0:
        return torch.zeros((*scores.shape[:-1], 1), dtype=torch.bool, device=scores.device)
    top = scores.detach().amax(-1, keepdim=True)
    if not _mapped(top) and bool((torch.isnan(top) | (top == float("inf"))).any()):
        bad = torch.nonzero((torch.isnan(top) | (top == float("inf"))).squeeze(-1))[0].tolist()
        raise ProgramError(f"The scores hold NaN or +∞, first in row {tuple(bad)}; −∞ alone is a mask.")
    return top == -float("inf")


def _mapped(x: Tensor) -> bool:
    """Whether the tensor stands for many under ``torch.vmap``."""
    return torch._C._functorch.is_batchedtensor(x)  # type: ignore[attr-defined]


def _bound(bound: float | Tensor, scores: Tensor, x: Tensor, dim: int) -> Tensor:
    tensor = torch.as_tensor(bound, dtype=scores.dtype, device=scores.device)
    return tensor.expand(x.shape).movedim(dim, -1)
