"""``mlchaos.compare``: is a metric under faults as good as without them, over several seeds?

1. ``seeds.py`` runs the subject for one seed after the other: under the test's faults, which strike
   anew for each seed, and without them.
2. ``verdicts.py`` judges the pairs of metrics. A sequential assertion asks for one more seed until
   the result is clear.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..core.validation import format_value, index
from ..engine.controller import Controller
from ..errors import BadArgument
from .seeds import Metric, SeedRuns, reader_of
from .verdicts import Comparison

__all__ = ["compare"]

MOST_SEEDS = 10_000


def compare(
    controller: Controller,
    subject: Callable[..., Any],
    args: tuple[Any, ...],
    scratch: Path,
    workdirs: Iterable[Path],
    *,
    seeds: object,
    metric: Metric,
    max_restarts: int,
    isolated: bool,
    jobs: object,
    allow_quiet: bool,
    running: Callable[[], contextlib.AbstractContextManager[Any]],
) -> Comparison:
    """Return a comparison whose first seed has run.

    Args:
        controller: The controller of the trial.
        subject: The function to run. Its first argument is the seed.
        args: Its further arguments.
        scratch: The test's temporary directory.
        workdirs: More directories that the subject works in.
        seeds: The seeds, in the order in which they run.
        metric: See ``mlchaos.compare``.
        max_restarts: The maximum number of restarts of each run.
        isolated: True to run each attempt in a fresh process.
        jobs: The number of runs at one time, or ``"auto"``.
        allow_quiet: True to leave out a seed in which a fault does not strike, without an error.
        running: A context that each later run of the subject enters.
    """
    runs = SeedRuns(
        controller,
        subject,
        args,
        scratch,
        workdirs,
        read=reader_of(metric),
        max_restarts=max_restarts,
        isolated=isolated,
        jobs="auto" if jobs == "auto" else _number_of_jobs(jobs),
        must_strike=not allow_quiet,
    )
    comparison = Comparison(
        _whole_numbers(seeds),
        runs.pair,
        running,
        start_ahead=runs.start_ahead,
        end_ahead=runs.end_ahead,
    )
    comparison._first()
    return comparison


def _number_of_jobs(jobs: object) -> int:
    number = index(jobs)
    if not number:
        raise BadArgument(
            f"mlchaos.compare: jobs must be 1 or more, or 'auto', got {format_value(jobs)}"
        )
    return number


def _whole_numbers(seeds: object) -> list[int]:
    if isinstance(seeds, (str, bytes)) or not isinstance(seeds, Iterable):
        raise BadArgument(
            f"mlchaos.compare: seeds must be whole numbers, as range(8), got {format_value(seeds)}"
        )
    found: list[int] = []
    for seed in seeds:
        number = index(seed)
        if number is None or len(found) > MOST_SEEDS:
            raise BadArgument(
                f"mlchaos.compare: seeds must be whole numbers of 0 or more, at most "
                f"{MOST_SEEDS:,} of them, got {format_value(seed)}"
            )
        found.append(number)
    if not found or len(set(found)) < len(found):
        raise BadArgument(
            f"mlchaos.compare: seeds must be different from each other, and one or more, got "
            f"{len(found)} with {len(set(found))} values"
        )
    return found
