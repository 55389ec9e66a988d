"""Judge the output of a pipeline that was called under faults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..core.records import Output
from ..core.validation import (
    FLAG,
    PATTERNS,
    TOLERANCE,
    Rule,
    check_arguments,
    format_seconds,
    format_value,
    parse_duration,
)
from ..errors import (
    BadArgument,
    HalfWritten,
    Incomplete,
    Inconclusive,
    LeftBehind,
    NonDeterministicSubject,
    NotExactlyOnce,
    NotIdempotent,
    NotRecovered,
    NotReleased,
    OtherContent,
    PassedOn,
    SilentlyDifferent,
    SimulatedCrash,
    StaleResult,
    Verdict,
)
from ..oracles.record_keys import KeyFunction, compare_keys, keys_in
from .amounts import amount_text, count_rows, stored_keys, value_amounts
from .called import CalledPipeline
from .left_files import judged_files, left_behind, left_out, left_over
from .outputs import (
    UNFINISHED,
    all_patterns,
    is_output_of,
    names_of,
    output_difference,
)
from .passed_on import check_accepted, describe_passed_on, is_right_elsewhere, passed_on

__all__ = ["PipelineRun"]

SHOWN_FILES = 5
REPETITIONS = 2
"""A cache is filled in the first repetition, and a leak grows in each."""
KEY = Rule(
    "a name, a position or a function of a record",
    lambda value: isinstance(value, (str, int)) or callable(value),
)


class PipelineRun(CalledPipeline):
    """The result of a pipeline that was called once, and never restarted.

    It has the other attributes and judgements of a ``Run``. Its files are those below ``tmp_path``
    and the directories below pytest's base temporary directory that the pipeline is given.

    Attributes:
        value: The returned value (iterators as a list).
        error: The exception that it raised, or None. A simulated crash counts as raised, with the
            files as the death found them.
    """

    @check_arguments("assert_same_output", rtol=TOLERANCE, atol=TOLERANCE, ignore=PATTERNS)
    def assert_same_output(
        self,
        *,
        rtol: float = 0.0,
        atol: float = 0.0,
        ignore: str | Iterable[str] = (),
        struck_values: str | None = None,
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
            struck_values: ``"passed_on"`` accepts columns that equal those that a fault of tables
                left in the input. ``"any"`` also accepts rows that are missing or have other values
                where the fault struck: quarantined or imputed ones. All else must be right. Without
                it, a composite fault (``bad_data``) accepts what is passed on, and a single one
                does not.

        Raises:
            SilentlyDifferent: The pipeline returned, and its output differs. The message has the
                first difference.
            PassedOn: It differs only in columns that the fault changed, which were passed on.
            HalfWritten: The pipeline raised, and a file is cut.
            OtherContent: ``again`` returned, and complete files still differ.
            StaleResult: The input has changed, and the output is not that of a fresh run.
            NotRecovered: The fault has cleared (``again``), and the pipeline still raises.
            NonDeterministicSubject: Two runs without faults differ, too.
            BadArgument: A golden run returns None and changes no file.

        Fidelity: a binary file in place whose content and size differ from the golden run's counts
        as complete. Reads by C code are not seen. Files are judged one by one. After an error, some
        files of a table in several files may exist, each of them complete.
        """
        check_accepted(struck_values)
        patterns = self._patterns(ignore)
        self._compare_under_faults("assert_same_output")
        self._check_judged(patterns)
        verdict: type[Verdict]
        if self.error is None:
            difference = self._difference(rtol, atol, patterns)
            verdict, what = (
                SilentlyDifferent,
                "the pipeline raised nothing, but its output differs from its golden run",
            )
            if self._changed:
                verdict, what = (
                    StaleResult,
                    "the input has changed, and the output is not that of a fresh run on the new "
                    "input",
                )
            elif (
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
            if verdict is SilentlyDifferent:
                if self._accepts(struck_values, rtol, atol, patterns):
                    return
                self._check_passed_on(difference, rtol, atol, patterns)
            self._check_reproducible(rtol, atol, patterns)
            raise verdict(
                f"{what}\n  {difference}"
                + (f"\n  it {self.attempts[0].ended}" if self.error else "")
                + (self._tell_cause(patterns) if verdict is StaleResult else "")
            )

    def _accepts(
        self, struck: str | None, rtol: float, atol: float, patterns: tuple[str, ...]
    ) -> bool:
        """Return True if the output is right except for struck values that the test accepts."""
        how = self._output, self.golden._output, rtol, atol, patterns
        if self._cleared or (struck is None and not self._output.by_composite):
            return False
        return bool(passed_on(*how)) or (struck == "any" and is_right_elsewhere(*how))

    def _check_passed_on(
        self, difference: str, rtol: float, atol: float, patterns: tuple[str, ...]
    ) -> None:
        names = (
            []
            if self._cleared
            else passed_on(self._output, self.golden._output, rtol, atol, patterns)
        )
        if names:
            raise PassedOn(
                f"the pipeline passed on what the fault left in its input, in "
                f"{describe_passed_on(names)}, and noticed nothing. All else is right\n  "
                f"{difference}\n  if that is meant, use assert_same_output("
                f"struck_values='passed_on')"
            )

    def _was_struck(self) -> bool:
        """Return True if a fault struck this call or an earlier one."""
        before = self._previous
        return bool(self.faults) or (before is not None and before._was_struck())

    def _tell_cause(self, patterns: tuple[str, ...]) -> str:
        """Say what the wrong output after a change is, and if a fault is needed for it."""
        told = ""
        old = self._before_change._output
        if is_output_of(self._output, old, self.golden._output, patterns):
            told += "\n  it is the output for the input before the change"
        if len(self._steps) > len(self._fresh_steps):
            # A remote store cannot be taken back to its input before the change.
            differs = not self._was_struck() or output_difference(
                self._calls.golden(self._steps),
                self.golden._output,
                0.0,
                0.0,
                patterns,
                old.after,
            )
            told += (
                "\n  the same calls without any fault differ, too: an earlier call leaves a stale "
                "result"
                if differs
                else "\n  the same calls without faults do not differ: the fault leaves a stale "
                "result"
            )
        return told

    @check_arguments(
        "assert_idempotent", value=FLAG, rtol=TOLERANCE, atol=TOLERANCE, ignore=PATTERNS
    )
    def assert_idempotent(
        self,
        *,
        value: bool = True,
        rtol: float = 0.0,
        atol: float = 0.0,
        ignore: str | Iterable[str] = (),
    ) -> None:
        """Raise ``NotIdempotent`` unless calling again gives the output of one call.

        The pipeline is called once more, without faults, on the directories as they are. Value and
        files must then be those of *one* call without faults. With ``when="after"``, a fault loses
        an acknowledgement: the work is done, and the caller sees an error and repeats it.

        Args:
            value: False compares only the files, for a pipeline that returns what it has done.
            rtol: Returned values may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.
            ignore: Patterns of names to leave out, as of ``assert_same_output``.

        Raises:
            NotIdempotent: The output differs from that of one call.
            NotRecovered: The second call raised.
            NonDeterministicSubject: Two runs without faults differ, too.
            BadArgument: A golden run returns None and changes no file.
        """
        patterns = self._patterns(ignore)
        self._look_without_faults("assert_idempotent")
        self._check_judged(patterns)
        again = self._call_next()
        if again.error is not None:
            again._check_cleared()
        once = self._make_golden((*filter(None, self._steps), None))
        pair = again._output, once._output
        difference = output_difference(*pair, rtol, atol, patterns, value=value)
        if difference is None:
            return
        once._check_reproducible(rtol, atol, patterns)
        twice = self._calls.golden((*once._steps, None))
        even = output_difference(twice, once._output, rtol, atol, patterns, value=value) is not None
        raise NotIdempotent(
            f"calling the pipeline again does not give the output of one call\n  {difference}\n  "
            f"the first call {self.attempts[0].ended}"
            + ("\n  two calls without any fault differ from one, too" if even else "")
        )

    @check_arguments("assert_no_leftovers", ignore=PATTERNS)
    def assert_no_leftovers(self, *, ignore: str | Iterable[str] = ()) -> None:
        """Raise ``LeftBehind`` if the pipeline left something that its golden run does not leave.

        These are judged: new files and directories in its directories, such as locks, temporary and
        unfinished files, what ``tempfile`` made elsewhere, and unfinished uploads
        to S3. A killed process cannot tidy up. So
        after a crash the pipeline is called once more, and this call must leave nothing more.

        Args:
            ignore: Patterns of names to leave out (``"*.log"``, a quarantine).

        Raises:
            LeftBehind: Something is left.
            NotRecovered: The call after a crash raised.
            NonDeterministicSubject: Two golden runs leave different names.

        Fidelity: in the system's temporary directory, only what Python's ``tempfile`` made is seen.
        """
        patterns = all_patterns(ignore)[len(UNFINISHED) :]
        self._compare_under_faults("assert_no_leftovers")
        run = self
        if isinstance(self.error, SimulatedCrash):
            run = self._call_next()
            run._has_raised()
        left = left_over(run._output, run.golden._output, patterns)
        if not left:
            return
        second = names_of(self._calls.golden(run._fresh_steps)) ^ names_of(run.golden._output)
        if random := sorted(name for name in second if not left_out(name, patterns)):
            raise NonDeterministicSubject(
                f"two runs of the pipeline without faults leave different names, for example "
                f"{random[0]}. Fix its seeds, or leave them out with ignore="
            )
        more = f"\n  and {len(left) - SHOWN_FILES} more" if len(left) > SHOWN_FILES else ""
        raise LeftBehind(
            "the pipeline left what its golden run does not leave\n  "
            + "\n  ".join(left[:SHOWN_FILES])
            + f"{more}\n  it {run.attempts[0].ended}"
        )

    def _left_behind(self, patterns: tuple[str, ...]) -> Iterator[tuple[str, str, bool]]:
        return left_behind(self._output, self.golden._output, patterns)

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

    @check_arguments("assert_complete", ignore=PATTERNS)
    def assert_complete(self, *, ignore: str | Iterable[str] = ()) -> None:
        """Raise ``Incomplete`` unless as many rows and files came out as of the golden run.

        These are counted: the rows of tables, arrays and tensors, the items of lists (and the rows
        in them), each entry of a dict by itself, and the lines of text files (.csv, .tsv, .jsonl,
        .ndjson, .txt), also compressed ones. In other files, the rows of each table or array:
        Parquet, Arrow IPC, ORC, HDF5, zarr, NumPy, SQLite and DuckDB, the items of JSON, and the
        members of tar and zip archives. A file that cannot be read is incomplete. Other files only
        have to exist, and not be empty unless the golden run's are. So do files whose library is
        not installed. Use ``assert_same_output`` for the content.

        Raises:
            Incomplete: Something is missing or cannot be read, or the pipeline raised.
            BadArgument: A golden run returns a single value and changes no file, so there is
                nothing to count. Or a later call has changed the files.
        """
        patterns = self._patterns(ignore)
        self._compare_under_faults("assert_complete")
        self._check_judged(patterns)
        if self.error is not None:
            self._check_cleared()
            raise Incomplete(f"the pipeline {self.attempts[0].ended}: its output is not complete")
        found, wanted = (
            dict(value_amounts(run._kept, "returned value")) for run in (self, self.golden)
        )
        files = [judged_files(run._output, patterns) for run in (self, self.golden)]
        wrote = files[1] != judged_files(self.golden._output, patterns, before=True)
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
        found.update((path, amount_text(path, state)) for path, state in files[0].items())
        wanted.update((path, amount_text(path, state)) for path, state in files[1].items())
        self._count_stored(
            found,
            wanted,
            [path for path in files[1] if files[0].get(path) not in (None, files[1][path])],
        )
        for path in {**wanted, **found}:
            if found.get(path) != wanted.get(path):
                raise Incomplete(
                    f"{path}: {found.get(path, 'missing')} instead of {wanted.get(path, 'nothing')}"
                )

    def _count_stored(
        self, found: dict[str, str], wanted: dict[str, str], paths: Sequence[str]
    ) -> None:
        """Replace the amounts of these files by the rows of their tables, where they are known."""
        paths = [path for path in paths if wanted[path] == "a file"]
        if not paths:
            return
        counted = self._look_at_golden(
            lambda value: {name: count_rows(name, self._calls.find(name)) for name in paths}
        )
        for path, (kind, amounts) in counted.items():
            if kind is None or amounts is None:
                continue
            del wanted[path]
            wanted.update(amounts)
            if found.pop(path) == "empty":
                found[path] = "an empty file"
                continue
            self._check_unchanged(path, "assert_complete")
            found.update(
                count_rows(path, self._calls.find(path), kind)[1]
                or {path: "a file that cannot be read"}
            )

    @check_arguments("assert_exactly_once", key=KEY, ignore=PATTERNS)
    def assert_exactly_once(self, *, key: KeyFunction, ignore: str | Iterable[str] = ()) -> None:
        """Raise ``NotExactlyOnce`` if a record was lost or written twice.

        The keys of all records are compared with the golden run's: those in the returned value, and
        those in all files that were written, together. So it does not matter which part file holds
        a record. A pipeline that raised may lack records, which come with the next call
        (``again``), but may hold none twice.

        Args:
            key: The name of the column, entry or attribute that identifies a record, the position
                in a row, or a function of a record in the returned value.
            ignore: Patterns of names to leave out, as of ``assert_same_output``.

        Raises:
            NotExactlyOnce: A key is missing, duplicated or not expected.
            BadArgument: No record of the golden run has the key.
        """
        patterns = self._patterns(ignore)
        self._compare_under_faults("assert_exactly_once")
        if self.error is not None:
            self._check_cleared()
        start = self.golden._output.before

        def read(value: object, output: Output) -> dict[str, list[Any]]:
            files = [
                name
                for name, state in judged_files(output, patterns).items()
                if start.get(name) != state
            ]
            held = [one for name in files for one in stored_keys(name, self._calls.find(name), key)]
            return {"the returned value": keys_in(value, key), "the files": held}

        wanted = self._look_at_golden(lambda value: read(value, self.golden._output))
        if not any(wanted.values()):
            raise BadArgument(
                f"assert_exactly_once: key must be in the records of the golden run, got "
                f"{format_value(key)}, which is in none. Return records, or write tables with it"
            )
        for name, state in judged_files(self._output, patterns).items():
            if start.get(name) != state:
                self._check_unchanged(name, "assert_exactly_once")
        found = read(self._kept, self._output)
        for where, keys in wanted.items():
            has_value = self.error is None or where == "the files"
            lost = self.error is not None
            difference = compare_keys(found[where], keys, may_lack=lost) if has_value else None
            if difference is not None:
                again = self._look_at_golden(lambda value: read(value, self.golden._output))
                if noise := compare_keys(again[where], keys):
                    raise NonDeterministicSubject(
                        f"two runs of the pipeline without faults differ: the records in {where}: "
                        f"{noise}. Fix its seeds, or choose a different key="
                    )
                raise NotExactlyOnce(
                    f"the records in {where} are not there exactly once: {difference}\n  it "
                    f"{self.attempts[0].ended}"
                )

    def assert_restored(self, *, within: float | str) -> None:
        """Raise ``NotRecovered`` unless a right output came soon enough after the fault.

        If neither this call nor an earlier one gave a right output, the pipeline is called once
        more, without faults. The time counts from the end of the last fault, on the trial's clock.
        So waits of the pipeline count, and those of the test before it calls ``again``.

        Args:
            within: The longest time: seconds, or ``"5m"``.

        Raises:
            NotRecovered: The output is not right, or it came too late.
            BadArgument: A golden run returns None and changes no file.
        """
        limit = parse_duration(within, "assert_restored: within")
        self._compare_under_faults("assert_restored")
        self._check_judged(self._patterns(()))
        run = self
        if self.faults or self._previous is not None:
            run = self if self.recovery_time is not None else self._call_next()
        if not run._is_right() and run.recovery_time is None:
            run._has_raised()
            difference = run._difference(0.0, 0.0, run._patterns(()))
            run._check_noise(0.0, 0.0)
            raise NotRecovered(f"the output is not right after the fault has ended\n  {difference}")
        seconds = run.recovery_time
        if seconds is not None and seconds > limit:
            raise NotRecovered(
                f"the first right output came {format_seconds(seconds)} after the end of the "
                f"fault, more than {format_seconds(limit)}"
            )

    def assert_resources_released(self) -> None:
        """Raise ``NotReleased`` if each call under these faults leaves something open.

        These are judged: open files, sockets and pipes, running threads, and child processes. The
        same call is repeated under the same faults, in a copy of the directories, and its output is
        dropped. What remains after the first repetition may be a cache or a pool. What remains
        after each of them is a leak. The report says if calls without faults leak, too.

        A killed process leaves nothing open, so a crash passes.

        Raises:
            NotReleased: Something is left open.
            Inconclusive: No fault struck the repeated call.

        Fidelity: memory in the process is not restored before a repetition, so a cache may hide the
        fault. Memory that is never freed is not seen.
        """
        self._compare_under_faults("assert_resources_released")
        if isinstance(self.error, SimulatedCrash):
            return
        left: Mapping[str, list[str]] = {}
        for _ in range(REPETITIONS):
            left, strikes = self._calls.repeat()
            if self.faults and not strikes:
                raise Inconclusive(
                    "assert_resources_released: no fault struck when the call was repeated. "
                    "Something in memory has changed, for example a cache"
                )
            if not left:
                return
        self._calls.repeat(faults=False)
        usual, _ = self._calls.repeat(faults=False)
        lines = [
            f"{kind}: {len(names)}"
            + (f" ({', '.join(filter(None, dict.fromkeys(names)))})" if any(names) else "")
            + (" (also without faults)" if kind in usual else "")
            for kind, names in left.items()
        ]
        raise NotReleased(
            "each call leaves something open\n  "
            + "\n  ".join(lines)
            + f"\n  it {self.attempts[0].ended}"
        )
