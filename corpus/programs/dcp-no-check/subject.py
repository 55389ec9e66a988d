"""torch.distributed.checkpoint, the newest folder taken on trust."""

import os
import warnings

import torch
import torch.distributed.checkpoint as dcp
from torch import nn

warnings.filterwarnings("ignore", module="torch.distributed")


def train(workdir, total_steps):
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model = nn.Linear(4, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    step, steps = 0, sorted(int(name) for name in os.listdir(workdir) if name.isdigit())
    if steps:
        state = {"model": model.state_dict(), "step": 0}
        dcp.load(state, checkpoint_id=os.path.join(workdir, str(steps[-1])))
        model.load_state_dict(state["model"])
        step = state["step"]
    while step < total_steps:
        rows = slice(step % 4 * 8, step % 4 * 8 + 8)
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 4 == 0:
            dcp.save(
                {"model": model.state_dict(), "step": step},
                checkpoint_id=os.path.join(workdir, str(step)),
            )
    return {"model": model.state_dict(), "step": step}
