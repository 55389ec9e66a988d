"""Relate crash states to saves: all files of the finished job, or files of different saves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .model import Change, CrashOutcome, CrashState, File, Tree, completed_files, tree_key
from .runners import GoldenRun

__all__ = ["with_saves"]

MIXED = "files of different saves"


def with_saves(golden: GoldenRun, outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
    """Add the cause to failures that resume the finished job, or files of different saves.

    Different saves are the cause only if no state with matching files diverges in the same way.
    """
    saves = _Saves(golden.changes)
    end = None if golden.end is None else tree_key(golden.end)
    told = [
        (outcome, "" if outcome.state.torn else saves.mixed(outcome.state)) for outcome in outcomes
    ]
    elsewhere = {
        _component(outcome)
        for outcome, mixed in told
        if not mixed and outcome.verdict == "diverged"
    }
    found = []
    for outcome, mixed in told:
        if outcome.verdict in ("recovered", "restarted"):
            found.append(outcome)
            continue
        if mixed and outcome.divergence is not None and _component(outcome) not in elsewhere:
            outcome = dataclasses.replace(
                outcome,
                divergence=dataclasses.replace(outcome.divergence, component=MIXED, detail=mixed),
            )
        elif mixed and outcome.error is not None and not outcome.detail:
            outcome = dataclasses.replace(outcome, detail=mixed)
        found.append(
            dataclasses.replace(
                outcome, finished=end is not None and tree_key(outcome.state.tree) == end
            )
        )
    return found


def _component(outcome: CrashOutcome) -> str:
    return outcome.divergence.component if outcome.divergence is not None else ""


class _Saves:
    """The versions of each file that was saved: the number of the save, and the step before it."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self._versions: dict[str, dict[bytes, tuple[int, int]]] = {}
        for change, file in completed_files(changes):
            known = self._versions.setdefault(change.path, {})
            known.setdefault(file.content.digest, (len(known) + 1, change.step))

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
