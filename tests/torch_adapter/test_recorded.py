"""A layer's call where operations are recorded on ordinary tensors: the record solves again at other values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from cvxift.torch import CvxpyLayer

FIRST, SECOND = torch.tensor([1.0, 2.0]).double(), torch.tensor([1.5, 0.7]).double()


def projection(**options: Any) -> CvxpyLayer:
    x, p = cp.Variable(2), cp.Parameter(2)
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum(x) == 1]), [p], [x], **options)


def area() -> CvxpyLayer:
    x, p = cp.Variable(2, pos=True), cp.Parameter(2, pos=True)
    return CvxpyLayer(cp.Problem(cp.Minimize(x[0] ** 2 + x[1]), [p[0] * x[0] * x[1] >= p[1]]), [p], [x], gp=True)


def complex_projection() -> Callable[[torch.Tensor], tuple[torch.Tensor]]:
    x, p = cp.Variable(2, complex=True), cp.Parameter(2, complex=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.norm(x) <= 1]), [p], [x])
    return lambda v: (layer(torch.complex(v, v.flip(0)))[0].real,)


@pytest.mark.parametrize("make", [projection, lambda: projection(closed_form="never"), area, complex_projection])
def test_a_record_solves_again(make: Callable[[], Any]) -> None:
    layer = make()

    def call(p: torch.Tensor) -> torch.Tensor:
        return layer(p)[0]

    def gradient(p: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda q: call(q).square().sum())(p)

    for function in (call, gradient, torch.func.vmap(call)):
        batch = function not in (call, gradient)
        first, second = (torch.stack([v, 2 * v]) if batch else v for v in (FIRST, SECOND))
        torch.testing.assert_close(make_fx(function)(first)(second), function(second), rtol=1e-7, atol=1e-9)
    traced: Any = torch.jit.trace(call, (FIRST,), check_trace=False)
    torch.testing.assert_close(traced(SECOND), call(SECOND), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("make", [projection, lambda: projection(closed_form="never"), area, complex_projection])
def test_a_linearization_pushes_tangents(make: Callable[[], Any]) -> None:
    layer = make()
    out, pushed = torch.func.linearize(lambda p: layer(p)[0], FIRST)
    torch.testing.assert_close(out, layer(FIRST)[0])
    for tangent in (SECOND, FIRST - SECOND):
        expected = torch.func.jvp(lambda p: layer(p)[0], (FIRST,), (tangent,))[1]
        assert expected.abs().max() > 1e-2
        torch.testing.assert_close(pushed(tangent), expected, rtol=1e-9, atol=1e-11)
