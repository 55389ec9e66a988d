"""Weights without the optimizer."""

import os

import torch
from torch import nn


def train(workdir, total_steps):
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    opt = torch.optim.Adam(model.parameters(), lr=0.02)
    path, step = os.path.join(workdir, "weights.pt"), 0
    if os.path.exists(path):
        weights, step = torch.load(path)
        model.load_state_dict(weights)
    while step < total_steps:
        for i in range(0, 32, 8):
            loss = nn.functional.mse_loss(model(x[i : i + 8]), y[i : i + 8])
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
        torch.save((model.state_dict(), step), path + ".tmp")
        os.replace(path + ".tmp", path)
    return {"model": model.state_dict(), "step": step}
