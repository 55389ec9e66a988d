"""Print how often each oracle gives a wrong verdict, and how often it finds its effect."""

from __future__ import annotations

import argparse
import time
import zlib
from typing import Any

import numpy as np

from pytest_mlchaos.oracles.intervals import clopper_pearson

from . import ALPHA, SHAPES, SIZES, cases


def _rate(simulation: Any, name: str, n: int, shape: str, repetitions: int) -> tuple[int, float]:
    start = time.perf_counter()
    found = 0
    for repetition in range(repetitions):
        rng = np.random.default_rng([zlib.crc32(name.encode()), n, SHAPES.index(shape), repetition])
        found += bool(simulation(rng, n, shape))
    return found, (time.perf_counter() - start) / repetitions


def main() -> None:
    """Simulate the cases of one area."""
    parser = argparse.ArgumentParser(description="Measure the error rates of oracles.")
    parser.add_argument("area", nargs="?", help="a module of this folder")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--only", help="a part of an oracle's name")
    parser.add_argument("--sizes", help="for example 50,500")
    arguments = parser.parse_args()
    for area, found in cases(arguments.area).items():
        for name, (null, effect, about) in found.items():
            if arguments.only and arguments.only not in name:
                continue
            print(f"{area}: {name} (effect: {about['effect']})")
            sizes = about.get("sizes", SIZES)
            if arguments.sizes:
                sizes = [n for n in sizes if str(n) in arguments.sizes.split(",")]
            for n in sizes:
                for shape in about.get("shapes", SHAPES):
                    count, seconds = _rate(null, f"{name} null", n, shape, arguments.repetitions)
                    limit = clopper_pearson(count, arguments.repetitions, 0.99, "upper").high
                    worst = clopper_pearson(count, arguments.repetitions, 0.99, "lower").low
                    power, _ = _rate(effect, f"{name} effect", n, shape, arguments.repetitions)
                    alpha = about.get("alpha", ALPHA)
                    mark = " TOO MANY" if worst > alpha else ""
                    print(
                        f"  n={n:<6} {shape:<9} false alarms {count / arguments.repetitions:.3f} "
                        f"(at most {limit:.3f}), power {power / arguments.repetitions:.3f}, "
                        f"{1e3 * seconds:.1f} ms{mark}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
