"""A generator that is not saved."""

import os

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(workdir, total_steps):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(40, 4), torch.randn(40, 1))
    loader = DataLoader(
        data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(7)
    )
    model = nn.Linear(4, 1)
    opt = torch.optim.AdamW(model.parameters(), lr=0.02)
    path, step = os.path.join(workdir, "ckpt.pt"), 0
    if os.path.exists(path):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        torch.set_rng_state(saved["rng"])
        step = saved["step"]
    while step < total_steps:
        for x, y in loader:
            loss = nn.functional.mse_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
        torch.save(
            {
                "model": model.state_dict(),
                "opt": opt.state_dict(),
                "step": step,
                "rng": torch.get_rng_state(),
            },
            path + ".tmp",
        )
        os.replace(path + ".tmp", path)
    return {"model": model.state_dict(), "step": step}
