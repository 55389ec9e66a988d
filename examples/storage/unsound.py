"""Upload the model, then the optimizer. If the second upload fails, a restart finds two unrelated
halves.
"""

import io
from typing import Any

import torch
from torch import nn

from examples import iris


def train(fs: Any, folder: str, steps: int = 9, save_every: int = 3) -> dict[str, torch.Tensor]:
    """Train a classifier of irises from the last checkpoint in ``folder``, if it exists."""
    torch.manual_seed(0)
    x, y = iris.load().tensors
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    done = resume(fs, folder, model, optimizer)

    for step in range(done + 1, steps + 1):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        if step % save_every == 0:
            save(fs, folder, step, model, optimizer)
    return model.state_dict()


def save(
    fs: Any, folder: str, step: int, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Upload the model, then the optimizer and the step."""
    fs.pipe_file(f"{folder}/model.pt", dumped(model.state_dict()))
    fs.pipe_file(
        f"{folder}/optimizer.pt", dumped({"optimizer": optimizer.state_dict(), "step": step})
    )


def resume(fs: Any, folder: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the last checkpoint, and return its step."""
    if not fs.exists(f"{folder}/optimizer.pt"):
        return 0
    model.load_state_dict(torch.load(io.BytesIO(fs.cat_file(f"{folder}/model.pt"))))
    saved = torch.load(io.BytesIO(fs.cat_file(f"{folder}/optimizer.pt")))
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


def dumped(state: Any) -> bytes:
    """Return a state as torch saves it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
