"""Start and end the process of a server, and keep what it writes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from time import monotonic, sleep  # the real ones
from typing import Any

from ...core.interrupts import deferred, register_open, unregister_open
from ...engine.scopes import INTERNAL_OPERATION, within
from ...engine.start_hook import without_hook
from ...errors import BadArgument
from ...processes.messages import Inbox, write_message
from .command import OWNER, ServerCommand
from .keeper import ENTRY

__all__ = ["ServerProcess"]

SHOWN_LINES = 12
TAIL_BYTES = 8192
KEEPER_TIMEOUT_SECONDS = 15.0
"""The time limit for a keeper to end what it started."""
POLL_SECONDS = 0.005
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))


class ServerProcess:
    """A server and all processes below it, from its start to its end.

    Attributes:
        pid: The id of its first process.
        code: The exit code of this process, or None while it runs.
        killed: True if the test killed it.
    """

    def __init__(self, command: ServerCommand, env: Mapping[str, str]) -> None:
        self.command = command
        self.pid: int | None = None
        self.code: int | None = None
        self.killed = False
        self._failure: str | None = None
        self._inbox = Inbox()
        with within(INTERNAL_OPERATION):
            self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed in end()
        self._home, theirs = socket.socketpair()
        try:
            with theirs, deferred():
                self._keeper = subprocess.Popen(
                    [sys.executable, "-c", ENTRY, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=self._output,
                    cwd=ROOT,
                    env=without_hook(os.environ),
                    start_new_session=True,
                )
                register_open(self)
        except BaseException:
            self._home.close()
            self._output.close()
            raise
        cwd = command.cwd or os.getcwd()
        self._order(do="start", command=list(command.command), env=dict(env), cwd=cwd)
        self._wait(lambda: self.pid is not None or self._failure is not None, None)
        if self._failure is not None:
            failure = self._failure
            self.end()
            raise BadArgument(f"{OWNER}: command cannot be started: {failure}")

    def __exit__(self, *_: object) -> None:
        """End the server, if an interruption skipped its end."""
        self.end()

    @property
    def is_running(self) -> bool:
        """Return True until the first process of the server has ended."""
        self._hear()
        return self.code is None and self._keeper.returncode is None

    @property
    def keeper_pid(self) -> int:
        """Return the id of the process above the server."""
        return self._keeper.pid

    def terminate(self, grace: float) -> bool:
        """Ask the server to end. Return False if it still runs after ``grace`` seconds."""
        self._order(do="signal", number=int(signal.SIGTERM))
        return self._wait(lambda: self.code is not None, grace)

    def kill(self) -> None:
        """Kill the server and all processes below it, as a machine that fails does."""
        self.killed = True
        self._order(do="kill")
        self._wait(lambda: self.code is not None, KEEPER_TIMEOUT_SECONDS)

    def end(self) -> None:
        """End the server and everything that it has started. Keep the last lines."""
        with deferred():
            if self._output.closed:
                return
            with contextlib.suppress(OSError):
                self._order(do="end")
                self._home.shutdown(socket.SHUT_WR)
            try:
                self._keeper.wait(KEEPER_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self._keeper.kill()
                self._keeper.wait()
            self._hear()
            if self.code is None:
                self.code = -signal.SIGKILL
            self._last = self.last_lines()
            self._home.close()
            self._output.close()
            unregister_open(self)

    def last_lines(self) -> str:
        """Return the last lines that the server wrote."""
        if self._output.closed:
            return self._last
        size = os.fstat(self._output.fileno()).st_size
        data = os.pread(self._output.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES))
        lines = data.decode(errors="replace").splitlines()
        return "\n".join(lines[-SHOWN_LINES:])

    def ending(self) -> str:
        """Describe how the server has ended: ``it ended with exit code 1``."""
        if self.code is None:
            return "it runs"
        if self.code < 0:
            with contextlib.suppress(ValueError):
                return f"it was ended by {signal.Signals(-self.code).name}"
        return f"it ended with exit code {self.code}"

    # -- the keeper --------------------------------------------------------------------------------

    def _order(self, **order: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            write_message(self._home.fileno(), order)

    def _wait(self, done: Any, timeout: float | None) -> bool:
        until = None if timeout is None else monotonic() + timeout
        while True:
            self._hear()
            if done():
                return True
            if self._keeper.poll() is not None:
                self._hear()
                if done():
                    return True
                if self.code is None:
                    self.code = -signal.SIGKILL
                    self._failure = self._failure or "its keeper has ended"
                return bool(done())
            if until is not None and monotonic() > until:
                return False
            sleep(POLL_SECONDS)

    def _hear(self) -> None:
        """Read the messages of the keeper so far."""
        while True:
            try:
                data = self._home.recv(1 << 16, socket.MSG_DONTWAIT)
            except (BlockingIOError, OSError):
                return
            if not data:
                return
            for kind, what in self._inbox.feed(data):
                if kind == "started":
                    self.pid = what
                elif kind == "ended":
                    self.code = what
                else:
                    self._failure = what
