"""Multipliers and active set of constrained minimizers, found from the point on the host."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import array_api_compat.torch as xp
import numpy as np
import torch

from cvxift.implicit.multipliers import recover
from cvxift.implicit.residual import balance, relative_residual, weights
from cvxift.torch.implicit_function import Conditions, gradient
from cvxift.torch.implicit_rule import Constant, first
from cvxift.torch.tensors import untraced

Tensor = torch.Tensor


class _Recover(Constant):
    """(x, [ν, λ,] θ) ↦ (ν, λ, active, margins) without derivatives; its inputs are detached."""

    @staticmethod
    def forward(conditions: Conditions, given: int, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Find them."""
        return plain(conditions, x, tensors[given:], tensors[:given])

    @staticmethod
    # Named arguments for the base's *args.
    def vmap(info: Any, in_dims: Any, conditions: Any, given: int, *tensors: Tensor) -> Any:  # type: ignore[override]
        """One instance after another."""
        rows = [first(info.batch_size, dim, t) for t, dim in zip(tensors, in_dims[2:])]
        found = [_Recover.apply(conditions, given, *(row[i] for row in rows)) for i in range(info.batch_size)]
        return tuple(torch.stack(parts) for parts in zip(*found)), (0, 0, 0, 0)  # type: ignore[arg-type]


def multipliers(
    conditions: Conditions, x: Tensor, tensors: Sequence[Tensor], given: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """ν, λ, the mask of active rows and the margins, in x's dtype, for tensors at any level of transforms."""
    operands = [t.detach() for t in (x, *given, *tensors)]
    return _Recover.apply(conditions, len(given), *operands)  # type: ignore[return-value]  # apply is untyped


@untraced
def plain(conditions: Conditions, x: Tensor, tensors: Sequence[Tensor], given: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The same for plain tensors of one instance."""
    n, (p, m) = len(x), conditions.sizes
    along = [weights_of(x), *(weights_of(t) if t.is_floating_point() else None for t in tensors)]

    def slope(point: Tensor, *theta: Tensor) -> Tensor:
        return gradient(lambda x: (conditions.energy(x, *theta), ()), point)[0].detach()

    g = slope(x, *tensors)
    balanced = balance(xp, slope, x, tensors, g, along, n)
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        values = conditions.constraints(point, *tensors)
        each = values.unbind()
    with torch.no_grad():
        ratio = relative_residual(xp, conditions.constraints, x, tensors, values.detach(), along, n, of_bounds=True)
    slack = (_host(ratio) * np.sign(_host(values)))[p:]
    own = np.concatenate([_host(t) for t in given]) if given else None
    eps = torch.finfo(x.dtype).eps
    found = recover(conditions, _host(g), _host(balanced), slack, lambda rows: _rows(each, point, rows), own, eps)
    return torch.as_tensor(found, dtype=x.dtype, device=x.device).split((p, m, m, m))


def _rows(values: Sequence[Tensor], point: Tensor, which: Sequence[int] | Any) -> np.ndarray:
    """Rows of the constraints' Jacobian."""
    out = np.zeros((len(which), len(point)))
    for k, i in enumerate(which):
        if values[i].requires_grad:
            (row,) = torch.autograd.grad(values[i], point, retain_graph=True, allow_unused=True)
            out[k] = 0.0 if row is None else _host(row)
    return out


def weights_of(t: Tensor) -> Tensor:
    """`weights` of the entries, in the tensor's shape."""
    return _kept_weights(t.numel(), t.dtype, t.device).reshape(t.shape)


@lru_cache(maxsize=32)
def _kept_weights(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(weights(count), dtype=dtype, device=device)


def _host(t: Tensor) -> np.ndarray:
    return t.detach().cpu().numpy().astype(float)
