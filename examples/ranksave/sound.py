"""Save into a folder of each epoch, and name it in a file when all ranks have saved."""

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
    done = [int(path.stem) for path in workdir.glob("*.done")]
    if done:
        first = max(done) + 1
        model.module.load_state_dict(torch.load(workdir / f"{max(done)}-model.pt"))
        torch.set_rng_state(torch.load(workdir / f"{max(done)}-random-{rank}.pt"))

    for epoch in range(first, 2):
        loader.sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            noisy = x + 0.1 * torch.randn_like(x)
            nn.functional.cross_entropy(model(noisy), y).backward()
            optimizer.step()
        save(torch.get_rng_state(), workdir / f"{epoch}-random-{rank}.pt")
        if rank == 0:
            save(model.module.state_dict(), workdir / f"{epoch}-model.pt")
        dist.barrier()
        if rank == 0:
            save(True, workdir / f"{epoch}.done")

    dist.destroy_process_group()
    return model.module.state_dict()
