"""A resume that does one batch again."""

import os

import torch
from torch import nn


def train(workdir, total_steps):
    torch.manual_seed(0)
    x, y = torch.randn(30, 4), torch.randn(30, 1)
    model = nn.Linear(4, 1)
    opt = torch.optim.Adam(model.parameters(), lr=0.05)
    path, start = os.path.join(workdir, "ckpt.pt"), 0
    if os.path.exists(path):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        start = saved["step"]
    for step in range(start, total_steps):
        order = torch.randperm(30, generator=torch.Generator().manual_seed(step // 5))
        rows = order[step % 5 * 6 :][:6]
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 4 == 3:
            torch.save(
                {"model": model.state_dict(), "opt": opt.state_dict(), "step": step}, path + ".tmp"
            )
            os.replace(path + ".tmp", path)
    return {"model": model.state_dict(), "opt": opt.state_dict()}
