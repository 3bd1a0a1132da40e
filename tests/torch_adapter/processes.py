"""A program of its own: training in two processes, and items that a loader's workers compute, against this process.

Forking a process in which JAX or a compiler has started threads may hang, and test processes are such; hence a fresh
one.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from layer_problems import ball
from torch import multiprocessing
from torch.multiprocessing import get_all_start_methods
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from torch_layers import Model, close, double

from cvxift.torch import CvxpyLayer

PATIENCE = timedelta(seconds=120)  # with the other process, which may have failed


def data() -> torch.Tensor:
    return torch.randn(8, 2, generator=torch.Generator().manual_seed(1), dtype=double)


def loss_of(z: torch.Tensor) -> torch.Tensor:
    return (z * torch.arange(1.0, 4.0, dtype=double)).sum(-1).square().mean()


def share(rank: int) -> list[torch.Tensor]:
    """Gradients of one of two processes: of half of the data, averaged over both."""
    model = DistributedDataParallel(Model())
    loss_of(model(data()[4 * rank : 4 * rank + 4])).backward()
    return [p.grad for p in model.parameters()]


def work(rank: int, folder: str) -> None:
    """What each of two processes does.

    The wrapped model must be gone before the group is: a group that dies with the model, under Python's lock, waits for
    a thread of its own that may wait for that lock (PyTorch 2.13, one run in ten on two busy cores).
    """
    meeting = f"file://{folder}/meeting"  # no port that another process could take
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=PATIENCE)
    try:
        torch.save(share(rank), os.path.join(folder, f"{rank}.pt"))
        dist.barrier()  # neither leaves while the other still talks to it
    finally:
        dist.destroy_process_group()


def work_beside(_: int, folder: str) -> None:
    """The process that is started."""
    torch.set_num_threads(1)
    work(1, folder)


def distributed() -> None:
    """Gradients of training in two processes are those of all data in one."""
    start = "fork" if "fork" in get_all_start_methods() else "spawn"
    with tempfile.TemporaryDirectory() as folder:
        beside = multiprocessing.start_processes(work_beside, args=(folder,), nprocs=1, join=False, start_method=start)
        work(0, folder)
        while not beside.join():  # raises what it raised
            pass
        model = Model()
        loss_of(model(data())).backward()
        for rank in range(2):
            for p, got in zip(model.parameters(), torch.load(f"{folder}/{rank}.pt"), strict=True):
                close(got, p.grad, 1e-10)


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
    if dist.is_available() and dist.is_gloo_available():
        distributed()
    print("done")


if __name__ == "__main__":
    main()
