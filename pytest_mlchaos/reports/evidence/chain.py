"""Seal a folder with a chain of hashes.

``chain.txt`` has a row for each line of each file: a link, the SHA-256 of the line, the number of
the line, and the file. A link is the SHA-256 of the link before it and of the line. Before the
lines of a file comes a row with the number of its lines, which is linked in the same way.
``head.json`` has the last link, the number of rows, and the SHA-256 of ``chain.txt`` and of each
file.

The files, the chain and the head confirm each other, so a change of one of them is found, and the
other two tell which one it is (``verify.py``). They do not prove who wrote them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["CHAIN", "FORMAT", "HEAD", "Row", "Sealed", "digest_of", "lines_of", "seal", "sealed"]

CHAIN = "chain.txt"
HEAD = "head.json"
FIRST = "journal.jsonl"
"""The file with which the chain begins. The others follow by name."""
FORMAT = "pytest-mlchaos evidence 1"
START = hashlib.sha256(FORMAT.encode()).hexdigest()
"""The link before the first row."""
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_ROW = re.compile(r"([0-9a-f]{64}) ([0-9a-f]{64}|-) (\d+) (\S+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row of the chain.

    Attributes:
        link: The SHA-256 of the link before it and of what the row is about.
        digest: The SHA-256 of the line, or ``-`` for the row about the whole file.
        number: The number of the line, from 1. For the whole file, the number of its lines.
        file: The name of the file.
    """

    link: str
    digest: str
    number: int
    file: str

    @property
    def is_line(self) -> bool:
        """Return False for the row about the whole file."""
        return self.digest != "-"

    def text(self) -> str:
        """Return the row as a line of the chain, without its end."""
        return f"{self.link} {self.digest} {self.number} {self.file}"

    @classmethod
    def parse(cls, text: str) -> Row | None:
        """Return the row of a line of the chain, or None if it is damaged."""
        found = _ROW.fullmatch(text)
        return None if found is None else cls(found[1], found[2], int(found[3]), found[4])


@dataclasses.dataclass(frozen=True, slots=True)
class Sealed:
    """The chain and the head of some files.

    Attributes:
        rows: The rows of the chain.
        chain: The text of the chain.
        head: The text of the head.
    """

    rows: Sequence[Row]
    chain: str
    head: str

    @property
    def last(self) -> str:
        """Return the last link, which depends on each byte of all files."""
        return self.rows[-1].link if self.rows else START


def seal(folder: Path) -> Sealed:
    """Write the chain and the head of all files in a folder, which has no folders."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in (CHAIN, HEAD))
    found = sealed({name: (folder / name).read_bytes() for name in names})
    for name, text in ((CHAIN, found.chain), (HEAD, found.head)):
        (folder / name).write_bytes(text.encode())
    return found


def sealed(files: Mapping[str, bytes]) -> Sealed:
    """Return the chain and the head of files. They depend on nothing else."""
    ordered = {name: files[name] for name in sorted(files, key=lambda name: (name != FIRST, name))}
    rows = list(_rows(ordered))
    chain = "".join(f"{row.text()}\n" for row in rows)
    head = {
        "format": FORMAT,
        "head": rows[-1].link if rows else START,
        "rows": len(rows),
        CHAIN: digest_of(chain.encode()),
        "files": {
            name: {"lines": len(lines_of(content)), "sha256": digest_of(content)}
            for name, content in ordered.items()
        },
    }
    return Sealed(rows, chain, json.dumps(head, indent=1) + "\n")


def _rows(files: Mapping[str, bytes]) -> Iterator[Row]:
    link = START
    for name, content in files.items():
        lines = lines_of(content)
        link = _linked(link, f"{name} {len(lines)}\n".encode())
        yield Row(link, "-", len(lines), name)
        for number, line in enumerate(lines, 1):
            link = _linked(link, line)
            yield Row(link, digest_of(line), number, name)


def _linked(before: str, content: bytes) -> str:
    return digest_of(before.encode() + content)


def digest_of(content: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def lines_of(content: bytes) -> list[bytes]:
    """Return the lines with their ends, so that joined they are the content."""
    return _LINE.findall(content)
