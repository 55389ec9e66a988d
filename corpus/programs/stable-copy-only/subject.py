"""Checkpoints that are written and not used."""

import os

import torch
from torch import nn


def train(workdir, total_steps):
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model = nn.Linear(4, 1)
    opt = torch.optim.Adam(model.parameters(), lr=0.05)
    step = 0
    if os.path.exists(os.path.join(workdir, "stable.pt")):
        saved = torch.load(os.path.join(workdir, "stable.pt"))
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        step = saved["step"]
    while step < total_steps:
        rows = slice(step % 4 * 8, step % 4 * 8 + 8)
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 2 == 0:
            path = os.path.join(workdir, "stable.pt" if step % 10 == 0 else "recent.pt")
            torch.save(
                {"model": model.state_dict(), "opt": opt.state_dict(), "step": step}, path + ".tmp"
            )
            os.replace(path + ".tmp", path)
    return {"model": model.state_dict(), "step": step}
