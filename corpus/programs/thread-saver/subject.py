"""Asynchronous saves in a thread."""

import copy
import os
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn


def write(state, path):
    with open(path + ".tmp", "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".tmp", path)


def train(workdir, total_steps):
    torch.manual_seed(0)
    x, y = torch.randn(30, 4), torch.randn(30, 2)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    opt = torch.optim.RMSprop(model.parameters(), lr=1e-2)
    path, step, pending = os.path.join(workdir, "state.pt"), 0, None
    if os.path.exists(path):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        step = saved["step"]
    with ThreadPoolExecutor(1) as pool:
        while step < total_steps:
            rows = slice(step % 5 * 6, step % 5 * 6 + 6)
            loss = nn.functional.mse_loss(model(x[rows]), y[rows])
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
            if step % 5 == 0:
                if pending is not None:
                    pending.result()
                state = copy.deepcopy(
                    {"model": model.state_dict(), "opt": opt.state_dict(), "step": step}
                )
                pending = pool.submit(write, state, path)
    if pending is not None:
        pending.result()
    return {"model": model.state_dict(), "step": step}
