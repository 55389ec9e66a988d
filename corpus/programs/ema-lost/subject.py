"""A moving average of the weights that is not saved."""

import os

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def train(workdir, total_steps):
    torch.manual_seed(0)
    x, y = torch.randn(30, 4), torch.randn(30, 1)
    model = nn.Linear(4, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    path, step = os.path.join(workdir, "model.pt"), 0
    if os.path.exists(path):
        model_state, opt_state, step = torch.load(path)
        model.load_state_dict(model_state)
        opt.load_state_dict(opt_state)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    while step < total_steps:
        rows = slice(step % 5 * 6, step % 5 * 6 + 6)
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        ema.update_parameters(model)
        step += 1
        if step % 5 == 0:
            torch.save((model.state_dict(), opt.state_dict(), step), path + ".part")
            os.rename(path + ".part", path)
    return {"weights": ema.module.state_dict(), "step": step}
