"""Measure, and report against the budgets.

``python benchmarks/run.py [--quick] [--json FILE] [--only NAME]``: each benchmark runs in a fresh
process, and measures what it compares in turns. Nothing fails: this is a report.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
from pathlib import Path
from typing import Any

import adversarial
import arming
import bitflips
import clock
import collectives
import crashes
import device
import exploration
import images
import plugin_load
import progress
import proxy
import serving
import shards
import statistical
import steps
import storage
import tables
import visits
import worlds
from timing import Figure

BENCHMARKS = {
    "adversarial": adversarial,
    "plugin_load": plugin_load,
    "progress": progress,
    "proxy": proxy,
    "visits": visits,
    "steps": steps,
    "exploration": exploration,
    "arming": arming,
    "bitflips": bitflips,
    "clock": clock,
    "collectives": collectives,
    "crashes": crashes,
    "device": device,
    "images": images,
    "serving": serving,
    "shards": shards,
    "statistical": statistical,
    "storage": storage,
    "tables": tables,
    "worlds": worlds,
}
PACKAGES = ("pytest-mlchaos", "pytest", "hypothesis", "numpy", "torch")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure pytest-mlchaos against its budgets.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first look")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write figures, medians and quartiles to FILE"
    )
    parser.add_argument(
        "--only",
        choices=BENCHMARKS,
        action="append",
        help="run this benchmark alone (may be repeated)",
    )
    return parser.parse_args()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _circumstances(quick: bool) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "cpus": os.cpu_count(),
        "quick": quick,
    }


def _measured(name: str, quick: bool) -> list[Figure]:
    module = BENCHMARKS[name]
    needs = getattr(module, "NEEDS", None)
    if needs is not None and importlib.util.find_spec(needs) is None:
        print(f"{name}: skipped, it needs {needs}")
        return []
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(module.measure, quick).result()


def _row(figure: Figure) -> str:
    spread = figure.measured
    if spread.n == 1:
        measured, quartiles, quiet = f"{spread.median:g} {figure.unit}", "", ""
    else:
        measured, quartiles = (
            f"{spread.median:.2f} ± {spread.margin:.2f} {figure.unit}",
            f"{spread.q1:.2f} … {spread.q3:.2f}",
        )
        quiet = f"{figure.quiet:.2f}"
    budget = "" if figure.budget is None else f"≤ {figure.budget:g}"
    return f"{figure.what:<52} {measured:>22} {quartiles:>22} {quiet:>9} {budget:>7} {figure.verdict:<7} {figure.note}".rstrip()


def _as_dict(figure: Figure) -> dict[str, Any]:
    return {**dataclasses.asdict(figure), "verdict": figure.verdict}


def main() -> None:
    """Run the benchmarks, print the table, write the file."""
    arguments = _arguments()
    circumstances = _circumstances(arguments.quick)
    print(", ".join(f"{key} {value}" for key, value in circumstances.items()))
    print(
        "measured: median of neighbouring pairs, with half its 95 % interval; quiet: the same from "
        "each side's fastest tenth\n"
    )
    print(f"{'what':<52} {'measured':>22} {'quartiles':>22} {'quiet':>9} {'budget':>7}")
    figures = []
    for name in arguments.only or BENCHMARKS:
        for figure in _measured(name, arguments.quick):
            print(_row(figure), flush=True)
            figures.append(figure)
    if arguments.json:
        text = json.dumps(
            {"circumstances": circumstances, "figures": [_as_dict(figure) for figure in figures]},
            indent=2,
        )
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
