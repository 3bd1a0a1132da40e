"""Projections and softmax under bounds along the last axis of tensors: which entries stand at them, and the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cvxift.argmax import bounded, capped, checks
from cvxift.torch import kernels
from cvxift.torch.tensors import numpy_serves, widest

Tensor = torch.Tensor


def _empty_sides(number: int, x: Tensor) -> tuple[Tensor, ...]:
    return (*(torch.empty_like(x, dtype=torch.bool) for _ in range(number)), x.new_empty((*x.shape[:-1], 1)))


@kernels.register("sides", lambda x, *_: _empty_sides(2, x))
def _sides(x: Tensor, total: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, ...]:
    if x.device.type == "cpu":
        return tuple(map(torch.from_numpy, _rows(x, total, lower, upper)[0]))
    checks.check_scores("budget", x)
    checks.check_bounds("budget", x, total, lower.expand(x.shape), upper.expand(x.shape))
    return bounded.sides(x, total, lower, upper)


def _rows(x: Tensor, total: Tensor, lower: Tensor, upper: Tensor) -> tuple[bounded.Sides, np.ndarray]:
    """The sides and the projection by NumPy, checked."""
    scores, need, low, high = x.numpy(), total.numpy(), lower.numpy(), upper.numpy()
    if not _sound(scores, need, low, high):
        checks.check_scores("budget", scores)
        full = (np.broadcast_to(bound, scores.shape) for bound in (low, high))
        checks.check_bounds("budget", scores, need, *full)
    return bounded.rows(scores, need, low, high)


def _sound(x: np.ndarray, total: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> bool:
    """Whether a quick look tells that rows of finite scores under bounds of their own can sum to their totals."""
    if not lower.shape[-1] == upper.shape[-1] == 1:
        return False
    n = x.shape[-1]
    fits = (lower > -np.inf) & (n * lower <= total) & (total <= n * upper)
    return bool(fits.all() and x.max() < np.inf and x.min() > -np.inf)


class _EagerBudget(torch.autograd.Function):
    """`budget` as a function of the scores alone, in an eager call of plain tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, total: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """The projection, in x's dtype."""
        found, z = _rows(x.detach().double(), total, lower, upper)
        ctx.save_for_backward(torch.from_numpy(~(found.at_lower | found.at_upper)))
        return torch.from_numpy(z).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # of any number
        """Between the bounds the entries less their mean."""
        (free,) = ctx.saved_tensors
        bar = torch.where(free, bar, 0.0)
        mean = bar.sum(-1, keepdim=True) / free.sum(-1, keepdim=True).clamp(min=1)
        return torch.where(free, bar - mean, 0.0), None, None, None


def budget(x: Tensor, total: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    if numpy_serves(x) and not any(part.requires_grad for part in (total, lower, upper)):
        return _EagerBudget.apply(x, total, lower, upper)  # type: ignore[return-value]  # torch leaves apply untyped
    return _budget(widest(x), total, lower, upper)


@torch._dynamo.allow_in_graph
def _budget(x: Tensor, total: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    found = bounded.Sides(*kernels.constant("sides", (x, total, lower, upper)))
    return bounded.value(x, total, lower, upper, found)


@kernels.register("caps", lambda x, *_: _empty_sides(1, x))
def _caps(x: Tensor, total: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, ...]:
    checks.check_scores("constrained_softmax", x)
    checks.check_bounds("constrained_softmax", x, total, lower, upper)
    return capped.caps(x, upper)


@torch._dynamo.allow_in_graph
def capped_softmax(x: Tensor, upper: Tensor) -> Tensor:
    found = capped.Caps(*kernels.constant("caps", (x, torch.ones_like(x[..., :1]), torch.zeros_like(x), upper)))
    return capped.value(x, upper, found)
