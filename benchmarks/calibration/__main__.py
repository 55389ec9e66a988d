"""Add repetitions to the counts, judge them, and write the page.

``python -m calibration [AREA …] [--minutes 20] [--only ORACLE] [--sizes 50,500] [--check]``,
called in the folder ``benchmarks``. Areas of different processes do not disturb each other.
"""

from __future__ import annotations

import argparse
import sys
import time

from . import AREAS, Case, cases, without_advice
from .counts import (
    EXCEPTIONS,
    WANTED,
    Count,
    Key,
    find_problem,
    has_to_run,
    jobs,
    read,
    simulate,
    write,
)
from .page import write_page

SMALL = 500
"""Samples up to this size come first, because most tests have no more."""
WEIGHTS = {"null": 1.0, "effect": 3.0}
"""False alarms come before power of the same cost."""
PART = 10.0
"""About the number of seconds between two savings."""


def main() -> int:
    """Return 1 if a rate is violated."""
    arguments = _arguments()
    areas = arguments.areas or list(AREAS)
    known = {area: cases(area) for area in areas}
    counts = {area: read(area) for area in areas}
    if arguments.check:
        for area in areas:
            _drop_stale(area, known[area], counts[area])
    end = time.monotonic() + 60 * arguments.minutes
    try:
        with without_advice():
            _run(known, counts, end, arguments)
    except KeyboardInterrupt:
        print("interrupted: the next run continues here")
    write_page()
    return _judge(known, counts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "calibration", description="Measure the error rates of oracles."
    )
    parser.add_argument("areas", nargs="*", metavar="area", help=f"of {', '.join(AREAS)}")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--only", default="", help="a part of an oracle's name")
    parser.add_argument("--sizes", default="", help="numbers of samples, for example 50,500")
    parser.add_argument(
        "--check",
        action="store_true",
        help="first repeat a part of each count, and drop it if the oracle has changed",
    )
    arguments = parser.parse_args()
    for area in arguments.areas:
        if area not in AREAS:
            parser.error(f"area must be one of {', '.join(AREAS)}, got {area!r}")
    return arguments


def _run(
    known: dict[str, dict[str, Case]],
    counts: dict[str, dict[Key, Count]],
    end: float,
    arguments: argparse.Namespace,
) -> None:
    """Simulate small samples first, and the cheapest ones of them first."""
    sizes = {int(n) for n in arguments.sizes.split(",") if n}
    chosen = [
        (area, key)
        for area in known
        for key in jobs(area)
        if arguments.only in key.oracle and (not sizes or key.n in sizes)
    ]
    small = [(area, key) for area, key in chosen if key.n <= SMALL]
    large = [(area, key) for area, key in chosen if key.n > SMALL]
    for group in (small, large):
        costs: dict[tuple[str, Key], float] = {}
        for area, key in group:
            count, case = counts[area].get(key, Count()), known[area][key.oracle]
            if count.repetitions < has_to_run(key, count, case) and time.monotonic() < end:
                costs[area, key] = WEIGHTS[key.kind] * _add(area, key, known, counts, end, 3)
        for area, key in sorted(costs, key=lambda one: costs[one]):
            while time.monotonic() < end:
                count, case = counts[area].get(key, Count()), known[area][key.oracle]
                if count.repetitions >= has_to_run(key, count, case):
                    break
                _add(area, key, known, counts, end, has_to_run(key, count, case))
            else:
                return


def _add(
    area: str,
    key: Key,
    known: dict[str, dict[str, Case]],
    counts: dict[str, dict[Key, Count]],
    end: float,
    wanted: int,
) -> float:
    """Add repetitions up to a number. Return the seconds that one of them takes."""
    case, count, seconds = known[area][key.oracle], counts[area].get(key, Count()), 0.0
    step = 3
    while count.repetitions < wanted and time.monotonic() < end:
        start = time.process_time()
        stop = min(count.repetitions + step, wanted)
        outcomes = simulate(key, case, count.repetitions, stop)
        seconds = max((time.process_time() - start) / len(outcomes), 1e-6)
        count = counts[area][key] = count.added(outcomes)
        step = max(3, min(int(PART / seconds), WANTED))
        write(area, counts[area])
    if not seconds:
        start = time.process_time()
        simulate(key, case, 0, 1)
        seconds = time.process_time() - start
    return seconds


def _drop_stale(area: str, known: dict[str, Case], counts: dict[Key, Count]) -> None:
    """Drop the counts of oracles that give other results now, or are gone."""
    wanted = set(jobs(area))
    for key, count in list(counts.items()):
        few = count.first[: 20 if key.n <= SMALL else 3]
        if key not in wanted or simulate(key, known[key.oracle], 0, len(few)) != few:
            print(f"{area}: {key}: the oracle has changed, so its counts are dropped")
            del counts[key]
    write(area, counts)


def _judge(known: dict[str, dict[str, Case]], counts: dict[str, dict[Key, Count]]) -> int:
    violated, few = [], 0
    for area, found in counts.items():
        for key in jobs(area):
            count = found.get(key, Count())
            problem = find_problem(key, count, known[area][key.oracle])
            if problem and str(key) in EXCEPTIONS:
                print(f"known: {area}: {key}: {problem}. {EXCEPTIONS[str(key)]}")
            elif problem:
                violated.append(f"{area}: {key}: {problem} ({count.repetitions} repetitions)")
            elif count.repetitions < has_to_run(key, count, known[area][key.oracle]):
                few += 1
    total = sum(len(list(jobs(area))) for area in counts)
    print(f"{total} rates, {few} of them with fewer repetitions than they need")
    for one in violated:
        print(f"VIOLATED {one}")
    return min(len(violated), 1)


if __name__ == "__main__":
    sys.exit(main())
