"""A job that tidies up behind itself."""

import os

import torch
from torch import nn


def put(state, path):
    torch.save(state, path + ".tmp")
    os.replace(path + ".tmp", path)


def train(workdir, total_steps):
    final, checkpoint = os.path.join(workdir, "final.pt"), os.path.join(workdir, "checkpoint.pt")
    if os.path.exists(final):
        return {"model": torch.load(final)}
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model = nn.Linear(4, 1)
    opt = torch.optim.Adagrad(model.parameters(), lr=0.1)
    step = 0
    if os.path.exists(checkpoint):
        saved = torch.load(checkpoint)
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
            put({"model": model.state_dict(), "opt": opt.state_dict(), "step": step}, checkpoint)
    put(model.state_dict(), final)
    os.remove(checkpoint)
    return {"model": torch.load(final)}
