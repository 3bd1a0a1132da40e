"""What the diagnosis needs to know of a function at a point, in NumPy; each framework supplies it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cvxift.implicit.settings import Settings

Vector = np.ndarray


@dataclass(frozen=True, eq=False)
class Oracle:
    """F(w, θ) at a point; w is x, or (x, ν, λ) of a constrained minimizer.

    Attributes:
        settings: what the function is made of.
        w: the point, shape (N,).
        theta: the floating entries of the arguments θ, side by side, shape (M,).
        variables: number of entries of x, the first ones of w.
        sizes: numbers of entries of G and H.
        active: which rows of H are active, shape (m,).
        weak: which are tight without a multiplier, shape (m,).
        eps: unit of rounding of the dtype in which F is computed.
        function: (w, θ) ↦ F.
        tangent: (w, θ, ẇ, θ̇) ↦ F_w ẇ + F_θ θ̇.
        matvec: v ↦ J v, J = F_w at the point.
        rmatvec: v ↦ Jᵀ v.
        matrix: J, shape (N, N); to be called for small N only.
        derivative: θ̇ ↦ ẋ by the rule, with the function's own linear solver.
        solver: θ ↦ x by the user's solver.
        entry: index of w ↦ name.
        theta_entry: index of θ ↦ name.
    """

    settings: Settings
    w: Vector
    theta: Vector
    variables: int
    sizes: tuple[int, int]
    active: Vector
    weak: Vector
    eps: float
    function: Callable[[Vector, Vector], Vector]
    tangent: Callable[[Vector, Vector, Vector, Vector], Vector]
    matvec: Callable[[Vector], Vector]
    rmatvec: Callable[[Vector], Vector]
    matrix: Callable[[], Vector]
    derivative: Callable[[Vector], Vector]
    solver: Callable[[Vector], Vector]
    entry: Callable[[int], str]
    theta_entry: Callable[[int], str]
