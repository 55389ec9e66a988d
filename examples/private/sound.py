"""Save what the accountant holds, in the same file as the model."""

from pathlib import Path

import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader

from examples import iris

STEPS = 30


def train(workdir: Path) -> float:
    """Train a classifier of irises with noise. Return the epsilon that was spent, for delta = 1e-5."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    engine = PrivacyEngine(accountant="rdp")
    model, optimizer, loader = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(iris.load(), batch_size=30),
        noise_multiplier=1.5,
        max_grad_norm=1.0,
    )
    step = 0
    if (workdir / "last.pt").exists():
        state = torch.load(workdir / "last.pt", weights_only=False)
        model.load_state_dict(state["model"])
        step = state["step"]
        engine.accountant.load_state_dict(state["accountant"])
    while step < STEPS:
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            step += 1
            if step % 5 == 0:
                state = {
                    "model": model.state_dict(),
                    "step": step,
                    "accountant": engine.accountant.state_dict(),
                }
                torch.save(state, workdir / "new.pt")
                (workdir / "new.pt").replace(workdir / "last.pt")
            if step == STEPS:
                break
    return engine.get_epsilon(1e-5)
