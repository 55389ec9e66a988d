"""Checkpoints whose weights are averaged at the end."""

import os
import tempfile
from pathlib import Path

import torch
from torch import nn


def train(workdir, total_steps):
    workdir = Path(workdir)
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model = nn.Linear(4, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    step = 0
    if paths := sorted(workdir.glob("step*.pt")):
        saved = torch.load(paths[-1])
        model.load_state_dict(saved["model"])
        step = saved["step"]
    while step < total_steps:
        rows = slice(step % 4 * 8, step % 4 * 8 + 8)
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 4 == 0:
            with tempfile.NamedTemporaryFile(dir=workdir, suffix=".pt", delete=False) as file:
                torch.save({"model": model.state_dict(), "step": step}, file)
            os.replace(file.name, workdir / f"step{step:03d}.pt")
    weights = [torch.load(path)["model"]["weight"] for path in sorted(workdir.glob("step*.pt"))]
    return {"average": torch.stack(weights).mean(0)}
