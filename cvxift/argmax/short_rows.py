"""Sparsemax and 1.5-entmax of short rows, exactly, by sorting: what little there is to do, in few NumPy calls.

With d = x − max x sorted decreasingly, the threshold τ for which Σ [d − τ]_+ = 1 is the largest of those of the k
largest entries alone, (Σ_{i≤k} d_i − 1)/k. For α = 1.5, with d = (x − max x)/2 and Σ [d − τ]_+² = 1, these are
M_k − √((1 − S_k)/k) from the mean M_k and the sum S_k of squared deviations, and τ is the largest one that does not
exceed its d_k. A few hundred numbers cost less this way than the calls that `simplex.entmax` needs to iterate.
C. Michelot 1986; A. Martins, R. Astudillo 2016; B. Peters, V. Niculae, A. Martins 2019 (Algorithm 2).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from cvxift.argmax import losses, tsallis

MOST, LONGEST = 1 << 17, 256  # numbers, and numbers in a row, up to which sorting costs less than iterating
FAR = -4.0  # less their maximum, entries below have no part, for either order


def serves(number: int, length: int, alpha: object) -> bool:
    """Whether rows are short enough, and of an order that is known here."""
    return 0 < number <= MOST and length <= LONGEST and isinstance(alpha, float) and alpha in (1.5, 2.0)


def entmax(x: np.ndarray, alpha: float) -> np.ndarray | None:
    """α-entmax along the last axis, α = 1.5 or 2.

    Args:
        x: scores, (..., n); −∞ masks.
        alpha: order.

    Returns:
        Distributions in float64; None where a row is masked throughout or holds NaN or +∞, which others handle.

    Example:
        >>> import numpy as np
        >>> entmax(np.array([0.5, 0.4, -1.0]), 2.0)
        array([0.55, 0.45, 0.  ])
    """
    d = x.astype(np.float64)
    top = np.maximum.reduce(d, axis=-1, keepdims=True)
    if not math.isfinite(np.add.reduce(top, axis=None)):
        return None
    d -= top
    np.maximum(d, FAR, out=d)
    if alpha == 1.5:
        d *= 0.5
    down = d.copy()
    down.sort(axis=-1)
    down = down[..., ::-1]
    inverse = _inverses(d.shape[-1])
    sums = np.add.accumulate(down, axis=-1)
    if alpha == 2.0:
        sums -= 1.0
        sums *= inverse
        d -= np.maximum.reduce(sums, axis=-1, keepdims=True)
        return np.maximum(d, 0.0, out=d)
    sums *= inverse  # means
    free = np.add.accumulate(down * down, axis=-1)
    free *= inverse
    free -= sums * sums
    np.subtract(inverse, free, out=free)  # (1 − S_k)/k
    sums -= np.sqrt(np.maximum(free, 0.0, out=free), out=free)
    sums[sums > down] = -np.inf
    d -= np.maximum.reduce(sums, axis=-1, keepdims=True)
    np.maximum(d, 0.0, out=d)
    d *= d
    return d


def derivative(z: np.ndarray, bar: np.ndarray, alpha: float) -> np.ndarray:
    """`tsallis.derivative` for α = 1.5 or 2, from values ≥ 0 whose rows sum to 1, or are zero where masked."""
    s = (z > 0).astype(z.dtype) if alpha == 2.0 else np.sqrt(z)
    if not math.isfinite(np.add.reduce(bar, axis=None)):
        return tsallis.derivative(z, bar, alpha)
    moved = bar * s
    total = np.add.reduce(moved, axis=-1, keepdims=True)
    # Σ s ≥ 1, but in masked rows.
    moved -= s * (total / np.maximum(np.add.reduce(s, axis=-1, keepdims=True), 0.5))
    return moved


def check_targets(x: np.ndarray, y: np.ndarray) -> None:
    """`losses.check_targets`, after a quick look that nearly always suffices."""
    sums = y @ np.ones(y.shape[-1])
    if not ((abs(sums - 1.0) <= losses.OFF).all() and np.minimum.reduce(y, axis=None) >= -losses.OFF):
        losses.check_targets(x, y)


@lru_cache(maxsize=LONGEST)
def _inverses(n: int) -> np.ndarray:
    return 1.0 / np.arange(1.0, n + 1.0)
