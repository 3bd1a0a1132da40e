"""Layers that the PyTorch tests share, with tensors that keep them away from kinks, and references for derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import cvxpy as cp
import torch

from cvxift.torch import CvxpyLayer
from tests import layer_problems

double = torch.float64
Tensors = list[torch.Tensor]


def qp_layer(n: int = 4, m: int = 3, p: int = 2, **options: Any) -> CvxpyLayer:
    """See `layer_problems.qp`."""
    return CvxpyLayer(*layer_problems.qp(n, m, p), **options)


def qp_tensors(batch: tuple[int, ...] = (), n: int = 4, m: int = 3, p: int = 2, seed: int = 0) -> Tensors:
    """Tensors for `qp_layer`."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*batch, *shape, generator=g, dtype=double)

    Q = randn(n, n) + 2 * torch.eye(n, dtype=double)
    G, A, x0 = randn(m, n), randn(p, n), randn(n)
    h = (G @ x0[..., None])[..., 0] + torch.rand(*batch, m, generator=g, dtype=double)
    return [Q, randn(n), G, h, A, (A @ x0[..., None])[..., 0]]


def entropy_layer(n: int = 4, **options: Any) -> CvxpyLayer:
    """See `layer_problems.entropy`."""
    return CvxpyLayer(*layer_problems.entropy(n), **options)


def ball_layer(n: int = 3, **options: Any) -> CvxpyLayer:
    """See `layer_problems.ball`."""
    return CvxpyLayer(*layer_problems.ball(n), **options)


class Model(torch.nn.Module):
    """A linear map, then a projection onto the unit ball."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.linear = torch.nn.Linear(2, 3, dtype=double)
        with torch.no_grad():
            for p in self.linear.parameters():
                p.copy_(2 * torch.randn(p.shape, generator=g, dtype=double))
        self.project = ball_layer()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.project(self.linear(x))[0]


def geometric_layer(**options: Any) -> CvxpyLayer:
    """The largest box of a given surface, a geometric program."""
    x, y, z = (cp.Variable(pos=True) for _ in range(3))
    a, b, c = cp.Parameter(pos=True, name="a"), cp.Parameter(pos=True, name="b"), cp.Parameter(name="c")
    problem = cp.Problem(cp.Minimize(1 / (x * y * z)), [a * (x * y + x * z + y * z) <= b, x >= y**c])
    return CvxpyLayer(problem, [a, b, c], [x, y, z], gp=True, **options)


def failing_layer(**options: Any) -> CvxpyLayer:
    """See `layer_problems.failing`."""
    return CvxpyLayer(*layer_problems.failing(), **options)


def requires_grad(tensors: Sequence[torch.Tensor]) -> Tensors:
    """Fresh leaves with the same values."""
    return [t.detach().clone().requires_grad_() for t in tensors]


def row(*values: float) -> torch.Tensor:
    """A float64 vector."""
    return torch.tensor(values, dtype=double)


CASES: dict[str, Callable[[], tuple[CvxpyLayer, Tensors]]] = {
    "quadratic": lambda: (qp_layer(3, 2, 1), qp_tensors((), 3, 2, 1)),
    "entropy": lambda: (entropy_layer(solver="CLARABEL"), [row(0.3, -0.2, 1.0, 0.1), row(0.7)[0]]),
    "ball": lambda: (ball_layer(solver="CLARABEL"), [row(2.0, 1.0, -0.5)]),
    "geometric": lambda: (geometric_layer(), [row(2.0)[0], row(1.0)[0], row(0.5)[0]]),
}


class Case:
    """A layer with tensors, a scalar loss of its outputs, and the loss's derivatives by finite differences."""

    def __init__(self, name: str) -> None:
        self.layer, self.tensors = CASES[name]()
        self.all = tuple(range(len(self.tensors)))
        self.sizes = [t.numel() for t in self.tensors]
        g = torch.Generator().manual_seed(5)
        self.direction = tuple(torch.randn(t.shape, generator=g, dtype=double) for t in self.tensors)

    def loss(self, *tensors: torch.Tensor) -> torch.Tensor:
        """A smooth function of all outputs of one instance."""
        outputs = [out.reshape(-1) for out in self.layer(*tensors)]
        weights = [torch.arange(1.0, len(out) + 1, dtype=double) for out in outputs]
        return sum((w * out.sin()).sum() for w, out in zip(weights, outputs, strict=True))  # type: ignore[return-value]

    def unflat(self, theta: torch.Tensor) -> Tensors:
        """The tensors from their entries side by side."""
        parts = theta.split(self.sizes)
        return [part.reshape(t.shape) for part, t in zip(parts, self.tensors, strict=True)]

    @property
    def theta(self) -> torch.Tensor:
        """The tensors' entries side by side."""
        return flat(self.tensors)

    def eager_gradient(self, theta: torch.Tensor) -> torch.Tensor:
        """The loss's gradient by one plain backward pass."""
        leaves = requires_grad(self.unflat(theta))
        return flat(torch.autograd.grad(self.loss(*leaves), leaves))

    @property
    @cache  # noqa: B019  # the cases live as long as the tests
    def gradient(self) -> torch.Tensor:
        """The loss's gradient by differences."""
        return differences(lambda theta: self.loss(*self.unflat(theta)), self.theta)

    @property
    @cache  # noqa: B019
    def hessian(self) -> torch.Tensor:
        """The loss's Hessian by differences of its gradient."""
        return differences(self.eager_gradient, self.theta)

    def matrix(self, blocks: Any) -> torch.Tensor:
        """A Hessian in blocks, tuples of tuples, as one matrix."""
        rows = [torch.cat([blocks[i][j].reshape(self.sizes[i], self.sizes[j]) for j in self.all], 1) for i in self.all]
        return torch.cat(rows, 0)


@cache
def case(name: str) -> Case:
    """The case of that name, with its references computed once."""
    return Case(name)


def flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Entries side by side."""
    return torch.cat([t.reshape(-1) for t in tensors])


def differences(
    function: Callable[[torch.Tensor], torch.Tensor], theta: torch.Tensor, step: float = 1e-3
) -> torch.Tensor:
    """Jacobian by central differences of sixth order, the derivative's entry last."""
    columns = []
    for i in range(len(theta)):
        unit = torch.zeros_like(theta)
        unit[i] = step
        one, two, three = (function(theta + k * unit) - function(theta - k * unit) for k in (1, 2, 3))
        columns.append((45 * one - 9 * two + three) / (60 * step))
    return torch.stack(columns, -1)


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-7) -> None:
    """Relative to the largest entry."""
    scale = 1.0 + float(expected.abs().max())
    torch.testing.assert_close(actual, expected, atol=tolerance * scale, rtol=0)
