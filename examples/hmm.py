"""A hidden Markov model as a linear chain: posterior marginals, exact gradients, memory linear in the length.

    python examples/hmm.py [--out hmm.png] [--length 2000] [--steps 60]

With log-probabilities for scores, the chain's marginals are the posterior of the hidden states and log Z is the
log-likelihood. Shown here:

1. they agree with the scaled forward–backward recursion in probabilities (Rabiner 1989), written out below, and the
   gradient of log Z with Baum and Welch's expected counts;
2. gradients of a posterior itself, by one more pass in each direction, agree with differences;
3. memory per position does not depend on the length;
4. the model's parameters are fitted by gradient descent on the likelihood.
"""

from __future__ import annotations

import argparse
import tracemalloc
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor

from cvxift.argmax import chain
from cvxift.torch import linear_chain

matplotlib.use("Agg")
import matplotlib.pyplot as plt

START = np.array([0.6, 0.3, 0.1])
MOVE = np.array([[0.95, 0.04, 0.01], [0.03, 0.94, 0.03], [0.02, 0.05, 0.93]])
MEANS, NOISE = np.array([-1.0, 0.5, 2.0]), 0.8


def sample(length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states and observations."""
    states = np.empty(length, dtype=int)
    states[0] = rng.choice(3, p=START)
    for t in range(1, length):
        states[t] = rng.choice(3, p=MOVE[states[t - 1]])
    return states, MEANS[states] + NOISE * rng.standard_normal(length)


def forward_backward(likelihood: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log-likelihood, posteriors and expected numbers of moves, by scaled recursions in probabilities."""
    length = len(likelihood)
    alpha, scale = np.empty_like(likelihood), np.empty(length)
    for t in range(length):
        raw = (START if t == 0 else alpha[t - 1] @ MOVE) * likelihood[t]
        scale[t] = raw.sum()
        alpha[t] = raw / scale[t]
    beta = np.ones_like(likelihood)
    for t in range(length - 2, -1, -1):
        beta[t] = MOVE @ (likelihood[t + 1] * beta[t + 1]) / scale[t + 1]
    moves = np.zeros_like(MOVE)
    for t in range(length - 1):
        moves += alpha[t][:, None] * MOVE * (likelihood[t + 1] * beta[t + 1]) / scale[t + 1]
    return float(np.log(scale).sum()), alpha * beta, moves


def scores(start: Tensor, means: Tensor, noise: Tensor, x: Tensor) -> Tensor:
    """Log-probabilities of the observations in each state, the first with those of the start; (T, 3)."""
    unary = -0.5 * ((x[:, None] - means) / noise) ** 2 - torch.log(noise) - 0.5 * np.log(2 * np.pi)
    return torch.cat([unary[:1] + start, unary[1:]])


def compare(x: np.ndarray) -> None:
    """Values and gradients against the recursion in probabilities and against differences."""
    start, move = torch.tensor(np.log(START)), torch.tensor(np.log(MOVE), requires_grad=True)
    unary = scores(start, torch.tensor(MEANS), torch.tensor(NOISE, dtype=torch.float64), torch.tensor(x))
    unary.requires_grad_()
    evidence = linear_chain(unary, move, log_partition=True)
    states, _ = linear_chain(unary, move)
    likelihood = np.exp(-0.5 * ((x[:, None] - MEANS) / NOISE) ** 2) / (NOISE * np.sqrt(2 * np.pi))
    value, posterior, moves = forward_backward(likelihood)
    print(f"log-likelihood {evidence.item():.6f}, relative error {abs(evidence.item() / value - 1):.1e}")
    print(f"posteriors: error {np.abs(states.detach().numpy() - posterior).max():.1e}")
    by_unary, by_move = torch.autograd.grad(evidence, (unary, move))
    print(f"gradient in the scores is the posterior: error {np.abs(by_unary.numpy() - posterior).max():.1e}")
    print(f"gradient in log moves is Baum and Welch's count: error {np.abs(by_move.numpy() / moves - 1).max():.1e}")

    middle = len(x) // 2
    (slope,) = torch.autograd.grad(states[middle, 0], unary)
    direction = torch.tensor(np.random.default_rng(1).standard_normal(unary.shape))
    with torch.no_grad():
        ahead, behind = (linear_chain(unary + h * direction, move)[0][middle, 0] for h in (1e-5, -1e-5))
    difference = (ahead - behind).item() / 2e-5
    print(
        f"gradient of a posterior against differences: error {abs((slope * direction).sum().item() - difference):.1e}"
    )


def memory(lengths: tuple[int, ...]) -> list[float]:
    """Bytes per position at the peak of computing marginals and a derivative of them."""
    rng, used = np.random.default_rng(0), []
    for length in lengths:
        unary, pairwise = rng.standard_normal((length, 3)), rng.standard_normal((length - 1, 3, 3))
        tracemalloc.start()
        chain.derivative(unary, pairwise, np.ones(length, dtype=bool), unary, pairwise)
        used.append(tracemalloc.get_traced_memory()[1] / length)
        tracemalloc.stop()
        print(f"memory at length {length}: {used[-1]:.0f} bytes a position")
    return used


def fit(x: np.ndarray, steps: int) -> tuple[list[float], np.ndarray]:
    """Gradient descent on the negative log-likelihood from a rough start; the losses, and the means it ends at."""
    data = torch.tensor(x)
    start, move = torch.zeros(3, dtype=torch.float64), 2 * torch.eye(3, dtype=torch.float64)
    means = torch.tensor(np.quantile(x, [0.1, 0.5, 0.9]))
    noise = torch.tensor(0.0, dtype=torch.float64)
    parameters = [p.requires_grad_() for p in (start, move, means, noise)]
    optimizer = torch.optim.Adam(parameters, lr=0.1)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        unary = scores(torch.log_softmax(start, 0), means, noise.exp(), data)
        loss = -linear_chain(unary, torch.log_softmax(move, 1), log_partition=True) / len(x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, np.sort(means.detach().numpy())


def main() -> None:
    """Compare, measure, fit, plot."""
    parser = argparse.ArgumentParser(description="A hidden Markov model as a linear chain.")
    parser.add_argument("--out", type=Path, default=Path("hmm.png"), help="where the plot goes")
    parser.add_argument("--length", type=int, default=2000, help="length of the sequence")
    parser.add_argument("--steps", type=int, default=60, help="steps of gradient descent")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the arrays are small
    states, x = sample(options.length, np.random.default_rng(0))
    compare(x)
    lengths = tuple(options.length * k // 4 for k in (1, 2, 4))
    used = memory(lengths)
    losses, means = fit(x[:400], options.steps)
    print(f"fitted: loss {losses[0]:.3f} → {losses[-1]:.3f} a position")
    print(f"means {np.round(means, 2)}, true {MEANS}")

    unary = scores(torch.tensor(np.log(START)), torch.tensor(MEANS), torch.tensor(NOISE), torch.tensor(x))
    posterior = linear_chain(unary, torch.tensor(np.log(MOVE)))[0][:200]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), width_ratios=[3, 1], layout="constrained")
    left.stackplot(range(len(posterior)), posterior.T.numpy(), labels=[f"mean {m:g}" for m in MEANS], alpha=0.6)
    left.plot((states[:200] + 0.5) / 3, "k.", markersize=2)
    left.set(xlabel="position", ylabel="posterior", title="posterior of the states; dots: the true ones")
    left.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    right.plot(lengths, used, "o-")
    right.set(xlabel="length", ylabel="bytes a position", ylim=(0, 1.1 * max(used)), title="peak memory")
    figure.savefig(options.out, dpi=120)
    print(f"plot saved to {options.out}")


if __name__ == "__main__":
    main()
