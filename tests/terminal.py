"""A program on a real pseudo-terminal, and what its screen shows."""

from __future__ import annotations

import os
import re
import time

import pexpect
import pyte

__all__ = ["Terminal"]


class Terminal:
    """Start a program on a terminal of its own. Ctrl-C there reaches all of its processes."""

    def __init__(self, command, folder, columns=100, rows=60, **environment):
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""
        variables = {**os.environ, "TERM": "xterm-256color", **environment}
        for name in (
            "CI",
            "BUILD_NUMBER",
            "COLUMNS",
            "LINES",
            "PY_COLORS",
            "NO_COLOR",
            "FORCE_COLOR",
        ):
            if name not in environment:
                variables.pop(name, None)
        self._child = pexpect.spawn(
            command[0],
            command[1:],
            cwd=folder,
            dimensions=(rows, columns),
            env=variables,
            timeout=120,
        )
        self._child.logfile_read = self

    def write(self, data):
        """Show what the program has written. pexpect calls this."""
        self.written += data
        self._stream.feed(data)

    def flush(self):
        """Do nothing. pexpect calls this."""

    def wait_for(self, pattern):
        """Read until the program has written this pattern, in ASCII."""
        self._child.expect(pattern)

    def wait_until(self, condition, seconds=60):
        """Read until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.lines
            self._child.expect([pexpect.TIMEOUT, pexpect.EOF], timeout=0.05)

    def press_ctrl_c(self):
        """Type Ctrl-C."""
        self._child.sendintr()

    def end(self):
        """Read until the program ends, and return its exit code."""
        self._child.expect(pexpect.EOF)
        self._child.close()
        return self._child.exitstatus

    @property
    def lines(self):
        """The lines that the screen shows, with those that were scrolled out."""
        history = [
            "".join(line[column].data for column in range(self.screen.columns))
            for line in self.screen.history.top
        ]
        return [line.rstrip() for line in [*history, *self.screen.display]]

    def find(self, pattern):
        """The matches of a pattern in the lines of the screen."""
        return re.findall(pattern, "\n".join(self.lines), re.MULTILINE)
