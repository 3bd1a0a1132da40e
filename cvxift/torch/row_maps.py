"""α-entmax, its losses, and maps under bounds along the last axis of tensors: kernels, rules, a fast way if eager."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cvxift.argmax import bounded, capped, checks, derivatives, losses, short_rows, tsallis
from cvxift.argmax import simplex as maps
from cvxift.torch import kernels, rule
from cvxift.torch.tensors import numpy_serves, visible, widest

Tensor = torch.Tensor


@kernels.register("entmax", lambda x, *_: (torch.empty_like(x, memory_format=torch.contiguous_format),))
def _entmax(x: Tensor, alpha: float | Tensor) -> tuple[Tensor]:
    checks.check_scores("entmax", x)
    if isinstance(alpha, Tensor):
        checks.guarded(torch, "entmax", checks.ORDER, alpha, True)
    if isinstance(alpha, Tensor) and alpha.numel() == 1 and alpha.device.type == "cpu":
        alpha = float(alpha)  # one number has faster ways
    if isinstance(alpha, float) and x.device.type == "cpu" and short_rows.serves(x.numel(), x.shape[-1], alpha):
        z = short_rows.entmax(x.numpy(), alpha)
        if z is not None:
            return (torch.from_numpy(z).to(x.dtype),)
    # Accelerators hold float64 slowly or not at all, if they are not made for science; their rows need no shortening.
    return (maps.entmax(x, alpha, wide=x.device.type != "mps"),)


_OF_ENTMAX, _OF_ENTMAX_AND_ORDER = (derivatives.of_entmax(order) for order in (False, True))


class _ShortEntmax(torch.autograd.Function):
    """The same for `short_rows` of plain tensors, in NumPy, with as little around it as can be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        """The closed form."""
        z = short_rows.entmax(x.detach().numpy(), alpha)
        out = _entmax(x.detach(), alpha)[0] if z is None else torch.from_numpy(z).to(x.dtype)
        ctx.save_for_backward(out)
        ctx.alpha = alpha
        return out

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Vector-Jacobian product; of differentiable operations where it is to be differentiated, or is mapped."""
        (z,) = ctx.saved_tensors
        if torch.is_grad_enabled() or not numpy_serves(bar):
            return tsallis.derivative(z, bar, ctx.alpha), None
        return torch.from_numpy(short_rows.derivative(z.numpy(), bar.numpy(), ctx.alpha)), None


@torch._dynamo.allow_in_graph
def entmax(x: Tensor, alpha: float | Tensor) -> Tensor:
    if short_rows.serves(x.numel(), x.shape[-1], alpha) and numpy_serves(x):
        return _ShortEntmax.apply(x, alpha)  # type: ignore[return-value]  # torch leaves apply untyped
    if not x.numel():
        return x  # keeps its graph
    if isinstance(alpha, Tensor):
        return rule.apply("entmax", _OF_ENTMAX_AND_ORDER, (x, alpha))[0]
    return rule.apply("entmax", _OF_ENTMAX, (x,), alpha)[0]


def softmax(x: Tensor) -> Tensor:
    if x.numel() == 0:
        return x
    if visible(x):
        z = torch.softmax(x, -1)
        if not bool(torch.isnan(z.detach()[..., 0]).any()):  # a row is NaN altogether or not at all
            return z
        checks.check_scores("softmax", x.detach())
    masked = x.detach().amax(-1, keepdim=True) == -float("inf")
    return torch.softmax(x.masked_fill(masked, 0.0), -1).masked_fill(masked, 0.0)


@kernels.register(
    "Fenchel-Young loss", lambda theta, *_: (theta.new_empty((*theta.shape[:-1], 1)), theta.new_empty(theta.shape))
)
def _loss(theta: Tensor, y: Tensor, alpha: float | Tensor) -> tuple[Tensor, Tensor]:
    """The loss and the prediction."""
    if (
        isinstance(alpha, float)
        and theta.device.type == "cpu"
        and short_rows.serves(theta.numel(), theta.shape[-1], alpha)
    ):
        scores = theta.numpy()
        z = short_rows.entmax(scores, alpha)
        if z is not None:
            d = np.subtract(scores, np.maximum.reduce(scores, axis=-1, keepdims=True), dtype=np.float64)
            target = y.numpy().astype(np.float64)
            short_rows.check_targets(scores, target)
            value = np.add.reduce(losses.terms(np, d, target, z, alpha), axis=-1, keepdims=True)
            return torch.from_numpy(value.astype(scores.dtype)), torch.from_numpy(z).to(theta.dtype)
    z = entmax(theta, alpha)
    losses.check_targets(theta, y)
    return losses.fenchel_young(theta, y, z, alpha), z


# The prediction is taken for constant, but where a derivative is differentiated.
_OF_LOSS, _OF_LOSS_AND_ORDER = (derivatives.of_entmax_loss(entmax, order) for order in (False, True))


class _EagerLoss(torch.autograd.Function):
    """The loss in an eager call of plain tensors, the prediction kept, with as little around it as can be."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, y: Tensor, alpha: float) -> Tensor:
        """The loss."""
        value, z = _loss(theta.detach(), y, alpha)
        ctx.save_for_backward(theta, y, z)
        ctx.alpha = alpha
        return torch.from_numpy(value.numpy()[..., 0])  # a view could not be changed in place

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """Prediction − target, itself differentiable where that is asked for."""
        theta, y, z = ctx.saved_tensors
        z = entmax(theta, ctx.alpha) if torch.is_grad_enabled() else z
        return bar.unsqueeze(-1) * (z - y), None, None


@torch._dynamo.allow_in_graph
def entmax_loss(theta: Tensor, y: Tensor, alpha: float | Tensor) -> Tensor:
    if isinstance(alpha, Tensor):
        return rule.apply("Fenchel-Young loss", _OF_LOSS_AND_ORDER, (theta, y, alpha))[0][..., 0]
    if theta.numel() and numpy_serves(theta):
        return _EagerLoss.apply(theta, y, alpha)  # type: ignore[return-value]
    return rule.apply("Fenchel-Young loss", _OF_LOSS, (theta, y), alpha)[0][..., 0]


kernels.register("envelope", lambda x, z, y, value, *_: (value.new_empty(value.shape),))(
    lambda x, z, y, value, *_: (value.clone(),)
)


@torch._dynamo.allow_in_graph
def envelope(x: Tensor, z: Tensor, y: Tensor, value: Tensor, axes: int) -> Tensor:
    return rule.apply("envelope", derivatives.ENVELOPE, (x, z, y.detach(), value.detach()), axes)[0]


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
