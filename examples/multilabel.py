"""Multi-label classification with the sparsemax loss, which can give a topic the probability zero.

    python examples/multilabel.py [--out multilabel.png] [--steps 300]

The target of a sentence with k topics is uniform over them (Martins & Astudillo 2016, section 4.2). A linear model on
word counts is fitted by the Fenchel–Young losses of softmax (cross-entropy), 1.5-entmax and sparsemax. The gradient of
each in the scores is prediction − target, so no argmax is differentiated. Softmax gives every topic some probability;
sparsemax reaches its targets, zeros included.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
from topics import Topics, f1
from torch import Tensor
from tqdm import tqdm

from cvxift.torch import entmax, fenchel_young_loss

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ORDERS = {"softmax": 1.0, "1.5-entmax": 1.5, "sparsemax": 2.0}
WEIGHT = 1e-5  # of the squared norm
THRESHOLD = 0.25  # an even share of the probability
VISIBLE = 0.01


def counts(data: Topics) -> Tensor:
    """Word counts of each sentence, scaled to unit length, shape (sentences, words)."""
    out = np.zeros((len(data.words), len(data.vocabulary) + 1))
    for row, words in zip(out, data.words, strict=True):
        np.add.at(row, words[words > 0], 1.0)
    return torch.tensor(out / np.linalg.norm(out, axis=1, keepdims=True))


def fit(x: Tensor, targets: Tensor, alpha: float, steps: int) -> tuple[Tensor, list[float]]:
    """Weights (words, topics) that minimize the loss plus a quadratic penalty, and the objective over the steps."""
    weights = torch.zeros(x.shape[1], targets.shape[1], dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=steps, line_search_fn="strong_wolfe")
    losses: list[float] = []

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = fenchel_young_loss(x @ weights, targets, alpha).mean() + WEIGHT * weights.square().sum()
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(objective)  # type: ignore[arg-type]  # torch types the closure as returning a float
    return weights.detach(), losses


def gradient_error(x: Tensor, targets: Tensor, alpha: float, step: float = 1e-5) -> float:
    """Difference between prediction − target and the loss's central difference along a random direction, relative."""
    generator = torch.Generator().manual_seed(0)
    scores, direction = (torch.randn(targets.shape, generator=generator, dtype=x.dtype) for _ in range(2))
    ahead, behind = (fenchel_young_loss(scores + h * direction, targets, alpha).sum() for h in (step, -step))
    slope = ((entmax(scores, alpha) - targets) * direction).sum()
    return float(abs((ahead - behind) / (2.0 * step) - slope) / abs(slope))


def main() -> None:
    """Cross-validate each loss, compare the sets it predicts, plot the losses."""
    parser = argparse.ArgumentParser(description="Multi-label classification with Fenchel–Young losses.")
    parser.add_argument("--out", type=Path, default=Path("multilabel.png"), help="where the plot goes")
    parser.add_argument("--steps", type=int, default=300, help="iterations of L-BFGS at most")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the arrays are small
    data = Topics()
    x, targets = counts(data), torch.tensor(data.targets)
    figure, axes = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
    print(f"{'loss':12s} {'F1, left out':>12s} {'topics above 1 %':>28s} {'gradient error':>15s}")
    print(f"{'':12s} {'':12s} {'fitted':>14s} {'left out':>13s}")
    for name, alpha in ORDERS.items():
        probabilities = np.zeros_like(data.targets)
        for part in tqdm(data.folds(8), desc=name, unit="fold", leave=False):
            rest = np.setdiff1d(np.arange(len(x)), part)
            weights, _ = fit(x[rest], targets[rest], alpha, options.steps)
            probabilities[part] = entmax(x[part] @ weights, alpha).numpy()
        weights, losses = fit(x, targets, alpha, options.steps)
        fitted = entmax(x @ weights, alpha).numpy()
        shown, left_out = (np.count_nonzero(p > VISIBLE, axis=1).mean() for p in (fitted, probabilities))
        score, error = f1(probabilities > THRESHOLD, data.labels), gradient_error(x, targets, alpha)
        print(f"{name:12s} {score:12.3f} {shown:14.2f} {left_out:13.2f} {error:15.1e}")
        axes.semilogy(np.array(losses) - min(losses) + 1e-12, label=name)
    axes.set(xlabel="evaluation", ylabel="objective − smallest", title="convex, and smooth in the scores")
    axes.legend()
    figure.savefig(options.out, dpi=120)
    print(f"plot saved to {options.out}")


if __name__ == "__main__":
    main()
