"""Show how far the current exploration is, on the line that pytest is writing.

The text stands after the dots and the cursor goes back before it, so that pytest continues where
it was. ``erase`` removes it before pytest writes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from time import perf_counter
from typing import Any

import pytest

from ..core.progress import Step

__all__ = ["ProgressLine", "line_for", "text_of"]

SECONDS_BETWEEN_LINES = 0.2
SECONDS_BETWEEN_SCROLLED_LINES = 5.0
"""With ``-s`` or live logs, each line stays on the terminal."""
SECONDS_BETWEEN_PLAIN_LINES = 30.0
"""In a log, each line stays."""
MIN_WIDTH = 20
"""A shorter text says nothing."""


def text_of(test: str, step: Step, seconds: float) -> str:
    """Return the progress in words, this many seconds after the first one was done."""
    parts = [test] if test else []
    if not step.done and step.note:
        return " · ".join([*parts, step.note])
    parts.append(
        f"{step.what} {step.done}/{step.total}" if step.total else f"{step.what} {step.done}"
    )
    if step.bad:
        parts.append(f"{step.bad} {step.bad_word}")
    if step.note:
        parts.append(step.note)
    elif 1 < step.done < step.total:
        left = round(seconds / (step.done - 1) * (step.total - step.done))
        parts.append(f"~{left // 60}:{left % 60:02} left")
    return " · ".join(parts)


class ProgressLine:
    """Write the progress to a terminal, or plain lines to a log.

    Args:
        descriptor: A descriptor of the terminal. pytest's capturing does not redirect it.
        column: Returns the column at which pytest continues.
        width: The width of the terminal, or 0 for plain lines.
        every: The smallest number of seconds between two lines.
        named: True if the line says the name of the test.
    """

    def __init__(
        self,
        descriptor: int,
        column: Callable[[], int],
        width: Callable[[], int],
        every: float,
        *,
        named: bool = True,
    ) -> None:
        self._descriptor = descriptor
        self._column = column
        self._width = width
        self._every = every
        self._named = named
        self._shown = False
        self._last = perf_counter() if every > 1 else 0.0
        # Steps arrive in threads: those of parallel runs, and the one that reads from workers.
        self.lock = threading.RLock()

    def show(self, test: str, step: Step, start: float) -> None:
        """Show a step of a test that began at ``start``, unless the last one was shown just now."""
        now = perf_counter()
        if now - self._last < self._every or not self.lock.acquire(blocking=False):
            return
        try:
            self._last = now
            text = text_of(test if self._named else "", step, now - start)
            width = self._width()
            if not width:
                self._write(f"{chr(10) if self._column() else ''}mlchaos: {text}\n")
                return
            room = width - self._column() - 2
            if room >= MIN_WIDTH:
                text = f" {text}"[:room]
                self._shown = True
                self._write(f"\x1b[K{text}\x1b[{len(text)}D")
        finally:
            self.lock.release()

    def erase(self) -> None:
        """Remove the text. pytest can write now."""
        if self._shown:
            self._shown = False
            self._write("\x1b[K")

    def _write(self, text: str) -> None:
        from ..engine.scopes import INTERNAL_OPERATION, within

        # A terminal that is gone must not fail a test.
        with within(INTERNAL_OPERATION), contextlib.suppress(OSError):
            os.write(self._descriptor, text.encode(errors="replace"))

    def listener(self, test: str) -> Callable[[Step], None]:
        """Return a function that shows the steps of a test."""
        start = perf_counter()

        def show(step: Step) -> None:
            nonlocal start
            if step.done <= 1:
                start = perf_counter()
            self.show(test, step, start)

        return show

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep the line away while pytest writes."""
        with self.lock:
            self.erase()
            yield

    # -- pytest's hooks, around all that writes ----------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logstart(self) -> Generator[None, Any, Any]:
        """Erase the line before the name of a test, a dot, the percentage or the summary."""
        with self.writing():
            return (yield)

    pytest_runtest_logreport = pytest_runtest_logstart
    pytest_runtest_logfinish = pytest_runtest_logstart
    pytest_sessionfinish = pytest_runtest_logstart

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Erase the line before the message."""
        with self.lock:
            self.erase()

    def pytest_unconfigure(self) -> None:
        """Close the descriptor."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def line_for(config: pytest.Config) -> ProgressLine | None:
    """Return the progress line of this session, or None if none is wanted."""
    if config.get_verbosity() < 0 or hasattr(config, "workerinput"):
        return None
    try:
        is_terminal, descriptor = sys.stdout.isatty(), sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        return None
    if not is_terminal and not os.environ.get("CI"):
        return None
    if not config.pluginmanager.has_plugin("terminalreporter"):
        return None
    writer = config.get_terminal_writer()
    plain = not is_terminal or os.environ.get("TERM") == "dumb"
    scrolls = plain or _is_written_during_tests(config)
    every = SECONDS_BETWEEN_SCROLLED_LINES if scrolls else SECONDS_BETWEEN_LINES
    own = os.dup(descriptor)
    return ProgressLine(
        own,
        lambda: writer.width_of_current_line,
        lambda: 0 if scrolls else _width(own, writer.fullwidth),
        SECONDS_BETWEEN_PLAIN_LINES if plain else every,
        # With ``-v``, pytest has written the name.
        named=scrolls or config.get_verbosity() <= 0 or config.pluginmanager.has_plugin("dsession"),
    )


def _is_written_during_tests(config: pytest.Config) -> bool:
    """Return True if the user's output, logs or fixtures appear while a test runs.

    They would be written over the line, so it gets lines of its own.
    """
    return bool(
        config.getoption("capture") in ("no", "tee-sys")
        or config.getoption("setupshow", False)
        or config.getoption("log_cli_level", None) is not None
        or config.getini("log_cli")
    )


def _width(descriptor: int, default: int) -> int:
    """Return the width of the terminal.

    pytest asks standard output for it, which is a file while pytest captures it.
    """
    try:
        return os.get_terminal_size(descriptor).columns or default
    except OSError:
        return default
