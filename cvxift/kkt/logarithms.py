"""Least squares for the logarithms of a symmetric scale: the unit-free part of `cvxift.kkt.equilibration`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cvxift._types import Floats

SCALING_STEPS = 60  # steps of conjugate gradients


def centred(
    image: Callable[[Floats], Floats],
    admit: Callable[[Floats], Floats],
    total: Floats,
    logarithms: Floats,
    accuracy: float,
) -> Floats:
    """Logarithms d of a scale in which those of a symmetric matrix's entries have least squares, shape (..., rows).

    By conjugate gradients. Each row's equation, Σ_j (l_ij + d_i + d_j) = 0, moves with the units that the matrix came
    in, and so does its solution; the largest entries alone, where an equilibration starts, do not tell them.

    Args:
        image: from d to Σ_j (d_i + d_j), the sums over a row's entries by their weights.
        admit: from d to the nearest that units can have.
        total: the sum of each row's weights.
        logarithms: the sum of each row's l.
        accuracy: of d.
    """
    total = np.where(total > 0.0, total, 1.0)
    d = np.zeros_like(total)
    rest = -logarithms
    z = admit(rest / total)
    direction, size = z, np.vecdot(rest, z)[..., None]
    for _ in range(SCALING_STEPS):
        if np.max(np.abs(z), initial=0.0) <= accuracy:
            break
        moved = image(direction)
        curvature = np.vecdot(direction, moved)[..., None]
        step = size / np.where(curvature > 0.0, curvature, np.inf)
        d, rest = d + step * direction, rest - step * moved
        z = admit(rest / total)
        new = np.vecdot(rest, z)[..., None]
        direction, size = z + new / np.where(size > 0.0, size, np.inf) * direction, new
    return d
