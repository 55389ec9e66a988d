"""Read from the journal which monitor sees which fault."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..core.entries import Detection
from .journal_reader import SessionLog

__all__ = ["Sight", "describe_sights", "sights_of"]


@dataclasses.dataclass(frozen=True, slots=True)
class Sight:
    """Count the trials of a session in which a monitor saw one kind of fault.

    Attributes:
        fault: The name and the kind of the fault. Empty for the trials without faults.
        monitor: The monitor.
        seen: The number of trials in which it fired in time, or as a false alarm without faults.
        trials: The number of trials in which the fault struck.
        visits: The largest number of further visits until it fired, or None.
    """

    fault: str
    monitor: str
    seen: int
    trials: int
    visits: int | None = None

    def __str__(self) -> str:
        if not self.fault:
            return f"false alarms in {self.seen} of {_trials(self.trials)}"
        if not self.seen:
            return f"not seen ({_trials(self.trials)})"
        visits = "" if self.visits is None else f", after {self.visits} visits at most"
        return f"seen in {self.seen} of {_trials(self.trials)}{visits}"


def _trials(number: int) -> str:
    return f"{number} trial{'' if number == 1 else 's'}"


def sights_of(session: SessionLog) -> list[Sight]:
    """Return what each monitor made of each kind of fault, by fault.

    Alerts that a test expects to be quiet under its fault are left out.
    """
    found: dict[tuple[str, str], list[Detection]] = {}
    for line in session.lines():
        entry = line.entry
        if isinstance(entry, Detection) and entry.expected != "quiet":
            found.setdefault((entry.fault, entry.monitor), []).append(entry)
    return [
        _sight(fault, monitor, entries)
        for (fault, monitor), entries in sorted(
            found.items(), key=lambda item: (not item[0][0], item[0])
        )
    ]


def _sight(fault: str, monitor: str, entries: list[Detection]) -> Sight:
    wanted = "detected" if fault else "false alarm"
    visits = [entry.visits for entry in entries if entry.visits is not None]
    seen = sum(entry.outcome == wanted for entry in entries)
    return Sight(fault, monitor, seen, len(entries), max(visits, default=None))


def describe_sights(sights: list[Sight]) -> Iterator[tuple[str, str]]:
    """Yield the lines of a table, each with a colour or an empty text.

    Trials without faults have a line only if a monitor fired in them.
    """
    rows = [one for one in sights if one.fault or one.seen]
    faults = [one.fault or "no fault" for one in rows]
    if not rows:
        return
    widths = [max(map(len, column)) for column in (faults, [one.monitor for one in rows])]
    for fault, one in zip(faults, rows, strict=True):
        is_bad = (one.seen < one.trials) if one.fault else one.seen > 0
        yield (
            f"  {fault.ljust(widths[0])}  {one.monitor.ljust(widths[1])}  {one}",
            "yellow" if is_bad else "",
        )
    unseen = [
        fault
        for fault in dict.fromkeys(one.fault for one in rows if one.fault)
        if not any(one.seen for one in rows if one.fault == fault)
    ]
    if unseen:
        yield f"  no monitor has seen: {', '.join(unseen)}", "red"
