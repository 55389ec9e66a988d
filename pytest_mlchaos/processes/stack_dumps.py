"""Read the stacks of a process from the output of ``faulthandler``."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterable
from pathlib import Path

from ..core.privacy import compiled_text
from ..engine.user_code import PACKAGE, is_users

__all__ = ["OTHER_THREAD", "all_threads", "last_words", "main_thread", "place", "without_folders"]

OTHER_THREAD = "another thread:"
"""The line before the frames of a thread that is not the main thread."""

MAX_REASON_CHARACTERS = 200
"""The largest length of the text of an exception."""
_FATAL: dict[int, str] = {
    signal.SIGSEGV: "Segmentation fault",
    signal.SIGABRT: "Aborted",
    signal.SIGFPE: "Floating-point exception",
    **({signal.SIGBUS: "Bus error"} if hasattr(signal, "SIGBUS") else {}),
    signal.SIGILL: "Illegal instruction",
}
"""The signals that a program gets because of its own mistake, as the interpreter names them."""
_UNCAUGHT = re.compile(r"(?m)^.*terminate called after throwing.*\n *what\(\): +(\S.*)$")
_FRAME = re.compile(r'  File "(.+)", line (\d+) in (.+)')


def main_thread(dump: str, ident: int) -> str:
    """Return the frames of one thread in a dump, the innermost first.

    The frames below the subject's own are left out.
    """
    return "\n".join(_sections(dump).get(ident, ()))


def without_folders(stack: str) -> str:
    """Return the frames with the names of their files alone, since folders are of one machine."""
    return _FRAME.sub(lambda frame: f"  {frame[3]} ({Path(frame[1]).name}:{frame[2]})", stack)


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


def last_words(output: str, ident: int, signum: int) -> str:
    """Return in words where a process was when a signal killed it, and why, from its output.

    The interpreter prints the stacks, and the C++ runtime an exception that nothing has caught. The
    result is empty, or begins with a space.

    Args:
        output: The output on stderr.
        ident: The main thread, which is shown if the thread that failed runs no Python code.
        signum: The signal.
    """
    if signum not in _FATAL:
        return ""
    _, found, stacks = output.rpartition(f"Fatal Python error: {_FATAL[signum]}\n")
    current = re.search(r"(?m)^Current thread 0x([0-9a-f]+)", stacks)
    sections = _sections(stacks) if found else {}
    where = place("\n".join(sections.get(int(current[1], 16) if current else ident, [])))
    why = ""
    for thrown in _UNCAUGHT.finditer(output) if signum == signal.SIGABRT else ():
        # A message inside of a message has a tag of its own.
        why = compiled_text(re.sub(r"""(?<=: )\[[^\[\]'"`]*\] """, "", thrown[1]))
    return (f" in {where}" if where else "") + (f" ({why[:MAX_REASON_CHARACTERS]})" if why else "")


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
