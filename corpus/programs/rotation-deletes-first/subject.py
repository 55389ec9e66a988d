"""Rotation in the wrong order."""

import glob
import os

import torch
from torch import nn


def train(workdir, total_steps):
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model = nn.Linear(4, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    step, found = 0, sorted(glob.glob(os.path.join(workdir, "model-*.pt")))
    if found:
        saved = torch.load(found[-1])
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
        if step % 4 == 0:
            for old in glob.glob(os.path.join(workdir, "model-*.pt")):
                os.remove(old)
            path = os.path.join(workdir, f"model-{step:03d}.pt")
            torch.save(
                {"model": model.state_dict(), "opt": opt.state_dict(), "step": step}, path + ".tmp"
            )
            os.rename(path + ".tmp", path)
    return {"model": model.state_dict(), "step": step}
