"""Augmentation drawn from np.random."""

import os

import numpy as np
import torch
from torch import nn


def augment(batch):
    return (
        batch * float(np.random.uniform(0.8, 1.2))
        + torch.from_numpy(np.random.normal(0, 0.1, batch.shape)).float()
    )


def train(workdir, total_steps):
    torch.manual_seed(0)
    np.random.seed(0)
    x, y = torch.randn(40, 4), torch.randn(40, 1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 1))
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    path, step, order = os.path.join(workdir, "ckpt.pt"), 0, None
    if os.path.exists(path):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        torch.set_rng_state(saved["rng"])
        step = saved["step"]
    while step < total_steps:
        if step % 5 == 0:
            order = torch.randperm(40)
        rows = order[step % 5 * 8 :][:8]
        loss = nn.functional.mse_loss(model(augment(x[rows])), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 5 == 0:
            torch.save(
                {"model": model.state_dict(), "rng": torch.get_rng_state(), "step": step},
                path + ".tmp",
            )
            os.replace(path + ".tmp", path)
    return {"model": model.state_dict(), "step": step}
