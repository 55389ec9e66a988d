"""Divide the flowers among the ranks that are there.

A script for torchrun. It trains a classifier of irises, and goes on from its last checkpoint.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from examples import iris


def main(workdir: Path) -> None:
    """Take 6 steps, each with all flowers."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    flowers = torch.utils.data.Subset(
        iris.load(), range(dist.get_rank(), 150, dist.get_world_size())
    )
    x, y = next(iter(torch.utils.data.DataLoader(flowers, batch_size=len(flowers))))
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    checkpoint, first = workdir / "last.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        first = saved["step"] + 1

    for step in range(first, 6):
        optimizer.zero_grad()
        (nn.functional.cross_entropy(model(x), y, reduction="sum") / 150).backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
        optimizer.step()
        if dist.get_rank() == 0:
            torch.save({"step": step, "model": model.state_dict()}, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
        dist.barrier()

    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
