"""The figure of the landing page: gradients of the projection onto the simplex along a line, beside cvxpylayers.

    python docs/front.py            # writes docs/front.png; needs the extras cvxpylayers and plot

The exact Jacobian is known: for the support S of the solution, I_S − 1 1ᵀ/|S|.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import cvxpy as cp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from cvxpylayers.torch import CvxpyLayer as Peer

import cvxift
from cvxift.torch import CvxpyLayer

START, END = np.array([1.0, 0.75, 0.4, 0.1]), np.array([0.2, 0.9, 1.1, 0.95])


def exact(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The projection onto the simplex and its Jacobian (Held, Wolfe & Crowder 1974)."""
    ordered = np.sort(theta)[::-1]
    heights = (np.cumsum(ordered) - 1) / np.arange(1, len(theta) + 1)
    threshold = heights[np.flatnonzero(ordered > heights)[-1]]
    support = (theta > threshold).astype(float)
    return np.maximum(theta - threshold, 0), np.diag(support) - np.outer(support, support) / support.sum()


def main() -> None:
    """Measure and draw."""
    z, theta = cp.Variable(4, name="z"), cp.Parameter(4, name="theta")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [cp.sum(z) == 1, z >= 0])
    layers = {
        "cvxpylayers 1.2 (default)": Peer(problem, [theta], [z]),
        "cvxift (default, without closed form)": CvxpyLayer(problem, [theta], [z], closed_form="never", check="off"),
    }
    places = np.linspace(0, 1, 121)
    errors = {name: np.zeros(len(places)) for name in layers}
    values, kinks = np.zeros((len(places), 4)), []
    for i, place in enumerate(places):
        point = (1 - place) * START + place * END
        values[i], J = exact(point)
        for name, layer in layers.items():
            t = torch.tensor(point, dtype=torch.float64)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = torch.autograd.functional.jacobian(lambda t, layer=layer: layer(t)[0], t).numpy()
            errors[name][i] = max(np.abs(found - J).max(), 1e-16)  # rounding
    support = (values > 0).sum(axis=1)
    for left, right in zip(*(np.flatnonzero(np.diff(support)) + k for k in (0, 1)), strict=True):
        kinks.append((places[left] + places[right]) / 2)

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 5.2), sharex=True, layout="constrained")
    for k in range(4):
        top.plot(places, values[:, k], label=f"z[{k}]")
    top.set(ylabel="solution z*(θ)", title="Projection onto the simplex, while θ moves along a line")
    bottom.semilogy(places, errors["cvxpylayers 1.2 (default)"], color="0.45", label="cvxpylayers 1.2 (default)")
    name = "cvxift (default, without closed form)"
    bottom.semilogy(places, errors[name], color="tab:blue", label=name)
    bottom.set(xlabel="position of θ between its two ends", ylabel="error of dz*/dθ", ylim=(1e-17, 10))
    for axis in (top, bottom):
        for kink in kinks:
            axis.axvline(kink, color="tab:red", linewidth=0.8, linestyle=":")
    bottom.plot([], [], color="tab:red", linestyle=":", label="kink: no derivative; cvxift warns there")
    top.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.02), frameon=False)
    bottom.legend(loc="lower left", bbox_to_anchor=(0.01, 0.1), frameon=False)  # between the two curves
    figure.savefig(Path(__file__).with_name("front.png"), dpi=120)
    for name, error in errors.items():
        print(f"{name}: median error {np.median(error):.1e}, largest {error.max():.1e}")
    theta.value = np.array([0.5, 0.5, 0.0, -1.0])
    print(cvxift.diagnose(problem))


if __name__ == "__main__":
    main()
