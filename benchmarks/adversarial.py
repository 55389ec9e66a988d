"""Measure the attacks on inputs: their time against a bare loop, and their strength against ART's.

``python benchmarks/adversarial.py [--json FILE]`` needs adversarial-robustness-toolbox (``nox -s
peers`` installs it). Both sides attack the same trained CNN and samples, with the same epsilon,
norm, number and length of steps, and random start. The table has the accuracy under attack, for
which less is stronger, and the time in turns.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import torch
from timing import Figure, Samples, compare, interleaved, real_seconds, times

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.testing import strike

NEEDS = "torch"
EPSILONS = {"inf": (0.02, 0.05, 0.08), "2": (0.3, 0.6, 1.0)}
STEPS = 10
SAMPLES = 64
PACKAGES = ("pytest-mlchaos", "adversarial-robustness-toolbox", "torch")


def samples(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures of 28 × 28 pixels with a brighter band, and its position: 4 classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    images = 0.3 + 0.3 * torch.rand(count, 1, 28, 28, generator=generator)
    for place, label in enumerate(labels.tolist()):
        images[place, :, 7 * label : 7 * label + 7] += 0.1
    return images, labels


def trained() -> torch.nn.Module:
    """Return a small CNN that knows them."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Flatten(), torch.nn.Linear(32 * 49, 64), torch.nn.ReLU()),
        torch.nn.Linear(64, 4),
    )
    images, labels = samples(512, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(80):
        part = slice(64 * (step % 8), 64 * (step % 8) + 64)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images[part]), labels[part]).backward()
        optimizer.step()
    return model.eval()


def bare(model: Any, images: torch.Tensor, epsilon: float, size: float) -> torch.Tensor:
    """Return the result of PGD as the seven lines that everyone writes."""
    labels = model(images).argmax(1)
    attacked = (images + epsilon * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(STEPS):
        attacked.requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(attacked), labels)
        (gradient,) = torch.autograd.grad(loss, attacked)
        attacked = (attacked + size * gradient.sign()).detach()
        attacked = images + (attacked - images).clamp(-epsilon, epsilon)
        attacked = attacked.clamp(0, 1)
    return attacked


def ours(
    model: Any, images: torch.Tensor, epsilon: float, size: float, norm: str = "inf"
) -> torch.Tensor:
    """Return the input that a call of the model gets in a whole strike of the fault."""
    fault = create(
        "adversarial",
        epsilon=epsilon,
        norm=norm,
        steps=STEPS,
        step_size=size,
        clip=(0, 1),
        at=0,
    )
    (outcome,) = strike(fault, [((images,), {})], attributes={"function": model}).outcomes
    if isinstance(outcome, Exception):
        raise outcome
    found: torch.Tensor = outcome[0][0]
    return found


def arts(
    model: Any, images: torch.Tensor, epsilon: float, size: float, norm: str = "inf"
) -> torch.Tensor:
    """Return the result of the PGD of adversarial-robustness-toolbox."""
    import numpy as np
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model,
        torch.nn.CrossEntropyLoss(),
        input_shape=tuple(images.shape[1:]),
        nb_classes=4,
        clip_values=(0.0, 1.0),
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier,
        norm=np.inf if norm == "inf" else 2,
        eps=epsilon,
        eps_step=size,
        max_iter=STEPS,
        num_random_init=1,
        batch_size=len(images),
        verbose=False,
    )
    return torch.as_tensor(attack.generate(images.numpy()))


def _seconds(attack: Any, *arguments: Any) -> float:
    started = real_seconds()
    attack(*arguments)
    return real_seconds() - started


def _in_turns(rounds: int, sides: dict[str, Any]) -> Samples:
    """Return the seconds of each side on the same model and samples."""
    faults.load()
    model, (images, _) = trained(), samples(SAMPLES)
    return interleaved(
        rounds,
        {
            name: functools.partial(_seconds, attack, model, images, 0.03, 0.0075)
            for name, attack in sides.items()
        },
    )


def measure(quick: bool) -> list[Figure]:
    """Measure a whole strike, with its clean prediction and its check, against the bare loop."""
    torch.set_num_threads(1)
    found = _in_turns(5 if quick else 25, {"ours": ours, "bare": bare})
    return [
        compare(
            "adversarial: PGD on a small CNN, 10 steps, to a bare loop",
            found,
            "ours",
            "bare",
            times,
            "x",
            budget=2.0,
        )
    ]


def strength() -> list[dict[str, Any]]:
    """Return the accuracy under the attacks of both sides, by norm and epsilon."""
    model, (images, labels) = trained(), samples(400)
    rows = []
    for norm, epsilons in EPSILONS.items():
        for epsilon in epsilons:
            row: dict[str, Any] = {"norm": norm, "epsilon": epsilon}
            for name, attack in {"ours": ours, "art": arts}.items():
                torch.manual_seed(0)
                found = attack(model, images, epsilon, 2.5 * epsilon / STEPS, norm)
                with torch.no_grad():
                    row[name] = float((model(found).argmax(1) == labels).float().mean())
            rows.append(row)
    return rows


def main() -> None:
    """Compare with the peer, print the table, write the file."""
    parser = argparse.ArgumentParser(description="Compare attacks on inputs with ART.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    arguments = parser.parse_args()
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    print(", ".join(f"{package} {version}" for package, version in versions.items()))
    torch.set_num_threads(1)
    faults.load()
    rows = strength()
    print(f"{'norm':<5} {'epsilon':>8} {'accuracy, ours':>15} {'ART':>8}")
    for row in rows:
        print(f"{row['norm']:<5} {row['epsilon']:>8g} {row['ours']:>15.3f} {row['art']:>8.3f}")
    found = _in_turns(10, {"ours": ours, "art": arts, "bare": bare})
    figures = [
        compare(f"{side}, to a bare loop", found, side, "bare", times, "x")
        for side in ("ours", "art")
    ]
    for figure in figures:
        print(f"{figure.what:<24} {figure.measured.median:.2f} x, quiet {figure.quiet:.2f} x")
    if arguments.json:
        ratios = {figure.what: figure.measured.median for figure in figures}
        text = json.dumps({"versions": versions, "rows": rows, "times": ratios}, indent=2)
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
