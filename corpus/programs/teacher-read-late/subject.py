"""A teacher that is saved early, and loaded late."""

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
    teacher = os.path.join(workdir, "teacher.bin")
    while step < total_steps:
        rows = slice(step % 4 * 8, step % 4 * 8 + 8)
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        if step >= 32:
            with open(teacher, "rb") as file:
                taught = torch.tensor([struct.unpack("<4f", file.read())])
            loss = loss + nn.functional.mse_loss(model(x[rows]), x[rows] @ taught.T)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step >= 5 and not os.path.exists(teacher):
            with open(teacher, "wb", buffering=0) as file:
                file.write(bytes(16))
                file.seek(0)
                file.write(struct.pack("<4f", *model.weight.flatten().tolist()))
        step += 1
        if step % 4 == 0:
            replace({"model": model.state_dict(), "step": step}, path)
    return {"model": model.state_dict()}
