"""Where a process stands, from what ``faulthandler`` has written."""

from __future__ import annotations

import re
from pathlib import Path

from ..places import PACKAGE, is_users

__all__ = ["main_thread", "place"]

_FRAME = re.compile(r'  File "(.+)", line (\d+) in (.+)')


def main_thread(dump: str, ident: int) -> str:
    """The frames of one thread in a dump of all, the innermost first; without those below the subject's own."""
    for section in reversed(re.split(r"(?m)^(?=(?:Current thread|Thread) 0x)", dump)):
        head, _, frames = section.partition("\n")
        found = re.search(r"0x([0-9a-f]+)", head)
        if found and int(found[1], 16) == ident:
            lines = [line for line in frames.splitlines() if _FRAME.fullmatch(line)]
            while lines and lines[-1].startswith(f'  File "{PACKAGE}'):
                lines.pop()
            while lines and _is_entry(lines[-1]):
                lines.pop()
            return "\n".join(lines)
    return ""


def _is_entry(line: str) -> bool:
    """A frame of what started the process: the warm process' command, and what it forked."""
    return line.startswith(('  File "<string>"', f'  File "{PACKAGE}'))


def place(stack: str) -> str:
    """The innermost line, and the innermost of the user's own, on one line."""
    frames = [match.groups() for line in stack.splitlines() if (match := _FRAME.fullmatch(line))]
    frames = [frame for frame in frames if not frame[0].startswith(PACKAGE)] or frames
    if not frames:
        return ""
    own = next((frame for frame in frames if is_users(frame[0])), None)
    text = _worded(*frames[0])
    return text if own is None or own is frames[0] else f"{text}, called from {_worded(*own)}"


def _worded(file: str, line: str, function: str) -> str:
    return f"{function} ({Path(file).name}:{line})"
