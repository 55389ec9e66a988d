"""Train in the same loop, but complete a checkpoint before it replaces the previous one."""

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from examples import iris


def train(workdir: Path) -> dict[str, torch.Tensor]:
    """Train for a few epochs. Continue from the checkpoint if it exists."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    checkpoint, done = workdir / "last.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["epochs"]
    for epoch in range(done, 5):
        order = torch.Generator().manual_seed(epoch)
        for x, y in DataLoader(iris.load(), batch_size=50, shuffle=True, generator=order):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epochs": epoch + 1,
        }
        torch.save(state, workdir / "last.tmp")
        (workdir / "last.tmp").replace(checkpoint)
    return model.state_dict()
