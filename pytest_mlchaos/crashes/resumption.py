"""Detect a subject that never resumes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .model import CrashOutcome, RunResult, Tree

__all__ = ["had_save", "has_resumed", "mark_restarted", "never_resumes"]

SHOWN_FILES = 3
"""A report names at most this many files."""


def never_resumes(saved: Sequence[str], steps: int, outcomes: Sequence[CrashOutcome]) -> bool:
    """Return True if no run resumed, although there was something to resume from.

    Steps show this, if there are any. Without steps, ``has_resumed`` says it of each run.

    Args:
        saved: The files from which a run could resume.
        steps: The number of steps of the golden run.
        outcomes: The outcomes of all resumed runs, with their facts.
    """
    ended = [outcome for outcome in outcomes if outcome.verdict not in ("failed", "hung")]
    if not saved or not any(one.facts is not None and one.facts.had_save for one in ended):
        return False
    if steps:
        return all(outcome.resumed_at == 0 for outcome in ended) and not any(
            outcome.resumed_at for outcome in outcomes
        )
    return not any(
        outcome.facts is None or outcome.facts.has_resumed
        for outcome in outcomes
        if outcome.verdict != "hung"
    )


def had_save(golden: RunResult, outcome: CrashOutcome) -> bool:
    """Return True if the state had a file from which a run could resume."""
    return any(path in outcome.state.tree for path in golden.saved)


def has_resumed(
    golden: RunResult, again: RunResult | None, outcome: CrashOutcome, start: Tree
) -> bool:
    """Return True if a run has used what the crashed run left, or may have.

    It counts as resumed if it read a file that the crashed run wrote. It also counts if it did not
    rewrite a file that every run from the start writes.

    Args:
        golden: The golden run.
        again: A second run from the start, if there was one.
        outcome: The outcome of the run.
        start: The directory's content before the golden run.
    """
    if outcome.read is None:
        return True  # reads cannot be seen here, so give it the benefit of the doubt
    if any(outcome.state.tree.get(path) != start.get(path) for path in outcome.read):
        return True
    always = _paths(golden) & (_paths(again) if again is not None else _paths(golden))
    return outcome.verdict != "failed" and bool(always - {path for path, _ in outcome.completed})


def _paths(ran: RunResult) -> set[str]:
    return {path for path, _ in ran.completed}


def mark_restarted(saved: Sequence[str], outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
    """Return the outcomes of a subject that never resumes.

    A run that ended counts as ``restarted``, even if its result also differs.

    Args:
        saved: The files from which a run could resume.
        outcomes: The outcomes of all resumed runs.
    """
    detail = _detail(saved, outcomes)
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


def _detail(saved: Sequence[str], outcomes: Sequence[CrashOutcome]) -> str:
    read = {path for outcome in outcomes for path in outcome.read or ()}
    unread = [path for path in saved if path not in read]
    if any(outcome.read is None for outcome in outcomes):
        return f"written: {_list_paths(saved)}"
    if not unread:
        return f"{_list_paths(saved)}: written and read, but no run resumed from it"
    return f"written and never read: {_list_paths(unread)}"


def _list_paths(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - SHOWN_FILES} more" if len(paths) > SHOWN_FILES else ""
    return ", ".join(paths[:SHOWN_FILES]) + more
