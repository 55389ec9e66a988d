"""Checkpoint folders that appear, and go, at once."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


class Checkpoints:
    """The folders of one run."""

    def __init__(self, workdir, keep):
        self.root, self.keep = Path(workdir), keep
        for left_over in self.root.glob("tmp-*"):
            shutil.rmtree(left_over)

    def folders(self):
        return sorted(self.root.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))

    def save(self, step, model, opt):
        temporary = self.root / f"tmp-{step}"
        temporary.mkdir()
        save_file(model.state_dict(), temporary / "model.safetensors")
        torch.save(opt.state_dict(), temporary / "optimizer.bin")
        (temporary / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        temporary.rename(self.root / f"checkpoint-{step}")
        for old in self.folders()[: -self.keep]:
            gone = old.rename(self.root / f"tmp-gone-{old.name}")
            shutil.rmtree(gone)


def train(workdir, total_steps):
    torch.manual_seed(0)
    x = torch.randn(40, 5)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(5, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 2))
    opt = torch.optim.AdamW(model.parameters(), lr=2e-2)
    checkpoints, step = Checkpoints(workdir, keep=1), 0
    if folders := checkpoints.folders():
        model.load_state_dict(load_file(folders[-1] / "model.safetensors"))
        opt.load_state_dict(torch.load(folders[-1] / "optimizer.bin"))
        step = json.loads((folders[-1] / "trainer_state.json").read_text())["global_step"]
    while step < total_steps:
        order = torch.randperm(40, generator=torch.Generator().manual_seed(step // 5))
        rows = order[step % 5 * 8 :][:8]
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 3 == 0:
            checkpoints.save(step, model, opt)
    return {"model": model.state_dict(), "opt": opt.state_dict(), "step": step}
