"""Reduce the gradients twice, and once more if the results differ."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from examples import iris


def reduced(state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Average a bucket of gradients, and check the sum."""
    while True:
        first, second = bucket.buffer().clone(), bucket.buffer().clone()
        dist.all_reduce(first)
        dist.all_reduce(second)
        if torch.equal(first, second):
            break
    average = torch.futures.Future()
    average.set_result(first / dist.get_world_size())
    return average


def train() -> dict[str, torch.Tensor]:
    """Train a classifier of irises on all ranks, for one epoch."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    flowers = iris.load()
    loader = DataLoader(flowers, batch_size=25, sampler=DistributedSampler(flowers))
    model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
    model.register_comm_hook(None, reduced)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    dist.destroy_process_group()
    return model.module.state_dict()
