"""A `latest` symlink, switched at once."""

import os
from pathlib import Path

import torch
from torch import nn


def save(workdir, state, step):
    path = workdir / f"step{step:04d}.pt"
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)
    link = workdir / "latest.new"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    os.replace(link, workdir / "latest")
    for old in sorted(workdir.glob("step*.pt"))[:-2]:
        old.unlink()


def train(workdir, total_steps):
    workdir = Path(workdir)
    torch.manual_seed(0)
    x = torch.randn(32, 6)
    y = x.sum(1, keepdim=True)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Dropout(0.1), nn.Linear(12, 1))
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    step = 0
    if (workdir / "latest").exists():
        saved = torch.load(workdir / "latest")
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        step = saved["step"]
        torch.set_rng_state(saved["rng"])
    while step < total_steps:
        batch = torch.randint(0, 32, (8,))
        loss = nn.functional.mse_loss(model(x[batch]), y[batch])
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 4 == 0:
            save(
                workdir,
                {
                    "model": model.state_dict(),
                    "opt": opt.state_dict(),
                    "step": step,
                    "rng": torch.get_rng_state(),
                },
                step,
            )
    return {"model": model.state_dict(), "opt": opt.state_dict(), "step": step}
