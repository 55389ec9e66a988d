"""The best checkpoint as a copy."""

import os
import shutil

import torch
from torch import nn


def train(workdir, total_steps):
    torch.manual_seed(0)
    x = torch.randn(24, 4)
    y = x @ torch.tensor([[1.0], [2.0], [0.0], [-1.0]])
    model = nn.Linear(4, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    last, best = os.path.join(workdir, "last.pt"), os.path.join(workdir, "best.pt")
    step = 0
    best_loss = torch.load(best)["loss"] if os.path.exists(best) else float("inf")
    if os.path.exists(last):
        saved = torch.load(last)
        model.load_state_dict(saved["model"])
        step = saved["step"]
    while step < total_steps:
        for i in range(0, 24, 8):
            loss = nn.functional.mse_loss(model(x[i : i + 8]), y[i : i + 8])
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
        total = nn.functional.mse_loss(model(x), y).item()
        torch.save({"model": model.state_dict(), "step": step, "loss": total}, last + ".tmp")
        os.replace(last + ".tmp", last)
        if total < best_loss:
            best_loss = total
            shutil.copy(last, best)
    return {"model": model.state_dict(), "best": best_loss}
