"""Learning to rank with soft ranks: the rank correlation as a loss.

    python examples/soft_ranking.py [--out soft_ranking.png] [--steps 200]

Items come in lists; their grades are a monotone function of a linear score, strongly curved, different from list to
list, and with outliers. What matters is the order, and three losses are asked for it:

- least squares on the grades;
- Spearman's: ½‖soft_rank(scores) − rank(grades)‖², differentiated through the projection onto the permutahedron;
- `rank_loss`, its Fenchel–Young loss, convex in the scores, with gradient soft ranks − ranks.

Compared by Spearman's correlation on unseen lists (Blondel, Teboul, Berthet, Djolonga 2020, section 6).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
from scipy.stats import rankdata, spearmanr
from torch import Tensor
from tqdm import trange

from cvxift.torch import rank_loss, soft_rank

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FEATURES, ITEMS = 8, 20


def lists(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Features (count, items, features), grades (count, items) and their ranks."""
    true = np.linspace(-1, 1, FEATURES)
    x = rng.standard_normal((count, ITEMS, FEATURES))
    score = x @ true + 0.3 * rng.standard_normal((count, ITEMS))
    grades = np.exp(rng.uniform(0.5, 2, (count, 1)) * score) + rng.normal(0, 20, (count, 1))
    outlier = rng.random((count, ITEMS)) < 0.05
    grades = np.where(outlier, grades + 100 * rng.standard_normal((count, ITEMS)), grades)
    return torch.tensor(x), torch.tensor(grades), torch.tensor(rankdata(grades, axis=1))


def correlation(weights: Tensor, x: Tensor, grades: Tensor) -> float:
    """Mean of Spearman's correlation over the lists."""
    predicted = (x @ weights).numpy()
    return float(np.mean([spearmanr(p, g).statistic for p, g in zip(predicted, grades.numpy(), strict=True)]))


def main() -> None:
    """Train each loss, compare, plot soft ranks over the temperature."""
    parser = argparse.ArgumentParser(description="Learning to rank with soft ranks.")
    parser.add_argument("--out", type=Path, default=Path("soft_ranking.png"), help="where the plot goes")
    parser.add_argument("--steps", type=int, default=200, help="steps of Adam")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the arrays are small
    rng = np.random.default_rng(0)
    x, grades, ranks = lists(40, rng)
    unseen = lists(200, rng)

    losses = {
        "least squares": lambda s: 0.5 * ((s - grades) ** 2).sum(-1) / grades.var(),
        "Spearman's": lambda s: 0.5 * ((soft_rank(s, 0.1) - ranks) ** 2).sum(-1) / ITEMS,
        "rank_loss": lambda s: rank_loss(s, ranks) / ITEMS,
    }
    found = {}
    for name, loss in losses.items():
        weights = torch.zeros(FEATURES, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(1))
        weights.requires_grad_()
        optimizer = torch.optim.Adam([weights], lr=0.05)
        for _ in trange(options.steps, desc=name, leave=False):
            optimizer.zero_grad()
            value = loss(x @ weights).mean()
            value.backward()
            optimizer.step()
        found[name] = correlation(weights.detach(), *unseen[:2])
        print(f"{name}: loss {value.item():.3f}, correlation on unseen lists {found[name]:.4f}")

    scores = (x[0] @ torch.linspace(-1, 1, FEATURES, dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(rank_loss(scores, ranks[0]), scores)
    error = (gradient - (soft_rank(scores) - ranks[0])).abs().max().item()
    print(f"gradient of rank_loss against soft ranks − ranks: error {error:.1e}")

    temperatures = np.logspace(-3, 2, 120)
    curves = torch.stack([soft_rank(scores.detach()[:6], t) for t in temperatures])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    left.semilogx(temperatures, curves)
    left.set(xlabel="temperature", ylabel="soft rank", title="from ranks to their mean")
    right.barh(list(found), list(found.values()))
    right.set(xlabel="Spearman's correlation, unseen lists", xlim=(0, 1))
    figure.savefig(options.out, dpi=120)
    print(f"plot saved to {options.out}")


if __name__ == "__main__":
    main()
