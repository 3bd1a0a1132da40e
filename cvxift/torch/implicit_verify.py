"""Whether a point of tensors solves the equations."""

from __future__ import annotations

from collections.abc import Sequence

import array_api_compat.torch as xp
import torch

from cvxift.errors import SolveError
from cvxift.implicit.residual import beside_zero, relative_residual, solves, tolerance_of
from cvxift.implicit.voice import RANDOM, no_solution, say
from cvxift.torch.implicit_active import weights_of
from cvxift.torch.implicit_function import Conditions
from cvxift.torch.implicit_rule import System
from cvxift.torch.tensors import untraced

Tensor = torch.Tensor


@untraced
def verify(
    conditions: Conditions, system: System, w: Tensor, tensors: Sequence[Tensor], residual: Tensor | None
) -> None:
    """Refuse what is no number; say where F ≠ 0.

    Args:
        conditions: the equations.
        system: F and how its linear systems are solved.
        w: the point, plain like all tensors here, shape (*batch, n).
        tensors: θ's and what F closes over.
        residual: F there; None if it is not known yet.

    Raises:
        SolveError: an entry of w is NaN or infinite.
        ApplicabilityError: F ≠ 0 and ``check="raise"``.
    """
    settings = conditions.settings
    with torch.no_grad():
        residual = system(w, *tensors) if residual is None else residual
        if not bool(torch.isfinite(w).all()):
            where = conditions.entry(int(torch.nonzero(~torch.isfinite(w))[0, -1]))
            raise SolveError(f"{settings.title}: the solver returned NaN or infinity at {where}.")
        if settings.check == "off":
            return
        eps = torch.finfo(w.dtype).eps
        limit = settings.tolerance or tolerance_of(eps)
        along = [weights_of(w), *(weights_of(t) if t.is_floating_point() else None for t in tensors)]
        arguments = (xp, system, w, tensors, residual)
        units = along, conditions.layout.size if settings.constrained else 0, conditions.layout.sizes
        if bool(solves(*arguments, *units, limit)):
            return
        ratio = beside_zero(*arguments, relative_residual(*arguments, *units))
        if (worst := float(ratio.max())) <= limit:
            return
        place = int(ratio.reshape(-1).argmax())
        size = float(residual.reshape(-1)[place])
        again = system(w, *tensors) - system(w, *tensors)
        if float(again.abs().max()) > eps**0.5 * abs(size):  # rounding: eps/limit = eps^0.625 of it at most
            say(f"{settings.title}: {RANDOM}", settings.check)
            return
    say(no_solution(settings.title, conditions.entry(place % w.shape[-1]), size, worst, limit), settings.check)
