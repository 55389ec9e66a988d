"""A warm process that others are forked from: it has imported what is slow to import, and done nothing else.

Not ``multiprocessing``'s: there is one of that in a process, it belongs to the user, and what it forks is hard to end for certain.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...errors import MlchaosError
from ..bystanders import OUR_PROCESSES
from ..places import PACKAGE
from ..scopes import OURS, within

__all__ = ["ForkServer", "serve"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

STARTUP = 180.0
"""Seconds until the libraries are imported; a cold disk takes long."""
MAX_FDS = 250
_BOOT = (
    "import sys; sys.path.insert(0, {home!r}); from pytest_mlchaos.engine.ranks.forkserver import serve; sys.path[:] = {path!r}; "
    "serve({fd}, {preload!r})"
)
"""The package comes from where this process has it, whatever else is on the path."""


class ForkServer:
    """One warm process; it ends with this process, however this one ends."""

    def __init__(self, preload: Iterable[str]) -> None:
        self._preload = tuple(preload)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        atexit.register(self.stop)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def fork(self, fds: Sequence[int]) -> None:
        """Have a process forked that holds these file descriptors, and runs :func:`~pytest_mlchaos.engine.ranks.agent.main` with them."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._send(fds)
                return
            self._close()  # it has died, or was killed: once more, with a new one
            try:
                self._send(fds)
            except OSError as error:
                raise MlchaosError(f"the process that ranks are forked from does not answer: {error}") from error

    def stop(self) -> None:
        """End the warm process, and wait until it is gone."""
        with self._lock:
            self._close()

    def _send(self, fds: Sequence[int]) -> None:
        if self._socket is None:
            self._start()
        assert self._socket is not None
        socket.send_fds(self._socket, [b"w"], list(fds))

    @within(OURS)
    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        boot = _BOOT.format(
            home=str(Path(PACKAGE).parent), path=[os.path.abspath(path) for path in sys.path], fd=theirs.fileno(), preload=self._preload
        )
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONHASHSEED": "0"}  # one thread a rank, as torchrun sets it
        with theirs, tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", boot],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the runner; what it means for ranks, the runner says
            )
            OUR_PROCESSES.add(self._process.pid)
            self._socket = ours
            theirs.close()
            ours.settimeout(STARTUP)
            answer = ours.recv(1)
            ours.settimeout(None)
            if not answer:
                errors.seek(0)
                text = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
                self._close()
                raise MlchaosError(f"the process that ranks are forked from did not start: {text or 'no reason given'}")

    def _close(self) -> None:
        process, self._process = self._process, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if process is not None:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _forget(self) -> None:
        """In a forked child: the warm process is the parent's, and must not outlive it because a child holds its socket."""
        self._lock = threading.Lock()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.returncode = 0  # no child of this process: nothing to wait for
            self._process = None


def serve(fd: int, preload: Sequence[str]) -> None:
    """Import, then fork whenever asked, until the other end of the socket is closed."""
    for name in preload:
        with contextlib.suppress(ModuleNotFoundError):  # an extra that is not installed
            importlib.import_module(name)
    from .agent import main

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave no zombies
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=fd) as runner:
        runner.sendall(b"+")
        while True:
            data, fds, _, _ = socket.recv_fds(runner, 1, MAX_FDS)
            if not data:
                return
            if os.fork() == 0:
                runner.close()
                main(fds)  # does not return
            for received in fds:
                os.close(received)
