"""Upload a checkpoint as one object under a new name, retry, verify it, and then point to it."""

import io
import time
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
    """Upload the whole state in one object, and then the name of that object."""
    path = f"{folder}/step-{step}.pt"
    upload(
        fs,
        path,
        dumped({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}),
    )
    upload(fs, f"{folder}/latest", path.encode())


def resume(fs: Any, folder: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the last checkpoint, and return its step."""
    if not fs.exists(f"{folder}/latest"):
        return 0
    saved = torch.load(io.BytesIO(fs.cat_file(fs.cat_file(f"{folder}/latest").decode())))
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


def upload(fs: Any, path: str, content: bytes, attempts: int = 5) -> None:
    """Write an object until it reads back as written.

    A lost reply does no harm, because a second write changes nothing.
    """
    for attempt in range(attempts):
        try:
            fs.pipe_file(path, content)
            if fs.cat_file(path) == content:
                return
        except OSError:
            if attempt == attempts - 1:
                raise
        time.sleep(0.01 * 2**attempt)
    raise OSError(f"{path} does not read back as it was written")


def dumped(state: Any) -> bytes:
    """Return a state as torch saves it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
