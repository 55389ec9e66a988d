"""Run an engine in a process apart: the library of a cluster may end its process.

Ray does so when its cluster goes away. ``python -m pytest_mlchaos.cluster.apart FD`` is that
process. It gets the calls of the engine through a socket, and sends the events.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.interrupts import deferred
from ..processes.messages import read_message, write_message
from ..processes.process_tree import die_with_parent
from .allocation import Share
from .engine import ClusterError, Event, Session

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["ApartEngine", "main"]

START_SECONDS = 120.0
"""The time that the library has to connect to its cluster, and to copy the project."""
STOP_SECONDS = 30.0
"""The time that the engine has to end everything."""


class ApartEngine:
    """An engine that runs in a process apart.

    Args:
        name: The name of the engine.
        session: The session.
        address: The address of the cluster, or None.
    """

    def __init__(self, name: str, session: Session, address: str | None) -> None:
        self._order = (name, session, address)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # ``stop`` closes it
        self._workers = 0

    def start(self, workers: int) -> None:
        """Start the process and its engine."""
        ours, theirs = socket.socketpair()
        with theirs, deferred():
            self._socket = ours
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C is for the runner, which stops this
            )
        self._workers = workers
        self._send((*self._order, workers, os.getpid()))
        self._socket.settimeout(START_SECONDS)
        try:
            self._receive()
        except TimeoutError:
            raise ClusterError(f"the cluster did not answer within {START_SECONDS:.0f} s") from None
        self._socket.settimeout(None)

    def _send(self, message: object) -> None:
        assert self._socket is not None
        try:
            write_message(self._socket.fileno(), message)
        except OSError:
            raise self._went_away() from None

    def _receive(self) -> Sequence[Event]:
        assert self._socket is not None
        try:
            found = read_message(self._socket.recv)
        except TimeoutError:
            raise
        except OSError:
            found = None
        if found is None:
            raise self._went_away()
        if isinstance(found, ClusterError):
            raise found
        events: Sequence[Event]
        self._workers, events = found
        return events

    def _went_away(self) -> ClusterError:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return ClusterError(f"the cluster went away. {lines[-1].strip() if lines else ''}".strip())

    def workers(self) -> int:
        """Return the number of workers that are there or starting."""
        return self._workers

    def give(self, worker: str, share: Share) -> None:
        """Let an idle worker run a share."""
        self._send(("give", worker, share))

    def cancel(self, worker: str) -> None:
        """End the share of a worker."""
        self._send(("cancel", worker))

    def wait(self, seconds: float) -> Sequence[Event]:
        """Return what has happened."""
        del seconds  # the process sends an empty list after this time
        return self._receive()

    def stop(self) -> None:
        """End the engine and its process."""
        with deferred():
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            if self._process is not None:
                try:
                    self._process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        self._errors.close()

    def now(self) -> float:
        """Return the time in seconds."""
        return time.monotonic()


def main() -> None:
    """Run one engine until the socket closes."""
    from .engine import POLL_SECONDS
    from .engines import ENGINES

    connection = socket.socket(fileno=int(sys.argv[1]))
    fd = connection.fileno()
    order = read_message(connection.recv)
    if order is None:
        return
    name, session, address, workers, parent = order
    die_with_parent(parent)
    engine = ENGINES[name].make(session, address)
    try:
        engine.start(workers)
        write_message(fd, (engine.workers(), []))
        ending = threading.Event()
        threading.Thread(target=_obey, args=(connection, engine, ending), daemon=True).start()
        while not ending.is_set():
            events = engine.wait(POLL_SECONDS)
            write_message(fd, (engine.workers(), events))
    except ClusterError as error:
        write_message(fd, error)
    except OSError:
        pass  # the runner has closed the socket
    engine.stop()


def _obey(connection: socket.socket, engine: Engine, ending: threading.Event) -> None:
    """Carry out the calls of the runner until it closes the socket."""
    while (order := read_message(connection.recv)) is not None:
        call, *arguments = order
        getattr(engine, call)(*arguments)
    ending.set()


if __name__ == "__main__":
    main()
    os._exit(0)  # threads of the library may still run
