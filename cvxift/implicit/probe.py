"""Whether F is continuously differentiable near a point, probed by its own derivative on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvxift.implicit.oracle import Oracle

STEPS = (1e-4, 1e-5, 1e-6)  # of the variables' size
JUMP = 1e-3  # relative jump of the derivative at the smallest step that counts as a kink; a smooth F has about 1e-6


@dataclass(frozen=True)
class Probe:
    """What was found.

    Attributes:
        jump: largest change of F's derivative across the point at the smallest step, relative to the derivative.
        equations: entries of F whose derivative jumps, by name.
        arguments: entries of x and θ along which it does, by name.
        outside: whether F is no number close to the point.
    """

    jump: float
    equations: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    outside: bool = False


def probe(oracle: Oracle, directions: int = 3, seed: int = 0, most: int = 200) -> Probe:
    """Compare F's directional derivatives on both sides of the point at falling steps.

    Along d, D(s) = F′(z + s d) d. For a smooth F, D(h) − D(−h) falls like h; across a kink it stays. A kink at a
    distance of less than the smallest step is found, too.

    Args:
        oracle: F at the point.
        directions: random ones.
        seed: of these.
        most: number of entries of x and θ up to which each is probed alone, to name it.
    """
    N, M = len(oracle.w), len(oracle.theta)
    size = np.concatenate([_sizes(oracle.w), _sizes(oracle.theta)])
    rng = np.random.default_rng(seed)
    worst = np.zeros(N)
    for _ in range(directions):
        jump = _jump(oracle, size * rng.uniform(0.5, 1.5, N + M) * rng.choice([-1.0, 1.0], N + M))
        if jump is None:
            return Probe(float("inf"), outside=True)
        worst = np.maximum(worst, jump)
    found = float(worst.max(initial=0.0))
    if found <= JUMP:
        return Probe(found)
    equations = tuple(oracle.entry(int(i)) for i in np.flatnonzero(worst > JUMP))
    arguments = []
    if most >= N + M:
        for j in range(N + M):
            alone = np.zeros(N + M)
            alone[j] = size[j]
            jump = _jump(oracle, alone)
            if jump is None or jump.max(initial=0.0) > JUMP:
                arguments.append(oracle.entry(j) if j < N else oracle.theta_entry(j - N))
    return Probe(found, equations, tuple(arguments))


def _sizes(v: np.ndarray) -> np.ndarray:
    """A size for every entry: its own, or where it is small that of the vector, or one."""
    top = float(np.abs(v).max(initial=0.0)) or 1.0
    return np.maximum(np.abs(v), top)


def _jump(oracle: Oracle, d: np.ndarray) -> np.ndarray | None:
    """Relative jump of each entry's derivative along d at the smallest step; zero where it falls with the steps."""
    N = len(oracle.w)
    jumps = []
    for step in STEPS:
        sides = [oracle.tangent(oracle.w + s * d[:N], oracle.theta + s * d[N:], d[:N], d[N:]) for s in (step, -step)]
        if not all(np.isfinite(side).all() for side in sides):
            return None
        plus, minus = sides
        scale = np.abs(plus) + np.abs(minus)
        scale[scale == 0.0] = 1.0
        jumps.append(np.abs(plus - minus) / scale)
    return np.where(jumps[-1] > 0.3 * jumps[0], jumps[-1], 0.0)
