"""Semi-amortized variational inference: an encoder's guess, refined to the optimum of the evidence bound.

The bound of the first half of a document's counts gives its Gaussian posterior; the model is trained on the second half
at that optimum, by the implicit gradient, which the guess does not enter. The report says that the optimum is strict.

Source: Kim, Wiseman, Miller, Sontag & Rush 2018, Semi-amortized variational autoencoders.
"""

from __future__ import annotations

import argparse

import torch
from figures import panels, save

from cvxift.torch import implicit_argmin

TOPICS = 2
Model = dict[str, torch.Tensor]


def expected(q: torch.Tensor, model: Model, counts: torch.Tensor) -> torch.Tensor:
    """E_q log p(counts | z) up to a constant: Poisson rates exp(Wz + b), q = N(m, diag e^{2s}); closed form."""
    m, s = q.split(TOPICS, -1)
    W = model["W"]
    log_rate = m @ W.T + model["b"]
    rate = torch.exp(log_rate + 0.5 * torch.exp(2.0 * s) @ W.square().T)
    return (counts * log_rate - rate).sum(-1)


def bound(q: torch.Tensor, model: Model, counts: torch.Tensor) -> torch.Tensor:
    """The negative evidence bound of all documents: minimized by their posteriors."""
    m, s = q.split(TOPICS, -1)
    divergence = (0.5 * (m.square() + torch.exp(2.0 * s) - 1.0) - s).sum(-1)
    return (divergence - expected(q, model, counts)).sum()


def refine(model: Model, counts: torch.Tensor, init: torch.Tensor) -> torch.Tensor:
    """Newton's method from the guess, every document for itself."""
    q = init.clone()
    one = torch.func.vmap(lambda q, counts: bound(q, model, counts))
    slope = torch.func.vmap(torch.func.grad(lambda q, counts: bound(q, model, counts)))
    curvature = torch.func.vmap(torch.func.hessian(lambda q, counts: bound(q, model, counts)))
    eye = torch.eye(2 * TOPICS, dtype=q.dtype)
    for _ in range(60):
        g = slope(q, counts)
        if bool(g.abs().max() < 1e-10):
            break
        H = curvature(q, counts)
        lowest = torch.linalg.eigvalsh(H)[:, 0].clamp(max=0.0)[:, None, None]
        step = torch.linalg.solve(H - 1.5 * lowest * eye + 1e-9 * eye, g)
        size = torch.ones(len(q), 1, dtype=q.dtype)
        for _ in range(20):
            worse = ~(one(q - size * step, counts) <= one(q, counts) + 1e-12 * one(q, counts).abs())
            size = torch.where(worse[:, None], 0.5 * size, size)
        q = q - size * step
    return q


def main() -> None:
    """Train the model on predictions, and the encoder on the optima; compare, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--documents", type=int, default=120)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    words = 12
    truth = {"W": 0.8 * torch.randn(words, TOPICS, generator=generator, dtype=torch.float64),
             "b": 0.5 * torch.randn(words, generator=generator, dtype=torch.float64)}  # fmt: skip

    def documents(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.randn(count, TOPICS, generator=generator, dtype=torch.float64)
        rate = torch.exp(z @ truth["W"].T + truth["b"])
        return torch.poisson(rate, generator=generator), torch.poisson(rate, generator=generator)

    seen, unseen = documents(arguments.documents)
    fresh, fresh_unseen = documents(arguments.documents)
    model = {"W": (0.1 * torch.randn(words, TOPICS, generator=generator, dtype=torch.float64)).requires_grad_(),
             "b": torch.zeros(words, dtype=torch.float64, requires_grad=True)}  # fmt: skip
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Linear(words, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2 * TOPICS)).double()
    # One system for all documents would be large and mostly zero: conjugate gradients see its blocks.
    solve = implicit_argmin(bound, refine, linear_solver="cg")
    optimizer = torch.optim.Adam([*model.values(), *encoder.parameters()], lr=0.03)
    history, gaps = [], []
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        guess = encoder(torch.log1p(seen))
        q = solve(model, seen, init=guess.detach())
        loss = -expected(q, model, unseen).mean()
        (loss + (guess - q.detach()).square().sum(1).mean()).backward()
        optimizer.step()
        history.append(float(loss.detach()))
        with torch.no_grad():
            gaps.append(float(bound(guess, model, seen) - bound(q, model, seen)) / len(seen))
    with torch.no_grad():
        guess = encoder(torch.log1p(fresh))
        q = solve(model, fresh, init=guess)
        own = {
            name: float(-expected(at, model, fresh_unseen).mean()) for name, at in (("guess", guess), ("refined", q))
        }
        best = float(-expected(refine(truth, fresh, guess), truth, fresh_unseen).mean())
    print(f"loss on unseen words from {history[0]:.3f} to {history[-1]:.3f}")
    print(f"fresh documents: encoder alone {own['guess']:.3f}, refined {own['refined']:.3f}, true model {best:.3f}")
    row = {name: value.detach() for name, value in model.items()}
    report = solve.diagnose(row, seen[:1], init=guess[:1])
    print(f"report: {report.verdict.value}, least curvature {report.checks[-2].value:.2f} of the largest")
    figure, axes = panels(3)
    axes[0].plot(history)
    axes[0].axhline(best, color="#6b7280", linestyle="--", label="true model, fresh documents")
    axes[0].set(title="loss on unseen words", xlabel="step")
    axes[0].legend(fontsize=8)
    axes[1].semilogy(gaps)
    axes[1].set(title="bound that the encoder's guess loses", xlabel="step")
    axes[2].plot(guess[:, 0], q[:, 0], ".", label="first mean")
    axes[2].plot(guess[:, 1], q[:, 1], ".", label="second mean")
    axes[2].axline((0.0, 0.0), slope=1.0, color="#6b7280", lw=1)
    axes[2].set(title="fresh documents", xlabel="encoder's guess", ylabel="optimum")
    axes[2].legend(fontsize=8)
    save(figure, "semi_amortized")


if __name__ == "__main__":
    main()
