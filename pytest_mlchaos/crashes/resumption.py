"""Whether a subject resumes at all: from some crash state, or from what the finished job left."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .model import CrashOutcome, RunResult, Tree

__all__ = ["mark_restarted", "never_resumes"]

SHOWN_FILES = 3
"""Files that a report names."""


def never_resumes(golden: RunResult, again: RunResult | None, outcomes: Sequence[CrashOutcome]) -> bool:
    """Return True if no run went on from what another one had left, although there was something to go on from.

    Steps tell it where there are any. Without steps a run counts as resumed if it read what the crashed one had written, or did
    not write again what every run from the start writes (``golden``, and ``again``, a second one).
    """
    ended = [outcome for outcome in outcomes if outcome.verdict not in ("failed", "hung")]
    if not any(path in outcome.state.tree for outcome in ended for path in golden.saved):
        return False
    if golden.trace.steps:
        return all(outcome.resumed_at == 0 for outcome in ended) and not any(outcome.resumed_at for outcome in outcomes)
    start: Tree = next((outcome.state.tree for outcome in outcomes if outcome.state.id == "start#0"), {})
    always = _paths(golden) & (_paths(again) if again is not None else _paths(golden))
    return not any(_has_resumed(outcome, start, always) for outcome in outcomes if outcome.verdict != "hung")


def _paths(ran: RunResult) -> set[str]:
    return {path for path, _ in ran.completed}


def _has_resumed(outcome: CrashOutcome, start: Tree, always: set[str]) -> bool:
    if outcome.read is None:
        return True  # this cannot be seen, so nothing can be said against it
    if any(outcome.state.tree.get(path) != start.get(path) for path in outcome.read):
        return True
    return outcome.verdict != "failed" and bool(always - {path for path, _ in outcome.completed})


def mark_restarted(golden: RunResult, outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
    """Return the outcomes of a subject that never resumes: a run that ended is a restart, whatever else came of that."""
    detail = _detail(golden, outcomes)
    return [
        dataclasses.replace(outcome, verdict="restarted", detail=detail, from_scratch=True) if _is_consequence(outcome) else outcome
        for outcome in outcomes
    ]


def _is_consequence(outcome: CrashOutcome) -> bool:
    """Files that differ, and values, may be what comes of beginning again among old files. A state that is lost is not."""
    found = outcome.divergence
    return outcome.verdict == "recovered" or (found is not None and found.component in ("files", "returned value"))


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
