"""Projections onto permutahedra, and transport plans, of tensors: kernels and their rules.

The blocks of an isotonic regression are found in NumPy, so scores on another device are copied to the host.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from cvxift.argmax import derivatives, isotonic, polytope
from cvxift.argmax.feasibility import check_converged, check_entries, check_masses
from cvxift.argmax.quadratic_transport import quadratic_transport
from cvxift.argmax.sinkhorn import Plan, sinkhorn
from cvxift.torch import kernels, rule

Tensor = torch.Tensor
Regularizer = Literal["entropic", "quadratic"]
SMALL = 1 << 16  # entries of all plans below which NumPy's calls, which cost less, outweigh PyTorch's exponentials
SOLVERS = {"entropic": sinkhorn, "quadratic": quadratic_transport}


@kernels.register("blocks", lambda s, *_: (torch.empty_like(s, dtype=torch.int64).contiguous(),))
def _blocks(s: Tensor, w: Tensor, regularizer: Regularizer) -> tuple[Tensor]:
    """Blocks of the regression, found on the host; constant in their neighbourhood, so without derivative."""
    check_entries("The sorting", s, masks=False)
    check_entries("The sorting", w, masks=False)
    host = isotonic.blocks(s.numpy(force=True), w.numpy(force=True), regularizer)
    return (torch.from_numpy(host).to(s.device),)


@torch._dynamo.allow_in_graph
def permutahedron(s: Tensor, w: Tensor, regularizer: Regularizer) -> Tensor:
    (first,) = kernels.constant("blocks", (s, w), regularizer)
    return isotonic.project(s, w, first, regularizer, _segment_sum, _take)


@torch._dynamo.allow_in_graph
def permutahedron_loss(s: Tensor, z: Tensor, y: Tensor) -> Tensor:
    return isotonic.loss(s, z, y, _take)


def _segment_sum(values: Tensor, index: Tensor) -> Tensor:
    return torch.zeros_like(values).scatter_add(-1, index, values)


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(-1, index)


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
    solve = SOLVERS[regularizer]
    if x.device.type == "cpu" and x.numel() < SMALL:
        with np.errstate(all="ignore"):
            found = solve(scores.numpy(), rows.numpy(), columns.numpy(), tol, limit)
        plan = Plan(*(torch.as_tensor(part, device=x.device) for part in found))
    else:
        plan = solve(scores, rows, columns, tol, limit)
    floor = 64 * torch.finfo(x.dtype).eps
    check_converged("transport", plan.error, floor if tol is None else max(tol, floor), plan.iterations, plan.z)
    return plan.z.to(x.dtype), plan.level.to(x.dtype)


@torch._dynamo.allow_in_graph
def transport(
    x: Tensor, a: Tensor, b: Tensor, regularizer: Regularizer, tol: float | None, limit: int
) -> tuple[Tensor, ...]:
    return rule.apply("transport", derivatives.TRANSPORT, (x, a, b), regularizer, tol, limit)


@torch._dynamo.allow_in_graph
def transport_loss(regularizer: Regularizer, y: Tensor, z: Tensor, level: Tensor) -> Tensor:
    return polytope.loss(regularizer, y, z, level)
