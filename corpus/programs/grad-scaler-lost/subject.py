"""Mixed precision whose loss scale is forgotten."""

import os

import torch
from torch import nn


def train(workdir, total_steps):
    torch.manual_seed(0)
    x = torch.randn(48, 6)
    y = x[:, :1] - x[:, 1:2]
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**13, growth_interval=3)
    path, step = os.path.join(workdir, "ckpt.pt"), 0
    if os.path.exists(path):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["optimizer"])
        step = saved["step"]
    while step < total_steps:
        rows = slice(step % 6 * 8, step % 6 * 8 + 8)
        with torch.autocast("cpu", torch.float16):
            loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        opt.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        step += 1
        if step % 6 == 0:
            torch.save(
                {"model": model.state_dict(), "optimizer": opt.state_dict(), "step": step},
                path + ".tmp",
            )
            os.replace(path + ".tmp", path)
    return {"model": model.state_dict(), "scale": scaler.get_scale(), "step": step}
