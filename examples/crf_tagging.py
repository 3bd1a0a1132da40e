"""A linear-chain CRF that tags words, trained through the marginals of the chain.

    python examples/crf_tagging.py [--out crf_tagging.png] [--steps 80]

1. The gradient of the CRF's loss is marginals − target. Its gradient in the weights, expected minus observed feature
   counts, is compared with the sum over all taggings of a sentence, one by one.
2. Trained on 60 sentences shipped with this example, in which many words may be nouns or verbs or more, and tested on
   31 others: the CRF against the same features with every word tagged alone (a softmax for each word).
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import matplotlib
import torch

from cvxift.torch import linear_chain, linear_chain_loss, viterbi

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DATA = Path(__file__).parent / "data" / "tagging.txt"
TAGS = "DNVAPOR"
Tensor = torch.Tensor


def sentences() -> list[list[tuple[str, str]]]:
    """The sentences as lists of (word, tag)."""
    lines = [line.split() for line in DATA.read_text(encoding="utf-8").splitlines() if "/" in line and line[0] != "#"]
    return [[(token.split("/")[0], token.split("/")[1]) for token in line] for line in lines]


def features(word: str) -> list[str]:
    """What is known of a word without its neighbours."""
    return ["any", f"word {word}", f"ends in {word[-1:]}", f"ends in {word[-2:]}", f"ends in {word[-3:]}"]


class Batch:
    """Sentences as arrays: feature indicators (B, T, F), tags (B, T) and lengths (B,)."""

    def __init__(self, corpus: list[list[tuple[str, str]]], names: list[str]) -> None:
        index = {name: i for i, name in enumerate(names)}
        self.lengths = torch.tensor([len(sentence) for sentence in corpus])
        longest = int(self.lengths.max())
        self.X = torch.zeros(len(corpus), longest, len(names), dtype=torch.float64)
        self.y = torch.zeros(len(corpus), longest, dtype=torch.long)
        for i, sentence in enumerate(corpus):
            for t, (word, tag) in enumerate(sentence):
                self.y[i, t] = TAGS.index(tag)
                for feature in features(word):
                    if feature in index:
                        self.X[i, t, index[feature]] = 1.0
        self.real = torch.arange(longest) < self.lengths[:, None]


def gradient_errors(batch: Batch, W: Tensor, E: Tensor) -> tuple[float, float]:
    """Largest error of the gradients in W and E against counts over all taggings, for the shortest sentence."""
    i = int(batch.lengths.argmin())
    T = int(batch.lengths[i])
    X, y = batch.X[i, :T], batch.y[i, :T]
    W, E = W.detach().clone().requires_grad_(), E.detach().clone().requires_grad_()
    loss = linear_chain_loss((X @ W)[None], E, y[None]).sum()
    by_W, by_E = torch.autograd.grad(loss, (W, E))

    with torch.no_grad():
        unary = X @ W
        every = torch.tensor(list(itertools.product(range(len(TAGS)), repeat=T)))  # 7^T taggings
        scores = unary[torch.arange(T), every].sum(1) + E[every[:, :-1], every[:, 1:]].sum(1)
        weights = torch.softmax(scores, 0)

        def counts(paths: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            states = torch.zeros(T, len(TAGS), dtype=torch.float64)
            pairs = torch.zeros(len(TAGS) ** 2, dtype=torch.float64)
            for t in range(T):
                states[t].index_add_(0, paths[:, t], weights)
            for t in range(T - 1):
                pairs.index_add_(0, paths[:, t] * len(TAGS) + paths[:, t + 1], weights)
            return X.T @ states, pairs.reshape(len(TAGS), len(TAGS))

        expected, observed = counts(every, weights), counts(y[None], torch.ones(1, dtype=torch.float64))
    errors = [(g - (p - o)).abs().max().item() for g, p, o in zip((by_W, by_E), expected, observed)]
    return errors[0], errors[1]


def train(batch: Batch, chained: bool, steps: int, penalty: float = 0.1) -> tuple[Tensor, Tensor, list[float]]:
    """Weights of the features and of the transitions (zero where the words are tagged alone), and the losses."""
    count = batch.X.shape[-1]
    W = torch.zeros(count, len(TAGS), dtype=torch.float64, requires_grad=True)
    E = torch.zeros(len(TAGS), len(TAGS), dtype=torch.float64, requires_grad=chained)
    optimizer = torch.optim.LBFGS([W, E] if chained else [W], max_iter=steps, line_search_fn="strong_wolfe")
    losses: list[float] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = linear_chain_loss(batch.X @ W, E, batch.y, batch.lengths).sum()
        loss = loss + 0.5 * penalty * ((W**2).sum() + (E**2).sum())
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]  # torch types the closure as returning a float
    return W.detach(), E.detach(), losses


def accuracy(batch: Batch, W: Tensor, E: Tensor) -> float:
    """Part of the words whose tag on the best path is right."""
    path, _ = viterbi(batch.X @ W, E, batch.lengths)
    return ((path == batch.y) & batch.real).sum().item() / batch.real.sum().item()


def draw(path: Path, losses: list[float], E: Tensor, batch: Batch, W: Tensor) -> None:
    """Loss, transition scores, and the marginals of one test sentence."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    left.plot(losses)
    left.set(xlabel="evaluation", ylabel="penalized negative log-likelihood", yscale="log")
    shown = middle.imshow(E, cmap="RdBu", vmin=-3, vmax=3)
    middle.set(xticks=range(len(TAGS)), xticklabels=list(TAGS), yticks=range(len(TAGS)), yticklabels=list(TAGS))
    middle.set(title="score of the transition", xlabel="to", ylabel="from")
    figure.colorbar(shown, ax=middle)
    states, _ = linear_chain(batch.X[:1] @ W, E, lengths=batch.lengths[:1])
    length = int(batch.lengths[0])
    shown = right.imshow(states[0, :length].T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    right.scatter(range(length), batch.y[0, :length], color="tab:orange", label="true tag")
    right.set(yticks=range(len(TAGS)), yticklabels=list(TAGS), xlabel="word", title="marginals of a test sentence")
    figure.colorbar(shown, ax=right, label="probability")
    right.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Compare the gradients, train with and without transitions, test, plot."""
    parser = argparse.ArgumentParser(description="Train a linear-chain CRF through its marginals.")
    parser.add_argument("--out", type=Path, default=Path("crf_tagging.png"), help="where the plot goes")
    parser.add_argument("--steps", type=int, default=80, help="iterations of L-BFGS at most")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the arrays are small
    corpus = sentences()
    rest, test = [s for i, s in enumerate(corpus) if i % 3], [s for i, s in enumerate(corpus) if not i % 3]
    names = sorted({feature for sentence in rest for word, _ in sentence for feature in features(word)})
    train_batch, test_batch = Batch(rest, names), Batch(test, names)
    print(f"{len(rest)} sentences to train, {len(test)} to test, {len(names)} features, {len(TAGS)} tags")

    generator = torch.Generator().manual_seed(0)
    W0 = torch.randn(len(names), len(TAGS), dtype=torch.float64, generator=generator)
    E0 = torch.randn(len(TAGS), len(TAGS), dtype=torch.float64, generator=generator)
    by_W, by_E = gradient_errors(train_batch, W0, E0)
    print(f"gradient against counts over all taggings: {by_W:.1e} features, {by_E:.1e} transitions")

    W, E, losses = train(train_batch, True, options.steps)
    alone, none, _ = train(train_batch, False, options.steps)
    print(f"loss {losses[0]:.1f} → {losses[-1]:.1f}")
    print(f"test words tagged right by the chain: {accuracy(test_batch, W, E):.3f}")
    print(f"test words tagged right each alone: {accuracy(test_batch, alone, none):.3f}")
    draw(options.out, losses, E, test_batch, W)
    print(f"plot saved to {options.out}")


if __name__ == "__main__":
    main()
