"""Noise that begins late, and forgets."""

import os
import random

import torch
from torch import nn


def replace(state, path):
    torch.save(state, path + ".tmp")
    os.replace(path + ".tmp", path)


def train(workdir, total_steps):
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model = nn.Linear(4, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    path = os.path.join(workdir, "ckpt.pt")
    step = 0
    if os.path.exists(path):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        step = saved["step"]
    own = random.Random(0)
    while step < total_steps:
        rows = slice(step % 4 * 8, step % 4 * 8 + 8)
        noise = own.gauss(0, 0.1)
        inputs = x[rows] + noise if step >= 32 else x[rows]
        loss = nn.functional.mse_loss(model(inputs), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 4 == 0:
            replace({"model": model.state_dict(), "step": step}, path)
    return {"model": model.state_dict()}
