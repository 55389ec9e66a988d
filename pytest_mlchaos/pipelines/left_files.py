"""Compare the files that calls of a pipeline leave."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

from ..core.privacy import key_text
from ..core.records import FileState, Output
from ..oracles.stored_tables import LINES, is_store_metadata

__all__ = ["describe_difference", "judged_files", "left_behind", "left_out", "left_over", "size_of"]


def judged_files(
    output: Output, patterns: tuple[str, ...], *, before: bool = False
) -> dict[str, FileState]:
    """Return the files of a call that are judged, by path."""
    files = output.before if before else output.after
    return {path: state for path, state in files.items() if not left_out(path, patterns)}


def left_out(path: str, patterns: tuple[str, ...]) -> bool:
    """Return True if a pattern matches the path, or a part of it."""
    return any(
        fnmatch.fnmatchcase(part, pattern)
        for pattern in patterns
        for part in (path, *path.split("/"))
        if not (pattern == ".*" and is_store_metadata(part.rpartition("/")[2]))
    )


def left_behind(
    actual: Output, golden: Output, patterns: tuple[str, ...]
) -> Iterator[tuple[str, str, bool]]:
    """Yield the files that are neither unchanged nor as in the golden run.

    Each comes with its path, its difference, and True if it is cut. Only files that existed before,
    or exist in the golden run, count.
    """
    whole = judged_files(golden, patterns)
    for path, state in judged_files(actual, patterns).items():
        known = [files[path] for files in (whole, golden.before, actual.before) if path in files]
        if known and state not in known:
            cut = path not in actual.read_back and _is_cut(
                state, known, renamed=path in actual.renamed
            )
            yield path, f"{path}: {describe_difference(path, state, known[0])}", cut


def _is_cut(state: FileState, known: list[FileState], *, renamed: bool) -> bool:
    """Return True if a file is a part of a complete one.

    ``known`` are complete ones, the likeliest first.
    """
    if not state.size:
        return not any(one.may_be_empty for one in known)
    if any(one.begins_with(state) for one in known):
        return not (renamed and state.closed)
    if renamed:
        return False
    if state.closed is None:  # a binary file may be allocated in its full size and filled in part
        return state.size == known[0].size
    return not state.closed and known[0].closed is not False


def describe_difference(path: str, found: FileState, wanted: FileState) -> str:
    """Return the difference of two files in words."""
    if found.tables is not None and wanted.tables is not None:
        names = list({**wanted.tables, **found.tables})
        for place, name in enumerate(names):
            has, wants = found.tables.get(name), wanted.tables.get(name)
            if has != wants:
                table = key_text(name, place, len(names), noun="table")
                return f"table {table}: {_difference_of_tables(has, wants)}"
    one, other = size_of(path, found), size_of(path, wanted)
    return f"{one} instead of {other}" if one != other else f"different content ({one} in both)"


def _difference_of_tables(found: tuple[int, bytes] | None, wanted: tuple[int, bytes] | None) -> str:
    if found is None or wanted is None:
        return "missing" if found is None else "not expected"
    one, other = (f"{rows} row{'' if rows == 1 else 's'}" for rows, _ in (found, wanted))
    return f"{one} instead of {other}" if one != other else f"different rows ({one} in both)"


def size_of(path: str, state: FileState) -> str:
    """Return the size of a file in lines or bytes."""
    number, unit = (
        (state.lines, "line") if path.endswith(LINES) and state.lines else (state.size, "byte")
    )
    return f"{number} {unit}{'' if number == 1 else 's'}"


def left_over(mine: Output, golden: Output, patterns: tuple[str, ...]) -> list[str]:
    """Describe what a call has left and its golden run has not.

    Leave out files that it tried to remove while a fault struck.
    """
    files = [
        f"{path}: {size_of(path, state)}"
        for path, state in mine.after.items()
        if path not in {*golden.after, *golden.before, *mine.unremoved}
        and not left_out(path, patterns)
    ]
    folders = [
        f"{path}/: an empty directory"
        for path in sorted(mine.folders - golden.folders)
        if not left_out(path, patterns)
        and not any(name.startswith(f"{path}/") for name in (*mine.after, *mine.folders))
    ]
    number = mine.temporary - golden.temporary
    elsewhere = [f"temporary files outside of its directories: {number}"] if number > 0 else []
    uploads = [f"{name}: an unfinished upload" for name in sorted(mine.uploads - golden.uploads)]
    return files + folders + elsewhere + uploads
