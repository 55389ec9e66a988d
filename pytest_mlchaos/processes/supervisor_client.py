"""The runner's end of a supervisor of fresh processes."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Collection, Sequence
from typing import Any

from .child import Start
from .fork_server import ForkServer
from .messages import read_message, write_message
from .subject_pickling import SameFiles
from .supervisor import JOB, WARM, Job

__all__ = ["SupervisorClient"]

CLOSE_TIMEOUT_SECONDS = 20.0
"""Seconds for a supervisor to end what it has running."""


class SupervisorClient:
    """One supervisor. ``warm``: the modules that it has imported itself; ``generation``: of the libraries that it has.

    ``unread``: it was killed before it read all that it was sent, so it has started nothing of that. ``working``: it was sent a job, and
    has not answered yet.
    """

    def __init__(self, server: ForkServer, generation: int) -> None:
        self.generation = generation
        self.alive = True
        self.unread = self.working = False
        self.warm: set[str] = set()
        self._files: SameFiles | None = None
        self.socket, theirs = socket.socketpair()
        with theirs:
            try:
                server.fork([theirs.fileno()])
            except BaseException:
                self.socket.close()
                raise

    def begin(self, job: Job, fds: Sequence[int]) -> None:
        """Have it start a process."""
        if job.files is self._files:
            job = dataclasses.replace(job, files=None)
        socket.send_fds(self.socket, [JOB], fds)
        write_message(self.socket.fileno(), job)
        self._files = job.files or self._files
        self.working = True

    def import_there(self, start: Start, files: SameFiles, modules: Collection[str]) -> bool:
        """Have it import modules, the user's in the order in which they were imported here; False when it must not be used any more."""
        names = [*(name for name in files.files if name in modules), *(name for name in modules if name not in files.files)]
        self.socket.sendall(WARM)
        write_message(self.socket.fileno(), (start, files, names))
        told = self.hear(None)
        if told is None:
            raise ConnectionError("it ended")
        self.warm.update(modules)
        self._files = files
        return bool(told[1])

    def hear(self, timeout: float | None) -> Any:
        """What it says next; None when it is gone, or says nothing in time."""
        try:
            self.socket.settimeout(timeout)
            told = read_message(self.socket.recv)
            self.socket.settimeout(None)
        except OSError as error:
            self.unread = isinstance(error, ConnectionResetError)  # a socket that is closed with data in its queue resets its peer
            told = None
        if told is None:
            self.close()
        return told

    def close(self) -> None:
        """End it, and what it has running."""
        if self.alive:
            self.alive = False
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
                self.socket.settimeout(CLOSE_TIMEOUT_SECONDS)
                while self.socket.recv(1 << 16):
                    pass
            self.socket.close()
