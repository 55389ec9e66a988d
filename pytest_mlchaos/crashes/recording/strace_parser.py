"""Parse strace's output about a process and its children.

Each system call comes with its result, in the order in which they ended.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["CALLS", "Call", "Descriptor", "options", "parse_calls"]

CALLS = (
    *(
        "open",
        "creat",
        "openat",
        "openat2",
        "close",
        "close_range",
        "dup",
        "dup2",
        "dup3",
        "fcntl",
        "read",
        "readv",
        "preadv2",
        "lseek",
    ),
    *(
        "write",
        "pwrite64",
        "writev",
        "pwritev",
        "pwritev2",
        "copy_file_range",
        "sendfile",
        "splice",
        "ioctl",
    ),
    *("ftruncate", "truncate", "fallocate", "mmap", "fsync", "fdatasync", "sync", "syncfs"),
    *(
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
        "symlink",
        "symlinkat",
        "unlink",
        "unlinkat",
        "rmdir",
        "mkdir",
        "mkdirat",
    ),
    *(
        "chmod",
        "fchmod",
        "fchmodat",
        "utimensat",
        "chdir",
        "fchdir",
        "fork",
        "vfork",
        "clone",
        "clone3",
        "execve",
        "execveat",
    ),
)
"""The system calls that change a directory, or on which later writes depend.

Some processors lack some of them.
"""
_RAW = ("read", "readv", "preadv2", "ioctl", "execve", "execveat")
"""Calls whose arguments are only needed as numbers."""
_NAME_BYTES = 80
"""The name of a call is within this many bytes of its line."""
_MAX_WRITE_BYTES = 1 << 28
"""Record up to this many bytes of a write. strace reserves that much memory, but uses only what it
needs."""
_LINE = re.compile(rb"(\d+) +(\d+)\.(\d{6}) (.*)", re.DOTALL)
_CALL = re.compile(rb"(\w+)\((.*)\) += (-?\w+|\?)(?:<((?:\\x..)*)>)?(.*)", re.DOTALL)
_RESUMED = re.compile(rb"<\.\.\. \w+ resumed>(.*)", re.DOTALL)
_EXITED = re.compile(rb"\+\+\+ (?:exited|killed|superseded)")
_UNFINISHED = b" <unfinished ...>"
_TEXT = re.compile(rb'"([^"]*)"(\.\.\.)?')
_MAKES = re.compile(rb"v?fork|clone3?")
_NUMBERED = re.compile(rb"(AT_FDCWD|-?\d+)(?:<((?:\\x..)*)>)?(?:\(deleted\))?")


@dataclasses.dataclass(frozen=True)
class Descriptor:
    """A file descriptor and its path, which is empty if unknown.

    The ``number`` -100 stands for the working directory.
    """

    number: int
    path: str


@dataclasses.dataclass(frozen=True)
class Call:
    """A system call that has ended.

    Attributes:
        thread: The ID of its thread.
        time: The time when it began (ns).
        name: Its name, or ``exit`` for the end of a thread or process.
        arguments: Its arguments as strace writes them.
        result: Its result, negative if it failed.
        path: The path of the descriptor that it returned.
    """

    thread: int
    time: int
    name: str
    arguments: Sequence[bytes] = ()
    result: int = 0
    path: str = ""

    def text(self, index: int) -> bytes:
        """Return an argument that is a text."""
        found = _TEXT.match(self.arguments[index])
        return _bytes(found[1]) if found else b""

    def texts(self, index: int) -> bytes | None:
        """Return all texts in an argument, concatenated, or None if strace cut one."""
        found = list(_TEXT.finditer(self.arguments[index]))
        return None if any(one[2] for one in found) else b"".join(_bytes(one[1]) for one in found)

    def number(self, index: int, otherwise: int = 0) -> int:
        """Return an argument that is a number, or ``[number]`` for a pointer to one."""
        found = re.match(rb"\[?(-?(?:0x[0-9a-f]+|\d+))", self.arguments[index])
        text = found[1].decode("ascii") if found else ""
        return otherwise if not text else int(text, 8 if re.match(r"0\d", text) else 0)

    def descriptor(self, index: int) -> Descriptor:
        """Return an argument that is a file descriptor."""
        argument = self.arguments[index]
        if argument.startswith(b"0x"):
            return Descriptor(int(argument, 16), "")
        found = _NUMBERED.match(argument)
        if found is None:
            return Descriptor(-1, "")
        return Descriptor(-100 if found[1] == b"AT_FDCWD" else int(found[1]), _path(found[2]))

    def has(self, index: int, flag: str) -> bool:
        """Return True if an argument has a flag."""
        return re.search(rb"\b" + flag.encode("ascii") + rb"\b", self.arguments[index]) is not None


def options(to: Path) -> list[str]:
    """Return strace's options, so that ``parse_calls`` can read the file that it writes."""
    return [
        *("-f", "-q", "-xx", "-ttt", "-y", "-s", str(_MAX_WRITE_BYTES), "-o", str(to)),
        *(
            "-e",
            "trace=" + ",".join(f"?{name}" for name in CALLS),
            "-e",
            "raw=" + ",".join(f"?{name}" for name in _RAW),
        ),
        *("-e", "abbrev=?execve", "-e", "signal=none"),
    ]


def parse_calls(written: Path, *, forks: bool = False) -> Iterator[Call]:
    """Yield the calls in the order in which they ended.

    A call without an end in the file is left out. With ``forks``, yield only calls that make
    threads and processes.
    """
    baseline: dict[int, tuple[int, bytes]] = {}
    with written.open("rb") as lines:
        for line in lines:
            if forks and not _MAKES.search(line, 0, _NAME_BYTES):
                continue
            found = _LINE.fullmatch(line.rstrip(b"\n"))
            if found is None:
                continue
            thread, time, text = int(found[1]), int(found[2] + found[3]) * 1000, found[4]
            resumed = _RESUMED.fullmatch(text)
            if _EXITED.match(text):
                yield Call(thread, time, "exit")
            elif text.endswith(_UNFINISHED):
                baseline[thread] = time, text[: -len(_UNFINISHED)]
            elif resumed is not None and thread in baseline:
                time, head = baseline.pop(thread)
                yield from _call(thread, time, head + resumed[1])
            elif resumed is None:
                yield from _call(thread, time, text)


def _call(thread: int, time: int, text: bytes) -> Iterator[Call]:
    found = _CALL.fullmatch(text)
    if found is None or found[3] == b"?":
        return
    yield Call(
        thread, time, found[1].decode("ascii"), _split(found[2]), int(found[3], 0), _path(found[4])
    )


def _split(arguments: bytes) -> list[bytes]:
    """Split at commas outside of brackets.

    Texts have no commas, because strace writes their bytes as numbers.
    """
    found, depth, start = [], 0, 0
    for match in re.finditer(rb'"[^"]*"|[][{}(),]', arguments):
        sign = match[0]
        if sign in b"[{(":
            depth += 1
        elif sign in b"]})":
            depth -= 1
        elif sign == b"," and depth == 0:
            found.append(arguments[start : match.start()].strip())
            start = match.end()
    return [*found, arguments[start:].strip()]


def _bytes(told: bytes) -> bytes:
    return bytes.fromhex(told.replace(b"\\x", b"").decode("ascii"))


def _path(told: bytes | None) -> str:
    return _bytes(told).decode(errors="surrogateescape") if told else ""
