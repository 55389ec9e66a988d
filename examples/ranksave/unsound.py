"""Save the model on rank 0 and the random state on each rank, each file by a rename."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from examples import iris


def save(state: object, path: Path) -> None:
    """Write a file as a whole."""
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def train(workdir: Path) -> dict[str, torch.Tensor]:
    """Train a classifier of irises on all ranks, on inputs with noise of each rank."""
    dist.init_process_group("gloo")
    rank, first = dist.get_rank(), 0
    torch.manual_seed(0)
    flowers = iris.load()
    loader = DataLoader(flowers, batch_size=50, sampler=DistributedSampler(flowers))
    model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(1 + rank)
    if (workdir / "model.pt").exists():
        saved = torch.load(workdir / "model.pt")
        first = saved["epoch"] + 1
        model.module.load_state_dict(saved["model"])
    if (workdir / f"random-{rank}.pt").exists():
        torch.set_rng_state(torch.load(workdir / f"random-{rank}.pt"))

    for epoch in range(first, 2):
        loader.sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            noisy = x + 0.1 * torch.randn_like(x)
            nn.functional.cross_entropy(model(noisy), y).backward()
            optimizer.step()
        save(torch.get_rng_state(), workdir / f"random-{rank}.pt")
        if rank == 0:
            save({"epoch": epoch, "model": model.module.state_dict()}, workdir / "model.pt")
        dist.barrier()

    dist.destroy_process_group()
    return model.module.state_dict()
