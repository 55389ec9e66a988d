"""torch.distributed.checkpoint, with model and optimizer as stateful objects."""

import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import nn

warnings.filterwarnings("ignore", module="torch.distributed")


class App:
    """The saved state, in the way of the tutorial."""

    def __init__(self, model, opt):
        self.model, self.opt, self.step = model, opt, 0

    def state_dict(self):
        return {
            "model": self.model.state_dict(),
            "momentum": [s["momentum_buffer"] for s in self.opt.state.values()],
            "step": self.step,
        }

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        for p, buffer in zip(self.model.parameters(), state["momentum"], strict=True):
            self.opt.state[p]["momentum_buffer"] = buffer
        self.step = state["step"]


def train(workdir, total_steps):
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model = nn.Linear(4, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    app = App(model, opt)
    complete = sorted(
        (path.parent for path in Path(workdir).glob("step_*/.metadata")),
        key=lambda path: int(path.name[5:]),
    )
    if complete:
        for p in model.parameters():  # there must be something to load into
            opt.state[p]["momentum_buffer"] = torch.zeros_like(p)
        dcp.load({"app": app}, checkpoint_id=complete[-1])
    while app.step < total_steps:
        rows = slice(app.step % 4 * 8, app.step % 4 * 8 + 8)
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        app.step += 1
        if app.step % 3 == 0:
            dcp.save({"app": app}, checkpoint_id=Path(workdir) / f"step_{app.step}")
    return {"model": model.state_dict(), "step": app.step}
