"""Write the fault coverage as text, for a terminal of any width."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from .fault_coverage import STATES, FaultCoverage, FaultPoint
from .guards import Guarded

__all__ = ["Row", "coverage_rows"]

MOST_ROWS = 40
"""The number of rows of each list, unless all are asked for."""
COLOURS = {"judged": "green", "unjudged": "yellow", "unstruck": "red", "unvisited": "red"}
SHORT = {
    "judged": "judged",
    "unjudged": "not judged",
    "unstruck": "never struck",
    "unvisited": "never visited",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of text, with a colour or without."""

    text: str
    colour: str = ""


def coverage_rows(
    coverage: FaultCoverage, guards: Sequence[Guarded], *, width: int, everything: bool = False
) -> list[Row]:
    """Return the lines of the fault coverage.

    Args:
        coverage: The fault coverage.
        guards: The checks that saw the faults.
        width: The width of the terminal.
        everything: True to write all rows of long lists.
    """
    most = None if everything else MOST_ROWS
    return [
        *_points(coverage, width, most),
        *_guards(guards, width, most),
        *_never_faulted(coverage, width, most),
        *_recovery(coverage, width, most),
        *(Row(f"note: {note}") for note in coverage.notes),
        Row(_total(coverage)),
    ]


def _points(coverage: FaultCoverage, width: int, most: int | None) -> Iterator[Row]:
    order = list(STATES)
    points = sorted(coverage.points, key=lambda point: (order.index(point.state), point.name))
    states = [SHORT[point.state] for point in points]
    names = [point.name for point in points]
    for row, point in zip(
        _table(states, names, [_faults(point) for point in points], width=width),
        points,
        strict=True,
    ):
        yield from (Row(line, COLOURS[point.state]) for line in row)
        if most is not None and (most := most - 1) <= 0:
            left = len(points) - MOST_ROWS
            if left:
                yield Row(f"... and {left} more fault points (-v shows all)")
            return


def _faults(point: FaultPoint) -> str:
    """Return the faults of a point: ``crash 3, gpu_oom never struck``."""
    return ", ".join(
        f"{cell.fault} {cell.strikes}{_doubt(cell.strikes - cell.judged, cell.strikes)}"
        if cell.strikes
        else f"{cell.fault} {SHORT[cell.state]}"
        for cell in point.cells
    )


def _doubt(unjudged: int, strikes: int) -> str:
    if not unjudged:
        return ""
    return " (not judged)" if unjudged == strikes else f" ({unjudged} not judged)"


def _guards(guards: Sequence[Guarded], width: int, most: int | None) -> Iterator[Row]:
    if not guards:
        return
    yield from (Row(""), Row("which check saw the fault:"))
    rows = _table(
        [f"  {guard.fault}" for guard in guards],
        [guard.check for guard in guards],
        [f"{guard.seen} of {guard.trials} trials" for guard in guards],
        width=width,
    )
    yield from _limited([line for row in rows for line in row], most, "checks")


def _never_faulted(coverage: FaultCoverage, width: int, most: int | None) -> Iterator[Row]:
    if not coverage.never_faulted:
        return
    yield from (Row(""), Row("visited by your code, and never faulted there:"))
    lines: list[str] = []
    for one in coverage.never_faulted:
        text = f"  {one.function}   {', '.join(one.points)}"
        if len(text) <= width:
            lines.append(text)
        else:
            lines += [f"  {one.function}", *(f"      {point}" for point in one.points)]
    yield from _limited(lines, most, "lines")


def _recovery(coverage: FaultCoverage, width: int, most: int | None) -> Iterator[Row]:
    missing = coverage.unreached
    if not coverage.recovery:
        return
    yield Row("")
    if not missing:
        number = len(coverage.recovery)
        found = "the only block" if number == 1 else f"all {number} blocks"
        yield Row(f"recovery code: faults have reached {found}", "green")
        return
    yield Row(
        f"recovery code that no fault has reached: {len(missing)} of {len(coverage.recovery)}"
    )
    rows = _table(
        [f"  {one.file}:{one.line}" for one in missing],
        [one.what for one in missing],
        [f"in {one.function}" if one.function else "" for one in missing],
        width=width,
    )
    yield from _limited([line for row in rows for line in row], most, "lines")


def _total(coverage: FaultCoverage) -> str:
    points = len(coverage.points)
    return (
        f"fault coverage: {coverage.shown_percent} % "
        f"({coverage.count('judged')} of {points} fault point{'' if points == 1 else 's'} "
        f"struck and judged)"
    )


def _table(
    first: Sequence[str], second: Sequence[str], last: Sequence[str], *, width: int
) -> Iterator[list[str]]:
    """Yield the lines of each row. A row that is too wide continues on a second line."""
    widths = [max(map(len, column), default=0) for column in (first, second)]
    for one, two, three in zip(first, second, last, strict=True):
        text = f"{one.ljust(widths[0])}  {two.ljust(widths[1])}  {three}".rstrip()
        short = f"{one.ljust(widths[0])}  {two}"
        if len(text) <= width:
            yield [text]
        elif len(short) <= width:
            yield [short, f"      {three}"] if three else [short]
        else:
            yield [one.rstrip(), f"      {two}", *([f"      {three}"] if three else [])]


def _limited(lines: Iterable[str], most: int | None, what: str) -> Iterator[Row]:
    shown = list(lines)
    for line in shown[:most]:
        yield Row(line)
    if most is not None and len(shown) > most:
        yield Row(f"  ... and {len(shown) - most} more {what} (-v shows all)")
