"""Second derivatives of local solutions, by differences of exact first ones at neighbouring solutions.

CVXPY's engine has no third derivatives of a program's functions. With J the exact Jacobian of the solution map, whose
products Newton's method makes accurate to rounding at neighbours too,

    D²z[θ̇, θ̇′] = d/dh J(θ + h θ̇′) θ̇,        ∇_θ ⟨z̄, J θ̇⟩ = d/dh J(θ + h θ̇)ᵀ z̄       (second derivatives are symmetric)

Central differences at h, h/2, h/4, … have an error in even powers of h, which Richardson's scheme cancels one after
the other. Where it stops, two values of neighbouring steps and orders bound the error of the better one (Ridders 1982).
Where no central ones agree, as across a kink, those to one side may, which is the side whose derivative J is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from cvxift.kkt.failures import Check, speak_once
from cvxift.kkt.regularity.account import Regularity
from cvxift.program.structure import Floats

LARGEST_STEP = 2.0**-5  # largest step, relative to the parameters
STEPS = 16  # of them, each half as long as the last one, at most: the shortest has a rounding error of about `PROMISED`
PROMISED = 1e-6  # error, relative to the derivative, that is promised of a product
ROUNDING = 1e-9  # error, relative to what a step of the parameters' size changes, that a derivative of zero may have
WELL_WITHIN = 1e-3  # of either, from which no more steps are made
TINY = np.finfo(float).tiny


def difference(product: Callable[[float], Floats | None], here: Floats) -> tuple[Floats, float]:
    """The derivative of a product along a line of parameters, at its start.

    Args:
        product: h ↦ the product at θ + h d, with h = 1 a step as large as the parameters; None where there is none.
        here: the product at h = 0.

    Returns:
        The derivative, and a bound on its error over what is promised of it: above 1 the promise is broken.
    """
    at = cache(product)
    size = float(np.abs(here).max(initial=0.0))

    def slope(h: float, sides: tuple[int, int]) -> Floats | None:
        after, before = (here if side == 0 else at(side * h) for side in sides)
        return None if after is None or before is None else (after - before) / ((sides[0] - sides[1]) * h)

    best, error = here, np.inf
    for sides in ((1, -1), (1, 0), (0, -1)):
        value, told = _extrapolated(partial(slope, sides=sides), 4.0 if 0 not in sides else 2.0, size)
        if told < error:
            best, error = value, told
        if error <= 1.0:
            return best, error
    return best, error


def _extrapolated(slope: Callable[[float], Floats | None], ratio: float, size: float) -> tuple[Floats, float]:
    """The limit of difference quotients at falling steps, and the bound on its error.

    Args:
        slope: h ↦ a quotient; None where there is none.
        ratio: of the terms of its error to those at half the step, from one term to the next.
        size: of what the quotients are differences of.
    """
    best, error = np.zeros(()), np.inf
    row: list[Floats] = []
    for k in range(STEPS):
        last, found = row, slope(LARGEST_STEP * 0.5**k)
        row = [] if found is None else [found]  # past the end of a branch there is none; nearer there may be
        for order, coarse in enumerate(last if row else ()):
            fine = row[order]
            row.append(fine + (fine - coarse) / (ratio ** (order + 1) - 1.0))
            apart = max(float(np.abs(row[-1] - near).max(initial=0.0)) for near in (fine, coarse))
            told = apart / max(PROMISED * float(np.abs(row[-1]).max(initial=0.0)), ROUNDING * size, TINY)
            if told < error:
                best, error = row[-1], told
        if error <= WELL_WITHIN:
            break
    return best, error


def tell_inexact(account: Regularity, error: float, check: Check) -> None:
    """Say that a second derivative is less accurate than promised, or does not exist.

    Args:
        account: of the point.
        error: the bound, as `difference` gives it.
        check: what is done about it.

    Raises:
        ApplicabilityError: under ``check="raise"`` or ``singular="raise"``.
    """
    message = (
        f"The second derivative at this point is accurate to a relative error of {error * PROMISED:.0e} only: first "
        "ones at nearby parameters change as where an active set changes, a branch of solutions ends, or the KKT "
        "system is ill-conditioned. Move the parameters off such a point, or improve the scaling."
    )
    speak_once(account, message, check, "reverse")
