"""Write the rows of a session's summary: one for each exploration or search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..core.entries import Exploration
from ..core.validation import count_text
from .journal_reader import SessionLog, TestLog

__all__ = ["Row", "format_rows", "rows_of", "summary_rows"]

Row = Sequence[str]
"""The number of states or trials, the verdict, the lost work, the time of a restart or a recovery, the duration,
and the text on what was left out.
"""

_VERDICTS = {"passed": "all pass", "failed": "fails", "running": "did not end"}


def rows_of(test: TestLog) -> list[Row]:
    """Return the rows of one test."""
    explored = [
        (line.trial, line.entry) for line in test.lines if isinstance(line.entry, Exploration)
    ]
    if explored:
        return [_exploration(test, trial, one) for trial, one in explored]
    trials = count_text(len(test.trials), "trial")
    verdict = _VERDICTS.get(test.outcome, test.outcome)
    return [(trials, verdict, "", _recovery(test), _seconds(test.seconds("test")), "")]


def _recovery(test: TestLog) -> str:
    """Return the longest time that a service or a pipeline took to recover."""
    known = [one for one in test.recovery_times if one is not None]
    if not test.recovery_times:
        return ""
    if len(known) < len(test.recovery_times):
        return f"{len(test.recovery_times) - len(known)} not recovered"
    return f"recovers in {max(known):.2f} s"


def _exploration(test: TestLog, trial: int, one: Exploration) -> Row:
    verdict = (
        f"{one.bad} do{'es' if one.bad == 1 else ''} not recover" if one.bad else "all recover"
    )
    if not one.bad and one.tried < one.states:
        verdict = f"{one.tried} tried, these recover"
    if not one.states:
        verdict = "not tried"
    if not one.bad and test.outcome == "failed":
        verdict += ", the test fails"
    lost = f"loses at most {count_text(one.max_lost_steps, 'step')}" if one.measured else ""
    timing = test.timing("exploration", trial, one.number)
    restart = timing.restart if timing is not None else None
    return (
        count_text(one.states, "crash state"),
        verdict,
        lost,
        f"restart {restart:.2f} s" if restart is not None else "",
        _seconds(timing.seconds if timing is not None else None),
        one.left_out,
    )


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


def format_rows(rows: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Yield the lines of a table, in the order of the tests' ids."""
    named = [
        ([nodeid.rpartition("::")[2], *row[:-1]], row[-1])
        for nodeid in sorted(rows)
        for row in rows[nodeid]
    ]
    widths = [max(map(len, column)) for column in zip(*(row for row, _ in named), strict=True)]
    for row, left_out in named:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width]
        yield "   ".join(cells).rstrip()
        if left_out:
            yield f"  {left_out}"


def summary_rows(session: SessionLog) -> Iterator[str]:
    """Yield the summary of a session that was read from its journal."""
    return format_rows({nodeid: rows_of(test) for nodeid, test in session.tests.items()})
