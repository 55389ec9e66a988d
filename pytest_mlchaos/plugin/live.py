"""Start and end the server of the live report: ``--mlchaos-live``."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import pytest

from ..core import entries
from ..core.interrupts import deferred
from ..engine.activity import TOOL_PROCESSES
from ..errors import BadArgument
from ..reports.html import check_libraries

if TYPE_CHECKING:
    from ..core.progress import Step
    from ..reports.collector import Collector

__all__ = ["LIVE", "LiveReport", "port_of"]

LIVE = "mlchaos-live"
"""The name of the plugin."""
OPTION = "--mlchaos-live"
MAX_PORT = 65535
START_SECONDS = 30.0
END_SECONDS = 10.0
SECONDS_BETWEEN_STEPS = 0.5
_SERVE = """import sys
sys.path += [path for path in {path!r} if path not in sys.path]
from pytest_mlchaos.reports.html.live import main
sys.exit(main({journal!r}, {port!r}, {parent!r}))
"""


def port_of(given: str) -> int:
    """Return the port that the option names. 0 stands for any."""
    if given.isascii() and given.isdigit() and int(given) <= MAX_PORT:
        return int(given)
    raise BadArgument(
        f"{OPTION} must be a port from 0 to {MAX_PORT}, got {given!r}. Before a path, write "
        f"{OPTION}=0, which takes any port"
    )


class LiveReport:
    """Serve the report of the running session. The server is a process that reads the journal.

    Args:
        port: The port, or 0 for any.
        journal: The journal, or None for a temporary one.
    """

    def __init__(self, port: int, journal: str | None) -> None:
        check_libraries(OPTION)
        self._port = port
        self._folder = None if journal else tempfile.mkdtemp(prefix="mlchaos-live-")
        self.journal = str(Path(journal or Path(self._folder or "", "journal.jsonl")).absolute())
        self.collector: Collector | None = None
        self._server: subprocess.Popen[str] | None = None
        self._address = ""
        self._steps: dict[str, tuple[float, Step]] = {}

    def listener(
        self, nodeid: str, show: Callable[[Step], None] | None
    ) -> Callable[[Step], None] | None:
        """Return a function that shows a step of this test also here."""

        def both(step: Step) -> None:
            if show is not None:
                show(step)
            self.step(nodeid, step)

        return both

    def step(self, nodeid: str, step: Step) -> None:
        """Add a step to the growing journal, unless the last one was added just now."""
        now = perf_counter()
        last, before = self._steps.get(nodeid, (0.0, None))
        is_new = before is None or step.what != before.what or step.note != before.note
        if self.collector is not None and (is_new or now - last >= SECONDS_BETWEEN_STEPS):
            self._steps[nodeid] = now, step
            progress = entries.Progress(
                what=step.what, done=step.done, total=step.total, bad=step.bad, note=step.note
            )
            self.collector.note(entries.Line(nodeid, 0, progress))

    @pytest.hookimpl(tryfirst=True)  # before the terminal's header, which has the address
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Start the server."""
        if session.config.getoption("collectonly"):
            return
        try:
            self._address = self._start()
        except BadArgument as error:
            raise pytest.UsageError(str(error)) from None

    def pytest_report_header(self) -> str:
        """Return the address, for the header."""
        text, self._address = self._told(), ""
        return text

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Print the address, if the terminal shows no header."""
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None and self._address:
            terminal.write_line(self._told())

    def _told(self) -> str:
        return f"mlchaos: live report at {self._address} until the session ends"

    def _start(self) -> str:
        code = _SERVE.format(
            path=[os.path.abspath(path) for path in sys.path],
            journal=self.journal,
            port=self._port,
            parent=os.getpid(),
        )
        with deferred(), tempfile.TemporaryFile("w+") as errors:
            self._server = subprocess.Popen(
                # -P: the current directory may have modules with the names of others
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C ends the session, which ends the server
            )
            TOOL_PROCESSES.add(self._server.pid)
            answer = self._first_line()
            if not answer.startswith("http"):
                self._kill()
                errors.seek(0)
                reason = errors.read().strip().rpartition("\n")[2]
                answer = answer.removeprefix("error: ") or reason or "the server gave no address"
                raise BadArgument(f"{OPTION}: {answer}")
        return answer

    def _first_line(self) -> str:
        assert self._server is not None
        assert self._server.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._server.stdout, selectors.EVENT_READ)
            ready = selector.select(START_SECONDS)
        return self._server.stdout.readline().strip() if ready else ""

    def pytest_unconfigure(self) -> None:
        """End the server. An open page fetches the end of the session first."""
        try:
            self._end()
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self) -> None:
        server = self._server
        if server is None:
            return
        try:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                server.communicate("end\n", timeout=END_SECONDS)
        finally:
            self._kill()

    def _kill(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.kill()
        server.wait()
        TOOL_PROCESSES.discard(server.pid)
        for pipe in (server.stdin, server.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
