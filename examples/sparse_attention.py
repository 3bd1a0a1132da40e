"""Attention that must look at several words: constrained sparsemax on a small text task.

    python examples/sparse_attention.py [--out sparse_attention.png] [--steps 80]

Short sentences have one or two of four topics. A classifier sees a weighted mean of a sentence's word vectors; the
weights are its attention. Softmax spreads attention over every word, sparsemax over few, at times a single one.
Constrained sparsemax (Malaviya, Ferreira, Martins 2018) caps the weight of a word at 0.45, so that at least three share
it, which is what a sentence with two topics needs. All three are argmax problems, solved in closed form; the last lines
differentiate one of them through CVXPY and compare.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cvxpy as cp
import matplotlib
import numpy as np
import torch
from topics import Topics, f1
from torch import Tensor
from tqdm import tqdm

from cvxift.torch import CvxpyLayer, constrained_sparsemax, fenchel_young_loss, softmax, sparsemax

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CAP = 0.45
TEMPERATURE = 0.3
Attention = Callable[[Tensor, Tensor], Tensor]


def masked(scores: Tensor, present: Tensor) -> Tensor:
    """Scores with padding at −∞."""
    return scores.masked_fill(~present, -torch.inf)


ATTENTIONS: dict[str, Attention] = {
    "softmax": lambda scores, present: softmax(masked(scores, present)),
    "sparsemax": lambda scores, present: sparsemax(masked(scores, present)),
    f"sparsemax ≤ {CAP}": lambda scores, present: constrained_sparsemax(scores, CAP * present),
}


class Classifier(torch.nn.Module):
    """Word vectors, attention, topic scores."""

    def __init__(self, words: int, topics: int, attention: Attention, size: int = 16) -> None:
        super().__init__()
        self.vectors = torch.nn.Embedding(words, size, padding_idx=0)
        torch.nn.init.normal_(self.vectors.weight, std=0.1)
        self.query = torch.nn.Parameter(torch.zeros(size))
        self.topics = torch.nn.Linear(size, topics)
        self.attention = attention

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Topic scores (sentences, topics) and attention (sentences, words)."""
        vectors = self.vectors(words)
        weights = self.attention(vectors @ self.query / TEMPERATURE, words > 0)
        return self.topics((weights.unsqueeze(-1) * vectors).sum(dim=1)), weights


def train(data: Topics, rows: np.ndarray, attention: Attention, steps: int) -> Classifier:
    """Fit a classifier to some sentences by the sparsemax loss, whose gradient is prediction − target."""
    torch.manual_seed(0)
    model = Classifier(len(data.vocabulary) + 1, len(data.topics), attention)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, weight_decay=1e-3)
    words, targets = torch.tensor(data.words[rows]), torch.tensor(data.targets[rows], dtype=torch.float32)
    for _ in range(steps):
        optimizer.zero_grad()
        scores, _ = model(words)
        fenchel_young_loss(scores, targets, alpha=2).mean().backward()
        optimizer.step()
    return model


def cross_validated(data: Topics, name: str, steps: int, folds: int = 4) -> tuple[float, float]:
    """F1 on sentences left out, and the mean number of words attended to there."""
    predicted, attended = np.zeros_like(data.labels), []
    for part in tqdm(data.folds(folds), desc=name, unit="fold", leave=False):
        rest = np.setdiff1d(np.arange(len(data.words)), part)
        model = train(data, rest, ATTENTIONS[name], steps)
        with torch.no_grad():
            scores, weights = model(torch.tensor(data.words[part]))
        predicted[part] = sparsemax(scores).numpy() > 0.2
        attended.append((weights > 0.01).sum(dim=1).double().mean().item())
    return f1(predicted, data.labels), float(np.mean(attended))


def through_cvxpy() -> float:
    """Largest difference between the gradient of the closed form and that of the problem, by its KKT system."""
    n = 6
    z, theta, upper = cp.Variable(n), cp.Parameter(n), cp.Parameter(n)
    projection = cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [cp.sum(z) == 1, z >= 0, z <= upper])
    layer = CvxpyLayer(projection, parameters=[theta, upper], variables=[z])
    scores = torch.tensor([0.31, -0.2, 0.87, 0.54, 0.29, -1.1], dtype=torch.float64, requires_grad=True)
    caps = torch.full((n,), CAP, dtype=torch.float64, requires_grad=True)
    weights = torch.arange(1.0, n + 1.0, dtype=torch.float64)
    grads = [
        torch.autograd.grad((z_star * weights).sum(), (scores, caps))
        for z_star in (layer(scores, caps)[0], constrained_sparsemax(scores, caps))
    ]
    return max(float((a - b).abs().max()) for a, b in zip(*grads, strict=True))


def plot(data: Topics, models: dict[str, Classifier], out: Path) -> None:
    """Attention of each model on a few sentences with two topics."""
    chosen = np.flatnonzero(data.labels.sum(axis=1) == 2)[[0, 9, 18, 26]]
    figure, axes = plt.subplots(len(chosen), 1, figsize=(9, 7), layout="constrained")
    for ax, row in zip(axes, chosen, strict=True):
        sentence = data.sentences[row]
        with torch.no_grad():
            weights = np.array([m(torch.tensor(data.words[row : row + 1]))[1][0].numpy() for m in models.values()])
        ax.imshow(weights[:, : len(sentence)], cmap="Blues", vmin=0, vmax=1, aspect="auto")
        ax.set_xticks(range(len(sentence)), sentence, fontsize=8)
        ax.set_yticks(range(len(models)), list(models), fontsize=8)
        ax.set_title(", ".join(t for t, has in zip(data.topics, data.labels[row], strict=True) if has), fontsize=9)
    figure.savefig(out, dpi=120)
    plt.close(figure)


def main() -> None:
    """Train with each attention, compare, and check one gradient through CVXPY."""
    parser = argparse.ArgumentParser(description="Sparse and constrained attention on a small text task.")
    parser.add_argument("--out", type=Path, default=Path("sparse_attention.png"), help="where the plot goes")
    parser.add_argument("--steps", type=int, default=80, help="gradient steps for each model")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the arrays are small
    data = Topics()
    print(f"{len(data.sentences)} sentences, {len(data.vocabulary)} words, topics: {', '.join(data.topics)}")
    print(f"{'attention':18s} {'F1, left out':>12s} {'words attended':>15s}")
    for name in ATTENTIONS:
        score, attended = cross_validated(data, name, options.steps)
        print(f"{name:18s} {score:12.3f} {attended:15.1f}")
    every = np.arange(len(data.words))
    plot(data, {name: train(data, every, a, options.steps) for name, a in ATTENTIONS.items()}, options.out)
    print(f"closed form against the problem differentiated by its KKT system: {through_cvxpy():.1e}")
    print(f"plot saved to {options.out}")


if __name__ == "__main__":
    main()
