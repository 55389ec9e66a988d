"""Find what was changed in a folder of evidence since it was sealed, by file and line."""

from __future__ import annotations

import dataclasses
import difflib
import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import BadArgument
from .chain import CHAIN, FORMAT, HEAD, Row, Sealed, digest_of, lines_of, sealed

__all__ = ["Verified", "verify"]

MAX_PROBLEMS = 20
"""The most problems that are named."""
MAX_ALIGNED = 1_000
"""The most differing lines that are aligned, to find out which were added or dropped.

It takes quadratic time.
"""
SHORTEST_HEAD = 12
"""The fewest digits of a head that identify it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """The result of a comparison of a folder with its chain and its head.

    Attributes:
        head: The last link of the chain, computed from the files.
        files: The number of files.
        lines: The number of their lines.
        problems: What was changed, as one line each.
    """

    head: str
    files: int
    lines: int
    problems: Sequence[str]


def verify(folder: Path, head: str = "") -> Verified:
    """Compare a folder with its chain and its head.

    Args:
        folder: The folder that ``--mlchaos-evidence`` wrote.
        head: The last link as it was noted elsewhere, or its first digits. If given, it must be
            that of the folder.

    Raises:
        BadArgument: The folder is missing, empty or foreign, or ``head`` is not a link.
    """
    noted = head.strip().lower()
    if noted and (len(noted) < SHORTEST_HEAD or set(noted) - set("0123456789abcdef")):
        raise BadArgument(
            f"--head must be at least {SHORTEST_HEAD} hexadecimal digits, got {head!r}"
        )
    files, strangers = _read(folder)
    recorded = _Recorded.of(files.pop(CHAIN, None), files.pop(HEAD, None))
    if not recorded.is_ours:
        raise BadArgument(
            f"{folder} is not a folder of evidence: its {CHAIN} and {HEAD} are missing or foreign"
        )
    actual = sealed(files)
    problems = [*strangers, *_differences(recorded, files, actual)]
    if not problems and noted and not actual.last.startswith(noted):
        problems.append(
            f"{HEAD}: the head is {actual.last}, not {noted}: the whole folder was sealed again"
        )
    lines = sum(row.is_line for row in actual.rows)
    return Verified(actual.last, len(files), lines, list(_first(problems)))


def _first(problems: Sequence[str]) -> Iterator[str]:
    yield from problems[:MAX_PROBLEMS]
    if len(problems) > MAX_PROBLEMS:
        yield f"... and {len(problems) - MAX_PROBLEMS} more"


def _read(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """Return the content of each file, and what is not a file, in words."""
    if not folder.is_dir():
        reason = "is not a folder" if folder.exists() else "does not exist"
        raise BadArgument(f"{folder} {reason}")
    files: dict[str, bytes] = {}
    strangers = []
    for path in sorted(folder.iterdir()):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            try:
                files[path.name] = path.read_bytes()
            except OSError as error:
                raise BadArgument(f"{path} cannot be read: {error.strerror}") from None
        else:
            kind = "folder" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "device"
            strangers.append(f"{path.name}: was added: it is a {kind}")
    if not files and not strangers:
        raise BadArgument(f"{folder} is not a folder of evidence: it is empty")
    return files, strangers


@dataclasses.dataclass(frozen=True, slots=True)
class _Recorded:
    """The chain and the head as they are in the folder.

    Attributes:
        chain: The content of the chain, or None if it is missing.
        rows: Its rows that are not damaged.
        head: The content of the head, or None if it is missing.
        digests: The SHA-256 of each file, as the head has them.
        chain_digest: That of the chain.
    """

    chain: bytes | None
    rows: Sequence[Row]
    head: bytes | None
    digests: Mapping[str, str]
    chain_digest: str
    is_ours: bool

    @classmethod
    def of(cls, chain: bytes | None, head: bytes | None) -> _Recorded:
        rows = [
            row
            for line in lines_of(chain or b"")
            if (row := Row.parse(line.decode("utf-8", "replace").rstrip("\n"))) is not None
        ]
        facts = _json(head)
        files = facts.get("files")
        digests = {
            name: str(about.get("sha256"))
            for name, about in (files if isinstance(files, dict) else {}).items()
            if isinstance(about, dict)
        }
        is_ours = bool(rows) or facts.get("format") == FORMAT or bool(digests)
        return cls(chain, rows, head, digests, str(facts.get(CHAIN)), is_ours)

    @property
    def agrees(self) -> bool:
        """Return True if the head confirms the chain."""
        return self.chain is not None and digest_of(self.chain) == self.chain_digest

    def lines(self, name: str) -> list[str]:
        """Return the digests of a file's lines."""
        return [row.digest for row in self.rows if row.file == name and row.is_line]

    def names(self) -> list[str]:
        """Return the files of which the chain or the head knows."""
        return list(dict.fromkeys([*(row.file for row in self.rows), *self.digests]))


def _json(content: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(content or b"")
    except ValueError:  # also of bytes that are not text
        return {}
    return found if isinstance(found, dict) else {}


def _differences(recorded: _Recorded, files: Mapping[str, bytes], actual: Sealed) -> Iterator[str]:
    """Yield what was changed. Nothing if and only if the chain and the head fit to the files."""
    chain, head = actual.chain.encode(), actual.head.encode()
    if recorded.chain == chain:
        # The files and the chain confirm each other.
        yield from _changed(HEAD, _digests(head), recorded.head)
        return
    if not recorded.agrees and _confirms(recorded, files):
        # The files and the head confirm each other.
        yield from _changed(CHAIN, _digests(chain), recorded.chain)
        return
    found = list(_changed_files(recorded, files))
    if not recorded.agrees:
        # More than one was changed. The chain is compared with itself, because the files differ.
        found += _damaged(recorded)
    yield from found or [f"{HEAD}: does not fit to {CHAIN} and the files: it was edited"]


def _confirms(recorded: _Recorded, files: Mapping[str, bytes]) -> bool:
    """Return True if the head has the digests of exactly these files."""
    return recorded.digests == {name: digest_of(content) for name, content in files.items()}


def _changed_files(recorded: _Recorded, files: Mapping[str, bytes]) -> Iterator[str]:
    known = recorded.names()
    for name in known:
        content = files.get(name)
        if content is not None and recorded.digests.get(name) == digest_of(content):
            continue
        yield from _changed(name, recorded.lines(name), content)
    for name in sorted(files.keys() - set(known)):
        yield f"{name}: the file was added"


def _damaged(recorded: _Recorded) -> Iterator[str]:
    if recorded.chain is None:
        yield f"{CHAIN}: the file is missing"
        return
    for number, line in enumerate(lines_of(recorded.chain), 1):
        if Row.parse(line.decode("utf-8", "replace").rstrip("\n")) is None:
            yield f"{CHAIN}: line {number} was edited"
            return
    yield (
        f"{CHAIN}: does not fit to {HEAD}: one of them was edited"
        if recorded.head
        else (f"{HEAD}: the file is missing")
    )


# -- lines -----------------------------------------------------------------------------------------


def _digests(content: bytes) -> list[str]:
    return [digest_of(line) for line in lines_of(content)]


def _changed(name: str, before: Sequence[str], content: bytes | None) -> Iterator[str]:
    """Yield which lines of a file differ.

    Args:
        name: The file.
        before: The digests of the lines that it should have.
        content: What it has, or None if it is missing.
    """
    if content is None:
        yield f"{name}: the file is missing"
        return
    after = _digests(content)
    if list(before) == after:
        return
    if not before:
        yield f"{name}: the file was changed. Its lines are not in {CHAIN}"
        return
    yield from (f"{name}: {text}" for text in _changed_lines(before, after))


def _changed_lines(before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    if not new and start + len(old) == len(before):
        yield f"{_lines(start, len(before))} missing at the end: it was truncated"
        return
    if max(len(old), len(new)) > MAX_ALIGNED:
        yield f"{_lines(start, start + max(len(old), len(new)))} not as they were"
        return
    yield from _aligned(old, new, start)


def _aligned(old: Sequence[str], new: Sequence[str], start: int) -> Iterator[str]:
    """Yield which lines were edited, dropped, added or moved."""
    dropped: list[int] = []
    added: list[int] = []
    edited: list[int] = []
    for what, a, b, c, d in difflib.SequenceMatcher(None, old, new, False).get_opcodes():
        if what == "replace" and b - a == d - c and not set(old[a:b]) & set(new):
            edited += range(c, d)
        elif what != "equal":
            dropped += range(a, b)
            added += range(c, d)
    for place in edited:
        yield f"line {start + place + 1} was edited"
    for place in list(added):
        source = next((one for one in dropped if old[one] == new[place]), None)
        if source is not None:
            dropped.remove(source)
            added.remove(place)
            yield f"line {start + place + 1} was moved: it was line {start + source + 1}"
    yield from (f"{lines} missing" for lines in _runs(dropped, start))
    yield from (f"{lines} new" for lines in _runs(added, start))


def _runs(places: Sequence[int], start: int) -> Iterator[str]:
    """Yield consecutive lines in words, with a verb."""
    for index, place in enumerate(places):
        if index and place == places[index - 1] + 1:
            continue
        end = index
        while end + 1 < len(places) and places[end + 1] == places[end] + 1:
            end += 1
        yield _lines(start + place, start + places[end] + 1)


def _lines(start: int, end: int) -> str:
    """Return the lines from ``start`` up to ``end``, both counted from 0, with a verb."""
    return f"line {end} is" if end - start == 1 else f"lines {start + 1} to {end} are"
