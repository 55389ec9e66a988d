"""torch.save in place, with the generation before to fall back on."""

import os
import pickle

import torch
from torch import nn


def load(path):
    for candidate in (path, path + ".prev"):
        try:
            return torch.load(candidate)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            continue
    return None


def complete(path):
    try:
        torch.load(path)
    except Exception:
        return False
    return True


def save(state, path):
    if complete(path):  # never let a broken one take the place of a good one
        os.replace(path, path + ".prev")
    torch.save(state, path)


def train(workdir, total_steps):
    torch.manual_seed(0)
    x, y = torch.randn(32, 3), torch.randn(32, 1)
    model = nn.Sequential(nn.Linear(3, 8), nn.ELU(), nn.Linear(8, 1))
    opt = torch.optim.NAdam(model.parameters(), lr=1e-2)
    path, step = os.path.join(workdir, "checkpoint.pth"), 0
    if (saved := load(path)) is not None:
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        step = saved["step"]
    while step < total_steps:
        rows = slice(step % 4 * 8, step % 4 * 8 + 8)
        loss = nn.functional.l1_loss(model(x[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 3 == 0:
            save({"model": model.state_dict(), "opt": opt.state_dict(), "step": step}, path)
    return {"model": model.state_dict(), "opt": opt.state_dict(), "step": step}
