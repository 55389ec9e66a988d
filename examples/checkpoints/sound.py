"""Save all that the next step depends on, including the random numbers."""

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from examples import iris

EPOCHS = 3


def train(workdir: Path) -> dict[str, torch.Tensor]:
    """Train a classifier of irises with a checkpoint per epoch. Continue from the last one if it
    exists.
    """
    torch.manual_seed(0)
    loader = DataLoader(iris.load(), batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    checkpoint, start = workdir / "last.pt", 0

    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        torch.set_rng_state(saved["rng"])  # shuffling and dropout continue where they were
        start = saved["epoch"] + 1

    for epoch in range(start, EPOCHS):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        scheduler.step()
        unfinished = checkpoint.with_suffix(".tmp")
        torch.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "rng": torch.get_rng_state(),
                "epoch": epoch,
            },
            unfinished,
        )
        # A reader finds the old checkpoint or the new one, never half of one.
        unfinished.replace(checkpoint)
    return model.state_dict()
