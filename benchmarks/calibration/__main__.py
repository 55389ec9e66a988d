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
TURNS = (1.0, 5.0, 25.0, float("inf"))
"""The seconds that each simulation gets in turn, so that slow ones do not keep others waiting."""


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
    """Simulate small samples first, and false alarms before power."""
    sizes = {int(n) for n in arguments.sizes.split(",") if n}
    chosen = [
        (area, key)
        for area in known
        for key in jobs(area)
        if arguments.only in key.oracle and (not sizes or key.n in sizes)
    ]
    chosen.sort(key=lambda one: (one[1].kind != "null", one[1].share != 1))
    small = [(area, key) for area, key in chosen if key.n <= SMALL]
    large = [(area, key) for area, key in chosen if key.n > SMALL]
    for group in (small, large):
        for seconds in TURNS:
            for area, key in group:
                while time.monotonic() < end:
                    count, case = counts[area].get(key, Count()), known[area][key.oracle]
                    wanted = has_to_run(key, count, case)
                    if count.repetitions >= wanted:
                        break
                    counts[area][key] = _add(key, count, case, wanted, end, seconds)
                    write(area, counts[area])
                    if counts[area][key].repetitions < wanted:
                        break  # the next turn is longer


def _add(key: Key, count: Count, case: Case, wanted: int, end: float, seconds: float) -> Count:
    """Add repetitions, up to a number or for so many seconds of CPU time."""
    start, step = time.process_time(), 1
    while count.repetitions < wanted and time.monotonic() < end:
        used = time.process_time() - start
        if used > seconds:
            break
        stop = min(count.repetitions + step, wanted)
        count = count.added(simulate(key, case, count.repetitions, stop))
        step = min(2 * step, 50)
    return count


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
