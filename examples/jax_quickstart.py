"""JAX quick start: fit a portfolio's risk model by Newton's method, through the program that chose the portfolios.

    python examples/jax_quickstart.py [--out jax_quickstart.png] [--steps 8]

An investor maximizes returnsᵀw − ½‖diag(risk) w‖² over w ≥ 0, Σw = 1. We see returns and decisions, not the risks.
The layer is one function of JAX: `vmap` over the days, `jit` around all, `jax.hessian` through the solver. With exact
second derivatives a damped Newton method comes down to the noise in five steps.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cvxpy as cp
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from tqdm import trange

from cvxift.jax import CvxpyLayer

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ASSETS, DAYS = 6, 64


def investor() -> CvxpyLayer:
    """The investor's problem as a layer: (returns, risk) ↦ weights."""
    weights = cp.Variable(ASSETS, name="weights")
    returns, risk = cp.Parameter(ASSETS, name="returns"), cp.Parameter(ASSETS, name="risk", nonneg=True)
    objective = cp.Maximize(returns @ weights - 0.5 * cp.sum_squares(cp.multiply(risk, weights)))
    problem = cp.Problem(objective, [weights >= 0, cp.sum(weights) == 1])
    return CvxpyLayer(problem, parameters=[returns, risk], variables=[weights])


def observe(layer: CvxpyLayer) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (DAYS, ASSETS) and the decisions (DAYS, ASSETS) at the true risks (ASSETS,), with a little noise."""
    rng = np.random.default_rng(0)
    returns, risk = jnp.asarray(rng.standard_normal((DAYS, ASSETS))), jnp.asarray(rng.uniform(0.8, 3.0, ASSETS))
    (decisions,) = layer(returns, risk)
    return returns, decisions + 0.01 * rng.standard_normal(decisions.shape), risk


def fit(layer: CvxpyLayer, returns: jax.Array, decisions: jax.Array, steps: int) -> tuple[list[float], np.ndarray]:
    """Damped Newton for log(risk).

    Args:
        layer: the investor.
        returns: shape (DAYS, ASSETS).
        decisions: shape (DAYS, ASSETS).
        steps: Newton steps.

    Returns:
        The losses and the risks found, shape (ASSETS,).
    """

    @jax.jit
    def loss(log_risk: jax.Array) -> jax.Array:
        weights = jax.vmap(lambda day: layer(day, jnp.exp(log_risk))[0])(returns)
        return jnp.mean((weights - decisions) ** 2)

    slopes = jax.jit(lambda z: (jax.grad(loss)(z), jax.hessian(loss)(z)))
    log_risk = jnp.zeros(ASSETS)
    losses = [float(loss(log_risk))]
    bar = trange(steps, desc="fitting the risks", unit="step")
    for _ in bar:
        gradient, hessian = slopes(log_risk)
        values, vectors = jnp.linalg.eigh(hessian)
        step = -vectors @ ((vectors.T @ gradient) / jnp.maximum(jnp.abs(values), 1e-4))
        length = 1.0
        while float(loss(log_risk + length * step)) > losses[-1] and length > 1e-6:
            length *= 0.5
        log_risk = log_risk + length * step
        losses.append(float(loss(log_risk)))
        bar.set_postfix(loss=f"{losses[-1]:.2e}", length=length)
    return losses, np.exp(np.asarray(log_risk))


def plot(losses: list[float], true: np.ndarray, found: np.ndarray, out: Path) -> None:
    """Loss over the Newton steps, and the risks found beside the true ones."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.semilogy(losses, marker="o")
    left.axhline(1e-4, color="0.6", linestyle=":", label="noise in the decisions")
    left.set(xlabel="Newton step", ylabel="mean squared error", title="loss")
    left.legend()
    position = np.arange(len(true))
    right.bar(position - 0.2, true, 0.4, label="true")
    right.bar(position + 0.2, found, 0.4, label="found")
    right.set(xlabel="asset", ylabel="risk", title="the objective, recovered")
    right.set_ylim(0, 1.25 * max(true.max(), found.max()))
    right.legend(loc="upper center", ncols=2)
    figure.savefig(out, dpi=120)
    plt.close(figure)


def main() -> None:
    """Observe, fit, and show."""
    parser = argparse.ArgumentParser(description="Fit a portfolio's risk model by Newton's method through its program.")
    parser.add_argument("--out", type=Path, default=Path("jax_quickstart.png"), help="where the plot goes")
    parser.add_argument("--steps", type=int, default=8, help="Newton steps")
    options = parser.parse_args()

    layer = investor()
    returns, decisions, risk = observe(layer)
    start = time.perf_counter()
    losses, found = fit(layer, returns, decisions, options.steps)
    print(f"loss {losses[0]:.2e} → {losses[-1]:.2e} in {time.perf_counter() - start:.1f} s, compilation included")
    print("risks, true  :", np.asarray(risk).round(3))
    print("risks, found :", found.round(3))
    plot(losses, np.asarray(risk), found, options.out)
    print(f"plot saved to {options.out}")


if __name__ == "__main__":
    main()
