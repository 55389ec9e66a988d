"""A worker: runs shares one after the other, each in a pytest that is forked from a warm process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from ..reports.journal_reader import timings_path
from .allocation import Share
from .engine import Done, Session
from .warm_process import CANCEL, GRACE_SECONDS, POOLS

__all__ = ["WarmWorker", "WorkerDied"]

MAX_OUTPUT_BYTES = 1 << 14
"""The end of pytest's output that is kept."""


class WorkerDied(Exception):
    """The warm process has ended, for example because it was killed."""


class WarmWorker:
    """Starts its process at the first share. ``stop`` can be called from a different thread.

    Args:
        session: The session. Its project is a directory of this machine.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    @property
    def pid(self) -> int | None:
        """Return the process id of the warm process, or None before the first share."""
        return None if self._process is None else self._process.pid

    def run(self, name: str, share: Share) -> Done:
        """Run a share, and return what became of it under the worker's name.

        Raises:
            WorkerDied: The warm process has ended, or ``stop`` was called.
        """
        with tempfile.TemporaryDirectory(prefix="mlchaos-share-") as folder:
            journal = Path(folder, "journal.jsonl")
            output = Path(folder, "output.txt")
            request = {
                "folder": os.path.join(self._session.project, self._session.folder),
                "arguments": [
                    *self._session.arguments,
                    f"--mlchaos-shard={share}",
                    f"--mlchaos-journal={journal}",
                ],
                "environment": {
                    **os.environ,
                    "MLCHAOS_PROCESSORS": str(self._session.processors),
                },
                "output": str(output),
            }
            exit_code = self._ask(request)
            return Done(
                name,
                exit_code,
                _content(journal),
                _content(timings_path(journal)),
                _content(output)[-MAX_OUTPUT_BYTES:].decode(errors="replace"),
            )

    def _ask(self, request: Mapping[str, object]) -> int:
        try:
            connection = self._connected()
            connection.sendall(f"{json.dumps(request)}\n".encode())
            answer = b""
            while not answer.endswith(b"\n"):
                more = connection.recv(1 << 10)
                if not more:
                    break
                answer += more
        except OSError as error:
            self.stop()
            raise WorkerDied(str(error)) from None
        if not answer.endswith(b"\n"):
            process = self._process
            self.stop()
            code = None if process is None else process.returncode
            raise WorkerDied(f"its process ended with exit code {code}")
        return int(answer)

    def _connected(self) -> socket.socket:
        with self._lock:
            if self._stopped:
                raise OSError("the worker was stopped")
            if self._socket is None:
                ours, theirs = socket.socketpair()
                with theirs:
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", f"{__package__}.warm_process", str(theirs.fileno())],
                        pass_fds=[theirs.fileno()],
                        stdin=subprocess.DEVNULL,
                        env={
                            "PYTHONHASHSEED": "0",  # one order of sets in all workers
                            **os.environ,
                            **dict.fromkeys(POOLS, "1"),
                        },
                        start_new_session=True,  # Ctrl-C is for the runner, which stops this
                    )
                self._socket = ours
            return self._socket

    def cancel(self) -> None:
        """End the running share. ``run`` returns then, and the process stays warm."""
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.sendall(CANCEL)

    def hang_up(self) -> None:
        """Let the process end, and a running pytest with it. Do not wait for it."""
        with self._lock:
            self._stopped = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)  # a thread may wait in recv

    def stop(self) -> None:
        """End the process, and a running pytest with it. The worker cannot be used again."""
        self.hang_up()
        if self._process is not None:
            try:
                self._process.wait(2 * GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        with self._lock:
            if self._socket is not None:
                self._socket.close()


def _content(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""
