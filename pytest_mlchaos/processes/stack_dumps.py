"""Read the stacks of a process from the output of ``faulthandler``."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path

from ..engine.user_code import PACKAGE, is_users

__all__ = ["OTHER_THREAD", "all_threads", "main_thread", "place"]

OTHER_THREAD = "another thread:"
"""The line before the frames of a thread that is not the main thread."""

_FRAME = re.compile(r'  File "(.+)", line (\d+) in (.+)')


def main_thread(dump: str, ident: int) -> str:
    """Return the frames of one thread in a dump, the innermost first.

    The frames below the subject's own are left out.
    """
    return "\n".join(_sections(dump).get(ident, ()))


def all_threads(dump: str, ident: int) -> str:
    """Return the frames of all threads, those of the main thread, ``ident``, first.

    The frames of each other thread follow a line that says so. Threads that run the user's code
    come before those that do not. Threads that this package has started are left out.
    """
    sections = _sections(dump)
    main = sections.pop(ident, [])
    others = [lines for lines in sections.values() if lines and not _is_ours(lines)]
    others.sort(key=lambda lines: not any(is_users(frame[0]) for frame in _frames(lines)))
    return "\n".join([*main, *(line for lines in others for line in (OTHER_THREAD, *lines))])


def _sections(dump: str) -> dict[int, list[str]]:
    """Return the frames of each thread by its number. If there are several dumps, use the last."""
    found = {}
    for section in re.split(r"(?m)^(?=(?:Current thread|Thread) 0x)", dump):
        head, _, frames = section.partition("\n")
        number = re.search(r"0x([0-9a-f]+)", head)
        if number:
            lines = [line for line in frames.splitlines() if _FRAME.fullmatch(line)]
            while lines and lines[-1].startswith(f'  File "{PACKAGE}'):
                lines.pop()
            while lines and _is_entry(lines[-1]):
                lines.pop()
            found[int(number[1], 16)] = lines
    return found


def _is_ours(lines: list[str]) -> bool:
    """Return True for a thread that this package has started.

    Its first function after those of the standard library is this package's.
    """
    started = [frame[0] for frame in _frames(lines) if frame[0] != threading.__file__]
    return not started or started[-1].startswith(PACKAGE)


def _is_entry(line: str) -> bool:
    """Return True for a frame of the code that started the process.

    It is the command of the warm process, or code after the fork.
    """
    return line.startswith(('  File "<string>"', f'  File "{PACKAGE}'))


def place(stack: str) -> str:
    """Return the innermost line, and the innermost line of user code, as one line of text."""
    frames = _frames(stack.partition(OTHER_THREAD)[0].splitlines())
    frames = [frame for frame in frames if not frame[0].startswith(PACKAGE)] or frames
    if not frames:
        return ""
    own = next((frame for frame in frames if is_users(frame[0])), None)
    text = _describe_frame(*frames[0])
    return (
        text if own is None or own is frames[0] else f"{text}, called from {_describe_frame(*own)}"
    )


def _frames(lines: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return the file, the line and the function of each frame."""
    return [(match[1], match[2], match[3]) for line in lines if (match := _FRAME.fullmatch(line))]


def _describe_frame(file: str, line: str, function: str) -> str:
    return f"{function} ({Path(file).name}:{line})"
