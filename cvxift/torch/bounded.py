"""Argmax maps under bounds on tensors: budget, constrained sparsemax, constrained softmax, box.

Which entries stand at their bounds is found without a derivative; given that, the maps are affine or a softmax, and
their derivatives, of any order and in the scores, bounds and sums, are PyTorch's own. Computed in float64 where the
device has it, whatever the dtype: bounds and sums are met to the rounding of the result.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from cvxift.argmax import bounded, capped, checks
from cvxift.errors import ProgramError
from cvxift.torch import kernels
from cvxift.torch.tensors import bound_of, numpy_serves, placed, scores_of, temperature_of, visible

Tensor = torch.Tensor


def _empty_sides(number: int, x: Tensor) -> tuple[Tensor, ...]:
    return (*(torch.empty_like(x, dtype=torch.bool) for _ in range(number)), x.new_empty((*x.shape[:-1], 1)))


@kernels.register("sides", lambda x, *_: _empty_sides(2, x))
def _find_sides(x: Tensor, total: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, ...]:
    if x.device.type == "cpu":
        return tuple(map(torch.from_numpy, _rows(x, total, lower, upper)[0]))
    checks.check_scores("budget", x)
    checks.check_bounds("budget", x, total, lower, upper)
    return bounded.sides(x, total, lower, upper)


def _rows(x: Tensor, total: Tensor, lower: Tensor, upper: Tensor) -> tuple[bounded.Sides, np.ndarray]:
    """The sides and the projection by NumPy, checked; bounds that were expanded along the rows are one number each."""
    low, high = ((part[..., :1] if part.stride(-1) == 0 else part).numpy() for part in (lower, upper))
    scores, need = x.numpy(), total.numpy()
    if not _sound(scores, need, low, high):
        checks.check_scores("budget", scores)
        checks.check_bounds("budget", scores, need, lower.numpy(), upper.numpy())
    return bounded.rows(scores, need, low, high)


def _sound(x: np.ndarray, total: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> bool:
    """Whether a quick look tells that rows of finite scores under bounds of their own can sum to their totals."""
    if not lower.shape[-1] == upper.shape[-1] == 1:
        return False
    n = x.shape[-1]
    fits = (lower > -np.inf) & (n * lower <= total) & (total <= n * upper)
    return bool(fits.all() and x.max() < np.inf and x.min() > -np.inf)


class _Plain(torch.autograd.Function):
    """`_budget` as a function of the scores alone, in an eager call of plain tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, total: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """The projection, in x's dtype."""
        found, z = _rows(x.detach().double(), total, lower, upper)
        ctx.save_for_backward(torch.from_numpy(~(found.at_lower | found.at_upper)))
        return torch.from_numpy(z).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Between the bounds the entries less their mean."""
        (free,) = ctx.saved_tensors
        bar = torch.where(free, bar, 0.0)
        mean = bar.sum(-1, keepdim=True) / free.sum(-1, keepdim=True).clamp(min=1)
        return torch.where(free, bar - mean, 0.0), None, None, None


@kernels.register("caps", lambda x, *_: _empty_sides(1, x))
def _find_caps(x: Tensor, total: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, ...]:
    checks.check_scores("constrained_softmax", x)
    checks.check_bounds("constrained_softmax", x, total, lower, upper)
    return capped.caps(x, upper)


@torch._dynamo.allow_in_graph
def _budget(x: Tensor, total: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    found = bounded.Sides(*kernels.constant("sides", (x, total, lower, upper)))
    return bounded.value(x, total, lower, upper, found)


@torch._dynamo.allow_in_graph
def _capped(x: Tensor, upper: Tensor) -> Tensor:
    found = capped.Caps(*kernels.constant("caps", (x, torch.ones_like(x[..., :1]), torch.zeros_like(x), upper)))
    return capped.value(x, upper, found)


def _wide(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()


def budget(
    x: Tensor,
    total: float | Tensor = 1.0,
    lower: float | Tensor = 0.0,
    upper: float | Tensor = 1.0,
    dim: int = -1,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    """Projection of x / temperature onto {l ≤ z ≤ u, Σ z = total}: soft choice of ``total`` entries, within bounds.

    Args:
        x: scores of any shape; an entry at −∞ is masked: it stands at its lower bound, and so do all, whatever the
            total, where a whole row is masked.
        total: required sum; a number, or a tensor of x's shape with size one along ``dim``.
        lower: finite lower bounds, broadcast against x.
        upper: upper bounds, broadcast against x; may be +∞.
        dim: the dimension that is summed.
        temperature: > 0, a number or a tensor that broadcasts against x.

    Returns:
        z of x's shape; differentiable in x, total, the bounds and the temperature.

    Raises:
        ProgramError: the set is empty, bounds cross, temperature ≤ 0, an integer dtype, NaN or +∞ scores.

    Source: Brucker 1984 (continuous quadratic knapsack).

    Example:
        >>> import torch
        >>> from cvxift.torch import budget
        >>> budget(torch.tensor([3.0, 0.5, 0.4, -2.0]), total=2.0)
        tensor([1.0000, 0.5500, 0.4500, 0.0000])
    """
    scores = scores_of("budget", x, dim, temperature)
    wide = scores.dtype if x.device.type == "mps" else torch.float64
    low = bound_of("budget", "lower", lower, wide, scores, x.shape, dim)
    high = bound_of("budget", "upper", upper, wide, scores, x.shape, dim)
    whole = list(x.shape)
    whole[dim] = 1
    need = bound_of("budget", "total", total, wide, scores, torch.Size(whole), dim)
    if scores.numel() == 0:
        return x  # keeps its graph
    if numpy_serves(scores) and not any(part.requires_grad for part in (need, low, high)):
        return placed(_Plain.apply(scores, need, low, high), dim, x)  # type: ignore[arg-type]
    return placed(_budget(_wide(scores), need, low, high), dim, x)


def constrained_sparsemax(x: Tensor, upper: float | Tensor, dim: int = -1, temperature: float | Tensor = 1.0) -> Tensor:
    """Sparsemax under upper bounds: argmax over {0 ≤ z ≤ u, Σ z = 1} of xᵀz − ½ temperature·‖z‖².

    Args:
        x: scores; −∞ masks.
        upper: upper bounds, broadcast against x.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x.

    Returns:
        Distributions of x's shape; zero for fully masked rows; differentiable in x, the bounds and the temperature.

    Raises:
        ProgramError: the bounds sum to less than 1; otherwise as for `budget`.

    Source: Malaviya, Ferreira, Martins 2018.

    Example:
        >>> import torch
        >>> from cvxift.torch import constrained_sparsemax
        >>> constrained_sparsemax(torch.tensor([3.0, 1.0, 0.0]), 0.5)
        tensor([0.5000, 0.5000, 0.0000])
    """
    return budget(x, 1.0, 0.0, upper, dim, temperature)


def constrained_softmax(x: Tensor, upper: float | Tensor, dim: int = -1, temperature: float | Tensor = 1.0) -> Tensor:
    """Softmax under upper bounds: argmax over {0 ≤ z ≤ u, Σ z = 1} of xᵀz − temperature·Σ z log z.

    Args:
        x: scores; −∞ masks.
        upper: nonnegative upper bounds, broadcast against x; may be +∞.
        dim: the dimension along which the distributions lie.
        temperature: > 0, a number or a tensor that broadcasts against x.

    Returns:
        Distributions of x's shape; zero for fully masked rows; differentiable in x, the bounds and the temperature.

    Raises:
        ProgramError: the bounds are negative or sum to less than 1, temperature ≤ 0, an integer dtype, NaN or +∞
            scores.

    Source: Martins & Kreutzer 2017.

    Example:
        >>> import torch
        >>> from cvxift.torch import constrained_softmax
        >>> constrained_softmax(torch.tensor([3.0, 0.0, 0.0]), 0.5)
        tensor([0.5000, 0.2500, 0.2500])
    """
    scores = _wide(scores_of("constrained_softmax", x, dim, temperature))
    high = bound_of("constrained_softmax", "upper", upper, scores.dtype, scores, x.shape, dim)
    if scores.numel() == 0:
        return x
    return _capped(scores, high).movedim(-1, dim).to(x.dtype)


def box(
    x: Tensor,
    lower: float | Tensor = 0.0,
    upper: float | Tensor = 1.0,
    temperature: float | Tensor = 1.0,
    regularizer: Literal["entropic", "quadratic"] = "entropic",
) -> Tensor:
    """Argmax over a box of xᵀz − temperature·Ω(z): sigmoids, or clipped scores.

    Args:
        x: scores of any shape; −∞ gives the lower bound, +∞ the upper.
        lower: finite lower bounds, broadcast against x.
        upper: finite upper bounds ≥ lower, broadcast against x.
        temperature: > 0, a number or a tensor that broadcasts against x.
        regularizer: ``"entropic"``, Ω = Σ (z−l) log(z−l) + (u−z) log(u−z), or ``"quadratic"``, Ω = ½‖z‖².

    Returns:
        z = l + (u − l)/(1 + exp(−x/temperature)), or clip(x/temperature, l, u); of x's shape and dtype.

    Raises:
        ProgramError: bounds cross, temperature ≤ 0, an integer dtype, NaN scores, an unknown regularizer.

    Source: Blondel, Martins, Niculae 2020, section 6.

    Example:
        >>> import torch
        >>> from cvxift.torch import box
        >>> box(torch.tensor([0.0, 2.0])), box(torch.tensor([0.3, 2.0]), regularizer="quadratic")
        (tensor([0.5000, 0.8808]), tensor([0.3000, 1.0000]))
    """
    if regularizer not in ("entropic", "quadratic"):
        raise ProgramError(f"box got regularizer = {regularizer!r}; expected 'entropic' or 'quadratic'.")
    scores = scores_of("box", x.unsqueeze(-1) if isinstance(x, Tensor) and x.ndim == 0 else x, -1, 1.0)
    scores = scores.reshape(x.shape) / temperature_of("box", temperature, scores)
    low = bound_of("box", "lower", lower, scores.dtype, scores, x.shape, -1)
    high = bound_of("box", "upper", upper, scores.dtype, scores, x.shape, -1)
    if regularizer == "quadratic":
        z = torch.minimum(torch.maximum(scores, low), high)
    else:
        z = low + (high - low) * torch.sigmoid(scores)
    if all(visible(tensor) for tensor in (scores, low, high)):
        checks.check_box("box", scores.detach(), low.detach(), high.detach())
    else:
        z = checks.spoiled(torch, z, checks.out_of_box(torch, scores, low, high))
    return z.to(x.dtype)
