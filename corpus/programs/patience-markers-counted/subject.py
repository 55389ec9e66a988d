"""Early stopping whose bad epochs are empty files."""

import os
from pathlib import Path

import torch
from torch import nn

SCORES = (9, 10, 8, 9, 9, 7, 8, 8, 6, 7, 7, 5, 6, 6, 6, 6, 4)
"""They stand for a held-out loss that goes up and down."""


def train(workdir, patience):
    workdir = Path(workdir)
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model = nn.Linear(4, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    epoch, best, bad = 0, float("inf"), 0
    if (workdir / "ckpt.pt").exists():
        saved = torch.load(workdir / "ckpt.pt")
        model.load_state_dict(saved["model"])
        epoch, best = saved["epoch"], saved["best"]
        bad = len(list(workdir.glob("bad-*")))
    while bad < patience:
        for rows in torch.arange(32).split(8):
            loss = nn.functional.mse_loss(model(x[rows]), y[rows])
            opt.zero_grad()
            loss.backward()
            opt.step()
        bad = 0 if SCORES[epoch] < best else bad + 1
        best = min(best, SCORES[epoch])
        epoch += 1
        state = {"model": model.state_dict(), "epoch": epoch, "best": best}
        torch.save(state, workdir / "ckpt.tmp")
        if bad:
            (workdir / f"bad-{epoch:02d}").touch()
        else:
            for marker in workdir.glob("bad-*"):
                marker.unlink()
        os.replace(workdir / "ckpt.tmp", workdir / "ckpt.pt")
    return {"stopped_after": epoch, "model": model.state_dict()}
