"""Lay out the figures that are lanes: timelines, crash states, ranks, and the strip of a test.

Positions are shares of the width, from 0 to 100, so a figure fits any screen without scaled text.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ...core.entries import Exploration, Rank, Requests, ResultEntry, State, StrikeEntry, Trial
from ...core.validation import count_text

__all__ = [
    "BAD",
    "Figure",
    "Lane",
    "Mark",
    "Segment",
    "Strip",
    "crash_figure",
    "fault_name",
    "rank_figure",
    "strip_of",
    "timeline",
    "visit_map",
]

BAD = ("failed", "diverged", "hung", "restarted")
"""The verdicts of crash states that did not recover, the most severe first."""
MOST_LANES = 8
MOST_MARKS = 90
MOST_TICKS = 160
MOST_CELLS = 100
FULL = 100.0
_TARGET = re.compile(r"""\btarget=(['"])(.+?)\1""")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A symbol at a position. ``kind`` chooses its shape and colour."""

    x: float
    kind: str
    title: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """A bar from ``x``, ``width`` wide."""

    x: float
    width: float
    kind: str
    text: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Lane:
    """One line of a figure.

    Attributes:
        label: Its name.
        note: Its counts.
        segments: Its bars.
        dashes: The number of evenly spaced strokes, or 0.
        ticks: A path of faint strokes over its whole height, 1,000 units wide and 1 high.
        quiet: The same for what recovered.
        runs: A path of bars, ``units`` wide and 1 high.
        units: The width of ``runs``.
        marks: Its symbols.
    """

    label: str
    note: str = ""
    segments: Sequence[Segment] = ()
    dashes: int = 0
    ticks: str = ""
    quiet: str = ""
    runs: str = ""
    units: int = 0
    marks: Sequence[Mark] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """Lanes with a common scale.

    Attributes:
        summary: The figure in words.
        lanes: The lanes, from top to bottom.
        scale: The labels below, from left to right.
        kinds: The kinds of marks and bars that the legend explains.
        head: The titles of the columns of the table that says the same.
        rows: The rows of that table.
    """

    summary: str
    lanes: Sequence[Lane]
    scale: Sequence[str] = ()
    kinds: Sequence[str] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Strip:
    """Everything that a test tried, as cells in a row. ``paths`` has one path for each kind."""

    cells: int
    paths: Mapping[str, str]


def rounded(value: float) -> str:
    """Return a number without needless digits."""
    return f"{value:.1f}".removesuffix(".0")


def strokes(positions: Iterable[float]) -> str:
    """Return a path of strokes at these positions (0 to 100), each drawn once."""
    places = sorted({round(position * 10) for position in positions})
    if len(places) > MOST_TICKS:
        places = sorted({round(place * MOST_TICKS / 1000) * 1000 // MOST_TICKS for place in places})
    return "".join(f"M{place} 0v1" for place in places)


def strip_of(kinds: Sequence[str]) -> Strip | None:
    """Return the strip of outcomes. If there are many, a cell shows the worst of its share."""
    if len(kinds) < 2:
        return None
    cells = min(len(kinds), MOST_CELLS)
    order = [*BAD, "slow", "inconclusive"]
    worst: list[str] = []
    for cell in range(cells):
        share = kinds[cell * len(kinds) // cells : (cell + 1) * len(kinds) // cells]
        worst.append(next((kind for kind in order if kind in share), share[0]))
    paths: dict[str, str] = {}
    start = 0
    for cell in range(1, cells + 1):
        if cell == cells or worst[cell] != worst[start]:
            paths[worst[start]] = paths.get(worst[start], "") + f"M{start} 5h{cell - start}"
            start = cell
    return Strip(cells, dict(sorted(paths.items())))


def crash_figure(exploration: Exploration, states: Sequence[State]) -> Figure:
    """Return the crash states over the writes of the golden run: one lane for each file."""
    steps = max([exploration.steps, 0, *(state.step for state in states)])
    names = {state.path for state in states} | {path for _, path in exploration.saves}
    rows = [_states_of(name, exploration, states) for name in sorted(names)]
    rows.sort(key=lambda row: (-len(row.bad), -len(row.states), row.path))
    places = _places(states, steps)
    lanes = [
        Lane(
            row.path or "(no file)",
            _notes((row.saves, "save"), (len(row.states), "state"), (len(row.bad), "bad")),
            ticks=strokes(
                FULL * step / (steps + 1) for step, path in exploration.saves if path == row.path
            ),
            quiet=strokes(places[state] for state in row.states if state.verdict == "recovered"),
            marks=_state_marks(row.bad, places),
        )
        for row in rows[:MOST_LANES]
    ]
    more = (
        f" {len(rows) - MOST_LANES} more files are in the table." if len(rows) > MOST_LANES else ""
    )
    counts = _count(state.verdict for state in states)
    told = ", ".join(f"{number} {verdict}" for verdict, number in counts.items()) or "none tried"
    return Figure(
        f"{count_text(len(states), 'crash state')} over {count_text(steps, 'step')} of the run "
        f"without a crash: {told}.{more}",
        lanes,
        _scale("step", steps),
        ("saved", "recovered", *(verdict for verdict in BAD if verdict in counts)),
        ("File", "Saves", "States", *(verdict.capitalize() for verdict in counts)),
        [
            (
                row.path or "(no file)",
                str(row.saves),
                str(len(row.states)),
                *(str(sum(one.verdict == verdict for one in row.states)) for verdict in counts),
            )
            for row in rows
        ],
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _OfFile:
    """The crash states about one file."""

    path: str
    saves: int
    states: Sequence[State]
    bad: Sequence[State]


def _states_of(path: str, exploration: Exploration, states: Sequence[State]) -> _OfFile:
    here = [state for state in states if state.path == path]
    bad = [state for state in here if state.verdict != "recovered"]
    return _OfFile(path, sum(one == path for _, one in exploration.saves), here, bad)


def _places(states: Sequence[State], steps: int) -> dict[State, float]:
    """Return the position of each state. Those of one step share the way to the next one."""
    by_step: dict[int, list[State]] = {}
    for state in states:
        by_step.setdefault(state.step, []).append(state)
    return {
        state: FULL * (step + number / len(here)) / (steps + 1)
        for step, here in by_step.items()
        for number, state in enumerate(here)
    }


def _state_marks(states: Sequence[State], places: Mapping[State, float]) -> list[Mark]:
    """Return one mark for each place, of the most severe verdict there."""
    cells: dict[float, list[State]] = {}
    for state in states:
        cells.setdefault(round(places[state] * MOST_MARKS / FULL) / MOST_MARKS, []).append(state)
    marks = []
    for share, here in sorted(cells.items()):
        first = min(here, key=lambda one: BAD.index(one.verdict) if one.verdict in BAD else 9)
        more = f", and {len(here) - 1} more" if len(here) > 1 else ""
        marks.append(
            Mark(
                round(FULL * share, 1),
                first.verdict,
                f"{first.verdict}: {first.what or first.state}{more}",
            )
        )
    return marks


def rank_figure(ranks: Sequence[Rank], strikes: Sequence[StrikeEntry]) -> Figure:
    """Return the ranks of a world, one lane each, with the strikes at their steps."""
    steps = max([1, *(rank.steps for rank in ranks)])
    lanes = []
    for rank in ranks:
        struck = [one for one in strikes if one.details.get("rank") == rank.rank]
        width = FULL * rank.steps / steps
        lanes.append(
            Lane(
                f"rank {rank.rank}",
                f"{rank.outcome}, {count_text(rank.steps, 'step')}",
                segments=[Segment(0, max(width, 0.5), rank.outcome, rank.ended)],
                marks=[
                    Mark(min(FULL, FULL * (one.visit + 0.5) / steps), "strike", _strike_text(one))
                    for one in struck
                    if one.site.startswith("train.")
                ],
            )
        )
    counts = _count(rank.outcome for rank in ranks)
    told = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    return Figure(
        f"{count_text(len(ranks), 'rank')} in the last attempt: {told}.",
        lanes,
        _scale("step", steps),
        ("strike", *counts),
        ("Rank", "Outcome", "Steps", "End"),
        [(str(rank.rank), rank.outcome, str(rank.steps), rank.ended) for rank in ranks],
    )


def timeline(
    trial: Trial, results: Sequence[ResultEntry], strikes: Sequence[StrikeEntry]
) -> Figure:
    """Return one trial: its attempts, and the visits and strikes of each site."""
    lanes = [_attempts(result) for result in results if len(result.steps or result.attempts) > 1]
    struck: dict[str, list[StrikeEntry]] = {}
    for strike in strikes:
        struck.setdefault(_site_key(strike, trial.visits), []).append(strike)
    sites = sorted({*trial.visits, *struck}, key=lambda site: (site not in struck, site))
    for site in sites[:MOST_LANES]:
        here = struck.get(site, [])
        count = max([trial.visits.get(site, 0), *(strike.visit + 1 for strike in here)])
        lanes.append(
            Lane(
                site,
                _notes((count, "visit"), (len(here), "strike")),
                segments=[Segment(0, FULL, "visits")] if count else [],
                dashes=count if count <= MOST_TICKS else 0,
                marks=_strike_marks(here, count),
            )
        )
    names = ", ".join(sites[MOST_LANES:])
    more = f" Also visited: {names}." if names else ""
    attempts = sum(len(result.attempts) for result in results)
    return Figure(
        f"{_notes((attempts, 'attempt'), (len(trial.visits), 'site'), (len(strikes), 'strike'))}. "
        f"Each lane has its own scale: the first visit is at the left, the last at the right.{more}",
        lanes,
        (),
        ("strike", "visits"),
        ("Lane", "Counts", "Strikes at"),
        [
            (lane.label, lane.note, ", ".join(mark.title for mark in lane.marks[:12]))
            for lane in lanes
        ],
    )


def _attempts(result: ResultEntry) -> Lane:
    steps = result.steps or (1,) * len(result.attempts)
    total = sum(max(count, 1) for count in steps)
    segments, x = [], 0.0
    for number, count in enumerate(steps):
        width = FULL * max(count, 1) / total
        end = result.attempts[number] if number < len(result.attempts) else ""
        last = number == len(steps) - 1
        segments.append(Segment(x, width, "attempt" if last else "ended", f"{number + 1}: {end}"))
        x += width
    return Lane(
        result.method, _notes((len(steps), "attempt"), (sum(result.steps), "step")), segments
    )


def visit_map(
    strikes: Sequence[tuple[StrikeEntry, bool]], visits: Mapping[str, int]
) -> Figure | None:
    """Return the visits at which a search tried a fault, and those at which a trial failed.

    ``strikes`` has each strike with True if its trial failed.
    """
    lanes: list[Lane] = []
    rows = []
    keys = {(fault_name(strike.fault), _site_key(strike, visits)) for strike, _ in strikes}
    for fault, site in sorted(keys):
        here = [
            (strike.visit, failed)
            for strike, failed in strikes
            if (fault_name(strike.fault), _site_key(strike, visits)) == (fault, site)
        ]
        count = max([visits.get(site, 0), *(visit + 1 for visit, _ in here)])
        tried = {visit for visit, _ in here}
        wrong = sorted({visit for visit, failed in here if failed})
        lanes.append(
            Lane(
                f"{fault} at {site}",
                f"{len(tried)} of {count_text(count, 'visit')}"
                + (f", {len(wrong)} failing" if wrong else ""),
                runs=_runs(sorted(tried.difference(wrong))),
                units=count,
                marks=_thin(
                    [
                        Mark(FULL * (visit + 0.5) / count, "failed", f"visit {visit}")
                        for visit in wrong
                    ]
                ),
            )
        )
        rows.append((fault, site, str(count), str(len(tried)), ", ".join(map(str, wrong[:40]))))
    if not lanes:
        return None
    return Figure(
        "The visits that a fault struck, over all trials. A visit in a failing trial is not green.",
        lanes[:MOST_LANES],
        ("first visit", "last visit"),
        ("struck", "failed"),
        ("Fault", "Site", "Visits", "Struck", "Failing at"),
        rows,
    )


def _runs(visits: Sequence[int]) -> str:
    """Return a path with one bar for each run of consecutive visits."""
    path, start = "", 0
    for number, visit in enumerate(visits):
        if number + 1 == len(visits) or visits[number + 1] != visit + 1:
            path += f"M{visits[start]} .5h{visit - visits[start] + 1}"
            start = number + 1
    return path


def _strike_marks(strikes: Sequence[StrikeEntry], count: int) -> list[Mark]:
    return _thin(
        [Mark(FULL * (one.visit + 0.5) / count, "strike", _strike_text(one)) for one in strikes]
    )


def _thin(marks: Sequence[Mark]) -> list[Mark]:
    """Return at most one mark for each place."""
    places: dict[int, list[Mark]] = {}
    for mark in marks:
        places.setdefault(round(mark.x * MOST_MARKS / FULL), []).append(mark)
    return [
        dataclasses.replace(here[0], title=f"{here[0].title}, and {len(here) - 1} more")
        if len(here) > 1
        else here[0]
        for here in places.values()
    ]


def _strike_text(strike: StrikeEntry) -> str:
    details = ", ".join(f"{name}={value}" for name, value in strike.details.items())
    return f"{strike.fault} at {strike.site} {strike.visit}{f' ({details})' if details else ''}"


def fault_name(text: str) -> str:
    """Return the name of a fault: ``gpu_oom`` for ``gpu_oom(at=3)``."""
    return text.partition("(")[0]


def _site_key(strike: StrikeEntry, visits: Mapping[str, int]) -> str:
    """Return the key under which the visits of a strike are counted."""
    named = _TARGET.search(strike.fault)
    target = strike.details.get("target") or (named[2] if named else "")
    key = f"{strike.site} {target}" if target else strike.site
    return key if key in visits or strike.site not in visits else strike.site


def request_kinds(requests: Requests, limit: float = math.inf) -> list[str]:
    """Return the outcome of each request. Those above ``limit`` seconds are slow."""
    kinds = ["slow" if latency > limit else "passed" for latency in requests.latencies]
    for number in requests.failed:
        if number < len(kinds):
            kinds[number] = "failed"
    return kinds


def _scale(what: str, last: int) -> tuple[str, ...]:
    return (
        (f"{what} 0", str(last // 2), f"{what} {last}")
        if last > 3
        else (f"{what} 0", f"{what} {last}")
    )


def _notes(*counts: tuple[int, str]) -> str:
    return ", ".join(
        f"{number} {thing}" if thing == "bad" else count_text(number, thing)
        for number, thing in counts
        if number
    )


def _count(items: Iterable[T]) -> dict[T, int]:
    counts: dict[T, int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: str(pair[0])))
