"""Train in a plain loop, as a user would write it.

The benchmarks of crash states resume it, and the peers run it as a script: ``python
benchmarks/loop.py --out FOLDER [--how HOW]`` continues from the last checkpoint in FOLDER, and
leaves ``final.pt`` there.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch

HOW = ("atomic", "in_place", "no_rng", "numbered")
"""How checkpoints are written.

Renamed into place (sound), over the last one, without the random state, or each under its own name.
"""
WIDTH = 30


def train(
    workdir: str, steps: int = 100, every: int = 10, how: str = "atomic", kilobytes: int = 0
) -> dict[str, Any]:
    """Train from the last checkpoint on.

    ``kilobytes`` is the size of parameters that change without a gradient, to enlarge the
    checkpoints.
    """
    torch.set_num_threads(1)
    folder = Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, WIDTH),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(WIDTH, 1),
    )
    if kilobytes:
        model.register_parameter(
            "ballast", torch.nn.Parameter(torch.rand(kilobytes * 256), requires_grad=False)
        )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    first = 0
    latest = _latest(folder)
    if latest is not None:
        held = torch.load(latest)
        model.load_state_dict(held["model"])
        optimizer.load_state_dict(held["optimizer"])
        first = held["step"]
        if "rng" in held:
            torch.set_rng_state(held["rng"])
    print(f"resumed from step {first}", flush=True)
    for step in range(first, steps):
        batch = torch.randn(16, WIDTH)
        loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if kilobytes:
            model.get_parameter("ballast").mul_(0.999)  # all of a checkpoint must be new
        if (step + 1) % every == 0:
            held = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
                "rng": torch.get_rng_state(),
            }
            if how == "no_rng":
                del held["rng"]
            _save(held, folder, step + 1, how)
    return dict(model.state_dict())


def _latest(folder: Path) -> Path | None:
    found = sorted(folder.glob("ckpt*.pt"))
    return found[-1] if found else None


def _save(held: dict[str, Any], folder: Path, step: int, how: str) -> None:
    if how == "in_place":
        torch.save(held, folder / "ckpt.pt")
    elif how == "numbered":
        torch.save(held, folder / f"ckpt-{step:06d}.pt")
    else:
        torch.save(held, folder / "ckpt.tmp")
        os.replace(folder / "ckpt.tmp", folder / "ckpt.pt")


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--how", choices=HOW, default="atomic")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--every", type=int, default=10)
    arguments = parser.parse_args()
    state = train(arguments.out, arguments.steps, arguments.every, arguments.how)
    torch.save(state, Path(arguments.out) / "final.pt")


if __name__ == "__main__":
    main()
