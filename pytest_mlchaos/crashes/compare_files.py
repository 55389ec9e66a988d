"""Compare the files that a resumed run leaves with those of the golden run."""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ..runs.traces import Divergence
from .model import CrashOutcome, RunResult

__all__ = ["Endings", "says_nothing"]

_NUMBER = re.compile(r"\d+")


def says_nothing(value: object) -> bool:
    """Return True if a value cannot show what was trained.

    This is so for None, texts, paths, whole numbers, and containers of these.
    """
    if isinstance(value, Mapping):
        return all(map(says_nothing, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(says_nothing, value))
    return value is None or isinstance(value, (str, bytes, int, os.PathLike))


class Endings:
    """Compares files at the ends of runs.

    ``patterns`` name the files to compare byte by byte. Without patterns, all files are compared if
    the returned value shows nothing of the training. If it does, only files that some run reads are
    compared. Of these, checkpoints (files that are not short texts) are left out if steps of torch
    were seen. They also hold what nothing uses, for example a generator that no code draws from.

    Files that differ between two golden runs are left out. So are logs with repeated lines, and
    numbered directories of which each run makes a new one. Append-only files do not count as logs
    if runs read nothing else, because they resume from them.
    """

    def __init__(self, golden: RunResult, patterns: Sequence[str] | None) -> None:
        self._golden = golden
        self._patterns = patterns
        self._stable = dict(golden.files)
        self._notes: dict[str, int] = {}
        self._logs = golden.grown

    @property
    def notes(self) -> list[str]:
        """Return notes on the files that were left out."""
        return list(self._notes)

    def narrow(self, second: RunResult) -> None:
        """Leave out files that differ in a second golden run."""
        same = {
            path: digest
            for path, digest in self._stable.items()
            if second.files.get(path) == digest
        }
        self._stable = same if self._patterns is None else self._stable

    def judged(
        self, step: int, outcomes: Sequence[CrashOutcome]
    ) -> list[tuple[CrashOutcome, Divergence | None]]:
        """Return each outcome with the first file that differs in it."""
        self._notes = {}
        read = frozenset().union(*(outcome.read or () for outcome in outcomes))
        self._logs = self._golden.grown - read if read <= self._golden.grown else self._golden.grown
        return [(outcome, self._difference(step, outcome, read)) for outcome in outcomes]

    def difference(self, step: int, ran: RunResult) -> Divergence | None:
        """Return how the files of a second complete run differ."""
        wanted = self._wanted(frozenset())
        path = next((path for path in wanted if ran.files.get(path) != self._stable[path]), None)
        return None if path is None else Divergence(step, "files", _in_words(path, ran.files))

    def _wanted(self, read: Iterable[str]) -> list[str]:
        if self._patterns is not None:
            return sorted(
                path
                for path in self._stable
                if any(fnmatch.fnmatch(path, pattern) for pattern in self._patterns)
            )
        if says_nothing(self._golden.value):
            return sorted(self._stable)
        # The digests of the steps show what a checkpoint holds, and leave out what nothing uses.
        judged_by_steps = bool(self._golden.trace.steps)
        return sorted(
            path
            for path in self._stable
            if path in read and not (judged_by_steps and path not in self._golden.texts)
        )

    def _difference(
        self, step: int, outcome: CrashOutcome, read: frozenset[str]
    ) -> Divergence | None:
        if outcome.verdict != "recovered" or outcome.left is None:
            return None
        for path in self._wanted(read):
            if outcome.left.get(path) == self._stable[path]:
                continue
            if self._patterns is None and (
                self._is_continued(path, outcome.left) or self._is_log(path, outcome.texts)
            ):
                continue
            lacking = (
                _lacking(self._golden.texts.get(path), outcome.texts.get(path))
                if path in self._golden.grown
                else ""
            )
            return Divergence(
                step, "files", f"{path} {lacking}" if lacking else _in_words(path, outcome.left)
            )
        return None

    def _is_log(self, path: str, texts: Mapping[str, bytes]) -> bool:
        """Return True for an append-only text that has all lines of the run without a crash."""
        golden, mine = self._golden.texts.get(path), texts.get(path)
        if path not in self._logs or golden is None or mine is None:
            return False
        expected, found = golden.splitlines(), mine.splitlines()
        more = len(found) - len(expected)
        if more <= 0 or _count_matches(expected, found) < len(expected):
            return False
        how = "twice" if set(found) <= set(expected) else "more than without a crash"
        note = f"{path} has {'1 line' if more == 1 else f'{more} lines'} {how}"
        self._notes = {
            **{text: 1 for text in self._notes if not text.startswith(f"{path} has ")},
            note: 1,
        }
        return True

    def _is_continued(self, path: str, left: Mapping[str, bytes]) -> bool:
        """Return True for a file in a numbered directory, if this run made the next one.

        The golden run made only the first such directory.
        """
        parts = path.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            family = "/".join(parts[:count])
            if not _NUMBER.search(parts[count - 1]):
                continue
            pattern = re.compile(
                "/".join(
                    [
                        *map(re.escape, parts[: count - 1]),
                        _NUMBER.sub(r"\\d+", re.escape(parts[count - 1])),
                    ]
                )
                + "/"
            )
            mine = {found[0] for each in left if (found := pattern.match(each))}
            theirs = {found[0] for each in self._golden.files if (found := pattern.match(each))}
            if theirs == {f"{family}/"} and mine - theirs:
                self._notes.setdefault(
                    f"{family}: not compared, because each run makes a new directory", 1
                )
                return True
        return False


def _count_matches(expected: Sequence[bytes], found: Sequence[bytes]) -> int:
    """Count the expected lines that are found, in order.

    The start of a line that a crash cut may precede the next line.
    """
    count = 0
    for line in found:
        if count < len(expected) and line.endswith(expected[count]):
            count += 1
    return count


def _lacking(golden: bytes | None, mine: bytes | None) -> str:
    if golden is None or mine is None:
        return ""
    expected = golden.splitlines()
    missing = (Counter(expected) - Counter(mine.splitlines())).total()
    return (
        f"lacks {missing} of the {len(expected)} lines that it has without a crash"
        if missing
        else ""
    )


def _in_words(path: str, left: Mapping[str, bytes]) -> str:
    return (
        f"{path} has different content at the end"
        if path in left
        else f"{path} is missing at the end"
    )
