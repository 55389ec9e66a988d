"""Fail a function at one of its lines, by a trace function of the interpreter."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from types import CodeType, FrameType, TracebackType
from typing import Any

from ...core.sites import Visit

__all__ = ["FailHalfWay", "count_lines"]


class _Lines(contextlib.AbstractContextManager[None]):
    """Call ``reached`` before each line of one function, in this thread."""

    def __init__(self, code: CodeType, reached: Callable[[int], None]) -> None:
        self._code = code
        self._reached = reached
        self._count = 0
        self._before: Any = None

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._called)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The interpreter removes a trace function that has raised.
        if sys.gettrace() in (None, self._called):
            sys.settrace(self._before)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code is self._code:
            return self._line
        # Another tracer, for example of coverage, still sees all other functions.
        return None if self._before is None else self._before(frame, event, argument)

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            number, self._count = self._count, self._count + 1
            self._reached(number)
        return self._line


def count_lines(visit: Visit) -> contextlib.AbstractContextManager[None]:
    """Measure the number of lines that run, as the size of ``line``."""
    # The function runs later, when the visit may hold the measures of a different variant.
    measures = visit.measures

    def reached(number: int) -> None:
        measures["line"] = max(number + 1, measures.get("line", 0))

    return _Lines(visit.attributes["code"], reached)


class FailHalfWay(_Lines):
    """Raise an error before the line of a number."""

    def __init__(self, visit: Visit, line: int, error: Callable[[], BaseException]) -> None:
        super().__init__(visit.attributes["code"], self._fail)
        self._visit, self._wanted, self._error = visit, line, error

    def _fail(self, number: int) -> None:
        if number == self._wanted:
            error = self._error()
            self._visit.record_injection(error, line=number)
            raise error
