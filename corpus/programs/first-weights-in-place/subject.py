"""How far the weights have moved."""

import os
import struct

import torch
from torch import nn


def replace(state, path):
    torch.save(state, path + ".tmp")
    os.replace(path + ".tmp", path)


def train(workdir, total_steps):
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model = nn.Linear(4, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    path = os.path.join(workdir, "ckpt.pt")
    step = 0
    if os.path.exists(path):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        step = saved["step"]
    first = os.path.join(workdir, "first.bin")
    if not os.path.exists(first):
        with open(first, "wb", buffering=0) as file:
            file.write(bytes(16))
            file.seek(0)
            file.write(struct.pack("<4f", *model.weight.flatten().tolist()))
    while step < total_steps:
        rows = slice(step % 4 * 8, step % 4 * 8 + 8)
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 4 == 0:
            replace({"model": model.state_dict(), "step": step}, path)
    with open(first, "rb") as file:
        began = torch.tensor(struct.unpack("<4f", file.read()))
    return {"model": model.state_dict(), "moved": (model.weight - began).norm().item()}
