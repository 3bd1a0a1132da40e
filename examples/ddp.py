"""A layer in a model that two processes train together (PyTorch's DistributedDataParallel).

A linear model predicts costs from features; the layer makes the decision that is cheapest for them, with a quadratic
cost of its own, and the loss compares it with the best decisions. Each process solves its own half of every batch, and
the gradients are averaged by DistributedDataParallel: the layer itself sends nothing. The trained weights are those of
one process with whole batches.

    python examples/ddp.py
"""

from __future__ import annotations

import argparse
import os
import socket

import cvxpy as cp
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from cvxift.torch import CvxpyLayer

FEATURES, ITEMS, BATCH = 6, 5, 32


class Decisions(torch.nn.Module):
    """Features -> predicted costs -> how much of each item is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.predict = torch.nn.Linear(FEATURES, ITEMS, dtype=torch.float64)
        cost, share = cp.Parameter(ITEMS, name="cost"), cp.Variable(ITEMS, name="share")
        problem = cp.Problem(
            cp.Minimize(cost @ share + 0.5 * cp.sum_squares(share)), [cp.sum(share) == 1, share >= 0, share <= 0.6]
        )
        self.decide = CvxpyLayer(problem, parameters=[cost], variables=[share], closed_form="never")

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Shape (batch, FEATURES) -> (batch, ITEMS)."""
        (share,) = self.decide(self.predict(features))
        return share


def batches(steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The same in every process: features, and the costs that come true."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(FEATURES, ITEMS, dtype=torch.float64, generator=generator)
    features = torch.randn(steps, BATCH, FEATURES, dtype=torch.float64, generator=generator)
    return list(zip(features, features @ mix, strict=True))


def train(model: torch.nn.Module, rank: int, processes: int, steps: int) -> list[float]:
    """The losses on this process's part of each batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for features, costs in batches(steps):
        mine = slice(rank * BATCH // processes, (rank + 1) * BATCH // processes)
        loss = (model(features[mine]) * costs[mine]).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def worker(rank: int, processes: int, port: int, steps: int, weights: dict[str, torch.Tensor]) -> None:
    """One process: its own solver, its own half of every batch."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    torch.manual_seed(0)
    model = Decisions()
    wrapped = DistributedDataParallel(model)
    train(wrapped, rank, processes, steps)
    del wrapped  # before the group: with gloo a process may hang at its end otherwise
    dist.destroy_process_group()
    if rank == 0:
        for name, value in model.state_dict().items():
            weights[name].copy_(value)  # shared memory


def main(steps: int, processes: int = 2) -> None:
    """Train in several processes and in one, and compare."""
    torch.manual_seed(0)
    alone = Decisions()
    weights = {name: value.clone().share_memory_() for name, value in alone.state_dict().items()}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(worker, (processes, port, steps, weights), nprocs=processes, start_method="spawn")
    losses = train(alone, 0, 1, steps)
    apart = max(float((weights[name] - value).abs().max()) for name, value in alone.state_dict().items())
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    print(f"weights of {processes} processes against one: largest difference {apart:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    main(parser.parse_args().steps)
