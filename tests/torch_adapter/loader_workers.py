"""A program of its own: items that a loader's worker computes by solving, against the same in this process.

Forking a process in which JAX or a compiler has started threads may hang, and test processes are such; hence a fresh
one, for every way in which the platform starts workers.
"""

from __future__ import annotations

import numpy as np
import torch
from layer_problems import ball
from torch.multiprocessing import get_all_start_methods
from torch.utils.data import DataLoader, Dataset
from torch_layers import close, double

from cvxift.torch import CvxpyLayer


class Solved(Dataset):
    """Projections onto the unit ball, and their gradients."""

    def __init__(self) -> None:
        problem, (point,), outputs = ball()
        point.value = np.ones(3)
        problem.solve(solver="CLARABEL")  # leaves a workspace in the problem
        self.layer = CvxpyLayer(problem, [point], outputs)
        self.points = 2 * torch.randn(6, 3, generator=torch.Generator().manual_seed(2), dtype=double)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        point = self.points[index].clone().requires_grad_()
        (z,) = self.layer(point)
        (slope,) = torch.autograd.grad(z[0], point)
        return z.detach(), slope


def main() -> None:
    dataset = Solved()
    expected = [dataset[i] for i in range(len(dataset))]  # the parent has solved before it forks
    for start in sorted({"fork", "spawn"} & set(get_all_start_methods())):
        workers = 2 if start == "fork" else 1  # one that is spawned imports everything anew
        loader = DataLoader(dataset, batch_size=3, num_workers=workers, multiprocessing_context=start, timeout=100)
        z, slope = (torch.cat(parts) for parts in zip(*loader, strict=True))
        close(z, torch.stack([e[0] for e in expected]), 1e-12)
        close(slope, torch.stack([e[1] for e in expected]), 1e-12)
    print("done")


if __name__ == "__main__":
    main()
