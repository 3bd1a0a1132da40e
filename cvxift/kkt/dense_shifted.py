"""Least-squares solutions of the singular systems of a batch, all at once: `cvxift.kkt.factor.ShiftedFactor` for many.

A norm inside its bound leaves CVXPY's auxiliary column free, and equal rows share their multipliers: K is singular
then, and K u = f has solutions all the same. As there, refinement with the factors of the equilibrated K + δJ, J =
diag(I, −I), goes to one of them; taking away what (K + δJ)⁻¹δJ leaves of it makes it that of least norm. What has no
solution keeps its residual and is not certified.
"""

from __future__ import annotations

from typing import Any

from cvxift.kkt.backend import Array
from cvxift.kkt.dense import apply, worst
from cvxift.kkt.factor import DENSE_DELTA, REFINE_GOAL, SHIFTED_STEPS

ROUNDS = 4  # passes of the equilibration; see `cvxift.kkt.assembly.equilibrate`
STALL = 0.9  # refinement stops where no instance's residual falls below this part of it


class ShiftedSystems:
    """Some singular systems of a batch.

    Args:
        xp: the namespace of the arrays, whose values may be looked at.
        K: shape (S, N, N).
        n: size of the first block, which is shifted upwards; the rest is shifted downwards.
        limit: relative residual up to which a solution is certified.
    """

    def __init__(self, xp: Any, K: Array, n: int, limit: float) -> None:
        self._xp, self._K, self._limit = xp, K, limit
        size = xp.abs(K)
        scale = xp.ones_like(K[..., 0])
        for _ in range(ROUNDS):
            largest = scale * xp.max(size * scale[..., None, :], axis=-1)
            scale = scale / xp.sqrt(xp.where(largest > 0.0, largest, xp.ones_like(largest)))
        shift = xp.where(xp.arange(K.shape[-1]) < n, xp.asarray(DENSE_DELTA), xp.asarray(-DENSE_DELTA))
        shifted = scale[..., :, None] * K * scale[..., None, :] + shift * xp.eye(K.shape[-1])
        # The inverse itself, applied often: refinement against K makes up for its rounding.
        self._inverse = scale[..., :, None] * xp.linalg.inv(shifted) * scale[..., None, :]
        self._weight = shift / scale**2

    def solve(self, f: Array) -> tuple[Array, Array]:
        """Solutions of least norm (in the equilibrated scale) for f of shape (S, N) or (k, S, N), and which are any."""
        xp, size = self._xp, worst(self._xp, f)
        goal = REFINE_GOAL * size
        u, rest = xp.zeros_like(f), f
        for _ in range(SHIFTED_STEPS):
            trial = u + apply(self._inverse, rest)
            trial_rest = f - apply(self._K, trial)
            left, before = worst(xp, trial_rest), worst(xp, rest)
            falls = (left < before)[..., None]
            u, rest = xp.where(falls, trial, u), xp.where(falls, trial_rest, rest)
            if not bool(xp.any((left > goal) & (left < STALL * before))):
                break
        u = u - apply(self._inverse, self._weight * u)
        u = u + apply(self._inverse, f - apply(self._K, u))
        solved = worst(xp, f - apply(self._K, u)) <= self._limit * size
        return u, solved if f.ndim == 2 else xp.all(solved, axis=0)
