"""α-entmax, its losses and budgets over groups of entries of tensors; see `cvxift.argmax.functions.ragged`.

On the CPU kernels run in NumPy, which sums sorted segments fastest.
"""

from __future__ import annotations

from typing import Any

import torch

from cvxift.argmax import bounded, checks, derivatives, losses, segments
from cvxift.argmax.feasibility import check_entries
from cvxift.argmax.groups import NumpySegments
from cvxift.torch import kernels, rule
from cvxift.torch.tensors import widest

Tensor = torch.Tensor


class Segments:
    """Entries (..., N) of tensors in groups; groups' values have shape (..., G). Sums and spreading have derivatives.

    Args:
        ids: the group of each entry, from 0 to G − 1, (..., N).
        number: G.
    """

    def __init__(self, ids: Tensor, number: int) -> None:
        self.ids, self.number = ids, number

    def sum(self, values: Tensor) -> Tensor:
        """The sum over each group."""
        return values.new_zeros((*values.shape[:-1], self.number)).scatter_add(-1, self._index(values), values)

    def max(self, values: Tensor) -> Tensor:
        """The largest entry of each group."""
        none = values.new_full((*values.shape[:-1], self.number), -float("inf"))
        return none.scatter_reduce(-1, self._index(values), values, "amax")

    def spread(self, values: Tensor) -> Tensor:
        """For each entry its group's value."""
        return values.gather(-1, self._index(values))

    def _index(self, values: Tensor) -> Tensor:
        return self.ids.expand(*values.shape[:-1], self.ids.shape[-1])


def _flat(ids: Tensor, number: int) -> tuple[Tensor, int]:
    """Groups of batches of entries as those of one."""
    if ids.ndim == 1:
        return ids, number
    rows = ids.reshape(-1, ids.shape[-1])
    return (rows + number * torch.arange(len(rows), device=ids.device)[:, None]).reshape(-1), number * len(rows)


def _groups(ids: Tensor, number: int) -> tuple[Any, Any]:
    """The groups that serve kernels, and what makes their arrays of tensors."""
    ids, number = _flat(ids, number)
    if ids.device.type == "cpu":
        return NumpySegments(ids.numpy(), number), lambda tensor: tensor.reshape(-1).numpy()
    return Segments(ids, number), lambda tensor: tensor.reshape(-1)


def _like(array: Any, shape: tuple[int, ...], x: Tensor) -> Tensor:
    return torch.as_tensor(array.reshape(shape)).to(x.dtype)


@kernels.register("entmax of segments", lambda x, *_: (x.new_empty(x.shape),))
def _entmax(x: Tensor, *given: Any) -> tuple[Tensor]:
    alpha, ids, number = _parts(given)
    if x.numel() and not bool(x.max() < float("inf")):
        check_entries("entmax", x)
    groups, flat = _groups(ids, number)
    if isinstance(alpha, Tensor):
        checks.guarded(torch, "entmax", checks.ORDER, alpha, True)
        alpha = flat(widest(alpha))
    scores = x if x.device.type == "cpu" else widest(x)
    return (_like(segments.entmax(flat(scores), alpha, groups), x.shape, x),)


def _parts(given: tuple[Any, ...]) -> tuple[Any, Tensor, int]:
    """α, ids and number of (α, ids, number), or of (ids, α, number) where α is an option."""
    first, second, number = given
    return (first, second, number) if isinstance(second, Tensor) else (second, first, number)


_OF_ENTMAX, _OF_ENTMAX_AND_ORDER = (derivatives.of_entmax(order, Segments) for order in (False, True))


@torch._dynamo.allow_in_graph
def segment_entmax(x: Tensor, alpha: float | Tensor, ids: Tensor, number: int) -> Tensor:
    if not x.numel():
        return x
    if isinstance(alpha, Tensor):
        return rule.apply("entmax of segments", _OF_ENTMAX_AND_ORDER, (x, alpha, ids), number)[0]
    return rule.apply("entmax of segments", _OF_ENTMAX, (x, ids), alpha, number)[0]


@kernels.register("loss of segments", lambda theta, *given: (theta.new_empty((*theta.shape[:-1], given[-1])),))
def _loss(theta: Tensor, y: Tensor, *given: Any) -> tuple[Tensor]:
    alpha, ids, number = _parts(given)
    z = _entmax(theta, *given)[0]
    groups, flat = _groups(ids, number)
    alpha = flat(widest(alpha)) if isinstance(alpha, Tensor) else alpha
    scores, target = flat(widest(theta)), flat(widest(y))
    losses.check_targets(scores, target, groups)
    value = losses.fenchel_young(scores, target, flat(widest(z)), alpha, groups)
    return (_like(value, (*theta.shape[:-1], number), theta),)


_OF_LOSS, _OF_LOSS_AND_ORDER = (derivatives.of_entmax_loss(segment_entmax, order, Segments) for order in (False, True))


@torch._dynamo.allow_in_graph
def segment_loss(theta: Tensor, y: Tensor, alpha: float | Tensor, ids: Tensor, number: int) -> Tensor:
    if isinstance(alpha, Tensor):
        return rule.apply("loss of segments", _OF_LOSS_AND_ORDER, (theta, y, alpha, ids), number)[0]
    return rule.apply("loss of segments", _OF_LOSS, (theta, y, ids), alpha, number)[0]


def _empty_sides(x: Tensor, total: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return *(torch.empty_like(x, dtype=torch.bool) for _ in range(2)), total.new_empty(total.shape)


@kernels.register("sides of segments", _empty_sides)
def _sides(x: Tensor, total: Tensor, lower: Tensor, upper: Tensor, ids: Tensor, number: int) -> tuple[Tensor, ...]:
    check_entries("budget", x)
    groups, flat = _groups(ids, number)
    scores, need, low, high = (flat(part) for part in (x, total, lower, upper))
    checks.check_bounds_of_groups("budget", scores, need, low, high, groups)
    found = bounded.sides(scores, need, low, high, groups=groups)
    shapes = x.shape, x.shape, total.shape
    kinds = torch.bool, torch.bool, x.dtype
    return tuple(torch.as_tensor(part).to(kind).reshape(shape) for part, shape, kind in zip(found, shapes, kinds))


@torch._dynamo.allow_in_graph
def segment_budget(x: Tensor, total: Tensor, lower: Tensor, upper: Tensor, ids: Tensor, number: int) -> Tensor:
    found = bounded.Sides(*kernels.constant("sides of segments", (x, total, lower, upper, ids), number))
    return bounded.value(x, total, lower, upper, found, Segments(ids, number))
