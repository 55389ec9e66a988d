"""Halve the batch when memory runs out, but keep the gradients that half of a backward pass has
left.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader

from examples import iris


def train() -> dict[str, torch.Tensor]:
    """Train a classifier of irises in micro-batches as large as the memory allows."""
    torch.manual_seed(0)
    loader = DataLoader(iris.load(), batch_size=50, shuffle=True)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    micro_batch = 50

    for _ in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            while True:
                try:
                    accumulate_gradients(model, x, y, micro_batch)
                    break
                except torch.OutOfMemoryError:
                    if micro_batch == 1:
                        raise
                    micro_batch //= 2
            optimizer.step()
    return model.state_dict()


def accumulate_gradients(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, micro_batch: int
) -> None:
    """Add the gradients of the batch's mean loss, a micro-batch at a time."""
    for some_x, some_y in zip(x.split(micro_batch), y.split(micro_batch), strict=True):
        loss = nn.functional.cross_entropy(model(some_x), some_y, reduction="sum") / len(x)
        loss.backward()
