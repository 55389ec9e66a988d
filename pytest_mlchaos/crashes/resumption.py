"""Detect a subject that never resumes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .model import CrashOutcome, RunResult, Tree

__all__ = ["mark_restarted", "never_resumes"]

SHOWN_FILES = 3
"""A report names at most this many files."""


def never_resumes(
    golden: RunResult, again: RunResult | None, outcomes: Sequence[CrashOutcome]
) -> bool:
    """Return True if no run resumed, although there was something to resume from.

    Steps show this, if there are any. Without steps, a run counts as resumed if it read a file that
    the crashed run wrote. It also counts if it did not rewrite a file that every run from the start
    writes.

    Args:
        golden: The golden run.
        again: A second run from the start, if there was one.
        outcomes: The outcomes of all resumed runs.
    """
    ended = [outcome for outcome in outcomes if outcome.verdict not in ("failed", "hung")]
    if not any(path in outcome.state.tree for outcome in ended for path in golden.saved):
        return False
    if golden.trace.steps:
        return all(outcome.resumed_at == 0 for outcome in ended) and not any(
            outcome.resumed_at for outcome in outcomes
        )
    start: Tree = next(
        (outcome.state.tree for outcome in outcomes if outcome.state.id == "start#0"), {}
    )
    always = _paths(golden) & (_paths(again) if again is not None else _paths(golden))
    return not any(
        _has_resumed(outcome, start, always) for outcome in outcomes if outcome.verdict != "hung"
    )


def _paths(ran: RunResult) -> set[str]:
    return {path for path, _ in ran.completed}


def _has_resumed(outcome: CrashOutcome, start: Tree, always: set[str]) -> bool:
    if outcome.read is None:
        return True  # reads cannot be seen here, so give it the benefit of the doubt
    if any(outcome.state.tree.get(path) != start.get(path) for path in outcome.read):
        return True
    return outcome.verdict != "failed" and bool(always - {path for path, _ in outcome.completed})


def mark_restarted(golden: RunResult, outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
    """Return the outcomes of a subject that never resumes.

    A run that ended counts as ``restarted``, even if its result also differs.
    """
    detail = _detail(golden, outcomes)
    return [
        dataclasses.replace(outcome, verdict="restarted", detail=detail, from_scratch=True)
        if _is_consequence(outcome)
        else outcome
        for outcome in outcomes
    ]


def _is_consequence(outcome: CrashOutcome) -> bool:
    """Return True if the divergence may be the effect of a restart among old files.

    Different files and values may be. Lost state is not.
    """
    found = outcome.divergence
    return outcome.verdict == "recovered" or (
        found is not None and found.component in ("files", "returned value")
    )


def _detail(golden: RunResult, outcomes: Sequence[CrashOutcome]) -> str:
    read = {path for outcome in outcomes for path in outcome.read or ()}
    unread = [path for path in golden.saved if path not in read]
    if any(outcome.read is None for outcome in outcomes):
        return f"written: {_list_paths(golden.saved)}"
    if not unread:
        return f"{_list_paths(golden.saved)}: written and read, but no run resumed from it"
    return f"written and never read: {_list_paths(unread)}"


def _list_paths(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - SHOWN_FILES} more" if len(paths) > SHOWN_FILES else ""
    return ", ".join(paths[:SHOWN_FILES]) + more
