"""Compare the outputs of two calls: their values, and the content of their files."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping

from ..core.records import FileState, Output
from ..core.validation import format_value
from ..errors import BadArgument
from ..oracles.state import first_difference
from .left_files import describe_difference, judged_files, size_of

__all__ = [
    "UNFINISHED",
    "all_patterns",
    "is_output_of",
    "names_of",
    "output_difference",
    "tells_apart",
    "written_files",
]

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


def all_patterns(ignore: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names to leave out: those of unfinished files, and the user's."""
    patterns = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern:
            raise BadArgument(
                f"ignore must be patterns of file names, for example '*.log', got "
                f"{format_value(pattern)}"
            )
    return (*UNFINISHED, *patterns)


def output_difference(
    actual: Output,
    golden: Output,
    rtol: float,
    atol: float,
    patterns: tuple[str, ...],
    left: Mapping[str, FileState] = types.MappingProxyType({}),
    *,
    value: bool = True,
) -> str | None:
    """Return the first difference of two outputs in words, or None.

    Args:
        actual: The output to judge.
        golden: The expected output.
        rtol: The relative tolerance of the values.
        atol: The absolute tolerance of the values.
        patterns: Names to leave out.
        left: Files that may be there although they are not expected.
        value: False compares only the files.
    """
    difference = first_difference(
        actual.record.kept, golden.record.kept, rtol=rtol, atol=atol, name="returned value"
    )
    if difference is not None and value:
        return difference
    found, wanted = judged_files(actual, patterns), judged_files(golden, patterns)
    for path in {**wanted, **found}:
        if path not in found:
            return f"{path}: missing"
        if path not in wanted and left.get(path) == found[path]:
            continue
        if path not in wanted:
            return f"{path}: not expected ({size_of(path, found[path])})"
        if found[path] != wanted[path]:
            return f"{path}: {describe_difference(path, found[path], wanted[path])}"
    return None


def tells_apart(new: Output, old: Output, patterns: tuple[str, ...]) -> bool:
    """Return True if two outputs differ in the value, or in a file that a call has written."""
    if first_difference(new.record.kept, old.record.kept) is not None:
        return True
    return written_files(new, patterns) != written_files(old, patterns)


def is_output_of(actual: Output, old: Output, new: Output, patterns: tuple[str, ...]) -> bool:
    """Return True if the value, and all files that a call has written, are those of ``old``."""
    written = {**written_files(old, patterns), **written_files(new, patterns)}
    return first_difference(actual.record.kept, old.record.kept) is None and all(
        actual.after.get(path) == old.after.get(path) for path in written
    )


def written_files(output: Output, patterns: tuple[str, ...]) -> dict[str, FileState]:
    """Return the files that a call has made or changed."""
    return {
        path: state
        for path, state in judged_files(output, patterns).items()
        if output.before.get(path) != state
    }


def names_of(output: Output) -> set[str]:
    """Return the names of all files and new directories after a call."""
    return {*output.after, *output.folders}
