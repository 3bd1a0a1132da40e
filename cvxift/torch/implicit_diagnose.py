"""A function of tensors at a point, for the diagnosis, which is NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cvxift.implicit.oracle import Oracle, Supplied, oracle_of
from cvxift.torch.implicit_operator import BACKEND
from cvxift.torch.implicit_rule import along, solved

Tensor = torch.Tensor


def oracle(function: Any, prepared: Any) -> Oracle:
    """The oracle of an implicit function at a prepared point.

    Args:
        function: the `ImplicitFunction`.
        prepared: the point.
    """
    w, operands = prepared.w.detach(), [t.detach() for t in prepared.operands]
    system = function._system(prepared)
    jacobian = system.jacobian(w, operands)

    def inverse(b: Tensor) -> Tensor:
        with torch.no_grad():
            return solved(system, False, b, w, operands)

    supplied = Supplied(
        BACKEND,
        _host,
        w,
        operands,
        0,
        prepared.conditions.count,
        system,
        along,
        lambda function: function,
        jacobian.matvec,
        jacobian.rmatvec,
        jacobian.dense,
        inverse,
    )
    return oracle_of(function, prepared, supplied)


def _host(t: Tensor) -> np.ndarray:
    return t.detach().cpu().numpy().astype(float)
