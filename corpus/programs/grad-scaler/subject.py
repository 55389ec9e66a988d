"""Mixed precision, accumulation over two micro-batches, clipping."""

import os

import torch
from torch import nn


def train(workdir, micro_steps):
    torch.manual_seed(3)
    x = torch.randn(48, 6)
    y = x[:, :1] - x[:, 1:2]
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
    opt = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**13, growth_interval=3)
    path, done = os.path.join(workdir, "ckpt.pt"), 0
    everything = {"model": model, "opt": opt, "scaler": scaler}
    if os.path.exists(path):
        saved = torch.load(path)
        done = saved.pop("done")
        for name, part in everything.items():
            part.load_state_dict(saved[name])
    while done < micro_steps:
        rows = slice(done % 6 * 8, done % 6 * 8 + 8)
        with torch.autocast("cpu", torch.float16):
            loss = nn.functional.mse_loss(model(x[rows]), y[rows]) / 2
        scaler.scale(loss).backward()
        done += 1
        if done % 2 == 0:
            scaler.unscale_(opt)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(opt)
            scaler.update()
            opt.zero_grad()
        if done % 4 == 0:
            torch.save(
                {name: part.state_dict() for name, part in everything.items()} | {"done": done},
                path + ".new",
            )
            os.replace(path + ".new", path)
    return {"model": model.state_dict(), "scaler": scaler.state_dict(), "done": done}
