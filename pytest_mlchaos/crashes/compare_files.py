"""Compare the files that a resumed run leaves with those of the golden run."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..runs.traces import Divergence
from .model import CrashOutcome, EndDifference, RunResult

__all__ = ["EndRules", "Endings", "says_nothing"]

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


@dataclasses.dataclass(frozen=True, slots=True)
class EndRules:
    """The rule that says which differing files count. It is plain data.

    Attributes:
        given: The files that the test asks for, or None.
        says_nothing: True if the returned value shows nothing of the training.
        texts: If steps show what a checkpoint holds, the files that are short texts. Else None.
        grown: The files that were only appended to.
    """

    given: frozenset[str] | None
    says_nothing: bool
    texts: frozenset[str] | None
    grown: frozenset[str]

    def counts(self, path: str, read: Collection[str]) -> bool:
        """Return True if this file is compared.

        Args:
            path: The file.
            read: The files that some run has read.
        """
        if self.given is not None:
            return path in self.given
        if self.says_nothing:
            return True
        return path in read and (self.texts is None or path in self.texts)

    def first(
        self, step: int, differences: Iterable[EndDifference], read: frozenset[str]
    ) -> tuple[Divergence | None, list[EndDifference]]:
        """Return the first difference that counts, and those before it that are as they must be.

        Args:
            step: The number of steps of the golden run.
            differences: The files that differ at the end of a run, sorted by path.
            read: The files that some run has read.
        """
        logs = self.grown - read if read <= self.grown else self.grown
        expected = []
        for one in differences:
            if not self.counts(one.path, read):
                continue
            if self.given is None and (one.continued or (one.log and one.path in logs)):
                expected.append(one)
                continue
            return Divergence(step, "files", one.words), expected
        return None, expected


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

    def narrow(self, second: RunResult) -> None:
        """Leave out files that differ in a second golden run."""
        same = {
            path: digest
            for path, digest in self._stable.items()
            if second.files.get(path) == digest
        }
        self._stable = same if self._patterns is None else self._stable

    @property
    def rules(self) -> EndRules:
        """Return the rule that says which files count."""
        golden = self._golden
        given = None if self._patterns is None else frozenset(filter(self._is_given, self._stable))
        # The digests of the steps show what a checkpoint holds, and leave out what nothing uses.
        texts = frozenset(golden.texts) if golden.trace.steps else None
        return EndRules(given, says_nothing(golden.value), texts, golden.grown)

    def _is_given(self, path: str) -> bool:
        return any(fnmatch.fnmatch(path, pattern) for pattern in self._patterns or ())

    def difference(self, step: int, ran: RunResult) -> Divergence | None:
        """Return how the files of a second complete run differ."""
        rules = self.rules
        wanted = sorted(path for path in self._stable if rules.counts(path, ()))
        path = next((path for path in wanted if ran.files.get(path) != self._stable[path]), None)
        return None if path is None else Divergence(step, "files", _in_words(path, ran.files))

    def differences(self, outcome: CrashOutcome) -> tuple[EndDifference, ...]:
        """Return the files that differ at the end of a run, sorted by path."""
        left = outcome.left
        if left is None:
            return ()
        return tuple(
            self._differing(path, left, outcome.texts)
            for path in sorted(self._stable)
            if left.get(path) != self._stable[path]
        )

    def _differing(
        self, path: str, left: Mapping[str, bytes], texts: Mapping[str, bytes]
    ) -> EndDifference:
        lacking = (
            _lacking(self._golden.texts.get(path), texts.get(path))
            if path in self._golden.grown
            else ""
        )
        words = f"{path} {lacking}" if lacking else _in_words(path, left)
        return EndDifference(path, words, self._continued(path, left), self._log(path, texts))

    def _log(self, path: str, texts: Mapping[str, bytes]) -> str:
        """Return a note on an append-only text that has all lines of the run without a crash."""
        golden, mine = self._golden.texts.get(path), texts.get(path)
        if path not in self._golden.grown or golden is None or mine is None:
            return ""
        expected, found = golden.splitlines(), mine.splitlines()
        more = len(found) - len(expected)
        if more <= 0 or _count_matches(expected, found) < len(expected):
            return ""
        how = "twice" if set(found) <= set(expected) else "more than without a crash"
        return f"{path} has {'1 line' if more == 1 else f'{more} lines'} {how}"

    def _continued(self, path: str, left: Mapping[str, bytes]) -> str:
        """Return a note on a file in a numbered directory, if this run made the next one.

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
                return f"{family}: not compared, because each run makes a new directory"
        return ""


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
