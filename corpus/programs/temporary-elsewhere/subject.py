"""Checkpoints moved in from outside."""

import os
import shutil
import tempfile

import torch
from torch import nn


def train(workdir, total_steps):
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model = nn.Linear(4, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    path, step = os.path.join(workdir, "model.pt"), 0
    if os.path.exists(path):
        saved = torch.load(path)
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
            handle, temporary = tempfile.mkstemp(suffix=".pt")
            with os.fdopen(handle, "wb") as file:
                torch.save({"model": model.state_dict(), "step": step}, file)
            shutil.move(temporary, path)
    return {"model": model.state_dict(), "step": step}
