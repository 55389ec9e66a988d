"""A best model that gets worse."""

import os

import torch
from torch import nn


def put(state, path):
    torch.save(state, path + ".tmp")
    os.replace(path + ".tmp", path)


def train(workdir, epochs):
    torch.manual_seed(0)
    x, y = torch.randn(40, 8), torch.randn(40, 1)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.Adam(model.parameters(), lr=2e-2)
    last, best_path = os.path.join(workdir, "last.pt"), os.path.join(workdir, "best.pt")
    start, best = 0, float("inf")
    if os.path.exists(last):
        saved = torch.load(last)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        start = saved["epoch"]
    for epoch in range(start, epochs):
        for i in range(0, 20, 5):
            loss = nn.functional.mse_loss(model(x[i : i + 5]), y[i : i + 5])
            opt.zero_grad()
            loss.backward()
            opt.step()
        with torch.no_grad():
            held_out = nn.functional.mse_loss(model(x[20:]), y[20:]).item()
        if held_out < best:
            best = held_out
            put({"model": model.state_dict(), "epoch": epoch, "loss": held_out}, best_path)
        put({"model": model.state_dict(), "opt": opt.state_dict(), "epoch": epoch + 1}, last)
    chosen = torch.load(best_path)
    return {"epoch": chosen["epoch"], "loss": chosen["loss"], "model": chosen["model"]}
