"""Measure how fast faults change images and text.

``python benchmarks/images.py [--json FILE]`` compares images with imagecorruptions.

Both sides get the same 8-bit images of 224 × 224 pixels, at severity 3, in turns in one process.
The peer takes them one by one. This package takes a batch, in a whole strike of the fault.
``ratio`` is the median of neighbouring pairs, and ``quiet`` that of each side's fastest sample. The
table says which kinds the peer cannot do with the installed packages.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from timing import Figure, Spread, interleaved, real_seconds

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.faults.images.kinds import KINDS
from pytest_mlchaos.testing import strike

SEVERITY = 3
PACKAGES = ("pytest-mlchaos", "imagecorruptions", "numpy", "opencv-python", "scikit-image", "scipy")
NEEDS = "cv2"
TEXTS = {"typos": {}, "truncation": {}, "mojibake": {}, "prompt_length": {"kind": "one_token"}}


def photos(count: int) -> Any:
    """Return different pictures with edges, slopes and grain: uint8 [count, 224, 224, 3]."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 14, 14, 3)).repeat(16, 1).repeat(16, 2)
    slopes = np.linspace(-30, 30, 224)[:, None, None] + np.linspace(-30, 30, 224)[:, None]
    return np.clip(coarse * 0.7 + 40 + slopes + rng.normal(0, 6, coarse.shape), 0, 255).astype(
        np.uint8
    )


def struck(name: str, payload: Any, **keywords: Any) -> float:
    """Return the seconds of one strike. Raise an error if it is refused."""
    fault = create(name, at=0, **keywords)
    started = real_seconds()
    (outcome,) = strike(fault, [payload]).outcomes
    taken = real_seconds() - started
    if isinstance(outcome, Exception):
        raise outcome
    return taken


def measure(quick: bool) -> list[Figure]:
    """Measure ms per image of the fastest, the middle and the slowest kind, and µs per string."""
    faults.load()
    images = photos(16)
    rounds = 3 if quick else 10
    taken = {
        kind: [
            struck("corrupt_image", images, kind=kind, severity=SEVERITY) / 16 * 1e3
            for _ in range(rounds)
        ]
        for kind in KINDS
    }
    ranked = sorted(KINDS, key=lambda kind: statistics.median(taken[kind]))
    found = [
        _figure(f"corrupt_image {kind}, 224 x 224", "ms/image", taken[kind])
        for kind in (ranked[0], ranked[9], ranked[-1])
    ]
    strings = [f"Grüße aus Köln, Nachricht {number}" for number in range(50_000)]
    for name, keywords in TEXTS.items():
        taken[name] = [
            struck(name, strings, **keywords) / len(strings) * 1e6 for _ in range(rounds)
        ]
        found.append(
            _figure(f"{name} on {len(strings):,} strings", "µs/string", taken[name], budget=1.0)
        )
    return found


def _figure(what: str, unit: str, samples: list[float], budget: float | None = None) -> Figure:
    return Figure(
        what=what, unit=unit, measured=Spread.of(samples), quiet=min(samples), budget=budget
    )


def against_peer(kind: str, images: Any, rounds: int) -> dict[str, Any]:
    """Return the images per second of both sides."""
    import imagecorruptions

    def theirs() -> float:
        started = real_seconds()
        for image in images:
            imagecorruptions.corrupt(image, corruption_name=kind, severity=SEVERITY)
        return real_seconds() - started

    def ours() -> float:
        return struck("corrupt_image", images, kind=kind, severity=SEVERITY)

    sides: dict[str, Callable[[], float]] = {"ours": ours}
    trouble = ""
    try:
        imagecorruptions.corrupt(images[0], corruption_name=kind, severity=SEVERITY)
        sides["theirs"] = theirs
    except Exception as error:  # noqa: BLE001
        # an old peer may raise anything in a new environment
        trouble = f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
    samples = interleaved(rounds, sides)
    row: dict[str, Any] = {
        "kind": kind,
        "ours": len(images) / statistics.median(samples["ours"]),
        "trouble": trouble,
    }
    if "theirs" in samples:
        row["theirs"] = len(images) / statistics.median(samples["theirs"])
        row["ratio"] = statistics.median(
            theirs / ours for theirs, ours in zip(samples["theirs"], samples["ours"], strict=True)
        )
        row["quiet"] = min(samples["theirs"]) / min(samples["ours"])
    return row


def main() -> None:
    """Print one table, kind by kind."""
    parser = argparse.ArgumentParser(
        description="Compare corruptions of images with imagecorruptions."
    )
    parser.add_argument("--batch", type=int, default=16, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each side")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    faults.load()
    images = photos(arguments.batch)
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    print(", ".join(f"{package} {version}" for package, version in versions.items()))
    print(f"{'kind':<20} {'ours, images/s':>15} {'theirs':>10} {'ratio':>8} {'quiet':>8}")
    rows = []
    for kind in KINDS:
        row = against_peer(kind, images, arguments.rounds)
        theirs = (
            f"{row['theirs']:>10.1f} {row['ratio']:>7.1f}x {row['quiet']:>7.1f}x"
            if "theirs" in row
            else f"{'-':>10} {'':>17}"
        )
        print(f"{kind:<20} {row['ours']:>15.1f} {theirs}  {row['trouble']}".rstrip(), flush=True)
        rows.append(row)
    works = [row for row in rows if "ratio" in row]
    least = min(works, key=lambda row: row["ratio"])
    print(
        f"\nours: {len(rows)} of {len(rows)} kinds; theirs: {len(works)}; at least 5 times faster: "
        f"{sum(row['ratio'] >= 5 for row in works)} of {len(works)}; least: {least['kind']}, "
        f"{least['ratio']:.1f}"
    )
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
