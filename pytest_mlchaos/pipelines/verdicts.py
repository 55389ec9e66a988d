"""Judge the output of a pipeline that was called under faults."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

from ..core.privacy import key_text
from ..core.records import FileState, Output
from ..core.validation import PATTERNS, TOLERANCE, check_arguments, format_value
from ..errors import (
    BadArgument,
    HalfWritten,
    Incomplete,
    NonDeterministicSubject,
    NotRecovered,
    OtherContent,
    SilentlyDifferent,
    SimulatedCrash,
    Verdict,
)
from ..oracles.state import first_difference
from ..runs.verdicts import Run

__all__ = ["PipelineRun"]

UNFINISHED = (
    "*.tmp",
    "*.temp",
    "*.part",
    "*.partial",
    "*.incomplete",
    "*.inprogress",
    "*.lock",
    "*~",
    ".*",
    "_temporary",
)
"""File and directory names that mark their content as incomplete for every reader."""
LINES = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")
"""Suffixes of files whose records are lines."""


class PipelineRun(Run):
    """The result of a pipeline that was called once, and never restarted.

    It has the other attributes and judgements of a ``Run``. Its files are those below ``tmp_path``
    and the directories below pytest's base temporary directory that the pipeline is given.

    Attributes:
        value: The returned value (iterators as a list).
        error: The exception that it raised, or None. A simulated crash counts as raised, with the
            files as the death found them.
    """

    def __init__(
        self,
        output: Output,
        golden: Callable[[int], Output],
        again: Callable[[bool], Output],
        calls: int = 1,
        *,
        cleared: bool = False,
    ) -> None:
        super().__init__(output.record)
        self.error = output.error
        self._output = output
        self._new_golden, self._again, self._calls = golden, again, calls
        self._cleared = cleared
        # The call before this one, on the same directories.
        self._previous: PipelineRun | None = None

    def _about(self) -> str:
        return f"<PipelineRun that {self.attempts[0].ended}, {len(self.faults)} faults>"

    @functools.cached_property
    def golden(self) -> PipelineRun:
        """Return the same calls without faults, from the same start, in its own copy of the
        directories."""
        return PipelineRun(
            self._new_golden(self._calls), self._new_golden, self._again, self._calls
        )

    def again(self) -> PipelineRun:
        """Make the same call once more, without faults, on the same directories and with the same
        objects.

        After a crash, the call is made as in a new process, with fresh copies of the objects. The
        expected output is that of as many calls without faults, where a call that raised does not
        count. An error does not count as success here. The assertions on this run fail.
        """
        returned = 1 if self.error is None else 0
        output = self._again(isinstance(self.error, SimulatedCrash))
        again = PipelineRun(
            output, self._new_golden, self._again, self._calls + returned, cleared=True
        )
        again._previous = self
        again._handed = self._handed  # the second call has to recover from the faults of the first
        return again

    @check_arguments("assert_same_output", rtol=TOLERANCE, atol=TOLERANCE, ignore=PATTERNS)
    def assert_same_output(
        self, *, rtol: float = 0.0, atol: float = 0.0, ignore: str | Iterable[str] = ()
    ) -> None:
        """Pass if the output equals the golden run's, or if the pipeline raised and left nothing
        half done.

        The returned values are compared as by ``assert_same_state``, and all files byte by byte. A
        pipeline that raised may leave each file of the golden run absent, as it was before, or
        complete. A file is cut if it is empty, the beginning of the golden run's file, a text that
        ends inside a line, or JSON that cannot be read. A file that appeared by a rename and can
        end so is complete. So is one that the call has read back: a working copy. Complete files
        with different content (a progress file) are judged by the next call, ``again``. Files that
        the golden run does not have are judged only if the pipeline returned.

        Args:
            rtol: Returned values may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.
            ignore: Patterns of names to leave out (``"*.log"``), besides those that mark an
                incomplete file (``.tmp``, ``.part``, a leading dot, ...).

        Raises:
            SilentlyDifferent: The pipeline returned, and its output differs. The message has the
                first difference.
            HalfWritten: The pipeline raised, and a file is cut.
            OtherContent: ``again`` returned, and complete files still differ.
            NotRecovered: The fault has cleared (``again``), and the pipeline still raises.
            NonDeterministicSubject: Two runs without faults differ, too.
            BadArgument: A golden run returns None and changes no file.

        Fidelity: a binary file in place whose content and size differ from the golden run's counts
        as complete. Reads by C code are not seen. Files are judged one by one. After an error, some
        files of a table in several files may exist, each of them complete.
        """
        patterns = _patterns(ignore)
        self._compare_under_faults("assert_same_output")
        self._check_judged(patterns)
        verdict: type[Verdict]
        if self.error is None:
            difference = _difference(self._output, self.golden._output, rtol, atol, patterns)
            verdict, what = (
                SilentlyDifferent,
                "the pipeline raised nothing, but its output differs from its golden run",
            )
            if (
                difference is not None
                and (path := difference.partition(":")[0]) in self._left_before()
            ):
                verdict = OtherContent
                what = f"a call that raised left {path} complete but with different content, and the next call did not repair it"
        else:
            self._check_cleared()
            difference = next((text for _, text, cut in self._left_behind(patterns) if cut), None)
            verdict, what = (
                HalfWritten,
                "the pipeline raised, and left a file that is neither unchanged nor complete",
            )
        if difference is not None:
            self._check_reproducible(rtol, atol, patterns)
            raise verdict(
                f"{what}\n  {difference}"
                + (f"\n  it {self.attempts[0].ended}" if self.error else "")
            )

    def _left_behind(self, patterns: tuple[str, ...]) -> Iterator[tuple[str, str, bool]]:
        return _left_behind(self._output, self.golden._output, patterns)

    def _left_before(self) -> list[str]:
        """Return the files that an earlier call left complete but different.

        Only calls that raised count.
        """
        before = self._previous
        if before is None:
            return []
        left = (
            [path for path, _, cut in before._left_behind(UNFINISHED) if not cut]
            if before.error is not None
            else []
        )
        return [*left, *before._left_before()]

    def _compare_under_faults(self, judgement: str) -> None:
        """Refuse a comparison that no fault can have influenced.

        A pipeline that fails by itself is exempt, because its golden run reports the failure.
        """
        if self.error is None or not self._handed or not self._handed.quiet:
            super()._compare_under_faults(judgement)

    @check_arguments("assert_complete", ignore=PATTERNS)
    def assert_complete(self, *, ignore: str | Iterable[str] = ()) -> None:
        """Raise ``Incomplete`` unless as many rows and files came out as of the golden run.

        These are counted: the rows of tables, arrays and tensors, the items of lists (and the rows
        in them), each entry of a dict by itself, and the lines of text files (.csv, .tsv, .jsonl,
        .ndjson, .txt). Other files only have to exist, and not be empty unless the golden run's
        are. Use ``assert_same_output`` for their content.

        Raises:
            Incomplete: Something is missing, or the pipeline raised.
            BadArgument: A golden run returns a single value and changes no file, so there is
                nothing to count.
        """
        patterns = _patterns(ignore)
        self._compare_under_faults("assert_complete")
        self._check_judged(patterns)
        if self.error is not None:
            self._check_cleared()
            raise Incomplete(f"the pipeline {self.attempts[0].ended}: its output is not complete")
        found, wanted = (dict(_counts(run._kept, "returned value")) for run in (self, self.golden))
        files = [_judged_files(run._output, patterns) for run in (self, self.golden)]
        wrote = files[1] != _judged_files(self.golden._output, patterns, before=True)
        if (
            not wrote
            and wanted.keys() <= {"returned value"}
            and set(wanted.values()) <= {"a value", "nothing"}
        ):
            raise BadArgument(
                "assert_complete: there is nothing to count: the golden run returned no rows or "
                "items and wrote no file. "
                "Use assert_same_output to compare values"
            )
        found.update((path, _amount(path, state)) for path, state in files[0].items())
        wanted.update((path, _amount(path, state)) for path, state in files[1].items())
        for path in {**wanted, **found}:
            if found.get(path) != wanted.get(path):
                raise Incomplete(
                    f"{path}: {found.get(path, 'missing')} instead of {wanted.get(path, 'nothing')}"
                )

    def _entry(self, key: str | int | None, whose: str) -> Any:
        if self.error is not None:
            raise Incomplete(
                f"the pipeline {self.attempts[0].ended}, so it returned no values to judge"
            )
        return super()._entry(key, whose)

    def _check_judged(self, patterns: tuple[str, ...]) -> None:
        golden = self.golden._output
        if golden.record.kept is None and _judged_files(golden, patterns) == _judged_files(
            golden, patterns, before=True
        ):
            raise BadArgument(
                "there is nothing to judge: the golden run returned None and changed no file below "
                "the test's own directories. "
                "Return the output, or let the pipeline write below tmp_path"
            )

    def _check_cleared(self) -> None:
        if self._cleared:
            raise NotRecovered(
                f"no fault strikes any more, but the pipeline still {self.attempts[0].ended}"
            ) from self.error

    def _check_reproducible(self, rtol: float, atol: float, patterns: tuple[str, ...]) -> None:
        second = self._new_golden(self._calls)
        if difference := _difference(second, self.golden._output, rtol, atol, patterns):
            raise NonDeterministicSubject(
                f"two runs of the pipeline without faults differ: {difference}. Fix its seeds, set "
                f"rtol=, or leave a file out with ignore="
            )


def _patterns(ignore: str | Iterable[str]) -> tuple[str, ...]:
    patterns = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern:
            raise BadArgument(
                f"ignore must be patterns of file names, for example '*.log', got "
                f"{format_value(pattern)}"
            )
    return (*UNFINISHED, *patterns)


def _judged_files(
    output: Output, patterns: tuple[str, ...], *, before: bool = False
) -> dict[str, FileState]:
    files = output.before if before else output.after
    return {path: state for path, state in files.items() if not _left_out(path, patterns)}


def _left_out(path: str, patterns: tuple[str, ...]) -> bool:
    return any(
        fnmatch.fnmatchcase(part, pattern)
        for pattern in patterns
        for part in (path, *path.split("/"))
    )


def _difference(
    actual: Output, golden: Output, rtol: float, atol: float, patterns: tuple[str, ...]
) -> str | None:
    """Return the first difference of two outputs in words, or None."""
    difference = first_difference(
        actual.record.kept, golden.record.kept, rtol=rtol, atol=atol, name="returned value"
    )
    if difference is not None:
        return difference
    found, wanted = _judged_files(actual, patterns), _judged_files(golden, patterns)
    for path in {**wanted, **found}:
        if path not in found:
            return f"{path}: missing"
        if path not in wanted:
            return f"{path}: not expected ({_size(path, found[path])})"
        if found[path] != wanted[path]:
            return f"{path}: {_describe_difference(path, found[path], wanted[path])}"
    return None


def _left_behind(
    actual: Output, golden: Output, patterns: tuple[str, ...]
) -> Iterator[tuple[str, str, bool]]:
    """Yield the files that are neither unchanged nor as in the golden run.

    Each comes with its path, its difference, and True if it is cut. Only files that existed before,
    or exist in the golden run, count.
    """
    whole = _judged_files(golden, patterns)
    for path, state in _judged_files(actual, patterns).items():
        known = [files[path] for files in (whole, golden.before, actual.before) if path in files]
        if known and state not in known:
            cut = path not in actual.read_back and _is_cut(
                state, known, renamed=path in actual.renamed
            )
            yield path, f"{path}: {_describe_difference(path, state, known[0])}", cut


def _is_cut(state: FileState, known: list[FileState], *, renamed: bool) -> bool:
    """Return True if a file is a part of a complete one.

    ``known`` are complete ones, the likeliest first.
    """
    if not state.size:
        return True
    if any(one.begins_with(state) for one in known):
        return not (renamed and state.closed)
    if renamed:
        return False
    if state.closed is None:  # a binary file may be allocated in its full size and filled in part
        return state.size == known[0].size
    return not state.closed and known[0].closed is not False


def _describe_difference(path: str, found: FileState, wanted: FileState) -> str:
    one, other = _size(path, found), _size(path, wanted)
    return f"{one} instead of {other}" if one != other else f"different content ({one} in both)"


def _size(path: str, state: FileState) -> str:
    number, unit = (
        (state.lines, "line") if path.endswith(LINES) and state.lines else (state.size, "byte")
    )
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _amount(path: str, state: FileState) -> str:
    return (
        f"{state.lines} lines" if path.endswith(LINES) else "empty" if not state.size else "a file"
    )


def _counts(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Yield the number of rows or items at each position of a value."""
    if isinstance(value, Mapping):
        for place, (name, item) in enumerate(value.items()):
            yield from _counts(item, f"{path}[{key_text(name, place, len(value))}]")
    elif (
        (hasattr(value, "shape") and hasattr(value, "dtype"))
        or hasattr(value, "columns")
        or hasattr(value, "num_rows")
    ):
        yield path, f"{_rows(value)} rows"
    elif isinstance(value, Sized) and not isinstance(value, (str, bytes)):
        items = list(value) if isinstance(value, (list, tuple)) else []
        nested = all(
            isinstance(item, Sized) and not isinstance(item, (str, bytes, Mapping))
            for item in items
        )
        rows = sum(map(_rows, items)) if nested else 0  # a batch in a list may have lost rows
        yield path, f"{len(value)} items" + (f" with {rows} rows" if rows else "")
    else:
        yield path, "nothing" if value is None else "a value"


def _rows(value: Any) -> int:
    shape = getattr(value, "shape", None)
    return (int(shape[0]) if len(shape) else 1) if shape is not None else len(value)
