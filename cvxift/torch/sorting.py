"""Soft sorting and ranking on tensors: projections onto permutahedra, O(n log n), derivatives of any order in O(n).

Sorting happens in PyTorch; the blocks of the isotonic regression are found in NumPy, so scores on another device are
copied to the host. Float16 and bfloat16 compute in float32.
"""

from __future__ import annotations

import torch

from cvxift.argmax import isotonic
from cvxift.argmax.feasibility import check_entries
from cvxift.argmax.isotonic import Regularizer
from cvxift.errors import ProgramError
from cvxift.torch import kernels
from cvxift.torch.envelope import envelope
from cvxift.torch.tensors import require_floating, temperature_of

Tensor = torch.Tensor


def soft_rank(
    x: Tensor,
    temperature: float | Tensor = 1.0,
    regularizer: Regularizer = "quadratic",
    descending: bool = False,
    dim: int = -1,
) -> Tensor:
    """Soft ranks: the projection of ±x / temperature onto the permutahedron of 1, …, n.

    Args:
        x: finite scores of any shape.
        temperature: > 0, a number or a tensor that broadcasts against x; towards 0 the ranks become hard.
        regularizer: ``"quadratic"`` (sparse derivatives) or ``"entropic"``.
        descending: give rank 1 to the largest score, not to the smallest.
        dim: the dimension that is ranked.

    Returns:
        Ranks between 1 and n (quadratic), of x's shape and dtype.

    Raises:
        ProgramError: scores that are not finite, an integer dtype, temperature ≤ 0, no such dimension or regularizer.

    Source: Blondel, Teboul, Berthet, Djolonga 2020, section 4.

    Example:
        >>> import torch
        >>> from cvxift.torch import soft_rank
        >>> soft_rank(torch.tensor([10.0, -10.0, 0.0])), soft_rank(torch.tensor([0.3, 0.1, 0.2]))
        (tensor([3., 1., 2.]), tensor([2.1000, 1.9000, 2.0000]))
    """
    scores = _prepared("soft_rank", x, temperature, regularizer, dim)
    n = scores.shape[-1]
    s, order = torch.sort(-scores if descending else scores, dim=-1, descending=True, stable=True)
    w = torch.arange(n, 0, -1, dtype=s.dtype, device=s.device).expand(s.shape)
    projection = _project(s, w, regularizer)
    return projection.gather(-1, torch.argsort(order, dim=-1)).movedim(-1, dim).to(x.dtype)


def soft_sort(
    x: Tensor,
    temperature: float | Tensor = 1.0,
    regularizer: Regularizer = "quadratic",
    descending: bool = False,
    dim: int = -1,
) -> Tensor:
    """Soft sorting: the projection of (n, …, 1) / temperature onto the permutahedron of x.

    Args:
        x: finite values of any shape.
        temperature: > 0, a number or a tensor with size one along ``dim``; towards 0 the order becomes hard, towards ∞
            (quadratic) all values become the mean.
        regularizer: ``"quadratic"`` or ``"entropic"``.
        descending: begin with the largest.
        dim: the dimension that is sorted.

    Returns:
        Sorted values of x's shape and dtype.

    Raises:
        ProgramError: as for `soft_rank`.

    Source: Blondel, Teboul, Berthet, Djolonga 2020, section 4.

    Example:
        >>> import torch
        >>> from cvxift.torch import soft_sort
        >>> soft_sort(torch.tensor([3.0, 1.0, 2.0]), temperature=0.1)
        tensor([1., 2., 3.])
    """
    values = _prepared("soft_sort", x, 1.0, regularizer, dim)
    n = values.shape[-1]
    w = torch.sort(values if descending else -values, dim=-1, descending=True, stable=True).values
    scale = temperature_of("soft_sort", temperature, values, (*x.shape[:dim], 1, *x.shape[dim:][1:]))
    if isinstance(scale, Tensor) and scale.ndim:
        scale = scale.reshape((1,) * (x.ndim - scale.ndim) + scale.shape).movedim(dim, -1)
    s = torch.arange(n, 0, -1, dtype=w.dtype, device=w.device).expand(w.shape) / scale
    projection = _project(s, w, regularizer)
    return (projection if descending else -projection).movedim(-1, dim).to(x.dtype)


def rank_loss(
    x: Tensor, target: Tensor, temperature: float | Tensor = 1.0, descending: bool = False, dim: int = -1
) -> Tensor:
    """Fenchel–Young loss of quadratic `soft_rank`; its gradient is ±(soft ranks − target), + for ascending ranks.

    Args:
        x: finite scores of any shape.
        target: ranks y of x's shape (a permutation of 1, …, n, or averages of such); no gradient flows to them.
        temperature: > 0, a number or a tensor that broadcasts against the loss.
        descending: whether rank 1 is the largest.
        dim: the dimension that is ranked.

    Returns:
        Losses ≥ 0 of x's shape without ``dim``; zero where the soft ranks are the target.

    Raises:
        ProgramError: as for `soft_rank`, or the shapes differ.

    Source: Blondel, Martins, Niculae 2020, section 7 (SparseMAP over the permutahedron).

    Example:
        >>> import torch
        >>> from cvxift.torch import rank_loss
        >>> rank_loss(torch.tensor([0.0, 5.0, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
        tensor(0.)
    """
    if x.shape != target.shape:
        raise ProgramError(f"target has shape {tuple(target.shape)}; expected that of x, {tuple(x.shape)}.")
    require_floating("rank_loss", x)
    wide = x if x.device.type == "mps" else x.double()
    t = torch.as_tensor(temperature, dtype=wide.dtype, device=x.device)
    scores = _prepared("rank_loss", wide, t.unsqueeze(dim) if t.ndim else t, "quadratic", dim)
    scores = -scores if descending else scores
    z, y = soft_rank(scores), target.detach().to(scores.dtype).movedim(dim, -1)
    with torch.no_grad():
        value = _loss(scores.detach(), z.detach(), y)
    return (envelope(scores, z, y, value) * t).to(x.dtype)


@kernels.register("blocks", lambda s, *_: (torch.empty_like(s, dtype=torch.int64).contiguous(),))
def _blocks(s: Tensor, w: Tensor, regularizer: Regularizer) -> tuple[Tensor]:
    """Blocks of the regression, found on the host; constant in their neighbourhood, so without derivative."""
    check_entries("The sorting", s, masks=False)
    check_entries("The sorting", w, masks=False)
    host = isotonic.blocks(s.numpy(force=True), w.numpy(force=True), regularizer)
    return (torch.from_numpy(host).to(s.device),)


@torch._dynamo.allow_in_graph
def _project(s: Tensor, w: Tensor, regularizer: Regularizer) -> Tensor:
    (first,) = kernels.constant("blocks", (s, w), regularizer)
    return isotonic.project(s, w, first, regularizer, _segment_sum, _take)


@torch._dynamo.allow_in_graph
def _loss(s: Tensor, z: Tensor, y: Tensor) -> Tensor:
    return isotonic.loss(s, z, y, _take)


def _segment_sum(values: Tensor, index: Tensor) -> Tensor:
    return torch.zeros_like(values).scatter_add(-1, index, values)


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(-1, index)  # torch.take_along_dim would hold a traced graph to one size


def _prepared(name: str, x: Tensor, temperature: float | Tensor, regularizer: str, dim: int) -> Tensor:
    """Scores over temperature with the dimension last, in the dtype that is computed in."""
    require_floating(name, x)
    if not -x.ndim <= dim < x.ndim:
        raise ProgramError(f"{name} got dim = {dim}, but the scores have shape {tuple(x.shape)}.")
    if regularizer not in ("quadratic", "entropic"):
        raise ProgramError(f"{name} got regularizer = {regularizer!r}; expected 'quadratic' or 'entropic'.")
    scores = x if x.dtype is torch.float64 else x.float()
    return (scores / temperature_of(name, temperature, scores)).movedim(dim, -1)
