"""Define the runner's end of a supervisor of fresh processes."""

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
"""The time limit for a supervisor to end its processes."""


class SupervisorClient:
    """The client of one supervisor.

    Attributes:
        warm: The modules that the supervisor has imported itself.
        generation: The generation of its libraries.
        alive: False after the end of the supervisor.
        unread: True if it was killed before it read all requests, so that it has not started the
            last one.
        working: True while it has a job.
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
        """Start a process in the supervisor."""
        if job.files is self._files:
            job = dataclasses.replace(job, files=None)
        socket.send_fds(self.socket, [JOB], fds)
        write_message(self.socket.fileno(), job)
        self._files = job.files or self._files
        self.working = True

    def import_there(self, start: Start, files: SameFiles, modules: Collection[str]) -> str | None:
        """Import modules in the supervisor, the user's in their order of import here.

        Args:
            start: The state of this process.
            files: The finder of the user's modules.
            modules: The names of the modules.

        Returns:
            The module that started a thread or ended the supervisor, so that this one must not be
            used any more, or None.

        Raises:
            ConnectionError: The supervisor has ended.
        """
        names = [
            *(name for name in files.files if name in modules),
            *(name for name in modules if name not in files.files),
        ]
        self.socket.sendall(WARM)
        write_message(self.socket.fileno(), (start, files, names))
        last: str | None = None
        while (told := self.hear(None)) is not None and told[0] == "imports":
            last = told[1]
        if told is None and last is not None:
            return last
        if told is None:
            raise ConnectionError("it ended")
        self.warm.update(modules)
        self._files = files
        unsafe: str | None = told[1]
        return unsafe

    def hear(self, timeout: float | None) -> Any:
        """Return the next message, or None if the supervisor has ended or the time is over."""
        try:
            self.socket.settimeout(timeout)
            told = read_message(self.socket.recv)
            self.socket.settimeout(None)
        except OSError as error:
            # A socket that is closed with unread data resets its peer.
            self.unread = isinstance(error, ConnectionResetError)
            told = None
        if told is None:
            self.close()
        return told

    def close(self) -> None:
        """End the supervisor and its processes."""
        if self.alive:
            self.alive = False
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
                self.socket.settimeout(CLOSE_TIMEOUT_SECONDS)
                while self.socket.recv(1 << 16):
                    pass
            self.socket.close()
