"""A function of tensors at a point, for the diagnosis, which is NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cvxift.implicit.oracle import Oracle
from cvxift.implicit.trees import entry_of
from cvxift.torch.implicit_rule import along, solved

Tensor = torch.Tensor


def oracle(function: Any, prepared: Any) -> Oracle:
    """The oracle of an implicit function at a prepared point.

    Args:
        function: the `ImplicitFunction`.
        prepared: the point.
    """
    settings, conditions = function.settings, prepared.conditions
    w = prepared.w.detach()
    operands = [t.detach() for t in prepared.operands]
    system = function._system(prepared)
    own = [i for i in range(conditions.count) if operands[i].is_floating_point()]
    shapes = [operands[i].shape for i in own]

    def tensor(v: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(v), dtype=w.dtype, device=w.device)

    def moved(theta: np.ndarray) -> list[Tensor]:
        now, start = list(operands), 0
        for i, shape in zip(own, shapes, strict=True):
            size = shape.numel()
            part = torch.as_tensor(theta[start : start + size], device=w.device)
            now[i], start = part.reshape(shape).to(operands[i].dtype), start + size
        return now

    def value(v: np.ndarray, theta: np.ndarray) -> np.ndarray:
        return _host(system(tensor(v), *moved(theta)))

    def tangent(v: np.ndarray, theta: np.ndarray, v_dot: np.ndarray, theta_dot: np.ndarray) -> np.ndarray:
        now, dots = moved(theta), moved(theta_dot)

        def of_both(point: Tensor, *parts: Tensor) -> Tensor:
            full = list(now)
            for i, part in zip(own, parts, strict=True):
                full[i] = part
            return system(point, *full)

        at = (tensor(v), *(now[i] for i in own))
        return _host(along(of_both, at, (tensor(v_dot), *(dots[i] for i in own))))

    def derivative(theta_dot: np.ndarray) -> np.ndarray:
        b = tangent(w.cpu().numpy(), theta, 0.0 * w.cpu().numpy(), theta_dot)
        with torch.no_grad():
            return _host(solved(system, False, -tensor(b), w, operands))[: conditions.layout.size]

    def solve(theta: np.ndarray) -> np.ndarray:
        x, _, _ = function._solve(conditions.rebuild, moved(theta)[: conditions.count], None)
        return _host(conditions.layout.matching("What the solver returned", x))

    theta = _flat([operands[i] for i in own])
    p, m = conditions.sizes
    jacobian = system.jacobian(w, operands)
    active = _host(operands[conditions.count]) if settings.constrained else np.zeros(0)
    return Oracle(
        settings,
        _host(w),
        theta,
        conditions.layout.size,
        (p, m),
        active,
        _host(prepared.margins),
        float(torch.finfo(w.dtype).eps),
        value,
        tangent,
        lambda v: _host(jacobian.matvec(tensor(v))),
        lambda v: _host(jacobian.rmatvec(tensor(v))),
        lambda: _host(jacobian.dense()),
        derivative,
        solve,
        conditions.entry,
        lambda j: entry_of([prepared.names[i] for i in own], shapes, j),
    )


def _flat(tensors: Sequence[Tensor]) -> np.ndarray:
    return np.concatenate([_host(t).reshape(-1) for t in tensors]) if tensors else np.zeros(0)


def _host(t: Tensor) -> np.ndarray:
    return t.detach().cpu().numpy().astype(float)
