"""A checkpoint in three files, as many trainers write it."""

import json
import os

import torch
from safetensors.torch import load_file, save_file
from torch import nn


def train(workdir, total_steps):
    torch.manual_seed(0)
    x = torch.randn(40, 5)
    y = (x[:, :1] * x[:, 1:2] > 0).float()
    model = nn.Sequential(nn.Linear(5, 16), nn.GELU(), nn.Linear(16, 1))
    opt = torch.optim.AdamW(model.parameters(), lr=2e-2)
    weights, moments, state = (
        os.path.join(workdir, name)
        for name in ("model.safetensors", "optimizer.pt", "trainer_state.json")
    )
    step = 0
    if os.path.exists(state):
        model.load_state_dict(load_file(weights))
        opt.load_state_dict(torch.load(moments))
        with open(state) as file:
            step = json.load(file)["global_step"]
    while step < total_steps:
        rows = torch.arange(8) + step * 8 % 40
        loss = nn.functional.binary_cross_entropy_with_logits(model(x[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 4 == 0:
            save_file(model.state_dict(), weights + ".tmp")
            os.replace(weights + ".tmp", weights)
            torch.save(opt.state_dict(), moments + ".tmp")
            os.replace(moments + ".tmp", moments)
            with open(state + ".tmp", "w") as file:
                json.dump({"global_step": step, "epoch": step / 5}, file)
            os.replace(state + ".tmp", state)
    return {"model": model.state_dict(), "opt": opt.state_dict(), "step": step}
