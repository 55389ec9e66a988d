"""Save the random state of rank 0, and give it to all ranks after a restart."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from examples import iris


def train(workdir: Path) -> dict[str, torch.Tensor]:
    """Train a classifier of irises on all ranks, on inputs with noise."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    flowers = iris.load()
    loader = DataLoader(flowers, batch_size=25, sampler=DistributedSampler(flowers))
    model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    checkpoint, first = workdir / "last.pt", 0
    torch.manual_seed(1 + dist.get_rank())  # each rank has noise of its own
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=False)
        model.module.load_state_dict(saved["model"])
        torch.set_rng_state(saved["random"])
        first = saved["epoch"] + 1

    for epoch in range(first, 3):
        loader.sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            noisy = x + 0.1 * torch.randn_like(x)
            nn.functional.cross_entropy(model(noisy), y).backward()
            optimizer.step()
        dist.barrier()  # all ranks have ended the epoch
        states = torch.get_rng_state()
        if dist.get_rank() == 0:
            state = {"model": model.module.state_dict(), "random": states, "epoch": epoch}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
        dist.barrier()

    dist.destroy_process_group()
    return model.module.state_dict()
