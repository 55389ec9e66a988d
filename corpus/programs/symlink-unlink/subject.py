"""A `latest` symlink with a moment without it."""

import os

import torch
from torch import nn


def train(workdir, total_steps):
    torch.manual_seed(0)
    x, y = torch.randn(20, 4), torch.randn(20, 1)
    model = nn.Linear(4, 1)
    opt = torch.optim.Adam(model.parameters(), lr=0.05)
    latest, step = os.path.join(workdir, "latest.pt"), 0
    if os.path.exists(latest):
        saved = torch.load(latest)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        step = saved["step"]
    while step < total_steps:
        rows = slice(step % 4 * 5, step % 4 * 5 + 5)
        loss = (model(x[rows]) - y[rows]).square().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 5 == 0:
            name = f"ckpt-{step}.pt"
            torch.save(
                {"model": model.state_dict(), "opt": opt.state_dict(), "step": step},
                os.path.join(workdir, name + ".tmp"),
            )
            os.replace(os.path.join(workdir, name + ".tmp"), os.path.join(workdir, name))
            if os.path.lexists(latest):
                os.unlink(latest)
            os.symlink(name, latest)
    return {"model": model.state_dict(), "step": step}
