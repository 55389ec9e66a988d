"""Describe the breaking points of a session."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.entries import BreakingPointEntry
from .journal_reader import SessionLog

__all__ = ["describe_breaking_points"]

COLOURS = {"worse": "red", "better": "green"}
ADVICE = "run with --mlchaos-update-baselines to keep that"


def describe_breaking_points(session: SessionLog) -> Iterator[tuple[str, str]]:
    """Yield a line for each breaking point, with a colour or an empty text."""
    found = [line.entry for line in session.lines() if isinstance(line.entry, BreakingPointEntry)]
    if not found:
        return
    width = max(len(entry.name) for entry in found)
    for entry in found:
        trials = sum(point[2] for point in entry.curve)
        text = f"  {entry.name.ljust(width)}  breaks {_interval(entry)} of {entry.fault}, {trials} trials"
        yield f"{text}{_change(entry)}", COLOURS.get(entry.change, "")


def _interval(entry: BreakingPointEntry) -> str:
    if entry.low is None:
        return "anywhere" if entry.high is None else f"at or below {entry.high:g}"
    if entry.high is None:
        return f"above {entry.low:g}"
    return f"between {entry.low:g} and {entry.high:g}"


def _change(entry: BreakingPointEntry) -> str:
    if entry.change == "new":
        return ", written to the baselines"
    if entry.change in ("better", "worse"):
        advice = f": {ADVICE}" if entry.change == "better" else ""
        return f", {entry.change} than the baseline ({entry.baseline}){advice}"
    return ""
