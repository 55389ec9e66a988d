"""Call a function before each call of the user's code, and before Python opens a file."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from ...engine.scopes import INTERNAL_OPERATION, inside
from ...engine.user_code import is_users

__all__ = ["Steps"]

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_listening: list[Steps] = []


class Steps:
    """A context in which the user's code is followed.

    Args:
        step: A function that is called before the user's code calls a function.
        before_open: A function that is called with the path of a file that Python opens for
            reading.
        pending: A function that returns True if ``step`` has anything to do.
        stepwise: False to follow only opens.
    """

    def __init__(
        self,
        step: Callable[[], None],
        before_open: Callable[[str], None],
        pending: Callable[[], bool],
        *,
        stepwise: bool,
    ) -> None:
        self._step = step
        self._before_open = before_open
        self._pending = pending
        self._stepwise = stepwise
        self._process = os.getpid()
        self._before: Any = None

    def __enter__(self) -> Steps:
        _install()
        _listening.append(self)
        if self._stepwise:
            self._before = sys.getprofile()
            sys.setprofile(self._profile)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self in _listening:
            _listening.remove(self)
        if self._stepwise and sys.getprofile() == self._profile:
            sys.setprofile(self._before)

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        if self._before is not None:
            self._before(frame, event, argument)
        caller = frame if event == "c_call" else frame.f_back if event == "call" else None
        if (
            caller is not None
            and is_users(caller.f_code.co_filename)
            and self._pending()
            and self in _listening
            and not inside()
        ):
            self._step()

    def opens(self, path: str) -> None:
        """Note that Python is about to open a file for reading."""
        if os.getpid() == self._process:
            self._before_open(path)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _listening or inside() == INTERNAL_OPERATION:
        return
    path, _, flags = arguments
    if isinstance(flags, int) and flags & _WRITES:
        return
    try:
        absolute = os.path.abspath(os.fsdecode(path))
    except (TypeError, ValueError, OSError):
        return  # a file descriptor, or a relative path in a deleted directory
    for steps in tuple(_listening):
        steps.opens(absolute)


@functools.cache
def _install() -> None:
    """Install the hook, once per process, because Python cannot remove audit hooks."""
    sys.addaudithook(_hook)
