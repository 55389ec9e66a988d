"""The best loss of a job."""

import os

import torch
from torch import nn


def replace(state, path):
    torch.save(state, path + ".tmp")
    os.replace(path + ".tmp", path)


def train(workdir, max_epochs, patience=4):
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.randn(40, 1)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.Adam(model.parameters(), lr=3e-2)
    path = os.path.join(workdir, "ckpt.pt")
    epoch, best, bad_epochs = 0, float("inf"), 0
    if os.path.exists(path):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        epoch = saved["epoch"]
    while epoch < max_epochs:
        for i in range(0, 20, 5):
            loss = nn.functional.mse_loss(model(x[i : i + 5]), y[i : i + 5])
            opt.zero_grad()
            loss.backward()
            opt.step()
        with torch.no_grad():
            held_out = nn.functional.mse_loss(model(x[20:]), y[20:]).item()
        bad_epochs = 0 if held_out < best else bad_epochs + 1
        best = min(best, held_out)
        epoch += 1
        replace({"model": model.state_dict(), "opt": opt.state_dict(), "epoch": epoch}, path)
    return {"best": best, "model": model.state_dict()}
