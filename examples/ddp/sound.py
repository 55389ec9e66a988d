"""Wait for rank 0 in a collective, which fails when rank 0 is gone."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from examples import iris


def train(workdir: Path) -> dict[str, torch.Tensor]:
    """Train a classifier of irises on all ranks. Each continues from what rank 0 has saved."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    flowers = iris.load()
    loader = DataLoader(flowers, batch_size=25, sampler=DistributedSampler(flowers))
    model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        checkpoint = workdir / f"epoch-{epoch}.pt"
        if dist.get_rank() == 0:
            torch.save(model.module.state_dict(), checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
        dist.barrier()  # rank 0 is still writing
        model.module.load_state_dict(torch.load(checkpoint))

    dist.destroy_process_group()
    return model.module.state_dict()
