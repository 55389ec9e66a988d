"""Relate crash states to saves: all files of the finished job, or files of different saves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .model import Change, CrashOutcome, CrashState, File, RunFacts, Tree, completed_files, tree_key

__all__ = ["Saves", "with_saves"]

MIXED = "files of different saves"


def with_saves(outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
    """Add the cause to failures that resume the finished job, or files of different saves.

    Different saves are the cause only if no state with matching files diverges in the same way.
    """
    told = [(outcome, outcome.facts or RunFacts()) for outcome in outcomes]
    elsewhere = {
        _component(outcome)
        for outcome, facts in told
        if not facts.mixed and outcome.verdict == "diverged"
    }
    found = []
    for outcome, facts in told:
        if outcome.verdict in ("recovered", "restarted"):
            found.append(outcome)
            continue
        mixed = facts.mixed
        if mixed and outcome.divergence is not None and _component(outcome) not in elsewhere:
            outcome = dataclasses.replace(
                outcome,
                divergence=dataclasses.replace(outcome.divergence, component=MIXED, detail=mixed),
            )
        elif mixed and outcome.error is not None and not outcome.detail:
            outcome = dataclasses.replace(outcome, detail=mixed)
        found.append(dataclasses.replace(outcome, finished=facts.finished))
    return found


def _component(outcome: CrashOutcome) -> str:
    return outcome.divergence.component if outcome.divergence is not None else ""


class Saves:
    """The versions of each file that was saved: the number of the save, and the step before it.

    Args:
        changes: The changes of the golden run.
        end: The content of the directory at its end.
    """

    def __init__(self, changes: Sequence[Change], end: Tree | None = None) -> None:
        self._end = None if end is None else tree_key(end)
        self._versions: dict[str, dict[bytes, tuple[int, int]]] = {}
        for change, file in completed_files(changes):
            known = self._versions.setdefault(change.path, {})
            known.setdefault(file.content.digest, (len(known) + 1, change.step))

    def facts(self, state: CrashState) -> tuple[str, bool]:
        """Return in words which files of a state are of different saves, and if the job is done."""
        finished = self._end is not None and tree_key(state.tree) == self._end
        return ("" if state.torn else self.mixed(state)), finished

    def mixed(self, state: CrashState) -> str:
        """Return in words which files belong to which save, or an empty text if they match.

        Files are saved together if they have the same number of versions.
        """
        held = {
            path: index
            for path, versions in self._versions.items()
            if (index := _of(state.tree, path, versions)) is not None
        }
        for path, (number, step) in held.items():
            for other, (its, later) in held.items():
                together = len(self._versions[path]) == len(self._versions[other]) > 1
                if together and number > its:
                    return f"{path} is from {_save(number, step)}, {other} from {_save(its, later)}"
        return ""


def _of(tree: Tree, path: str, versions: dict[bytes, tuple[int, int]]) -> tuple[int, int] | None:
    node = tree.get(path)
    return versions.get(node.content.digest) if isinstance(node, File) else None


def _save(number: int, step: int) -> str:
    return f"save {number}, after step {step}" if step else f"save {number}"
