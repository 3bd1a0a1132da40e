"""argmax as a linear program over the simplex: right, but without a useful gradient; three remedies over a score.

The vertex does not move until the best score changes, so its derivative is zero, and at a tie there is none: the report
says so. Entropy gives softmax, ½‖z‖² sparsemax, a log-barrier the central path; each trades bias for a gradient.
"""

from __future__ import annotations

import argparse

import cvxpy as cp
import torch
from figures import panels, save

import cvxift
from cvxift.torch import CvxpyLayer


def layers(strength: float) -> dict[str, CvxpyLayer]:
    """argmax over the simplex, plain and with each regularizer."""
    out = {}
    for name, regularizer in (
        ("linear program", lambda z: 0.0),
        ("entropy", lambda z: strength * cp.sum(cp.entr(z))),
        ("½‖z‖²", lambda z: -0.5 * 4.0 * strength * cp.sum_squares(z)),
        ("central path", lambda z: 0.25 * strength * cp.sum(cp.log(z))),
    ):
        theta, z = cp.Parameter(3, name="theta"), cp.Variable(3, name="z")
        problem = cp.Problem(cp.Maximize(theta @ z + regularizer(z)), [cp.sum(z) == 1, z >= 0])
        out[name] = CvxpyLayer(problem, [theta], [z])
    return out


def main() -> None:
    """Sweep the first of three scores through ties with the others."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=101)
    parser.add_argument("--strength", type=float, default=0.15)
    arguments = parser.parse_args()
    score = torch.linspace(0.0, 1.0, arguments.points, dtype=torch.float64) + 1e-3  # beside the tie, not on it
    figure, axes = panels(2, width=4.6)
    for name, layer in layers(arguments.strength).items():
        s = score.clone().requires_grad_()
        theta = torch.stack([s, torch.full_like(s, 0.5), torch.full_like(s, 0.2)], 1)
        (z,) = layer(theta)
        (slope,) = torch.autograd.grad(z[:, 0].sum(), s)
        z = z.detach()
        bias = float((z[:, 0] - (score > 0.5).double()).abs().mean())
        print(f"{name}: largest slope {float(slope.abs().max()):.3f}, mean distance to argmax {bias:.3f}")
        axes[0].plot(score, z[:, 0], label=name)
        axes[1].plot(score, slope)
    plain = layers(arguments.strength)["linear program"]
    away, tie = (cvxift.diagnose(plain, torch.tensor([first, 0.5, 0.2])) for first in (0.7, 0.5))
    print(f"report away from the tie: {away.verdict.value}; at it: {tie.verdict.value} ({tie.faults[0].cause})")
    axes[0].set(title="z₁", xlabel="score θ₁ (others: 0.5, 0.2)")
    axes[1].set(title="dz₁/dθ₁", xlabel="score θ₁")
    axes[0].legend(fontsize=8)
    save(figure, "argmax_lp")


if __name__ == "__main__":
    main()
